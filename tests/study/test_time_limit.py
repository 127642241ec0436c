"""The most valuable work within a time: what is begun, what is left, that the time holds. With an engine of paper."""

import json
from types import SimpleNamespace

import pytest

from debiaslib.errors import InputError
from debiaslib.study import time_limit
from debiaslib.study.experiment import Experiment, load_experiment
from debiaslib.study.pace import Pace
from debiaslib.study.snakemake import TIMED_OUT
from debiaslib.study.time_limit import reproduce_within, what_is_left, write_part
from debiaslib.training.config import run_name

STAGES = (
    {"arms": ["constant", "debiased"], "seeds": [0, 1, 2]},
    {"arms": ["inverse_snr"], "seeds": [0]},
    {"arms": ["inverse_snr"], "seeds": [1, 2]},
)
TRAIN, MEASURE, LONG, END = 100, 60, 200, 70  # seconds


def experiment(**changes):
    settings = {"weightings": ("constant", "debiased", "inverse_snr"), "seeds": (0, 1, 2), "stages": STAGES}
    return Experiment(name="tried", preset="minifaces16", **{**settings, **changes})


def note(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


class Paper:
    """An engine that takes the seconds above for what it is asked for, and leaves the records that a real one would."""

    def __init__(self, folder, settings, monkeypatch):
        self.now, self.calls, self.reports, self.folder, self.settings = 1000.0, [], 0, folder, settings
        monkeypatch.setattr(time_limit, "time", SimpleNamespace(time=lambda: self.now))
        monkeypatch.setattr(time_limit, "run_engine", self.run)
        monkeypatch.setattr(time_limit, "_write_report", self.report)

    def report(self, config):
        self.now, self.reports = self.now + 5, self.reports + 1

    def _spend(self, seconds, until):
        self.now += min(seconds, max(0, until - self.now))
        return self.now < until

    def run(self, settings, folder, config, jobs, targets, until):
        self.calls.append((list(targets), dict(config)))
        if targets[0] in ("all", "results"):
            if not self._spend(END, until):
                return TIMED_OUT
            for name in settings.notebooks:
                note(folder / "notebooks" / f"{name}.json", {"seconds": 10})
            for name in ("mse.csv", "bias.csv"):
                note(folder / "tables" / f"{name}.json", {"seconds": 5, "inputs": {"runs": settings.runs}})
            return 0
        assert len({target.rpartition("-s")[0] + target[-20:] for target in targets}) <= 2 * jobs
        for kind, seconds in (("runs/", TRAIN), ("tables/distances", MEASURE), ("tables/long", LONG)):
            mine = [folder / t for t in targets if t.startswith(kind) and not (folder / t).exists()]
            if mine and not self._spend(seconds, until):
                for path in mine if kind == "runs/" else []:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    (path.parent / "log.jsonl").write_text('{"images": 32000}\n')
                return TIMED_OUT
            for path in mine:
                note(path, {"seconds": seconds})
                if kind == "tables/distances":
                    for other in ("samples-{}.npz.json", "training-{}.npz.json"):
                        name = path.name.removeprefix("distances-").removesuffix(".csv.json")
                        note(path.with_name(other.format(name)), {"seconds": 0})
        return 0


@pytest.fixture
def paper(tmp_path, monkeypatch):
    return Paper(tmp_path, experiment(), monkeypatch)


def within(paper, minutes, jobs=2):
    paper.calls.clear()
    deadline = paper.now + 60 * minutes
    left = reproduce_within(paper.settings, paper.folder, {"experiment": "tried.yaml"}, jobs, deadline)
    assert paper.now <= deadline
    return left


def trained(paper):
    return {path.parent.name for path in paper.folder.glob("runs/*/record.json")}


def measured(paper):
    names = [path.name for path in paper.folder.glob("tables/distances-*.json")]
    return {name.removeprefix("distances-").removesuffix(".csv.json") for name in names}


def test_the_most_valuable_first_and_then_on_to_the_end(paper):
    left = within(paper, 12)
    assert {"constant-s0", "debiased-s0", "constant-s1", "debiased-s1"} <= trained(paper)
    assert not any(name.startswith("inverse") for name in trained(paper))
    assert paper.calls[-1][0] == ["results"] and paper.reports == 1 and left
    calls = 1
    while left:
        left, calls = within(paper, 12), calls + 1
    assert len(trained(paper)) == 9 and 2 <= calls <= 5
    assert paper.calls[-1][0] == ["all"] and paper.calls[-1][1] == {"experiment": "tried.yaml"}
    assert within(paper, 12) == [] and [targets for targets, _ in paper.calls] == [["all"]]


def test_the_part_that_is_complete_is_what_the_notebooks_are_given(paper):
    within(paper, 9)
    path = paper.calls[-1][1]["experiment"]
    part = load_experiment(path)
    assert part.name == "tried" and {run_name(*run) for run in part.runs} == measured(paper) < trained(paper)
    assert part.weightings == ("constant", "debiased") and path.endswith("complete/tried.yaml")


def test_what_is_known_not_to_fit_is_only_trained(paper):
    left = within(paper, 9)
    assert paper.calls[1][0] == ["runs/constant-s1/record.json", "runs/debiased-s1/record.json"]
    assert "measure constant-s1" in left and measured(paper) == {"constant-s0", "debiased-s0"}
    within(paper, 4)  # the tables fit, and are made before anything else is trained
    assert paper.calls[0][0][1] == "tables/distances-constant-s1.csv.json" and len(measured(paper)) == 4


def test_too_little_time_for_anything_leaves_a_report_and_says_so(paper):
    left = within(paper, 1)
    assert trained(paper) == set() and paper.reports == 1
    assert "train and measure constant-s0 (25 % trained)" in left and len(left) == 10


def test_many_steps_come_last(paper, tmp_path, monkeypatch):
    settings = experiment(long_steps=(250,), seeds=(0,), stages=())
    paper = Paper(tmp_path / "long", settings, monkeypatch)
    left = within(paper, 12)
    order = [target for targets, _ in paper.calls for target in targets]
    assert order.index("tables/long-constant-s0.csv.json") > order.index("tables/distances-inverse_snr-s0.csv.json")
    while left:
        left = within(paper, 12)
    assert len(list(paper.folder.glob("tables/long-*.json"))) == 3


def test_notebooks_that_were_not_finished_are_left(paper, monkeypatch):
    within(paper, 60)
    monkeypatch.setattr(paper, "_spend", lambda seconds, until: False)
    assert reproduce_within(paper.settings, paper.folder, {}, 2, paper.now + 600)[-1].startswith("tables, notebooks")


def test_a_job_that_failed_is_an_error(paper, monkeypatch):
    monkeypatch.setattr(time_limit, "run_engine", lambda *arguments: 1)
    with pytest.raises(InputError, match="ended with code 1"):
        within(paper, 10)


def test_a_part_as_a_file_is_the_part(tmp_path):
    part = experiment(training={"lr": 0.01}, features=("pooled",))
    assert load_experiment(write_part(part, tmp_path)) == part


def test_what_is_left_of_nothing(tmp_path):
    lines = what_is_left(experiment(), tmp_path)
    assert len(lines) == 10 and lines[0] == "train and measure constant-s0" and lines[-1].startswith("notebooks 01_")


def test_the_pace_is_that_of_the_records(tmp_path):
    e = experiment(long_steps=(250, 1000), long_images=64)
    pace = Pace(e, tmp_path, jobs=2)
    assert pace.training("constant", 0) is None and pace.measuring("constant", 0) is None
    note(tmp_path / "runs" / "constant-s0" / "record.json", {"seconds": 100})
    assert pace.training("constant", 0) == 0 and pace.training("debiased", 0) == 115
    guessed = pace.measuring("debiased", 0)
    per_image = 100 / (3 * 128_000)
    assert pace.long("debiased", 0) == pytest.approx(15 + 64 * 1250 * 2 * per_image)
    for name in ("samples-{}.npz", "training-{}.npz", "distances-{}.csv"):
        note(tmp_path / "tables" / f"{name.format('constant-s0')}.json", {"seconds": 7})
    assert pace.measuring("constant", 0) == 0 and pace.measuring("debiased", 0) == 15 + 21 != guessed
    (tmp_path / "runs" / "debiased-s0").mkdir()
    (tmp_path / "runs" / "debiased-s0" / "log.jsonl").write_text('{"images": 64000}\n')
    assert pace.training("debiased", 0) == 65
