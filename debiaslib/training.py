"""Training of one (weighting, seed), resumable to the bit.

    python -m debiaslib.training --experiment quick --weighting debiased --seed 0

To resume, run the same command again. Images, timesteps, noise and flips of step s come from (seed, purpose, s) alone,
so all weightings of one seed see the same ones, and start from equal network weights. The loss is in `objective.py`.
"""

import json
import math
import sys
import time

import torch
from diffusers.training_utils import EMAModel
from safetensors.torch import save_file
from tqdm import tqdm

from .acceleration import concrete_precision, prepare_network
from .checkpoints import load_checkpoint, save_checkpoint
from .cli import experiment_parser, run_command
from .config import load_experiment
from .data import load_images
from .errors import InputError
from .files import atomic_path, exclusive, sha256_file, write_json, write_text
from .loss_sums import LossSums
from .models import build_network
from .objective import Objective
from .pixels import Pixels
from .randomness import stream, stream_seed
from .runs import check_settings, find_run, provenance
from .sampling import to_float
from .signals import StopFlag

_LOG_ROWS = 200


def train(config, results="", experiment="notebook", *, progress=True, checkpoint_seconds=30):
    """Train as `config` says in results/<experiment>/runs/<arm>-s<seed>/ and return the `Run`.

    Resumes from the last checkpoint; returns at once when the run is complete. SIGINT and SIGTERM save a checkpoint at
    the next step and end the process (130, 143). Raises InputError, before anything is written, if the folder holds a
    run made with other settings (naming the first field that differs), if another process has it, and if the device is
    absent; and if the loss stops being finite (naming the step).
    """
    check_device(config.device)
    images = load_images(config.dataset, config.resolution, progress=progress)
    run = find_run(experiment, config.arm, config.seed, results)
    config = concrete_precision(config, run.config)
    wanted = {**config.to_dict(), "data_fingerprint": images.fingerprint}
    check_settings(run, wanted)
    if run.record is not None:
        return run
    with exclusive(run.folder / ".lock", f"the run {run.folder}"):
        if run.record is None:  # it may have been completed while we waited
            check_settings(run, wanted)
            torch.set_num_threads(config.threads)
            training = _Training(run, config, images)  # refuses what cannot be trained before anything is written
            write_json(run.folder / "config.json", wanted)
            training.finish(progress, checkpoint_seconds)
    return run


def check_device(device):
    """Raise InputError if `device` is not there."""
    backend = {"cuda": torch.cuda, "mps": torch.backends.mps}.get(device.partition(":")[0])
    if backend is not None and not backend.is_available():
        raise InputError(f"device is {device!r}, which PyTorch does not find on this machine; use device='cpu'")


