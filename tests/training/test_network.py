"""Networks: the published sizes, weights that are what the record says, and pipelines that stock diffusers loads."""

import json

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, UNet2DModel
from PIL import Image
from safetensors.torch import load_file, save_file

from debiaslib.diffusion.sampling import sample
from debiaslib.diffusion.schedule import Schedule
from debiaslib.errors import InputError
from debiaslib.files import read_json, write_json
from debiaslib.study.experiment import Experiment
from debiaslib.training.config import TrainConfig
from debiaslib.training.loop import train
from debiaslib.training.network import (
    build_network,
    build_schedule,
    export_pipeline,
    load_model,
    load_pretrained,
    run_config,
)
from debiaslib.training.run import Run, find_run

NETWORK = {
    "sample_size": 8,
    "block_out_channels": [8, 8],
    "layers_per_block": 1,
    "down_block_types": ["DownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "UpBlock2D"],
    "norm_num_groups": 4,
    "add_attention": False,
    "dropout": 0.2,
}


def config(**changes):
    settings = {"dataset": "minifaces", "resolution": 8, "network": NETWORK, "images": 16, "batch_size": 4, "lr": 1e-2,
                "snapshots": [8]}  # fmt: skip
    return TrainConfig(**{**settings, **changes})


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    random = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return str(folder)


@pytest.fixture(scope="module")
def run(dataset, tmp_path_factory):
    return train(config(dataset=dataset), tmp_path_factory.mktemp("results"), "test", progress=False)


@pytest.fixture
def copied(run, tmp_path):
    """The same run in a folder that may be damaged."""
    folder = tmp_path / "debiased-s0"
    folder.mkdir()
    for path in run.folder.iterdir():
        if path.is_file():
            (folder / path.name).write_bytes(path.read_bytes())
    return Run(folder)


def inputs():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, 8, 8, generator=generator), torch.tensor([0, 3, 500, 999])


# Sizes


@pytest.mark.parametrize(
    ("preset", "low", "high"),
    [("cifar10-ddpm", 35_746_307, 35_746_307), ("cifar10-small", 8_952_067, 8_952_067), ("minifaces16", 4.2e5, 4.4e5)],
)
def test_the_number_of_parameters(preset, low, high):
    with torch.device("meta"):
        network = build_network(Experiment(name="one", preset=preset).train_config("debiased", 0))
    assert low <= sum(parameter.numel() for parameter in network.parameters()) <= high


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine", "sigmoid"])
def test_the_schedule_by_its_name(name):
    schedule = build_schedule(config(schedule=name, timesteps=50))
    assert schedule.name == name and torch.equal(schedule.alpha_bar, getattr(Schedule, name)(50).alpha_bar)


@pytest.mark.parametrize(
    "change",
    [
        {"down_block_types": ["DownBlock2D"]},
        {"norm_num_groups": 7},
        {"chanels": 3},
        {"down_block_types": ["Down", "Up"]},
    ],
)
def test_a_network_that_diffusers_refuses_is_one_line(change):
    with pytest.raises(InputError, match="the network's settings are refused by diffusers: ") as caught:
        build_network(config(network={**NETWORK, **change}))
    assert "\n" not in str(caught.value)


# Loading


@pytest.mark.parametrize("images", [None, 8, 16])
def test_the_average_weights_of_a_snapshot(run, images):
    network = load_model(run, images)
    stock = UNet2DModel(**NETWORK)
    stock.load_state_dict(load_file(run.folder / f"ema-{images or 16:09d}.safetensors"))
    assert torch.equal(network(*inputs()).sample, stock.eval()(*inputs()).sample)


def test_a_loaded_network_only_answers(run):
    network = load_model(run.folder)  # by its folder
    assert not network.training and not any(p.requires_grad for p in network.parameters())
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert torch.equal(network(*inputs()).sample, network(*inputs()).sample)  # no dropout
    assert not torch.equal(network(*inputs()).sample, load_model(run, 8)(*inputs()).sample)


