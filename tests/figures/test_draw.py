"""Every registered figure is drawn from synthetic tables, saved with the same bytes twice, and named with its data."""

import shutil

import numpy as np
import pandas as pd
import pytest
from synthetic_results import SEEN, WEIGHTINGS, write_synthetic_results

from debiaslib.diffusion.strategies import KNOWN, parse_strategy
from debiaslib.errors import InputError
from debiaslib.figures import draw as figures
from debiaslib.files import read_json, sha256_file
from debiaslib.study.saved_tables import Tables, parse_run

NAMES = {"snr", "one_step_anatomy", "samples_by_steps", "one_step_estimates", "colour_error", "mse_epsilon", "mse_x0",
         "excess", "mse_heldout", "signed_bias", "bias_or_variance", "bias_spectrum", "weights", "weight_share",
         "weights_units", "weights_logsnr", "gradient_noise", "samples_all", "training_curves", "training_samples",
         "distance_by_steps", "distance_by_images", "colour_by_steps", "colour_spread", "precision_recall",
         "learning_rates", "control_ratios", "paper_fid"}  # fmt: skip


def _plotted(name, folder):
    """The figure without the saving, which takes most of the time."""
    spec = figures.FIGURES[name]
    arguments, facts = spec.load(Tables(folder))
    assert "{" not in spec.caption.format(**facts)
    figure = spec.plot(**arguments)
    figure.draw_without_rendering()
    return figure


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return write_synthetic_results(tmp_path_factory.mktemp("results") / "quick")


@pytest.fixture(scope="module")
def all_drawn(quick):
    """The bytes of every saved figure, drawn by the command line."""
    assert figures.main(["--results", str(quick)]) == 0
    return {path.name: path.read_bytes() for path in (quick / "figures").iterdir()}


@pytest.fixture(scope="module")
def three_seeds(tmp_path_factory):
    weightings = [*WEIGHTINGS, "min_snr(gamma=1)"]
    return write_synthetic_results(tmp_path_factory.mktemp("results") / "seeds", (0, 1, 2), weightings, resolution=32)


def test_the_names_are_the_agreed_ones(quick):
    assert set(figures.FIGURES) == NAMES == set(figures.available(quick))


@pytest.mark.parametrize("name", sorted(NAMES))
def test_a_figure_is_saved_with_the_same_bytes_twice_and_names_its_data(name, quick, all_drawn):
    paths = [quick / "figures" / f"{name}{suffix}" for suffix in (".png", ".pdf", ".json")]
    first = [all_drawn[path.name] for path in paths]
    figure = figures.draw(name, quick)
    assert [path.read_bytes() for path in paths] == first
    assert b"CreationDate" not in first[1]
    record = read_json(paths[2])
    assert record["caption"] == figures.caption(name, quick) and "\n" not in record["caption"]
    assert record["title"] and record["notebook"].startswith("0")
    for entry in record["data"]:
        if "reference" not in entry["file"]:
            assert entry["sha256"] == sha256_file(quick / entry["file"])
    assert record["data"] and str(quick) not in paths[2].read_text()
    assert figure.get_figwidth() <= 9.05


@pytest.mark.parametrize(
    "name", sorted(NAMES - {"paper_fid", "snr", "weights", "weight_share", "weights_units", "gradient_noise"})
)
def test_three_seeds_and_five_weightings(name, three_seeds):
    _plotted(name, three_seeds)


def test_with_seeds_a_line_is_their_mean_and_there_are_bands(three_seeds):
    axes = _plotted("distance_by_steps", three_seeds).axes[0]
    line = next(line for line in axes.get_lines() if line.get_label() == "debiased")
    table = pd.concat([pd.read_csv(path) for path in three_seeds.glob("tables/distances-debiased-*.csv")])
    rows = table[(table.metric == "fd_minifaces") & (table.images_seen == SEEN[-1]) & (table.steps == 5)]
    assert line.get_ydata()[0] == pytest.approx(np.exp(np.log(rows["value"]).mean()))
    assert len(axes.collections) == 5
    assert "mean over 3 training seeds" in figures.caption("distance_by_steps", three_seeds)


def test_one_weighting_without_held_out_or_real_images(tmp_path):
    folder = write_synthetic_results(tmp_path / "small", (3,), ("max_snr",), heldout=False, real=False)
    for name in NAMES - {"paper_fid"}:
        figure = _plotted(name, folder)
        if name == "mse_heldout":
            assert "no held-out images" in figure.axes[0].texts[0].get_text()
    assert "No real images" in figures.caption("distance_by_steps", folder)


