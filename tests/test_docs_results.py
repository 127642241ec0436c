"""The pages that say what was found: their tables are those of the published results, their numbers can be checked."""

import re
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from docs import verdicts

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.parametrize("page", verdicts.PAGES)
def test_the_tables_are_those_of_the_published_results(page):
    """`python docs/verdicts.py` writes them again."""
    text = (DOCS / page).read_text(encoding="utf-8")
    assert verdicts.with_tables(text) == text
    assert verdicts.MARKS.search(text)[3].count("\n|") > 1


def test_the_papers_numbers_are_the_digitised_ones():
    assert (
        verdicts.paper_says("Better samples than P2 (1, 1) in 5 steps.") == "FID at 20 steps 29.35 against 34.3: 0.86"
    )
    assert (
        verdicts.paper_says("Better samples than constant in 100 steps.") == "FID at 100 steps 10.8 against 15.7: 0.69"
    )
    assert "10.41" in verdicts.paper_says("It trains faster.")


def test_every_claim_has_what_the_paper_says():
    """Of all chapters, those of other experiments too."""
    source = (DOCS.parent / "debiaslib/report/verdicts.py").read_text(encoding="utf-8")
    claims = re.findall(r'(?<!")"([A-Z][^"\n]*\.)"(?!")', source)  # its texts that begin and end as a sentence does
    assert len(claims) > 12
    for claim in claims:
        claim = claim.replace("{_name(other)} in {count}", "P2 (1, 1) in 5").replace("{where}", "large")
        assert verdicts.paper_says(claim), claim


def test_a_number_of_the_readme_is_checked_as_the_page_for_reviewers_says(monkeypatch, capsys):
    monkeypatch.chdir(DOCS.parent)
    [block] = re.findall(r"```python\n(.*?)```", (DOCS / "reviewers.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(re.sub(r"^ {3}", "", block, flags=re.MULTILINE), {})
    said = capsys.readouterr().out.strip()
    assert f"is {said} of *constant*'s distance" in (DOCS.parent / "README.md").read_text(encoding="utf-8")


def test_the_animation_moves_and_is_small():
    path = DOCS / "figures/sampling.png"
    assert path.stat().st_size < 1_000_000
    with Image.open(path) as image:
        assert image.n_frames > 20 and image.size[0] <= 640


def test_no_published_experiment_is_left_out():
    published = {path.parts[-3] for path in verdicts.PUBLISHED.glob("*/tables/verdicts.csv")}
    text = (DOCS / "verdicts.md").read_text(encoding="utf-8")
    assert published == set(re.findall(r"^## (\S+)$", text, re.MULTILINE))
    assert sum(len(pd.read_csv(path)) for path in verdicts.PUBLISHED.glob("*/tables/verdicts.csv")) == len(
        re.findall(r"^\| \d \|", text, re.MULTILINE)
    )
