"""A clone of this repository, and commands in a place without network, with a source tree that cannot be written.

Where the system forbids name spaces, or we are not root, what needs them is skipped in one line.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534
_NAMESPACE = ["unshare", "--map-root-user", "--mount", "--net", "sh", "-c"]
# The folder $1 is mounted over itself, read-only; of the network there is what runs on this machine alone.
_SEALED = 'ip link set lo up && mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && cd . && shift && exec "$@"'


def clone(target):
    """Clone this repository, with what is changed in the working tree and not committed yet; return `target`."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git, or this is no clone itself")
    git("clone", "--quiet", str(ROOT), str(target), cwd=ROOT)
    for name in git("ls-files", "-z", "--modified", "--others", "--exclude-standard", cwd=ROOT).split("\0"):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target / name)
    return target


def git(*arguments, cwd):
    """What git prints."""
    return subprocess.run(["git", *arguments], cwd=cwd, capture_output=True, text=True, check=True).stdout


def sealed(source, *command):
    """`command` without network, with `source` read-only even for root."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("no unshare or ip")
    probe = subprocess.run([*_NAMESPACE, _SEALED, "sh", str(source), "true"], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"the system allows no name spaces: {probe.stderr.strip()}")
    return [*_NAMESPACE, _SEALED, "sh", str(source), *command]


def as_nobody(*command):
    """`command` as a user who owns nothing; he may read this Python, wherever it lies."""
    if shutil.which("setpriv") is None or os.getuid() != 0:
        pytest.skip("no setpriv, or we are not root")
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return ["setpriv", *user, "--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", *command]


def environment(**changes):
    """Our environment with this Python first on the PATH and without what the tests set; None removes a variable."""
    given = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "DEBIASLIB_CACHE")}
    given["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    return {key: str(value) for key, value in {**given, **changes}.items() if value is not None}


def call(command, cwd, env, seconds=1800):
    """(exit status, output, errors) of a command."""
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=seconds
    )
    return done.returncode, done.stdout, done.stderr
