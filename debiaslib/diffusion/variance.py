"""Learned variance and its variational term: the hybrid loss of Nichol & Dhariwal (2021), as in ADM and the paper.

The network answers 2C channels: its prediction, and values v that say where the variance of its step lies,

    log sigma^2 = frac log beta_t + (1 - frac) log beta~_t       frac = (v + 1) / 2                       (eq. 15)
    beta~_t = beta_t (1 - alpha_bar_{t-1}) / (1 - alpha_bar_t)   the variance of q(x_{t-1} | x_t, x0)

("learned_range"). A loss on the prediction says nothing about v; the variational bound does, and is added to it:

    loss = w(t) |target - output|^2 + hybrid_term(...)           w does not touch the second term             (eq. 16)

Other than in ADM's code, which the paper's authors use, the likelihood at t = 0 takes the exact normal distribution
function, without a floor on probabilities, and the difference of the means is formed from that of the two x0.
"""

import math

import torch

from ..errors import InputError
from .prediction import to_x0_epsilon
from .schedule import check_schedule

_HALF_LEVEL = 1 / 255  # uint8 levels lie 2/255 apart in [-1, 1]


def split_variance(output, channels):
    """(prediction, variance values) of a network's output (N, C or 2C, ...) with C = `channels`.

    The values are None if the output has C channels. Raises InputError for any other number.
    """
    if output.ndim < 2 or output.shape[1] not in (channels, 2 * channels):
        wanted = f"{channels} channels, or {2 * channels} with learned variance"
        raise InputError(f"the model answers {tuple(output.shape)}; it must have {wanted}")
    prediction, values = output[:, :channels], output[:, channels:]
    return prediction, values if values.shape[1] else None


def log_variance(values, t, schedule, like=None):
    """log sigma^2 of the step from x_t to x_{t-1}, in nats: frac log beta_t + (1 - frac) log beta~_t (eq. 15).

    values: v, a tensor (N, ...) or a number; -1 is the variance of the posterior ("fixed small"), 1 is beta_t ("fixed
        large"); not clamped, as published. like: gives dtype, device and axes where `values` is a number.
    t: int or (N,). beta~_0 = 0 is replaced by beta~_1. Raises InputError for a t outside [0, T).
    """
    like = values if like is None else like
    _, base, spread = _coefficients(t, schedule, like)
    return base + (values + 1) / 2 * spread


def variational_bound(prediction, variance_values, x0, x_t, t, schedule, prediction_type="epsilon"):
    """L_t of the variational bound for each image: (N,), in bits per dimension (Nichol & Dhariwal 2021, eq. 4 to 7).

        t > 0   KL( q(x_{t-1} | x_t, x0) || N(mean of the same posterior at x0_hat, sigma^2) )
              = 1/2 [ d + exp(-d) - 1 + c^2 (x0 - x0_hat)^2 / sigma^2 ]
                d = log sigma^2 - log beta~_t,  c = sqrt(alpha_bar_{t-1}) beta_t / (1 - alpha_bar_t)
        t = 0   -log of the mass of N(x0_hat, sigma^2) on the uint8 level of x0, the outer levels being open

    averaged over pixels and channels, divided by log 2. As in the authors' training the gradient reaches
    `variance_values` alone, and x0_hat is not clipped. The first four are (N, C, ...), x0 in [-1, 1]; half precision is
    raised to float32. t: int or (N,). Raises InputError for a network without variance values, for shapes that differ,
    for a t outside [0, T), and for prediction_type="epsilon" where SNR = 0.
    """
    if variance_values is None:
        raise InputError("the network has no variance channels; give it twice as many output channels")
    for name, tensor in (("variance_values", variance_values), ("x_t", x_t)):
        if tensor.shape != x0.shape:  # torch would stretch it
            raise InputError(f"{name} has shape {tuple(tensor.shape)}; it must be {tuple(x0.shape)}")
    dtype = torch.promote_types(x0.dtype, torch.float32)
    prediction, values, x0, x_t = (tensor.to(dtype) for tensor in (prediction.detach(), variance_values, x0, x_t))
    t = torch.as_tensor(t, device="cpu").reshape(-1).expand(len(x0))
    error = x0 - to_x0_epsilon(prediction, x_t, t, schedule, prediction_type)[0]
    weight, base, spread = _coefficients(t, schedule, x0)
    above = (values + 1) / 2 * spread  # d; from the float64 difference of the logarithms, which are almost equal
    kl = 0.5 * (above + torch.expm1(-above) + (weight * error).square() * torch.exp(-base - above))
    nats = kl.flatten(1).mean(dim=1)
    rows = (t == 0).nonzero().flatten()
    if len(rows):
        rows = rows.to(x0.device)
        likelihood = _log_likelihood(x0[rows], error[rows], (base + above)[rows])
        nats = nats.index_copy(0, rows, -likelihood.to(nats).flatten(1).mean(dim=1))
    return nats / math.log(2)


def hybrid_term(prediction, variance_values, x0, x_t, t, schedule, prediction_type="epsilon"):
    """What the hybrid loss adds to the weighted squared error of each image: variational_bound * T / 1000, (N,).

    lambda L_vlb with lambda = 0.001 and L_vlb the sum over the T steps, estimated at one t (eq. 16), in bits and means
    over dimensions. Never multiplied by a loss weight. Takes and raises what `variational_bound` does.
    """
    return variational_bound(prediction, variance_values, x0, x_t, t, schedule, prediction_type) * (schedule.T / 1000)


def _coefficients(t, schedule, like):
    """(c, log beta~_t, log beta_t - log beta~_t) at t, computed in float64, to broadcast against `like`."""
    schedule.scales(t, like)  # refuses what is no timestep
    alpha_bar = check_schedule(schedule, variance_preserving=True).alpha_bar.cpu()
    previous = torch.cat([alpha_bar.new_ones(1), alpha_bar[:-1]])
    beta = 1 - alpha_bar / previous
    posterior = beta * (1 - previous) / (1 - alpha_bar)
    posterior[0] = posterior[1] if schedule.T > 1 else beta[0]  # T = 1 has no beta~_1
    weight = previous.sqrt() * beta / (1 - alpha_bar)
    table = torch.stack([weight, posterior.log(), beta.log() - posterior.log()])
    t = torch.as_tensor(t, device="cpu").long()
    return table[:, t].reshape(3, -1, *[1] * (like.ndim - 1)).to(like)


def _log_likelihood(x0, error, log_variance):
    """log( Phi((error + h) / sigma) - Phi((error - h) / sigma) ), h half a level; the levels at -1 and 1 are open.

    Both ends are mirrored into the lower tail, where log Phi keeps its digits. In float64: the gradient of log Phi
    cancels two large numbers. On the CPU for MPS, which has neither.
    """
    dtype, device = error.dtype, "cpu" if error.device.type == "mps" else error.device
    x0, error, log_variance = (tensor.to(device).double() for tensor in (x0, error, log_variance))
    sigma = torch.exp(0.5 * log_variance)
    is_open = x0.abs() > 0.999
    distance = torch.where(is_open, x0.sign() * error, error.abs())
    near = torch.special.log_ndtr((_HALF_LEVEL - distance) / sigma)
    far = torch.special.log_ndtr((-_HALF_LEVEL - distance) / sigma)
    ratio = torch.where(is_open, -1.0, far - near)  # not 0 where unused: the gradient of its logarithm is infinite
    return (near + torch.where(is_open, 0.0, torch.log(-torch.expm1(ratio)))).to(dtype)
