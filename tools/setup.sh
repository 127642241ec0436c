#!/bin/sh
# Makes .venv ready. PYTHON names the interpreter; without it the first that will do is taken.
set -eu
cd "$(dirname "$0")/.."

if [ -z "${PYTHON:-}" ] && .venv/bin/python -I -S tools/bootstrap.py --ready 2>/dev/null; then
    exit 0
fi

if [ -n "${PYTHON:-}" ]; then
    set -- "$PYTHON"
else
    set -- python3 python3.13 python3.12 python3.11 python3.14
    # An environment that is whole but behind the lock keeps its Python.
    if [ -f .venv/.installed ]; then set -- .venv/bin/python "$@"; fi
fi

# Being on PATH proves nothing (pyenv puts commands there that fail when called), so each is run. The first that has all
# that is needed does the work; else the nearest to it is run all the same, to say what is missing.
version='import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))'
for probe in "import ensurepip, venv; $version" "$version" ''; do
    for candidate do
        if "$candidate" -c "$probe" >/dev/null 2>&1; then
            exec "$candidate" -I tools/bootstrap.py
        fi
    done
done
echo "set-up: no working Python among: $*; install Python 3.11 to 3.14, or name one: make PYTHON=/path/to/python3.12" >&2
exit 1
