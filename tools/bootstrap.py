"""Makes .venv from requirements.lock, and says in one line what stands in the way. Standard library only.

Called by tools/setup.sh. The syntax is Python 3.6's on purpose: an old Python has to get as far as the message.
What is installed is written down in .venv/.installed when all is done; the next call compares that and does nothing.
"""

import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time

OLDEST, NEWEST = (3, 11), (3, 14)
NEEDED_BYTES = 15 * 10**9  # the environment (6 GB on Linux), the wheels while they are unpacked, pip's cache
ANOTHER = "name another with make PYTHON=/path/to/python3.12"


class SetupError(Exception):
    """Why the environment cannot be made, in one line."""


def python_problem(version=sys.version_info, executable=sys.executable):
    """One line if this Python is not supported, else None."""
    if OLDEST <= tuple(version[:2]) <= NEWEST:
        return None
    found = ".".join(str(part) for part in version[:3])
    return f"debiaslib needs Python 3.11 to 3.14, and {executable} is {found}; install one of these, or {ANOTHER}"


def platform_problem(system=sys.platform, machine=None):
    """One line if there is no torch for this machine, else None."""
    if system == "darwin" and (machine or platform.machine()) == "x86_64":
        return f"torch has no build for Intel Macs; on Apple silicon this is a Python for Intel, so {ANOTHER}"
    return None


def venv_problem(find=importlib.util.find_spec, version=sys.version_info, executable=sys.executable):
    """One line if the modules that make an environment are missing, else None."""
    missing = [name for name in ("venv", "ensurepip") if find(name) is None]
    if not missing:
        return None
    own = f"python{version[0]}.{version[1]}-venv"
    return f"{executable} lacks the module {missing[0]}; on Debian or Ubuntu: sudo apt install python3-venv (or {own})"


def folder_problem(root):
    """One line if no environment can be made in a folder of this name, else None."""
    refused = [letter for letter in ":${}" if letter in root]  # the first by venv, the others by setuptools
    if not refused:
        return None
    return f"no environment can be made in {root}, because of the {' '.join(refused)} in its name; rename or move it"


def disk_problem(folder, free=None, present=0):
    """One line if the disk of `folder` has too little space, else None. `present`: bytes of the environment there."""
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    free = shutil.disk_usage(folder).free if free is None else free
    if free + present >= NEEDED_BYTES:
        return None
    return (
        f"{free / 1e9:.1f} GB free in {folder}, and the set-up needs {(NEEDED_BYTES - present) / 1e9:.0f} GB;"
        " make room, or make .venv a link to a folder on a larger disk"
    )


def wanted(root, version=sys.version_info):
    """What .venv/.installed says once all is installed: a change of the lock, Python or the folder changes it."""
    digest = hashlib.sha256()
    for name in ("requirements.lock", "pyproject.toml"):
        with open(os.path.join(root, name), "rb") as file:
            digest.update(hashlib.sha256(file.read()).digest())
    python = ".".join(str(part) for part in version[:2])
    return {"python": python, "folder": os.path.realpath(root), "files": digest.hexdigest()}


def installed(root):
    """What .venv/.installed says, or None if the last installation did not come to its end."""
    try:
        with open(os.path.join(root, ".venv", ".installed"), encoding="utf-8") as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def ready(root, version=sys.version_info):
    """Whether .venv holds what the lock names."""
    return os.path.exists(venv_python(root)) and installed(root) == wanted(root, version)


def venv_python(root):
    return os.path.join(root, ".venv", "bin", "python")


def say(text):
    sys.stderr.write(f"set-up: {text}\n")
    sys.stderr.flush()


class Progress:
    """One line that renews itself on a terminal; elsewhere a line at most every 15 seconds."""

    def __init__(self):
        self.live = sys.stderr.isatty()
        self.last = 0.0

    def show(self, text):
        if self.live:
            sys.stderr.write(f"\r\033[Kset-up: {text}")
            sys.stderr.flush()
        elif time.time() - self.last > 15:
            say(text)
            self.last = time.time()

    def end(self):
        if self.live:
            sys.stderr.write("\r\033[K")


