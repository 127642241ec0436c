"""Training of one (weighting, seed), resumable to the bit.

    python -m debiaslib.training --experiment quick --weighting debiased --seed 0
    torchrun --standalone --nproc-per-node 4 -m debiaslib.training --experiment quick --weighting debiased --seed 0

To resume, run the same command again. Images, timesteps, noise and flips of step s come from (seed, purpose, s) alone,
so all weightings of one seed see the same ones, and start from equal network weights. Several processes share each
batch (`distributed.py`): they take the same steps as one up to rounding. The loss is in `objective.py`.
"""

import json
import math
import sys
import time

import torch
from diffusers.training_utils import EMAModel
from tqdm import tqdm

from ..data.images import Pixels, load_images
from ..devices import check_device
from ..diffusion.randomness import stream, stream_seed
from ..diffusion.sampling import to_float
from ..errors import InputError
from ..files import naming, write_json, write_text
from ..signals import StopFlag
from .acceleration import concrete_precision, prepare_network
from .checkpoints import load_checkpoint, save_checkpoint, tidy
from .flat_parameters import FlatParameters
from .loss_sums import LossSums
from .network import build_network
from .objective import Objective, check_trainable
from .processes import current_world
from .run import check_processes, check_settings, find_run
from .write_record import remove_half_written, save_weights, write_record

_LOG_ROWS = 200


def train(config, results="", experiment="notebook", *, progress=True, checkpoint_seconds=30, any_processes=False):
    """Train as `config` says in results/<experiment>/runs/<arm>-s<seed>/ and return the `Run`.

    Resumes from the last checkpoint; returns at once when the run is complete. SIGINT and SIGTERM save a checkpoint at
    the next step and end the process (130, 143). Within `distributed.processes` all processes call this alike and share
    each batch; a signal to one stops all, and the first writes. `any_processes` lets a run be gone on with by another
    number of them, which the record then says.

    Raises InputError, before anything is written, if the folder holds a run made with other settings (naming the first
    field that differs), if another process has it, and if the device is absent or the batch cannot be shared; and if
    the loss stops being finite (naming the step).
    """
    world = current_world()
    with world.together():
        check_device(config.device)
        shown = progress and world.first
        run = find_run(experiment, config.arm, config.seed, results)
        if run.config is None:  # what has been begun could be, and may differ in more than its weight
            check_trainable(config)
        images = load_images(config.dataset, config.resolution, progress=shown, classes=config.classes)
        config = concrete_precision(config, run.config)
        wanted = {**config.to_dict(), **images.identity}
        check_settings(run, wanted)
    if world.same(run.record is not None):
        return run
    with world.together():
        world.check(config.device, config.batch_size)
    with world.exclusive(run.folder / ".lock", f"the run {run.folder}"):
        if world.same(run.record is None):  # it may have been completed while we waited
            with world.together():
                check_settings(run, wanted)
                check_processes(run, world.size, any_processes)
                torch.set_num_threads(config.threads)
                training = _Training(run, config, images)  # refuses what cannot be trained before anything is written
            if world.first:
                several = {"processes": world.size} if world.size > 1 else {}
                write_json(run.folder / "config.json", {**wanted, **several})
            training.finish(progress and world.first, checkpoint_seconds)
    return run


