"""Every mistake in a configuration is one line that names the field, its value and what is allowed."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from debiaslib.errors import InputError
from debiaslib.paths import checkout
from debiaslib.study.experiment import Experiment, known_experiments, load_experiment
from debiaslib.study.presets import PRESETS, get_preset
from debiaslib.training.arms import parse_arm
from debiaslib.training.config import TrainConfig, run_name

TRAIN = {"dataset": "minifaces", "resolution": 16, "network": {}, "images": 1000, "batch_size": 64, "lr": 1e-3}
EXPERIMENT = {"name": "test", "preset": "minifaces16"}
TRAIN_FIELDS = sorted(field.name for field in dataclasses.fields(TrainConfig))
EXPERIMENT_FIELDS = sorted(field.name for field in dataclasses.fields(Experiment))
SHIPPED = sorted(path.stem for path in (Path(__file__).parents[2] / "config").glob("*.yaml"))

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 1200),
    st.integers(10**300, 10**320),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["", "1e-3", "nan", "inf", "cpu", "cuda:0", "linear", "constant", "p2(k=0)", "minifaces16", "ddim", "\ud800"]
    ),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
SETTINGS = st.dictionaries(st.sampled_from(TRAIN_FIELDS), SCALARS | st.lists(SCALARS, max_size=2), max_size=3)


def train(**changes):
    return TrainConfig(**{**TRAIN, **changes})


def experiment(**changes):
    return Experiment(**{**EXPERIMENT, **changes})


def short(value):
    """The id of a test."""
    return repr(value)[:30]


def refused(call, *arguments, **changes):
    with pytest.raises(InputError) as caught:
        call(*arguments, **changes)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.fixture
def load(tmp_path):
    """Load the text of an experiment file."""

    def load_text(text, name="mine.yaml"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_experiment(tmp_path / name)

    return load_text


# values out of range: field, value, what the line says beside them

TRAIN_MISTAKES = [
    ("dataset", 3, "a text"),
    ("dataset", None, "a text"),
    ("resolution", 3, "a whole number >= 4"),
    ("resolution", 16.0, "a whole number"),
    ("network", [], "a mapping"),
    ("network", "unet", "a mapping"),
    ("images", 63, "a whole number >= 64"),
    ("images", "many", "a whole number"),
    ("batch_size", 0, "a whole number >= 1"),
    ("batch_size", True, "a whole number"),
    ("lr", 0, "a finite number > 0"),
    ("lr", -1e-3, "a finite number > 0"),
    ("lr", float("nan"), "a finite number > 0"),
    ("lr", float("inf"), "a finite number > 0"),
    ("lr", "nan", "a finite number > 0"),
    ("lr", "fast", "a number"),
    ("lr", None, "a number"),
    ("lr", [1e-3], "a number"),
    ("lr", True, "a number"),
    ("lr", 10**400, "number"),
    ("preset", 1, "a text"),
    ("weighting", None, "a text"),
    ("weighting", "debaised", "did you mean 'debiased'?"),
    ("weighting", "p2(k=-1)", "a finite number >= 0"),
    ("weighting", "edm(sigma_data=-1)", "a finite number > 0"),
    ("variant", "lr=7", "but lr is 0.001"),
    ("variant", "ema_decay=2", "but ema_decay is 0.9999"),
    ("variant", 7, "a text"),
    ("seed", -1, "a whole number >= 0"),
    ("seed", 0.5, "a whole number"),
    ("seed", -(10**400), "a whole number >= 0"),
    ("prediction_type", "eps", "did you mean 'epsilon'?"),
    ("prediction_type", "x0", "known: epsilon, sample, v_prediction"),
    ("schedule", "lineer", "did you mean 'linear'?"),
    ("timesteps", 0, "a whole number >= 1"),
    ("zero_terminal_snr", 1, "true or false"),
    ("zero_terminal_snr", "yes", "true or false"),
    ("zero_terminal_snr", None, "true or false"),
    ("learned_variance", 1, "true or false"),
    ("learned_variance", None, "true or false"),
    ("timestep_sampling", "unifrom", "did you mean 'uniform'?"),
    ("timestep_sampling", "importance", "known: uniform, stratified, weight"),
    ("timestep_sampling", None, "a text"),
    ("normalize_weight", 1, "true or false"),
    ("normalize_weight", "yes", "true or false"),
    ("max_weight", 0, "a finite number > 0"),
    ("max_weight", "inf", "a finite number > 0"),
    ("max_weight", "much", "a number"),
    ("lr_decay", "cosin", "did you mean 'cosine'?"),
    ("weight_decay", -0.1, "a finite number >= 0"),
    ("max_grad_norm", 0.0, "a finite number > 0"),
    ("ema_decay", 1, "a finite number >= 0 and < 1"),
    ("ema_decay", -0.1, "a finite number >= 0 and < 1"),
    ("horizontal_flip", None, "true or false"),
    ("precision", "float16", "did you mean 'bfloat16'?"),
    ("precision", "bf16", "known: float32, bfloat16, auto"),
    ("memory_format", "nhwc", "known: contiguous, channels_last"),
    ("memory_format", True, "a text"),
    ("compilation", "max", "known: none, default, cuda_graphs"),
    ("compilation", "cuda_graphs", "device 'cpu' lacks"),
    ("snapshots", 500, "a list"),
    ("snapshots", "500", "a list"),
    ("snapshots", [0], "a whole number >= 1 and <= 1000"),
    ("snapshots", [1001], "a whole number >= 1 and <= 1000"),
    ("snapshots", [2.5], "a whole number"),
    ("device", "gpu", "did you mean 'cpu'?"),
    ("device", "cuda:first", "'cuda:0'"),
    ("device", "cuda:", "'cuda:0'"),
    ("device", 0, "a text"),
    ("threads", 0, "a whole number >= 1"),
]
EXPERIMENT_MISTAKES = [
    ("preset", "minifaces", "did you mean 'minifaces16'?"),
    ("preset", "nothing-near", "known: minifaces16,"),
    ("preset", None, "a text"),
    ("weightings", "constant", "a list"),
    ("weightings", [], "at least one"),
    ("weightings", ["constant", "debaised"], "did you mean 'debiased'?"),
    ("weightings", [1], "a text"),
    ("weightings", ["debiased", "debiased"], "twice"),
    ("weightings", ["p2", "p2(k=1.0)"], "twice"),
    ("variants", "debiased; lr=1", "a list"),
    ("variants", ["debiased"], "variants lists 'debiased' twice"),
    ("variants", ["constant; lr=1", "constant; lr=1.0"], "variants lists 'constant; lr=1' twice"),
    ("variants", ["constant; lr=0"], "lr is 0.0; it must be a finite number > 0"),
    ("variants", ["constant; rate=1"], "setting of a variant 'rate' is unknown"),
    ("notebooks", [], "at least one"),
    ("notebooks", ["01_bias_existence", "01_bias_existence"], "twice"),
    ("notebooks", "01_bias_existence", "a list"),
    ("seeds", 3, "a list"),
    ("seeds", [], "at least one"),
    ("seeds", [0, 0], "twice"),
    ("seeds", [-1], "a whole number >= 0"),
    ("seeds", [True], "a whole number"),
    ("seeds", ["0"], "a whole number"),
    ("stages", {"arms": ["constant"]}, "a list"),
    ("stages", ["constant"], "a mapping"),
    ("stages", [{"arms": ["constant"]}], "a stage is like"),
    ("stages", [{"arms": "constant", "seeds": [0]}], "it must be a list"),
    ("stages", [{"arms": ["p2"], "seeds": [0]}], "arm in stages 'p2(k=1,gamma=1)' is unknown"),
    ("stages", [{"arms": ["constant"], "seeds": [3]}], "stages names the seed 3; the experiment's: 0"),
    ("stages", [{"arms": ["constant"], "seeds": [0]}], "stages leaves out debiased with seed 0"),
    ("stages", [{"arms": ["debiased"], "seeds": [0]}] * 2, "stages lists debiased with seed 0 twice"),
    ("then", 3, "a text"),
    ("dataset", 3, "a text"),
    ("training", [], "a mapping"),
    ("training", None, "a mapping"),
    ("training", {"learning_rate": 1}, "known: batch_size,"),
    ("training", {"batchsize": 1}, "did you mean 'batch_size'?"),
    ("training", {"lr": -1}, "lr is -1.0; it must be a finite number > 0"),
    ("training", {"images": 10}, "images is 10; it must be a whole number >= 64"),
    ("training", {"timesteps": 500}, "shown_timesteps is 600; it must be a whole number >= 0 and < 500"),
    ("training", {3: 4}, "training setting 3 is unknown"),
    ("shown_timesteps", [1000], "a whole number >= 0 and < 1000"),
    ("shown_timesteps", [], "at least one"),
    ("curve_timesteps", [-1], "a whole number >= 0 and < 1000"),
    ("curve_timesteps", [5, 5], "twice"),
    ("curve_timesteps", [0.5], "a whole number"),
    ("shown_images", 0, "a whole number >= 1"),
    ("curve_images", 1, "a whole number >= 2"),
    ("optimum_images", 0, "a whole number >= 1"),
    ("sampler", "dddim", "did you mean 'ddim'?"),
    ("further_samplers", ["ddim"], "twice"),
    ("further_samplers", ["dpmm"], "did you mean 'ddpm'?"),
    ("further_samplers", "ddpm", "a list"),
    ("allow_singular", "yes", "true or false"),
    ("raw_weights", 1, "true or false"),
    ("clip_x0", "true", "true or false"),
    ("sampling_batch_size", 0, "a whole number >= 1"),
    ("grid_steps", [0], "a whole number >= 1 and <= 1000"),
    ("grid_steps", [1001], "a whole number >= 1 and <= 1000"),
    ("grid_images", 0, "a whole number >= 1"),
    ("features", ["inceptoin"], "did you mean 'inception'?"),
    ("features", "pooled", "a list"),
    ("features", [], "at least one"),
    ("distance_steps", [], "at least one"),
    ("distance_images", 48, "a whole number >= 49"),
    ("distance_images", 10**400, "a whole number"),
    ("snapshot_steps", [0], "a whole number >= 1 and <= 1000"),
    ("reference_images", 48, "a whole number >= 49"),
    ("further_features", ["inceptoin"], "did you mean 'inception'?"),
    ("further_features", ["pooled"], "twice"),
    ("long_steps", [0], "a whole number >= 1 and <= 1000"),
    ("long_steps", [250, 250], "twice"),
    ("long_samplers", ["dddim"], "did you mean 'ddim'?"),
    ("long_samplers", ["ddim", "ddim"], "twice"),
    ("long_images", 0, "a whole number >= 1"),
    ("published_weights", ["p2"], "arm in published_weights 'p2' is unknown"),
]


def test_a_plain_configuration_is_taken():
    train()
    experiment()
    assert set(TRAIN_FIELDS) == {field for field, *_ in TRAIN_MISTAKES}
    assert set(EXPERIMENT_FIELDS) - {"name"} == {field for field, *_ in EXPERIMENT_MISTAKES}


@pytest.mark.parametrize("field, value, allowed", TRAIN_MISTAKES, ids=short)
def test_a_mistake_in_a_training(field, value, allowed):
    line = refused(train, **{field: value})
    assert field in line and allowed in line
    assert len(line) <= 200
    shown = value[0] if isinstance(value, list) and value else value
    if value not in ("p2(k=-1)", "edm(sigma_data=-1)", "nan", "inf") and len(repr(shown)) < 80:
        assert repr(shown) in line or str(shown) in line


@pytest.mark.parametrize("field, value, allowed", EXPERIMENT_MISTAKES, ids=short)
def test_a_mistake_in_an_experiment(field, value, allowed):
    line = refused(experiment, **{field: value})
    assert allowed in line
    if field not in ("training", "variants"):
        assert field.removesuffix("s").removeprefix("further_") in line and len(line) <= 200


def test_a_line_stays_readable_whatever_was_given():
    # A list of thousands, pasted where a number belongs, does not fill the screen.
    assert len(refused(train, lr=list(range(5000)))) <= 200
    assert len(refused(train, weighting="x" * 5000)) <= 200
    assert len(refused(experiment, seeds="0 " * 5000)) <= 200


# values taken as they are meant


def test_text_that_yaml_leaves_as_text_is_a_number():
    # YAML 1.1 reads 1e-3 as text; it wants a dot.
    assert yaml.safe_load("lr: 1e-3") == {"lr": "1e-3"}
    config = train(lr="1e-3", max_weight="5", weight_decay="0", ema_decay="9.9e-1", max_grad_norm="1e0")
    assert (config.lr, config.max_weight, config.weight_decay, config.ema_decay) == (0.001, 5.0, 0.0, 0.99)
    assert config.max_grad_norm == 1.0
    assert all(type(value) is float for value in (config.lr, config.max_weight, config.weight_decay))


def test_whole_numbers_are_floats_where_a_float_is_meant():
    assert type(train(lr=1).lr) is float
    assert train(lr=1) == train(lr=1.0) == train(lr="1")


def test_lists_are_tuples_and_paths_are_text():
    config = train(snapshots=[500, 1000], dataset=Path("some") / "folder")
    assert config.snapshots == (500, 1000)
    assert config.dataset == str(Path("some/folder"))
    assert experiment(seeds=[2, 0]).seeds == (2, 0)


def test_a_weighting_is_stored_in_its_canonical_form():
    assert train(weighting=" p2( gamma = .5 )").weighting == "p2(k=1,gamma=0.5)"
    assert experiment(weightings=["p2", "min_snr"]).weightings == ("p2(k=1,gamma=1)", "min_snr(gamma=5)")
    canonical = ("edm(sigma_data=0.5)", "sigmoid(bias=-1)", "vlb")
    assert experiment(weightings=["edm", "sigmoid", "vlb"]).weightings == canonical


def test_the_schedule_and_the_timesteps_are_the_papers_unless_asked():
    assert (train().zero_terminal_snr, train().timestep_sampling) == (False, "uniform")
    asked = {"zero_terminal_snr": True, "timestep_sampling": "weight"}
    config = experiment(training=asked).train_config("debiased", 0)
    assert {name: getattr(config, name) for name in asked} == asked
    assert TrainConfig(**json.loads(json.dumps(config.to_dict()))) == config


def test_a_weightings_digits_are_kept():
    assert train(weighting="min_snr(gamma=5.0000001)").weighting != train(weighting="min_snr(gamma=5)").weighting


def test_nothing_or_none_is_no_bound():
    assert train().max_weight is None and train(max_weight=None, max_grad_norm=None).max_grad_norm is None


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0", "cuda:12", "mps"])
def test_devices(device):
    assert train(device=device).device == device


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        train().lr = 3


@pytest.mark.parametrize(
    "images, batch_size, steps", [(1000, 64, 16), (1024, 64, 16), (1025, 64, 17), (64, 64, 1), (5, 1, 5)]
)
def test_steps_are_whole_batches_rounded_up(images, batch_size, steps):
    assert train(images=images, batch_size=batch_size).steps == steps


def test_names():
    assert run_name("p2", 3) == "p2-k1-gamma1-s3"
    assert train(weighting="debiased", seed=7).name == "debiased-s7"


def test_json_and_back():
    config = train(snapshots=[500], max_weight=5, weighting="p2")
    assert TrainConfig(**json.loads(json.dumps(config.to_dict()))) == config
    whole = experiment(training={"lr": "1e-3"}, weightings=["p2", "constant"], seeds=[1, 2])
    assert Experiment(**json.loads(json.dumps(whole.to_dict()))) == whole


@pytest.mark.parametrize("features, enough", [(["pooled"], 49), (["minifaces", "pooled"], 65), (["inception"], 2049)])
def test_a_distance_takes_more_images_than_its_features_have_dimensions(features, enough):
    # With fewer, the covariance is singular.
    assert experiment(features=features, distance_images=enough, reference_images=enough).distance_images == enough
    for name in ("distance_images", "reference_images"):
        counts = {"distance_images": enough, "reference_images": enough, name: enough - 1}
        assert refused(experiment, features=features, **counts).endswith(f"it must be a whole number >= {enough}")


def test_fewer_images_than_features_where_it_is_said():
    few = {"features": ["inception"], "distance_images": 1336, "reference_images": 1336}
    assert refused(experiment, **few).endswith("it must be a whole number >= 2049")
    assert experiment(**few, allow_singular=True).reference_images == 1336


# fuzzing


def one_line_or_fine(call, **changes):
    try:
        return call(**changes)
    except InputError as error:
        assert "\n" not in str(error)
        return None


@settings(max_examples=1000)
@given(st.sampled_from(TRAIN_FIELDS), JSON)
def test_any_value_in_any_field_of_a_training(field, value):
    config = one_line_or_fine(train, **{field: value})
    if config is not None:
        assert TrainConfig(**config.to_dict()) == config or field == "network"  # a network may hold a NaN
        assert config.steps >= 1 and config.name


@settings(max_examples=1000)
@given(st.sampled_from(EXPERIMENT_FIELDS), JSON)
def test_any_value_in_any_field_of_an_experiment(field, value):
    config = one_line_or_fine(experiment, **{field: value})
    if config is not None:
        assert Experiment(**config.to_dict()) == config or field == "training"
        assert [config.train_config(*run).seed for run in config.runs] == [
            seed for seed in config.seeds for _ in config.arms
        ]


@settings(max_examples=500)
@given(SETTINGS)
def test_any_override_of_a_preset(settings_given):
    config = one_line_or_fine(experiment, training=settings_given)
    if config is not None:
        trained = config.train_config("debiased", 0)
        assert all(name not in settings_given for name in ("weighting", "variant", "seed", "preset", "dataset"))
        assert set(settings_given) <= set(trained.to_dict())


@settings(max_examples=300)
@given(st.one_of(st.text(max_size=40), st.text("{}[]:-?!&*|>'\"%@`#,a1 \n\t", max_size=40), st.binary(max_size=40)))
def test_any_experiment_file(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    assert one_line_or_fine(load_experiment, name=path) is None  # so short a text names no preset


# presets and experiments


def test_presets():
    assert get_preset("minifaces16").dataset == "minifaces"
    assert refused(get_preset, "minifaces61").startswith("preset 'minifaces61' is unknown; did you mean 'minifaces16'?")
    for name, preset in PRESETS.items():
        config = Experiment(name="x", preset=name).train_config("constant", 0)
        assert config.preset == name and config.network["sample_size"] == config.resolution
        assert all(getattr(config, field) == value for field, value in dataclasses.asdict(preset).items())


def test_overrides_and_the_dataset():
    whole = experiment(training={"lr": 0.5, "images": 640}, dataset="some/folder", seeds=[4])
    config = whole.train_config("p2(k=0)", 4)
    assert (config.lr, config.images, config.dataset, config.seed) == (0.5, 640, "some/folder", 4)
    assert config.weighting == "p2(k=0,gamma=1)"
    assert experiment().train_config("constant", 0).dataset == "minifaces"


def test_another_resolution_reaches_the_network_too():
    # UNet2DModel's sample_size decides what an exported pipeline draws.
    config = experiment(training={"resolution": 32}).train_config("constant", 0)
    assert config.network["sample_size"] == config.resolution == 32


def test_an_arm_changes_its_settings_alone():
    whole = experiment(weightings=["constant"], variants=["debiased; lr=5e-4, normalize_weight=true"], seeds=[3])
    assert whole.arms == ("constant", "debiased; lr=0.0005, normalize_weight=true")
    plain, arm = (whole.train_config(*run) for run in whole.runs)
    changed = {name for name, value in plain.to_dict().items() if arm.to_dict()[name] != value}
    assert changed == {"weighting", "variant", "lr", "normalize_weight"}
    assert arm.name == run_name(*whole.runs[1]) == "debiased--lr-0.0005--normalize_weight-true-s3"
    assert TrainConfig(**json.loads(json.dumps(arm.to_dict()))) == arm


def test_runs_are_every_pair():
    runs = experiment(weightings=["constant", "debiased"], seeds=[0, 5]).runs
    assert runs == [("constant", 0), ("debiased", 0), ("constant", 5), ("debiased", 5)]


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_experiment_is_right(name):
    whole = load_experiment(name)
    assert whole.name == name
    assert whole == load_experiment(Path(__file__).parents[2] / "config" / f"{name}.yaml")
    said = yaml.safe_load((checkout() / "config" / f"{name}.yaml").read_text(encoding="utf-8"))
    for field, value in said.items():
        value = [str(parse_arm(arm)) for arm in value] if field == "variants" else value
        assert getattr(whole, field) == (tuple(value) if isinstance(value, list) else value)
    for run in whole.runs:
        assert whole.train_config(*run).steps > 0


def test_quick_is_the_papers_comparison_in_miniature():
    quick = load_experiment("quick")
    assert quick.weightings == ("constant", "debiased", "p2(k=1,gamma=1)", "min_snr(gamma=5)")
    config = quick.train_config("debiased", 0)
    assert (config.dataset, config.resolution, config.schedule, config.timesteps) == ("minifaces", 16, "linear", 1000)
    assert (config.prediction_type, config.max_grad_norm, config.normalize_weight) == ("epsilon", None, False)


def test_known_experiments_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert known_experiments() == SHIPPED and "quick" in SHIPPED
    assert load_experiment("quick").name == "quick"
    assert refused(load_experiment, "quikc").startswith("experiment 'quikc' is unknown; did you mean 'quick'?")


def test_another_dataset():
    assert load_experiment("quick", dataset="folder").dataset == "folder"
    assert load_experiment("quick", dataset=Path("folder")).train_config("constant", 0).dataset == "folder"
    assert load_experiment("quick", dataset="").train_config("constant", 0).dataset == "minifaces"


def test_a_file_of_ones_own(load):
    whole = load("preset: minifaces16\nweightings: [p2]\ntraining:\n  lr: 1e-3\n  snapshots: [640]\n")
    assert whole.name == "mine" and whole.weightings == ("p2(k=1,gamma=1)",)
    assert whole.train_config("p2", 0).lr == 0.001 and whole.train_config("p2", 0).snapshots == (640,)


def test_an_unknown_setting_names_the_file_and_the_nearest(load):
    line = refused(load, "preset: minifaces16\nweighting: [debiased]\n")
    assert line.startswith("setting in mine.yaml 'weighting' is unknown; did you mean 'weightings'?")
    assert "did you mean 'grid_steps'?" in refused(load, "preset: minifaces16\ngrid_step: [2]\n")


@pytest.mark.parametrize(
    "text, part",
    [
        ("", "'name: value'"),
        ("- preset", "'name: value'"),
        ("3", "'name: value'"),
        ("seeds: [0]", "names no preset; known: minifaces16,"),
        ("preset: minifaces16\nseeds: [0", "cannot be read"),
        ("preset: minifaces16\n\tseeds: [0]", "cannot be read"),
        ("preset: minifaces16\nseeds: *x", "cannot be read"),
        ("preset: !!python/object/apply:os.getcwd []", "cannot be read"),
        ("preset: minifaces16\n? {a: b}\n: c", "cannot be read"),
        ("preset: minifaces16\nseeds: 2020-99-99", "cannot be read"),
        ("preset: minifaces16\nseeds: !!int one", "cannot be read"),
        ("preset: minifaces16\nseeds: " + "[" * 3000, "cannot be read"),
        ("preset: minifaces16\nseeds: [1" + "0" * 5000 + "]", "cannot be read"),
        ("preset: minifaces16\nseeds: 2020-01-01", "must be a list"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"preset: \x01", "cannot be read"),
    ],
    ids=short,
)
def test_a_file_that_cannot_be_read(load, text, part):
    line = refused(load, text)
    assert part in line and len(line) <= 200


def test_a_file_that_is_not_there(tmp_path):
    assert "does not exist" in refused(load_experiment, tmp_path / "none.yaml")
    (tmp_path / "folder.yaml").mkdir()
    assert "does not exist" in refused(load_experiment, tmp_path / "folder.yaml")
    for name in ("", "no/such/experiment", "nul\0.yaml", None, 3):
        refused(load_experiment, name)
