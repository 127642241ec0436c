"""What every test shares: one torch thread, reproducible hypothesis examples, a cache that is thrown away, one study.

At the end the unmarked tests are listed that took more than 3 s of a processor, of their own process and of those that
it started; fixtures are not counted. They are listed and do not fail: a slower machine takes three times as long.
"""

import os
import time
from pathlib import Path

import filelock
import hypothesis
import pytest
import torch

# One thread: sums are added in the same order everywhere, and parallel test processes do not fight for the cores.
torch.set_num_threads(1)

hypothesis.settings.register_profile("debiaslib", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("debiaslib")

MOST_SECONDS = 3


@pytest.fixture(scope="session", autouse=True)
def _temporary_cache(tmp_path_factory):
    """Nothing that a test decodes ends in the user's cache; a cache given by $DEBIASLIB_CACHE is used as it is."""
    if os.environ.get("DEBIASLIB_CACHE"):
        yield
        return
    os.environ["DEBIASLIB_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["DEBIASLIB_CACHE"]


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """The study of smoke.yaml, trained, one for all test processes; a table that a test asks for is made once."""
    from debiaslib.study.study import open_study

    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder
    study = open_study(Path(__file__).with_name("smoke.yaml"), "", folder / "smoke")
    with filelock.FileLock(folder / "smoke.lock"):
        for run in study.experiment.runs:
            study.run(*run)
    return study


def _seconds():
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    before = _seconds()
    try:
        return (yield)
    finally:
        spent = _seconds() - before
        if spent > MOST_SECONDS and item.get_closest_marker("slow") is None:
            item.user_properties.append(("processor seconds", spent))


def pytest_terminal_summary(terminalreporter):
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.stats.get(kind, [])]
    found = {one.nodeid: dict(one.user_properties).get("processor seconds", 0) for one in reports}
    long = sorted(((spent, name) for name, spent in found.items() if spent), reverse=True)
    if long:
        terminalreporter.section(f"not marked slow, and more than {MOST_SECONDS} s of a processor")
    for spent, name in long:
        terminalreporter.write_line(f"{spent:6.1f} s  {name}")
