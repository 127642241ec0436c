"""Every registered figure is drawn from saved tables alone, with the same bytes twice, and named with its data."""

import shutil

import pandas as pd
import pytest
from synthetic_results import SEEN, WEIGHTINGS, write_synthetic_results

from debiaslib.diffusion.strategies import KNOWN, parse_strategy
from debiaslib.errors import InputError
from debiaslib.figures import draw as figures
from debiaslib.figures.registry import NothingToDraw, Sentence
from debiaslib.files import read_json, sha256_file
from debiaslib.study.saved_tables import Tables, parse_run

NAMES = {"one_call", "snr", "one_step_anatomy", "samples_by_steps", "one_step_estimates", "colour_error", "mse_epsilon",
         "mse_x0", "excess", "bias_or_variance", "weights", "samples_all",
         "training_curves", "training_samples", "distance_by_steps", "distance_by_images", "colour_by_steps",
         "learning_rates", "control_ratios", "paper_fid"}  # fmt: skip
SWAP = {"oracle_swap", "oracle_swap_samples"}


def loaded(name, folder, run=""):
    """(caption, the arguments of the plotting function)."""
    spec = figures.FIGURES[name]
    facts, *arguments = spec.load(Tables(folder, run))
    text = spec.caption.format(**facts)
    assert not {"{", "nan"} & set(text.split()) and "nan" not in text.replace("digitis", "")
    return text, arguments


def plotted(name, folder):
    """The figure without the saving, which takes most of the time."""
    figure = figures.FIGURES[name].plot(*loaded(name, folder)[1])
    figure.draw_without_rendering()
    return figure


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return write_synthetic_results(tmp_path_factory.mktemp("results") / "quick")


@pytest.fixture(scope="module")
def three_seeds(tmp_path_factory):
    weightings = [*WEIGHTINGS, "min_snr(gamma=1)"]
    return write_synthetic_results(tmp_path_factory.mktemp("results") / "seeds", (0, 1, 2), weightings, resolution=32)


def test_the_names_are_the_agreed_ones_in_the_order_of_the_notebooks():
    assert set(figures.FIGURES) == NAMES | SWAP
    notebooks = [spec.notebook for spec in figures.FIGURES.values()]
    assert notebooks == sorted(notebooks)
    assert {notebook[:2] for notebook in notebooks} == {f"0{i}" for i in range(1, 8)}


@pytest.mark.parametrize("name", ["snr", "samples_by_steps", "paper_fid"])
def test_a_figure_is_saved_with_the_same_bytes_twice_and_names_its_data(name, quick):
    paths = [quick / "figures" / f"{name}{suffix}" for suffix in (".png", ".pdf", ".json")]
    drawn = figures.draw(name, quick)
    first = [path.read_bytes() for path in paths]
    figures.draw(name, quick)
    assert [path.read_bytes() for path in paths] == first and b"CreationDate" not in first[1]
    record = read_json(paths[2])
    assert record["title"] == figures.FIGURES[name].title and record["notebook"].startswith("0")
    assert record["title"] in [text.get_text() for text in (*drawn.texts, drawn._suptitle) if text]
    assert "\n" not in record["caption"] and record["data"] and str(quick) not in paths[2].read_text()
    for entry in record["data"]:
        if "reference" not in entry["file"]:
            assert entry["sha256"] == sha256_file(quick / entry["file"])


@pytest.mark.parametrize("name", sorted(NAMES - {"bias_or_variance"}))
def test_one_seed(name, quick):
    assert plotted(name, quick).get_figwidth() == 6


@pytest.mark.parametrize("name", ["bias_or_variance", "distance_by_steps", "mse_x0", "samples_all"])
def test_three_seeds_and_five_weightings_each_once(name, three_seeds):
    figure = plotted(name, three_seeds)
    for legend in figure.legends:
        texts = [text.get_text() for text in legend.get_texts()]
        assert len(texts) == len(set(texts))


def test_where_there_is_nothing_to_draw_a_sentence_says_so(quick):
    for suffix in (".png", ".pdf"):  # of tables that were there before
        (quick / "figures").mkdir(exist_ok=True)
        (quick / "figures" / f"bias_or_variance{suffix}").write_bytes(b"old")
    said = figures.draw("bias_or_variance", quick)
    assert isinstance(said, Sentence) and said.startswith("One training seed") and said._repr_markdown_() == said
    record = read_json(quick / "figures" / "bias_or_variance.json")
    assert record["sentence"] == said and record["data"] and "caption" not in record
    assert not list((quick / "figures").glob("bias_or_variance.p*"))


