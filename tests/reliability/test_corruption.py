"""Files that rot: a flipped bit or a cut end is detected, said in one line, and made good where that is possible.

A damage counts as detected if the reader refuses the file in one line or goes on without it, and as harmless if what is
read is what was written, to the bit: the last line end of a JSON file, `|` for `<` before a type of one byte. Nothing
else is allowed, least of all another number.
"""

import contextlib
import functools
import json
import os

import numpy as np
import pandas as pd
import pytest
import torch
from damage import damages
from PIL import Image

from debiaslib.data import images as data
from debiaslib.data.labels import stored_labels
from debiaslib.errors import InputError
from debiaslib.files import read_json, sha256_file, write_json
from debiaslib.metrics import feature_cache
from debiaslib.metrics.features import load_extractor
from debiaslib.study.common import load_arrays, save_arrays
from debiaslib.study.sample_store import sample_path, stored_samples
from debiaslib.study.saved_tables import Tables
from debiaslib.study.study import open_study
from debiaslib.training import loop as training
from debiaslib.training.checkpoints import load_checkpoint, save_checkpoint
from debiaslib.training.config import TrainConfig
from debiaslib.training.loop import _Training, train
from debiaslib.training.network import load_model
from debiaslib.training.run import Run

NETWORK = {"sample_size": 8, "block_out_channels": [4], "layers_per_block": 1, "down_block_types": ["DownBlock2D"],
           "up_block_types": ["UpBlock2D"], "norm_num_groups": 2, "add_attention": False}  # fmt: skip
SHORT_AND_LONG = pytest.mark.parametrize(
    ("flips", "cuts"), [(100, 20), pytest.param(1000, 100, marks=pytest.mark.slow)]
)


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    """Nothing here loses its power, and thousands of files are written."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class Interrupted(BaseException):
    """A training that ends like a killed one."""


def one_line(text):
    """Whether it is a line of at most 200 characters."""
    return 0 < len(text.strip()) <= 200 and "\n" not in text.strip()


def outcomes(paths, read, wanted, flips, cuts, said=lambda: ""):
    """{"refused": n, "made again": n, "harmless": n} over the damages of the files, each of which gets its share.

    read: reads what the files hold. wanted: whether that is what it was. said: what went to stderr since the last call.
    """
    counts = {"refused": 0, "made again": 0, "harmless": 0}
    said()
    for number, path in enumerate(paths):
        for what in damages(path, flips // len(paths), cuts // len(paths), number):
            damaged = path.read_bytes()
            try:
                assert wanted(read()), f"{what}: another content was read"
            except InputError as error:
                assert one_line(str(error)), f"{what}: {error}"
                counts["refused"] += 1
            else:
                counts["made again" if path.read_bytes() != damaged else "harmless"] += 1
            line = said()
            assert not line or one_line(line), f"{what}: {line}"
    return counts


def total(counts):
    return f"{counts['refused'] + counts['made again']:,} detected, {counts['harmless']} harmless"


# Checkpoints


@SHORT_AND_LONG
@pytest.mark.parametrize("which", ["pt", "json"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, capsys, reached, which, flips, cuts):
    state = {"network": {"w": torch.randn(40, 6)}, "seconds": 0.5, "log": [{"step": 1, "loss": 0.25}]}
    for step in (10, 20):
        save_checkpoint(tmp_path, step, {**state, "step": step})
    path, detected, tried = tmp_path / f"step-000000020.{which}", 0, 0
    whole = path.read_bytes()
    for what in damages(path, flips, cuts):
        tried += 1
        step, loaded = load_checkpoint(tmp_path)
        line = capsys.readouterr().err
        if which == "json" and path.read_bytes() == whole[:-1]:  # it lacks its last line end and nothing else
            assert step == 20
            detected += 1
            continue
        assert step == loaded["step"] == 10 and torch.equal(loaded["network"]["w"], state["network"]["w"]), what
        assert one_line(line) and "step-000000020.pt" in line and "the checkpoint before it is tried" in line, line
        detected += 1
    assert load_checkpoint(tmp_path)[0] == 20 and tried >= flips
    reached(
        3, f"bit flips and truncations of a checkpoint's .{which}", f"all of {tried:,}", f"{detected:,} of {tried:,}"
    )


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A folder of six images."""
    folder, draw = tmp_path_factory.mktemp("d") / "faces", np.random.default_rng(0)
    folder.mkdir()
    for i in range(6):
        Image.fromarray(draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def config(faces, monkeypatch):
    """Of a training of 8 steps with a row of the log for each."""
    monkeypatch.setattr(training, "_LOG_ROWS", 8)
    return TrainConfig(
        dataset=str(faces), resolution=8, network=NETWORK, images=16, batch_size=2, lr=1e-3, snapshots=[8]
    )


def stopped_before(step, monkeypatch):
    """Within the context a training ends like a killed one before that step."""

    def one_step(self):
        if self.step == step:
            raise Interrupted
        before(self)

    before = _Training._one_step
    monkeypatch.setattr(_Training, "_one_step", one_step)


def stopped(config, results, monkeypatch, step=6):
    """A run with the checkpoints of the two steps before `step`."""
    with monkeypatch.context() as patch:
        stopped_before(step, patch)
        with pytest.raises(Interrupted):
            train(config, results, "t", progress=False, checkpoint_seconds=0)
    return Run(results / "t" / "runs" / "debiased-s0")


def made_of(run):
    """What a training has made, without its clock's readings: the hashes of weights, the final state, the log."""
    _, state = load_checkpoint(run.folder / "checkpoints")
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in run.log()]
    weights = {path.name: sha256_file(path) for path in run.folder.glob("*.safetensors")}
    return weights, repr(state["optimizer"]), repr(state["ema"]), rows


