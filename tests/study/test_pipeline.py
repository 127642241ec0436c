"""The whole pipeline at a smoke size, through the same Snakefile: as a user calls it, in processes of its own."""

import html
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from debiaslib.errors import InputError
from debiaslib.figures.draw import FIGURES
from debiaslib.paths import notebook_files
from debiaslib.study import pipeline
from debiaslib.study.experiment import load_experiment
from debiaslib.study.progress import last_words, plan

HERE = Path(__file__).resolve().parents[1]
SMOKE = HERE / "smoke.yaml"


def command(results, *more, experiment=SMOKE):
    return [
        sys.executable,
        "-m",
        "debiaslib.study.pipeline",
        "--experiment",
        str(experiment),
        "--results",
        str(results),
        *more,
    ]


def reproduce(results, *more, experiment=SMOKE, cwd=None):
    return subprocess.run(
        command(results, *more, experiment=experiment),
        capture_output=True,
        text=True,
        timeout=900,
        cwd=cwd,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The smoke experiment, done once, called from another folder; its results folder and what the call printed."""
    results = tmp_path_factory.mktemp("résultats of a smoke")
    done = reproduce(results, cwd=tmp_path_factory.mktemp("elsewhere"))
    assert done.returncode == 0, done.stderr + (results / "smoke" / "logs" / "engine.log").read_text()
    return results, done


def test_one_command_gives_every_figure_notebook_and_the_report(finished):
    results, done = finished
    folder = results / "smoke"
    assert "estimate of smoke: 4 trainings of 425,859 parameters" in done.stdout
    assert f"report: {folder / 'report.html'}" in done.stdout
    assert {path.stem for path in (folder / "figures").glob("*.png")} == set(FIGURES)
    assert {path.stem for path in (folder / "notebooks").glob("*.ipynb")} == set(notebook_files())
    report = (folder / "report.html").read_text(encoding="utf-8")
    for name in FIGURES:
        title = json.loads((folder / "figures" / f"{name}.json").read_text(encoding="utf-8"))["title"]
        assert title in html.unescape(report)


def test_records_say_where_everything_came_from(finished):
    folder = finished[0] / "smoke"
    for run in ("constant-s0", "debiased-s0"):
        record = json.loads((folder / "runs" / run / "record.json").read_text(encoding="utf-8"))
        assert record["images"] == 640
        assert len(record["data"]["fingerprint"]) == 64
        assert record["packages"]["torch"]
        assert {"commit", "clean", "threads", "seconds", "device"} <= set(record)


def test_a_second_call_does_nothing_and_says_so(finished):
    results, _ = finished
    before = {path: path.stat().st_mtime_ns for path in (results / "smoke").rglob("*.json")}
    again = reproduce(results)
    assert again.returncode == 0
    assert "nothing to do" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in (results / "smoke").rglob("*.json")} == before


def test_other_settings_are_refused_and_nothing_is_written_over(finished, tmp_path):
    results, _ = finished
    other = tmp_path / "smoke.yaml"
    other.write_text(SMOKE.read_text(encoding="utf-8").replace("images: 640", "images: 960"), encoding="utf-8")
    before = (results / "smoke" / "runs" / "constant-s0" / "record.json").read_bytes()
    refused = reproduce(results, experiment=other)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "images=640" in refused.stderr
    assert "960" in refused.stderr
    assert (results / "smoke" / "runs" / "constant-s0" / "record.json").read_bytes() == before


def test_a_file_deleted_by_hand_is_made_again_and_nothing_else(finished):
    results, _ = finished
    table, record = (
        results / "smoke" / "tables" / "weights.csv",
        results / "smoke" / "runs" / "constant-s0" / "record.json",
    )
    content, before = table.read_bytes(), record.stat().st_mtime_ns
    table.unlink()
    assert reproduce(results).returncode == 0
    assert table.read_bytes() == content
    assert record.stat().st_mtime_ns == before


def test_what_is_measured_can_change_without_training_again(finished, tmp_path):
    results, _ = finished
    record = results / "smoke" / "runs" / "constant-s0" / "record.json"
    before = record.stat().st_mtime_ns
    samples = results / "smoke" / "tables" / "samples-constant-s0.npz.json"
    old = json.loads(samples.read_text(encoding="utf-8"))["inputs"]["n"]
    other = tmp_path / "smoke.yaml"
    other.write_text(SMOKE.read_text(encoding="utf-8").replace("grid_images: 4", "grid_images: 3"), encoding="utf-8")
    assert reproduce(results, experiment=other).returncode == 0
    assert (old, json.loads(samples.read_text(encoding="utf-8"))["inputs"]["n"]) == (4, 3)
    assert record.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--experiment", "quik"], "did you mean 'quick'?"),
        (["--experiment", "missing.yaml"], "does not exist"),
        (["--experiment", str(SMOKE), "--dataset", "no/such/folder"], "no/such/folder"),
        (["--experiment", str(SMOKE), "--jobs", "0"], "jobs is 0"),
        (["--experiment", str(SMOKE), "--minutes", "0"], "minutes is 0.0; it must be a finite number > 0"),
    ],
)
def test_bad_input_is_one_line_before_any_work(arguments, said, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "debiaslib.study.pipeline", "--results", str(tmp_path / "r"), *arguments],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert said in done.stderr
    assert not list((tmp_path / "r").glob("*/runs/*"))


def test_an_experiment_that_leads_back_to_itself_is_refused(tmp_path):
    path = tmp_path / "round.yaml"
    path.write_text(f"preset: minifaces16\nthen: {path}\n", encoding="utf-8")
    refused = reproduce(tmp_path / "r", experiment=path)
    assert refused.returncode == 2 and "leads back to where it began" in refused.stderr
    path.write_text("preset: minifaces16\nthen: quik\n", encoding="utf-8")
    assert "did you mean 'quick'?" in reproduce(tmp_path / "r", experiment=path).stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.slow
def test_a_limit_stops_cleanly_and_the_next_call_goes_on_to_the_same_bits(finished, tmp_path):
    limited = reproduce(tmp_path, "--minutes", "0.4")
    folder = tmp_path / "smoke"
    assert limited.returncode == 3, limited.stderr
    assert "the time is over; left are:" in limited.stdout and limited.stdout.endswith("the same command goes on\n")
    assert "Not complete" in (folder / "report.html").read_text(encoding="utf-8")
    assert reproduce(tmp_path, "--minutes", "60").returncode == 0
    _assert_same_weights(folder, finished[0] / "smoke")
    assert "nothing to do" in reproduce(tmp_path).stdout


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def children(pid):
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    return [(int(child), args) for child, parent, args in rows if int(parent) == pid]


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["pipeline", "engine", "worker"])
def test_after_kill_9_the_next_call_goes_on_to_the_same_bits(finished, victim, tmp_path):
    pipeline = subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    folder = tmp_path / "smoke"
    wait_for(lambda: any(path.stat().st_size for path in folder.glob("runs/*/log.jsonl")))
    engine = children(pipeline.pid)[0][0]
    workers = [pid for pid, args in children(engine) if "debiaslib.training.loop" in args]
    os.kill({"pipeline": pipeline.pid, "engine": engine, "worker": workers[0]}[victim], signal.SIGKILL)
    code = pipeline.wait(timeout=300)
    assert code != 0
    wait_for(lambda: not any(_alive(pid) for pid in [engine, *workers]), seconds=60)  # no orphan writes on
    done = reproduce(tmp_path)
    assert done.returncode == 0, done.stderr
    _assert_same_weights(folder, finished[0] / "smoke")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("background", [False, True])
def test_a_signal_saves_and_the_next_call_goes_on_to_the_same_bits(finished, number, background, tmp_path):
    """In the background of a shell a command starts with SIGINT ignored, and so do those that it starts."""
    usual = signal.signal(signal.SIGINT, signal.SIG_IGN if background else signal.getsignal(signal.SIGINT))
    try:
        pipeline = subprocess.Popen(command(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, usual)
    folder = tmp_path / "smoke"
    wait_for(lambda: any(path.stat().st_size for path in folder.glob("runs/*/log.jsonl")))
    began = len(list(folder.glob("runs/*/config.json")))
    pipeline.send_signal(number)
    assert "the same command goes on" in pipeline.communicate(timeout=120)[1]
    assert pipeline.returncode == 128 + number
    assert len(list(folder.glob("runs/*/config.json"))) == began < 4  # no other training was begun
    assert reproduce(tmp_path).returncode == 0
    _assert_same_weights(folder, finished[0] / "smoke")


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


def test_the_plan_counts_every_job_and_knows_when_it_is_done(finished):
    results, _ = finished
    experiment = load_experiment(SMOKE)
    jobs = plan(experiment, results / "smoke")
    assert len(jobs) == 2 * len(experiment.runs) + len(experiment.long_runs) + 1 + len(experiment.notebooks) + 1
    assert all(job.finished() == 1 for job in jobs)
    assert all(job.finished() == 0 for job in plan(experiment, results / "nothing here"))


def test_last_words_name_the_job_that_failed(tmp_path):
    logs = tmp_path / "logs"
    logs.mkdir()
    (logs / "train-constant-s0.log").write_text("step 1\nerror: the loss is not finite\n", encoding="utf-8")
    (logs / "engine.log").write_text("Error in rule train\n", encoding="utf-8")
    assert last_words(tmp_path, 0) == "train-constant-s0 failed: the loss is not finite"
    assert last_words(tmp_path, time.time() + 60) is None


@pytest.mark.parametrize("profile", ["nowhere", "config/slurm/config.yaml"])
def test_a_profile_that_is_none(tmp_path, profile):
    with pytest.raises(InputError, match=f"profile is '{profile}'; it must be a folder with a config.yaml"):
        pipeline.reproduce(str(SMOKE), results=tmp_path, profile=profile)
    assert list(tmp_path.iterdir()) == []
