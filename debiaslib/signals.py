"""Stopping cleanly: a signal becomes a flag that a loop asks for; a worker does not outlive its pipeline."""

import os
import signal
import threading
import time

SUPERVISED = "DEBIASLIB_SUPERVISED"  # for workers that the pipeline starts: the pid of their parent


class StopFlag:
    """Within this context SIGINT and SIGTERM set `.signal` instead of ending the process; a second one acts as usual.

    patient: further ones change nothing, for processes whose launcher repeats the signal (torchrun under Slurm).
    Outside the main thread, where Python allows no handlers, the flag is never set.
    """

    def __init__(self, patient=False):
        self.signal, self.patient = None, patient
        self._previous = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._previous = {n: signal.signal(n, self._receive) for n in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _receive(self, number, frame):
        if self.patient:
            self.signal = self.signal or number
        else:
            self.signal = number
            self._restore()

    def _restore(self, *error):
        while self._previous:
            signal.signal(*self._previous.popitem())

    __exit__ = _restore


def leave(number):
    """End as the signal would have ended the process: exit status 130 for SIGINT, 143 for SIGTERM."""
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)


def end_with_parent(parent, end=lambda: os.kill(os.getpid(), signal.SIGTERM)):
    """Call `end` when the process `parent` that started us has died: no orphan writes on into results."""

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        end()

    threading.Thread(target=watch, daemon=True, name="end-with-parent").start()


def end_after_signal(seconds):
    """From now on SIGINT and SIGTERM `leave`, and the process ends within `seconds`, whatever libraries make of it."""

    def end(number, frame):
        timer = threading.Timer(seconds, os._exit, [128 + number])
        timer.daemon = True
        timer.start()
        leave(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
