"""What the report says of the trainings is what their records hold."""

import pytest

from debiaslib.files import write_json
from debiaslib.report.records import statement
from debiaslib.study.experiment import Experiment


@pytest.mark.parametrize("precision", ["bfloat16", "float32"])
def test_the_precision_is_the_one_that_was_chosen(tmp_path, precision):
    experiment = Experiment(name="one", preset="minifaces16", training={"precision": "auto"})
    assert ", in auto on cpu." in statement(experiment, tmp_path)
    folder = tmp_path / "runs" / "constant-s0"
    record = {"data": {"images": 8, "name": "minifaces"}, "parameters": 3, "config": {"precision": precision}}
    folder.mkdir(parents=True)
    write_json(folder / "record.json", record)
    assert f", in {precision} on cpu." in statement(experiment, tmp_path)
