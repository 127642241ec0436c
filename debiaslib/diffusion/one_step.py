"""The one-step estimate of x0, its error, and the exact optimum to compare with.

From one network call at x_t, x0 = x0_hat + (epsilon_hat - epsilon) / sqrt(SNR(t)): the second term is the paper's
amplified error. No network can answer better than the posterior mean E[x0 | x_t], so for x0 drawn from the images of
the denoiser

    E|x0_hat - x0|^2  =  floor + excess,    floor = E Var(x0 | x_t),    excess = E|x0_hat - E[x0 | x_t]|^2.

Image by image there is a third term, cross = 2 <x0_hat - E[x0 | x_t], E[x0 | x_t] - x0>. Its expectation is 0, since
E[x0 | x_t] - x0 averages to 0 at every x_t; that it is 0 within its standard error is how the identity is checked.
"""

from dataclasses import dataclass

import torch

from ..errors import InputError, check_finite, check_number, shown
from .optimum import LARGEST
from .prediction import call_network, network_output, to_x0_epsilon
from .randomness import stream
from .schedule import check_schedule

_BATCH_SIZE = 64
# What `mse_by_timestep` measures; those from the fourth on need an optimum.
QUANTITIES = ("epsilon_mse", "x0_mse", "colour_mse", "excess", "colour_excess", "cross", "clipped_excess")


@dataclass(frozen=True)
class OneStepEstimate:
    """One network call at x_t, read as an estimate of x0. All tensors (N, C, H, W); x0 = x0_hat + amplified_error."""

    x_t: torch.Tensor
    x0_hat: torch.Tensor
    epsilon_hat: torch.Tensor
    amplified_error: torch.Tensor


@torch.no_grad()
def one_step_estimate(model, x0, t, noise, schedule, prediction_type="epsilon", labels=None):
    """Noise x0 to timestep t, call the model once and read x0 back; nothing is clipped.

    model: takes (x_t, t); x0, noise: float (N, C, H, W), x0 in [-1, 1]; t: one int for all images.
    labels: the classes of the images, int64 (N,), for a model that takes `class_labels`.
    amplified_error is (epsilon_hat - noise) / sqrt(SNR(t)). Raises InputError for a t outside [0, T), for images, noise
    or labels of another kind, and for noise and answers of the model that are not finite.
    """
    check_number("t", t, minimum=0, below=check_schedule(schedule).T, integer=True)
    _check_images(x0, labels)
    x_t = schedule.add_noise(x0, check_finite("noise", noise), t)
    parts = x_t.split(_BATCH_SIZE)
    classes = [None] * len(parts) if labels is None else torch.as_tensor(labels, device=x_t.device).split(_BATCH_SIZE)
    outputs = [
        call_network(model, part, torch.full((len(part),), t, device=x_t.device), given)
        for part, given in zip(parts, classes, strict=True)
    ]
    output = check_finite(f"the model's answers at t = {t}", torch.cat(outputs).to(x_t))
    x0_hat, epsilon_hat = to_x0_epsilon(output, x_t, t, schedule, prediction_type)
    root_snr = schedule.snr[t].sqrt().item()
    return OneStepEstimate(x_t, x0_hat, epsilon_hat, (epsilon_hat - noise) / root_snr if root_snr else x0 - x0_hat)


def _check_images(x0, labels):
    if x0.ndim != 4 or len(x0) == 0:
        raise InputError(f"x0 has shape {tuple(x0.shape)}; it must be (N, C, H, W) with N >= 1")
    if labels is not None and len(labels) != len(x0):
        raise InputError(f"labels has {len(labels)} entries; it must have one for each of {len(x0)} images")
    if not (x0.is_floating_point() and float(x0.abs().max()) <= LARGEST):
        raise InputError(f"x0 reaches {float(x0.double().abs().max()):g} ({x0.dtype}); images must be in [-1, 1]")


def curve_noise(x0, t, seed=0):
    """The noise of all images at timestep t: the same for every model and table. x0: (N, C, H, W), which sets shape."""
    return torch.randn(x0.shape, generator=stream(seed, "mse", t)).to(x0)


