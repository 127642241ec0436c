"""Training of one (weighting, seed), resumable to the bit.

    python -m debiaslib.training --experiment quick --weighting debiased --seed 0
    torchrun --standalone --nproc-per-node 4 -m debiaslib.training --experiment quick --weighting debiased --seed 0

To resume, run the same command again. `train` checks and locks; `Training` reads in the order of a training. The loss
is in `objective.py`, each step's batch in `batches.py`, saving and resuming in `checkpoints.py`.
"""

import sys
import time
from contextlib import nullcontext

import torch
from diffusers.training_utils import EMAModel
from tqdm import tqdm

from ..data.images import load_images
from ..devices import check_device
from ..diffusion.randomness import stream_seed
from ..files import exclusive, write_json
from ..provenance import provenance
from ..signals import StopFlag, leave
from .batches import Batches
from .checkpoints import resume, save_checkpoint, save_weights, training_state
from .log import TrainingLog
from .network import build_network, check_network, prepare_network
from .objective import Objective
from .processes import current_world
from .run import check_settings, find_run, write_record


def train(config, results="", experiment="notebook", *, progress=True, checkpoint_seconds=30):
    """Train as `config` says in results/<experiment>/runs/<arm>-s<seed>/ and return the `Run`.

    Resumes from the last checkpoint; returns at once when the run is complete. SIGINT and SIGTERM save a checkpoint at
    the next step and end the process (exit status 130, 143). Within `processes.processes` all processes make this call
    and share each batch; a signal to one stops all, and the first one writes.

    Raises InputError, before anything is written, if the folder holds a run made with other settings (naming the first
    field that differs), if the device is absent and if the batch cannot be shared; and, naming the step, if the loss
    stops being finite.
    """
    world = current_world()
    progress = progress and world.first
    check_device(config.device)
    provenance()  # asked for now and remembered: the checkout may be another one when the record is written
    run = find_run(experiment, config.arm, config.seed, results)
    images = load_images(config.dataset, config.resolution, progress=progress, classes=config.classes)
    wanted = {**config.to_dict(), **images.identity}
    check_settings(run, wanted)
    if world.broadcast(run.record is not None):
        return run
    world.check(config.device, config.batch_size)
    with exclusive(run.folder / ".lock", f"the run {run.folder}") if world.first else nullcontext():
        if world.broadcast(run.record is None):  # another process may have completed it while we waited
            check_settings(run, wanted, world.size)
            threads = torch.get_num_threads()
            torch.set_num_threads(config.threads)
            try:
                training = Training(run, config, images)  # refuses what cannot be trained before anything is written
                if world.first:
                    several = {"processes": world.size} if world.size > 1 else {}
                    write_json(run.folder / "config.json", {**wanted, **several})
                training.finish(progress, checkpoint_seconds)
            finally:
                torch.set_num_threads(threads)
    return run


