"""Files of strangers: none of them makes us run what it holds.

Each payload makes a folder, the canary, when it is run. That it is a live one is shown first, by a reader that trusts
it; then ours gets it, and there must be no canary, and one line that refuses it.
"""

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import papermill
import pyarrow
import pyarrow.parquet
import pytest
import torch
import yaml
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from nbformat.v4 import new_code_cell, new_notebook
from papermill.translators import PythonTranslator
from pictures import png

from debiaslib.data import hub
from debiaslib.data.images import load_images
from debiaslib.errors import InputError
from debiaslib.files import sha256_file
from debiaslib.metrics import feature_nets, feature_weights, features
from debiaslib.metrics.features import load_extractor
from debiaslib.store import note_of
from debiaslib.study import run_notebook as execution
from debiaslib.study.experiment import load_experiment
from debiaslib.study.run_notebook import execute_notebook
from debiaslib.study.samples import stored_images
from debiaslib.study.saved_tables import Tables
from debiaslib.study.study import open_study
from debiaslib.training.load import load_model, load_pretrained

REPOSITORY = Path(__file__).resolve().parents[2]


class Canary:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def canary(tmp_path):
    return tmp_path / "canary"


def live(canary, trusting):
    """Show that the payload is one: a reader that trusts it makes the canary."""
    try:
        trusting()
    except Exception as error:  # many go on to complain that a folder is no tensor
        assert canary.exists(), error
    assert canary.exists()
    canary.rmdir()


def refused(canary, call, *given):
    """The line, of at most 200 characters, that refuses what was not run."""
    with pytest.raises(InputError) as caught:
        call(*given)
    line = str(caught.value)
    assert not canary.exists()
    assert len(line) <= 200 and "\n" not in line, line
    return line


# Weights and checkpoints


def as_zip(thing, path):
    torch.save(thing, path)


def as_legacy(thing, path):
    torch.save(thing, path, _use_new_zipfile_serialization=False)


def as_pickle(protocol):
    return lambda thing, path: path.write_bytes(pickle.dumps(thing, protocol))


WRITERS = [as_zip, as_legacy, as_pickle(0), as_pickle(5)]


def trusting(path):
    """Load as torch did for years, or as pickle does."""
    try:
        torch.load(io.BytesIO(path.read_bytes()), weights_only=False)
    except Exception:
        pickle.loads(path.read_bytes())


def state_with(canary):
    return {"out.2.weight": torch.zeros(1), "more": Canary(canary)}


PIPELINE = {"sample_size": 8, "block_out_channels": [4], "layers_per_block": 1, "down_block_types": ["DownBlock2D"],
            "up_block_types": ["UpBlock2D"], "norm_num_groups": 2, "add_attention": False}  # fmt: skip


@pytest.fixture(scope="module")
def pipeline_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("p") / "pipeline"
    DDPMPipeline(UNet2DModel(**PIPELINE), DDPMScheduler()).save_pretrained(folder)
    return folder


def pipeline(pipeline_folder, target):
    subprocess.run(["cp", "-r", str(pipeline_folder), str(target)], check=True)
    return target


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_pickles_in_weights(tmp_path, canary, pipeline_folder):
    """Of every way to write one, and where a pipeline has its weights."""
    for number, write in enumerate(WRITERS):
        for suffix in ("pt", "bin"):
            path = tmp_path / f"{number}.{suffix}"
            write(state_with(canary), path)
            live(canary, lambda path=path: trusting(path))
            assert path.name in refused(canary, load_model, path)
        folder = pipeline(pipeline_folder, tmp_path / f"p{number}")
        weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
        for path in (weights, weights.with_suffix(".bin")):
            weights.unlink(missing_ok=True)
            write(state_with(canary), path)
            live(canary, lambda path=path: trusting(path))
            refused(canary, load_pretrained, folder)
            path.unlink()


