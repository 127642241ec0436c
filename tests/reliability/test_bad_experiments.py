"""Bad experiment files and experiments of Python: each is one line, before any work."""

from functools import partial

from debiaslib.study.experiment import load_experiment
from debiaslib.study.presets import PRESETS
from tests.training.test_config import experiment, train

PRESET = "preset: minifaces16\n"
UNET = PRESETS["minifaces16"].network
FINITE = "a finite number"
# (text of the file after the preset's line, what the line must hold)
SETTINGS = [
    ("weighting: [debiased]", "'weighting'", "did you mean 'weightings'?"),
    ("Seeds: [0]", "'Seeds'", "did you mean 'seeds'?"),
    ("name: mine", "'name'", "known:"),
    ("3: 4", "setting in mine.yaml 3", "known:"),
    ("null: 4", "setting in mine.yaml None", "known:"),
    ("preset: gaussian16", "'preset' is given twice", "line 2"),
    ("seeds: [0]\nseeds: [1]", "'seeds' is given twice", "line 3"),
    ("training: {lr: 1e-3, lr: 1e-4}", "'lr' is given twice", "line 2"),
    ("seeds: &a [0]\ngrid_steps: *a", "*a", "aliases are not taken"),
    ("seeds: &a [*a]", "*a", "aliases are not taken"),
    ("training: &a {lr: 1}\n<<: *a", "*a", "aliases are not taken"),
    ("a: &a [1,1,1]\nb: &b [*a,*a,*a]\nc: &c [*b,*b,*b]\nseeds: [*c]", "*a", "aliases are not taken"),
    ("seeds: 0", "seeds is 0", "a list"),
    ("seeds: []", "seeds is empty", "at least one"),
    ("seeds: [0, 0]", "seeds lists 0 twice", "once"),
    ("seeds: [-1]", "seed is -1", ">= 0"),
    ("seeds: [true]", "seeds is True", "a whole number"),
    ("seeds: [1.0]", "seeds is 1.0", "a whole number"),
    ("seeds: ['0']", "seeds is '0'", "a whole number"),
    ("seeds: [0o17x]", "seeds is '0o17x'", "a whole number"),
    ("seeds: [1e3]", "seeds is '1e3'", "a whole number"),
    ("seeds: [9223372036854775808]", "seeds is 9223372036854775808", "below 2^63"),
    ("seeds: [1" + "0" * 4000 + "]", "seeds is 1000", "below 2^63"),
    ("seeds: 2020-01-01", "seeds is datetime.date(2020, 1, 1)", "a list"),
    ("seeds: {0: 1}", "seeds is {0: 1}", "a list"),
    ("seeds:", "seeds is None", "a list"),
    ("weightings: []", "weightings is empty", "at least one"),
    ("weightings: debiased", "weightings is 'debiased'", "a list"),
    ("weightings: [debiased, debiased]", "weightings lists 'debiased' twice", "once"),
    ("weightings: [p2, 'p2(k=1.0)']", "weightings lists 'p2(k=1,gamma=1)' twice", "once"),
    ("weightings: [no]", "weightings is False", "a text"),
    ("weightings: [debaised]", "'debaised'", "did you mean 'debiased'?"),
    ("weightings: ['p2(k=-1)']", "k of weighting 'p2' is -1", f"{FINITE} >= 0"),
    ("weightings: ['p2(k=1']", "'p2(k=1'", "'name(argument=value)'"),
    ("weightings: [pretrained]", "'pretrained'", "known: constant"),
    ("variants: ['debiased; lr=0']", "lr is 0.0", "> 0"),
    ("variants: ['debiased; precision=auto']", "precision=auto", "must say which"),
    ("sampler: dddim", "sampler 'dddim'", "did you mean 'ddim'?"),
    ("further_samplers: [ddim]", "further_samplers lists 'ddim' twice", "once"),
    ("features: [inceptoin]", "features 'inceptoin'", "did you mean 'inception'?"),
    ("further_features: [pooled]", "further_features lists 'pooled' twice", "once"),
    ("grid_steps: [2, 1001]", "grid_steps is 1001", "<= 1000"),
    ("distance_steps: [0]", "distance_steps is 0", ">= 1"),
    ("snapshot_steps: [true]", "snapshot_steps is True", "a whole number"),
    ("shown_timesteps: [1000]", "shown_timesteps is 1000", "< 1000"),
    ("curve_timesteps: [-1]", "curve_timesteps is -1", ">= 0"),
    ("distance_images: 10", "distance_images is 10", ">= 49"),
    ("distance_images: 2_0 0", "distance_images is '2_0 0'", "a whole number"),
    ("reference_images: 1.5", "reference_images is 1.5", "a whole number"),
    ("clip_x0: 'yes'", "clip_x0 is 'yes'", "true or false"),
    ("clip_x0: 1", "clip_x0 is 1", "true or false"),
    ("stages: [{arms: [constant], seeds: [0]}]", "leaves out debiased with seed 0", "cannot be compared"),
    ("stages: [{arms: [constant]}]", "{'arms': ['constant']}", "a stage is like"),
    ("stages: [{arms: [p2], seeds: [0]}]", "'p2(k=1,gamma=1)'", "known: constant, debiased"),
    ("stages: [{arms: [constant, debiased], seeds: [true]}]", "seed True", "the experiment's: 0"),
    ("published_weights: [p2]", "'p2'", "known: constant, debiased"),
    ("training: {lr: fast}", "lr is 'fast'", "a number"),
    ("training: {lr: 0}", "lr is 0.0", "> 0"),
    ("training: {lr: .nan}", "lr is nan", FINITE),
    ("training: {lr: .inf}", "lr is inf", FINITE),
    ("training: {lr: 1e999}", "lr is inf", FINITE),
    ("training: {lr: yes}", "lr is True", "a number"),
    ("training: {lr: 1e-3x}", "lr is '1e-3x'", "a number"),
    ("training: {learning_rate: 1}", "'learning_rate'", "known: batch_size"),
    ("training: {batch_size: 0}", "batch_size is 0", ">= 1"),
    ("training: {batch_size: 1e3}", "batch_size is '1e3'", "a whole number"),
    ("training: {batch_size: 9999999}", "images is 128000", ">= 1e+07"),
    ("training: {resolution: 18}", "resolution is 18", "a multiple of 4"),
    ("training: {resolution: 2}", "resolution is 2", ">= 4 and <= 1024"),
    ("training: {resolution: 4096}", "resolution is 4096", "<= 1024"),
    ("training: {timesteps: 0}", "timesteps is 0", ">= 1"),
    ("training: {timesteps: 1000000000}", "timesteps is 1000000000", "<= 1e+06"),
    ("training: {timesteps: 10}", "is 50", "< 10"),
    ("training: {threads: 100000}", "threads is 100000", "<= 1024"),
    ("training: {device: gpu}", "device 'gpu'", "known: cpu, cuda, mps"),
    ("training: {ema_decay: 1}", "ema_decay is 1.0", "< 1"),
    ("training: {schedule: lineer}", "schedule 'lineer'", "did you mean 'linear'?"),
    ("training: {prediction_type: eps}", "prediction_type 'eps'", "did you mean 'epsilon'?"),
    ("training: {snapshots: [0]}", "snapshots is 0", ">= 1"),
    ("training: {network: {dropout: .nan}}", "nan", "finite numbers"),
    ("training: {network: {dropout: 2020-01-01}}", "datetime.date(2020, 1, 1)", "finite numbers"),
    ("training: {network: {3: 4}}", "{3: 4", "texts"),
    ("training: {network: {num_class_embeds: 0}}", "num_class_embeds of the network is 0", ">= 1"),
    ("training: {weighting: debiased}", "'weighting'", "known:"),
    ("training: [lr]", "training is ['lr']", "a mapping"),
    ("then: [quick]", "then is ['quick']", "a text"),
    ("dataset: 3", "dataset is 3", "a text"),
    ("notebooks: []", "notebooks is empty", "at least one"),
]  # fmt: skip
# (whole file, what the line must hold beside its name)
FILES = [
    (b"", "holds None", "'name: value'"),
    (b"# a comment alone", "holds None", "'name: value'"),
    (b"- preset", "holds ['preset']", "'name: value'"),
    (b"quick", "holds 'quick'", "'name: value'"),
    (b"3", "holds 3", "'name: value'"),
    (b"seeds: [0]", "names no preset", "known: minifaces16"),
    (b"preset: minifaces", "preset 'minifaces'", "did you mean 'minifaces16'?"),
    (b"preset: [minifaces16]", "preset is ['minifaces16']", "a text"),
    (b"preset: minifaces16\nseeds: [0", "cannot be read", "line"),
    (b"preset: minifaces16\n\tseeds: [0]", "cannot be read", "line 2"),
    (b"preset: minifaces16\n  seeds: [0]", "cannot be read", "line 2"),
    (b"preset: minifaces16\nseeds: *x", "cannot be read", "line 2"),
    (b"preset: !!python/object/apply:os.system ['touch canary']", "cannot be read", "line 1"),
    (b"preset: !!python/name:os.system", "cannot be read", "line 1"),
    (b"preset: minifaces16\n? [a, b]\n: c", "cannot be read", "line 2"),
    (b"preset: minifaces16\n? {a: b}\n: c", "cannot be read", "line 2"),
    (b"preset: minifaces16\nseeds: 2020-99-99", "cannot be read", "month"),
    (b"preset: minifaces16\nseeds: !!int one", "cannot be read", "'one'"),
    (b"preset: minifaces16\nseeds: " + b"[" * 3000, "cannot be read", ""),
    (b"preset: minifaces16\nseeds: [1" + b"0" * 5000 + b"]", "cannot be read", "digits"),
    (b"preset: minifaces16\n--- \npreset: minifaces16", "cannot be read", "line 2"),
    (b"\xff\xfe\x00", "cannot be read", "utf-8"),
    (b"preset: \x01", "cannot be read", "not allowed"),
    (bytes(range(256)) * 4, "cannot be read", ""),
    (b"\x89PNG\r\n\x1a\n" + bytes(1000), "cannot be read", "utf-8"),
    (b"a: 1\n" * 100_000, "500,000 bytes", "100,000 are allowed"),
]
NAMES = [  # of an experiment that is not there
    ("qick", "experiment 'qick'", "did you mean 'quick'?"),
    ("", "experiment ''", "known:"),
    (None, "experiment 'None'", "known:"),
    ("no/such/experiment", "'no/such/experiment'", "known:"),
    ("none.yaml", "'none.yaml'", "does not exist"),
    ("nul\0.yaml", "nul", "does not exist"),
    ("x" * 3000 + ".yaml", "xxx", "does not exist"),
    ("~nobody-of-this-name/a.yaml", "~nobody-of-this-name/a.yaml", "does not exist"),
    ("\ud800.yaml", "does not exist", "a YAML file"),
    ("../config", "'../config'", "known:"),
]
PYTHON = [  # values that no file brings
    (partial(experiment, name=""), "name is ''", "the name of a folder"),
    (partial(experiment, name=".."), "name is '..'", "the name of a folder"),
    (partial(experiment, name="../../etc"), "name is '../../etc'", "the name of a folder"),
    (partial(experiment, name="x" * 300), "name is 'xxx", "200 characters"),
    (partial(experiment, weightings=None), "weightings is None", "a list"),
    (partial(experiment, seeds=range(3)), "seeds is range(0, 3)", "a list"),
    (partial(experiment, seeds={0}), "seeds is {0}", "a list"),
    (partial(train, network={"a": object()}), "network is {'a': <object", "texts"),
    (partial(train, network={**UNET, "block_out_channels": [8] * 9}), "resolution is 16", "a multiple of 256"),
    (partial(train, lr=1j), "lr is 1j", "a number"),
    (partial(train, seed=2**63), f"seed is {2**63}", "below 2^63"),
    (partial(train, images=10**6000), "images is a number of 19932 bits", "below 2^63"),
    (partial(train, device="cuda:-1"), "device is 'cuda:-1'", "'cuda:0'"),
    (partial(train, device="cuda:\u00b2"), "device is 'cuda:\u00b2'", "'cuda:0'"),
    (partial(train, device=""), "device ''", "known: cpu, cuda, mps"),
]


def test_every_bad_experiment_is_one_line(tally, reached):
    work = tally.watched / "work"
    for text, *parts in [((PRESET + text).encode(), *parts) for text, *parts in SETTINGS] + FILES:
        (work / "mine.yaml").write_bytes(text)
        tally.refused(f"{text!r:.90}", partial(load_experiment, "mine.yaml"), *parts)
        if "cannot be read" in parts:
            tally.refused(f"{text!r:.90} by name", partial(load_experiment, "mine.yaml"), "mine.yaml")
            tally.cases -= 1
    for name, *parts in NAMES:
        tally.refused(f"experiment {name!r:.60}", partial(load_experiment, name), *parts)
    for call, *parts in PYTHON:
        tally.refused(f"{call.func.__name__}({', '.join(call.keywords)})", call, *parts)
    assert not (work / "canary").exists()
    tally.settle(reached, "bad experiment files")
