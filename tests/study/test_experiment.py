"""An experiment's file: what is taken, and that every mistake is one line, before any work."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml

from debiaslib.errors import InputError
from debiaslib.paths import checkout
from debiaslib.study.experiment import Experiment, known_experiments, load_experiment
from debiaslib.study.presets import PRESETS
from debiaslib.training.arms import parse_arm
from debiaslib.training.config import TrainConfig, run_name

FIELDS = sorted(field.name for field in dataclasses.fields(Experiment))
SHIPPED = sorted(path.stem for path in (Path(__file__).parents[2] / "config").glob("*.yaml"))
WHOLE = "it must be a whole number"
# (lines of a file after the preset's, what the line must hold)
MISTAKES = [
    ("weighting: [debiased]", "setting in mine.yaml 'weighting' is unknown; did you mean 'weightings'?"),
    ("grid_step: [2]", "did you mean 'grid_steps'?"),
    ("name: mine", "'name' is unknown"),
    ("3: 4", "setting in mine.yaml 3 is unknown"),
    ("preset: gaussian16", "'preset' is given twice (line 2)"),
    ("training: {lr: 1e-3, lr: 1e-4}", "'lr' is given twice (line 2)"),
    ("seeds: 0", "seeds is 0; it must be a list"),
    ("seeds:", "seeds is None; it must be a list"),
    ("seeds: []", "seeds is empty; it must list at least one"),
    ("seeds: [0, 0]", "seeds lists 0 twice; each must be there once"),
    ("seeds: [-1]", "seeds is -1; it must be >= 0"),
    ("seeds: [true]", f"seeds is True; {WHOLE}"),
    ("weightings: debiased", "weightings is 'debiased'; it must be a list"),
    ("weightings: [p2, 'p2(k=1.0)']", "weightings lists 'p2(k=1,gamma=1)' twice"),
    ("weightings: [debaised]", "did you mean 'debiased'?"),
    ("weightings: [pretrained]", "weighting 'pretrained' is unknown"),
    ("variants: ['debiased; lr=0']", "lr is 0; it must be > 0"),
    ("variants: ['debiased']", "variants lists 'debiased' twice"),
    ("sampler: dddim", "sampler 'dddim' is unknown; did you mean 'ddim'?"),
    ("further_samplers: [ddim]", "further_samplers lists 'ddim' twice"),
    ("features: [inceptoin]", "features 'inceptoin' is unknown; did you mean 'inception'?"),
    ("further_features: [pooled]", "further_features lists 'pooled' twice"),
    ("grid_steps: [2, 1001]", f"grid_steps is 1001; {WHOLE} >= 1 and <= 1000"),
    ("shown_timesteps: [1000]", f"shown_timesteps is 1000; {WHOLE} >= 0 and < 1000"),
    ("curve_images: 1", "curve_images is 1; it must be >= 2"),
    ("distance_images: 48", f"distance_images is 48; {WHOLE} >= 49"),
    ("features: [inception]", f"distance_images is 500; {WHOLE} >= 2049"),
    ("clip_x0: 1", "clip_x0 is 1; it must be true or false"),
    ("rates: {p2: 1.e-3, 'p2(k=1,gamma=1)': 4.e-3}\nweightings: [p2]", "rates lists 'p2(k=1,gamma=1)' twice"),
    ("weights: results/reference/quick/weights", "notebooks have 05_training, which shows the log of a training"),
    (
        "weightings: [constant, p2]\nnotebooks: [07_controls]",
        "07_controls compares constant and debiased; weightings are",
    ),
    (
        "notebooks: [06_fid_evaluation]\nweights: results/reference/quik/weights",
        "weights is 'results/reference/quik/weights'; it must be a folder",
    ),
    ("swap_timesteps: [600, 600]", "swap_timesteps lists 600 twice"),
    ("swap_timesteps: [600]\nswap_steps: []", "swap_steps is empty"),
    ("swap_timesteps: [600]\nswap_images: 48", f"swap_images is 48; {WHOLE} >= 49"),
    ("swap_timesteps: [600]\nweightings: [constant]", "swap_timesteps are given; they need two weightings"),
    ("swap_timesteps: [600]\ntraining: {network: {num_class_embeds: 10}}", "networks that are told no class"),
    ("longer: photo", "longer 'photo' is unknown; did you mean 'photos'?"),
    ("published_weights: [p2]", "arm in published_weights 'p2' is unknown; known: constant, debiased"),
    ("training: [lr]", "training is ['lr']; it must be a mapping"),
    ("training: {lr: fast}", "lr is 'fast'; it must be a number"),
    ("training: {learning_rate: 1}", "training setting 'learning_rate' is unknown; did you mean 'lr'?"),
    ("training: {3: 4}", "training setting 3 is unknown"),
    ("training: {timesteps: 500}", f"shown_timesteps is 600; {WHOLE} >= 0 and < 500"),
    ("training: {zero_terminal_snr: true}", "prediction_type is 'epsilon'; zero_terminal_snr needs 'v_prediction' or"),
    (
        "training: {zero_terminal_snr: true, prediction_type: v_prediction}",
        "notebooks have 01_bias_existence, 04_weighting_comparison, 05_training; leave them out",
    ),
    ("weights: config\nnotebooks: [06_fid_evaluation]\nraw_weights: true", "raw_weights is True; a published folder"),
    ("training: {network: small}", "network is 'small'; it must be a mapping"),
    ("training: {network: {dropout: 2020-01-01}}", "valid JSON value"),
]
FILES = [
    (b"", "holds None; it must hold 'name: value' lines"),
    (b"- preset", "holds ['preset']"),
    (b"seeds: [0]", "preset is missing; it must be given"),
    (b"preset: minifaces", "preset 'minifaces' is unknown; did you mean 'minifaces16'?"),
    (b"preset: minifaces16\n\tseeds: [0]", "(line 2)"),
    (b"preset: !!python/object/apply:os.system ['touch canary']", "cannot be read"),
    (b"preset: minifaces16\n? {a: b}\n: c", "cannot be read"),
    (b"preset: minifaces16\nseeds: 2020-99-99", "month"),
    (b"preset: minifaces16\nseeds: " + b"[" * 3000, "cannot be read"),
    (b"preset: minifaces16\nseeds: [1" + b"0" * 5000 + b"]", "digits"),
    (b"\xff\xfe\x00", "utf-8"),
    (b"preset: \x01", "not allowed"),
]
NAMES = [
    ("qick", "experiment 'qick' is unknown; did you mean 'quick'?"),
    (None, "experiment 'None' is unknown"),
    ("none.yaml", "'none.yaml' does not exist"),
    ("~nobody-of-this-name/a.yaml", "does not exist"),
]


def experiment(**changes):
    return Experiment(**{"name": "test", "preset": "minifaces16", **changes})


def refused(call, *arguments, **changes):
    with pytest.raises(InputError) as caught:
        call(*arguments, **changes)
    line = str(caught.value)
    assert "\n" not in line and len(line) <= 200
    return line


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Load the text of an experiment file."""
    monkeypatch.chdir(tmp_path)

    def load_text(text):
        Path("mine.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return load_experiment("mine.yaml")

    return load_text


def test_every_mistake_in_a_file_is_one_line(load, tmp_path):
    for text, said in [*((f"preset: minifaces16\n{text}".encode(), said) for text, said in MISTAKES), *FILES]:
        line = refused(load, text)
        assert said in line, (text[:80], line)
    for name, said in NAMES:
        assert said in refused(load_experiment, name)
    (tmp_path / "folder.yaml").mkdir()
    assert "does not exist" in refused(load_experiment, "folder.yaml")
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("name", ["", "..", "../../etc", "x" * 300])
def test_a_name_is_that_of_a_folder(name):
    assert "it must be the name of a folder" in refused(experiment, name=name)


def test_a_partial_network_changes_the_presets(load):
    changed = load("preset: minifaces16\ntraining: {network: {dropout: 0.25, norm_num_groups: 4}}\n")
    ours = {**PRESETS["minifaces16"].network, "dropout": 0.25, "norm_num_groups": 4}
    assert changed.train_config("debiased; lr=1e-4", 0).network == ours


def test_a_network_of_another_class_replaces_the_presets():
    given = {"_class_name": "DiTTransformer2DModel", "num_layers": 2}
    config = experiment(training={"network": given}).train_config("constant", 0)
    assert config.network == {**given, "sample_size": 16}


def test_overrides_and_the_dataset():
    whole = experiment(training={"lr": 0.5, "images": 640, "resolution": 32}, dataset="some/folder", seeds=[4])
    config = whole.train_config("p2(k=0)", 4)
    assert (config.lr, config.images, config.dataset, config.seed) == (0.5, 640, "some/folder", 4)
    assert config.network["sample_size"] == config.resolution == 32  # which decides what an exported pipeline draws
    assert config.weighting == "p2(k=0,gamma=1)" and experiment().train_config("constant", 0).dataset == "minifaces"
    assert load_experiment("quick", dataset=Path("folder")).train_config("constant", 0).dataset == "folder"


def test_each_arm_has_the_rate_of_the_longest_key_that_matches_it(load):
    e = load("""preset: minifaces16
weightings: [constant, min_snr, debiased]
variants: [constant; prediction_type=v_prediction, "constant; max_grad_norm=1, prediction_type=v_prediction",
           min_snr; max_grad_norm=1, min_snr; lr=0.1]
rates:
  constant; prediction_type=v_prediction: 1e-3
  constant: 5e-4
  min_snr: 3e-4
""")
    assert [e.train_config(arm, 0).lr for arm in e.arms] == [
        5e-4,
        3e-4,
        PRESETS["minifaces16"].lr,
        1e-3,
        1e-3,
        3e-4,
        0.1,
    ]
    assert Experiment(**json.loads(json.dumps(e.to_dict()))) == e
    line = refused(load, "preset: minifaces16\nrates: {constant; prediction_type=v_prediction: 2e-3}")
    assert line == "arm in rates 'constant; prediction_type=v_prediction' is unknown; known: constant, debiased"
    assert "lr is 'fast'" in refused(load, "preset: minifaces16\nrates: {debiased: fast}")


def test_an_arm_changes_its_settings_alone():
    whole = experiment(weightings=["constant"], variants=["debiased; lr=5e-4, normalize_weight=true"], seeds=[3])
    assert whole.arms == ("constant", "debiased; lr=0.0005, normalize_weight=true")
    plain, arm = (whole.train_config(*run) for run in whole.runs)
    changed = {name for name, value in plain.to_dict().items() if arm.to_dict()[name] != value}
    assert changed == {"weighting", "variant", "lr", "normalize_weight"}
    assert run_name(arm.arm, 3) == run_name(*whole.runs[1]) == "debiased--lr-0.0005--normalize_weight-true-s3"
    assert TrainConfig(**json.loads(json.dumps(arm.to_dict()))) == arm


def test_runs_are_every_pair_and_json_brings_it_back():
    whole = experiment(weightings=["constant", "debiased"], seeds=[0, 5], training={"lr": "1e-3"})
    assert whole.runs == [("constant", 0), ("debiased", 0), ("constant", 5), ("debiased", 5)]
    assert Experiment(**json.loads(json.dumps(whole.to_dict()))) == whole


@pytest.mark.parametrize("features, enough", [(["pooled"], 49), (["minifaces", "pooled"], 65), (["inception"], 2049)])
def test_a_distance_takes_more_images_than_its_features_have_dimensions(features, enough):
    assert experiment(features=features, distance_images=enough, reference_images=enough).enough_images == enough
    for name in ("distance_images", "reference_images"):
        counts = {"distance_images": enough, "reference_images": enough, name: enough - 1}
        assert refused(experiment, features=features, **counts).endswith(f"{WHOLE} >= {enough}")
        assert experiment(features=features, **counts, allow_singular=True).enough_images == 20


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_experiment_is_right(name):
    whole = load_experiment(name)
    assert whole == load_experiment(checkout() / "config" / f"{name}.yaml") and whole.name == name
    said = yaml.safe_load((checkout() / "config" / f"{name}.yaml").read_text(encoding="utf-8"))
    for field, value in said.items():
        value = [str(parse_arm(arm)) for arm in value] if field == "variants" else value
        assert getattr(whole, field) == (tuple(value) if isinstance(value, list) else value)


def test_quick_is_the_papers_comparison_in_miniature():
    quick = load_experiment("quick")
    assert quick.weightings == ("constant", "debiased", "p2(k=1,gamma=1)", "min_snr(gamma=5)")
    config = quick.train_config("debiased", 0)
    assert (config.dataset, config.resolution, config.schedule, config.timesteps) == ("minifaces", 16, "linear", 1000)


def test_known_experiments_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert known_experiments() == SHIPPED and load_experiment("quick").name == "quick"
