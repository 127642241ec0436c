"""What every test shares: one torch thread, reproducible hypothesis examples, and a cache that is thrown away."""

import os

import hypothesis
import pytest
import torch

# One thread: sums are added in the same order everywhere, and parallel test processes do not fight for the cores.
torch.set_num_threads(1)

hypothesis.settings.register_profile("debiaslib", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("debiaslib")


@pytest.fixture(scope="session", autouse=True)
def _temporary_cache(tmp_path_factory):
    """Nothing that a test decodes ends in the user's cache; a cache given by $DEBIASLIB_CACHE is used as it is."""
    if os.environ.get("DEBIASLIB_CACHE"):
        yield
        return
    os.environ["DEBIASLIB_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    del os.environ["DEBIASLIB_CACHE"]
