"""Verdicts are right whichever way the tables fall: written here, they say what was put into them."""

import math

import numpy as np
import pandas as pd
import pytest

from debiaslib.report.here import distance_means, distance_ratios
from debiaslib.report.verdicts import (
    COLUMNS,
    all_verdicts,
    interval_text,
    paired_claim,
    ratio_text,
    verdict_of,
    verdicts,
)

ARMS = ("constant", "debiased", "p2(k=1,gamma=1)")


@pytest.mark.parametrize(
    "interval, claimed, wanted",
    [
        ((0.5, 0.4, 0.6), "below", "holds"),
        ((0.5, 0.4, 0.6), "above", "refuted"),
        ((2.0, 1.5, 2.5), "below", "refuted"),
        ((2.0, 1.5, 2.5), "above", "holds"),
        ((0.98, 0.92, 1.05), "below", "no difference"),
        ((0.8, 0.5, 1.2), "below", "open"),
        ((0.8, 0.5, 1.2), "above", "open"),
        ((0.8, math.nan, math.nan), "below", "one seed: yes"),
        ((0.8, math.nan, math.nan), "above", "one seed: no"),
    ],
)
def test_a_verdict_follows_from_the_interval(interval, claimed, wanted):
    assert verdict_of(interval, claimed) == wanted


def test_one_seed_has_no_brackets():
    assert ratio_text((0.5, math.nan, math.nan), 1) == "0.5 (one seed)"
    assert ratio_text((0.5, 0.4, 0.61), 3) == "0.5 [0.4, 0.61], 3 seeds"


def test_a_bound_shows_its_side_of_1():
    assert ratio_text((0.975, 0.947, 1.0033), 6) == "0.975 [0.947, 1.003], 6 seeds"
    assert interval_text((1, 0.99961, 1.0)) == "1 [0.9996, 1]"


def write_tables(folder, factor, seeds=(0, 1, 2)):
    """Tables in which debiased's errors and distances are `factor` times constant's."""
    tables = folder / "tables"
    tables.mkdir(parents=True)
    generator, errors, scale = np.random.default_rng(0), [], {"constant": 1, "debiased": factor, ARMS[2]: 1.5}
    for seed in seeds:
        level = 1 + 0.01 * generator.random()
        for t in (50, 900):
            for arm in ARMS:
                for quantity, value in (("x0_mse", 2.0), ("excess", 1.0), ("colour_excess", 0.5)):
                    row = {"model": arm, "t": t, "quantity": quantity, "mean": value * level * scale[arm]}
                    errors.append({**row, "split": "train", "seed": seed})
            for quantity in ("x0_mse", "floor"):
                row = {"model": "optimum", "t": t, "quantity": quantity, "mean": 0.2, "split": "train", "seed": seed}
                errors.append(row)
        for arm in ARMS:
            rows = [
                {"weighting": arm, "variant": "", "seed": seed, "network": "ema", "sampler": "ddim", "steps": steps,
                 "images_seen": seen, "metric": metric, "value": level * scale[arm], "features": "pooled"}
                for steps in (5, 50) for seen in (100, 200) for metric in ("fd_pooled", "colour_energy")
            ]  # fmt: skip
            slug = "p2-k1-gamma1" if arm == ARMS[2] else arm
            pd.DataFrame(rows).to_csv(tables / f"distances-{slug}-s{seed}.csv", index=False)
    pd.DataFrame(errors).to_csv(tables / "mse.csv", index=False)
    return folder


def test_what_is_claimed_holds_where_the_tables_say_so_and_is_refuted_where_they_say_the_opposite(tmp_path):
    for factor, wanted in ((0.5, "holds"), (2.0, "refuted"), (1.0, "no difference")):
        table = all_verdicts(write_tables(tmp_path / wanted, factor))
        assert list(table.columns) == ["chapter", *COLUMNS]
        gain = table[table.claim == "There is a gain at large t."]
        assert gain.verdict.tolist() == [wanted] and "3 seeds" in gain["found here"].iloc[0]
        assert table[table.claim == "Smaller fd_pooled than constant in 5 steps."].verdict.tolist() == [wanted]
        assert table[table.claim == "It trains faster."].verdict.tolist() == [wanted]
        assert not table["found here"].str.contains("nan").any()


