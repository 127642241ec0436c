"""The benchmark of trainings side by side: its table, and one real measurement."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.packing import table

ROOT = Path(__file__).resolve().parent.parent


def test_the_table():
    lines = table({1: [100.0], 2: [80.0, 70.5]}).splitlines()
    assert lines[2:] == ["| 1 | 100 | 100 | 1.00 |", "| 2 | 80 70 | 150 | 1.50 |"]
    assert table({2: [50.0, 50.0], 4: [50.0] * 4}).endswith("| 200 | 4.00 |")  # per training of the smallest


@pytest.mark.slow
def test_two_at_once():
    command = [
        sys.executable,
        "-m",
        "benchmarks.packing",
        "--experiment",
        "quick",
        "--processes",
        "2",
        "--seconds",
        "5",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0 and done.stdout.startswith("quick, float32 on cpu, batches of 64"), done.stderr
    assert done.stdout.splitlines()[4].startswith("| 2 | ")


def test_a_training_that_ends_is_one_line():
    command = [
        sys.executable,
        "-m",
        "benchmarks.packing",
        "--experiment",
        "quick",
        "--dataset",
        "no/such",
        "--processes",
        "1",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: a training ended before it was measured: error: ")