class _Training:
    """The state of one training: what a checkpoint holds, and the loop."""

    def __init__(self, run, config, images):
        self.run, self.config, self.data, self.world = run, config, images, current_world()
        self.network = self.model = prepare_network(build_network(config).to(config.device).train(), config)
        self.weights = FlatParameters(self.network)
        self.optimizer = torch.optim.AdamW(
            self.weights.tensors, lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.ema = EMAModel(self.weights.tensors, decay=config.ema_decay, foreach=True)
        self.objective = Objective(config)
        self.pixels = Pixels(images.images, config.device)
        self.labels = None if images.labels is None else torch.from_numpy(images.labels)
        self.sums = LossSums(run.name, config.lr, config.device, self.world.refuse)
        self.seconds, self.step = 0.0, 0

    def _resume(self):
        step, state = load_checkpoint(self.run.folder / "checkpoints")
        if state is not None:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(self.weights.join_moments(state["optimizer"]))
            averages = self.weights.join(state["ema"]["shadow_params"])
            self.ema.load_state_dict({**state["ema"], "shadow_params": averages})
            self.sums.total, self.sums.checkpoint, self.seconds = state["sums"], step, state["seconds"]
        self._note_processes(step, (state or {}).get("processes", [[0, 1, None]]))
        # As the checkpoint has it, whatever became of the file; one of an earlier version has none.
        self.rows = (state["log"] if "log" in state else self.run.log()) if state is not None else []
        self.rows = [row for row in self.rows if row["step"] <= step]
        self.last_row = self.rows[-1] if self.rows else {"images": 0, "seconds": 0.0}
        if self.world.first:
            write_text(self.run.folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in self.rows))
        return step

    def _note_processes(self, step, before):
        """Keep who takes which steps: lists of (first step, processes, backend), up to this step and from here on."""
        now = [self.world.size, self.world.backend(self.config.device)]
        kept = [entry for entry in before if entry[0] < step]
        self.shares = kept if kept and kept[-1][1:] == now else [*kept, [step, *now]]

    def _save(self):
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.weights.split_moments(self.optimizer.state_dict()),
            "ema": {**self.ema.state_dict(), "shadow_params": self.weights.split(self.ema.shadow_params)},
            "sums": self.sums.total,
            "seconds": self.seconds,
            "processes": self.shares,
            "log": self.rows,
        }
        save_checkpoint(self.run.folder / "checkpoints", self.step, state)
        self.sums.checkpoint = self.step

    def finish(self, progress, checkpoint_seconds):
        """Go on from the last checkpoint, run the remaining steps, then write the record."""
        config, steps, world = self.config, self.config.steps, self.world
        self._start()
        snapshots = {-(-count // config.batch_size) for count in (*config.snapshots, config.images)}
        saved = time.monotonic()
        with torch.enable_grad(), StopFlag(patient=world.size > 1) as stop, self._bar(progress) as bar:
            while self.step < steps:
                started = time.monotonic()
                self._one_step()
                row_is_due = self.step % max(1, steps // _LOG_ROWS) == 0 or self.step == steps
                if row_is_due:
                    self.sums.settle()  # here, so that what a GPU still has to do counts in the row's seconds
                self.seconds += time.monotonic() - started
                bar.update(config.batch_size)
                # Asked once a step, and alike in all: what signal came, and whether a checkpoint is due. A signal that
                # comes after this is the next step's.
                word = world.largest(2 * (stop.signal or 0) + (time.monotonic() - saved >= checkpoint_seconds))
                agreed, due = word // 2, word > 0 or self.step == steps
                if due or self.step in snapshots:
                    self._check_sound()
                if world.first:
                    self._write(self.step in snapshots, due)
                saved = time.monotonic() if due else saved
                if agreed:
                    self._leave(stop, agreed)
            if world.first:
                self._record(snapshots)
            world.wait()
        if stop.signal is not None:  # it came after the last step was taken: nothing is left, but the caller is told
            stop.leave()

    def _check_sound(self):
        """End the training before anything is kept of a network that an update has broken.

        The loss of each step is that of the network before its update, so the one that follows is asked for too: that
        of the next step's batch, without the copies of `replicate` and without gradients.
        """
        self.sums.settle()
        torch.manual_seed(stream_seed(self.config.seed, self.world.purpose("dropout"), self.step))
        with self.world.together(), torch.no_grad():
            loss = float(self.objective.loss(self.network.forward, *self._batch())[0])
            if not math.isfinite(loss):
                where = f"at step {self.step + 1}" if self.step < self.config.steps else "after the last step"
                raise InputError(self.sums.line(f"{where} (loss {loss:g})"))

    def _start(self):
        """Take the last checkpoint's state in every process."""
        with self.world.together():
            self.step = self._resume()
        newest = self.world.same(self.step)
        with self.world.together():
            if self.step != newest:
                raise InputError(
                    f"one process finds the checkpoint of step {self.step} in {self.run.folder} and the first that of "
                    f"step {newest}; the folder must be the same for all"
                )
        if self.world.first:  # every process has read by now
            tidy(self.run.folder / "checkpoints", self.step)
            remove_half_written(self.run)
        self.model = self.world.replicate(self.network)
        if self.world.size > 1:
            # After its first backward pass DistributedDataParallel lays the gradients out anew. Were that a step, those
            # of a resumed training would be added in another order than those of an uninterrupted one.
            self.objective.loss(self.model, *self._batch())[0].backward()
            self.network.zero_grad(set_to_none=True)

    def _write(self, snapshot, checkpoint):
        if self.step % max(1, self.config.steps // _LOG_ROWS) == 0 or self.step == self.config.steps:
            self._log()
        if snapshot:
            self._snapshot()
        if checkpoint:
            self._save()

    def _leave(self, stop, number):
        self.world.wait()  # until the first has saved: torchrun ends the others when one has ended
        if self.world.first:
            print(
                f"saved {self.run.name} at step {self.step} of {self.config.steps}; the same call goes on from there",
                file=sys.stderr,
            )
        stop.leave(number)

    def _bar(self, progress):
        size = self.config.batch_size
        return tqdm(
            total=self.config.steps * size,
            initial=self.step * size,
            desc=self.run.name,
            unit="image",
            unit_scale=True,
            mininterval=2 if sys.stderr.isatty() else 10,
            disable=not progress,
        )

    def _one_step(self):
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = self._lr()
        torch.manual_seed(stream_seed(config.seed, self.world.purpose("dropout"), self.step))
        loss, mse = self.objective.loss(self.model, *self._batch())
        loss.backward()
        norm = torch.nn.utils.get_total_norm(self.weights.gather_gradients(), foreach=True)
        if config.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.weights.tensors, config.max_grad_norm, norm)
        means = self.world.mean(torch.stack([loss.detach(), mse]))
        self.sums.add(self.step + 1, torch.cat([means.double(), norm.double().view(1)]))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.weights.tensors)
        self.step += 1

    def _batch(self):
        """Images in [-1, 1], timesteps (on the CPU), noise and labels of this step, from (seed, purpose, step) alone.

        The whole batch is drawn in every process, and this one's part returned.
        """
        config, B, mine = self.config, self.config.batch_size, self.world.part(self.config.batch_size)
        index = self._index(self.step)
        x0 = to_float(self.pixels.take(index, lambda: self._index(self.step + 1)))
        t = self.objective.timesteps(self.step)[mine]
        if config.horizontal_flip:
            flip = torch.rand(B, generator=stream(config.seed, "flips", self.step))[mine] < 0.5
            x0 = torch.where(flip.to(x0.device, non_blocking=x0.is_cuda).view(-1, 1, 1, 1), x0.flip(-1), x0)
        generator = stream(config.seed, "noise", self.step, config.device)
        noise = torch.randn((B, *x0.shape[1:]), generator=generator, device=config.device)[mine]
        return x0, t, noise, None if self.labels is None else self.labels[index].to(config.device)

    def _index(self, step):
        generator = stream(self.config.seed, "images", step)
        size = self.config.batch_size
        return torch.randint(len(self.pixels), (size,), generator=generator)[self.world.part(size)]

    def _lr(self):
        if self.config.lr_decay == "none":
            return self.config.lr
        return self.config.lr * 0.5 * (1 + math.cos(math.pi * self.step / self.config.steps))

    def _log(self):
        rows = max(1, self.config.steps // _LOG_ROWS)
        count = rows if self.step % rows == 0 else self.step % rows
        loss, mse, norm = (self.sums.total / count).tolist()
        self.sums.total.zero_()
        images, last = self.step * self.config.batch_size, self.last_row
        row = {
            "step": self.step,
            "images": images,
            "loss": loss,
            "mse": mse,
            "grad_norm": norm,
            "lr": self.optimizer.param_groups[0]["lr"],
            "ema_decay": self.ema.cur_decay_value,
            "images_per_second": (images - last["images"]) / (self.seconds - last["seconds"]),
            "seconds": self.seconds,
        }
        self.last_row = row
        self.rows.append(row)
        path = self.run.folder / "log.jsonl"
        with naming(path), open(path, "a", encoding="utf-8") as file:  # half a row is cut off when the run goes on
            file.write(json.dumps(row) + "\n")

    def _snapshot(self):
        """Keep the EMA weights; the network's own are put back."""
        self.ema.store(self.weights.tensors)
        self.ema.copy_to(self.weights.tensors)
        save_weights(self._snapshot_path(self.step), self.network)
        self.ema.restore(self.weights.tensors)

    def _snapshot_path(self, step):
        return self.run.folder / f"ema-{step * self.config.batch_size:09d}.safetensors"

    def _record(self, snapshot_steps):
        snapshots = {step: self._snapshot_path(step) for step in sorted(snapshot_steps)}
        write_record(self.run, self.config, self.data, self.network, self.seconds, snapshots, self.shares)
