"""The loss of a training: which timesteps are drawn, and what each one's squared error counts.

    mean over images of  factor(t) * mean over pixels of (output - target)^2  [+ hybrid_term, with learned variance]

The weight w(t) is applied in one of two ways of equal expected gradient: as the factor on timesteps drawn uniformly, or
as the density from which t is drawn, with the constant factor mean(w).
"""

import torch

from ..diffusion.prediction import network_output, prediction_target
from ..diffusion.randomness import stream
from ..diffusion.variance import hybrid_term, split_variance
from ..diffusion.weighting import loss_weight
from ..errors import InputError
from .network import build_schedule


def training_weight(config, schedule):
    """The weight of a `TrainConfig` at every timestep, (T,). Raises InputError where it is infinite or 0 everywhere."""
    settings = {"normalize": "epsilon" if config.normalize_weight else False, "max_weight": config.max_weight}
    weight = loss_weight(config.weighting, schedule, config.prediction_type, **settings)
    if not weight.sum() > 0:
        raise InputError(f"the weight {config.weighting} is 0 at every timestep; use another schedule or weighting")
    return weight


class Objective:
    """The loss of a `TrainConfig`, its schedule and its weight, on the configuration's device."""

    def __init__(self, config):
        self.config, self.schedule = config, build_schedule(config)
        weight = training_weight(config, self.schedule)
        by_density = config.timestep_sampling == "weight"
        self.cumulative = weight.cumsum(0) / weight.cumsum(0)[-1]
        self.factor = (weight.mean().expand(len(weight)) if by_density else weight).float().to(config.device)

    def timesteps(self, step):
        """The batch's timesteps at a step: int64 (B,) on the CPU, from (seed, "timesteps", step)."""
        config, size = self.config, self.config.batch_size
        generator = stream(config.seed, "timesteps", step)
        if config.timestep_sampling == "uniform":
            return torch.randint(config.timesteps, (size,), generator=generator)
        if config.timestep_sampling == "stratified":
            # One shift for equidistant points: each t is as probable as any other.
            shift = torch.rand(1, generator=generator, dtype=torch.float64)
            points = (shift + torch.arange(size, dtype=torch.float64) / size) % 1
            return (points * config.timesteps).long().clamp(max=config.timesteps - 1)
        points = torch.rand(size, generator=generator, dtype=torch.float64)
        return torch.searchsorted(self.cumulative, points, right=True).clamp(max=config.timesteps - 1)

    def loss(self, network, x0, t, noise, labels=None):
        """(weighted loss, unweighted mean squared error) of a batch; x0 and noise (B, C, H, W), t (B,) on the CPU.

        labels: the classes of the images, int64 (B,), for a network that takes them.
        """
        config = self.config
        x_t = self.schedule.add_noise(x0, noise, t)
        target = prediction_target(x0, noise, t, self.schedule, config.prediction_type)
        steps, t = t, t.to(x_t.device, non_blocking=x_t.is_cuda)
        with torch.autocast(x_t.device.type, dtype=torch.bfloat16, enabled=config.precision == "bfloat16"):
            output = network_output(network, x_t, t, labels)
        prediction, variance = split_variance(output.float(), x0.shape[1])
        error = (prediction - target).square().flatten(1).mean(dim=1)
        loss = self.factor[t] * error
        if config.learned_variance:
            loss = loss + hybrid_term(prediction, variance, x0, x_t, steps, self.schedule, config.prediction_type)
        return loss.mean(), error.detach().mean()