def test_without_the_optimum_and_without_snapshots(tmp_path):
    folder = write_synthetic_results(tmp_path / "small", weightings=("constant", "debiased"))
    table = pd.read_csv(folder / "tables/mse.csv")
    kept = table[(table.model != "optimum") & ~table.quantity.isin(["excess", "colour_excess"])]
    kept.to_csv(folder / "tables/mse.csv", index=False)
    for path in folder.glob("tables/distances-*-s0.csv"):
        table = pd.read_csv(path)
        table[table.images_seen == SEEN[-1]].to_csv(path, index=False)
    assert "not measured" in _plotted("excess", folder).axes[0].texts[0].get_text()
    assert "Not measured" in _plotted("distance_by_images", folder).axes[0].texts[0].get_text()


def test_a_missing_table_is_one_line_that_says_what_makes_it(tmp_path):
    with pytest.raises(InputError, match=r"tables/mse\.csv is missing in .*; notebook 03_mse_step_curves makes it"):
        figures.draw("mse_x0", tmp_path)
    with pytest.raises(InputError, match="did you mean 'weights'"):
        figures.draw("wieghts", tmp_path)
    assert figures.available(tmp_path) == ["paper_fid"]
    assert not list(tmp_path.iterdir())


def test_damaged_and_foreign_tables_are_named(quick, tmp_path):
    shutil.copytree(quick / "tables", tmp_path / "tables")
    (tmp_path / "tables/weights.csv").write_text("t,snr\n0,1\n")
    (tmp_path / "tables/one_step.npz").write_bytes(b"PK not really")
    (tmp_path / "tables/samples-other.npz").write_bytes(b"")
    for name, said in {"snr": "no column 'weighting'", "one_step_anatomy": "one_step.npz cannot be read",
                       "samples_all": "'other' is no name of a run"}.items():  # fmt: skip
        with pytest.raises(InputError, match=said):
            figures.draw(name, tmp_path)
    assert not (tmp_path / "figures").exists()


def test_the_chosen_run_is_kept_when_all_are_drawn_again(quick):
    figures.draw("training_samples", quick, run="constant-s0")
    assert "constant-s0" in figures.caption("training_samples", quick)
    figures.draw("training_samples", quick, run="debiased-s0")
    assert read_json(quick / "figures/training_samples.json")["run"] == "debiased-s0"
    with pytest.raises(InputError, match="run 'debiased-s7' is unknown"):
        figures.draw("training_samples", quick, run="debiased-s7")


def test_a_weighting_whose_gradient_is_hidden_by_noise_is_named_and_not_drawn(tmp_path):
    folder = write_synthetic_results(tmp_path / "small")
    path = folder / "tables/gradient_noise.csv"
    table = pd.read_csv(path)
    table.loc[table.weighting == "debiased", "noise_to_signal"] = np.nan
    table.to_csv(path, index=False)
    _plotted("gradient_noise", folder)
    assert "hidden by noise: debiased" in figures.caption("gradient_noise", folder)
    table.assign(noise_to_signal=np.nan).to_csv(path, index=False)
    assert "noise hides" in _plotted("gradient_noise", folder).axes[0].texts[0].get_text()


def test_the_command_line_says_one_line_a_figure(tmp_path, capsys):
    write_synthetic_results(tmp_path / "small", weightings=("debiased",))
    shutil.rmtree(tmp_path / "small/tables")
    assert figures.main(["--results", str(tmp_path / "small")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(NAMES)
    assert sum("not drawn" in line for line in lines) == len(NAMES) - 2
    assert figures.main(["--results", str(tmp_path / "nowhere")]) == 2


@pytest.mark.parametrize("weighting", [*KNOWN, "p2(k=1e-5,gamma=0.5)", "min_snr(gamma=1e+06)"])
def test_names_of_runs_are_read_back(weighting):
    strategy = parse_strategy(weighting)
    assert parse_run(f"{strategy.slug}-s12") == (str(strategy), 12)


def test_a_caption_says_which_weightings_have_fewer_seeds(tmp_path):
    write_synthetic_results(tmp_path, seeds=(0, 1, 2))
    assert "fewer seeds" not in figures.caption("mse_x0", tmp_path)
    path = tmp_path / "tables" / "mse.csv"
    table = pd.read_csv(path)
    table[(table.model != "debiased") | (table.seed == 0)].to_csv(path, index=False)
    for seed in (1, 2):
        (tmp_path / "tables" / f"distances-debiased-s{seed}.csv").unlink()
    for name in ("mse_x0", "distance_by_steps"):
        assert "but for those with fewer seeds: debiased (1)" in figures.caption(name, tmp_path)
