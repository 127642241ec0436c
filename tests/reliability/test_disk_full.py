"""On a full disk every writer keeps what was there, leaves no half file, and says in one line which file it was."""

import io
import shutil
import subprocess
import sys
import warnings
from contextlib import redirect_stderr
from pathlib import Path

import disk_writers
import nbformat
import numpy as np
import pytest
from small_disk import PAGE, Limit, Tmpfs, make_disk
from synthetic_results import write_synthetic_results
from writing_calls import PACKAGE, writing_calls

from debiaslib.cli import NOT_WRITTEN, run_command
from debiaslib.files import read_json
from debiaslib.metrics import minifaces_features
from debiaslib.metrics.feature_cache import fingerprint_of, reference_features
from debiaslib.metrics.features import load_extractor
from debiaslib.study import run_notebook as execution
from debiaslib.training.checkpoints import load_checkpoint
from debiaslib.training.config import TrainConfig
from debiaslib.training.loop import train
from debiaslib.training.run import find_run

SIZE = 24 << 20
WANTED = "the old kept, nothing half, one line that names it"
# Writing calls that do not stand within `with atomic_path`, and why that is right.
GIVEN = "writes to the temporary path of an atomic_path that its caller holds"
MEMORY = "writes to memory"
READS = "is no call of the system's open: it opens a data set"
OWN = "a file of its own kind, tried below"
KNOWN = {
    ("bias_measurements", "make", "to_csv"): GIVEN,
    ("control_measurements", "make", "to_csv"): GIVEN,
    ("measurements", "make", "to_csv"): GIVEN,
    ("sample_measurements", "make", "to_csv"): GIVEN,
    ("weight_measurements", "make", "to_csv"): GIVEN,
    ("tables", "save_arrays", "open wb"): GIVEN,
    ("tables", "save_arrays", "savez_compressed"): GIVEN,
    ("execution", "_execute", "execute_notebook"): GIVEN,
    ("execution", "main", "execute_notebook"): "our own of that name",
    ("execution", "execute_notebook", "replace"): "renames the whole file that atomic_path has written",
    ("features", "_inception_network", "save"): MEMORY,
    ("decoding", "decoder_hash", "save"): MEMORY,
    ("figure_style", "_repr_png_", "savefig"): MEMORY,
    ("rendering", "_as_jpeg", "save"): MEMORY,
    ("result_tables", "_write", "to_csv"): MEMORY,
    ("data", "_decoded", "open None"): READS,
    ("hub", "start", "open None"): READS,
    ("data", "_writing", "TemporaryFile"): "asks whether the folder can be written, and holds nothing",
    ("files", "atomic_path", "mkstemp"): "atomic_path itself",
    ("files", "atomic_path", "open rb+"): "atomic_path itself",
    ("files", "atomic_path", "replace"): "atomic_path itself",
    ("files", "_asked", "open ab"): "atomic_path itself",
    ("files", "write_npy", "open wb"): GIVEN,
    ("files", "fill_json", "write_text"): GIVEN,
    ("files", "exclusive", "write_text"): OWN,  # the owner of a lock
    ("engine", "run_engine", "open None"): OWN,  # engine.log
    ("engine", "run_engine", "Popen"): OWN,
    ("feature_weights", "fetch", "download_url_to_file"): OWN,  # atomic by torch.hub
    ("models", "export_pipeline", "save_pretrained"): OWN,
    ("models", "export_pipeline", "replace"): OWN,
    ("sample_store", "_write", "replace"): OWN,
    ("sample_store", "_write", "open r+b"): OWN,
    ("sample_store", "_resumed", "open r+b"): OWN,
    ("sample_store", "_new", "write_bytes"): OWN,
    ("training", "_log", "open a"): OWN,  # log.jsonl
}


def test_every_writing_call_is_atomic_or_known():
    found = {
        (path.stem, *call): atomic for path in PACKAGE.glob("*.py") for call, atomic in writing_calls(path).items()
    }
    assert {call for call, atomic in found.items() if not atomic} == set(KNOWN)
    assert sum(found.values()) >= 15  # the scan finds what stands within atomic_path too


def test_the_scan_finds_what_it_should(tmp_path):
    (tmp_path / "one.py").write_text(
        "def f(path, text):\n"
        "    path.write_text(text.replace('a', 'b'))\n"
        "    with atomic_path(path) as t:\n        t.write_bytes(b'')\n        torch.save(1, t)\n"
        "    with open(path), open(path, 'rb'), open(path, mode='w'), path.open('a'):\n        pass\n"
        "    os.replace(path, t)\n    table.rename(columns={}).copy()\n"
    )
    assert writing_calls(tmp_path / "one.py") == {
        ("f", "write_text"): False, ("f", "write_bytes"): True, ("f", "save"): True, ("f", "open w"): False,
        ("f", "open a"): False, ("f", "replace"): False}  # fmt: skip


