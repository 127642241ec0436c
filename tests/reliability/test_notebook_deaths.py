"""A notebook whose kernel, papermill or pipeline dies, hangs or leaves early: no success, no orphan, no hand needed.

Other deaths of the pipeline, while it trains, are in tests/study/test_pipeline.py.
"""

import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from trial import ROOT, Trial, heartbeat, ran_to_its_end, write_checkout, write_notebook

from debiaslib.errors import InputError
from debiaslib.study import run_notebook as execution

pytestmark = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="finds processes by /proc")

NAME = "02_one_step_estimation"
TINY = Path(__file__).with_name("tiny.yaml")
LIMIT = 10  # seconds within which every process has ended
KILL = signal.SIGKILL


@pytest.fixture
def quick(tmp_path, monkeypatch):
    """Executes a notebook that does as told, in this process; where its results are to be."""
    source = tmp_path / "a {folder}" / f"{NAME}.ipynb"
    write_notebook(source)
    monkeypatch.setattr(execution, "notebook_files", lambda: {NAME: source})

    def run(does):
        monkeypatch.setenv("DEBIASLIB_TEST_NOTEBOOK", does)
        return execution.execute_notebook(NAME, results=tmp_path / "r")

    return run, tmp_path / "r" / "quick"


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("sys.exit(0)", "cell 2: SystemExit: 0; see "),
        pytest.param("sys.exit()", "cell 2: SystemExit: ", marks=pytest.mark.slow),
        ("os._exit(0)", "the kernel ended: Kernel died; see "),
        ("os.kill(os.getpid(), 9)", "the kernel ended: Kernel died; see "),
        pytest.param("get_ipython().ask_exit(); time.sleep(1)", "the kernel ended: ", marks=pytest.mark.slow),
        pytest.param("1 / 0", "cell 2: ZeroDivisionError: division by zero; see ", marks=pytest.mark.slow),
    ],
)
def test_a_notebook_that_leaves_early_has_failed_and_the_next_call_completes(quick, does, said):
    run, folder = quick
    with pytest.raises(InputError) as caught:
        run(does)
    assert str(caught.value).startswith(f"notebook {NAME}: {said}") and "\n" not in str(caught.value)
    assert not ran_to_its_end(folder, NAME) and (folder / "notebooks" / f"{NAME}.failed.ipynb").exists()
    run("")
    assert ran_to_its_end(folder, NAME) and not list(folder.glob("notebooks/*.failed.ipynb"))


def test_a_kernel_that_cannot_be_started_is_one_line(quick, monkeypatch, tmp_path):
    run, folder = quick
    kernel = tmp_path / "jupyter" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    broken = {
        "argv": [str(tmp_path / "no python"), "-f", "{connection_file}"],
        "display_name": "x",
        "language": "python",
    }
    (kernel / "kernel.json").write_text(json.dumps(broken))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    with pytest.raises(InputError, match="the kernel ended: .*No such file") as caught:
        run("")
    assert "\n" not in str(caught.value)
    assert not ran_to_its_end(folder, NAME)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout with one notebook, which does as told, and a tiny experiment."""
    folder = write_checkout(tmp_path_factory.mktemp("checkout") / "of the tests", NAME)
    shutil.copy(TINY, folder)
    return folder


def execute(checkout, results, does):
    return Trial(
        ["-m", "debiaslib.study.run_notebook", NAME, "--experiment", "tiny.yaml", "--results", results], checkout, does
    )


def reproduce(checkout, results, does="", *more):
    command = ["-m", "debiaslib.study.pipeline", "--experiment", "tiny.yaml", "--results", results, *more]
    return Trial(command, checkout, does)


def papermill(checkout, results, does="", *more):
    """papermill's own command, with the results where `ran_to_its_end` looks for them."""
    out = results / "tiny" / "notebooks" / f"{NAME}.ipynb"
    out.parent.mkdir(parents=True, exist_ok=True)
    command = ["-m", "papermill", f"notebooks/{NAME}.ipynb", out, "--no-progress-bar", "-p", "results", results, *more]
    return Trial(command, checkout, does)


def fails(trial, results, victim, number):
    """Send a signal to a victim once the notebook writes, and return what `leaves` does."""
    kernel, _ = trial.wait_for(lambda: heartbeat(results))
    pids = {"kernel": kernel, "itself": trial.process.pid}
    os.kill(pids[victim] if victim in pids else trial.find(victim), number)
    return leaves(trial, results)


def leaves(trial, results):
    """(exit status, what was printed, seconds from now until none of its processes lived); asserts that none writes."""
    lived = trial.last_of_them(LIMIT)
    beats = heartbeat(results)
    code, said = trial.end()
    time.sleep(0.5)
    assert heartbeat(results) == beats
    return code, said, lived


