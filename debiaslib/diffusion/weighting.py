"""Loss weights as a function of the signal-to-noise ratio S, right in each parametrisation.

One squared error of the network's estimate, in three units (x_t = a x0 + s epsilon, S = a^2/s^2, v = a epsilon - s x0):

    |x0 error|^2 = |epsilon error|^2 / S              |v error|^2 = |x0 error|^2 (1 + S)

so one objective has the weights  w_epsilon,  w_sample = S w_epsilon,  w_v = S/(1+S) w_epsilon.  The debiased weight is
1/sqrt(S) for epsilon, sqrt(S) = a/s for x0 and sqrt(S)/(1+S) = a s for v.
"""

import math

import torch

from ..errors import InputError, check_choice, check_number
from .prediction import PREDICTION_TYPES
from .schedule import Schedule
from .strategies import parse_strategy


def _sigmoid(S, bias):
    """For epsilon sigmoid(bias - log S) (-d log S/dt) with t in [0, 1]; for x0 sigmoid(bias - log S) (-dS/dt).

    The second factor makes it a weight on the axis of log S, whatever the schedule.
    """
    if len(S) < 2:
        raise InputError("the 'sigmoid' weight needs two timesteps or more, for the slope of log SNR")
    _check_falls("sigmoid", S)
    slope = -S * torch.gradient(S.log())[0]
    # Where log S is -infinity, at S = 0 and beside it, the slope is that of S itself.
    zero = torch.nn.functional.pad(S < _NEAR_ZERO * 10, (1, 1))
    slope = torch.where(zero[:-2] | zero[1:-1] | zero[2:], -torch.gradient(S)[0], slope)
    return torch.sigmoid(bias - S.log()) * slope * len(S)


def _vlb(S):
    """For epsilon beta_t / (2 alpha_t (1 - alpha_bar_t)); for x0 beta_t alpha_bar_{t-1} / (2 (1 - alpha_bar_t)^2).

    The variational bound with sigma_t^2 = beta_t, as if its first term were Gaussian too.
    """
    _check_falls("vlb", S)
    before = S[:-1]  # in terms of SNR alone, where no digits cancel
    return torch.cat([(1 + S[:1]) / 2, (before - S[1:]) * (1 + S[1:]) / (2 * (1 + before))])


def _check_falls(name, S):
    if bool((S.diff() >= 0).any()):
        raise InputError(
            f"the {name!r} weight needs the SNR at consecutive timesteps; this table does not fall throughout"
        )


# A weight's limit at S = 0 is read off its behaviour between these two.
_NEAR_ZERO, _NEARER_ZERO = 1e-150, 1e-200

# Each weight is defined once, in x0 units, where every one of them is finite at S = 0.
_X0_WEIGHTS = {
    "constant": lambda S: S,  # DDPM's L_simple
    "debiased": lambda S: S.sqrt(),  # Yu et al. 2024
    "inverse_snr": lambda S: torch.ones_like(S),  # the plain error of x0
    "p2": lambda S, k, gamma: S ** (1 - gamma) if k == 0 else S * (k + S) ** -gamma,  # Choi et al. 2022
    "min_snr": lambda S, gamma: S.clamp(max=gamma),  # Hang et al. 2023
    "soft_min_snr": lambda S, gamma: S * gamma / (S + gamma),  # Crowson et al. 2024
    "max_snr": lambda S, gamma: S.clamp(min=gamma),  # gamma=1: truncated SNR, Salimans & Ho 2022
    "edm": lambda S, sigma_data: S + (1 / sigma_data) * (1 / sigma_data),  # Karras et al. 2022, lambda(sigma) alone
    "sigmoid": _sigmoid,  # Kingma & Gao 2023, Hoogeboom et al. 2024
    "vlb": _vlb,  # Ho et al. 2020, eq. 12
}


