"""The whole pipeline at a smoke size, through the same Snakefile: as a user calls it, in processes of its own."""

import html
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import load_file

from debiaslib.errors import InputError
from debiaslib.figures.draw import FIGURES
from debiaslib.paths import checkout, notebook_files
from debiaslib.study import pipeline
from debiaslib.study.experiment import load_experiment
from debiaslib.study.snakemake import follow, last_words
from tests.data.test_images import folder_of

SMOKE = Path(__file__).resolve().parents[1] / "smoke.yaml"
TINY = """
preset: minifaces16
notebooks: [03_mse_step_curves, 06_fid_evaluation]
features: [pooled]
training:
  {images: 64, batch_size: 16, network: {block_out_channels: [8, 8, 8], layers_per_block: 1, norm_num_groups: 4}}
optimum_images: 128
shown_timesteps: [500]
shown_images: 2
curve_timesteps: [100, 500, 900]
curve_images: 8
grid_steps: [2]
grid_images: 2
distance_steps: [2]
distance_images: 60
snapshot_steps: [2]
reference_images: 100
"""


def command(results, *more, experiment):
    module = [sys.executable, "-m", "debiaslib.study.pipeline", "--experiment", str(experiment)]
    return [*module, "--results", str(results), *more]


def reproduce(results, experiment, cwd=None):
    return subprocess.run(
        command(results, experiment=experiment), capture_output=True, text=True, timeout=1800, cwd=cwd
    )


def times(folder):
    found = (path for path in folder.rglob("*.json") if ".snakemake" not in path.parts and path.name[0] != ".")
    return {path: path.stat().st_mtime_ns for path in found}


def done_once(folder, text, name):
    """(experiment's file, results, what the call printed) of an experiment done from another folder."""
    file, results = folder / f"{name}.yaml", folder / "résultats"
    file.write_text(text, encoding="utf-8")
    (folder / "elsewhere").mkdir()
    done = reproduce(results, file, cwd=folder / "elsewhere")
    assert done.returncode == 0, done.stderr + (results / name / "logs" / "engine.log").read_text()
    return file, results, done.stdout


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An experiment of two notebooks."""
    return done_once(tmp_path_factory.mktemp("a tiny one"), TINY, "tiny")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The smoke experiment: all notebooks."""
    return done_once(tmp_path_factory.mktemp("smoke"), SMOKE.read_text(encoding="utf-8"), "smoke")


@pytest.fixture(scope="module")
def longer(tmp_path_factory):
    """The experiment of one notebook with four trainings that are long enough to be killed."""
    text = TINY.replace("images: 64", "images: 4800").replace("03_mse_step_curves, ", "") + "seeds: [0, 1]\n"
    return done_once(tmp_path_factory.mktemp("longer"), text, "longer")


def assert_complete(folder, printed, notebooks):
    assert f"report: {folder / 'report.html'}" in printed
    drawn = {name for name, spec in FIGURES.items() if spec.notebook in notebooks}
    wanted = {name for name in drawn if not name.startswith("oracle_swap")}
    said = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (folder / "figures").glob("*.json")}
    sentences = {name for name, what in said.items() if "sentence" in what}  # one seed: there is nothing to draw
    assert {path.stem for path in (folder / "figures").glob("*.png")} | sentences >= wanted
    assert sentences <= {"bias_or_variance", "distance_by_images"}
    assert {path.stem for path in (folder / "notebooks").glob("*.ipynb")} == set(notebooks)
    report = html.unescape((folder / "report.html").read_text(encoding="utf-8"))
    assert [name for name in wanted - sentences if said[name]["title"] not in report] == []


def test_one_command_gives_figures_notebooks_records_and_the_report(finished):
    _, results, printed = finished
    assert "estimate of tiny: 2 trainings of " in printed
    assert_complete(results / "tiny", printed, ["03_mse_step_curves", "06_fid_evaluation"])
    for run in ("constant-s0", "debiased-s0"):
        record = json.loads((results / "tiny" / "runs" / run / "record.json").read_text(encoding="utf-8"))
        assert record["images"] == 64 and len(record["data"]["fingerprint"]) == 64 and record["packages"]["torch"]
        assert {"commit", "clean", "threads", "seconds", "device"} <= set(record)


@pytest.mark.slow
def test_the_whole_of_the_smoke_experiment(whole):
    assert_complete(whole[1] / "smoke", whole[2], notebook_files())