@pytest.mark.parametrize("count", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_a_training_goes_on_from_the_checkpoint_before_to_the_same_bits(config, tmp_path, monkeypatch, reached, count):
    wanted = made_of(train(config, tmp_path / "whole", "t", progress=False))
    trials = 0
    for name in ("checkpoints/step-000000006.pt", "checkpoints/step-000000006.json", "log.jsonl"):
        for number in range(count):
            results = tmp_path / f"{trials}"
            path = stopped(config, results, monkeypatch).folder / name
            damage = damages(path, count, count, number)
            for _ in range(1 + number):
                next(damage)
            damaged = path.read_bytes()
            run = train(config, results, "t", progress=False)
            assert run.record is not None and made_of(run) == wanted, name
            assert not path.exists() or path.read_bytes() != damaged  # it takes no good one's place
            trials += 1
    reached(
        3,
        "trainings gone on with after a bit flip in checkpoint, note or log",
        "the same bits",
        f"{trials} of {trials}",
    )


def test_the_log_of_a_stopped_training_is_written_again_from_the_checkpoint(config, tmp_path, monkeypatch, reached):
    run = stopped(config, tmp_path, monkeypatch)
    path, trials = run.folder / "log.jsonl", 0
    going_on = _Training(run, config, data.load_images(config.dataset, 8, progress=False))
    wanted = [json.loads(line) for line in path.read_text().splitlines()]
    for what in damages(path, 50, 10):
        assert going_on._resume() == 6 and run.log() == wanted, what
        trials += 1
    path.unlink()
    assert going_on._resume() == 6 and run.log() == wanted
    reached(3, "damaged logs of a stopped training", "written again", f"{trials} of {trials}")


# A complete run


@SHORT_AND_LONG
def test_what_a_complete_run_has_left(config, tmp_path, monkeypatch, reached, flips, cuts):
    run = train(config, tmp_path, "t", progress=False)
    readers = {
        "ema-000000008.safetensors": lambda: run.snapshot(8).name,
        "raw-000000016.safetensors": lambda: run.raw_weights().name,
        "record.json": lambda: run.record,
        "config.json": lambda: run.config,
        "log.jsonl": run.log,
    }
    for name, read in readers.items():
        wanted = read()
        counts = outcomes([run.folder / name], read, functools.partial(_equal, wanted), flips, cuts)
        assert counts["harmless"] <= (name.endswith(".json")) and not counts["made again"]
        reached(3, f"bit flips and truncations of {name.split('-')[0]}", "all detected", total(counts))
    weights = run.folder / "ema-000000016.safetensors"
    for what in damages(weights, 4, 3):  # however it is loaded
        for source in (run, run.folder, weights):
            with pytest.raises(InputError, match="missing or damaged"):
                load_model(source)
                pytest.fail(what)
    for what in damages(run.folder / "record.json", 4, 1):
        with pytest.raises(InputError, match="is damaged"):
            train(config, tmp_path, "t", progress=False)
            pytest.fail(what)


def _equal(one, other):
    return one == other


def test_the_last_row_of_a_rotten_log_is_no_error(config, tmp_path, monkeypatch):
    """Progress and estimates read it while a training runs; it decides no number."""
    run = stopped(config, tmp_path, monkeypatch)
    for what in damages(run.folder / "log.jsonl", 400, 40):
        row = run.last_row()
        assert row is None or isinstance(row["images"], int), what


# Caches


@SHORT_AND_LONG
@pytest.mark.parametrize("verified", [1_000_000_000, 0])
def test_decoded_images(tmp_path, monkeypatch, capsys, reached, flips, cuts, verified):
    """With `verified` 0 they are taken for larger than what is hashed whole at each loading, and damaged between the
    blocks that are looked at: that something was written is seen by the file's times.
    """
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path / "c"))
    monkeypatch.setattr(data, "_VERIFIED_BYTES", verified)
    if not verified:
        monkeypatch.setattr(data, "_sample", lambda images: "as it was")
    (tmp_path / "x").mkdir()
    for i in range(2):
        Image.fromarray(np.full((4, 4, 3), 90 * i + 5, np.uint8)).save(tmp_path / "x" / f"{i}.bmp")
    found = data.load_images(tmp_path / "x", 4)
    wanted, fingerprint = np.array(found.images), found.fingerprint
    (pixels,) = (tmp_path / "c" / "images").glob("*.npy")
    counts = outcomes(
        [pixels, pixels.with_suffix(".json")],
        lambda: data.load_images(tmp_path / "x", 4),
        lambda found: np.array_equal(found.images, wanted) and found.fingerprint == fingerprint,
        2 * flips,
        2 * cuts,
        lambda: capsys.readouterr().err,
    )
    assert counts["refused"] == 0 and counts["made again"] >= 2 * flips - 2
    size = "small" if verified else "large, written to"
    reached(3, f"bit flips and truncations of decoded images and their note ({size})", "made again", total(counts))


