"""The store: a file that counts is the one that was asked for, whatever was killed, flipped, full or concurrent."""

import json
import multiprocessing
import os
import random
import signal
import sys
import time

import numpy as np
import pytest
from small_disk import PAGE, Limit, Tmpfs, make_disk

from debiaslib.errors import InputError
from debiaslib.files import exclusive, sha256_file, write_npy
from debiaslib.store import check_file, note_of, problem_of, save_with_note, stored

INPUTS = {"runs": {"debiased-s0": "ab"}, "t": (0, 5)}
FORK = multiprocessing.get_context("fork")


class Maker:
    """Writes `text` and counts how often it was asked to."""

    def __init__(self, text="made\n"):
        self.text, self.calls = text, 0

    def __call__(self, path):
        self.calls += 1
        path.write_text(self.text)


def is_current(path, inputs, note=None):
    """Whether `stored` would not make it again."""
    return problem_of(path, inputs, note or note_of(path)) is None


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tables" / "some.csv"


@pytest.fixture
def without_waiting_for_the_disk(monkeypatch):
    """Nothing loses its power here, and thousands of files are written."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def entries(folder):
    """Names in a folder, without locks."""
    return sorted(entry.name for entry in folder.iterdir() if not entry.name.endswith(".lock"))


# What counts


def test_a_file_is_made_once(path):
    make = Maker()
    assert stored(path, INPUTS, make) == path and path.read_text() == "made\n"
    before = path.stat().st_mtime_ns
    same = {"t": [0, 5], "runs": {"debiased-s0": "ab"}}  # as JSON has it
    assert is_current(path, same) and stored(path, same, make) == path
    assert make.calls == 1 and path.stat().st_mtime_ns == before
    assert entries(path.parent) == ["some.csv", "some.csv.json"]


def test_the_note_beside_it(path):
    stored(path, INPUTS, Maker(), facts=lambda: {"device": "cpu"})
    said = json.loads(path.with_name("some.csv.json").read_text())
    assert said["inputs"] == {"runs": {"debiased-s0": "ab"}, "t": [0, 5]} and said["sha256"] == sha256_file(path)
    assert {"key", "seconds"} <= set(said) and said["device"] == "cpu"
    other = path.with_suffix(".note")
    stored(path.with_name("b"), INPUTS, Maker(), note=other)
    assert is_current(path.with_name("b"), INPUTS, other) and not is_current(path.with_name("b"), INPUTS)


@pytest.mark.parametrize("inputs", [{}, {**INPUTS, "t": [0, 6]}, {**INPUTS, "n": 5}, {"runs": {}, "t": [0, 5]}])
def test_other_inputs_make_it_again(path, inputs):
    stored(path, INPUTS, Maker())
    make = Maker("other\n")
    for _ in range(2):
        assert stored(path, inputs, make).read_text() == "other\n"
    assert make.calls == 1 and not is_current(path, INPUTS)


@pytest.mark.parametrize("damage", ["changed", "cut", "gone", "no note", "note of another", "note is a list"])
def test_a_damaged_file_is_made_again_with_a_line(path, damage, capsys):
    stored(path, INPUTS, Maker())
    note = note_of(path)
    {
        "changed": lambda: path.write_text("mede\n"),
        "cut": lambda: path.write_text("ma"),
        "gone": path.unlink,
        "no note": note.unlink,
        "note of another": lambda: note.write_text(json.dumps({**json.loads(note.read_text()), "sha256": "0" * 64})),
        "note is a list": lambda: note.write_text("[]"),
    }[damage]()
    make = Maker()
    for _ in range(2):
        assert stored(path, INPUTS, make).read_text() == "made\n" and make.calls == 1
    said = capsys.readouterr().err
    wanted = "some.csv is damaged: its sha256 is not the recorded one; making it again\n"
    assert said == (wanted if damage in ("changed", "cut", "note of another") else "")


def test_a_failure_leaves_the_old_file_and_a_later_call_makes_the_new(path):
    stored(path, INPUTS, Maker())

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        stored(path, {}, fail)
    assert path.read_text() == "made\n" and entries(path.parent) == ["some.csv", "some.csv.json"]
    stored(path, INPUTS, fail)  # the old one still counts for its own inputs
    assert stored(path, {}, Maker("new\n")).read_text() == "new\n"


def test_a_check_of_a_file_without_inputs(path):
    save_with_note(path, Maker())
    assert check_file(path) == sha256_file(path)
    path.write_text("mede\n")
    with pytest.raises(InputError, match="some.csv is damaged: its sha256 is not the recorded one"):
        check_file(path)
    note_of(path).unlink()
    assert check_file(path) == sha256_file(path)  # nobody has recorded another


# Flipped bits and cut ends


@pytest.mark.usefixtures("without_waiting_for_the_disk")
def test_every_flipped_bit_and_cut_of_the_file_is_found(path, capsys):
    make = Maker("t,value\n0,0.25\n")
    whole, calls = stored(path, INPUTS, make).read_bytes(), 1
    for damaged in damages(whole):
        path.write_bytes(damaged)
        assert not is_current(path, INPUTS)
        assert stored(path, INPUTS, make).read_bytes() == whole and make.calls == calls + 1
        calls += 1
    assert capsys.readouterr().err.count("making it again") == calls - 1 > 100


@pytest.mark.usefixtures("without_waiting_for_the_disk")
def test_no_damage_of_the_note_passes_another_file(path):
    """A flipped bit in a time or a key decides nothing; in the inputs or the sha256 it makes the file again."""
    make = Maker()
    stored(path, INPUTS, make)
    whole, remade = note_of(path).read_bytes(), 0
    decisive = json.loads(whole)["inputs"], json.loads(whole)["sha256"]
    for damaged in damages(whole, step=7):
        note_of(path).write_bytes(damaged)
        if is_current(path, INPUTS):
            said = json.loads(damaged)
            assert (said["inputs"], said["sha256"]) == decisive
            continue
        calls, remade = make.calls, remade + 1
        assert stored(path, INPUTS, make).read_text() == "made\n" and make.calls == calls + 1
    assert remade > 200


def damages(content, step=1):
    """`content` with each single bit flipped, and cut to each length; of these each `step`-th."""
    for number in range(0, 8 * len(content), step):
        flipped = bytearray(content)
        flipped[number // 8] ^= 1 << number % 8
        yield bytes(flipped)
    for length in range(0, len(content), step):
        yield content[:length]


# Kills


def text_of(number):
    """What the file holds for {"n": number}: some blocks."""
    return f"{number}\n" * 20_000


def write_slowly(path, number):
    with open(path, "w") as file:
        for start in range(0, 20_000, 1000):
            file.write(text_of(number)[2 * start : 2 * start + 2000])
            file.flush()


def make_over_and_over(path, seconds):
    """Until so much of the processor's time is used, which does not depend on what else the machine does."""
    signal.setitimer(signal.ITIMER_PROF, seconds)  # its signal ends the process, as nobody handles it
    for number in range(10**6):
        stored(path, {"n": number % 3}, lambda temporary, n=number % 3: write_slowly(temporary, n))