def refused(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("where", [0, 0.5, 0.999])
def test_one_changed_bit_is_refused(copied, where):
    path = copied.folder / "ema-000000016.safetensors"
    content = bytearray(path.read_bytes())
    content[int(where * len(content))] ^= 1
    path.write_bytes(content)
    assert f"{path.name} is missing or damaged" in refused(load_model, copied)  # a long path is cut in the middle
    assert load_model(copied, 8) is not None  # the other one is whole


def test_weights_that_are_gone(copied):
    (copied.folder / "ema-000000008.safetensors").unlink()
    assert "is missing or damaged" in refused(load_model, copied, 8)


def test_a_count_of_images_without_a_snapshot(run):
    assert "has no snapshot at 9 images; known: 8, 16" in refused(load_model, run, 9)


def test_a_run_that_is_not_complete(copied):
    (copied.folder / "record.json").unlink()
    assert "is not complete; train it first" in refused(load_model, copied)


def test_no_run_at_all(tmp_path):
    assert "holds no run; train it first" in refused(run_config, find_run("none", "debiased", 0, tmp_path))
    assert "train it first" in refused(load_model, tmp_path / "none")


def test_a_configuration_comes_back(run, dataset):
    assert run_config(run) == config(dataset=dataset)


# Ours, without the run


@pytest.fixture
def published(run, tmp_path):
    """config.json and the EMA weights in half precision, as we publish them."""
    state = load_file(run.folder / "ema-000000016.safetensors")
    save_file({name: tensor.half() for name, tensor in state.items()}, tmp_path / "ema.safetensors")
    (tmp_path / "config.json").write_bytes((run.folder / "config.json").read_bytes())
    return tmp_path


def test_published_weights_of_ours(run, published, dataset):
    made = load_pretrained(published)
    assert {p.dtype for p in made.network.parameters()} == {torch.float32}
    expected = load_model(run).half().float()
    assert torch.equal(made.network(*inputs()).sample, expected(*inputs()).sample)
    for source in (published / "ema.safetensors", str(published)):
        assert torch.equal(load_model(source)(*inputs()).sample, made.network(*inputs()).sample)
    assert made.training == json.loads(json.dumps(config(dataset=dataset).to_dict()))
    assert (made.schedule.name, made.prediction_type, made.resolution, made.learned_variance) == (
        "linear",
        "epsilon",
        8,
        False,
    )


def test_a_complete_run_is_taken_with_its_last_average(run):
    made = load_pretrained(str(run.folder))
    assert made.name == "debiased-s0"
    assert made.identity["ema"] == run.record["snapshots"][-1]["sha256"]
    assert torch.equal(made.network(*inputs()).sample, load_model(run)(*inputs()).sample)


def test_published_weights_that_do_not_fit(published):
    said = read_json(published / "config.json")
    write_json(published / "config.json", {**said, "network": {**said["network"], "layers_per_block": 2}})
    assert "does not fit its config.json" in refused(load_model, published)


def test_two_files_of_weights_are_not_guessed_between(published):
    (published / "other.safetensors").write_bytes((published / "ema.safetensors").read_bytes())
    assert "not one .safetensors file of weights: ema.safetensors, other.safetensors" in refused(load_model, published)
    assert load_model(published / "other.safetensors") is not None


def test_a_network_of_ours_takes_no_settings(run, published):
    for source in (run, published):
        with pytest.raises(InputError, match="takes no setting; got 'resolution'"):
            load_model(source, resolution=8)
    with pytest.raises(InputError, match="is no run of ours, so it has no snapshots"):
        load_model(published, 8)


# Export


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    return export_pipeline(run, tmp_path_factory.mktemp("pipeline"))


def test_stock_diffusers_loads_the_export_and_answers_the_same(run, exported):
    pipeline = DDPMPipeline.from_pretrained(exported)
    assert type(pipeline.unet) is UNet2DModel
    with torch.no_grad():
        assert torch.equal(pipeline.unet(*inputs()).sample, load_model(run)(*inputs()).sample)
    assert list(exported.glob("**/*.safetensors")) and not list(exported.glob("**/*.bin"))


def test_what_we_export_we_load(run, exported):
    made = load_pretrained(exported)
    assert torch.equal(made.network(*inputs()).sample, load_model(run)(*inputs()).sample)
    torch.testing.assert_close(made.schedule.alpha_bar, Schedule.linear().alpha_bar, rtol=1e-4, atol=1e-9)
    assert made.clip_x0 and made.prediction_type == "epsilon"


def test_an_earlier_snapshot_is_exported_if_asked(run, tmp_path):
    unet = DDPMPipeline.from_pretrained(export_pipeline(run, tmp_path, images=8)).unet
    with torch.no_grad():
        assert torch.equal(unet(*inputs()).sample, load_model(run, 8)(*inputs()).sample)


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


def test_a_damaged_run_is_not_exported(copied, tmp_path):
    path = copied.folder / "ema-000000016.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "is missing or damaged" in refused(export_pipeline, copied, tmp_path / "out")
    assert not (tmp_path / "out").exists()