@torch.no_grad()
def mse_by_timestep(models, x0, timesteps, schedule, *, prediction_type="epsilon", seed=0, optimal=None, labels=None):
    """Squared errors of one-step estimates: a DataFrame with a row for each model, t, image and quantity.

    models: {name: model}. All models see the same noise, drawn from (seed, t) for all images at once, so rows pair.
    x0: float (N, C, H, W) in [-1, 1]; half precision is raised to float32, for the models too. timesteps: in [0, T).
    prediction_type: of all models, or {name: prediction type}.
    optimal: an x0-predictor such as `OptimalDenoiser`; adds the rows that compare with it, and its own as "optimum".
    labels: the classes of the images, int64 (N,), for models, and an optimum, that take `class_labels`.

    Columns: model, t, image, quantity, value. Quantities, each a mean over pixels in units of [-1, 1]^2:
        epsilon_mse, x0_mse    the network's error; that of model "initial" is MSE(x_t, target)
        colour_mse             the error of the per-image mean colour
        excess, colour_excess  the distance from the optimum, if given; the optimum's own x0_mse is the floor
        cross                  x0_mse - excess - floor of the image: 0 on average for x0 from the optimum's law alone
        clipped_excess         the excess of x0_hat clipped to [-1, 1], as samplers clip it

    Raises what `one_step_estimate` does, and InputError for models that are no dict and for no timesteps.
    """
    import pandas as pd

    if not isinstance(models, dict) or {"initial", "optimum"} & set(models):
        raise InputError(f"models is {shown(models)}; it must be {{name: model}}, and no name initial or optimum")
    timesteps = list(timesteps)
    if not timesteps:
        raise InputError("timesteps is []; it must list at least one")
    for t in timesteps:  # all of them now, not after an hour
        check_number("t", t, minimum=0, below=check_schedule(schedule).T, integer=True)
    check_number("seed", seed, minimum=0, integer=True)
    _check_images(x0, labels)
    x0, tables = x0.to(torch.promote_types(x0.dtype, torch.float32)), []  # a square in half precision overflows
    for t in timesteps:
        noise, best = curve_noise(x0, t, seed), None
        if optimal is not None:
            best = network_output(optimal, schedule.add_noise(x0, noise, t), t, labels).to(x0)
            check_finite(f"the optimum's answers at t = {t}", best)
        for name, estimate in _estimates(models, x0, t, noise, schedule, prediction_type, best, labels):
            for quantity, values in _errors(*estimate, x0, noise, best).items():
                columns = {"model": name, "t": t, "image": range(len(x0)), "quantity": quantity, "value": values.cpu()}
                tables.append(pd.DataFrame(columns))
    return pd.concat(tables, ignore_index=True)


def _estimates(models, x0, t, noise, schedule, prediction_type, best, labels):
    """(name, (x0_hat, epsilon_hat)) of each model, of "initial", and of "optimum" if given."""
    for name, model in models.items():
        kind = prediction_type[name] if isinstance(prediction_type, dict) else prediction_type
        estimate = one_step_estimate(model, x0, t, noise, schedule, kind, labels=labels)
        yield name, (estimate.x0_hat, estimate.epsilon_hat)
    x_t = schedule.add_noise(x0, noise, t)
    yield "initial", (x_t, x_t)
    if best is not None:
        yield "optimum", to_x0_epsilon(best, x_t, t, schedule, "sample")


def _errors(x0_hat, epsilon_hat, x0, noise, best):
    """{quantity: its value for each image (N,)}."""

    def square(difference):
        return difference.square().flatten(1).mean(dim=1)

    def colour(difference):
        return difference.mean(dim=(2, 3)).square().mean(dim=1)

    errors = {"epsilon_mse": square(epsilon_hat - noise), "x0_mse": square(x0_hat - x0)}
    errors["colour_mse"] = colour(x0_hat - x0)
    if best is not None:
        errors |= {"excess": square(x0_hat - best), "colour_excess": colour(x0_hat - best)}
        errors["cross"] = 2 * ((x0_hat - best) * (best - x0)).flatten(1).mean(dim=1)
        errors["clipped_excess"] = square(x0_hat.clamp(-1, 1) - best)
    return errors
