"""Trained networks: weights that are what the record says, and pipelines that stock diffusers loads."""

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file

from debiaslib.diffusion.sampling import sample
from debiaslib.diffusion.schedule import Schedule
from debiaslib.errors import InputError
from debiaslib.files import read_json, write_json
from debiaslib.training.load import load_model, load_pretrained
from debiaslib.training.loop import train
from debiaslib.training.run import Run
from tests.training.tiny import NETWORK, STILL, ask, config


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
    with pytest.raises(InputError, match="takes a setting; got 'resolution'"):
        load_model(run, resolution=8)


# In a pipeline of diffusers


def test_a_pipeline_of_diffusers_samples_as_we_do(run):
    """The paper's respacing and the same starting noise: within rounding, the same image."""
    pipeline = DDPMPipeline(unet=load_model(run), scheduler=DDPMScheduler(timestep_spacing="linspace"))
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(generator=torch.Generator().manual_seed(3), num_inference_steps=10, output_type="np").images
    ours = sample(load_model(run), Schedule.linear(), [3], sampler="ddpm", steps=10, batch_size=1)
    difference = theirs[0].transpose(2, 0, 1) * 255 - ours[0]
    assert np.abs(difference).max() < 0.6 and ours.std() > 1


def test_so_it_does_with_an_input_skip(dataset, tmp_path):
    skip = {**STILL, "input_skip": True, "zero_init": True}
    trained = train(config(dataset=dataset, network=skip), tmp_path, "test", progress=False)
    pipeline = DDPMPipeline(unet=load_model(trained), scheduler=DDPMScheduler())
    assert torch.equal(ask(pipeline.unet), ask(load_model(trained)))
    assert pipeline(num_inference_steps=2, output_type="np").images.shape == (1, 8, 8, 3)
