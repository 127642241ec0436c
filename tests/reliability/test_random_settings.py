"""Whatever stands in a configuration or an experiment file, the answer is "ok" or our error in one line."""

import copy

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from refusals import LONGEST

from debiaslib.errors import InputError
from debiaslib.files import write_json
from debiaslib.study.experiment import Experiment, load_experiment
from debiaslib.study.presets import PRESETS
from debiaslib.training.config import TrainConfig, run_name
from tests.study.test_experiment import FIELDS as EXPERIMENT_FIELDS

TRAIN_FIELDS = sorted(TrainConfig.__dataclass_fields__)
NETWORK = PRESETS["minifaces16"].network
TRAIN = {**vars(PRESETS["minifaces16"]), "network": NETWORK, "weighting": "p2(k=1,gamma=0.5)", "snapshots": [640]}
EXPERIMENT = {
    "preset": "minifaces16",
    "weightings": ["constant", "debiased"],
    "variants": ["debiased; lr=5e-4"],
    "seeds": [0, 1],
    "training": {"lr": 1e-3, "network": NETWORK, "snapshots": [640]},
    "features": ["pooled"],
    "further_samplers": ["ddpm"],
    "published_weights": ["debiased"],
}
# Words that mean something somewhere, and so get past the first check.
WORDS = st.sampled_from(
    ["", "debiased", "debaised", "p2(k=0)", "p2(gamma=nan)", "constant; lr=1", "constant; lr=", "epsilon", "linear"]
    + ["cosine", "auto", "bfloat16", "cpu", "cuda:0", "cuda:", "weight", "ddim", "pooled", "minifaces16", "1e-3", "0"]
    + ["nan", "inf", "1e999", "true", "none", "x" * 300, "a\nb", "\0", "\ud800", "../x", "05_training"]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
NUMBERS = st.sampled_from([0, -1, 1, 2, 64, 1000, 2**31, 2**63, 10**400, 0.0, -0.5, 1e-3, 1e308, 5e-324, True, False])
NEAR = st.one_of(WORDS, NUMBERS, st.lists(WORDS | NUMBERS, max_size=3), st.none(), st.floats(), JSON)


def changed(valid, fields):
    """Mappings like `valid` with one to three of `fields`, or of what lies within them, replaced or left out."""

    @st.composite
    def mapping(draw):
        made = copy.deepcopy(valid)
        for name in draw(st.lists(st.sampled_from(fields), min_size=1, max_size=3, unique=True)):
            inner = made.get(name)
            if isinstance(inner, dict) and draw(st.booleans()):
                inner[draw(st.sampled_from(sorted(inner)) | WORDS)] = draw(NEAR)
            elif isinstance(inner, list) and inner and draw(st.booleans()):
                inner[draw(st.integers(0, len(inner) - 1))] = draw(NEAR)
            elif draw(st.integers(0, 9)):
                made[name] = draw(NEAR)
            else:
                made.pop(name, None)
        return made

    return mapping()


ANY_TRAINING = st.one_of(changed(TRAIN, TRAIN_FIELDS), st.dictionaries(st.sampled_from(TRAIN_FIELDS), NEAR, max_size=8))
ANY_EXPERIMENT = st.one_of(
    changed(EXPERIMENT, [name for name in EXPERIMENT_FIELDS if name != "name"]),
    st.dictionaries(st.sampled_from(EXPERIMENT_FIELDS) | WORDS, NEAR, max_size=8),
    JSON,
)


def answer(counts, call):
    """What `call` makes, or None where it is refused in one line; `counts` [taken, refused]. Else it raises."""
    try:
        made = call()
    except InputError as error:
        line = f"InputError: {error}"
        assert len(line) <= LONGEST and line.isprintable(), line
        counts[1] += 1
        return None
    counts[0] += 1
    return made


def one_training(counts, given, path):
    """A random configuration of a training; what is taken can be stored and read back."""
    needed = {"dataset": "minifaces", "resolution": 16, "network": {}, "images": 1000, "batch_size": 8, "lr": 1.0}
    config = answer(counts, lambda: TrainConfig(**{**needed, **given}))
    if config is not None:
        write_json(path, config.to_dict())
        assert TrainConfig(**config.to_dict()) == config
        assert config.steps >= 1 and len(run_name(config.arm, config.seed).encode()) <= 255


def one_file(counts, given, path):
    """A random experiment file; what is taken names its trainings."""
    text = yaml.safe_dump(given, allow_unicode=True, default_flow_style=len(str(given)) % 2 == 0)
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    experiment = answer(counts, lambda: load_experiment(path))
    if experiment is not None:
        assert Experiment(**experiment.to_dict()) == experiment
        assert all(experiment.train_config(*run).seed == run[1] for run in experiment.runs)


@pytest.mark.parametrize("count", [150, pytest.param(5000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("one, strategy", [(one_training, ANY_TRAINING), (one_file, ANY_EXPERIMENT)])
def test_any_settings_are_taken_or_refused_in_one_line(one, strategy, count, tmp_path):
    counts = [0, 0]

    @settings(max_examples=count, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def try_one(drawn):
        one(counts, drawn, tmp_path / "random.yaml")

    try_one()
    taken, refused = counts
    assert taken + refused >= count and taken > count / 50 and refused > count / 2, counts
