"""Trained networks, for evaluation: of a run of ours, also as published, or of others."""

import os
from pathlib import Path

from safetensors.torch import load_file

from ..devices import check_device
from ..errors import InputError
from ..files import sha256_file
from ..paths import user_path
from .arms import split_settings
from .network import build_network, build_schedule
from .pretrained import Pretrained, read_pretrained
from .run import Run, run_config

_DECIDES = ("network", "schedule", "timesteps", "zero_terminal_snr", "prediction_type", "learned_variance")


def load_model(source, images=None, device="cpu", *, raw=False, **settings):
    """A trained network for evaluation, float32.

    source: a complete `Run` or its folder, whose EMA weights after `images` images are taken (None: at the end), or
        with `raw` the last step's own weights; or what `load_pretrained` takes, with its settings.
    Raises InputError if the run is not complete, a file is not what its record says, and as `load_pretrained` does.
    """
    check_device(device)
    if not raw and images is None:
        return load_pretrained(source, **settings).network.to(device)
    run = _own_run(source)
    if run is None:
        raise InputError(f"{source} is no run of ours, so it has no snapshots; leave out images and raw")
    return _network(run_config(run), run.raw_weights() if raw else run.snapshot(images)).to(device)


def load_pretrained(source, **settings):
    """A network with its schedule, prediction type, resolution and identity: a `Pretrained`.

    source: what `pretrained.read_pretrained` takes (a diffusers pipeline, an ADM checkpoint, either as "source;
        name=value"); or the folder of a complete run of ours, such as one that `published_weights` wrote.
    Half precision becomes float32. Raises InputError, in one line, for anything else.
    """
    if isinstance(source, (str, Path)):
        source, given = split_settings("model", str(source))
        settings = {**given, **settings}
    run = _own_run(source)
    if run is None:
        return read_pretrained(source, **settings)
    if settings:
        raise InputError(f"a network of ours takes no setting; got {next(iter(settings))!r}")
    path, config = run.snapshot(), run_config(run)
    network, made, schedule = _network(config, path), config.to_dict(), build_schedule(config)
    facts = {key: made[key] for key in _DECIDES}
    return Pretrained(run.name, network, schedule, config.prediction_type, True, sha256_file(path), facts, made)


def _network(config, path):
    network = build_network(config, initialise=False)
    try:
        network.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    except RuntimeError as error:
        raise InputError(f"{path} does not fit its config.json: {error}") from None
    return network.eval().requires_grad_(False)


def _own_run(source):
    """The `Run` that `source` is, complete or not, or None."""
    run = source if isinstance(source, Run) else Run(user_path(source))
    begun = any(os.path.isfile(run.folder / name) for name in ("record.json", "log.jsonl"))
    return run if begun or isinstance(source, Run) else None