class _Training:
    """The state of one training: what a checkpoint holds, and the loop."""

    def __init__(self, run, config, images):
        self.run, self.config, self.data = run, config, images
        self.network = prepare_network(build_network(config).to(config.device).train(), config)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.ema = EMAModel(self.network.parameters(), decay=config.ema_decay, foreach=True)
        self.objective = Objective(config)
        self.pixels = Pixels(images.images, config.device)
        self.sums = LossSums(run.name, config.lr, config.device)
        self.seconds, self.step = 0.0, 0

    def _resume(self):
        step, state = load_checkpoint(self.run.folder / "checkpoints")
        if state is not None:
            self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.ema.load_state_dict(state["ema"])
            self.ema.to(self.config.device)
            self.sums.total, self.seconds = state["sums"], state["seconds"]
        kept = [row for row in self.run.log() if row["step"] <= step]
        self.last_row = kept[-1] if kept else {"images": 0, "seconds": 0.0}
        write_text(self.run.folder / "log.jsonl", "".join(json.dumps(row) + "\n" for row in kept))
        return step

    def _save(self):
        self.sums.settle()  # no checkpoint of a training that has broken
        state = {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "ema": self.ema.state_dict(),
            "sums": self.sums.total,
            "seconds": self.seconds,
        }
        save_checkpoint(self.run.folder / "checkpoints", self.step, state)

    def finish(self, progress, checkpoint_seconds):
        """Go on from the last checkpoint, run the remaining steps, then write the record."""
        config, steps = self.config, self.config.steps
        self.step = self._resume()
        snapshots = {-(-count // config.batch_size) for count in (*config.snapshots, config.images)}
        saved = time.monotonic()
        bar = self._bar(progress)
        log_file = open(self.run.folder / "log.jsonl", "a", encoding="utf-8")  # noqa: SIM115, closed by the next line
        with torch.enable_grad(), StopFlag() as stop, log_file as log, bar:
            while self.step < steps:
                started = time.monotonic()
                self._one_step()
                row_is_due = self.step % max(1, steps // _LOG_ROWS) == 0 or self.step == steps
                if row_is_due:
                    self.sums.settle()  # here, so that what a GPU still has to do counts in the row's seconds
                self.seconds += time.monotonic() - started
                bar.update(config.batch_size)
                if row_is_due:
                    self._log(log)
                if self.step in snapshots:
                    self._snapshot()
                due = time.monotonic() - saved >= checkpoint_seconds
                if due or stop.signal is not None or self.step == steps:
                    self._save()
                    saved = time.monotonic()
                if stop.signal is not None:
                    print(
                        f"saved {self.run.name} at step {self.step} of {steps}; the same call goes on from there",
                        file=sys.stderr,
                    )
                    stop.leave()
        self._record(snapshots)

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
        torch.manual_seed(stream_seed(config.seed, "dropout", self.step))
        loss, mse = self.objective.loss(self.network, *self._batch())
        loss.backward()
        gradients = [p.grad for p in self.network.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients, foreach=True)
        if config.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.network.parameters(), config.max_grad_norm, norm, foreach=True)
        self.sums.add(self.step + 1, torch.stack([loss.detach(), mse, norm]))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.network.parameters())
        self.step += 1

    def _batch(self):
        """Images in [-1, 1], timesteps (on the CPU) and noise of this step, from (seed, purpose, step) alone."""
        config, B = self.config, self.config.batch_size
        x0 = to_float(self.pixels.take(self._index(self.step), lambda: self._index(self.step + 1)))
        t = self.objective.timesteps(self.step)
        if config.horizontal_flip:
            flip = torch.rand(B, generator=stream(config.seed, "flips", self.step)) < 0.5
            x0 = torch.where(flip.to(x0.device, non_blocking=x0.is_cuda).view(-1, 1, 1, 1), x0.flip(-1), x0)
        generator = stream(config.seed, "noise", self.step, config.device)
        return x0, t, torch.randn(x0.shape, generator=generator, device=config.device)

    def _index(self, step):
        generator = stream(self.config.seed, "images", step)
        return torch.randint(len(self.pixels), (self.config.batch_size,), generator=generator)

    def _lr(self):
        if self.config.lr_decay == "none":
            return self.config.lr
        return self.config.lr * 0.5 * (1 + math.cos(math.pi * self.step / self.config.steps))

    def _log(self, file):
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
        file.write(json.dumps(row) + "\n")
        file.flush()

    def _snapshot(self):
        """Keep the EMA weights; the network's own are put back."""
        self.sums.settle()
        parameters = list(self.network.parameters())
        self.ema.store(parameters)
        self.ema.copy_to(parameters)
        with atomic_path(self._snapshot_path(self.step)) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}, temporary)
        self.ema.restore(parameters)

    def _snapshot_path(self, step):
        return self.run.folder / f"ema-{step * self.config.batch_size:09d}.safetensors"

    def _keep_raw(self):
        """Write the network's own weights of the last step, and return what the record says of them."""
        path = self.run.folder / f"raw-{self.step * self.config.batch_size:09d}.safetensors"
        with atomic_path(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in self.network.state_dict().items()}, temporary)
        return {"file": path.name, "sha256": sha256_file(path)}

    def _record(self, snapshot_steps):
        config = self.config
        paths = {step: self._snapshot_path(step) for step in sorted(snapshot_steps)}
        write_json(
            self.run.folder / "record.json",
            {
                "name": self.run.name,
                "config": self.run.config,
                "data": {"name": self.data.name, "fingerprint": self.data.fingerprint, "images": len(self.data.images)},
                "parameters": sum(p.numel() for p in self.network.parameters()),
                "images": config.steps * config.batch_size,
                "steps": config.steps,
                "seconds": self.seconds,
                "images_per_second": config.steps * config.batch_size / self.seconds,
                "snapshots": [
                    {"images": step * config.batch_size, "file": path.name, "sha256": sha256_file(path)}
                    for step, path in paths.items()
                ],
                "raw": self._keep_raw(),
                **provenance(config.device, config.threads),
            },
        )


def main():
    """The command line: train one (weighting, seed) of an experiment."""
    parser = experiment_parser(__doc__.splitlines()[0])
    parser.add_argument("--weighting", required=True, help="such as 'debiased' or 'p2(k=1); lr=5e-4'")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    experiment = load_experiment(arguments.experiment, arguments.dataset)
    train(experiment.train_config(arguments.weighting, arguments.seed), arguments.results, experiment.name)


if __name__ == "__main__":
    run_command(main)