def test_code_beside_a_pipelines_weights(tmp_path, canary, pipeline_folder):
    """Custom classes and modules, as diffusers knows them: the code is not even looked at."""
    folder = pipeline(pipeline_folder, tmp_path / "p")
    code = f"import os\nos.mkdir({str(canary)!r})\nclass Evil: pass\n"
    live(canary, lambda: exec(code))
    for name in ("pipeline.py", "unet/unet.py", "unet/evil.py", "scheduler/evil.py"):
        (folder / name).write_text(code)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(
        json.dumps({**index, "_class_name": ["pipeline", "Evil"], "unet": ["evil", "Evil"]})
    )
    assert load_pretrained(folder).network.config.sample_size == 8 and not canary.exists()
    for file, changes in (
        ("unet/config.json", {"_class_name": ["evil", "Evil"], "auto_map": {"AutoModel": "evil.Evil"}}),
        ("unet/config.json", {"_class_name": "evil.Evil"}),
        ("scheduler/scheduler_config.json", {"_class_name": ["evil", "Evil"]}),
        ("unet/config.json", {"act_fn": f"__import__('os').mkdir({str(canary)!r})"}),
        ("unet/config.json", {"down_block_types": ["evil.Evil"]}),
    ):
        path = folder / file
        before = path.read_text()
        path.write_text(json.dumps({**json.loads(before), **changes}))
        refused(canary, load_pretrained, folder)
        path.write_text(before)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_weights_of_feature_networks(tmp_path, canary, monkeypatch):
    """By an unknown hash; and even if the hash were right."""
    for number, write in enumerate(WRITERS):
        path = tmp_path / f"{number}.pth"
        write(state_with(canary), path)
        live(canary, lambda path=path: trusting(path))
        monkeypatch.setenv(feature_weights.VARIABLE, str(path))
        assert "is damaged" in refused(canary, load_extractor, "inception")
        with monkeypatch.context() as patch:
            patch.setattr(feature_weights, "SHA256", sha256_file(path))
            refused(canary, load_extractor, "inception")
        for name in feature_nets.NETWORKS:
            refused(canary, feature_nets.load_network, name, path)
            with monkeypatch.context() as patch:
                patch.setattr(feature_nets, "shipped_weights", lambda name, path=path: path)
                assert "altered" in refused(canary, feature_nets.load_network, name)


# Arrays


def objects(path, canary, compressed=None):
    """An array of objects, or several of them in an npz file."""
    array = np.empty(2, object)
    array[:] = [Canary(canary), 1]
    with open(path, "wb") as file:
        np.savez(file, t=array, mean=np.arange(2)) if compressed else np.save(file, array, allow_pickle=True)

    def trusted():
        found = np.load(path, allow_pickle=True)
        return found["t"] if compressed else found

    live(canary, trusted)


def test_arrays_of_objects(tmp_path, canary, monkeypatch, capsys):
    """In every cache, with a hash or record that fits: none is read, all are made again or refused."""
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path / "c"))
    for seed in range(2):
        (tmp_path / "x" / f"{seed}").mkdir(parents=True)
        (tmp_path / "x" / f"{seed}" / "a.png").write_bytes(_png(seed))
    wanted = np.array(load_images(tmp_path / "x", 8, classes=2).images)
    for path in (tmp_path / "c" / "images").glob("*.npy"):
        objects(path, canary)
    again = load_images(tmp_path / "x", 8, classes=2)
    assert np.array_equal(again.images, wanted) and again.labels.tolist() == [0, 1] and not canary.exists()

    pooled = load_extractor("pooled")
    features.reference_features(wanted, pooled)
    (path,) = (tmp_path / "c" / "features").glob("*.npy")
    objects(path, canary)
    note_of(path).write_text(json.dumps({**json.loads(note_of(path).read_text()), "sha256": sha256_file(path)}))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        features.reference_features(wanted, pooled)
    assert not canary.exists()

    samples = tmp_path / "s", {"n": 1, "batch_size": 1}, (3, 2, 2), lambda numbers: np.full((1, 3, 2, 2), 5, np.uint8)
    path = Path(stored_images(*samples).filename)
    objects(path, canary)
    note = path.with_suffix(".json")
    note.write_text(json.dumps({**json.loads(note.read_text()), "sha256": sha256_file(path)}))
    with pytest.raises(ValueError, match="allow_pickle=False|object"):
        stored_images(*samples)
    assert not canary.exists()

    study = open_study("quick", "", tmp_path)
    path = study.table("one_step.npz", {}, lambda path: objects(path, canary, compressed=True))
    assert "cannot be read" in refused(canary, Tables(study.folder).read, path, "t")
    with pytest.raises(ValueError, match="allow_pickle=False"):
        study.arrays("one_step.npz", {}, dict)
    assert not canary.exists()


# Data sets


def test_a_loading_script_in_a_data_set(tmp_path, canary, monkeypatch):
    """In a folder and in a repository of the hub, whatever the library's settings say of trust."""
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path / "c"))
    monkeypatch.setenv("HF_DATASETS_TRUST_REMOTE_CODE", "1")
    root = tmp_path / "evil"
    root.mkdir()
    code = f"import os\nos.mkdir({str(canary)!r})\n"
    live(canary, lambda: subprocess.run([sys.executable, "-c", code], check=True))
    for name in ("evil.py", "__init__.py", "dataset.py", "conftest.py", "setup.py"):
        (root / name).write_text(code)
    assert "holds no images" in refused(canary, load_images, root, 8)
    assert "cannot be loaded" in refused(canary, hub._load, str(root), "main")  # by the library itself
    for seed in range(2):
        (root / f"{seed}.png").write_bytes(_png(seed))
    assert len(load_images(root, 8).images) == 2 and not canary.exists()


