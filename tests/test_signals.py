"""Stopping: a signal becomes a flag, a second one acts as usual, and no worker outlives what started it."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from debiaslib.signals import SUPERVISED, StopFlag

BOTH = [signal.SIGINT, signal.SIGTERM]


@pytest.fixture
def usual():
    """Handlers of our own in the place of the usual ones: the list of what they received."""
    received = []
    before = {number: signal.signal(number, lambda n, frame: received.append(n)) for number in BOTH}
    handlers = {number: signal.getsignal(number) for number in BOTH}
    yield received, handlers
    for number, handler in before.items():
        signal.signal(number, handler)


def current():
    return {number: signal.getsignal(number) for number in BOTH}


@pytest.mark.parametrize("number", BOTH)
def test_the_first_sets_the_flag_and_the_second_acts_as_usual(usual, number):
    received, handlers = usual
    with StopFlag() as stop:
        assert stop.signal is None
        os.kill(os.getpid(), number)
        assert stop.signal == number and received == []
        assert current() == handlers
        os.kill(os.getpid(), number)
        assert received == [number]
    assert current() == handlers


@pytest.mark.parametrize("error", [None, ValueError, SystemExit])
def test_outside_the_context_all_is_as_it_was(usual, error):
    try:
        with StopFlag() as stop:
            assert current() != usual[1]
            if error:
                raise error
    except (ValueError, SystemExit):
        pass
    assert current() == usual[1]
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.signal is None and usual[0] == [signal.SIGTERM]


def test_another_thread_may_use_it_and_is_never_stopped(usual):
    seen = []

    def work():
        with StopFlag() as stop:
            seen.append((stop.signal, current() == usual[1]))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(None, True)]


# The worker writes its number and waits; the process that started it ends when it is told to.
WORKER = """
import sys, time
from debiaslib.cli import run_command

def main():
    print(__import__("os").getpid(), flush=True)
    time.sleep(60)

run_command(main)
"""
STARTER = """
import os, subprocess, sys
if "DEBIASLIB_SUPERVISED" in os.environ:
    os.environ["DEBIASLIB_SUPERVISED"] = str(os.getpid())
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(worker.stdout.readline(), flush=True)
sys.stdin.readline()
"""


def alive(pid):
    """Whether the process runs (a zombie, whom nobody has waited for yet, does not)."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="reads /proc")
@pytest.mark.parametrize("supervised", [True, False])
def test_a_supervised_worker_ends_with_the_process_that_started_it(supervised):
    environment = {key: value for key, value in os.environ.items() if key != SUPERVISED}
    if supervised:
        environment[SUPERVISED] = "1"
    command = [sys.executable, "-c", STARTER, WORKER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as starter:
        worker = int(starter.stdout.readline())
        assert alive(worker)
        starter.kill()
    try:
        deadline = time.monotonic() + (20 if supervised else 1.5)
        while alive(worker) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert alive(worker) is not supervised
    finally:
        if alive(worker):
            os.kill(worker, signal.SIGKILL)


def test_a_patient_one_keeps_the_first_and_ignores_the_rest(usual):
    received, handlers = usual
    with StopFlag(patient=True) as stop:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert stop.signal == signal.SIGTERM and received == []
    assert current() == handlers
