"""The tools behind `make mutation` and `make coverage`: what a mutant is, what comes of a trial, what the page says."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
SURVIVORS = yaml.safe_load((ROOT / "tools" / "mutation_survivors.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def tools(monkeypatch):
    """tools/ on the path, as it is for a script of that folder."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))


def words(text):
    return " ".join(text.split())


@pytest.mark.parametrize("group", SURVIVORS, ids=lambda group: words(group["why"])[:40])
def test_what_is_explained_stands_in_the_file(group):
    source = words((ROOT / group["file"]).read_text(encoding="utf-8"))
    for one in group["mutants"]:
        assert one["line"] == words(one["line"]) and one["becomes"] != one["line"]
        assert one["line"] in source, f"{group['file']} has no longer: {one['line']}"


def test_the_operators_of_ours_do_what_they_say(tools):
    pytest.importorskip("cosmic_ray")
    from cosmic_ray.mutating import mutate_code
    from mutation_operators import OURS

    for operator in OURS:
        for example in operator.examples():
            mutated = mutate_code(example.pre_mutation_code, operator(), example.occurrence)
            assert mutated == example.post_mutation_code, operator.__name__


def test_mutants_are_programs_that_differ_and_name_their_line(tools):
    pytest.importorskip("cosmic_ray")
    from mutation_operators import mutants

    source = '"""Doc."""\n\n\ndef f(x, y="a"):\n    """Doc."""\n    g(x)\n    return (x + 1).h()  # x - 1\n'
    made = mutants("f.py", source)
    assert len({one.source for one in made}) == len(made) and source not in {one.source for one in made}
    changes = {(one.number, one.line, one.becomes, one.ours) for one in made}
    for wanted in (
        (4, 'def f(x, y="a"):', 'def f(x, y="XXa"):', True),
        (6, "g(x)", "pass", True),
        (6, "g(x)", "g()", True),
        (7, "return (x + 1).h() # x - 1", "return (x + 2).h() # x - 1", False),
        (7, "return (x + 1).h() # x - 1", "return (x - 1).h() # x - 1", False),
        (7, "return (x + 1).h() # x - 1", "return (x + 1) # x - 1", True),
    ):
        assert wanted in changes
    assert not any("XXDoc" in one.source for one in made)


TRIAL = """
import sys, json, dataclasses
sys.path[:0] = [sys.argv[1], "."]
from mutation_trial import run_tests
sources = [None, "def f(): return 2", "def f(): return 3 +", "import os; os.kill(os.getpid(), 9)"]
trials = [run_tests(["test_f.py"], 60, module="f", source=source) for source in sources]
trials.append(run_tests(["test_f.py"], 1, module="f", source="while True: pass"))
print(json.dumps([[trial.outcome, trial.failed, sorted(trial.seconds)] for trial in trials]))
try:
    run_tests(["no_such_file.py"], 60)
except RuntimeError as error:
    print("no_such_file.py" in str(error))
"""


def test_what_comes_of_a_trial(tmp_path):
    (tmp_path / "f.py").write_text("def f(): return 1\n")
    (tmp_path / "test_f.py").write_text("from f import f\ndef test_one(): assert f() == 1\ndef test_two(): f()\n")
    (tmp_path / "conftest.py").write_text("import hypothesis\nhypothesis.settings.register_profile('debiaslib')\n")
    command = [sys.executable, "-c", TRIAL, str(ROOT / "tools")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    trials, refused = map(json.loads, done.stdout.replace("True", "true").splitlines())
    one, two = "test_f.py::test_one", "test_f.py::test_two"
    assert trials == [
        ["passed", "", [one, two]],
        ["failed", one, [one]],
        ["not collected", "", []],
        ["died", "", []],
        ["timed out", "", []],
    ]
    assert refused is True
    assert (tmp_path / "f.py").read_text() == "def f(): return 1\n"


def test_a_part_of_the_page_is_replaced_between_its_marks(tools, tmp_path):
    from reliability_page import put

    page = tmp_path / "page.md"
    page.write_text("above\n<!-- a: begin -->\nold\n<!-- a: end -->\n<!-- b: begin -->\nkept\n<!-- b: end -->\n")
    put("a", r"new \1", page)
    assert page.read_text() == (
        "above\n<!-- a: begin -->\nnew \\1\n<!-- a: end -->\n<!-- b: begin -->\nkept\n<!-- b: end -->\n"
    )
    with pytest.raises(ValueError, match="c: begin"):
        put("c", "text", page)


def test_the_coverage_of_branches_is_counted_beside_that_of_lines(tools):
    pytest.importorskip("coverage")
    from coverage_table import figures, text

    whole = {"covered_lines": 90, "num_statements": 100, "covered_branches": 10, "num_branches": 20}
    bare = {"covered_lines": 3, "num_statements": 3, "covered_branches": 0, "num_branches": 0}
    assert figures(whole) == (90.0, 50.0, pytest.approx(250 / 3))
    assert figures(bare) == (100.0, 100.0, 100.0)
    report = {"totals": whole, "files": {"a.py": {"summary": bare}, "b.py": {"summary": whole}}}
    table = text(report, wanted=90)
    assert "| b.py | 90.0 | 50.0 | 83.3 |" in table and "a.py" not in table and "all of debiaslib" in table
