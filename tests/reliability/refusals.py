"""What every bad call has to come to: one line of at most 200 characters that names what is wrong, nothing written."""

from pathlib import Path

from debiaslib.errors import InputError

LONGEST = 200  # characters of a line, with the name of the error before it


class Tally:
    """Judges calls that must be refused; `problems` are texts."""

    def __init__(self, watched):
        """`watched`: the folder that everything which a call may write lies in."""
        self.watched, self.problems = Path(watched), []

    def refused(self, name, call, *parts):
        """`call()` must raise InputError, in a line that holds every one of `parts`."""
        before = self.listing()
        try:
            call()
            self.problems.append(f"{name}: it is taken")
        except InputError as error:
            self.judge(name, f"InputError: {error}", parts)
        except Exception as error:
            self.problems.append(f"{name}: {type(error).__name__}: {error}"[:300])
        if self.listing() != before:
            self.problems.append(f"{name}: it writes {sorted(set(self.listing()) - set(before))}")

    def judge(self, name, line, parts):
        """Note what is wrong with a line on the screen, in which every one of `parts` must stand."""
        if len(line) > LONGEST or not line.isprintable():
            self.problems.append(f"{name}: no line of {LONGEST} characters [{line}]")
        self.problems += [f"{name}: {part!r} is missing [{line}]" for part in parts if str(part) not in line]

    def listing(self):
        """Every file, with its size, except locks, which hold nothing."""
        files = (path for path in self.watched.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
        return sorted((str(path.relative_to(self.watched)), path.stat().st_size) for path in files)

    def settle(self):
        """Fail with every problem."""
        assert not self.problems, "\n".join(["", *self.problems])
