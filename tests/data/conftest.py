import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache: its folder of images."""
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache/images"