class Training:
    """One training: its network, optimiser, moving average, batches and log. `finish` takes the steps that are left."""

    def __init__(self, run, config, images):
        self.run, self.config, self.images, self.world = run, config, images, current_world()
        network = build_network(config)
        check_network(network, config.resolution, 6 if config.learned_variance else 3, config.classes)
        self.network = prepare_network(network.to(config.device).train(), config)
        self.model = self.network  # with several processes, a copy of it that exchanges gradients
        self.parameters = list(self.network.parameters())
        self.optimizer = torch.optim.AdamW(self.parameters, lr=config.lr, weight_decay=config.weight_decay, fused=True)
        self.ema = EMAModel(self.parameters, decay=config.ema_decay, foreach=True)
        self.objective = Objective(config)
        self.batches = Batches(config, images, self.objective, self.world)
        self.log = TrainingLog(run, config)
        self.step, self.seconds = 0, 0.0  # of the steps alone

    @property
    def images_seen(self):
        """Counted with repetition."""
        return self.step * self.config.batch_size

    def one_step(self):
        """Batch, loss, gradient, clipping, AdamW, moving average."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate(self.step)
        torch.manual_seed(stream_seed(config.seed, self.world.purpose("dropout"), self.step))
        means = self.backward(self.batches(self.step))
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if config.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, config.max_grad_norm, norm)
        self.log.add(self.step + 1, torch.cat([self.world.mean(means), norm.view(1)]))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.ema.step(self.parameters)
        self.step += 1

    def backward(self, batch):
        """Gradients of the batch's loss, over one microbatch after another; returns (loss, unweighted error), (2,)."""
        means, whole = 0, len(batch[0])
        size = self.config.microbatch or whole
        for start in range(0, whole, size):
            part = [None if tensor is None else tensor[start : start + size] for tensor in batch]
            share = len(part[0]) / whole
            with self.world.exchanging(self.model, now=start + size >= whole):
                loss, mse = self.objective.loss(self.model, *part)
                (share * loss).backward()
            means = means + share * torch.stack([loss.detach(), mse])
        return means

    def finish(self, progress=False, checkpoint_seconds=30):
        """Go on from the last checkpoint, take the remaining steps, then write the record."""
        resume(self)
        config, world, saved = self.config, self.world, time.monotonic()
        shown = {"desc": self.run.name, "unit": "image", "unit_scale": True, "mininterval": 5}
        total = config.steps * config.batch_size
        bar = tqdm(total=total, initial=self.images_seen, disable=not progress, **shown)
        with torch.enable_grad(), torch.random.fork_rng(devices=[]), StopFlag(patient=world.size > 1) as stop, bar:
            while self.step < config.steps:
                started = time.monotonic()
                self.one_step()
                if self.log.is_due(self.step):
                    self.log.flush()  # here, so that what a GPU still has to do counts in the row's seconds
                self.seconds += time.monotonic() - started
                bar.update(config.batch_size)

                # All processes agree once per step on the signal and on whether a checkpoint is due. A signal that
                # comes after this is the next step's.
                late = time.monotonic() - saved >= checkpoint_seconds
                signal, due = world.all_max(stop.signal or 0, late or self.step == config.steps)
                due, is_snapshot = due or signal, self.images_seen in config.snapshot_images
                if due or is_snapshot:
                    self._check_finite()
                if world.first:
                    self._write(is_snapshot, due)
                if due:
                    saved = time.monotonic()
                if signal:
                    world.all_max(0)  # until the first has written: torchrun ends the others when one has ended
                    if world.first:
                        done = f"at step {self.step} of {config.steps}; the same call goes on from there"
                        print(f"saved {self.run.name} {done}", file=sys.stderr)
                    leave(signal)
            if world.first:
                save_weights(self.run.weights("raw", self.images_seen), self.network)
                parameters = sum(parameter.numel() for parameter in self.parameters)
                write_record(self.run, config, self.images, parameters, self.seconds, world)
            world.all_max(0)
        if stop.signal is not None:  # it came after the last step: nothing is left to do, but the caller is told
            leave(stop.signal)

    def _write(self, is_snapshot, is_checkpoint):
        if self.log.is_due(self.step):
            self.log.write(self.step, self.seconds, self.optimizer.param_groups[0]["lr"], self.ema.cur_decay_value)
        if is_snapshot:
            self.ema.store(self.parameters)
            self.ema.copy_to(self.parameters)
            save_weights(self.run.weights("ema", self.images_seen), self.network)
            self.ema.restore(self.parameters)
        if is_checkpoint:
            save_checkpoint(self.run.folder / "checkpoints", self.step, training_state(self))

    def _check_finite(self):
        """Refuse to save a network that an update has broken; every process has the same weights and ends here."""
        self.log.flush()
        if not all(bool(parameter.isfinite().all()) for parameter in self.parameters):
            self.log.refuse(f"after step {self.step}")
