"""Saved tables: an empty variant survives the file, and figures of weightings see no variant's table."""

import pandas as pd
import pytest

from debiaslib.errors import InputError
from debiaslib.study.saved_tables import Tables, read_rows


@pytest.mark.parametrize("variants", [["", "lr=1"], ["", ""], ["lr=1"]])
def test_an_empty_variant_comes_back_as_it_was_written(tmp_path, variants):
    pd.DataFrame({"variant": variants, "value": 1.0}).to_csv(tmp_path / "a.csv", index=False)
    assert read_rows(tmp_path / "a.csv").variant.tolist() == variants


def test_a_table_without_variants_is_as_it_is(tmp_path):
    pd.DataFrame({"value": [1.0, None]}).to_csv(tmp_path / "a.csv", index=False)
    assert list(read_rows(tmp_path / "a.csv")) == ["value"]


def test_tables_of_variants_are_left_out(tmp_path):
    folder = tmp_path / "a--b"  # the folder's own name does not matter
    (folder / "tables").mkdir(parents=True)
    for name in ("debiased-s0", "debiased--lr-1-s0"):
        (folder / "tables" / f"distances-{name}.csv").write_text("x\n")
    assert [path.stem for path in Tables(folder).find("tables/distances-*.csv")] == ["distances-debiased-s0"]
    (folder / "tables" / "distances-debiased-s0.csv").unlink()
    with pytest.raises(InputError, match="is missing"):
        Tables(folder).find("tables/distances-*.csv")
