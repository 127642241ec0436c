"""Samples on disk: a job killed at any point goes on at its next batch and ends with the same bytes."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from debiaslib.errors import InputError
from debiaslib.files import exclusive, sha256_file, sha256_json
from debiaslib.study import sample_store
from debiaslib.study.sample_store import sample_path, stored_samples

REPOSITORY = Path(__file__).resolve().parents[2]
SHAPE, SEEDS, INPUTS = (3, 4, 5), range(7), {"sampler": "ddim", "n": 7}


def image(seed):
    return np.random.default_rng(seed).integers(0, 256, SHAPE, dtype=np.uint8)


EXPECTED = np.stack([image(seed) for seed in SEEDS])


class Drawer:
    """Draws by twos, counts, and stops with an error after `most` batches."""

    def __init__(self, most=None):
        self.most, self.asked, self.given = most, [], 0

    def __call__(self, seeds):
        self.asked.append(list(seeds))
        for start in range(0, len(seeds), 2):
            if self.given == self.most:
                raise KeyboardInterrupt
            self.given += 1
            yield np.stack([image(seed) for seed in seeds[start : start + 2]])


def stored(folder, draw=None, **settings):
    arguments = {"inputs": INPUTS, "seeds": SEEDS, "shape": SHAPE, **settings}
    return stored_samples(folder, *arguments.values(), draw or Drawer())


def test_what_is_stored(tmp_path):
    images = stored(tmp_path / "samples")
    path = tmp_path / "samples" / f"{sha256_json(INPUTS)[:32]}.npy"
    assert path == sample_path(tmp_path / "samples", INPUTS)
    assert isinstance(images, np.memmap) and not images.flags.writeable
    assert images.dtype == np.uint8 and np.array_equal(images, EXPECTED)
    assert np.array_equal(np.load(path), EXPECTED)  # an ordinary .npy file
    record = json.loads(path.with_suffix(".json").read_text())
    assert record["inputs"] == INPUTS and record["n"] == 7 and record["shape"] == [7, *SHAPE]
    assert record["sha256"] == sha256_file(path) and 0 <= record["seconds"] < 60
    assert sorted(file.suffix for file in path.parent.iterdir() if file.suffix != ".lock") == [".json", ".npy"]


def test_a_second_time_nothing_is_drawn(tmp_path):
    stored(tmp_path)
    times = os.stat(sample_path(tmp_path, INPUTS)).st_mtime_ns
    second = Drawer()
    assert np.array_equal(stored(tmp_path, second), EXPECTED) and second.asked == []
    assert os.stat(sample_path(tmp_path, INPUTS)).st_mtime_ns == times


def test_other_inputs_are_another_file(tmp_path):
    stored(tmp_path)
    other = stored(tmp_path, inputs={**INPUTS, "steps": 5})
    assert np.array_equal(other, EXPECTED) and len(list(tmp_path.glob("*.npy"))) == 2


# Interruptions


@pytest.mark.parametrize("most", [0, 1, 2, 3])
def test_an_interrupted_job_goes_on_at_the_next_batch(tmp_path, most):
    first, second = Drawer(most), Drawer()
    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path, first)
    assert not sample_path(tmp_path, INPUTS).exists()
    assert np.array_equal(stored(tmp_path, second), EXPECTED)
    assert second.asked == [list(SEEDS)[2 * most :]] and first.given + second.given == 4


def test_stopped_many_times(tmp_path):
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            stored(tmp_path, Drawer(1))
    last = Drawer(1)
    assert np.array_equal(stored(tmp_path, last), EXPECTED) and last.asked == [[6]]


KILL = """
import os, signal, sys
import numpy as np
from debiaslib.study.sample_store import stored_samples

folder, where, left = sys.argv[1], sys.argv[2], int(sys.argv[3])

def die(*arguments, real=None, **named):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **named)

if where != "draw":
    real = getattr(os, where)
    setattr(os, where, lambda *a, **n: die(*a, real=real, **n))

def draw(seeds):
    for start in range(0, len(seeds), 2):
        if where == "draw":
            die(real=lambda: None)
        rows = [np.random.default_rng(s).integers(0, 256, (3, 4, 5), dtype=np.uint8) for s in seeds[start : start + 2]]
        yield np.stack(rows)

