"""What the "debiased" flags of other trainers compute, beside the paper's objective. Needs torch and numpy only.

Each weight is written here from its formula, with S = SNR(t) and C = min(S, 1000), in the units of the trainer's own
loss, and converted by the rule of `weighting.py`:

    w_epsilon = w_v (1 + S) / S = w_sample / S          the paper: w_epsilon = 1/sqrt(S)

As read in kohya-ss/sd-scripts 48d368f, Nerogar/OneTrainer 23df383, okotaku/diffengine f80c228, yuhuUSTC/Debias e4cd260.

python docs/trainers.py                        # the table of docs/trainers.md
python docs/trainers.py --figure trainers.png  # its figure
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from debiaslib.cli import Parser
from debiaslib.diffusion.schedule import Schedule
from debiaslib.diffusion.weighting import loss_weight
from debiaslib.errors import InputError, check_choice, check_number

__all__ = ["TRAINERS", "comparison_table", "draw", "epsilon_equivalent", "flag_weight", "markdown_table"]


@dataclass(frozen=True)
class Form:
    """A weight in the units of its own loss: as text, as text in epsilon units where S <= 1000, and as a function."""

    text: str
    epsilon: str
    weight: Callable


@dataclass(frozen=True)
class Trainer:
    """A trainer's setting, and the weight it gives by prediction type."""

    name: str
    flag: str
    forms: dict[str, Form]


def _clamped(S):
    return S.clamp(max=1000)


_PLAIN = Form("1/sqrt(S)", "1/sqrt(S)", lambda S: S**-0.5)
_CLAMPED = Form("1/sqrt(C)", "1/sqrt(S)", lambda S: _clamped(S) ** -0.5)
_DEBIASED = "--debiased_estimation_loss"
_SCALED = f"{_DEBIASED} --scale_v_pred_loss_like_noise_pred"  # the second one multiplies by C/(1+C)

TRAINERS = {
    "kohya": Trainer("kohya", _DEBIASED, {
        "epsilon": _CLAMPED,
        "v_prediction": Form("1/(1+C)", "1/S", lambda S: 1 / (1 + _clamped(S))),
    }),
    "kohya_scaled": Trainer("kohya, scaled", _SCALED, {
        "v_prediction": Form("C/(1+C)**2", "1/(1+S)", lambda S: _clamped(S) / (1 + _clamped(S)) ** 2),
    }),
    # before pull request 1715, and where a script does not say that the network predicts v
    "kohya_old": Trainer("kohya, old", _DEBIASED, {
        "epsilon": _CLAMPED,
        "v_prediction": Form("1/sqrt(C)", "(1+S)/S**1.5", _CLAMPED.weight),
    }),
    "kohya_old_scaled": Trainer("kohya, old, scaled", _SCALED, {
        "v_prediction": Form("sqrt(C)/(1+C)", "1/sqrt(S)", lambda S: _clamped(S).sqrt() / (1 + _clamped(S))),
    }),
    "onetrainer": Trainer("OneTrainer", "DEBIASED_ESTIMATION", {
        "epsilon": _CLAMPED,
        "v_prediction": Form("1/sqrt(1+C)", "sqrt(1+S)/S", lambda S: (1 + _clamped(S)) ** -0.5),
    }),
    "diffengine": Trainer("diffengine", "DeBiasEstimationLoss", {
        "epsilon": _PLAIN,
        "v_prediction": Form("1/sqrt(1+S)", "sqrt(1+S)/S", lambda S: (1 + S) ** -0.5),
    }),
    "authors": Trainer("the authors' code", "none: it is built in", {
        "epsilon": _PLAIN,
        "v_prediction": Form("1/sqrt(S)", "(1+S)/S**1.5", _PLAIN.weight),
        "sample": Form("1/sqrt(S)", "1/S**1.5", _PLAIN.weight),
    }),
}  # fmt: skip


def flag_weight(trainer, prediction_type, schedule_or_snr):
    """The weight that a trainer's flag puts on its own loss at every timestep: float64 (T,); infinite where theirs is.

    trainer: a key of `TRAINERS`; prediction_type: one that the trainer has; schedule_or_snr: as for `loss_weight`.
    Raises InputError for an unknown trainer and for a prediction type that it does not have.
    """
    forms = TRAINERS[check_choice("trainer", trainer, TRAINERS)].forms
    check_choice(f"prediction_type of {trainer}", prediction_type, forms)
    return forms[prediction_type].weight(_snr(schedule_or_snr))


def epsilon_equivalent(trainer, prediction_type, schedule_or_snr):
    """The weight of the epsilon loss that is the same objective as the trainer's: float64 (T,).

    Raises InputError as `flag_weight` does, and where SNR = 0: an epsilon loss says nothing of x0 there.
    """
    snr = _snr(schedule_or_snr)
    if bool((snr == 0).any()):
        raise InputError("the SNR is 0 at a timestep, where no weight has an epsilon form; leave that timestep out")
    weight = flag_weight(trainer, prediction_type, snr)
    return weight * {"epsilon": 1, "sample": 1 / snr, "v_prediction": (1 + snr) / snr}[prediction_type]


