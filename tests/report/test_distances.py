"""The report's tables of distances: one for each metric in each features, and those at many steps apart."""

import pandas as pd
import pytest

from debiaslib.errors import InputError
from debiaslib.report.distances import distances, long_distances
from debiaslib.report.records import missing_runs
from debiaslib.study.experiment import Experiment

SEEDS = {"constant": (0, 1, 2), "debiased": (0,)}
STAGES = ({"arms": ["constant"], "seeds": [0, 1, 2]}, {"arms": ["debiased"], "seeds": [0]})


def experiment():
    return Experiment(name="e", preset="minifaces16", seeds=(0, 1, 2), stages=STAGES, long_steps=(250,))


def write(folder, kind, who, seed, value, **more):
    facts = {"weighting": who, "variant": "", "seed": seed, "network": "ema", "sampler": "ddim", "steps": 10}
    facts |= {"images_seen": 640, "n": 500, "n_reference": 1000, **more}
    metrics = [("fd_pooled", "pooled", value), ("precision", "pooled", 0.5), ("precision", "minifaces", 0.9)]
    rows = [{**facts, "metric": m, "features": f, "value": v} for m, f, v in metrics]
    (folder / "tables").mkdir(exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / "tables" / f"{kind}-{who}-s{seed}.csv", index=False)


def test_features_are_not_averaged_and_fewer_seeds_are_said(tmp_path):
    for who, seeds in SEEDS.items():
        for seed in seeds:
            write(tmp_path, "distances", who, seed, 10.0 + seed)
    tables = {table.title: table for table in distances(experiment(), tmp_path)}
    assert dict(tables["Precision (pooled)"].rows)["constant"] == ["0.500 ± 0"]
    assert dict(tables["Precision (minifaces)"].rows)["constant"] == ["0.900 ± 0"]
    rows = dict(tables["Fréchet distance (pooled pixels)"].rows)
    assert rows == {"constant": ["11.0 ± 2.5"], "debiased (1 seed)": ["10.0"]}


def test_many_steps(tmp_path):
    assert long_distances(experiment(), tmp_path) == []
    write(tmp_path, "long", "constant", 0, 3.0, n=60, steps=250)
    write(tmp_path, "long", "debiased", 0, 2.0, n=60, steps=250)
    [table] = long_distances(experiment(), tmp_path)
    assert table.title == "At many steps: ddim" and "60 samples" in table.caption
    assert table.head == [
        "weighting",
        "fd_pooled, 250 steps",
        *(f"precision ({f}), 250 steps" for f in ("pooled", "minifaces")),
    ]
    assert table.rows == [("constant", ["3.00", "0.500", "0.900"]), ("debiased", ["2.00", "0.500", "0.900"])]
    write(tmp_path, "long", "debiased", 0, 2.0, n=50, steps=250)
    with pytest.raises(InputError, match="has not one n"):
        long_distances(experiment(), tmp_path)


def test_trainings_that_are_missing(tmp_path):
    run = tmp_path / "runs" / "constant-s1"
    run.mkdir(parents=True)
    (run / "log.jsonl").write_text('{"images": 32000}\n')
    assert missing_runs(experiment(), tmp_path)[:2] == ["constant, seed 0 (0 % done)", "constant, seed 1 (25 % done)"]
