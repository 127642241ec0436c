#!/bin/sh
# Makes .venv from requirements.lock, at once when it is there: by uv where uv is installed, else by pip.
# PYTHON names the interpreter; without it the first that will do is taken. `setup.sh --ready` only answers, by its status.
set -eu
cd "$(dirname "$0")/.."
needed_gb=15 # the environment (6 GB on Linux), the wheels while they are unpacked, the cache

say() { echo "set-up: $*" >&2; }
stop() { say "$@"; exit 1; }
version() { "$1" -I -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null; }
# What .venv/.installed holds once all is installed: another Python, folder or lock makes it differ.
stamp() { echo "$1"; pwd -P; cat requirements.lock pyproject.toml; }
ready() { [ -f .venv/.installed ] && stamp "$1" | cmp -s - .venv/.installed; }

if [ -z "${PYTHON:-}" ] && own=$(version .venv/bin/python) && ready "$own"; then exit 0; fi
if [ "${1:-}" = --ready ]; then exit 1; fi

case $PWD in
*[:\$\{\}]*) stop "no environment can be made in $PWD, because of a : \$ { or } in its name; rename or move it" ;;
esac

# Being on PATH proves nothing (pyenv puts commands there that fail when called), so each candidate is run.
if [ -n "${PYTHON:-}" ]; then set -- "$PYTHON"; else set -- python3 python3.13 python3.12 python3.11 python3.14; fi
if [ -z "${PYTHON:-}" ] && [ -f .venv/.installed ]; then set -- .venv/bin/python "$@"; fi # behind the lock: keep its Python
check='import ensurepip, platform, sys, venv
intel_mac = sys.platform == "darwin" and platform.machine() == "x86_64"  # torch has no build for it
sys.exit(not (3, 11) <= sys.version_info < (3, 15) or intel_mac)'
python=
tried=
for candidate do
    if "$candidate" -I -c "$check" >/dev/null 2>&1; then python=$candidate && break; fi
    if found=$(version "$candidate"); then tried="$tried $candidate ($found)"; else tried="$tried $candidate (does not run)"; fi
done
if [ -z "$python" ]; then
    stop "needs Python 3.11 to 3.14 with its venv module (Debian: python3-venv), not for Intel Macs; tried$tried;" \
        "name one with make PYTHON=/path/to/python3.12"
fi

# Two calls of make in one fresh clone: the second waits. The lock is a file's, so it goes with its last process.
if [ "${SETUP_LOCKED:-}" != yes ]; then
    export SETUP_LOCKED=yes
    exec "$python" -I -c 'import fcntl, os
file = open("tools/setup.sh")
try: fcntl.flock(file, fcntl.LOCK_EX)
except OSError: pass  # a file system without locks
os.set_inheritable(file.fileno(), True)
os.execvp("sh", ["sh", "tools/setup.sh"])'
fi
wanted=$(version "$python")
if ready "$wanted"; then exit 0; fi # whoever held the lock has made it

# .installing stands there while .venv is changed: an installation that was cut short begins anew.
if [ "$(version .venv/bin/python || true)" != "$wanted" ] || [ -f .venv/.installing ]; then
    if [ -e .venv/bin/python ] && [ ! -f .venv/.installed ] && [ ! -f .venv/.installing ]; then
        stop "$PWD/.venv was made by other means, with another Python; remove it, or make PYTHON=.venv/bin/python"
    fi
    free=$(df -Pk . | awk 'NR == 2 { print int($4 / 1e6) }')
    if [ "$free" -lt "$needed_gb" ]; then stop "$free GB free in $PWD, and the set-up needs $needed_gb GB; make room"; fi
    say "installing about 6 GB into .venv with Python $wanted: some minutes, once"
    "$python" -I -m venv --clear .venv || stop "python -m venv failed"
fi
: > .venv/.installing
rm -f .venv/.installed .venv/install.log

# install WHAT ARGUMENTS...: the output goes to .venv/install.log, a line of it now and then to the terminal.
install() {
    what=$1 && shift
    if command -v uv >/dev/null 2>&1; then
        set -- uv pip install --python .venv/bin/python "$@"
    else
        set -- .venv/bin/python -I -u -m pip install --no-input --disable-pip-version-check --progress-bar off "$@"
    fi
    mkdir -p .venv/tmp # the wheels need gigabytes, which /tmp does not always have
    rm -f .venv/.done
    { TMPDIR=$PWD/.venv/tmp "$@" 2>&1 && : > .venv/.done; } | awk -v what="$what" '
        { print >> ".venv/install.log" }
        /^(Collecting|Downloading) / && ++n % 50 == 0 { print "set-up: " what ": fetching, line " n > "/dev/stderr" }
        /^Installing collected/ { print "set-up: " what ": unpacking" > "/dev/stderr" }'
    if [ ! -f .venv/.done ]; then
        stop "$what could not be installed: $(grep -i '^ *error' .venv/install.log | tail -n 1) (all: $PWD/.venv/install.log)"
    fi
    rm -rf .venv/tmp .venv/.done
}

install packages --require-hashes -r requirements.lock
install debiaslib --no-deps --no-build-isolation -e . # setuptools is in the lock: nothing more is fetched
stamp "$wanted" > .venv/.installed.new
mv .venv/.installed.new .venv/.installed
rm -f .venv/.installing
say "done"
