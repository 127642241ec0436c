"""Tables for a paper: what is averaged, and that bold is earned."""

import math
import re

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from scipy.stats import ttest_1samp

from debiaslib.errors import InputError
from debiaslib.metrics.statistics import logit_interval
from debiaslib.report.tables import as_markdown, gate, summarise_distances, write_result_tables


def rows(weighting, values, metric="fd_pooled", steps=5, **more):
    facts = {"weighting": weighting, "variant": "", "network": "ema", "sampler": "ddim", "steps": steps, "n": 500}
    facts |= {"images_seen": 640, "metric": metric, "features": "pooled", "n_reference": 2048, **more}
    return [{**facts, "seed": seed, "value": value} for seed, value in enumerate(values)]


def summary(*parts):
    return summarise_distances(pd.DataFrame(sum(parts, [])))


CLEAR = rows("constant", [9.0, 10.0, 11.0]), rows("debiased", [4.0, 5.0, 6.1])


def markdown(found):
    return re.sub(" +", " ", as_markdown(found))


def best(found):
    return found[found.best].weighting.tolist()


def test_mean_and_interval():
    row = summary(*CLEAR).set_index("weighting").loc["constant"]
    assert (row["mean"], row.seeds, row.n) == (10, 3, 500)
    assert row.high - 10 == pytest.approx(4.302652729911275 / math.sqrt(3)) == 10 - row.low


def test_bold_where_the_seeds_tell():
    assert best(summary(*CLEAR)) == ["debiased"]
    assert "| debiased | **5.0 ± 2.6** |" in markdown(summary(*CLEAR))


def test_metrics_of_earlier_versions_are_left_out():
    assert set(summary(*CLEAR, rows("constant", [0.1], "mean_red"), rows("debiased", [0.2], "spread_red")).metric) == {
        "fd_pooled"
    }


def test_bold_is_paired():
    """Overlapping intervals of the means, but every seed says the same."""
    assert best(summary(rows("constant", [1.0, 5.0, 9.0]), rows("debiased", [0.5, 4.4, 8.5]))) == ["debiased"]


@pytest.mark.parametrize(
    "others",
    [
        [rows("debiased", [4.0, 14.0, 6.0])],  # the seeds disagree
        [rows("debiased", [4.0, 5.0, 6.0]), rows("p2", [4.1, 4.8, 6.2])],  # the runner-up is too near
    ],
)
def test_no_bold_where_they_do_not(others):
    found = summary(rows("constant", [9.0, 10.0, 11.0]), *others)
    assert best(found) == [] and "**" not in as_markdown(found)


def test_one_or_two_seeds_earn_no_bold():
    assert best(summary(rows("constant", [9.0]), rows("debiased", [1.0]))) == []
    assert best(summary(rows("constant", [9.0, 9.1]), rows("debiased", [1.0, 1.0001]))) == []
    assert "| constant | 9.00 |" in markdown(summary(rows("constant", [9.0]), rows("debiased", [1.0])))


def test_a_weighting_with_fewer_seeds_is_neither_beaten_nor_counted_as_more():
    found = summary(*CLEAR, rows("p2", [9.0]))
    assert best(found) == [] and found.set_index("weighting").seeds.to_dict() == {"constant": 3, "debiased": 3, "p2": 1}
    assert "over 1 to 3 seeds" in markdown(found) and "| P2 (1, 1) | 9.00 |" in markdown(found)


def test_higher_is_better_where_it_is():
    found = summary(
        *(rows(who, v, metric="precision") for who, v in [("constant", [0.9, 0.91, 0.92]), ("p2", [0.5, 0.5, 0.51])])
    )
    assert best(found) == ["constant"]
    constant = found.set_index("weighting").loc["constant"]
    logits = np.log([0.9, 0.91, 0.92]) - np.log([0.1, 0.09, 0.08])
    low, high = expit(ttest_1samp(logits, 0).confidence_interval(0.95))
    assert [constant.low, constant.high] == pytest.approx([low, high], abs=2e-3)
    assert f"{constant['mean']:.2f} [{low:.2f}, {high:.2f}]" in markdown(found) and "of the log odds" in as_markdown(
        found
    )


def test_what_does_not_count():
    extra = rows("debiased", [0.1] * 3, network="raw") + rows("debiased", [0.1] * 3, variant="lr=1")
    extra += rows("debiased", [0.1] * 3, images_seen=64)
    assert summary(*CLEAR, extra).equals(summary(*CLEAR))


def test_different_numbers_of_images_are_not_compared():
    with pytest.raises(InputError, match="one n, so arms cannot be compared: 400 for debiased; 500 for constant"):
        summary(rows("constant", [1.0]), rows("debiased", [1.0], n=400))


def test_samplers_and_steps_are_apart():
    found = summary(*CLEAR, rows("constant", [1.0], sampler="ddpm"), rows("constant", [2.0, 2.0, 2.0], steps=50))
    assert len(found) == 4 and as_markdown(found).count("### ") == 2


def test_files_are_written_from_what_lies_in_the_folder(tmp_path):
    """As pandas reads them: an empty variant comes back as NaN and must still count as none."""
    (tmp_path / "tables").mkdir()
    for part in CLEAR:
        for row in part:
            name = f"distances-{row['weighting']}-s{row['seed']}.csv"
            pd.DataFrame([row]).to_csv(tmp_path / "tables" / name, index=False)
    changed = pd.DataFrame(rows("debiased", [0.1], variant="lr=1"))
    changed.to_csv(tmp_path / "tables" / "distances-debiased--lr-1-s0.csv")
    stale = pd.DataFrame(rows("inverse_snr", [0.1]))  # of a weighting that the experiment no longer has
    stale.to_csv(tmp_path / "tables" / "distances-inverse_snr-s0.csv", index=False)
    runs = [(arm, seed) for arm in ("constant", "debiased", "debiased; lr=1") for seed in (0, 1, 2)]
    write_result_tables(tmp_path, runs)
    text = (tmp_path / "tables/results.md").read_text(encoding="utf-8")
    assert "| debiased    | **5.0 ± 2.6** |" in text and "SNR" not in text
    assert pd.read_csv(tmp_path / "tables/results.csv").best.tolist() == [False, True]
    write_result_tables(tmp_path / "nothing", runs)
    assert not (tmp_path / "nothing").exists()


def test_a_share_is_of_its_own_images_and_of_one_seed_as_measured():
    """Recall is a share of the reference images, precision one of the samples."""
    for metric, of in (("precision", 50), ("recall", 2000)):
        table = pd.DataFrame(rows("constant", [0.0, 0.02], metric=metric, n=50, n_reference=2000))
        both = summarise_distances(table).iloc[0]
        wanted = logit_interval([0.0, 0.02], of)
        assert (both["mean"], both.low, both.high) == pytest.approx(wanted)
        one = summarise_distances(table[table.seed == table.seed.min()]).iloc[0]
        assert one["mean"] == 0 and math.isnan(one.low)


def test_the_table_of_the_gate_has_the_worst_seed_of_each_arm():
    rows = [{"arm": arm, "seed": seed, "t": t, "error": error, "optimum": 0.2, "x_t": 1.2, "limit": limit,
             "passes": error <= limit}
            for t, limit in ((600, 0.25), (900, 2.4))
            for arm, errors in (("constant", (0.21, 0.3, 0.22)), ("debiased", (0.2, 0.21, 0.22)))
            for seed, error in enumerate(errors)]  # fmt: skip
    table = gate(pd.DataFrame(rows))
    assert table["error of x0"].tolist() == ["0.300", "0.220"] * 2 and table.passes.tolist() == ["no", *["yes"] * 3]
