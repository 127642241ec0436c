"""Bad data: images, features, tables and networks that are none, each refused in one line that names the thing."""

import io
import os
import pickle
import struct
import zlib
from functools import partial

import numpy as np
import pytest
import torch
from pictures import folder_of, picture, png, save, write_parquet

from debiaslib import load_images, load_model
from debiaslib.figures.draw import draw
from debiaslib.metrics.colour import energy_distance, mean_colours_lab, to_lab, wasserstein
from debiaslib.metrics.distances import evaluate, frechet_distance, inception_score, kernel_distance, precision_recall
from debiaslib.metrics.features import load_extractor
from debiaslib.study.compare import compare
from debiaslib.study.study import open_study
from debiaslib.training.load import load_pretrained
from tests.data.test_hub import no_copies  # noqa: F401
from tests.study.test_compare import distances, mse, write

WHOLE, NAN = "a whole number", float("nan")
POOLED = load_extractor("pooled")
IMAGES = np.zeros((100, 3, 8, 8), np.uint8)
FEATURES = np.random.default_rng(0).standard_normal((40, 3))
NUMBERS = "numbers (N, d), N >= 2"
UINT8 = "uint8 (N, 3, H, W)"


class Canary:
    """Pickled into a file; unpickled, it leaves a file."""

    def __reduce__(self):
        return os.system, ("touch canary",)


def huge_png(width, height):
    """A PNG of a few bytes that says it has so many pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.fixture
def images(tally):
    """Folders and files of bad images beside the working folder: {name: path}."""
    root = tally.watched / "work"
    folder_of(root / "good")
    folder_of(root / "one", 1)
    (root / "empty").mkdir()
    folder_of(root / "heldout/test")
    (root / "text").mkdir()
    (root / "text/readme.txt").write_text("no images")
    broken = {
        "zero": b"",
        "words": b"no image",
        "cut": png(picture(0, 64))[:-400],
        "header": png(picture(0))[:40],
        "object-npy": npy(np.array([Canary()], dtype=object)),
        "wrong-npy": npy(np.zeros((2, 8, 8))),
        "pickle": pickle.dumps(Canary()),
        "bomb": huge_png(100_000, 100_000),
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg' width='8' height='8'/>",
    }
    for name, content in broken.items():
        folder_of(root / name)
        (root / name / "sub").mkdir()
        (root / name / "sub" / f"{name}.png").write_bytes(content)
    folder_of(root / "float")
    save(root / "float/float.png", np.zeros((8, 8), np.float32), format="TIFF")
    for name in ("object-npy", "wrong-npy"):
        (root / f"{name}.npy").write_bytes(broken[name])
    tables(root)
    return root


def tables(root):
    """Parquet files of all the wrong kinds, and labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    good = png(picture(0))
    (root / "no.parquet").write_bytes(b"PAR1 and nothing else")
    pq.write_table(pa.table({"label": [1, 2], "text": ["a", "b"]}), root / "words.parquet")
    write_parquet(root / "rows/train-00000-of-00001.parquet", [good] * 20 + [good[:50]])
    write_parquet(root / "holes/train.parquet", [good, None, good])
    write_parquet(root / "half/train-00000-of-00002.parquet", [good] * 2)
    for config in "ab":
        write_parquet(root / f"two/{config}/train.parquet", [good] * 2)
    write_parquet(root / "labelled.parquet", [good] * 3)  # labels 0, 1, 2
    folder_of(root / "classes/train/a")
    folder_of(root / "classes/train/b", first=5)
    folder_of(root / "classes/test/c", first=9)


