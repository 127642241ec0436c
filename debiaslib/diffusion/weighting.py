"""Loss weights as a function of the signal-to-noise ratio S, right in each parametrisation.

One squared error of the network's estimate, in four units (x_t = a x0 + s epsilon, S = a^2/s^2, v = a epsilon - s x0,
u = epsilon - x0):

    |x0 error|^2 = |epsilon error|^2 / S = |v error|^2 / (1 + S) = |u error|^2 / (1 + sqrt(S))^2

so one objective has the weights

    w_sample = S w_epsilon        w_v = w_sample / (1 + S)        w_u = w_sample / (1 + sqrt(S))^2

The debiased weight is 1/sqrt(S) for epsilon, sqrt(S) = a/s for x0, a s for v (where a^2 + s^2 = 1) and a s / (a + s)^2
for u, which is sigma (1 - sigma) in flow matching, where a = 1 - sigma and s = sigma.
"""

import math

import torch

from ..errors import InputError, check_choice, check_number
from .flow import FlowSchedule, from_diffusers
from .prediction import check_prediction_type
from .schedule import Schedule, as_float64, check_table
from .strategies import parse_strategy

# A weight's limit at S = 0 is read off its values at these two S, and its limit at S = infinity at their inverses.
_NEAR_ZERO, _NEARER_ZERO = 1e-150, 1e-200


# Each weight is defined once, in x0 units, where all but P2 with k = 0 and gamma > 1 are finite at S = 0.
_X0_WEIGHTS = {
    "constant": lambda S: S,  # DDPM's L_simple
    "debiased": lambda S: S.sqrt(),  # Yu et al. 2024
    "inverse_snr": lambda S: torch.ones_like(S),  # the plain error of x0
    "p2": lambda S, k, gamma: S ** (1 - gamma) if k == 0 else S * (k + S) ** -gamma,  # Choi et al. 2022
    "min_snr": lambda S, gamma: S.clamp(max=gamma),  # Hang et al. 2023
    "soft_min_snr": lambda S, gamma: S * gamma / (S + gamma),  # Crowson et al. 2024
    "max_snr": lambda S, gamma: S.clamp(min=gamma),  # gamma=1: truncated SNR, Salimans & Ho 2022
    "edm": lambda S, sigma_data: S + (1 / sigma_data) * (1 / sigma_data),  # Karras et al. 2022, lambda(sigma) alone
}
_UNITS = {  # |error in this unit|^2 / |x0 error|^2
    "epsilon": lambda S: S,
    "sample": torch.ones_like,
    "v_prediction": lambda S: 1 + S,
    "flow_prediction": lambda S: (1 + S.sqrt()) ** 2,
}


def loss_weight(strategy, schedule_or_snr, prediction_type=None, *, normalize=False, max_weight=None):
    """The loss weight at every timestep: float64, shape (T,), to be indexed by t; on the device of an SNR table.

    strategy: "constant", "debiased", "inverse_snr", "p2(k=1,gamma=1)", "min_snr(gamma=5)", "soft_min_snr(gamma=5)",
        "max_snr(gamma=1)", "edm(sigma_data=0.5)", or a callable that maps the SNR table to the weight of the epsilon
        loss.
    schedule_or_snr: a `Schedule`, a `FlowSchedule`, a diffusers scheduler, or a 1-D table of SNR, such as that of a
        batch's timesteps (without `normalize`): a tensor, an array, a list or a Series.
    prediction_type: what the network predicts and the squared error is of: "epsilon", "sample" (x0), "v_prediction" or
        "flow_prediction" (u = epsilon - x0). None: what a scheduler says; else "epsilon", for a flow "flow_prediction".
    max_weight: upper bound on the weight of the epsilon loss, applied before the conversion.
    normalize: True divides the table by its own mean, so that a loss keeps its size and a learning rate can stay;
        "epsilon" divides by the mean of the epsilon table, so that one objective has one scale in all units. The two
        are the same for prediction_type="epsilon".

    Raises InputError for an unknown strategy, an argument out of range, an SNR that is negative or NaN, and where the
    weight is infinite (the debiased weight of an epsilon loss at SNR = 0).
    """
    given, config = schedule_or_snr, getattr(schedule_or_snr, "config", None)
    if hasattr(given, "alphas_cumprod") or hasattr(given, "set_timesteps"):  # a scheduler of diffusers
        given = from_diffusers(given)
    snr = check_table("the SNR table", given.snr if isinstance(given, (Schedule, FlowSchedule)) else given)
    if not bool((snr >= 0).all()):
        raise InputError("the SNR table has values that are negative or NaN")
    own = "flow_prediction" if isinstance(given, FlowSchedule) else getattr(config, "prediction_type", "epsilon")
    prediction_type = own if prediction_type is None else prediction_type
    check_prediction_type(prediction_type, given)
    check_choice("normalize", normalize, (True, False, "epsilon"))
    if max_weight is not None:
        check_number("max_weight", max_weight, above=0)
    weight = _table(strategy, snr, prediction_type, max_weight)
    if normalize:
        mean = (_table(strategy, snr, "epsilon", max_weight, False) if normalize == "epsilon" else weight).mean()
        if not mean > 0:
            raise InputError(f"normalize divides by the mean weight of {str(strategy)!r}, which is 0")
        weight = weight / mean
    return weight


def _table(strategy, snr, prediction_type, max_weight, chosen=True):
    """The weight at each SNR; at SNR = 0 and infinity its limit. Raises InputError where that is infinite.

    chosen: whether the caller chose prediction_type, so that the message may propose another one.
    """

    def at(S):
        x0_weight = _x0_weight(strategy, S)
        if max_weight is not None:
            x0_weight = torch.minimum(x0_weight, max_weight * S)
        return x0_weight / _UNITS[prediction_type](S)

    near, nearer = (
        at(torch.where(snr == 0, zero, torch.where(snr.isinf(), 1 / zero, snr))) for zero in (_NEAR_ZERO, _NEARER_ZERO)
    )
    # Close to both ends a weight is a power of S: its growth says whether it vanishes, stays or diverges.
    growth = (nearer / near).log() / math.log(_NEAR_ZERO / _NEARER_ZERO)
    limit = torch.where(growth > 1e-9, torch.inf, torch.where(growth < -1e-9, 0.0, nearer))
    weight = torch.where((snr == 0) | snr.isinf(), limit, nearer)
    infinite = snr[~weight.isfinite()]
    if len(infinite):
        least = float(infinite.min())
        way_out = "leave that timestep out" if least == math.inf else "bound it with max_weight"
        if chosen and prediction_type == "epsilon" and least < math.inf:
            way_out = f"use prediction_type='v_prediction' ('flow_prediction' in flow matching), or {way_out}"
        where = f"is infinite where SNR = {least:.3g}"
        raise InputError(f"the {prediction_type} weight of {str(strategy)!r} {where}; {way_out}")
    return weight


def _x0_weight(strategy, S):
    if not callable(strategy):
        parsed = parse_strategy(strategy)
        return _X0_WEIGHTS[parsed.name](S, **dict(parsed.arguments))
    weight = as_float64(f"the weight of {strategy!r}", strategy(S)).to(S)
    if weight.shape != S.shape or not bool((weight.isfinite() & (weight >= 0)).all()):
        wanted = f"one finite weight >= 0 for each of the {len(S)} timesteps"
        raise InputError(f"the weighting {strategy!r} must give {wanted}")
    return S * weight
