"""What the engine does, from what it says: which jobs begin and end, and why one failed. Imports no torch."""

import re
import sys
import time

from ..errors import WorkFailed

__all__ = ["follow", "last_words"]

_LOG, _ID = re.compile(r"    log: logs/(.+?)\.log"), re.compile(r"    jobid: (\d+)")
_BEGUN, _FAILED = re.compile(r"(local)?rule \w+:"), re.compile(r"Error in rule \w+:")
_ENDED, _COUNT = re.compile(r"Finished jobid: (\d+)"), re.compile(r"(\d+ of \d+) steps")
_STATUS = re.compile(r"died with <Signals\.\w+: (\d+)>|non-zero exit status (\d+)\.")


def follow(lines, log, out=None):
    """Copy the engine's `lines` to the file `log`, and say on `out` (stderr) which jobs begin and end.

    Returns {job: its exit status, 128 and the signal that ended it} of the jobs that failed, named as their logs are.
    """
    started, job, failing, names, failed = time.monotonic(), None, False, {}, {}
    status = WorkFailed.FAILED

    def say(text):
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        print(f"[{minutes}:{seconds:02d}] {text}", file=out or sys.stderr, flush=True)

    for line in lines:
        log.write(line)
        log.flush()
        if _BEGUN.match(line) or _FAILED.match(line):
            failing = bool(_FAILED.match(line))
        elif found := _LOG.match(line):
            job = found[1]
            if failing:
                failed[job], status = status, WorkFailed.FAILED
            else:
                say(f"begun: {job}")
        elif (found := _ID.match(line)) and not failing:
            names[found[1]] = job
        elif found := _ENDED.match(line):
            job = names.get(found[1], "the last job")
        elif found := _COUNT.match(line):
            say(f"done: {job} ({found[1]} jobs)")
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
    lines = [line.strip() for line in lines if line.strip()]
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return f"{log.stem} failed: " + (errors[-1] if errors else f"{(lines or ['it wrote nothing'])[-1]} (see {log})")