def test_pickles_and_programs_in_the_place_of_images(tmp_path, canary, monkeypatch):
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path / "c"))
    pickled = pickle.dumps(Canary(canary))
    live(canary, lambda: pickle.loads(pickled))
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(%pipe%mkdir " + bytes(canary) + b") (r) file\n"
    contents = {"pickle": pickled, "postscript": postscript, "script": b"#!/bin/sh\nmkdir " + bytes(canary)}
    for name, content in contents.items():
        folder = tmp_path / name
        folder.mkdir()
        for file in ("a.png", "b.png"):
            (folder / file).write_bytes(content)
        assert "is broken" in refused(canary, load_images, folder, 8)
        rows = pyarrow.table({"image": [{"bytes": content}] * 2})
        pyarrow.parquet.write_table(rows, tmp_path / f"{name}.parquet")
        assert "is broken" in refused(canary, load_images, tmp_path / f"{name}.parquet", 8)


def _png(seed):
    return png(np.full((8, 8, 3), seed, np.uint8))


NAMES = ["$(mkdir {0}).png", "`mkdir {0}`.png", "; mkdir {0};.png", "a\nmkdir {0}\n.png", "\x1b]0;mkdir {0}\x07.png",
         "' + __import__('os').mkdir('{0}') + '.png", "{{PYTHON}}.png", "<script>alert(1)<.png", "--help.png",
         "%s%n.png"]  # fmt: skip


def test_hostile_names_of_images(tmp_path, canary, monkeypatch, capsys):
    """They are read, and if they are broken they are named in one line, without a letter that a terminal obeys."""
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path / "c"))
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(NAMES):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        name = name.format("canary")
        for file in (name, f"x{name}"):
            (folder / file).write_bytes(_png(1))
        assert len(load_images(folder, 8).images) == 2
        (folder / name).write_bytes(b"no image")
        line = refused(canary, load_images, folder, 8)
        assert "is broken" in line and line.isprintable(), line


# Settings, parameters, notebooks


def test_yaml_that_makes_objects(tmp_path, canary):
    tags = [f"!!python/object/apply:os.mkdir [{canary}]", f"!!python/object/new:os.mkdir [{canary}]",
            f"!!python/object/apply:os.system ['mkdir {canary}']"]  # fmt: skip
    for tag in tags:
        live(canary, lambda tag=tag: yaml.unsafe_load(tag))
        for text in (tag, f"preset: {tag}\n", f"preset: minifaces16\nweightings: [constant, {tag}]\n"):
            (tmp_path / "e.yaml").write_text(text)
            refused(canary, load_experiment, tmp_path / "e.yaml")
        refused(canary, load_pretrained, f"model.pt; resolution={tag}")


def test_names_and_values_of_parameters(tmp_path, canary, monkeypatch):
    """papermill pastes a name as it is; ours are the declared ones whatever is given, and values are quoted."""
    evil = f"q=1;__import__('os').mkdir({str(canary)!r});z"
    cell = PythonTranslator.codify({evil: 5})
    live(canary, lambda: exec(cell))
    values = [evil, f"'; {evil}#", f'"""\n{evil}\n"""', f"\\'; {evil} #", f"{{{evil}}}", f"$(mkdir {canary})"]
    given = []
    monkeypatch.setattr(papermill, "execute_notebook", lambda *paths, parameters, **more: given.append(parameters))
    monkeypatch.setattr(execution, "_cell_that_did_not_run", lambda notebook: "not executed")
    monkeypatch.setattr(execution.nbformat, "read", lambda *path, **more: None)
    for value in values:
        refused(canary, lambda value=value: execute_notebook("01_bias_existence", experiment=value))
        (tmp_path / "r").mkdir(exist_ok=True)
        with pytest.raises(InputError, match="not executed"):
            execute_notebook("01_bias_existence", dataset=value, results=str(tmp_path / "r" / value.replace("/", "_")))
    assert len(given) == len(values)
    for parameters in given:
        assert set(parameters) == {"experiment", "dataset", "results"} and all(map(str.isidentifier, parameters))
        names = {}
        exec(PythonTranslator.codify(parameters), names)
        assert {key: names[key] for key in parameters} == parameters and not canary.exists()


def test_notebooks_of_strangers(tmp_path, canary):
    """By address, as JSON text, by path: only the notebooks of the checkout are executed, by their names."""
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    cells = [new_code_cell(f"import os\nos.mkdir({str(canary)!r})")]
    text, evil = json.dumps(new_notebook(cells=cells, metadata={"kernelspec": kernel})), tmp_path / "evil"
    evil.with_suffix(".ipynb").write_text(text)
    braced = text.replace("{", "{{").replace("}", "}}")  # papermill fills in what stands between single ones
    for name in (text, braced, str(evil), f"{evil}.ipynb", os.path.relpath(evil), f"../../{evil}", f"file://{evil}.ipynb",
                 f"s3://x{evil}.ipynb", "http://127.0.0.1/evil.ipynb"):  # fmt: skip
        assert "is unknown" in refused(canary, execute_notebook, name)
