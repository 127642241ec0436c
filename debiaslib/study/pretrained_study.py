"""An experiment's measurements for one network that was trained elsewhere, as the only arm. Imports no torch.

Data, timesteps, samplers and numbers are the experiment's; schedule, prediction type, resolution and clipping are the
network's. Results lie in a folder of their own, results/<experiment>--<network>, named by what the network is.
"""

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace

from ..training.arms import PRETRAINED
from .experiment import Experiment

_KNOWN = ("resolution", "timesteps", "prediction_type", "learned_variance", "network")
# What decides a training and says nothing of a network that is there already.
_OF_TRAINING = ("timestep_sampling", "zero_terminal_snr", "snapshots")


@dataclass(frozen=True)
class OneNetwork(Experiment):
    """An `Experiment`, checked before, whose only arm is `arms.PRETRAINED`."""

    def __post_init__(self):
        self._check_numbers()  # the network may have another number of timesteps

    def train_config(self, arm, seed):
        """What a training of such a network on the experiment's data and device would be."""
        config = super().train_config("constant" if arm == PRETRAINED else arm, seed)
        return dataclasses.replace(config, network=self.training["network"])  # whole, not merged with the preset's


def experiment_of_one(given, experiment):
    """The `OneNetwork` of a `Pretrained`. Raises InputError for a timestep that the network does not have."""
    network = {key: value for key, value in given.network.config.items() if not key.startswith("_")}
    training = {key: value for key, value in experiment.training.items() if key not in _OF_TRAINING}
    training |= {"network": {**network, "out_channels": network["in_channels"]}, "timesteps": given.schedule.T}
    training |= {name: getattr(given, name) for name in ("resolution", "prediction_type", "learned_variance")}
    settings = {field.name: getattr(experiment, field.name) for field in dataclasses.fields(Experiment)}
    settings |= {"weightings": (PRETRAINED,), "variants": (), "seeds": (0,), "raw_weights": False}
    settings |= {"name": f"{experiment.name}--{given.slug}", "training": training, "clip_x0": given.clip_x0}
    return OneNetwork(**settings)


def run_of_one(given, experiment):
    """What a `Run` says of a training, its config and record: "unknown", and 0 images, where nobody has said it."""
    said = experiment.train_config(PRETRAINED, 0).to_dict()
    assumed = {name: value if name in _KNOWN else "unknown" for name, value in said.items()}
    facts = given.training or {**assumed, "schedule": given.schedule.name}
    images = given.training.get("images", 0)
    record = {"config": facts, "data": {"name": facts["dataset"]}, "images": images, "snapshots": [{"images": images}]}
    record["parameters"] = sum(parameter.numel() for parameter in given.network.parameters())
    return SimpleNamespace(config=facts, record=record)
