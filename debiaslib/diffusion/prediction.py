"""What a network predicts, and the way from its output to (x0, epsilon).

With x_t = a x0 + s epsilon, Salimans & Ho's v = a epsilon - s x0 and flow matching's u = epsilon - x0, where
a = sqrt(alpha_bar_t) and s = sqrt(1 - alpha_bar_t), or in flow matching a = 1 - sigma and s = sigma:

    epsilon          x0 = (x_t - s epsilon) / a
    sample           epsilon = (x_t - a x0) / s
    v_prediction     x0 = a x_t - s v,               epsilon = s x_t + a v                where a^2 + s^2 = 1
    flow_prediction  x0 = (x_t - s u) / (a + s),     epsilon = (x_t + a u) / (a + s)      on either process

The names are those of diffusers.
"""

from ..errors import InputError, check_choice

PREDICTION_TYPES = ("epsilon", "sample", "v_prediction")  # what this library trains
ALL_PREDICTION_TYPES = (*PREDICTION_TYPES, "flow_prediction")


def check_prediction_type(prediction_type, schedule=None):
    """Raise InputError for an unknown prediction type, and for "v_prediction" on the path of flow matching."""
    check_choice("prediction_type", prediction_type, ALL_PREDICTION_TYPES)
    if prediction_type == "v_prediction" and hasattr(schedule, "sigma"):  # a FlowSchedule; torch is not imported here
        raise InputError("v = a epsilon - s x0 is not defined for flow matching; use prediction_type='flow_prediction'")


def prediction_target(x0, noise, t, schedule, prediction_type="epsilon"):
    """What a perfect network would answer: epsilon, x0, v or u. x0 and noise: (N, ...); t: int or (N,).

    Raises InputError for an unknown prediction type, for v in flow matching, and, for v alone, for a t outside [0, T).
    """
    check_prediction_type(prediction_type, schedule)
    if noise.shape != x0.shape:  # torch would stretch it
        raise InputError(f"noise has shape {tuple(noise.shape)}; it must be {tuple(x0.shape)}")
    if prediction_type == "epsilon":
        return noise
    if prediction_type == "sample":
        return x0
    if prediction_type == "flow_prediction":
        return noise - x0
    a, s = schedule.scales(t, x0)
    return a * noise - s * x0


def to_x0_epsilon(output, x_t, t, schedule, prediction_type="epsilon"):
    """(x0_hat, epsilon_hat) from the network's output at x_t, both of x_t's shape; nothing is clipped.

    schedule: a `Schedule`, a `FlowSchedule`, or a diffusers scheduler, whose t is the index of its own tables. x_t is
        a x0 + s epsilon, and not the x0 + sigma epsilon of the Euler schedulers' own `add_noise`.
    Raises InputError for an unknown prediction type and where the output does not determine the pair: "epsilon" where
    SNR = 0, "sample" where sigma = 0.
    """
    if not hasattr(schedule, "scales"):
        from .flow import from_diffusers  # lazy: configurations name prediction types without importing torch

        schedule = from_diffusers(schedule)
    check_prediction_type(prediction_type, schedule)
    if output.shape != x_t.shape:  # torch would stretch it
        raise InputError(f"output has shape {tuple(output.shape)}; it must be that of x_t, {tuple(x_t.shape)}")
    a, s = schedule.scales(t, x_t)
    if a.numel() != 1 and len(a) != len(x_t):
        raise InputError(f"t has {len(a)} entries; it must be a whole number, or one for each of {len(x_t)} images")
    if prediction_type == "epsilon":
        if _any_zero(0, t, x_t, schedule):
            other = "prediction_type='v_prediction' (in flow matching 'flow_prediction') or 'sample'"
            raise InputError(f"epsilon does not determine x0 where SNR = 0; use {other}")
        return (x_t - s * output) / a, output
    if prediction_type == "sample":
        if _any_zero(1, t, x_t, schedule):
            raise InputError("x0 does not determine epsilon where sigma = 0; use prediction_type='flow_prediction'")
        return output, (x_t - a * output) / s
    if prediction_type == "flow_prediction":
        return (x_t - s * output) / (a + s), (x_t + a * output) / (a + s)
    return a * x_t - s * output, s * x_t + a * output


def _any_zero(which, t, x_t, schedule):
    """Whether a (0) or s (1) is 0 at one t. On the CPU: asking the device would end its queue at each training step."""
    return bool((schedule.scales(t, x_t.new_empty((1,) * x_t.ndim, device="cpu"))[which] == 0).any())


def network_output(model, x_t, t, labels=None):
    """The whole output of a plain module or a diffusers model: (N, C, ...), or (N, 2C, ...) with learned variance.

    labels: the classes of the images, int64 (N,), for a model that takes `class_labels`; None for all others.
    """
    output = model(x_t, t) if labels is None else model(x_t, t, class_labels=labels)
    return getattr(output, "sample", output)


def call_network(model, x_t, t, labels=None):
    """What the model predicts, of x_t's shape; learned-variance channels are dropped. labels: as `network_output`.

    Raises InputError for an answer of another shape.
    """
    output = network_output(model, x_t, t, labels)
    if output.shape[1] == 2 * x_t.shape[1]:
        output = output[:, : x_t.shape[1]]
    if output.shape != x_t.shape:
        raise InputError(f"the model answers {tuple(output.shape)} to an input of {tuple(x_t.shape)}")
    return output