@pytest.fixture(scope="module", params=[Tmpfs, Limit], ids=lambda kind: kind.name)
def disk(request, tmp_path_factory):
    """A disk that can be made full."""
    made = make_disk(request.param, tmp_path_factory.mktemp("disk") / "small", SIZE)
    if made is None:
        pytest.skip("no right to mount a tmpfs")
    yield made
    made.close()


def contents(folder):
    """{path: bytes} of all files but locks."""
    paths = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith((".lock", ".owner"))]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def outcome(call):
    """(exit status, stderr) of a call run as a command is."""
    said = io.StringIO()
    with redirect_stderr(said), pytest.raises(SystemExit) as caught:
        run_command(call)
    return caught.value.code, said.getvalue()


def one_line_of(said, status):
    """The line, after what every failure has in common is asserted."""
    assert said.startswith("error: ") and said.endswith("\n") and said.count("\n") == 1, said
    line = said.removeprefix("error: ").rstrip("\n")
    assert len(line) <= 200, line
    if status == NOT_WRITTEN:
        assert "could not be written: the disk is full" in line or "a file may not grow that large" in line, line
    else:
        assert status == 2 and ("No space left" in line or "File too large" in line or "GB left" in line), line
    return line


@pytest.mark.parametrize("name", disk_writers.SHORT)
def test_a_full_disk_keeps_the_old_and_leaves_no_half(name, disk, reached, monkeypatch, tmp_path):
    tried = try_writer(name, disk, monkeypatch, tmp_path)
    reached(6, f"{name} on a full disk ({disk.name})", WANTED, f"so with each of {tried} amounts of room left")


@pytest.mark.slow
@pytest.mark.parametrize("name", disk_writers.LONG)
def test_a_full_disk_and_a_longer_writer(name, disk, reached, monkeypatch, tmp_path):
    if "report" in name and disk.name != "tmpfs":
        pytest.skip("takes long, and writes through write_text, which is tried above")
    tried = try_writer(name, disk, monkeypatch, tmp_path)
    reached(6, f"{name} on a full disk ({disk.name})", WANTED, f"so with each of {tried} amounts of room left")


def try_writer(name, disk, monkeypatch, tmp_path):
    """Write; write something else with too little room, in several amounts; then with room. Returns how many amounts.

    The same is done with room enough in another folder: that says what there is to be, and how much room it needs.
    """

    def begin(folder, given):
        monkeypatch.setenv("DEBIASLIB_CACHE", str(folder / "cache"))
        monkeypatch.setenv("TESTED_WEIGHTS", str(folder))
        writer = disk_writers.WRITERS[name](folder, given)
        writer.write(1)
        before = contents(folder)
        writer.change()
        return writer, before

    elsewhere, folder = tmp_path / "elsewhere" / "x", disk.folder / name.replace(" ", "-") / "x"
    writer, before = begin(elsewhere, tmp_path / "given")
    changed = contents(elsewhere)
    writer.write(2)
    wanted = contents(elsewhere)
    largest = max((len(data) for path, data in wanted.items() if changed.get(path) != data), default=0)
    writer, before = begin(folder, tmp_path / "given")
    changed, states = contents(folder), []
    rooms = rooms_below(largest, disk, writer.note_follows)
    for room in rooms:
        with disk.full(room):
            status, said = outcome(lambda: writer.write(2))
        line = one_line_of(said, status)
        assert any(part in line for part in names(wanted)), line
        states.append({path: data for path, data in contents(folder).items() if not path.endswith(writer.grows or "/")})
    writer.write(2)
    after = contents(folder)
    assert [disk_writers.plain(*file) for file in after.items()] != [
        disk_writers.plain(*file) for file in before.items()
    ]
    for state in states:
        assert (
            state == changed
            if writer.whole
            else all(data in (changed.get(p), after.get(p)) for p, data in state.items())
        )
    if writer.named:  # two folders of it differ: compare with what is written there again
        writer.write(2)
        wanted = contents(folder)
    assert {p: disk_writers.plain(p, data) for p, data in after.items()} == {
        p: disk_writers.plain(p, data) for p, data in wanted.items()}  # fmt: skip
    return len(rooms)