def test_an_arm_that_is_not_in_the_curves_of_errors_is_judged_by_the_table_of_all_arms(tmp_path):
    """As P2 and Min-SNR are in the published cifar10-16, whose curves are of constant and debiased."""
    wanted = all_verdicts(write_tables(tmp_path, 0.5))
    errors = pd.read_csv(tmp_path / "tables/mse.csv")
    own = errors.model == ARMS[2]
    moved = errors[own].drop(columns="split").rename(columns={"model": "weighting", "mean": "value"})
    moved.assign(variant="", network="ema").to_csv(tmp_path / "tables/arm_errors.csv", index=False)
    errors[~own].to_csv(tmp_path / "tables/mse.csv", index=False)
    assert all_verdicts(tmp_path).equals(wanted) and (wanted.claim == "It is this weight, and not P2 (1, 1).").any()


def test_an_arm_with_fewer_seeds_says_so_in_the_tables_of_ratios(tmp_path):
    (write_tables(tmp_path, 0.5) / "tables/distances-p2-k1-gamma1-s2.csv").unlink()
    assert [name for _, name in distance_ratios(tmp_path).columns] == ["debiased", "P2 (1, 1) (2 seeds)"]
    assert list(distance_means(tmp_path).columns) == ["constant", "debiased", "P2 (1, 1) (2 seeds)"]


def test_one_seed_gives_directions_only(tmp_path):
    table = all_verdicts(write_tables(tmp_path / "one", 0.5, seeds=(0,)))
    ratios = table[table["found here"].str.contains(" / ")]
    assert len(ratios) > 5 and set(ratios.verdict) <= {"one seed: yes", "one seed: no"}


def weighted(folder, order):
    """Write the table of weights: the weightings' shares of the weight at t > 500 are in this order, largest first."""
    rows = [
        {"weighting": arm, "prediction_type": "epsilon", "t": 500, "share": 0.1 * place}
        for place, arm in enumerate(order)
    ]
    pd.DataFrame(rows).to_csv(folder / "tables" / "weights.csv", index=False)
    return folder


@pytest.mark.parametrize("seeds", [(0,), (0, 1, 2)])
def test_one_reversed_pair_refutes_an_order(tmp_path, seeds):
    folder = write_tables(tmp_path, 0.5, seeds)  # debiased has the smallest distance, P2 the largest
    for order, wanted in ((("debiased", "constant", ARMS[2]), "holds"), ((ARMS[2], "debiased", "constant"), "refuted")):
        wanted = wanted if len(seeds) > 1 else {"holds": "one seed: yes", "refuted": "one seed: no"}[wanted]
        assert verdicts(4, weighted(folder, order)).verdict.tolist() == [wanted]


@pytest.mark.parametrize(("seeds", "wanted"), [((0,), "one seed: yes"), ((0, 1, 2), "holds")])
def test_the_share_of_colour_is_judged_over_seeds(tmp_path, seeds, wanted):
    row = (
        verdicts(2, write_tables(tmp_path, 0.5, seeds))
        .set_index("claim")
        .loc["Over a tenth of constant's excess is colour."]
    )
    assert row.verdict == wanted and row["found here"].startswith("share of the mean colour: 0.5 ")


def test_a_tenth_is_the_limit_of_colour_and_a_network_below_the_optimum_is_found(tmp_path):
    path = write_tables(tmp_path, 0.5) / "tables/mse.csv"
    table = pd.read_csv(path)
    claims = verdicts(2, tmp_path).set_index("claim").verdict
    assert claims["No network beats the optimum."] == "holds"
    table.loc[table.quantity == "colour_excess", "mean"] *= 0.25  # from 0.5 to 0.125 of the excess
    table.loc[(table.model == "debiased") & (table.quantity == "x0_mse"), "mean"] = 0.1  # the optimum has 0.2
    table.to_csv(path, index=False)
    claims = verdicts(2, tmp_path).set_index("claim").verdict
    assert claims["Over a tenth of constant's excess is colour."] == "holds"
    assert claims["No network beats the optimum."] == "refuted"
    table.loc[table.quantity == "colour_excess", "mean"] *= 0.5
    table.to_csv(path, index=False)
    assert verdicts(2, tmp_path).set_index("claim").verdict["Over a tenth of constant's excess is colour."] == "refuted"