BROKEN = ("zero", "words", "cut", "header", "object-npy", "wrong-npy", "pickle", "bomb", "svg")
DATASETS = [  # (data set, what else is given, what the line must hold)
    ("minifacse", {}, "'minifacse'", "did you mean 'minifaces'?"),
    ("cifar10", {}, "'cifar10'", "did you mean 'uoft-cs/cifar10'?"),
    ("", {}, "data set ''", "owner/name"),
    (None, {}, "data set 'None'", "owner/name"),
    (3, {}, "data set '3'", "owner/name"),
    ("celebahq", {}, "CelebA-HQ", "DATASET=folder"),
    ("nowhere/at/all", {}, "'nowhere/at/all'", "an existing path"),
    ("../nowhere", {}, "'../nowhere'", "an existing path"),
    ("~nobody-of-this-name/x", {}, "'~nobody-of-this-name/x'", "an existing path"),
    ("nul\0", {}, "data set 'nul", "an existing path"),
    ("\ud800", {}, "data set", "an existing path"),
    ("x" * 3000, {}, "data set 'xxx", "an existing path"),
    ("good/00.png", {}, "good/00.png", "no parquet file"),
    ("object-npy.npy", {}, "object-npy.npy", "no parquet file"),
    ("wrong-npy.npy", {}, "wrong-npy.npy", "no parquet file"),
    ("no.parquet", {}, "no.parquet", "no parquet file"),
    ("words.parquet", {}, "words.parquet", "no column of images; its columns: label, text"),
    ("rows", {}, "row 20 (from 0)", "train-00000-of-00001.parquet"),
    ("holes", {}, "row 1 (from 0)", "holds no image"),
    ("half", {}, "lacks the shard train-00001-of-00002.parquet", "get the whole data set"),
    ("two", {}, "holds several data sets (a, b)", "give the path of one"),
    ("empty", {}, "'empty' holds no images", "png, jpg, jpeg, webp, bmp"),
    ("text", {}, "'text' holds no images", "png, jpg, jpeg, webp, bmp"),
    ("heldout", {}, "'heldout' holds held-out images only", "training images"),
    ("one", {}, "one holds 1 images", "at least 2"),
    *[(name, {}, f"{name}/sub/{name}.png", "is broken") for name in BROKEN],
    ("float", {}, "float/float.png", "8 bits a channel, 16-bit grey"),
    ("good", {"resolution": 0}, "resolution is 0", ">= 4"),
    ("good", {"resolution": 3}, "resolution is 3", ">= 4 and <= 1024"),
    ("good", {"resolution": -8}, "resolution is -8", ">= 4"),
    ("good", {"resolution": 1025}, "resolution is 1025", "<= 1024"),
    ("good", {"resolution": 10**9}, "resolution is 1000000000", "<= 1024"),
    ("good", {"resolution": 8.0}, "resolution is 8.0", WHOLE),
    ("good", {"resolution": "8"}, "resolution is '8'", WHOLE),
    ("good", {"resolution": True}, "resolution is True", WHOLE),
    ("good", {"resolution": None}, "resolution is None", WHOLE),
    ("gaussian", {"resolution": 64}, "resolution is 64", "<= 32"),
    ("good", {"split": "valid"}, "split 'valid'", "known: train, heldout"),
    ("good", {"split": None}, "split None", "known: train, heldout"),
    ("good", {"classes": 0}, "classes is 0", ">= 1"),
    ("good", {"classes": "10"}, "classes is '10'", WHOLE),
    ("good", {"classes": 10}, "good has no class labels", "a sub-folder for each class"),
    ("minifaces", {"classes": 10, "resolution": 8}, "minifaces has no class labels", "num_class_embeds 10"),
    ("labelled.parquet", {"classes": 2}, "labelled has the label 2", "0 .. 1"),
    ("classes", {"classes": 1}, "classes has the label 1", "0 .. 0"),
]  # fmt: skip
METRICS = [
    (partial(frechet_distance, FEATURES, FEATURES[:3]), "more than 3 images of each kind", "N is 3"),
    (partial(frechet_distance, FEATURES, FEATURES[:, :2]), "d = 3", "reference's d = 2"),
    (partial(frechet_distance, FEATURES[:, 0], FEATURES), "generated features are float64 of shape (40,)", NUMBERS),
    (partial(frechet_distance, FEATURES[:1], FEATURES), "generated features are float64 of shape (1, 3)", NUMBERS),
    (partial(frechet_distance, FEATURES, FEATURES * 1j), "reference features are complex128", NUMBERS),
    (partial(frechet_distance, FEATURES, FEATURES.astype(str)), "reference features are <U", NUMBERS),
    (partial(frechet_distance, None, FEATURES), "generated features are object of shape ()", NUMBERS),
    (partial(frechet_distance, FEATURES * NAN, FEATURES), "generated features are not finite", "40 of 40"),
    (partial(kernel_distance, FEATURES[:19], FEATURES), "needs 20 images of each", "N is 19"),
    (partial(kernel_distance, FEATURES, FEATURES, subsets=1), "subsets is 1", ">= 2"),
    (partial(kernel_distance, FEATURES, FEATURES, subsets=2.5), "subsets is 2.5", WHOLE),
    (partial(precision_recall, FEATURES[:3], FEATURES), "neighbors is 3", "below the number of images of each kind, 3"),
    (partial(precision_recall, FEATURES, FEATURES, neighbors=0), "neighbors is 0", ">= 1"),
    (partial(precision_recall, FEATURES, FEATURES, neighbors=True), "neighbors is True", WHOLE),
    (partial(precision_recall, FEATURES, FEATURES, neighbors=40), "neighbors is 40", "images of each kind, 40"),
    (partial(inception_score, FEATURES[:19]), "needs 20 images", "N is 19"),
    (partial(inception_score, FEATURES, splits=0), "splits is 0", ">= 2"),
    (partial(evaluate, IMAGES / 255, IMAGES, POOLED), "images are float64 of shape (100, 3, 8, 8)", UINT8),
    (partial(evaluate, IMAGES[:, :1], IMAGES, POOLED), "images are uint8 of shape (100, 1, 8, 8)", UINT8),
    (partial(evaluate, IMAGES.transpose(0, 2, 3, 1), IMAGES, POOLED), "shape (100, 8, 8, 3)", UINT8),
    (partial(evaluate, IMAGES, np.zeros((9, 4, 8, 8), np.uint8), POOLED), "reference images are uint8", UINT8),
    (partial(evaluate, IMAGES[:0], IMAGES, POOLED), "images are uint8 of shape (0, 3, 8, 8)", UINT8),
    (partial(evaluate, IMAGES[:, :, :4], IMAGES, POOLED), "images are 4x8 and the reference 8x8", "one size"),
    (partial(evaluate, IMAGES[:48], IMAGES, POOLED), "48 features", "N is 48"),
    (partial(evaluate, IMAGES[:9], IMAGES, POOLED, allow_singular=True), "needs 20 images of each", "N is 9"),
    (partial(evaluate, IMAGES, IMAGES, "pooled"), "extractor is 'pooled'", "load_extractor"),
    (partial(POOLED.features, IMAGES[:, :, :2]), "images are 2x8", "at least 4x4"),
    (partial(POOLED.features, torch.zeros(2, 3, 8, 8)), "images are float32", UINT8),
    (partial(POOLED.features, IMAGES, 0), "batch_size is 0", ">= 1"),
    (partial(load_extractor, "inceptoin"), "extractor 'inceptoin'", "did you mean 'inception'?"),
    (partial(load_extractor, "pooled", dtype="float64"), "dtype 'float64'", "known: float32"),
    (partial(load_extractor, "minifaces", device="gpu"), "device is 'gpu'", "'cuda:0'"),
    (partial(load_extractor, "inception"), "nowhere.pth is missing", "fetch-inception"),
    (partial(to_lab, IMAGES), "rgb is uint8 of shape (100, 3, 8, 8)", "numbers (..., 3)"),
    (partial(to_lab, np.array([0.0, 0.5, 255.0])), "rgb reaches from 0 to 255", "in [0, 1], or be uint8"),
    (partial(mean_colours_lab, IMAGES / 255), "images are float64", UINT8),
    (partial(wasserstein, FEATURES, FEATURES[:9]), "40 and 9 points", "equally many"),
    (partial(energy_distance, FEATURES[:2], FEATURES), "(2, 3)", "3"),
]  # fmt: skip


