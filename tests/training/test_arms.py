"""Arms: parsing, canonical form, names of folders, and that a mistake is one line."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debiaslib.errors import InputError
from debiaslib.study.experiment import Experiment
from debiaslib.training.arms import SETTINGS, parse_arm
from debiaslib.training.config import TrainConfig

VALUES = st.integers(1, 10**6) | st.floats(1e-9, 1e9) | st.booleans() | st.sampled_from(["epsilon", "weight"])
VARIANTS = st.dictionaries(st.sampled_from(SETTINGS), VALUES, max_size=4)


def written(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


@pytest.mark.parametrize(
    "text, canonical, slug, label",
    [
        ("debiased", "debiased", "debiased", "debiased"),
        ("p2", "p2(k=1,gamma=1)", "p2-k1-gamma1", "P2 (1, 1)"),
        ("debiased; lr=5e-4", "debiased; lr=0.0005", "debiased--lr-0.0005", "debiased, lr 0.0005"),
        (" debiased ;lr = 5e-4 ", "debiased; lr=0.0005", "debiased--lr-0.0005", "debiased, lr 0.0005"),
        ("debiased; lr=.0005", "debiased; lr=0.0005", "debiased--lr-0.0005", "debiased, lr 0.0005"),
        ("p2; max_weight=5.", "p2(k=1,gamma=1); max_weight=5", "p2-k1-gamma1--max_weight-5", "P2 (1, 1), max_weight 5"),
        (
            "p2(k=1, gamma=.5); normalize_weight=true, max_grad_norm=1",
            "p2(k=1,gamma=0.5); max_grad_norm=1, normalize_weight=true",
            "p2-k1-gamma0.5--max_grad_norm-1--normalize_weight-true",
            "P2 (1, 0.5), max_grad_norm 1, normalize_weight true",
        ),
        (
            "constant; prediction_type=sample, images=64",
            "constant; images=64, prediction_type=sample",
            "constant--images-64--prediction_type-sample",
            "constant, images 64, prediction_type sample",
        ),
    ],
)
def test_forms(text, canonical, slug, label):
    arm = parse_arm(text)
    assert (str(arm), arm.slug, arm.label) == (canonical, slug, label)
    assert parse_arm(canonical) == arm == parse_arm(arm)


@given(st.sampled_from(["debiased", "p2(k=1,gamma=0.5)", "constant"]), VARIANTS)
def test_every_arm_survives_its_canonical_form(weighting, settings):
    text = f"{weighting}; " + ", ".join(f"{key}={written(value)}" for key, value in settings.items())
    arm = parse_arm(text if settings else weighting)
    assert dict(arm.settings) == settings and arm.weighting == weighting
    assert parse_arm(str(arm)) == arm
    assert "/" not in arm.slug and " " not in arm.slug


@pytest.mark.parametrize(
    "text, part",
    [
        ("debaised; lr=1", "did you mean 'debiased'?"),
        ("debiased; lr", "write it as 'name; setting=value, ...'"),
        ("debiased; lr=", "cannot be read"),
        ("debiased; learning_rate=1", "setting of a variant 'learning_rate' is unknown; did you mean 'lr'?"),
        ("debiased; dataset=x", "setting of a variant 'dataset' is unknown"),
        ("debiased; lr=1, lr=2", "cannot be read"),
        ("debiased; =1", "setting of a variant '' is unknown"),
        (
            "debiased; learned_variance=true, normalize_weight=true, prediction_type=v_prediction, lr_decay=cosine, "
            "timestep_sampling=stratified, precision=bfloat16, weight_decay=0.01, max_grad_norm=1",
            "150 are allowed",
        ),
        (3, "must be a string"),
        (None, "must be a string"),
    ],
)
def test_a_mistake_is_one_line(text, part):
    with pytest.raises(InputError) as error:
        parse_arm(text)
    assert part in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) <= 300


@pytest.mark.parametrize(
    "setting, said",
    [
        ("lr=fast", "lr is 'fast'; it must be a number"),
        ("images=1.5", "images is 1.5; it must be a whole number"),
        ("learned_variance=yes", "learned_variance is 'yes'; it must be true or false"),
        ("images=1" + "0" * 5000, "it must be a whole number"),
    ],
)
def test_the_values_are_checked_by_an_experiment(setting, said):
    with pytest.raises(InputError) as error:
        Experiment(name="x", preset="minifaces16", variants=(f"debiased; {setting}",))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_an_arms_settings_are_settings_of_a_training():
    assert set(SETTINGS) <= {field.name for field in dataclasses.fields(TrainConfig)}
