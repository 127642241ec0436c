"""Trained networks: weights that are what the record says, and pipelines that stock diffusers loads."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, UNet2DModel
from safetensors.torch import load_file

from debiaslib.diffusion.sampling import sample
from debiaslib.diffusion.schedule import Schedule
from debiaslib.errors import InputError
from debiaslib.files import read_json, write_json
from debiaslib.training.export import export_pipeline
from debiaslib.training.load import load_model, load_pretrained
from debiaslib.training.loop import train
from debiaslib.training.run import Run
from tests.training.tiny import NETWORK, STILL, TRANSFORMER, ask, config


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    return train(config(dataset=dataset, network=NETWORK, snapshots=[8]), results, "test", progress=False)


@pytest.fixture
def copied(run, tmp_path):
    """The same run in a folder that may be damaged."""
    folder = tmp_path / "debiased-s0"
    folder.mkdir()
    for path in run.folder.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    return Run(folder)


# Loading


@pytest.mark.parametrize("images", [None, 8, 16])
def test_the_average_weights_of_a_snapshot(run, images):
    network = load_model(run, images)
    stock = UNet2DModel(**NETWORK)
    stock.load_state_dict(load_file(run.folder / f"ema-{images or 16:09d}.safetensors"))
    assert torch.equal(ask(network), ask(stock.eval()))


def test_a_loaded_network_only_answers(run):
    network = load_model(run.folder)  # by its folder
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert torch.equal(ask(network), ask(network))  # no dropout
    assert not torch.equal(ask(network), ask(load_model(run, 8)))


def refused(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_run_that_is_not_complete(copied):
    (copied.folder / "record.json").unlink()
    assert "is not complete; train it first" in refused(load_model, copied)


def test_a_complete_run_is_taken_with_its_last_average(run):
    made = load_pretrained(str(run.folder))
    assert made.name == "debiased-s0"
    assert made.identity["ema"] == run.record["snapshots"][-1]["sha256"]
    assert made.training.items() <= run.config.items() and not made.learned_variance
    assert (made.schedule.name, made.prediction_type, made.resolution) == ("linear", "epsilon", 8)
    assert torch.equal(ask(made.network), ask(load_model(run)))


def test_weights_that_do_not_fit_the_configuration(copied):
    path = copied.folder / "config.json"
    said = read_json(path)
    write_json(path, {**said, "network": {**said["network"], "layers_per_block": 2}})
    assert "does not fit its config.json" in refused(load_model, copied.folder)


def test_a_network_of_ours_takes_no_settings(run):
    with pytest.raises(InputError, match="takes no setting; got 'resolution'"):
        load_model(run, resolution=8)


# Export


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export_pipeline(run, tmp_path_factory.mktemp("pipeline"))


def test_stock_diffusers_loads_the_export_and_answers_the_same(run, exported):
    pipeline = DDPMPipeline.from_pretrained(exported)
    assert type(pipeline.unet) is UNet2DModel
    with torch.no_grad():
        assert torch.equal(ask(pipeline.unet), ask(load_model(run)))
    assert list(exported.glob("**/*.safetensors")) and not list(exported.glob("**/*.bin"))


def test_what_we_export_we_load(run, exported):
    made = load_pretrained(exported)
    assert torch.equal(ask(made.network), ask(load_model(run)))
    torch.testing.assert_close(made.schedule.alpha_bar, Schedule.linear().alpha_bar, rtol=1e-4, atol=1e-9)
    assert made.clip_x0 and made.prediction_type == "epsilon"


def test_the_exported_pipeline_samples_as_we_do(run, exported):
    """The paper's respacing and the same starting noise: within rounding, the same image."""
    pipeline = DDPMPipeline.from_pretrained(exported)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(generator=torch.Generator().manual_seed(3), num_inference_steps=10, output_type="np").images
    ours = sample(load_model(run), Schedule.linear(), [3], sampler="ddpm", steps=10, batch_size=1)
    difference = theirs[0].transpose(2, 0, 1) * 255 - ours[0]
    assert np.abs(difference).max() < 0.6 and ours.std() > 1


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine", "sigmoid"])
def test_the_exported_scheduler_is_ours(copied, tmp_path, name, kind):
    path = copied.folder / "config.json"
    write_json(path, {**read_json(path), "schedule": name, "prediction_type": kind})
    scheduler = DDPMPipeline.from_pretrained(export_pipeline(copied, tmp_path / "out")).scheduler
    ours = getattr(Schedule, name)(1000)
    assert scheduler.config.prediction_type == kind and scheduler.config.timestep_spacing == "linspace"
    snr = scheduler.alphas_cumprod.double() / (1 - scheduler.alphas_cumprod.double())
    assert (snr / ours.snr - 1).abs().max() < 5e-3  # theirs is in float32
    assert torch.allclose(scheduler.alphas_cumprod.double(), ours.alpha_bar, rtol=2e-4, atol=1e-7)


# Export with an input skip

ELSEWHERE = """
import sys
import torch
from diffusers import DDPMPipeline
torch.set_num_threads(1)
pipeline = DDPMPipeline.from_pretrained(sys.argv[1], trust_remote_code=True)
x, t, wanted = torch.load(sys.argv[2])
assert torch.equal(pipeline.unet(x, t).sample, wanted)
assert pipeline(num_inference_steps=2, output_type="np").images.shape == (1, 8, 8, 3)
assert not any(name.startswith("debiaslib") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def skipping(dataset, tmp_path_factory):
    """A run whose network has an input skip."""
    skip = {**STILL, "input_skip": True, "zero_init": True}
    return train(config(dataset=dataset, network=skip), tmp_path_factory.mktemp("skip"), "test", progress=False)


def test_a_network_with_a_skip_is_exported_with_its_class(skipping, tmp_path):
    """Whoever trusts the code beside the weights needs no debiaslib."""
    folder = export_pipeline(skipping, tmp_path / "pipeline")
    with pytest.raises(ValueError, match="trust_remote_code=True"):
        DDPMPipeline.from_pretrained(folder)
    unet = DDPMPipeline.from_pretrained(folder, trust_remote_code=True).unet
    wanted = ask(load_model(skipping))
    assert torch.equal(ask(unet), wanted) and list(unet.state_dict()) == list(UNet2DModel(**STILL).state_dict())


@pytest.mark.slow
def test_so_it_loads_where_debiaslib_is_not(skipping, tmp_path):
    folder, x, t = export_pipeline(skipping, tmp_path / "p"), torch.randn(2, 3, 8, 8), torch.tensor([3, 900])
    with torch.no_grad():
        torch.save((x, t, load_model(skipping)(x, t).sample), tmp_path / "asked.pt")
    command = [sys.executable, "-c", ELSEWHERE, str(folder), str(tmp_path / "asked.pt")]
    subprocess.run(command, check=True, cwd=tmp_path, env={"HF_HOME": str(tmp_path / "hf"), "PATH": ""})


@pytest.mark.parametrize(
    ("network", "said"),
    [(TRANSFORMER, "is no UNet2DModel"), ({**STILL, "num_class_embeds": 3}, "is told a class")],
)
def test_what_a_pipeline_has_no_place_for(copied, tmp_path, network, said):
    path = copied.folder / "config.json"
    write_json(path, {**read_json(path), "network": network})
    assert said in refused(export_pipeline, copied, tmp_path / "out") and not (tmp_path / "out").exists()