@pytest.mark.parametrize(
    ("victim", "number", "code", "said"),
    [
        ("itself", KILL, -KILL, ""),
        pytest.param("kernel", KILL, 2, "the kernel ended: Kernel died; see ", marks=pytest.mark.slow),
        pytest.param("itself", signal.SIGINT, 130, "", marks=pytest.mark.slow),
        pytest.param("itself", signal.SIGTERM, 143, "", marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_a_notebook_that_runs(checkout, tmp_path, victim, number, code, said):
    with execute(checkout, tmp_path, "wait") as trial:
        ended, printed, _ = fails(trial, tmp_path, victim, number)
    assert ended == code and said in printed
    assert not ran_to_its_end(tmp_path / "tiny", NAME)
    with execute(checkout, tmp_path, "") as trial:
        assert trial.end()[0] == 0
    assert ran_to_its_end(tmp_path / "tiny", NAME)


SWALLOWS = """
import time
from debiaslib.signals import end_after_signal

end_after_signal(1)
while True:
    try:
        print("ready", flush=True)
        time.sleep(60)
    except BaseException as error:
        print(repr(error), flush=True)
"""


@pytest.mark.parametrize(("number", "code", "said"), [(2, 130, "KeyboardInterrupt()"), (15, 143, "SystemExit(143)")])
def test_a_signal_that_a_library_swallows_ends_the_process_all_the_same(number, code, said):
    with Trial(["-c", SWALLOWS], ROOT) as trial:
        assert trial.process.stdout.readline() == "ready\n"
        trial.process.send_signal(number)
        assert trial.last_of_them(LIMIT) < LIMIT
        assert trial.end() == (code, f"{said}\nready\n")


@pytest.mark.slow
def test_papermills_own_command_killed_interrupted_or_at_its_time_limit(checkout, tmp_path, reached):
    """A notebook run without our pipeline: papermill's exit status is its own, and the kernel must not live on."""
    lives = []
    for number, (more, victim) in enumerate([((), "kernel"), ((), "itself"), (("--execution-timeout", "2"), None)]):
        results = tmp_path / str(number)
        with papermill(checkout, results, "wait", *more) as trial:
            if victim is None:
                trial.wait_for(lambda at=results: heartbeat(at))
                time.sleep(2)
            code, _, lived = fails(trial, results, victim, KILL) if victim else leaves(trial, results)
            assert code != 0
            lives.append(lived)
        with papermill(checkout, results) as trial:
            assert trial.end()[0] == 0
    kinds = "papermill by itself: kernel killed, papermill killed, cell at its time limit"
    reached(2, kinds, f"no process after {LIMIT} s", f"none after {max(lives):.1f} s, {len(lives)} trials")


# what happens to `make reproduce` while its notebook runs: (victim, signal, further arguments, exit status)
STOPPED = {
    "kernel killed": ("kernel", KILL, (), 2),
    "papermill killed": ("debiaslib.study.run_notebook", KILL, (), 2),
    "Snakemake killed": ("--engine", KILL, (), 2),
    "pipeline killed": ("itself", KILL, (), -KILL),
    "Ctrl-C": ("itself", signal.SIGINT, (), 130),
    "SIGTERM": ("itself", signal.SIGTERM, (), 143),
    "time-out": (None, None, ("--minutes", "0.6"), 3),
}
LEFT = {"sys.exit(0)": "sys.exit(0)", "os._exit(0)": "os._exit(0)", "cell fails": "1 / 0"}


@pytest.mark.slow
def test_no_death_of_a_pipeline_is_a_success_and_the_next_call_completes(checkout, tmp_path, reached):
    with reproduce(checkout, tmp_path / "finished") as trial:
        code, said = trial.end(300)
        assert code == 0, said
    lives, false_successes, completed = {}, [], []
    for name in [*STOPPED, *LEFT]:
        results = unfinished(tmp_path / "finished", tmp_path / name)
        victim, number, more, wanted = STOPPED.get(name, (None, None, (), 2))
        with reproduce(checkout, results, LEFT.get(name, "wait"), *more) as trial:
            if victim:
                code, said, lives[name] = fails(trial, results, victim, number)
            else:
                trial.process.wait(120)
                code, said, lives[name] = leaves(trial, results)
        assert code == wanted, (name, said)
        if code == 0 or ran_to_its_end(results / "tiny", NAME) or tells_success(tmp_path / "finished", results, said):
            false_successes.append(name)
        with reproduce(checkout, results) as trial:
            code, said = trial.end()
            assert code == 0, (name, said)
        completed.append(ran_to_its_end(results / "tiny", NAME) and "done in" in said)
    assert false_successes == [] and all(completed)
    what = ", ".join([*STOPPED, *LEFT])
    trials = len(lives)
    reached(2, f"{what}: reported as success", f"0 of {trials}", f"{len(false_successes)} of {trials}")
    longest = max(lives, key=lives.get)
    reached(2, "the last process ended", f"within {LIMIT} s", f"{lives[longest]:.1f} s at most ({longest})")
    reached(2, "the next call completes with no hand needed", f"{trials} of {trials}", f"{sum(completed)} of {trials}")


def unfinished(finished, results):
    """A copy of finished results that lacks the notebook; its report is of before."""
    shutil.copytree(finished, results)
    for kind in ("json", "ipynb"):
        (results / "tiny" / "notebooks" / f"{NAME}.{kind}").unlink()
    return results


def tells_success(finished, results, said):
    """Whether anyone is told that all is done: on the terminal, or by a new report that names nothing as missing."""
    before, report = finished / "tiny" / "report.html", results / "tiny" / "report.html"
    new = report.exists() and report.stat().st_mtime_ns != before.stat().st_mtime_ns
    return "done in" in said or (new and "Not complete" not in report.read_text(encoding="utf-8"))