def test_large_decoded_images_that_rot_beneath_the_file_system_are_found_in_the_blocks_that_are_read(
    faces, tmp_path, monkeypatch, capsys
):
    """Nothing was written, so size and times are as they were: 64 blocks are hashed and no more."""
    monkeypatch.setenv("DEBIASLIB_CACHE", str(tmp_path))
    monkeypatch.setattr(data, "_VERIFIED_BYTES", 0)
    monkeypatch.setattr(data, "_file_state", lambda path: [path.stat().st_size])
    wanted = np.array(data.load_images(faces, 8).images)
    (pixels,) = (tmp_path / "images").glob("*.npy")
    hashed = []
    monkeypatch.setattr(data, "_fingerprint", hashed.append)
    for what in damages(pixels, 40, 10, seed=1):
        assert np.array_equal(data.load_images(faces, 8).images, wanted), what
    assert capsys.readouterr().err.count("decoding again") >= 45
    assert sum(images.shape != wanted.shape for images in hashed) == 0


@SHORT_AND_LONG
def test_labels(tmp_path, reached, flips, cuts):
    path, wanted = tmp_path / "images.npy", np.array([3, 1, 2, 0, 1], np.int64)

    def read():
        return stored_labels(path, 5, lambda: wanted)[0]

    read()
    files = [path.with_suffix(".labels.npy"), path.with_suffix(".labels.json")]
    counts = outcomes(files, read, lambda found: np.array_equal(found, wanted), flips, cuts)
    reached(3, "bit flips and truncations of cached labels and their note", "made again", total(counts))
    assert counts["refused"] == 0 and counts["harmless"] <= 5


@SHORT_AND_LONG
def test_cached_features(tmp_path, reached, flips, cuts):
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)
    read = functools.partial(feature_cache.reference_features, images, load_extractor("pooled"), "f", cache=tmp_path)
    wanted = read()
    (path,) = tmp_path.glob("*.npy")
    files = [path, path.with_suffix(".sha256")]
    counts = outcomes(files, read, lambda found: np.array_equal(found, wanted), flips, cuts)
    # White space after the hash: the line end, or what a flipped bit makes of it.
    assert counts["refused"] == 0 and counts["harmless"] <= 8
    reached(3, "bit flips and truncations of cached features and their hash", "made again", total(counts))


@SHORT_AND_LONG
def test_stored_samples(tmp_path, capsys, reached, flips, cuts):
    inputs, shape = {"model": "m"}, (3, 4, 4)

    def drawn(seeds):
        return [np.full((1, *shape), 20 * seed + 1, np.uint8) for seed in seeds]

    read = functools.partial(stored_samples, tmp_path, inputs, range(6), shape, drawn)
    wanted, path = np.array(read()), sample_path(tmp_path, inputs)
    same = functools.partial(np.array_equal, wanted)
    files = [path, path.with_suffix(".json")]
    counts = outcomes(files, read, same, flips, cuts, lambda: capsys.readouterr().err)
    # The record's last line end, and the e of seconds like 3e-05.
    assert counts["refused"] == 0 and counts["harmless"] <= 2
    reached(3, "bit flips and truncations of stored samples and their record", "drawn again", total(counts))


