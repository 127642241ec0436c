"""The published tables, as verdicts and sentences read them."""

import shutil
from pathlib import Path

import pytest

from debiaslib.errors import InputError
from debiaslib.report.results_read import ResultTables

PUBLISHED = Path(__file__).resolve().parents[2] / "results/reference/quick"


def test_distances_that_were_changed_are_refused(tmp_path):
    for path in PUBLISHED.glob("tables/distances-*"):
        (tmp_path / "tables").mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / "tables")
    assert len(ResultTables(tmp_path).distances("fd_minifaces", 50, "debiased")) == 1
    table = tmp_path / "tables/distances-debiased-s0.csv"
    table.write_text(table.read_text().replace("ddim,50", "ddim,51"))
    with pytest.raises(InputError, match=r"distances-debiased-s0.csv"):
        ResultTables(tmp_path).distances("fd_minifaces", 50, "debiased")
