"""A rendered notebook is one page with nothing to load: formulas are MathML, pictures are in it, scripts are not."""

import base64
import io
import json
import re
import xml.etree.ElementTree as ElementTree

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from debiaslib.errors import InputError
from debiaslib.paths import notebook_files
from debiaslib.report.notebook_html import caption_of, markdown_to_html, render_notebook, to_mathml

FORMULAS = [
    r"\hat{x}_0=\frac{x_t-\sqrt{1-\bar\alpha_t}\,\hat\epsilon}{\sqrt{\bar\alpha_t}}",
    r"\mathbb{E}\left\|\epsilon-\hat\epsilon\right\|_2^2",
    r"\begin{cases}1&t<5\\2&\text{else}\end{cases}",
    r"\{1,\dots,T\}",
]


def picture(size=(8, 8), seed=None):
    """A PNG in base64: white, or noise, which cannot be compressed."""
    pixels = np.full((*size, 3), 255) if seed is None else np.random.default_rng(seed).integers(0, 256, (*size, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def write_notebook(path, cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=cells), path)
    return path


def figure_cell(source, png):
    data = {"image/png": png, "text/plain": "F"}
    return new_code_cell(source, execution_count=1, outputs=[new_output("display_data", data=data)])


@pytest.fixture
def render(tmp_path):
    def rendered(*cells):
        return render_notebook(write_notebook(tmp_path / "quick" / "notebooks" / "01_first.ipynb", list(cells)))

    return rendered


def loads(page):
    """The addresses that a page would load something from, and elements that do."""
    sources = re.findall(r'\s(?:src|srcset|poster|data|background)="([^"]*)"', page)
    return [address for address in sources if not address.startswith("data:image/")] + re.findall(
        r"<(?:script|link|iframe|object|embed)\b|@import|url\(", page
    )


@pytest.mark.parametrize("tex", FORMULAS)
def test_a_formula(tex):
    for display in (False, True):
        element = ElementTree.fromstring(to_mathml(tex, display).replace("alttext", "xmlns:x='x' alttext"))
        assert element.tag == "math" and element.get("alttext") == tex
        assert element.get("display") == ("block" if display else "inline")
        text = "".join(element.itertext())
        assert text and "\\" not in text and "&" not in text


def test_a_sign_stands_close_to_its_number_and_a_difference_does_not():
    assert to_mathml("[-1, +1]").count('form="prefix"') == 2
    assert "prefix" not in to_mathml("(a) - b")


def test_a_formula_that_cannot_be_converted_is_named():
    with pytest.raises(InputError) as caught:
        to_mathml(r"\left( a")
    assert repr(r"\left( a") in str(caught.value) and "\n" not in str(caught.value)


def test_formulas_are_not_in_code_and_text_is_escaped():
    page = markdown_to_html("a < b, `$a$`, $x<1$.\n\n```python\nprice = '$d$'\n```\n\n$$y$$")
    assert page.count("<math") == 2 and "<code>$a$</code>" in page and "$d$" in page and "a &lt; b" in page


def test_a_page(render):
    page = render(
        new_markdown_cell(
            "# The $t$ of it\n\nA *word*, $x_t$.\n\n$$\\frac{a}{b}$$\n\n| a | b |\n|--|--|\n| `$c$` | 1 |"
        ),
        new_code_cell(
            "x = 1  # one", execution_count=1, outputs=[new_output("stream", text="9 %\r99 %\r100 %\nend\n")]
        ),
    )
    assert loads(page) == [] and "default-src 'none'" in page[: page.index("<title>")]
    assert page.count("<math") == 3 and 'display="block"' in page and "<code>$c$</code>" in page
    assert "http:" not in page and "100 %\nend" in page and "99 %" not in page
    assert "prefers-color-scheme: dark" in page and '<span class="mi">1</span>' in page and "In [1]" not in page
    assert re.search(r"<h1[^>]*>The <math", page) and "anchor-link" not in page and len(page) < 20_000


@pytest.mark.parametrize("name", notebook_files())
def test_our_notebooks_are_pages_with_nothing_to_load(name):
    page = render_notebook(notebook_files()[name])
    assert loads(page) == [] and page.count("<math") > 10 and "$" not in re.sub('alttext="[^"]*"', "", page)
    for formula in re.findall("<math.*?</math>", page, re.DOTALL):  # a command that latex2mathml does not know is left
        assert not {"\\", "&amp;", "{"} & set("".join(re.findall(">([^<]*)<", formula))), formula
    for link in re.findall('href="([^"#]*)', page):
        assert link.startswith("https://") or link.removesuffix(".html") in notebook_files(), link


def test_links_to_notebooks_lead_to_pages(render):
    page = render(new_markdown_cell(
        "[a](02_next.ipynb) [b](./03_more.ipynb#here) [c](https://arxiv.org/abs/2310.08442) [e](#top)"
    ))  # fmt: skip
    there = ["02_next.html", "03_more.html#here", "https://arxiv.org/abs/2310.08442", "#top"]
    assert re.findall('href="([^"]*)"', page) == there


def test_figures_have_text_and_caption(tmp_path, render):
    (tmp_path / "quick" / "figures").mkdir(parents=True)
    note = {"title": "A <ratio>", "caption": "Ratio $x$ & more."}
    (tmp_path / "quick" / "figures" / "snr.json").write_text(json.dumps(note))
    drawn = figure_cell('figures.draw("snr", study.folder)', picture())
    file = tmp_path / "quick" / "figures" / "snr.png"
    file.write_bytes(b"another picture")  # drawn again since, perhaps of another run
    assert "A &lt;ratio&gt;" not in render(drawn)
    file.write_bytes(base64.b64decode(drawn.outputs[0].data["image/png"]))
    page = render(drawn, figure_cell("plot()", picture()))
    assert 'alt="A &lt;ratio&gt;"' in page and 'alt="figure"' in page
    assert re.search(r"Ratio <math.*?</math> &amp; more\.", page, re.DOTALL)
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 2 and loads(page) == []


def test_the_record_is_shown(tmp_path, render):
    assert "no commit known" in render(new_markdown_cell("# A"))
    record = {"seconds": 12.5, "commit": "0123456789abcdef", "clean": False}
    record["parameters"] = {"experiment": "tiny.yaml"}
    (tmp_path / "quick" / "notebooks" / "01_first.json").write_text(json.dumps(record))
    line = re.search('<p class="record">(.*?)</p>', render(new_markdown_cell("# A")))[1]
    assert line == "Experiment tiny · executed in 12.5 s · commit 0123456789ab, with changes"


def test_what_is_no_notebook(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        render_notebook(tmp_path / "01.ipynb")
    (tmp_path / "01.ipynb").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        render_notebook(tmp_path / "01.ipynb")


@pytest.mark.parametrize("title, wanted", [("A bias?", "*A bias?* Text."), ("A bias", "*A bias.* Text.")])
def test_a_title_that_is_a_question_has_no_stop_after_it(title, wanted):
    assert caption_of({"title": title, "caption": "Text."}) == wanted
