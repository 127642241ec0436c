"""The controls' contrasts, on tables whose ratios are known by construction."""

import math

import pandas as pd
import pytest

from debiaslib.errors import InputError
from debiaslib.study import controls
from debiaslib.training.arms import parse_arm

SEEDS = {0: 1.0, 1: 3.0, 2: 0.7}  # what a seed multiplies all outcomes by
ARMS = {  # the outcomes' common level of each arm
    "constant": 8.0,
    "debiased": 2.0,
    "constant; lr=0.008": 5.0,
    "debiased; lr=0.008": 2.5,
    "constant; lr=0.004": 7.0,  # debiased has no such arm
    "constant; max_grad_norm=1": 6.0,
    "debiased; max_grad_norm=1": 3.0,
    "debiased; max_grad_norm=1, normalize_weight=true": 1.5,
    "debiased; normalize_weight=true": 2.0,
    "debiased; timestep_sampling=weight": 1.0,
    "constant; prediction_type=sample": 4.0,
    "p2(k=1,gamma=1); prediction_type=sample": 1.0,
    "p2(k=1,gamma=1); lr=0.004": 1.0,  # no control of constant's
}


def tables(arms=ARMS, raw=True):
    distances, errors = [], []
    for arm, level in arms.items():
        parsed = parse_arm(arm)
        for seed, factor in SEEDS.items():
            for network in ("ema", "raw") if raw else ("ema",):
                facts = {"weighting": parsed.weighting, "variant": parsed.variant, "seed": seed, "network": network}
                value = level * factor * (2.0 if network == "raw" and parsed.weighting == "constant" else 1.0)
                for metric in ("layout_energy", "fd_pooled", "fd_minifaces", "fd_cifar10", "precision"):
                    for steps in (5, 10, 20, 50):
                        row = {"metric": metric, "steps": steps, "value": value, "sampler": "ddim", "images_seen": 640}
                        distances += [{**facts, **row}, {**facts, **row, "images_seen": 64, "value": 99.0}]
                for t in (50, 900):
                    errors.append({**facts, "quantity": "x0_mse", "t": t, "value": value, "n": 9})
    return controls.outcomes(pd.DataFrame(distances), pd.DataFrame(errors))


@pytest.fixture(scope="module")
def found():
    return controls.contrasts(tables()).set_index(["condition", "outcome"])


def test_outcomes_are_those_of_the_finished_networks():
    table = tables()
    assert set(table.outcome) == set(controls.OUTCOMES)
    assert (table.value < 99).all()
    assert len(table) == len(ARMS) * len(SEEDS) * 2 * len(controls.OUTCOMES)


@pytest.mark.parametrize(
    "condition, ratio",
    [
        ("baseline", 2 / 8),
        ("each at its best learning rate", 2 / 5),
        ("lr 0.008", 2.5 / 5),
        ("max_grad_norm 1", 3 / 6),
        ("max_grad_norm 1, normalize_weight true", 1.5 / 6),
        ("normalize_weight true", 2 / 8),
        ("timestep_sampling weight", 1 / 8),
        ("against constant with prediction_type sample", 2 / 4),
        ("against P2 (1, 1) with prediction_type sample", 2 / 1),
        ("weights of the last step, no EMA", 2 / 16),
    ],
)
def test_a_condition(found, condition, ratio):
    for outcome in controls.OUTCOMES:
        row = found.loc[condition, outcome]
        assert (row.ratio, row.n) == (pytest.approx(ratio), 3)
        assert row.share == pytest.approx(math.log(ratio) / math.log(1 / 4))
        # The seeds multiply both arms alike, so the paired interval closes on the ratio.
        assert (row.low, row.high) == (pytest.approx(ratio), pytest.approx(ratio))


def test_nothing_else_is_compared(found):
    assert len(set(found.index.get_level_values(0))) == 10


def test_an_outcome_without_a_logarithm_is_left_out():
    errors = [{"weighting": arm, "variant": "", "seed": seed, "network": "ema", "quantity": "x0_mse", "t": t, "n": 9,
               "value": 1.0 if t == 900 else -0.01 * seed} for arm in ("constant", "debiased")
              for seed in (0, 1) for t in (50, 900)]  # fmt: skip
    none = pd.DataFrame(columns=["weighting", "variant", "seed", "network", "metric", "steps", "value", "sampler",
                                 "images_seen"])  # fmt: skip
    none.loc[0] = ["constant", "", 0, "ema", "precision", 5, 1.0, "ddim", 640]
    assert set(controls.outcomes(none, pd.DataFrame(errors)).outcome) == {"x0_mse, t = 900"}


def test_the_best_learning_rate_is_each_arms_own(found):
    row = found.loc["each at its best learning rate", "colour error, 20 steps"]
    assert (row.arm, row.baseline) == ("debiased", "constant; lr=0.008")


def test_the_sweep():
    table = controls.sweep(tables(), lambda arm: dict(parse_arm(arm).settings).get("lr", 0.002))
    row = table[(table.weighting == "constant") & (table.lr == 0.008) & (table.outcome == "fd_pooled, 20 steps")]
    assert row["mean"].item() == pytest.approx(5 * math.prod(SEEDS.values()) ** (1 / 3))
    assert set(table.lr) == {0.002, 0.004, 0.008} and (table.n == 3).all() and (table.low < table.high).all()