def comparison_table(schedule_or_snr, timesteps=None):
    """Each flag against the paper at some timesteps (the first, middle and last): a list of dicts, one a timestep.

    trainer, flag, prediction_type, t, weight (its own units), epsilon_equivalent, ratio (to the paper's 1/sqrt(S)), and
    shape: the ratio over its geometric mean over all t, 1 everywhere if the objectives differ by a constant alone.
    """
    snr = _snr(schedule_or_snr)
    T = len(snr)
    timesteps = [0, T // 2, T - 1] if timesteps is None else timesteps
    for t in timesteps:
        check_number("t", t, minimum=0, below=T, integer=True)
    rows = []
    for key, prediction_type, _ in _forms():
        ratio = _ratio(key, prediction_type, snr)
        columns = {
            "weight": flag_weight(key, prediction_type, snr),
            "epsilon_equivalent": epsilon_equivalent(key, prediction_type, snr),
            "ratio": ratio,
            "shape": ratio / ratio.log().mean().exp(),
        }
        named = {"trainer": key, "flag": TRAINERS[key].flag, "prediction_type": prediction_type}
        rows += [{**named, "t": t, **{name: float(values[t]) for name, values in columns.items()}} for t in timesteps]
    return rows


def markdown_table(schedules):
    """The table of docs/trainers.md, whose last columns hold the ratio to the paper at the first and the last timestep.

    schedules: {column title: schedule or SNR table}.
    """
    head = ["trainer", "setting", "network", "its weight", "as a weight of epsilon", *schedules]
    lines = [head, ["---"] * len(head)]
    for key, kind, form in _forms():
        trainer = TRAINERS[key]
        setting = trainer.flag if trainer.flag.startswith("none") else f"`{trainer.flag}`"
        cells = [trainer.name, setting, f"`{kind}`", f"`{form.text}`", f"`{form.epsilon}`"]
        for schedule in schedules.values():
            ratio = _ratio(key, kind, _snr(schedule))
            cells.append(f"{_short(ratio[0])} / {_short(ratio[-1])}")
        lines.append(cells)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def draw(schedule_or_snr, path):
    """Save the figure: every flag's weight in epsilon units against t. Needs the lab extra. Returns the Figure."""
    check_choice("the figure's file type", Path(path).suffix, (".png", ".pdf", ".svg"))
    from debiaslib.figures.style import log_axis, new_figure, style
    from debiaslib.files import atomic_path

    snr = _snr(schedule_or_snr)
    panels = {"epsilon": r"An $\epsilon$ network", "v_prediction": r"A $v$ network"}
    with style():
        figure, [axes] = new_figure(1, len(panels), height=4.6, sharey=True)
        for ax, (kind, title) in zip(axes, panels.items(), strict=True):
            _panel(ax, kind, snr)
            ax.set(title=title, xlabel="timestep $t$ (0-based)")
        axes[0].set_ylabel(r"weight in $\epsilon$ units (log scale)")
        for ax in axes:
            log_axis(ax.yaxis)
            ax.legend(loc="upper left", fontsize=8.5)
        undated = {".png": "Software", ".pdf": "CreationDate", ".svg": "Date"}[Path(path).suffix]
        with atomic_path(path) as temporary:
            figure.savefig(temporary, metadata={undated: None})
    return figure


# A trainer's colour and dashes; where several are one curve, the shorter dashes lie on top.
_LINES = {
    "kohya": ("#D55E00", "--"),
    "kohya_scaled": ("#E69F00", (0, (6, 1.5, 1.5, 1.5))),
    "kohya_old": ("#CC79A7", (0, (8, 4))),
    "kohya_old_scaled": ("#009E73", (0, (4, 4))),
    "onetrainer": ("#56B4E9", (0, (3, 1.5))),
    "diffengine": ("#A89500", (0, (2, 5))),
    "authors": ("#000000", (0, (1, 3))),
}


def _panel(ax, prediction_type, snr):
    from debiaslib.figures.style import look

    ax.plot(loss_weight("debiased", snr), color=look("debiased").colour, linewidth=5, alpha=0.35, label="the paper")
    for key, kind, _ in _forms():
        if kind == prediction_type:
            colour, dashes = _LINES[key]
            weight = epsilon_equivalent(key, kind, snr)
            ax.plot(weight, color=colour, linestyle=dashes, label=TRAINERS[key].name)
    ax.margins(x=0.01)


def _ratio(key, prediction_type, snr):
    return epsilon_equivalent(key, prediction_type, snr) / loss_weight("debiased", snr)


def _forms():
    return [(key, kind, form) for key, trainer in TRAINERS.items() for kind, form in trainer.forms.items()]


def _snr(schedule_or_snr):
    return loss_weight("constant", schedule_or_snr, "sample")  # constant for epsilon is the SNR itself for x0


def _short(number):
    """Two digits or all before the point, and no exponent: 0.032, 3.2, 157, 24,777."""
    number = float(number)
    rounded = float(f"{number:.2g}")  # so that 0.0999 is 0.10
    return f"{number:,.{max(0, 1 - math.floor(math.log10(rounded)))}f}"


SCHEDULES = {"scaled_linear": Schedule.scaled_linear, "linear": Schedule.linear}
TITLES = {
    "scaled_linear": "times the paper's, Stable Diffusion, t = 0 / 999",
    "linear": "times the paper's, DDPM, t = 0 / 999",
}


def main(arguments=None):
    """The command line: print the table, or draw the figure. Returns the exit status."""
    parser = Parser(prog="python docs/trainers.py", description="What other trainers' flags compute.")
    parser.add_argument("--figure", metavar="PATH", help="draw the weights there instead of printing the table")
    parser.add_argument("--schedule", choices=SCHEDULES, default="scaled_linear", help="of the figure (scaled_linear)")
    given = parser.parse_args(arguments)
    if not given.figure:
        print(markdown_table({TITLES[name]: make() for name, make in SCHEDULES.items()}), end="")
        return 0
    try:
        draw(SCHEDULES[given.schedule](), given.figure)
    except (InputError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