@pytest.mark.usefixtures("without_waiting_for_the_disk")
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 10))])
def test_killed_at_random_moments_it_is_whole_or_made_again(path, seed):
    draw = random.Random(seed)
    counted = 0
    for _ in range(25):
        maker = FORK.Process(target=make_over_and_over, args=(path, draw.uniform(0.001, 0.06)))
        maker.start()
        maker.join(60)
        assert maker.exitcode == -signal.SIGPROF
        for number in range(3):
            if is_current(path, {"n": number}):
                assert path.read_text() == text_of(number)
                counted += 1
    assert counted  # some were whole
    wanted = draw.randrange(3)
    assert stored(path, {"n": wanted}, Maker(text_of(wanted))).read_text() == text_of(wanted)
    stored(path, {"n": "another"}, Maker())
    assert entries(path.parent) == ["some.csv", "some.csv.json"]  # nothing is left of the killed


# Several processes


def ask(path, made, go, seconds):
    def make(temporary):
        with open(made, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(seconds)
        temporary.write_text("slow")

    go.wait()
    assert stored(path, INPUTS, make).read_text() == "slow"


def start_together(count, *arguments):
    go = FORK.Event()
    processes = [FORK.Process(target=ask, args=(*arguments, go, 0.3)) for _ in range(count)]
    for process in processes:
        process.start()
    go.set()
    return processes


def wait_for(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def test_eight_processes_have_one_maker(path, tmp_path):
    processes = start_together(8, path, tmp_path / "made")
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0] * 8
    assert len((tmp_path / "made").read_text().split()) == 1


def test_the_next_takes_over_from_a_killed_maker(path, tmp_path):
    made = tmp_path / "made"
    processes = start_together(8, path, made)
    maker = int(wait_for(lambda: made.exists() and made.read_text()))
    os.kill(maker, signal.SIGKILL)
    for process in processes:
        process.join(30)
    assert sorted(process.exitcode for process in processes) == [-signal.SIGKILL] + [0] * 7
    assert len(made.read_text().split()) == 2 and entries(path.parent) == ["some.csv", "some.csv.json"]


def store_saying_into(file, *arguments):
    with open(file, "w", buffering=1) as sys.stderr:
        stored(*arguments)


def test_who_waits_says_for_what(path, tmp_path):
    said = tmp_path / "said"
    with exclusive(path.with_name(".some.csv.lock"), str(path)):
        waiting = FORK.Process(target=store_saying_into, args=(said, path, INPUTS, Maker()))
        waiting.start()
        wait_for(lambda: said.exists() and "waiting for another process, which has" in said.read_text())
    waiting.join(20)
    assert waiting.exitcode == 0 and str(path) in said.read_text() and is_current(path, INPUTS)


# A full disk


@pytest.fixture(params=[Tmpfs, Limit])
def disk(request, tmp_path):
    disk = make_disk(request.param, tmp_path / "disk", 1 << 20)
    if disk is None:
        pytest.skip("no file system may be mounted here")
    yield disk
    disk.close()


def save_with_torch(path):
    import torch

    torch.save({"w": torch.zeros(20_000)}, path)


def save_with_safetensors(path):
    from safetensors.numpy import save_file

    save_file({"w": np.zeros(20_000)}, path)


def save_with_pandas(path):
    import pandas as pd

    pd.DataFrame({"value": np.zeros(20_000)}).to_csv(path)


WRITERS = {
    "text": lambda path: path.write_text("x" * 80_000),
    "npy": lambda path: write_npy(path, np.zeros(10_000)),
    "pandas": save_with_pandas,
    "torch": save_with_torch,
    "safetensors": save_with_safetensors,
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_full_disk_is_an_error_that_names_the_file_and_keeps_the_old(disk, name):
    path = disk.folder / "some.csv"
    stored(path, INPUTS, Maker())
    write = WRITERS[name]
    for free in (0, PAGE, 4 * PAGE, 15 * PAGE):
        with disk.full(free), pytest.raises(Exception) as error:
            stored(path, {"n": free}, write)
        if isinstance(disk, Tmpfs) or name in ("text", "npy", "pandas"):  # the others do not say EFBIG
            assert isinstance(error.value, OSError) and error.value.filename == str(path)
        assert entries(disk.folder) == ["some.csv", "some.csv.json"]
        assert is_current(path, INPUTS) and path.read_text() == "made\n"
    stored(path, {"n": 1}, write)  # with room
    assert is_current(path, {"n": 1})