@SHORT_AND_LONG
def test_samples_that_are_half_drawn(tmp_path, capsys, reached, flips, cuts):
    inputs, shape = {"model": "m"}, (3, 4, 4)

    def drawn(seeds, until=99):
        for seed in seeds:
            if seed == until:
                raise Interrupted
            yield np.full((1, *shape), 20 * seed + 1, np.uint8)

    def read(until=99):
        for old in tmp_path.glob("*.npy"):  # of the trial before
            old.unlink()
            old.with_suffix(".json").unlink()
        return stored_samples(tmp_path, inputs, range(6), shape, functools.partial(drawn, until=until))

    with pytest.raises(Interrupted):
        read(4)
    path = sample_path(tmp_path, inputs)
    partial, note = path.with_suffix(".partial"), path.with_suffix(".progress.json")
    kept, wanted, trials = [(file, file.read_bytes()) for file in (partial, note)], np.array(read()), 0
    for number, (file, _) in enumerate(kept):
        for other, content in kept:
            other.write_bytes(content)
        for what in damages(file, flips // 2, cuts // 2, number):
            whole = kept[1 - number]
            whole[0].write_bytes(whole[1])
            assert np.array_equal(read(), wanted), what
            line, trials = capsys.readouterr().err, trials + 1
            assert not line or one_line(line), line
        file.unlink()
    reached(
        3, "bit flips and truncations of half-drawn samples and their note", "the same images", f"{trials} of {trials}"
    )


# Tables


@pytest.fixture
def study(faces, tmp_path):
    return open_study("quick", str(faces), tmp_path)


@SHORT_AND_LONG
@pytest.mark.parametrize("name", ["mse.csv", "one_step.npz"])
def test_tables(study, capsys, reached, flips, cuts, name):
    """Those who make them make them again; those who only read them, as `make figures`, refuse them."""
    csv = name.endswith("csv")

    def make(path):
        frame = pd.DataFrame({"t": range(9), "mean": [0.125 * i for i in range(9)]})
        frame.to_csv(path, index=False) if csv else save_arrays(path, t=np.arange(9), mean=np.arange(9) / 8)

    path = study.table(name, {"n": 5}, make)
    files = [path, path.with_name(f"{name}.json")]
    load = pd.read_csv if csv else load_arrays
    wanted = load(path)
    tables = Tables(study.folder)
    looks = functools.partial(tables.frame, path, "t mean") if csv else functools.partial(tables.arrays, path, "t mean")
    for verb, read in (
        ("refused by who reads", looks),
        ("made again by who makes", lambda: load(study.table(name, {"n": 5}, make))),
    ):
        counts = outcomes(files, read, lambda found: all(np.array_equal(found[k], wanted[k]) for k in ("t", "mean")),
                          flips, cuts, lambda: capsys.readouterr().err)  # fmt: skip
        assert counts["harmless"] <= 1 and counts["refused" if read is not looks else "made again"] == 0
        reached(3, f"bit flips and truncations of {name} and its record", verb, total(counts))


@SHORT_AND_LONG
def test_any_record(tmp_path, reached, flips, cuts):
    """Of figures, notebooks, trainings: all are written by `write_json`."""
    path = tmp_path / "record.json"
    wanted = {"title": "Größe, \u2028", "seconds": 1.5e-7, "clean": None, "packages": {"torch": "2.10.0"}, "t": [0, 5]}
    write_json(path, wanted)
    counts = outcomes([path], lambda: read_json(path), functools.partial(_equal, wanted), 10 * flips, 10 * cuts)
    # The letters of an exponent and of escapes such as u00f6 in another case, or the last line end.
    assert counts["harmless"] <= 5 and counts["made again"] == 0
    reached(3, "bit flips and truncations of a JSON record", "all detected", total(counts))


def test_the_directory_of_a_checkpoint_may_hold_anything(tmp_path, capsys):
    save_checkpoint(tmp_path, 10, {"a": 1})
    (tmp_path / "step-last.json").write_text("{}")
    (tmp_path / "step-000000030.pt").mkdir()
    write_json(tmp_path / "step-000000030.json", {"step": 30, "sha256": "0"})
    torch.save([1, 2], tmp_path / "step-000000040.pt")
    write_json(tmp_path / "step-000000040.json", {"step": 40, "sha256": sha256_file(tmp_path / "step-000000040.pt")})
    (tmp_path / "step-000000050.pt").write_text("no zip")
    write_json(tmp_path / "step-000000050.json", {"step": 50, "sha256": sha256_file(tmp_path / "step-000000050.pt")})
    assert load_checkpoint(tmp_path) == (10, {"a": 1})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(one_line(line) for line in lines)
    with contextlib.suppress(OSError):
        (tmp_path / "step-000000030.pt").rmdir()