def test_one_weighting_without_held_out_or_real_images(tmp_path):
    folder = write_synthetic_results(tmp_path / "small", (3,), ("max_snr",), heldout=False, real=False)
    for name in ("mse_x0", "samples_by_steps", "one_step_estimates", "paper_fid", "distance_by_steps"):
        plotted(name, folder)
    assert "No real images" in loaded("distance_by_steps", folder)[0]
    assert "none to put beside it" in loaded("paper_fid", folder)[0]


def test_without_the_optimum_snapshots_or_real_rows(tmp_path):
    folder = write_synthetic_results(tmp_path / "small", weightings=("constant", "debiased"))
    table = pd.read_csv(folder / "tables/mse.csv")
    kept = table[(table.model != "optimum") & ~table.quantity.isin(["excess", "colour_excess"])]
    kept.to_csv(folder / "tables/mse.csv", index=False)
    for path in folder.glob("tables/distances-*-s0.csv"):
        table = pd.read_csv(path)
        table[(table.images_seen == SEEN[-1]) & ~table.metric.str.contains("_")].to_csv(path, index=False)
    for name, said in {"excess": "not measured", "distance_by_images": "at the end of their training",
                       "colour_by_steps": "Not measured"}.items():  # fmt: skip
        with pytest.raises(NothingToDraw, match=said):
            plotted(name, folder)


def test_a_missing_table_is_one_line_that_says_what_makes_it(tmp_path):
    with pytest.raises(
        InputError, match=r"tables/mse\.csv is missing in .*; make reproduce, or its notebook, makes it"
    ):
        figures.draw("mse_x0", tmp_path)
    with pytest.raises(InputError, match="did you mean 'weights'"):
        figures.draw("wieghts", tmp_path)
    assert not list(tmp_path.iterdir())


def test_damaged_and_foreign_tables_are_named(quick, tmp_path):
    shutil.copytree(quick / "tables", tmp_path / "tables")
    (tmp_path / "tables/weights.csv").write_text("t,snr\n0,1\n")
    (tmp_path / "tables/one_step.npz").write_bytes(b"PK not really")
    (tmp_path / "tables/samples-other.npz").write_bytes(b"")
    for name, said in {"weights": "no column 'weighting'", "one_step_anatomy": "one_step.npz cannot be read",
                       "samples_all": "'other' is no name of a run"}.items():  # fmt: skip
        with pytest.raises(InputError, match=said):
            figures.draw(name, tmp_path)
    assert not (tmp_path / "figures").exists()


def test_a_run_is_chosen_by_name(quick):
    assert "debiased-s0" in loaded("training_samples", quick)[0]
    assert "constant-s0" in loaded("training_samples", quick, "constant-s0")[0]
    with pytest.raises(InputError, match="run 'debiased-s7' is unknown"):
        loaded("training_samples", quick, "debiased-s7")


def test_the_command_line_says_one_line_a_figure(tmp_path, capsys):
    folder = write_synthetic_results(tmp_path / "small", weightings=("debiased",))
    kept = {"bias.csv"}
    for path in (folder / "tables").iterdir():
        if path.name not in kept:
            path.unlink()
    assert figures.main(["--results", str(folder)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert lines.keys() == NAMES | SWAP and "not drawn: One training seed" in lines["bias_or_variance"]
    drawn = {name for name, line in lines.items() if "not drawn" not in line}
    assert drawn == {"training_curves"}
    with pytest.raises(InputError, match="nowhere does not exist"):
        figures.main(["--results", str(tmp_path / "nowhere")])


@pytest.mark.parametrize("weighting", [*KNOWN, "p2(k=1e-5,gamma=0.5)", "min_snr(gamma=1e+06)"])
def test_names_of_runs_are_read_back(weighting):
    strategy = parse_strategy(weighting)
    assert parse_run(f"{strategy.slug}-s12") == (str(strategy), 12)


def test_a_caption_says_which_weightings_have_fewer_seeds(tmp_path):
    write_synthetic_results(tmp_path, seeds=(0, 1, 2))
    assert "fewer seeds" not in loaded("mse_x0", tmp_path)[0]
    path = tmp_path / "tables" / "mse.csv"
    table = pd.read_csv(path)
    table[(table.model != "debiased") | (table.seed == 0)].to_csv(path, index=False)
    for seed in (1, 2):
        (tmp_path / "tables" / f"distances-debiased-s{seed}.csv").unlink()
    for name in ("mse_x0", "distance_by_steps"):
        assert "but for those with fewer seeds: debiased (1)" in loaded(name, tmp_path)[0]
