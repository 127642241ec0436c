"""The site of `make site`: it builds, loads nothing from elsewhere, and a browser shows it, on a phone too."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sphinx")
pytest.importorskip("myst_nb")
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(not BROWSER, reason="needs Chromium")]
ROOT = Path(__file__).resolve().parent.parent
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files"]  # fmt: skip
# Put into a page: it moves the sliders and writes what it finds into the page, which --dump-dom then prints.
PROBE = """<script>
const found = { errors: [] };
addEventListener("error", (event) => found.errors.push(String(event.message || event.target.src)), true);
console.error = (...said) => found.errors.push(said.join(" "));
addEventListener("load", () => {
  const text = (id) => document.getElementById(id) && document.getElementById(id).textContent;
  const move = (id, value) => {
    const input = document.getElementById(id);
    if (input) { input.value = value; input.dispatchEvent(new Event("input")); }
  };
  found.debiased = text("gamma-numbers");
  move("gamma", 0); found.constant = text("gamma-numbers");
  const pixels = () => [...document.querySelectorAll(".estimates canvas")].map((one) => one.toDataURL()).join("");
  found.t = text("t-widget"); const before = pixels();
  move("timestep", 0); found.moved = before !== pixels(); found.canvases = document.querySelectorAll("canvas").length;
  found.loaded = performance.getEntriesByType("resource").map((one) => one.name);
  found.overflow = document.documentElement.scrollWidth - innerWidth;
  found.width = innerWidth;
  found.formulas = [...document.querySelectorAll("math")].map((one) => one.getBoundingClientRect())
    .map((box) => Math.min(box.width, box.height));
  const said = document.createElement("pre");
  said.id = "probe"; said.textContent = JSON.stringify(found); document.body.append(said);
});
</script>"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site with images for the widget over t."""
    folder = tmp_path_factory.mktemp("site")
    tables = folder / "results" / "quick" / "tables"
    tables.mkdir(parents=True)
    (folder / "results" / "reference").symlink_to(ROOT / "results" / "reference")
    x0, x_t, x0_hat = np.zeros((2, 3, 4, 4)), np.ones((3, 2, 3, 4, 4)), np.zeros((3, 3, 2, 3, 4, 4))
    x0_hat += np.linspace(-1, 1, 3).reshape(1, 3, 1, 1, 1, 1)
    names = np.array(["constant", "debiased", "optimum"])
    np.savez(tables / "one_step.npz", t=np.array([50, 500, 900]), names=names, x0=x0, x_t=x_t, x0_hat=x0_hat)
    command = [sys.executable, ROOT / "docs/site/build.py", "--results", folder / "results", "--out", folder / "out"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr, done.stderr
    return folder / "out"


def visit(site, page, width, tmp_path):
    """What the probe finds in a page that is shown in a frame of that width."""
    copy = site / f"probe-{page}"
    copy.write_text((site / page).read_text(encoding="utf-8").replace("<head>", "<head>" + PROBE, 1), encoding="utf-8")
    # A window has a least width, which a frame has not.
    size = f"--window-size={max(width, 600)},1200"
    flags = [*FLAGS, f"--user-data-dir={tmp_path}/profile", size, "--virtual-time-budget=5000"]
    frame = site / "probe-frame.html"
    frame.write_text(
        f'<!doctype html><body style="margin:0">'
        f'<iframe src="{copy.name}" style="width:{width}px;height:1200px;border:0">'
        '</iframe><pre id="answer"></pre><script>document.querySelector("iframe").onload = (event) => {'
        'document.getElementById("answer").textContent = '
        'event.target.contentDocument.getElementById("probe").textContent;};</script>',
        encoding="utf-8",
    )
    done = subprocess.run([BROWSER, *flags, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=300)
    copy.unlink()
    answer = re.search(r'<pre id="answer">(.*?)</pre>', done.stdout, re.DOTALL)
    assert answer and answer[1], done.stderr
    return json.loads(answer[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("page", ["index.html", "03_mse_step_curves.html", "widgets.html"])
def test_a_browser_shows_it(site, page, width, tmp_path):
    found = visit(site, page, width, tmp_path)
    assert found["errors"] == []
    assert found["width"] == width
    assert all(address.startswith("file:") for address in found["loaded"])
    assert found["overflow"] <= 0, "the page is wider than the window"
    assert page == "index.html" or len(found["formulas"]) > 3
    assert all(side > 3 for side in found["formulas"])
    if page == "widgets.html":
        # 499 of 1000 timesteps lie above 500
        assert "49.9 %" in found["constant"] and "1000 of 1000" in found["constant"]
        assert found["debiased"] == expected_numbers(0.5)
        assert "t = 500" in found["t"]
        assert found["moved"] and found["canvases"] == 10


def test_no_page_is_wider_than_a_phone(site, tmp_path):
    """All pages, one after the other in one frame of one browser."""
    pages = sorted(path.name for path in site.glob("*.html") if not path.name.startswith("probe"))
    frame = site / "probe-widths.html"
    frame.write_text(
        '<!doctype html><body><iframe style="width:390px;height:1200px;border:0"></iframe><pre id="answer"></pre>'
        f"""<script>
        const pages = {json.dumps(pages)}, wide = [], frame = document.querySelector("iframe");
        let at = -1;
        const next = () => {{
          if (at >= 0 && frame.contentDocument.documentElement.scrollWidth > 390) wide.push(pages[at]);
          at += 1;
          if (at < pages.length) frame.src = pages[at];
          else document.getElementById("answer").textContent = JSON.stringify({{ seen: at, wide }});
        }};
        frame.onload = next;
        next();
        </script>""",
        encoding="utf-8",
    )
    flags = [*FLAGS, f"--user-data-dir={tmp_path}/profile", "--window-size=600,1200", "--virtual-time-budget=60000"]
    done = subprocess.run([BROWSER, *flags, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=600)
    frame.unlink()
    answer = re.search(r'<pre id="answer">(.*?)</pre>', done.stdout, re.DOTALL)
    assert answer and json.loads(answer[1]) == {"seen": len(pages), "wide": []}, done.stderr


def expected_numbers(gamma):
    alpha_bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    weight = (alpha_bar / (1 - alpha_bar)) ** -gamma
    share, size = weight[501:].sum() / weight.sum(), weight.sum() ** 2 / (weight**2).sum()
    return (
        f"Share of the weight above t = 500: {100 * share:.1f} %. "
        f"Effective sample size: {size:.0f} of 1000 timesteps ({size / 10:.1f} %)."
    )


def test_every_page_is_there(site):
    pages = {path.stem for path in site.glob("*.html")}
    assert {path.stem for path in ROOT.glob("notebooks/*.ipynb")} <= pages
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= pages
    assert {"figure_gallery", "widgets", "api", "search"} <= pages
    import debiaslib

    api = (site / "api.html").read_text(encoding="utf-8")
    assert [name for name in debiaslib.__all__ if f'id="debiaslib.{name}"' not in api and name not in api] == []
    assert "$" not in re.sub(r"(?s)<(pre|code|script|math).*?</\1>", "", (site / "index.html").read_text())