@contextlib.contextmanager
def one_at_a_time():
    """Hold this file's lock, so that two calls of make in one fresh clone do not install into one another."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with open(os.path.abspath(__file__), "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is at work in this folder; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks: go on without
        os.set_inheritable(file.fileno(), True)  # pip holds it too: it may outlive us
        yield


def make_venv(root):
    """Make .venv, or keep the one that is there if it is whole.

    .venv/.installing stands there while we change it, so an installation that was cut short is seen and begun anew. An
    environment that someone made by hand is added to and never marked, so that we never throw it away.
    """
    venv, python = os.path.join(root, ".venv"), venv_python(root)
    begun, before = os.path.join(venv, ".installing"), installed(root)
    version = runs_as(python)
    same = version == wanted(root)["python"]
    whole = same and not os.path.exists(begun) and has_pip(root)
    by_hand = before is None and not os.path.exists(begun) and os.path.exists(python)
    if by_hand and not same:
        advice = "remove it, or keep it with make PYTHON=.venv/bin/python"
        raise SetupError(f"{venv} was made by other means, with Python {version or 'that does not run'}; {advice}")
    if by_hand and whole:
        return
    os.makedirs(os.path.realpath(venv), exist_ok=True)  # .venv may be a link to a folder still to be made
    open(begun, "w").close()
    if before is not None:
        os.remove(os.path.join(venv, ".installed"))
    if whole:
        return
    command = [sys.executable, "-I", "-m", "venv"] + ([] if by_hand else ["--clear"]) + [venv]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if made.returncode:
        raise SetupError("python -m venv failed: " + " ".join(made.stdout.decode("utf-8", "replace").split())[-300:])
    open(begun, "w").close()


def runs_as(python):
    """The version, as '3.12', of an interpreter; None if it does not run."""
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        return subprocess.check_output([python, "-I", "-c", code], stderr=subprocess.DEVNULL).decode().strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def has_pip(root):
    return subprocess.call([venv_python(root), "-I", "-c", "import pip"], stderr=subprocess.DEVNULL) == 0


def pip_install(root, arguments, progress, what):
    """Run pip with its output in .venv/install.log, showing how far it is."""
    command = [venv_python(root), "-I", "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    scratch = os.path.join(root, ".venv", "tmp")  # the wheels need gigabytes, which /tmp does not always have
    os.makedirs(scratch, exist_ok=True)
    log_path = os.path.join(root, ".venv", "install.log")
    done, errors = 0, []
    with open(log_path, "a", encoding="utf-8") as log:
        process = subprocess.Popen(
            command + ["--progress-bar", "off"] + arguments,
            cwd=root,
            env=dict(os.environ, TMPDIR=scratch),
            close_fds=False,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for raw in process.stdout:
            line = raw.decode("utf-8", "replace")
            log.write(line)
            if line.startswith(("Collecting ", "Processing ")):
                done += 1
                progress.show(f"{what}: fetching number {done}, {os.path.basename(line.split()[1])}")
            elif line.startswith("Installing collected"):
                progress.show(f"{what}: unpacking")
            elif line.startswith("ERROR:"):
                errors.append(line.strip())
    shutil.rmtree(scratch, ignore_errors=True)
    if process.wait():
        reason = errors[-1] if errors else f"pip ended with status {process.returncode}"
        if "build" in reason.lower():  # for the newest Python some packages have no wheel yet
            reason += "; it needs a C compiler and Python's headers, or Python 3.13"
        raise SetupError(f"{what} could not be installed: {reason} (all of pip's output: {log_path})")


def install(root):
    """Install the lock and then this package, and write down that it is done."""
    venv, begin = os.path.join(root, ".venv"), time.time()
    size = "about 6 GB " if sys.platform == "linux" else ""
    python = platform.python_version()
    if os.path.exists(venv_python(root)) and not os.path.exists(os.path.join(venv, ".installing")):
        say(f"bringing .venv up to date with requirements.lock, with Python {python}")
    else:
        say(f"installing {size}from requirements.lock into .venv with Python {python}: some minutes, once")
    make_venv(root)
    progress = Progress()
    try:
        pip_install(root, ["--require-hashes", "-r", "requirements.lock"], progress, "packages")
        # setuptools is in the lock: nothing more is fetched to build with.
        pip_install(root, ["--no-deps", "--no-build-isolation", "-e", "."], progress, "debiaslib")
    finally:
        progress.end()
    with open(os.path.join(venv, ".installed.new"), "w", encoding="utf-8") as file:
        json.dump(wanted(root), file)
    os.replace(os.path.join(venv, ".installed.new"), os.path.join(venv, ".installed"))
    with contextlib.suppress(FileNotFoundError):
        os.remove(os.path.join(venv, ".installing"))
    say(f"done in {time.time() - begin:.0f} s")


def folder_bytes(folder):
    return sum(os.lstat(os.path.join(where, name)).st_size for where, _, names in os.walk(folder) for name in names)


def main(arguments):
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if arguments == ["--ready"]:
        return 0 if ready(root) else 1
    try:
        problem = python_problem() or platform_problem() or venv_problem() or folder_problem(root)
        if problem:
            raise SetupError(problem)
        with one_at_a_time():
            if not ready(root):
                venv = os.path.realpath(os.path.join(root, ".venv"))
                problem = disk_problem(venv, present=folder_bytes(venv))
                if problem:
                    raise SetupError(problem)
                install(root)
    except (SetupError, OSError) as error:
        say(error)
        return 1
    except KeyboardInterrupt:
        say("interrupted; the next call starts it again")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
