"""The pages that say what was found: their tables are those of the published results, their numbers can be checked."""

import re
from pathlib import Path

import pytest

from docs import verdicts

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.parametrize("page", verdicts.PAGES)
def test_the_tables_are_those_of_the_published_results(page):
    """`python docs/verdicts.py` writes them again."""
    text = (DOCS / page).read_text(encoding="utf-8")
    assert verdicts.with_tables(text) == text
    assert verdicts.MARKS.search(text)[3].count("\n|") > 1


def test_a_number_of_the_readme_is_checked_as_the_page_for_reviewers_says(monkeypatch, capsys):
    monkeypatch.chdir(DOCS.parent)
    [block] = re.findall(r"```python\n(.*?)```", (DOCS / "reviewers.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(re.sub(r"^ {3}", "", block, flags=re.MULTILINE), {})
    said = capsys.readouterr().out.strip()
    assert f"from the optimum, t = 900 | {said} |" in (DOCS.parent / "README.md").read_text(encoding="utf-8")


def test_no_published_experiment_is_left_out():
    published = {path.parts[-3] for path in verdicts.PUBLISHED.glob("*/tables/verdicts.csv")}
    text = (DOCS / "verdicts.md").read_text(encoding="utf-8")
    assert published == set(re.findall(r"^## (\S+)$", text, re.MULTILINE))