def loss_weight(strategy, schedule_or_snr, prediction_type="epsilon", *, normalize=False, max_weight=None):
    """The loss weight at every timestep: float64, shape (T,), on the argument's device. Training indexes it by t.

    strategy: "constant", "debiased", "inverse_snr", "p2(k=1,gamma=1)", "min_snr(gamma=5)", "soft_min_snr(gamma=5)",
        "max_snr(gamma=1)", "edm(sigma_data=0.5)", "sigmoid(bias=-1)", "vlb", or a callable that maps the SNR table to
        the weight of the epsilon loss.
    schedule_or_snr: a `Schedule`, a diffusers scheduler, or the 1-D table of SNR(t) at consecutive timesteps.
    prediction_type: what the network predicts and the squared error is of: "epsilon", "sample" (x0) or "v_prediction".
    max_weight: upper bound on the weight of the epsilon loss, applied before the conversion.
    normalize: divide by the mean of the epsilon table, so that weightings differ in shape alone.

    Raises InputError for an unknown strategy, an argument out of range, an SNR that is negative or not finite, and
    where the weight is infinite (the debiased weight of an epsilon loss at SNR = 0).
    """
    snr = _snr_table(schedule_or_snr)
    check_choice("prediction_type", prediction_type, PREDICTION_TYPES)
    check_choice("normalize", normalize, (True, False))
    if max_weight is not None:
        check_number("max_weight", max_weight, above=0)
    weight = _table(strategy, snr, prediction_type, max_weight)
    return weight / _mean(strategy, snr, max_weight) if normalize else weight


def _mean(strategy, snr, max_weight):
    try:
        mean = _table(strategy, snr, "epsilon", max_weight).mean()
    except InputError:
        raise InputError(
            f"normalize divides by the mean epsilon weight of {str(strategy)!r}, which is infinite; use max_weight"
        ) from None
    if not mean > 0:
        raise InputError(f"normalize divides by the mean weight of {str(strategy)!r}, which is 0")
    return mean


def _table(strategy, snr, prediction_type, max_weight):
    def at(S):
        x0_weight = _x0_weight(strategy, S)
        if max_weight is not None:
            x0_weight = torch.minimum(x0_weight, max_weight * S)
        return x0_weight / {"epsilon": S, "sample": 1, "v_prediction": 1 + S}[prediction_type]

    zero = snr == 0
    weight = at(torch.where(zero, _NEARER_ZERO, snr))
    if bool(zero.any()):
        weight = _limit_at_zero(weight, at(torch.where(zero, _NEAR_ZERO, snr)), zero)
    infinite = ~weight.isfinite()
    if bool(infinite.any()):
        way_out = "use prediction_type='v_prediction', or " if prediction_type == "epsilon" else ""
        where = f"SNR = {float(snr[infinite].min()):.3g}"
        raise InputError(
            f"the {prediction_type} weight of {str(strategy)!r} is infinite where {where}; "
            f"{way_out}bound it with max_weight"
        )
    return weight


def _limit_at_zero(nearer, near, zero):
    # Close to S = 0 a weight is a power of S: the exponent's sign says whether it vanishes, stays or diverges.
    exponent = (nearer / near).log() / math.log(_NEARER_ZERO / _NEAR_ZERO)
    limit = torch.where(exponent > 1e-9, 0.0, torch.where(exponent < -1e-9, torch.inf, nearer))
    return torch.where(zero, limit, nearer)


def _snr_table(schedule_or_snr):
    if hasattr(schedule_or_snr, "alphas_cumprod"):
        schedule_or_snr = Schedule.from_diffusers(schedule_or_snr)
    table = schedule_or_snr.snr if isinstance(schedule_or_snr, Schedule) else schedule_or_snr
    kind = str(getattr(table, "dtype", None))
    if kind.removeprefix("torch.").startswith(("complex", "bool")):
        raise InputError(f"the SNR table is {kind}; it must hold real numbers")
    try:
        table = torch.as_tensor(table, dtype=torch.float64)  # at once: torch reads a list as float32
    except (TypeError, ValueError, OverflowError, RuntimeError):
        kind = type(schedule_or_snr).__name__
        raise InputError(
            f"a {kind} holds no SNR; give a Schedule, a diffusers scheduler with alphas_cumprod, or a table of SNR(t)"
        ) from None
    if table.ndim != 1 or len(table) == 0:
        raise InputError(f"the SNR table has shape {tuple(table.shape)}; it must be one-dimensional and not empty")
    if not bool((table.isfinite() & (table >= 0)).all()):
        raise InputError("the SNR table has values that are negative or not finite")
    return table


def _x0_weight(strategy, S):
    if not callable(strategy):
        parsed = parse_strategy(strategy)
        return _X0_WEIGHTS[parsed.name](S, **dict(parsed.arguments))
    weight = strategy(S)
    try:
        weight = torch.as_tensor(weight, dtype=S.dtype, device=S.device)  # at once: torch reads a list as float32
    except (TypeError, ValueError, OverflowError, RuntimeError):
        weight = S[:0]  # no numbers
    if weight.shape != S.shape or not bool((weight.isfinite() & (weight >= 0)).all()):
        raise InputError(
            f"the weighting {strategy!r} must give one finite weight >= 0 for each of the {len(S)} timesteps"
        )
    return S * weight
