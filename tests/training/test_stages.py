"""Stages: the order of the trainings, and what can be compared of those that are there."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debiaslib.errors import InputError
from debiaslib.study.experiment import Experiment
from debiaslib.training.stages import complete_part

WEIGHTINGS = ("constant", "debiased", "inverse_snr")
STAGES = [
    {"arms": ["constant", "debiased"], "seeds": [0, 1, 2]},
    {"arms": ["inverse_snr"], "seeds": [0]},
    {"arms": ["inverse_snr"], "seeds": [1, 2]},
]


def staged(**changes):
    settings = {"weightings": WEIGHTINGS, "seeds": (0, 1, 2), "stages": STAGES, **changes}
    return Experiment(name="staged", preset="minifaces16", **settings)


def test_the_order_is_that_of_the_stages():
    e = staged()
    assert e.runs[:4] == [("constant", 0), ("debiased", 0), ("constant", 1), ("debiased", 1)]
    assert e.runs[6:] == [("inverse_snr", 0), ("inverse_snr", 1), ("inverse_snr", 2)]
    assert sorted(e.runs) == sorted(staged(stages=()).runs)


def test_a_weighting_may_have_fewer_seeds():
    e = staged(stages=STAGES[:2])
    assert len(e.runs) == 7
    assert e.seeds_of("inverse_snr") == [0] and e.seeds_of("debiased") == [0, 1, 2]
    assert e.weightings_of(0) == list(WEIGHTINGS) and e.weightings_of(2) == ["constant", "debiased"]


def test_an_arm_in_a_stage_is_stored_as_any_other():
    stages = [{"arms": ["constant", "p2"], "seeds": [0]}]
    assert staged(weightings=("constant", "p2"), seeds=(0,), stages=stages).runs[1] == ("p2(k=1,gamma=1)", 0)


def test_what_must_not_be_left_out():
    with pytest.raises(InputError, match="leaves out constant with seed 2"):
        staged(stages=[{"arms": ["constant"], "seeds": [0, 1]}, {"arms": ["debiased", "inverse_snr"], "seeds": [0]}])
    with pytest.raises(InputError, match="leaves out inverse_snr with seed 0"):
        staged(stages=[STAGES[0], STAGES[2]])


def test_the_part_that_is_complete():
    e = staged()
    part = complete_part(e, e.runs[:4])
    assert part.weightings == ("constant", "debiased") and part.seeds == (0, 1)
    assert part.runs == e.runs[:4] and part.name == e.name
    assert complete_part(e, e.runs) is e
    assert complete_part(e, e.runs[:1]) is None and complete_part(e, []) is None
    assert complete_part(e, [("constant", 0), ("inverse_snr", 0)]) is None  # nothing of what the notebooks tell
    with_seven = complete_part(e, e.runs[:7])
    assert with_seven.weightings == WEIGHTINGS and with_seven.seeds_of("inverse_snr") == [0]


def test_a_training_without_its_baseline_waits():
    e = staged(stages=())
    part = complete_part(e, [("constant", 0), ("debiased", 0), ("debiased", 1), ("inverse_snr", 1)])
    assert part.runs == [("constant", 0), ("debiased", 0)]
    variants = staged(variants=("debiased; lr=0.0005",), stages=())
    assert complete_part(variants, [("constant", 0), ("debiased", 0)]).variants == ()


@given(st.sets(st.sampled_from(staged().runs)))
def test_any_part_is_an_experiment_of_complete_trainings_with_their_baseline(complete):
    e = staged()
    part = complete_part(e, complete)
    if part is None:
        both = {seed for who, seed in complete if who == "constant"}
        assert not both or not {("debiased", min(both)), ("constant", min(both))} <= complete
        return
    assert set(part.runs) <= complete
    assert all(("constant", seed) in part.runs for _, seed in part.runs)
    assert all(part.train_config(*run) == e.train_config(*run) for run in part.runs)
