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


# IPython then has no memory to say what the error was; the kernel's stderr has it.
NO_MEMORY = """import resource
resource.setrlimit(resource.RLIMIT_AS, (400_000_000, 400_000_000))
import torch"""


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
        ("os.kill(os.getpid(), 9)", "the kernel was killed, or there was too little memory; see "),
        pytest.param("get_ipython().ask_exit(); time.sleep(1)", "", marks=pytest.mark.slow),
        pytest.param(NO_MEMORY, "cell 2: ", marks=pytest.mark.slow),
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
    with pytest.raises(InputError, match="papermill could not execute it: .*No such file") as caught:
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


def fails(trial, results, victim, number):
    """Send a signal to a victim once the notebook writes, and return what `leaves` does."""
    kernel, _ = trial.wait_for(lambda: heartbeat(results))
    pids = {"kernel": kernel, "itself": trial.process.pid}
    os.kill(pids[victim] if victim in pids else trial.find(victim), number)
    return leaves(trial, results)


def leaves(trial, results):
    """(exit status, what was printed) once none of its processes lives; asserts that none writes."""
    trial.last_of_them(LIMIT)
    beats = heartbeat(results)
    code, said = trial.end()
    time.sleep(0.5)
    assert heartbeat(results) == beats
    return code, said


@pytest.mark.parametrize(
    ("victim", "number", "code", "said"),
    [
        ("itself", KILL, -KILL, ""),
        pytest.param(
            "kernel", KILL, 3, "the kernel was killed, or there was too little memory; see ", marks=pytest.mark.slow
        ),
        pytest.param("itself", signal.SIGINT, 130, "", marks=pytest.mark.slow),
        pytest.param("itself", signal.SIGTERM, 143, "", marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_a_notebook_that_runs(checkout, tmp_path, monkeypatch, victim, number, code, said):
    with execute(checkout, tmp_path, "wait") as trial:
        ended, printed = fails(trial, tmp_path, victim, number)
    assert ended == code and said in printed
    assert not ran_to_its_end(tmp_path / "tiny", NAME)
    source = checkout / "notebooks" / f"{NAME}.ipynb"
    monkeypatch.setattr(execution, "notebook_files", lambda: {NAME: source})
    execution.execute_notebook(NAME, checkout / "tiny.yaml", results=tmp_path)
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
@pytest.mark.parametrize(
    ("victim", "does"), [("kernel", "wait"), ("debiaslib.study.run_notebook", "wait"), (None, "1 / 0")]
)
def test_a_pipeline_whose_notebook_fails_has_failed_and_the_next_call_completes(checkout, tmp_path, victim, does):
    with reproduce(checkout, tmp_path, does) as trial:
        code, said = fails(trial, tmp_path, victim, KILL) if victim else trial.end()
    assert code in (1, 3) and "done in" not in said and not ran_to_its_end(tmp_path / "tiny", NAME), said
    with reproduce(checkout, tmp_path) as trial:
        code, said = trial.end()
    assert code == 0 and ran_to_its_end(tmp_path / "tiny", NAME), said
