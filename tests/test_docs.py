"""The pages of docs/: their code runs, their numbers and tables are computed anew, their links lead somewhere."""

import importlib.util
import inspect
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from diffusers.training_utils import compute_density_for_timestep_sampling, compute_loss_weighting_for_sd3

from debiaslib.diffusion.schedule import Schedule
from debiaslib.diffusion.weighting import loss_weight
from debiaslib.metrics.statistics import paired_ratio
from debiaslib.report.results_read import ResultTables
from debiaslib.report.verdicts import interval_text
from docs import flow_weights, trainers
from docs.site.build import _finding
from docs.site.docstrings import to_html

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}


def blocks(page):
    return re.findall(r"```python\n(.*?)```", PAGES[page], flags=re.DOTALL)


def example(name="train_unconditional"):
    spec = importlib.util.spec_from_file_location(name, DOCS / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["../README.md", *PAGES])
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", (DOCS / page).read_text(encoding="utf-8")):
        assert link.startswith("https://") or ((DOCS / page).parent / link.partition("#")[0]).exists(), link


# loss_weight.md


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_lines_of_the_page(kind):
    noise_scheduler = DDPMScheduler(prediction_type=kind)
    clean, noise, output = torch.randn(3, 8, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    timesteps = torch.arange(0, 1000, 125)
    names = {
        "F": torch.nn.functional, "device": "cpu", "kind": kind, "noise_scheduler": noise_scheduler, "noise": noise,
        "clean_images": clean, "model_output": output, "timesteps": timesteps,
        "betas": noise_scheduler.betas, "torch": torch,
    }  # fmt: skip
    usual, before, within, by_table = blocks("loss_weight.md")
    for block in (usual, before, within):
        exec(block, names)

    snr = Schedule.linear().snr
    weight = {"epsilon": snr.rsqrt(), "v_prediction": snr.sqrt() / (1 + snr), "sample": snr.sqrt()}[kind]
    target = {"epsilon": noise, "sample": clean}.get(kind, noise_scheduler.get_velocity(clean, noise, timesteps))
    error = (output - target).square().mean(dim=(1, 2, 3))
    wanted = (weight[timesteps] * error).mean() / weight.mean()
    assert float(names["loss"]) == pytest.approx(float(wanted), rel=1e-5)

    exec(by_table, names)
    weight = snr.sqrt() / (1 + snr)
    assert torch.allclose(names["weight"].double(), weight / weight.mean(), rtol=1e-3)


def test_the_numbers_of_the_page():
    cosine = Schedule.cosine()
    raw, bounded = loss_weight("debiased", cosine), loss_weight("debiased", cosine, max_weight=20)
    means = [loss_weight("debiased", schedule).mean() for schedule in (Schedule.linear(), Schedule.scaled_linear())]
    shared = loss_weight("debiased", Schedule.linear(), "v_prediction", normalize="epsilon").mean()
    numbers = [f"{mean:.1f}" for mean in means] + [f"{shared:.4f}", f"{100 * bounded[-1] / bounded.sum():.1f} %"]
    assert [one for one in (*numbers, f"{100 * raw[-1] / raw.sum():.0f} %") if one not in PAGES["loss_weight.md"]] == []


# examples/train_unconditional.py


def test_the_example_runs():
    _, weight, losses = example().main(steps=3, batch_size=4, normalize=False, prediction_type="v_prediction")
    assert len(losses) == 3 and torch.tensor(losses).isfinite().all()
    snr = Schedule.linear().snr
    assert torch.allclose(weight.cpu(), (snr.sqrt() / (1 + snr)).float(), rtol=1e-3)


def test_the_example_learns():
    images = example().disks(64, resolution=8)
    assert images.shape == (64, 3, 8, 8) and images.abs().max() <= 1
    _, weight, losses = example().main(images, steps=60, batch_size=8)
    assert float(weight.mean()) == pytest.approx(1, rel=1e-5)
    assert sum(losses[-15:]) < 0.5 * sum(losses[:15])


# flow_matching.md


def test_the_flow_matching_example():
    """It learns; its weight is sigma (1 - sigma) in the scheduler's own order, of mean 1."""
    _, weight, losses = example("train_flow_matching").main(steps=120)
    sigma = FlowMatchEulerDiscreteScheduler().sigmas
    assert torch.allclose(weight, 6 * sigma * (1 - sigma), atol=1e-4)
    assert sum(losses[-30:]) < 0.8 * sum(losses[:30])


def test_the_lines_of_the_flow_matching_page():
    noise_scheduler, indices = FlowMatchEulerDiscreteScheduler(), torch.tensor([0, 500, 900])
    x0, noise, model_pred = torch.randn(3, 3, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    names = {"noise_scheduler": noise_scheduler, "indices": indices, "x0": x0, "noise": noise, "model_pred": model_pred}
    names["device"] = "cpu"
    names["sigma"] = noise_scheduler.sigmas[indices].double().view(-1, 1, 1, 1)
    before, within, drawn, batch = blocks("flow_matching.md")
    sigma = noise_scheduler.sigmas[indices]
    error = (model_pred - noise + x0).square().mean(dim=(1, 2, 3))
    for block in (before + within, drawn):
        exec(block, names)
        assert float(names.pop("loss")) == pytest.approx(float((6 * sigma * (1 - sigma) * error).mean()), rel=1e-3)
    exec(batch, names)
    assert torch.allclose(names["weight"].float(), torch.minimum((1 - sigma) ** 2, 5 * sigma**2))


def test_the_objectives_of_the_flow_matching_page():
    """Its table, and diffusers' own weights and densities."""
    marks = r"<!-- table: python docs/flow_weights.py -->\n(.*?)<!-- end -->"
    assert re.search(marks, PAGES["flow_matching.md"], re.DOTALL).group(1).strip() == flow_weights.table()
    sigma = flow_weights.grid()
    for name in ("sigma_sqrt", "cosmap"):
        theirs = compute_loss_weighting_for_sd3(name, sigma)
        assert torch.allclose(flow_weights.attention(name, sigma).float(), theirs.float())
    generator = torch.Generator().manual_seed(0)
    drawn = compute_density_for_timestep_sampling("logit_normal", 100_000, 0.0, 1.0, generator=generator).double()
    log_snr = 2 * ((1 - drawn) / drawn).log()
    assert log_snr.std() == pytest.approx(2.0, rel=0.02)
    sharpest = flow_weights.attention("sigma_sqrt", sigma)
    assert f"{sharpest[0] / sharpest.sum():.0%}" == "61%" and "61 % of its weight" in PAGES["flow_matching.md"]


# trainers.md


def test_the_table_of_the_page():
    marks = r"<!-- table: python docs/trainers.py -->\n(.*?)<!-- end -->"
    shown = re.search(marks, PAGES["trainers.md"], re.DOTALL)
    schedules = {trainers.TITLES[name]: make() for name, make in trainers.SCHEDULES.items()}
    assert shown.group(1).strip() == trainers.markdown_table(schedules).strip()


def test_the_code_of_the_page(monkeypatch):
    monkeypatch.syspath_prepend(DOCS)  # the page's reader is in that folder
    names = {}
    (block,) = blocks("trainers.md")
    exec(block, names)
    schedule = names["schedule"]
    assert torch.allclose(names["theirs"] * names["correction"], names["paper"])
    assert torch.allclose(names["ratio"] * names["correction"], torch.ones(1000, dtype=torch.float64))
    assert names["rows"] == trainers.comparison_table(schedule)


# README.md

README = (DOCS.parent / "README.md").read_text(encoding="utf-8")


def test_the_readmes_commands_exist():
    targets = re.findall(r"^([a-z-]+):", (DOCS.parent / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {"reproduce", "test"} <= set(re.findall(r"\bmake ([a-z-]+)", README)) <= set(targets)
    for module in set(re.findall(r"python -m (debiaslib[\w.]*)", README)):
        assert importlib.util.find_spec(module), module


def test_the_sites_start_page_has_what_the_readme_found():
    found = _finding()
    assert "At 32x32 the same network cannot answer" in found and "## Read" not in found
    assert found.count("\n\n| ") == 3  # each of the three tables begins after an empty line


def test_the_readmes_numbers_are_those_of_the_published_tables():
    """Each ratio with its interval (the tables have a test of their own); the gate of the rates."""
    published = DOCS.parent / "results/reference"
    prose = "\n".join(line for line in README.splitlines() if not line.startswith("|")) + PAGES["findings.md"]
    interval = r"[\d.]+ \[[\d., ]+\]"
    tables = README[README.index("<!-- table finding") : README.rindex("<!-- end -->")]
    there = set(re.findall(interval, tables + PAGES["retest.md"]))  # their tables are computed
    for tables in (published / name / "tables" for name in ("quick-seeds", "cifar10-16", "cifar10-32", "gaussian")):
        answers = pd.read_csv(tables / "retest.csv")
        there |= {interval_text((row.ratio, row.low, row.high)) for row in answers.itertuples()}
        there |= set(re.findall(interval, (tables / "verdicts.csv").read_text(encoding="utf-8")))
    for name in ("controls", "network-wider", "network-transformer", "network-no-skip"):
        ratios = pd.read_csv(published / name / "tables/controls.csv")
        there |= {interval_text((row.ratio, row.low, row.high)) for row in ratios.itertuples()}
    of_constant = [(name, steps, "constant") for name in ("controls", "network-transformer") for steps in (5, 20)]
    of_constant += [("controls", 20, "constant; lr=0.001"), ("network-wider", 20, "constant")]
    of_constant += [("cifar10-16", 50, "constant"), ("quick-seeds", 50, "constant")]
    for name, steps, arm in of_constant:
        level = ResultTables(published / name).distances("layout_energy", steps, arm).mean()
        assert re.search(rf"\b{level:.3g}\b", prose), (name, steps, arm, level)
    natural = ResultTables(published / "cifar10-16")
    constant = natural.distances("fd_pooled", 50, "constant")
    ours = (natural.distances("fd_pooled", 50, arm) for arm in ("debiased", "constant; prediction_type=v_prediction"))
    pooled = [paired_ratio(values, constant) for values in ours]
    swap = pd.read_csv(published / "cifar10-16/tables/oracle_swap.csv").query("metric == 'colour_energy'")
    swap = swap[swap.below == "constant"].pivot(index="seed", columns="above", values="value")
    swapped = paired_ratio(swap.optimum, swap.constant)
    there |= {interval_text(interval) for interval in (*pooled, swapped)}
    early = natural.judged[(natural.judged.images_seen == 75_008) & (natural.judged.metric == "fd_cifar10")]
    constant = natural.judged.query(
        "metric == 'fd_cifar10' and steps == 10 and weighting == 'constant' and variant == ''"
    )
    constant = constant.pivot(index="images_seen", columns="seed", values="value")
    quarter, half = constant.loc[75_008, [3, 4]], constant.loc[150_000]
    said = f"{quarter[3]:,.0f} and {quarter[4]:,.0f} by 10 steps); at 150,000 they were near the others "
    said += f"({half[3]:.1f} and {half[4]:.1f} beside {half[[0, 1, 2, 5]].min():.1f} to {half[[0, 1, 2, 5]].max():.1f})"
    p2 = natural.judged.query("metric == 'fd_cifar10' and steps == 10 and weighting == 'p2(k=1,gamma=1)'")
    p2 = p2.pivot(index="images_seen", columns="seed", values="value")
    many = natural.distances("fd_cifar10", 50, "p2(k=1,gamma=1)")
    at_end = [
        f"{end[5]:.1f} by {steps} steps, beside {end.drop(5).min():.1f} to {end.drop(5).max():.1f}"
        for steps, end in ((10, p2.loc[300_000]), (50, many))
    ]
    of_p2 = f"P2's seed 5 had collapsed too ({p2.loc[75_008, 5]:,.0f} after 75,008 images, "
    of_p2 += (
        f"{p2.loc[150_000, 5]:.1f} after 150,000); at the end it has P2's largest `fd_cifar10` ({'; '.join(at_end)})"
    )
    assert said in PAGES["retest.md"] and of_p2 in PAGES["retest.md"]
    gate = pd.read_csv(published / "cifar10-32/tables/gate.csv").query("t == 600")
    low, high = (f"{bound:.2f}" for bound in ((gate.error / gate.optimum).min(), (gate.error / gate.optimum).max()))
    assert not gate.passes.any() and f"their errors are {low} to {high} times the optimum's" in prose
    collapsed = early[early.value > 2000].groupby(["weighting", "variant"]).seed.nunique()
    assert collapsed.to_dict() == {("constant", ""): 2, ("p2(k=1,gamma=1)", ""): 1}  # and none of any other arm
    said = re.findall(interval, prose)
    assert len(said) > 5 and set(said) <= there, set(said) - there
    gate = pd.read_csv(published / "quick-seeds-tuned/tables/gate.csv")
    failed = gate.groupby(["arm", "seed"]).passes.all().groupby("arm").agg(lambda passes: (~passes).sum())
    assert failed.to_dict() == {"constant": 0, "debiased": 2, "min_snr(gamma=5)": 0, "p2(k=1,gamma=1)": 2}
    assert prose.count("2 of 6") == 2


def test_the_site_shows_docstrings_as_paragraphs_arguments_and_formulas():
    text = """Draw `x` where a < b:

        x = a + b     (eq. 1)

    The rest of
    the paragraph.

    steps, seeds: how many; none
        is zero.
    t: an int.
        a     first
    n: one.
    Raises InputError for none."""
    assert to_html(inspect.cleandoc(text).split("\n")).split("\n") == [
        "<p>Draw <code>x</code> where a &lt; b:</p>",
        '<pre class="docstring">x = a + b     (eq. 1)</pre>',
        "<p>The rest of the paragraph.</p>",
        '<p class="argument"><b>steps, seeds</b>: how many; none is zero.</p>',
        '<p class="argument"><b>t</b>: an int.</p>',
        '<pre class="docstring">a     first</pre>',
        '<p class="argument"><b>n</b>: one.</p>',
        "<p>Raises InputError for none.</p>",
    ]
