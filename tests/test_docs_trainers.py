"""What other trainers' flags compute: their formulas as printed, the golden ratios, the table."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from debiaslib.diffusion.schedule import Schedule
from debiaslib.diffusion.weighting import loss_weight
from debiaslib.errors import InputError
from docs.trainers import TRAINERS, comparison_table, epsilon_equivalent, flag_weight, main

LINEAR = Schedule.linear()
FORMS = [(key, kind) for key, trainer in TRAINERS.items() for kind in trainer.forms]


def close(got, wanted, rel=1e-12):
    return np.allclose(np.asarray(got), wanted, rtol=rel, atol=0)


def evaluated(text, S):
    return eval(text, {"sqrt": np.sqrt}, {"S": S, "C": np.minimum(S, 1000)})


def ratio(trainer, kind, t):
    rows = comparison_table(LINEAR, [t])
    return next(row["ratio"] for row in rows if (row["trainer"], row["prediction_type"]) == (trainer, kind))


@pytest.mark.parametrize("trainer, kind", FORMS)
@given(exponent=st.floats(-8, 8))
def test_the_formula_as_printed_is_the_one_computed(trainer, kind, exponent):
    S, form = 10.0**exponent, TRAINERS[trainer].forms[kind]
    assert close(flag_weight(trainer, kind, [S]), evaluated(form.text, S))
    if S <= 1000:
        assert close(epsilon_equivalent(trainer, kind, [S]), evaluated(form.epsilon, S))


@pytest.mark.parametrize("trainer, kind", FORMS)
def test_the_two_forms_are_one_objective(trainer, kind):
    # The paper's own weight, whose units are tested elsewhere, gives the factor between the units.
    factor = loss_weight("debiased", LINEAR) / loss_weight("debiased", LINEAR, kind)
    assert close(epsilon_equivalent(trainer, kind, LINEAR), flag_weight(trainer, kind, LINEAR) * factor)


@pytest.mark.parametrize(
    "trainer, kind, t, wanted",
    [
        ("kohya", "epsilon", 0, 3.16),
        ("kohya", "epsilon", 999, 1),
        ("kohya", "v_prediction", 0, 0.1),  # 0.01 without the clamp, which is in their v form too
        ("kohya", "v_prediction", 999, 157.4),
        ("kohya_scaled", "v_prediction", 999, 0.00635),
        ("kohya_old", "v_prediction", 999, 2.48e4),
        ("kohya_old_scaled", "v_prediction", 999, 1),
        ("onetrainer", "v_prediction", 0, 3.16),
        ("onetrainer", "v_prediction", 999, 157.4),
        ("diffengine", "v_prediction", 0, 1),
        ("diffengine", "v_prediction", 999, 157.4),
        ("authors", "v_prediction", 999, 2.48e4),
        ("authors", "sample", 0, 1e-4),
        ("authors", "sample", 999, 2.48e4),
    ],
)
def test_golden_ratios_to_the_paper(trainer, kind, t, wanted):
    assert ratio(trainer, kind, t) == pytest.approx(wanted, rel=2e-3)


def test_the_table_holds_each_trainers_own_numbers():
    every = comparison_table(LINEAR, range(1000))
    for trainer, kind in FORMS:
        mine = [row for row in every if (row["trainer"], row["prediction_type"]) == (trainer, kind)]
        assert close([row["weight"] for row in mine], flag_weight(trainer, kind, LINEAR))
        assert close([row["epsilon_equivalent"] for row in mine], epsilon_equivalent(trainer, kind, LINEAR))
        assert math.fsum(math.log(row["shape"]) for row in mine) == pytest.approx(0, abs=1e-8)


def test_zero_snr():
    terminal = LINEAR.rescale_zero_terminal_snr()
    assert flag_weight("diffengine", "epsilon", terminal)[-1] == math.inf
    assert flag_weight("kohya", "v_prediction", terminal)[-1] == 1
    for call in (lambda: epsilon_equivalent("kohya", "v_prediction", terminal), lambda: comparison_table(terminal)):
        with pytest.raises(InputError, match="the SNR is 0 at a timestep"):
            call()


def test_the_command_line(tmp_path, capsys):
    assert main(["--figure", str(tmp_path / "a.png"), "--schedule", "linear"]) == 0
    assert (tmp_path / "a.png").exists() and capsys.readouterr().out == ""
    assert main(["--figure", str(tmp_path / "a.foo")]) == 2
    assert capsys.readouterr().err.startswith("error: the figure's file type '.foo' is unknown;")