def test_every_bad_data_set_is_one_line(tally, images, reached):
    for dataset, more, *parts in DATASETS:
        call = partial(load_images, dataset, **{"resolution": 8, "progress": False, **more})
        tally.refused(f"{dataset!r:.40}, {more}", call, *parts)
    assert not (images / "canary").exists()
    assert load_images("good", 8).images.shape == (3, 3, 8, 8)
    tally.settle(reached, "bad data sets")


@pytest.mark.parametrize("value", ["file", "file/below", "/proc/no-such-folder", "x" * 300])
def test_a_cache_that_cannot_be_written_is_one_line(tally, images, monkeypatch, value):
    (images / "file").write_text("")
    monkeypatch.setenv("DEBIASLIB_CACHE", value)
    tally.refused(value, partial(load_images, "good", 8), "cannot be written", "DEBIASLIB_CACHE", value[:20])
    assert not tally.problems and not list(images.glob("x*"))


def test_a_hub_that_is_not_there_is_one_line(tally, monkeypatch, no_copies):  # noqa: F811
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("owner/name", "o" * 90 + "/" + "n" * 90):
        tally.refused(name, partial(load_images, name, 8), name[:9], "DATASET=path", "HF_HOME")
        tally.refused(name, partial(load_model, name), name[:9], "a folder with its files", "HF_HOME")
    assert not tally.problems, tally.problems