stored_samples(folder, {"sampler": "ddim", "n": 7}, range(7), (3, 4, 5), draw)
"""


# Four batches: a kill in each; between the images and their note; and around the last two names, file and record.
@pytest.mark.parametrize(
    ("where", "count"), [("draw", n) for n in range(4)] + [("replace", n) for n in range(6)] + [("fsync", 3)]
)
def test_a_killed_job_ends_with_the_same_bytes(tmp_path, where, count):
    command = [sys.executable, "-c", KILL, str(tmp_path / "killed"), where, str(count)]
    assert subprocess.run(command, cwd=REPOSITORY).returncode == -signal.SIGKILL
    second = Drawer()
    assert np.array_equal(stored(tmp_path / "killed", second), EXPECTED)
    done = {"draw": count, "replace": min(count, 4), "fsync": 1}[where]
    assert second.asked == ([list(SEEDS)[2 * done :]] if done < 4 else [])
    stored(tmp_path / "whole")
    names = [sample_path(tmp_path / folder, INPUTS) for folder in ("killed", "whole")]
    assert names[0].read_bytes() == names[1].read_bytes()
    assert {file.suffix for file in names[0].parent.iterdir()} <= {".npy", ".json", ".lock"}


def test_a_longer_partial_file_is_cut_to_its_note(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path, Drawer(2))
    with open(sample_path(tmp_path, INPUTS).with_suffix(".partial"), "ab") as file:
        file.write(b"half a batch")
    second = Drawer()
    assert np.array_equal(stored(tmp_path, second), EXPECTED) and second.asked == [[4, 5, 6]]


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["header", "pixel", "short", "gone", "note", "note's list", "other seeds"])
def test_a_damaged_partial_file_is_drawn_from_its_start(tmp_path, damage, capsys):
    with pytest.raises(KeyboardInterrupt):
        stored(tmp_path, Drawer(3), seeds=range(1, 8) if damage == "other seeds" else SEEDS)
    partial = sample_path(tmp_path, INPUTS).with_suffix(".partial")
    note = partial.with_suffix(".progress.json")
    if damage in ("header", "pixel"):
        flip(partial, 20 if damage == "header" else -1)
    elif damage == "short":
        os.truncate(partial, partial.stat().st_size - 1)
    elif damage == "gone":
        partial.unlink()
    elif damage.startswith("note"):
        note.write_text("{" if damage == "note" else "[]")
    second = Drawer()
    assert np.array_equal(stored(tmp_path, second), EXPECTED) and second.asked == [list(SEEDS)]
    assert "drawing from the start" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["pixel", "short", "long", "gone", "record", "record's list"])
def test_damaged_samples_are_drawn_again(tmp_path, damage, capsys):
    stored(tmp_path)
    path = sample_path(tmp_path, INPUTS)
    if damage == "pixel":
        flip(path, -100)
    elif damage in ("short", "long"):
        os.truncate(path, path.stat().st_size + (1 if damage == "long" else -1))
    elif damage == "gone":
        path.unlink()
    else:
        path.with_suffix(".json").write_text("{" if damage == "record" else "[]")
    again = Drawer()
    assert np.array_equal(stored(tmp_path, again), EXPECTED) and again.asked == [list(SEEDS)]
    told = capsys.readouterr().err
    assert f"samples {path.name} are damaged" in told and told.count("\n") == 1


def test_without_a_record_the_file_does_not_count(tmp_path):
    stored(tmp_path)
    path = sample_path(tmp_path, INPUTS)
    path.with_suffix(".json").unlink()
    flip(path, -1)
    assert np.array_equal(stored(tmp_path), EXPECTED)


# One process draws


def test_the_second_waits_and_draws_nothing(tmp_path, monkeypatch):
    """It looks again once it has the lock."""
    whole = stored(tmp_path / "whole")

    class Late:
        def __init__(self, path, what):
            self.inner = exclusive(path, what)

        def __enter__(self):
            stored(tmp_path / "samples")  # by another process, meanwhile
            return self.inner.__enter__()

        def __exit__(self, *error):
            return self.inner.__exit__(*error)

    first = sample_store.exclusive
    monkeypatch.setattr(
        sample_store, "exclusive", lambda *a: (monkeypatch.setattr(sample_store, "exclusive", first), Late(*a))[1]
    )
    second = Drawer()
    assert np.array_equal(stored(tmp_path / "samples", second), whole) and second.asked == []


def test_the_lock_is_held_while_it_draws(tmp_path):
    def draw(seeds):
        with pytest.raises(InputError, match="is in use by another process"), exclusive(lock, "it", wait=0):
            pass
        return Drawer()(seeds)

    lock = sample_path(tmp_path, INPUTS).with_suffix(".lock")
    assert np.array_equal(stored(tmp_path, draw), EXPECTED)


# Bad input


@pytest.mark.parametrize(
    ("batches", "line"),
    [
        ([EXPECTED[:3]], "draw gave 3 images for 7 seeds"),
        (
            [EXPECTED, EXPECTED[:1]],
            r"draw gave a batch of uint8 \(1, 3, 4, 5\); it must be uint8 \(n, 3, 4, 5\), n <= 0",
        ),
        ([EXPECTED[:0]], r"draw gave a batch of uint8 \(0, 3, 4, 5\)"),
        ([EXPECTED.astype(np.float32)], "draw gave a batch of float32"),
        ([EXPECTED[..., :4]], r"draw gave a batch of uint8 \(7, 3, 4, 4\)"),
        ([np.zeros(7, np.uint8)], r"draw gave a batch of uint8 \(7,\)"),
    ],
)
def test_what_draw_must_give(tmp_path, batches, line):
    with pytest.raises(InputError, match=line):
        stored(tmp_path, lambda seeds: batches)
    assert not sample_path(tmp_path, INPUTS).exists()


def test_inputs_that_do_not_tell_seeds_or_shapes_apart(tmp_path):
    stored(tmp_path)
    for settings in ({"seeds": range(1, 8)}, {"seeds": range(6)}, {"shape": (3, 5, 4)}):
        with pytest.raises(InputError, match="are stored for other seeds or another shape; tell them apart in inputs"):
            stored(tmp_path, **settings)
    assert np.array_equal(stored(tmp_path), EXPECTED)


def test_no_seeds(tmp_path):
    with pytest.raises(InputError, match="seeds is empty"):
        stored(tmp_path, seeds=[])


def test_a_disk_without_room(tmp_path):
    def never(seeds):
        raise AssertionError("it drew")

    with pytest.raises(InputError, match="need 64000000.0 GB and .* GB left"):
        stored(tmp_path, never, shape=(1_000_000, 1_000_000, 64_000), seeds=[0])
