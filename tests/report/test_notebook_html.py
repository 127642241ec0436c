"""A rendered notebook is one page with nothing to load: formulas are MathML, pictures are in it, scripts are not."""

import base64
import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

from debiaslib.errors import InputError
from debiaslib.report.mathml import hide_formulas, show_formulas, to_mathml, with_formulas
from debiaslib.report.notebook_html import PAGE_LIMIT, loaded_addresses, make_page, render_notebook

FORMULAS = [
    r"\hat{x}_0=\frac{x_t-\sqrt{1-\bar\alpha_t}\,\hat\epsilon}{\sqrt{\bar\alpha_t}}",
    r"\mathbb{E}\left\|\epsilon-\hat\epsilon\right\|_2^2",
    r"\epsilon\sim\mathcal N(0,\mathbf I)",
    r"\begin{aligned}a&=b\\&\quad+c\end{aligned}",
    r"\begin{cases}1&t<5\\2&\text{else}\end{cases}",
    r"\operatorname{Var}(x_0\mid x_t),\ \arg\min_w \mathcal{L}",
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
    return new_code_cell(
        source, execution_count=1, outputs=[new_output("display_data", data={"image/png": png, "text/plain": "F"})]
    )


@pytest.fixture
def render(tmp_path):
    def rendered(*cells):
        return render_notebook(write_notebook(tmp_path / "quick" / "notebooks" / "01_first.ipynb", list(cells)))

    return rendered


@pytest.mark.parametrize("tex", FORMULAS)
def test_a_formula(tex):
    for display in (False, True):
        element = ElementTree.fromstring(to_mathml(tex, display).replace("alttext", "xmlns:x='x' alttext"))
        assert element.tag == "math" and element.get("alttext") == tex
        assert element.get("display") == ("block" if display else "inline")
        text = "".join(element.itertext())
        assert text and "\\" not in text and "&" not in text


@pytest.mark.parametrize(
    "tex", [r"\foo{x}", r"\frac{a}", r"\frac{a", "a}", r"x_{", r"\left( a", "a & b", r"\begin{align}", r"\text{50 \%}"]
)
def test_a_formula_that_cannot_be_converted(tex):
    with pytest.raises(InputError) as caught:
        to_mathml(tex)
    assert repr(tex) in str(caught.value) and "\n" not in str(caught.value)


def test_formulas_are_not_in_code_and_prices_are_no_formulas():
    text = "Costs $5 or $6, or \\$7: `$a$` and ``b ` $c$``, $x$.\n\n"
    text += "```python\nprice = '$d$' + '$e$'\n```\n\n~~~\n$f$\n~~~\n$$y$$"
    found = []
    hidden = hide_formulas(text, found)
    assert [re.search('alttext="(.*?)"', one)[1] for one in found if one != "$"] == ["x", "y"]
    shown = show_formulas(hidden, found)
    assert "Costs $5 or $6, or $7: `$a$` and ``b ` $c$``, <math" in shown
    assert "'$d$' + '$e$'" in shown and "~~~\n$f$\n~~~" in shown


def test_a_formula_in_plain_text():
    assert with_formulas("a < b, $x<1$, 5 $").startswith("a &lt; b, <math")
    assert with_formulas("a & 5 $") == "a &amp; 5 $"


def test_a_lost_formula_is_an_error():
    with pytest.raises(InputError, match="lost"):
        show_formulas("nothing", [to_mathml("x")])


def test_a_page(render):
    page = render(
        new_markdown_cell(
            "# The $t$ of it\n\nA *word*, $x_t$.\n\n$$\\frac{a}{b}$$\n\n| a | $|b|$ |\n|--|--|\n| `$c$` | 1 |"
        ),
        new_code_cell(
            "x = 1  # one", execution_count=1, outputs=[new_output("stream", text="9 %\r99 %\r100 %\nend\n")]
        ),
    )
    assert loaded_addresses(page) == []
    assert page.count("<math") == 4 and 'display="block"' in page and "<code>$c$</code>" in page
    assert "FORMULA" not in page and "http" not in re.sub('http-equiv="', "", page)
    assert "100 %\nend" in page and "99 %" not in page
    assert "viewport" in page and "prefers-color-scheme: dark" in page and "default-src 'none'" in page
    assert '<span class="mi">1</span>' in page and "In [1]" not in page
    assert re.search(r"<h1[^>]*>The <math", page) and "anchor-link" not in page
    assert len(page) < 20_000


def test_the_formula_at_fault_is_named_with_its_cell(render):
    with pytest.raises(InputError, match=r"01_first.ipynb, cell 1: .*\\\\foo"):
        render(new_markdown_cell("# A"), new_markdown_cell("see $\\foo$"))


def test_links(render):
    page = render(new_markdown_cell(
        "[a](02_next.ipynb) [b](./03_more.ipynb#here) [c](https://arxiv.org/abs/2310.08442) [d](../README.md) [e](#top)"
    ))  # fmt: skip
    assert re.findall('href="([^"]*)"', page) == [
        "02_next.html",
        "03_more.html#here",
        "https://arxiv.org/abs/2310.08442",
        "#top",
    ]
    assert " d " in page


def test_figures_have_text_and_caption(tmp_path, render):
    (tmp_path / "quick" / "figures").mkdir(parents=True)
    note = {"title": "A <ratio>", "caption": "Ratio $x$ & more."}
    (tmp_path / "quick" / "figures" / "snr.json").write_text(json.dumps(note))
    page = render(figure_cell('figures.draw("snr", study.folder)', picture()), figure_cell("plot()", picture()))
    assert 'alt="A &lt;ratio&gt;"' in page and 'alt="figure"' in page
    assert re.search(r'<p class="caption">Ratio <math.*?</math> &amp; more\.</p>', page, re.DOTALL)
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 2


def test_the_record_is_shown(tmp_path, render):
    assert 'class="record"' not in render(new_markdown_cell("# A"))
    record = {
        "seconds": 12.5,
        "commit": "0123456789abcdef",
        "clean": False,
        "packages": {"torch": "2.10.0", "numpy": None},
    }
    path = tmp_path / "quick" / "notebooks" / "01_first.json"
    path.write_text(json.dumps({**record, "parameters": {"experiment": "/some/where/tiny.yaml"}}))
    page = render(new_markdown_cell("# A"))
    line = re.search('<p class="record">(.*?)</p>', page)[1]
    assert line.startswith("Experiment tiny · executed in 12.5 s · commit 0123456789ab, with changes · torch 2.10.0")
    assert 'href="../report.html"' in line and "/some/where" not in page


def test_scripts_in_outputs_are_left_out(render):
    bad = {
        "text/html": "<style>p{}</style><table class=dataframe><tr><td>7</table><script src='https://x.org/a.js'></script>"
    }
    bad |= {"application/javascript": "alert(1)", "application/vnd.jupyter.widget-view+json": {"model_id": "1"}}
    page = render(new_code_cell("x", execution_count=1, outputs=[new_output("display_data", data=bad)]))
    assert loaded_addresses(page) == [] and "script" not in page and "alert" not in page and "<td>7" in page


@pytest.mark.parametrize(
    "text",
    [
        "![picture](https://x.org/a.png)",
        "![picture](figures/a.png)",
        "<iframe src='https://x.org'></iframe>",
        "<script>alert(1)</script>",
        "<link rel=stylesheet href='https://x.org/a.css'>",
        "<p style=\"background: url('https://x.org/a.png')\">a</p>",
        "<style>@import 'a.css';</style>",
        "<p onclick='alert(1)'>a</p>",
        '<a href="file:///etc/passwd" class=x>a</a><a href="javascript:alert(1)">b</a><img src=/a.png>',
    ],
)
def test_what_would_be_loaded_is_an_error(render, text):
    with pytest.raises(InputError, match="01_first.ipynb is not self-contained"):
        render(new_markdown_cell(text))


def test_large_pictures_become_lighter_and_too_large_a_page_is_an_error(render):
    noise = [figure_cell("plot()", picture((700, 700), seed)) for seed in range(4)]
    page = render(noise[0])  # 1.96 MB as PNG
    assert "data:image/jpeg" in page and len(page.encode()) <= PAGE_LIMIT and loaded_addresses(page) == []
    with pytest.raises(InputError, match=r"01_first.ipynb has \d\.\d\d MB; it may have 1.5 MB"):
        render(*noise)
    assert "data:image/png" in make_page("A", f'<img src="data:image/png;base64,{picture()}" alt="a">', "a")


def test_what_is_no_notebook(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        render_notebook(tmp_path / "01.ipynb")
    (tmp_path / "01.ipynb").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        render_notebook(tmp_path / "01.ipynb")


def test_the_command(tmp_path):
    path = write_notebook(tmp_path / "a.ipynb", [new_markdown_cell("# Title\n\n$x$")])
    command = [sys.executable, "-m", "debiaslib.report.notebook_html", str(path), str(tmp_path / "a.html")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "<title>Title</title>" in (tmp_path / "a.html").read_text(encoding="utf-8")
    done = subprocess.run([*command[:-2], "absent.ipynb", "b.html"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