def test_every_bad_feature_is_one_line(tally, monkeypatch, reached):
    monkeypatch.setenv("DEBIASLIB_INCEPTION", "nowhere.pth")
    for call, *parts in METRICS:
        tally.refused(f"{call}"[:90], call, *parts)
    tally.settle(reached, "bad images and features for a distance")


def test_every_bad_table_and_network_is_one_line(tally, reached):
    work = tally.watched / "work"
    good = write(work / "good", mse=mse([0.3]), distances__debiased=distances())
    write(work / "columns", mse=mse([0.3]).drop(columns="t"))
    write(work / "nothing")
    write(work / "bytes", mse=mse([0.3]))
    (work / "bytes/tables/mse.csv").write_bytes(b"\xff\xfe\x00,")
    (work / "config").mkdir()
    (work / "config/config.json").write_text("{no json")
    (work / "words.pt").write_text("no weights")
    torch.save([1, 2], work / "list.pt")
    (work / "code.pt").write_bytes(pickle.dumps(Canary()))
    (work / "taken").mkdir()
    (work / "taken/thesis.tex").write_text("mine")
    cases = [
        (partial(compare, good, "nowhere"), "nowhere", "no tables"),
        (partial(compare, good, work / "nothing"), "nothing", "no tables"),
        (partial(compare, work / "columns", good), "mse.csv has no column 't'", "it has"),
        (partial(compare, work / "bytes", good), "mse.csv cannot be read", "remove it"),
        (partial(compare, good, good, {"fd_poled": 0.1}), "metric 'fd_poled'", "did you mean 'fd_pooled'?"),
        (partial(compare, good, good, {"": -1}), "tolerance is -1", ">= 0"),
        (partial(compare, good, good, {"fd_pooled": NAN}), "tolerance of fd_pooled is nan", "finite"),
        (partial(load_model, "nowhere"), "'nowhere'", "no existing folder or file"),
        (partial(load_model, "x" * 3000), "'xxx", "no existing folder or file"),
        (partial(load_model, "nul\0"), "nul", "no existing folder or file"),
        (partial(load_model, "~nobody-of-this-name/x"), "'~nobody", "no existing folder or file"),
        (partial(load_model, "config"), "config.json is damaged", "move it away"),
        (partial(load_model, "taken"), "taken", "config.json"),
        (partial(load_model, "words.pt"), "words.pt is refused", "more than tensors"),
        (partial(load_model, "list.pt"), "list.pt holds 'list'", "{name: tensor}"),
        (partial(load_model, "code.pt"), "code.pt is refused", "more than tensors"),
        (partial(load_model, "words.pt; timesteps=0"), "timesteps is 0", ">= 2"),
        (partial(load_model, "words.pt; timesteps=[1"), "timesteps of the model is '[1'", "a number, true, false"),
        (partial(load_model, "words.pt; schedule=x"), "schedule 'x'", "known: linear, cosine"),
        (partial(load_model, "words.pt; steps=5"), "'steps'", "did you mean 'timesteps'?"),
        (partial(load_model, "words.pt; timesteps"), "'words.pt; timesteps'", "'source; name=value, ...'"),
        (partial(load_model, "config", images=100), "config", "leave out images and raw"),
        (partial(load_model, "taken", device="gpu"), "device is 'gpu'", "'cuda:0'"),
        (partial(load_pretrained, None), "'None'", "no existing folder or file"),
        (partial(draw, "nsr", good), "figure 'nsr'", "did you mean 'snr'?"),
        (partial(draw, "snr", good), "weights.csv", "make"),
        (partial(open_study, "quick", results="words.pt"), "results is 'words.pt'", "must be a folder"),
        (partial(open_study, "quick", results="words.pt/below"), "results is 'words.pt/below'", "must be a folder"),
        (partial(open_study, "quick", results="nul\0"), "results is 'nul", "the path of a folder"),
        (partial(open_study, "quick", results="x" * 300), "results is 'xxx", "the path of a folder"),
        (partial(open_study, "quick", model="nowhere; x=["), "x of the model is '['", "a number, true, false"),
    ]  # fmt: skip
    for call, *parts in cases:
        tally.refused(f"{call}"[:120], call, *parts)
    assert not (work / "canary").exists()
    tally.settle(reached, "bad tables, networks and folders")
