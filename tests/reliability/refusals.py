"""What every bad call has to come to: our error one line that names what is wrong, soon, with nothing written."""

import contextlib
import signal
import time
from pathlib import Path

from debiaslib.errors import InputError

LONGEST = 200  # characters of a line, with the name of the error before it
SECONDS = 5


@contextlib.contextmanager
def no_longer_than(seconds):
    """Raise TimeoutError in what is done after so many seconds: a call that is taken may go on for hours."""

    def stop(number, frame):
        raise TimeoutError(f"it went on for {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Tally:
    """Judges calls that must be refused, and counts: `cases`, `problems` (texts), `longest` and `slowest`."""

    def __init__(self, watched):
        """`watched`: the folder that everything which a call may write lies in."""
        self.watched, self.cases, self.problems, self.longest, self.slowest = Path(watched), 0, [], 0, 0.0

    def refused(self, name, call, *parts):
        """`call()` must raise InputError, in a line that holds every one of `parts`."""
        before, started = self.listing(), time.process_time()
        try:
            with no_longer_than(4 * SECONDS):
                call()
            line, problem = "", "it is taken"
        except InputError as error:
            line, problem = f"InputError: {error}", None
        except Exception as error:
            line, problem = "", f"{type(error).__name__}: {error}"[:300]
        self.judge(name, line, parts, time.process_time() - started, problem)
        if self.listing() != before:
            self.problems.append(f"{name}: it writes {sorted(set(self.listing()) - set(before))}")

    def judge(self, name, line, parts, seconds, problem=None):
        """Note what is wrong with a line on the screen, in which every one of `parts` must stand."""
        self.cases += 1
        self.longest, self.slowest = max(self.longest, len(line)), max(self.slowest, seconds)
        wrong = [problem] if problem else []
        if not problem and (len(line) > LONGEST or not line.isprintable()):
            wrong.append(f"no line of {LONGEST} characters but {len(line)}")
        if not problem:
            wrong += [f"{part!r} is missing" for part in parts if str(part) not in line]
        if seconds > SECONDS:
            wrong.append(f"{seconds:.1f} s")
        self.problems += [f"{name}: {one} [{line}]" for one in wrong]

    def listing(self):
        """Every file, with its size, except locks, which hold nothing."""
        files = (path for path in self.watched.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
        return sorted((str(path.relative_to(self.watched)), path.stat().st_size) for path in files)

    def settle(self, reached, what):
        """Fail with every problem; else note the figures."""
        assert not self.problems, "\n".join(["", *self.problems])
        got = f"{self.cases} of {self.cases}; longest {self.longest} characters, slowest {self.slowest:.2f} s"
        reached(8, what, f"one line of {LONGEST} characters, {SECONDS} s, nothing written", got)
