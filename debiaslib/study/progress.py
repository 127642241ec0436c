"""What the engine does, from what it says: which jobs begin, how many have ended, and why one failed."""

import re
import sys
import time

from ..errors import WorkFailed

_RULE, _LOG = re.compile(r"(Error in |local)?rule \w+:"), re.compile(r"    log: logs/(.+?)\.log")
_COUNT = re.compile(r"(\d+ of \d+) steps")
_STATUS = re.compile(r"died with <Signals\.\w+: (\d+)>|non-zero exit status (\d+)\.")


def follow(lines, log, out=None):
    """Copy the engine's `lines` to the file `log`, and say on `out` (stderr) which jobs begin and how many have ended.

    Returns {job: its exit status, 128 and the signal that ended it} of the jobs that failed, named as their logs are.
    """
    started, failing, failed, status = time.monotonic(), False, {}, WorkFailed.FAILED

    def say(text):
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        print(f"[{minutes}:{seconds:02d}] {text}", file=out or sys.stderr, flush=True)

    for line in lines:
        log.write(line)
        log.flush()
        if found := _RULE.match(line):
            failing = found[1] == "Error in "
        elif (found := _LOG.match(line)) and failing:
            failed[found[1]], status = status, WorkFailed.FAILED
        elif found:
            say(f"begun: {found[1]}")
        elif found := _COUNT.match(line):
            say(f"done: {found[1]} jobs")
        elif found := _STATUS.search(line):  # of the job whose error follows
            status = 128 + int(found[1]) if found[1] else int(found[2])
    return failed


def last_words(folder, failed):
    """Why the jobs of `follow` failed, in one line: the signal, or the last line that each wrote into its log."""
    return "; ".join(_last_words(folder / "logs" / f"{job}.log", status - 128) for job, status in failed.items())


def _last_words(log, number):
    if number > 0:
        return f"{log.stem} was killed (signal {number}{'; memory?' if number == 9 else ''})"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    lines = [line.strip() for line in lines if line.strip()] or ["it wrote nothing"]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"{log.stem} failed: " + (errors[-1] if errors else f"{lines[-1]} (see {log})")
