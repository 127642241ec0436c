"""One run of some tests on one mutant, in a forked process that finds torch and the like already imported.

A fresh interpreter would spend most of its time on those imports. The package itself is imported anew in each process,
the mutated module from its mutated source; nothing is written to the disk.
"""

import ast
import gc
import importlib.abc
import importlib.util
import json
import math
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis
import pytest

MEMORY_BYTES = 6 * 2**30  # address space beyond what the process has at its start: a mutant shall not fill the machine
WALL = 20  # a process that waits for ever uses no processor time: it is ended after this many times its limit
_PASSED, _FAILED, _NOT_COLLECTED = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED


@dataclass(frozen=True)
class Trial:
    """How the tests went: "passed", "failed", "not collected", "timed out" or "died"; and each one's seconds."""

    outcome: str
    failed: str = ""  # the first test that failed
    seconds: dict = field(default_factory=dict)
    total: float = 0.0  # seconds of processor time, imports included
    printed: str = ""


def import_what_is_imported(files, without):
    """Execute the import statements of the files, but those of the top-level names `without` and relative ones."""
    for path in files:
        for node in ast.walk(ast.parse(Path(path).read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            if names and not {name.partition(".")[0] for name in names} & {"__future__", *without}:
                exec(compile(ast.Module([node], []), str(path), "exec"), {})


class _MutatedModule(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Gives a module by name from a source text."""

    def __init__(self, name, source):
        self.name, self.source = name, source

    def find_spec(self, fullname, path=None, target=None):
        return importlib.util.spec_from_loader(fullname, self) if fullname == self.name else None

    def get_source(self, fullname):
        return self.source


class _Watch:
    """A pytest plugin: quick tests first, the first failure and all durations kept, and no time spent on shrinking."""

    def __init__(self, seconds):
        self.expected = seconds
        self.failed, self.seconds = "", {}

    def pytest_sessionstart(self):
        own = hypothesis.settings.get_profile("debiaslib")  # registered by tests/conftest.py
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        hypothesis.settings.register_profile("mutation", own, phases=phases)
        hypothesis.settings.load_profile("mutation")

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items):
        items.sort(key=lambda item: self.expected.get(item.nodeid, 0))

    def pytest_runtest_logreport(self, report):
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.failed and not self.failed:
            self.failed = report.nodeid


def run_tests(files, limit, *, module=None, source=None, seconds=()):
    """The `Trial` of the test files, with the module's source replaced, ended after `limit` seconds of processor time.

    seconds: {test: seconds} by which the tests are sorted. Raises RuntimeError when pytest could not do its work.
    """
    reading, writing = os.pipe()
    gc.freeze()  # or each process would search through all of torch for what is unused
    child = os.fork()
    if not child:
        os.close(reading)
        _child(writing, files, limit, module, source, dict(seconds))
    gc.unfreeze()
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        status, received = _wait(child, pipe, time.monotonic() + WALL * limit)
    if os.WIFSIGNALED(status):
        by = os.WTERMSIG(status)
        return Trial("timed out" if by == signal.SIGXCPU else "died", printed=f"signal {by}")
    code, failed, durations, total, printed = json.loads(received)
    names = {_PASSED: "passed", _FAILED: "failed", _NOT_COLLECTED: "not collected"}
    if code not in names:
        raise RuntimeError(f"pytest ended with {code} on {files}:\n{printed}")
    return Trial(names[code], failed, durations, total, printed)


def _child(writing, files, limit, module, source, seconds):
    """Run the tests, send what came of it, and end the process without the parent's exit handlers."""
    watch, code, begin = _Watch(seconds), -1, time.process_time()
    with tempfile.TemporaryFile() as output:
        for stream in (1, 2):
            os.dup2(output.fileno(), stream)
        try:
            _bound(limit)
            if source is not None:
                sys.meta_path.insert(0, _MutatedModule(module, source))
            os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
            options = ["-x", "-q", "--tb=short", "--capture=no", "-p", "no:cacheprovider"]
            code = int(pytest.main([*options, *files], plugins=[watch]))
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        output.seek(0)
        printed = output.read().decode(errors="replace")[-4000:]
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(json.dumps([code, watch.failed, watch.seconds, time.process_time() - begin, printed]).encode())
    os._exit(0)


def _bound(limit):
    """End this process after so many more seconds of processor time, and refuse it too much memory."""
    seconds = math.ceil(time.process_time() + limit)
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 10))
    if sys.platform == "linux":  # elsewhere the limit is not kept or the present use is not told
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, used + MEMORY_BYTES))


def _wait(child, pipe, deadline):
    """(exit status, bytes sent) of the child, which is ended at the deadline as one whose processor time is up."""
    os.set_blocking(pipe.fileno(), False)
    received = b""
    while True:
        received += pipe.read() or b""
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status, received + (pipe.read() or b"")
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGXCPU)
        time.sleep(0.005)