@pytest.mark.slow
def test_a_second_call_makes_nothing(finished):
    file, results, _ = finished
    before = times(results / "tiny")
    assert reproduce(results, file).returncode == 0
    assert {path: time for path, time in times(results / "tiny").items() if path in before} == before


@pytest.mark.slow
def test_what_is_deleted_by_hand_is_made_again_and_no_training(whole):
    file, results, _ = whole
    folder = results / "smoke"
    gone = ["tables/weights.csv", "tables/controls.csv", "figures/snr.png", "notebooks/05_training.ipynb",
            "notebooks/02_one_step_estimation.html", "tables/results.md"]  # fmt: skip
    kept = [*folder.glob("runs/*/record.json"), *folder.glob("tables/mse.csv*"), *folder.glob("tables/samples-*")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    weights = (folder / gone[0]).read_bytes()
    for name in gone:
        (folder / name).unlink()
    assert reproduce(results, file).returncode == 0
    assert [name for name in gone if not (folder / name).exists()] == []
    assert (folder / gone[0]).read_bytes() == weights
    assert {path: path.stat().st_mtime_ns for path in kept} == before


@pytest.mark.slow
def test_what_is_measured_can_change_without_training_again(whole, tmp_path):
    file, results, _ = whole
    record = results / "smoke" / "runs" / "constant-s0" / "record.json"
    before = record.stat().st_mtime_ns
    samples = results / "smoke" / "tables" / "samples-constant-s0.npz.json"
    old, other = json.loads(samples.read_text(encoding="utf-8"))["inputs"]["n"], tmp_path / "smoke.yaml"
    other.write_text(file.read_text(encoding="utf-8").replace("grid_images: 4", "grid_images: 3"), encoding="utf-8")
    assert reproduce(results, other).returncode == 0
    assert (old, json.loads(samples.read_text(encoding="utf-8"))["inputs"]["n"]) == (4, 3)
    assert record.stat().st_mtime_ns == before


@pytest.mark.slow
def test_what_changes_beside_what_is_measured_is_noticed(tmp_path):
    """A weighting is added, held-out images come later, and their table is deleted."""
    pictures, file = folder_of(tmp_path / "pictures", count=120, size=16), tmp_path / "mine.yaml"
    text = TINY.replace(", 06_fid_evaluation", "") + f"dataset: {pictures}\n"
    file.write_text(text + "weightings: [constant]\n", encoding="utf-8")
    tables = tmp_path / "r" / "mine" / "tables"

    def weightings_and_splits():
        done = reproduce(tmp_path / "r", file)
        assert done.returncode == 0, done.stderr
        weights, errors = (pd.read_csv(tables / name) for name in ("weights.csv", "mse.csv"))
        return set(weights.weighting), set(errors.split), (tables / "distances-real.csv").exists()

    assert weightings_and_splits() == ({"constant"}, {"train"}, False)
    file.write_text(text, encoding="utf-8")
    assert weightings_and_splits() == ({"constant", "debiased"}, {"train"}, False)
    folder_of(pictures / "test", count=70, size=16, first=200)
    assert weightings_and_splits() == ({"constant", "debiased"}, {"train", "heldout"}, True)
    (tables / "distances-real.csv").unlink()
    assert weightings_and_splits() == ({"constant", "debiased"}, {"train", "heldout"}, True)


def test_further_features_count_where_their_weights_are(tmp_path, monkeypatch):
    monkeypatch.setenv("DEBIASLIB_INCEPTION", str(tmp_path / "none.pth"))
    for further, at_hand in (("minifaces, inception", "minifaces"), ("inception", "")):
        (tmp_path / "mine.yaml").write_text(f"{TINY}further_features: [{further}]\n", encoding="utf-8")
        assert pipeline.check_before_start(load_experiment(tmp_path / "mine.yaml"))["further"] == at_hand


def test_published_weights_that_do_not_stand_in_are_refused_before_any_work(tmp_path, monkeypatch):
    tour = (checkout() / "config" / "tour.yaml").read_text(encoding="utf-8")
    changed = {
        "seeds: [0, 1]": "weights 'results/reference/quick/weights' hold no constant-s1",
        "seeds: [0]\nrates: {constant: 1e-3}": "was made with lr=0.002, not 0.001",
    }
    for text, said in changed.items():
        (tmp_path / "mine.yaml").write_text(tour.replace("seeds: [0]", text), encoding="utf-8")
        with pytest.raises(InputError, match=re.escape(said)):
            pipeline.check_before_start(load_experiment(tmp_path / "mine.yaml"), tmp_path)


BAD = [
    ({"experiment": "quik"}, "did you mean 'quick'?"),
    ({"experiment": "missing.yaml"}, "does not exist"),
    ({"dataset": "no/such/folder"}, "no/such/folder"),
    ({"jobs": 0}, "jobs is 0"),
    ({"profile": "nowhere"}, "profile is 'nowhere'; it must be a folder with a config.yaml"),
]


def test_a_dataset_in_a_file_is_found_from_the_callers_folder(tmp_path, monkeypatch, capsys):
    """The workers have another one. What is offered next is of the same images."""
    folder_of(tmp_path / "my pictures", count=70, size=16)
    file, seen = tmp_path / "mine.yaml", []
    file.write_text(TINY + "longer: photos\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(pipeline, "_run_engine", lambda settings, folder, config, jobs, profile: seen.append(config))
    pipeline.reproduce("mine.yaml", dataset="my pictures", results=tmp_path / "a")
    assert capsys.readouterr().out.endswith(
        "make reproduce EXPERIMENT=photos DATASET='my pictures' RESULTS=" + f"{tmp_path / 'a'}\n"
    )
    file.write_text(TINY + "longer: photos\ndataset: my pictures\n", encoding="utf-8")
    pipeline.reproduce("mine.yaml", results=tmp_path / "b")
    assert capsys.readouterr().out.endswith(
        "make reproduce EXPERIMENT=photos DATASET='my pictures' RESULTS=" + f"{tmp_path / 'b'}\n"
    )
    assert [config["dataset"] for config in seen] == [str(tmp_path / "my pictures")] * 2
    assert seen[0]["heldout"] == ""
    folder_of(tmp_path / "my pictures" / "test", count=70, size=16)
    (tmp_path / "my pictures").rename(tmp_path / "with held-out ones")
    pipeline.reproduce("mine.yaml", dataset="with held-out ones", results=tmp_path / "c")
    assert len(seen[2]["heldout"]) == 64
    folder_of(tmp_path / "minifaces", count=70, size=16)  # the drawn ones are meant by this name
    file.write_text(TINY, encoding="utf-8")
    pipeline.reproduce("mine.yaml", dataset="minifaces", results=tmp_path / "d")
    assert seen[3]["dataset"] == "minifaces"


@pytest.mark.parametrize(("given", "said"), BAD, ids=lambda value: str(value)[:40])
def test_bad_input_is_refused_before_any_work(given, said, tmp_path):
    with pytest.raises(InputError) as caught:
        pipeline.reproduce(**{"experiment": str(SMOKE), "results": tmp_path / "r", **given})
    assert said in str(caught.value) and not (tmp_path / "r").exists()


def test_too_few_images_are_refused_before_any_work(tmp_path):
    """minifaces has 64 numbers, pooled 48: a covariance of 40 images is singular in both."""
    pictures = str(folder_of(tmp_path / "few pictures", count=40, size=16))
    with pytest.raises(InputError) as caught:
        pipeline.reproduce(str(SMOKE), dataset=pictures, results=tmp_path / "r")
    assert "has 40 train images; features minifaces, pooled need 65" in str(caught.value)
    assert not (tmp_path / "r").exists()


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def children(pid):
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return [(int(child), args) for child, parent, args in rows if int(parent) == pid]


def begin(folder, file, **options):
    """(the running pipeline, the experiment's folder) when a training has begun."""
    process = subprocess.Popen(command(folder, experiment=file), stdout=subprocess.DEVNULL, **options)
    wait_for(lambda: any(path.stat().st_size for path in (folder / "longer").glob("runs/*/log.jsonl")), 400)
    return process, folder / "longer"


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["pipeline", "engine", "worker"])
def test_after_kill_9_the_next_call_goes_on_to_the_same_bits(longer, victim, tmp_path):
    pipeline, folder = begin(tmp_path, longer[0], stderr=subprocess.DEVNULL)
    engine = next(pid for pid, args in children(pipeline.pid) if "debiaslib.study.snakemake" in args)
    workers = [pid for pid, args in children(engine) if "-m debiaslib.training " in args]
    os.kill({"pipeline": pipeline.pid, "engine": engine, "worker": workers[0]}[victim], signal.SIGKILL)
    assert pipeline.wait(timeout=300) != 0
    wait_for(lambda: not any(_alive(pid) for pid in [engine, *workers]), seconds=60)  # no orphan writes on
    done = reproduce(tmp_path, longer[0])
    assert done.returncode == 0, done.stderr
    _assert_same_weights(folder, longer[1] / "longer")


@pytest.mark.slow
@pytest.mark.parametrize("number, background", [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_signal_saves_and_the_next_call_goes_on_to_the_same_bits(longer, number, background, tmp_path):
    """In the background of a shell a command starts with SIGINT ignored, and so do those that it starts."""
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN if background else signal.getsignal(signal.SIGINT))
    try:
        pipeline, folder = begin(tmp_path, longer[0], stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, usual)
    began = len(list(folder.glob("runs/*/config.json")))
    pipeline.send_signal(number)
    assert "the same command goes on" in pipeline.communicate(timeout=120)[1]
    assert pipeline.returncode == 128 + number
    assert len(list(folder.glob("runs/*/config.json"))) == began < 4  # no other training was begun
    assert reproduce(tmp_path, longer[0]).returncode == 0
    _assert_same_weights(folder, longer[1] / "longer")


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _assert_same_weights(folder, other):
    for path in folder.glob("runs/*/ema-*.safetensors"):
        mine, theirs = load_file(path), load_file(other / path.relative_to(folder))
        assert mine.keys() == theirs.keys()
        assert all((mine[name] == theirs[name]).all() for name in mine)


def _table_in_work(engine, folder):
    """[(process, table)] of a table of the whole experiment that is not there yet, where another one is."""
    done = {name for name in ("gate", "mse", "bias", "weights") if (folder / f"tables/{name}.csv.json").exists()}
    found = [(pid, re.search(r"study\.measurements (gate|mse|bias|weights) ", args)) for pid, args in children(engine)]
    return [(pid, match[1]) for pid, match in found if match and done and match[1] not in done]


@pytest.mark.slow
def test_a_killed_job_is_named_and_finished_tables_stay(tmp_path):
    (tmp_path / "tiny.yaml").write_text(TINY)
    folder = tmp_path / "r" / "tiny"
    run = subprocess.Popen(
        command(tmp_path / "r", "--jobs", "1", experiment=tmp_path / "tiny.yaml"), stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: children(run.pid), 400)
    engine, in_work = children(run.pid)[0][0], []
    # Equal priorities: any of them may come first, so the victim is what is made when another is finished.
    wait_for(lambda: in_work.extend(_table_in_work(engine, folder)) or in_work, 400)
    victim, table = in_work[0]
    tables = times(folder / "tables")
    os.kill(victim, signal.SIGKILL)
    said = run.communicate(timeout=400)[1]
    assert run.returncode == 3
    assert said.splitlines()[-1] == f"error: measure-{table}.csv was killed (signal 9; memory?)"
    assert tables and folder / f"tables/{table}.csv.json" not in tables
    assert {path: time for path, time in times(folder / "tables").items() if path in tables} == tables
    assert reproduce(tmp_path / "r", tmp_path / "tiny.yaml").returncode == 0


ENGINE = """rule train:
    output: runs/constant-s0/record.json
    log: logs/train-constant-s0.log
    jobid: 5
[Sun Nov 29 09:32:39 2026]
localrule measure:
    output: tables/mse.csv (update)
    log: logs/measure-mse.csv.log
    jobid: 7
Finished jobid: 5 (Rule: train)
1 of 13 steps (8%) done
waiting for another process, which has the experiment quick
CalledProcessError in file "Snakefile", line 3:
Command 'exec python' died with <Signals.SIGKILL: 9>.
Error in rule measure:
    jobid: 7
    log: logs/measure-mse.csv.log (check log file(s) for error details)
Command 'exec python' returned non-zero exit status 2.
Error in rule train:
    jobid: 8
    log: logs/train-debiased-s0.log (check log file(s) for error details)
"""


def test_what_the_engine_says_in_short(tmp_path):
    log, out = io.StringIO(), io.StringIO()
    failed = follow(io.StringIO(ENGINE), log, out)
    assert log.getvalue() == ENGINE and failed == {"measure-mse.csv": 137, "train-debiased-s0": 2}
    assert [line.split("] ")[1] for line in out.getvalue().splitlines()] == [
        "begun: train-constant-s0",
        "begun: measure-mse.csv",
        "done: 1 of 13 jobs",
        "waiting for another process, which has the experiment quick",
    ]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "train-debiased-s0.log").write_text("step 1\nerror: the loss is not finite\n")
    assert last_words(tmp_path, failed) == (
        "measure-mse.csv was killed (signal 9; memory?); train-debiased-s0 failed: the loss is not finite"
    )