def test_without_raw_weights_or_variants():
    found = controls.contrasts(tables({"constant": 2.0, "debiased": 1.0}, raw=False))
    assert set(found.condition) == {"baseline"} and found.ratio.tolist() == pytest.approx(
        [0.5] * len(controls.OUTCOMES)
    )


def test_raw_weights_may_lack_an_outcome():
    """They are judged by the steps of the samples at the end alone."""
    table = tables({"constant": 2.0, "debiased": 1.0})
    table = table[(table.network == "ema") | (table.outcome != "colour error, 20 steps")]
    found = controls.contrasts(table).set_index("condition")
    assert len(found.loc["weights of the last step, no EMA"]) == len(found.loc["baseline"]) - 1


def test_a_rate_of_constant_alone_is_a_condition_where_debiased_has_one_rate():
    found = controls.contrasts(tables({"constant": 2.0, "debiased": 1.0, "constant; lr=0.004": 4.0}, raw=False))
    assert set(found.condition) == {"baseline", "against constant with lr 0.004"}


def test_without_any_of_the_outcomes_it_says_so():
    rows = pd.DataFrame({"weighting": ["constant"], "variant": "", "network": "ema", "seed": 0, "value": 1.0})
    distances = rows.assign(metric="precision", steps=5, sampler="ddim", images_seen=1)
    with pytest.raises(
        InputError, match="07_controls: of its outcomes, such as colour error, 5 steps, .* measured none"
    ):
        controls.outcomes(distances, rows.assign(quantity="x0_mse", t=100))


def test_arms_that_cannot_be_compared():
    with pytest.raises(InputError, match="compare constant and debiased"):
        controls.contrasts(tables({"constant": 1.0}))
    table = tables()
    found = controls.contrasts(table[(table.arm != "debiased") | (table.seed != 1)])
    assert set(found[found.condition == "baseline"].n) == {2}  # the seeds that both have


LEVELS = {  # by seed; of fd_pooled another arm of constant is the best
    "constant": {"": (1, 1, 100), "fd_pooled": (9, 9, 9)},
    "constant; lr=0.004": {"": (5, 5, 5)},
    "debiased": {"": (1, 1, 1)},
    "debiased; lr=0.004": {"": (2, 2, 2)},
}


@pytest.fixture
def told_apart():
    """Outcomes whose values tell metric, steps, sampler and timestep apart."""
    at = {("layout_energy", 5): 2.0, ("layout_energy", 20): 3.0, ("fd_pooled", 20): 5.0, ("fd_minifaces", 20): 7.0,
          ("fd_minifaces", 50): 11.0, ("fd_cifar10", 10): 13.0, ("fd_cifar10", 50): 17.0}  # fmt: skip
    distances, errors = {"ddim": [], "ddpm": []}, []
    for arm, levels in LEVELS.items():
        parsed = parse_arm(arm)
        for seed in range(3):
            facts = {"weighting": parsed.weighting, "variant": parsed.variant, "seed": seed, "network": "ema"}
            for (metric, steps), value in at.items():
                value *= levels.get(metric, levels[""])[seed]
                row = {**facts, "metric": metric, "steps": steps, "images_seen": 9}
                for sampler, factor in (("ddim", 1), ("ddpm", 99)):
                    distances[sampler].append({**row, "sampler": sampler, "value": factor * value})
            factor = levels[""][0] * (1 if arm == "debiased" else 2)
            errors += [{**facts, "quantity": "x0_mse", "t": t, "value": value * factor}
                       for t, value in ((50, 19.0), (900, 23.0))]  # fmt: skip
    return controls.outcomes(pd.DataFrame(distances["ddim"] + distances["ddpm"]), pd.DataFrame(errors))


def test_an_outcome_is_its_own_metric_and_steps_by_the_first_sampler(told_apart):
    assert told_apart.query("arm == 'debiased' and seed == 0").set_index("outcome").value.to_dict() == {
        "colour error, 5 steps": 2, "colour error, 20 steps": 3, "fd_pooled, 20 steps": 5, "fd_minifaces, 20 steps": 7,
        "fd_minifaces, 50 steps": 11, "fd_cifar10, 10 steps": 13, "fd_cifar10, 50 steps": 17, "x0_mse, t = 50": 19,
        "x0_mse, t = 900": 23,
    }  # fmt: skip


def test_the_best_rate_is_that_of_the_outcome_by_the_geometric_mean(told_apart):
    found = controls.contrasts(told_apart).query("condition == 'each at its best learning rate'").set_index("outcome")
    assert found.baseline["colour error, 5 steps"] == "constant"  # 100 ** (1/3) is 4.6, below 5; the mean is 34
    assert found.baseline["fd_pooled, 20 steps"] == "constant; lr=0.004"


def test_arms_that_are_equal_have_no_share():
    found = controls.contrasts(tables({"constant": 2.0, "debiased": 2.0}, raw=False))
    assert (found.ratio == 1).all() and found.share.isna().all()


def test_the_best_rate_is_chosen_by_the_averaged_weights():
    arms = {"constant": 4.0, "constant; lr=0.004": 5.0}
    rows = [{"arm": arm, "network": network, "outcome": "o", "seed": 0, "value": value}
            for arm, ema in arms.items() for network, value in (("ema", ema), ("raw", 9 / ema**3))]  # fmt: skip
    table = pd.DataFrame(rows)
    assert controls.best_arm(table, "o", list(arms)) == "constant"