def rooms_below(size, disk, note_follows):
    """Amounts of room, in bytes, that a file of `size` bytes does not fit in, or its note beside it."""
    if disk.name == "RLIMIT_FSIZE":
        return sorted({0, size // 2, max(0, size - 1)})
    pages = -(-size // PAGE)
    return [
        PAGE * number for number in sorted({0, pages // 2, max(0, pages - 1), pages * note_follows} - {pages or -1})
    ] + [PAGE * pages] * note_follows


def names(folder):
    """What a line may name: a file of these, or one that is there while they are made, or the folder of a cache."""
    return [
        *(Path(path).name[-20:] for path in folder),
        ".owner",
        ".partial",
        ".progress.json",
        "/pipeline",
        "the cache folder",
        "images of",
    ]


# A training: which file it is that does not fit is left to the room, and the same call completes the run


TRAINING = {**disk_writers.TINY, "dataset": "minifaces", "lr": 2e-3, "images": 40, "snapshots": [16], "ema_decay": 0.8}


def trained(results, checkpoint_seconds):
    config = TrainConfig(weighting="debiased", **TRAINING)
    return train(config, results, "test", progress=False, checkpoint_seconds=checkpoint_seconds)


def left_of(run):
    """What a complete run leaves, without times."""
    state = load_checkpoint(run.folder / "checkpoints")[1]
    log = [{key: value for key, value in row.items() if "second" not in key} for row in run.log()]
    weights = {path.name: path.read_bytes() for path in sorted(run.folder.glob("*.safetensors"))}
    return str(log), weights, {name: tensor.tolist() for name, tensor in state["network"].items()}


def train_with_rooms(disk, uninterrupted, rooms, checkpoint_seconds):
    """Kinds of the files that did not fit, and how many trainings stopped, each of which then completed to the bit."""
    refused, stopped = set(), 0
    for room in rooms:
        results = disk.folder / f"room {room}"
        run = find_run("test", "debiased", 0, results)
        with disk.full(room):
            status, said = outcome(lambda results=results: trained(results, checkpoint_seconds) and None)
        if status:
            refused.add(kind_of(one_line_of(said, status)))
            stopped += 1
            assert run.record is None
            assert [p for p in run.folder.rglob(".*") if ".lock" not in p.name] == []
            assert all(read_json(path) for path in run.folder.rglob("*.json"))
            step, state = load_checkpoint(run.folder / "checkpoints")
            assert (state is None) == (step == 0)
        assert left_of(trained(results, checkpoint_seconds)) == uninterrupted, room
        shutil.rmtree(results)
    return refused, stopped


def kind_of(line):
    """The file that a line names, by kind."""
    names = ("config.json", "log.jsonl", "ema-", "raw-", "record.json", ".lock.owner", "step-")
    found = [name for name in names if name in line]
    assert len(found) == 1, line
    return found[0] if found[0] != "step-" else ("step-n.json" if ".json'" in line else "step-n.pt")


def test_a_training_on_a_full_disk(disk, reached, tmp_path):
    rooms = [0, 20_000, 200_000] if disk.name == "tmpfs" else [0, 1000, 50_000]
    refused, stopped = train_with_rooms(disk, left_of(trained(tmp_path, 0)), rooms, 0)
    assert stopped == len(rooms) and len(refused) > 1
    reached(
        6, f"a training on a full disk ({disk.name})", "one line, then completes to the bit", f"{stopped} of {stopped}"
    )


@pytest.mark.slow
def test_a_training_on_a_disk_of_every_size(disk, reached, tmp_path):
    if disk.name != "tmpfs":
        pytest.skip("needs a disk that fills up")
    run = trained(tmp_path, 1e9)
    needed = sum(-(-path.stat().st_size // PAGE) for path in run.folder.rglob("*") if path.is_file())
    uninterrupted, refused, stopped = left_of(run), set(), 0
    at_the_end = [*range(6), *range(6, needed - 6, 4), *range(needed - 6, needed + 2)]
    for rooms, seconds in ((at_the_end, 1e9), (range(20, 3 * needed, 16), 0)):  # one checkpoint, and one each step
        found = train_with_rooms(disk, uninterrupted, [PAGE * pages for pages in rooms], seconds)
        refused, stopped = refused | found[0], stopped + found[1]
    assert refused == {
        "config.json",
        "log.jsonl",
        "ema-",
        "raw-",
        "record.json",
        ".lock.owner",
        "step-n.pt",
        "step-n.json",
    }
    assert stopped >= 40
    reached(6, f"a training stopped by a full disk ({disk.name})", "each completes to the bit",
            f"{stopped} of {stopped}, at {len(refused)} kinds of files: {', '.join(sorted(refused))}")  # fmt: skip


# Others


def test_features_that_cannot_be_kept_are_a_warning(disk, reached):
    images = np.random.default_rng(0).integers(0, 256, (400, 3, 16, 16), dtype=np.uint8)
    extractor, folder = load_extractor("pooled"), disk.folder / "features"
    folder.mkdir()
    rooms = [0, 100_000]
    for room in rooms:
        with disk.full(room), pytest.warns(UserWarning, match="not cached: .*(No space left|File too large)") as told:
            features = reference_features(images, extractor, fingerprint_of(images), cache=folder)
        assert len(told) == 1 and "\n" not in str(told[0].message) and list(folder.iterdir()) == []
        assert np.array_equal(features, extractor.features(images))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(reference_features(images, extractor, fingerprint_of(images), cache=folder), features)
    assert len(list(folder.iterdir())) == 2
    reached(6, f"the cache of features on a full disk ({disk.name})", "a warning, right features, nothing half",
            f"{len(rooms)} of {len(rooms)}")  # fmt: skip


def test_a_log_on_the_full_disk_is_no_second_error(disk, tmp_path):
    """A worker's stderr is a file, too: where its line does not fit, the exit status still says so."""
    code = "from debiaslib.cli import run_command\nfrom debiaslib.files import write_text\nimport sys\n"
    code += "run_command(lambda: write_text(sys.argv[1], 'x' * 100_000))\n"
    if disk.name != "tmpfs":
        pytest.skip("the limit holds for this process")
    log = disk.folder / "worker.log"
    with open(log, "w") as file, disk.full():
        done = subprocess.run([sys.executable, "-c", code, disk.folder / "page.html"], stderr=file, cwd=PACKAGE.parent)
    assert done.returncode in (NOT_WRITTEN, 120)  # 120 is Python's own, of what it could not flush at its end
    assert not (disk.folder / "page.html").exists()


@pytest.mark.slow
def test_the_weights_of_a_feature_network(disk, capsys):
    path = disk.folder / "minifaces.safetensors"
    path.write_bytes(b"old")
    with disk.full(8192), pytest.raises(SystemExit) as caught:
        minifaces_features.main(["--out", str(path), "--images", "256"])
    assert caught.value.code == 1 and path.read_bytes() == b"old"
    assert [p.name for p in disk.folder.iterdir() if "minifaces." in p.name] == [path.name]


NOTEBOOK = "import base64, os\nprint(base64.encodebytes(os.urandom(300_000)).decode())"


@pytest.mark.slow
def test_an_executed_notebook(disk, reached, tmp_path, monkeypatch):
    if disk.name != "tmpfs":
        pytest.skip("the limit would hold for the kernel's files, too")
    source = tmp_path / "01_test.ipynb"
    cells = [nbformat.v4.new_code_cell("experiment = dataset = results = ''", metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("print(1)")]  # fmt: skip
    monkeypatch.setattr(execution, "notebook_files", lambda: {"01_test": source})
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), source)
    target = execution.execute_notebook("01_test", disk_writers.SMOKE, "", disk.folder)
    before, rooms = contents(target.parent), [0, 20_000, 200_000]
    cells[1] = nbformat.v4.new_code_cell(NOTEBOOK)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=metadata), source)
    for room in rooms:
        with disk.full(room):
            call = lambda: execution.execute_notebook("01_test", disk_writers.SMOKE, "", disk.folder) and None  # noqa: E731
            status, said = outcome(call)
        assert status == NOT_WRITTEN and "01_test" in one_line_of(said, status)
        assert contents(target.parent) == before
    execution.execute_notebook("01_test", disk_writers.SMOKE, "", disk.folder)
    assert len(target.read_bytes()) > 300_000
    reached(6, f"an executed notebook on a full disk ({disk.name})", WANTED, f"{len(rooms)} of {len(rooms)}")


@pytest.mark.slow
def test_commands_leave_with_74(disk, reached):
    if disk.name != "tmpfs":
        pytest.skip("the limit holds for this process")
    folder = write_synthetic_results(disk.folder / "tiny")
    (folder / "figures").mkdir()
    commands = [["figures", "--results", folder], ["compare", "--results", folder, "--expected", folder],
                ["training", "--experiment", disk_writers.SMOKE, "--weighting", "debiased", "--results", disk.folder],
                ["measurements", "weights", "--experiment", disk_writers.SMOKE, "--results", disk.folder]]  # fmt: skip
    for name, *given in commands:
        with disk.full():
            done = subprocess.run([sys.executable, "-m", f"debiaslib.{name}", *map(str, given)], cwd=PACKAGE.parent,
                                  capture_output=True, text=True)  # fmt: skip
        assert done.returncode == NOT_WRITTEN, done.stderr
        one_line_of("error: " + done.stderr.rpartition("error: ")[2], NOT_WRITTEN)
    reached(6, f"commands on a full disk ({disk.name})", "exit status 74", f"{len(commands)} of {len(commands)}")
