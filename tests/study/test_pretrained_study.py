"""A study of one network that was trained elsewhere: its tables lie apart and are those of the network itself."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel

from debiaslib.diffusion.one_step import one_step_estimate
from debiaslib.diffusion.randomness import stream
from debiaslib.errors import InputError
from debiaslib.figures import draw as figures
from debiaslib.files import read_json
from debiaslib.study import measurements
from debiaslib.study.common import measured_images
from debiaslib.study.study import Study, open_notebook, open_study

SMOKE = Path(__file__).resolve().parents[1] / "smoke.yaml"


def tiny_pipeline(folder, scheduler=None, seed=0):
    """A pipeline of 16x16 images whose network was never trained."""
    torch.manual_seed(seed)
    network = UNet2DModel(
        sample_size=16,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    DDPMPipeline(network, scheduler or DDPMScheduler()).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    return open_study(SMOKE, "", folder / "results", tiny_pipeline(folder / "tiny"))


def test_it_is_a_study_of_one_arm(study):
    assert isinstance(study, Study) and not study.trained_here and study.experiment.runs == [("pretrained", 0)]
    assert study.formulas == ("constant", "debiased")
    assert study.folder.name == f"smoke--{study.given.slug}" and study.given.slug.startswith("tiny-")
    assert study.identity("pretrained", 0) == study.given.identity
    assert study.images_seen("pretrained", 0) == "an unknown number of"
    made = study.run("pretrained", 0)
    assert made.config["lr"] == made.record["data"]["name"] == "unknown" and made.config["resolution"] == 16


def test_what_is_the_networks_and_what_the_experiments(tmp_path):
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", prediction_type="v_prediction", clip_sample=False)
    study = open_study(SMOKE, "", tmp_path, tiny_pipeline(tmp_path / "v", scheduler))
    assert (study.config.prediction_type, study.schedule.name) == ("v_prediction", "scaled_linear")
    assert study.prediction_type_of("pretrained") == "v_prediction" and not study.experiment.clip_x0
    assert study.experiment.shown_timesteps == (50, 500, 900) and study.images().name == "minifaces"


def test_other_images_have_tables_of_their_own(study, tmp_path):
    """They lie in the same folder: the network decides its name."""
    model, shown = str(tiny_pipeline(tmp_path / "tiny")), []
    for name in ("minifaces", "gaussian"):
        pictures = open_study(SMOKE, name, tmp_path / "results", model)
        shown.append(measurements.one_step(pictures)["x0"])
        np.testing.assert_array_equal(shown[-1], measured_images(pictures, len(shown[-1]))[0])
    assert not np.array_equal(*shown)


def test_an_experiment_that_asks_for_more_timesteps_than_it_has(tmp_path):
    model = tiny_pipeline(tmp_path / "short", DDPMScheduler(num_train_timesteps=800))
    with pytest.raises(InputError, match="shown_timesteps is 900; it must be a whole number >= 0 and < 800"):
        open_study(SMOKE, "", tmp_path, model)


def test_the_estimates_are_the_networks(study):
    arrays = measurements.one_step(study)
    assert arrays["names"].tolist() == ["pretrained", "optimum"]
    x0 = measured_images(study, 4)[0]
    noise = torch.randn(x0.shape, generator=stream(0, "one step", 900))
    one = one_step_estimate(study.given.network, x0, 900, noise, study.schedule)
    np.testing.assert_array_equal(arrays["x0_hat"][0, 2], one.x0_hat.numpy())
    assert study.folder.joinpath("tables/one_step.npz").exists() and not (study.results / "smoke").exists()


def test_the_errors_and_samples_and_their_figures(study):
    table = measurements.mse(study)
    assert set(table.model) == {"pretrained", "initial", "optimum"} and set(table.seed) == {0}
    grid = measurements.samples(study, "pretrained", 0)
    assert grid["images"].shape == (3, 4, 3, 16, 16)
    assert set(measurements.weights(study).weighting) == {"constant", "debiased"}
    for name in ("one_step_estimates", "mse_x0", "samples_all"):
        figures.draw(name, study.folder)
    record = read_json(study.folder / "figures" / "one_step_estimates.json")
    assert "pretrained network" in record["caption"]


def test_other_weights_never_mix(study, tmp_path):
    other = open_study(SMOKE, "", study.results, tiny_pipeline(tmp_path / "tiny", seed=1))
    assert other.given.name == study.given.name and other.folder != study.folder


def test_a_notebooks_parameter(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    cells = 'experiment: str = "quick"\ndataset: str = ""\nresults: str = ""\nmodel: str = ""\n'
    given = {"experiment": str(SMOKE), "dataset": "", "results": str(tmp_path), "model": tiny_pipeline(tmp_path / "m")}
    study = open_notebook({"In": ["", cells, "# Parameters\nmodel = 'm'"], **given})
    assert not study.trained_here and "One network, trained elsewhere: m;" in capsys.readouterr().out
    with pytest.raises(InputError, match="is no existing folder or file and no hub id"):
        open_notebook({"In": ["", cells], **given, "model": "nowhere"})
