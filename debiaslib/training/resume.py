"""What a checkpoint holds of a training, and how all processes go on from it."""

from ..errors import InputError
from .checkpoints import load_checkpoint, remove_half_written, tidy

__all__ = ["start", "training_state"]


def training_state(training):
    """The state of a `Training` after its last step: what `torch.save` can write."""
    return {
        "network": training.network.state_dict(),
        "optimizer": training.optimizer.state_dict(),
        "ema": training.ema.state_dict(),
        "sums": training.log.total,
        "seconds": training.seconds,
        "processes": training.shares,
        "log": training.log.rows,
    }


def start(training):
    """Take the last checkpoint's state, if there is one, in every process.

    Raises InputError in all of them if every checkpoint is damaged, or the processes find different ones.
    """
    run, world = training.run, training.world
    with world.raise_together():
        _resume(training)
    newest = world.broadcast(training.step)
    with world.raise_together():
        if training.step != newest:
            raise InputError(
                f"one process finds the checkpoint of step {training.step} in {run.folder} and the first that of step "
                f"{newest}; the folder must be the same for all"
            )
    if world.first:  # every process has read by now
        training.log.rewrite()
        tidy(run.folder / "checkpoints", training.step)
        remove_half_written(run.folder)
    training.model = world.replicate(training.network)
    if world.size > 1:
        # After its first backward pass DistributedDataParallel lays the gradients out anew. Were that a step, those of
        # a resumed training would be added in another order than those of an uninterrupted one.
        training.backward(training.batches(training.step))
        training.network.zero_grad(set_to_none=True)


def _resume(training):
    step, state = load_checkpoint(training.run.folder / "checkpoints")
    training.step = step
    if state is not None:
        training.network.load_state_dict(state["network"])
        training.optimizer.load_state_dict(state["optimizer"])
        training.ema.load_state_dict(state["ema"])
        training.ema.to(training.config.device)
        training.seconds, training.log.total, training.log.checkpoint = state["seconds"], state["sums"], step
        # Rows come from the checkpoint, not from the file; checkpoints of an earlier version hold none.
        rows = state["log"] if "log" in state else training.run.log()
        training.log.rows = [row for row in rows if row["step"] <= step]
    # Who takes which steps: lists of (first step, processes, backend).
    before = [share for share in (state or {}).get("processes", [[0, 1, None]]) if share[0] < step]
    now = [training.world.size, training.world.backend(training.config.device)]
    training.shares = before if before and before[-1][1:] == now else [*before, [step, *now]]
