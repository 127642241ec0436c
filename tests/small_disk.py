"""A folder whose disk can be made full: a small tmpfs, or where none may be mounted a limit on the size of files."""

import contextlib
import gc
import io
import os
import resource
import subprocess

PAGE = os.sysconf("SC_PAGE_SIZE")  # what a tmpfs gives out at a time


class Tmpfs:
    """A file system of `size` bytes of its own, mounted at `folder`."""

    name = "tmpfs"

    def __init__(self, folder, size):
        self.root, self.folder = folder, folder / "work"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=755", "tmpfs", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        self.folder.mkdir()
        gc.collect()
        gc.freeze()  # collecting is cheap from here on

    def close(self):
        """Unmount it; what it held is gone."""
        gc.unfreeze()
        subprocess.run(["umount", "-l", str(self.root)], check=True, capture_output=True)

    @contextlib.contextmanager
    def full(self, free=0):
        """Within it, only `free` bytes are left, in whole pages."""
        gc.collect()  # an error of before may hold a file open, whose room comes back with it
        ballast = self.root / "ballast"
        state = os.statvfs(self.root)
        left = state.f_bavail * state.f_frsize - free // PAGE * PAGE
        try:
            with open(ballast, "wb") as file, contextlib.redirect_stderr(io.StringIO()):
                os.posix_fallocate(file.fileno(), 0, left)
            yield
        finally:
            ballast.unlink()


class Limit:
    """No file may grow beyond `free` bytes within `full`: EFBIG comes where ENOSPC would."""

    name = "RLIMIT_FSIZE"

    def __init__(self, folder, size):
        self.root = self.folder = folder
        folder.mkdir()

    def close(self):
        """Nothing is left to be undone."""

    @contextlib.contextmanager
    def full(self, free=0):
        """Within it, a write that makes a file longer than `free` bytes fails in this process."""
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        with contextlib.redirect_stderr(io.StringIO()):  # pytest's own is a file too
            resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)


def make_disk(kind, folder, size):
    """A `Tmpfs` or a `Limit`, or None where the first may not be mounted."""
    try:
        return kind(folder, size)
    except (OSError, subprocess.CalledProcessError):
        return None