def test_the_price_is_judged_at_small_t_and_speed_by_the_first_snapshot(tmp_path):
    """Debiased is better at large t and at the end, and worse at small t and early."""
    tables = write_tables(tmp_path, 0.5) / "tables"
    errors = pd.read_csv(tables / "mse.csv")
    errors.loc[(errors.model == "debiased") & (errors.t == 50), "mean"] *= 4
    errors.to_csv(tables / "mse.csv", index=False)
    for path in tables.glob("distances-debiased-*.csv"):
        table = pd.read_csv(path)
        table.loc[table.images_seen == 100, "value"] *= 4
        table.to_csv(path, index=False)
    claims = all_verdicts(tmp_path).set_index("claim").verdict
    assert claims["There is a gain at large t."] == "holds" and claims["The price at small t is nothing."] == "refuted"
    assert claims["It trains faster."] == "refuted" and claims["Smaller fd_pooled than constant in 5 steps."] == "holds"


def test_without_tables_there_are_no_verdicts(tmp_path):
    assert all(verdicts(chapter, tmp_path).empty for chapter in range(1, 8))


def test_without_constant_nothing_is_said_of_it(tmp_path):
    (tmp_path / "tables").mkdir()
    seeds = [{"arm": "debiased", "seed": seed, "t": 900, "error": 0.1, "limit": 1, "passes": True} for seed in (0, 1)]
    pd.DataFrame(seeds).to_csv(tmp_path / "tables" / "gate.csv", index=False)
    row = {"split": "train", "model": "debiased", "t": 900, "frequency": None, "weight": 1, "se": 0.1, "n": 8}
    parts = [{**row, "quantity": name, "value": 1.0} for name in ("excess_common", "excess_between")]
    pd.DataFrame(parts).to_csv(tmp_path / "tables" / "bias.csv", index=False)
    assert all_verdicts(tmp_path).empty


def test_a_distance_that_is_not_above_0_gives_a_difference_and_no_ratio():
    def judged(ours, base):
        row = paired_claim("c", "r", "d", pd.Series(ours), pd.Series(base))
        return row["verdict"], row["found here"]

    assert judged([-0.1], [1.0]) == ("one seed: yes", "d: -0.1 against 1 (one seed)")
    assert judged([-0.1, 0.0, 0.1], [1.0, 1.1, 1.0])[0] == "holds"
    assert judged([1.0, 1.1, 1.0], [-0.1, 0.0, 0.1])[0] == "refuted"
    assert judged([0.0, 1.0, -1.0], [0.1, 0.0, 0.0])[0] == "open"


def test_weightings_are_ordered_by_the_seeds_that_all_have(tmp_path):
    """By position, P2's seeds 0 and 1 would be paired with constant's 1 and 2."""
    write_tables(tmp_path, 0.5)
    tables = tmp_path / "tables"
    (tables / "distances-constant-s0.csv").unlink()
    (tables / "distances-p2-k1-gamma1-s2.csv").unlink()
    share = {"constant": 0.5, "debiased": 0.03, ARMS[2]: 0.3}
    rows = [{"weighting": arm, "prediction_type": "epsilon", "t": 500, "share": value} for arm, value in share.items()]
    pd.DataFrame(rows).to_csv(tables / "weights.csv", index=False)
    assert verdicts(4, tmp_path).verdict.tolist() == ["one seed: no"]  # seed 1: constant is better than P2


@pytest.mark.parametrize("fails", ["constant", "debiased"])
def test_both_arms_must_have_learned(tmp_path, fails):
    write_tables(tmp_path, 0.5)
    rows = [{"arm": arm, "seed": 0, "t": t, "error": 1.0, "limit": 1.0, "passes": arm != fails}
            for arm in ARMS[:2] for t in (600, 900)]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "tables" / "gate.csv", index=False)
    found = all_verdicts(tmp_path).set_index("claim")
    refuted_by = found["what would refute it"]["The networks have learned their task."]
    assert refuted_by.endswith("1.25 times the optimum's error at t = 600 or twice x_t's at t = 900")
    assert found.verdict["The networks have learned their task."] == "refuted"
    assert found.verdict["There is a gain at large t."] == "not testable"
    assert found.verdict["It trains faster."] == "not testable"
    against_p2 = found.verdict["Smaller fd_pooled than P2 (1, 1) in 5 steps."]
    assert against_p2 == ("not testable" if fails == "debiased" else "holds")
