"""What runs on a GPU leaves nothing behind on the CPU and waits for nothing, and gives the CPU's numbers there.

The device "meta" stands for any device that is not the CPU. It holds no values: a tensor that was left on the CPU meets
one of the device and torch refuses, and so it does where a value is asked for, which would stop a GPU's queue.
`OnApple` stands for Apple's GPUs, which have no float64. The tests of values run where there is a GPU.
"""

import contextlib

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler, UNet2DModel

from debiaslib.data.images import ImageSet
from debiaslib.diffusion import sampling
from debiaslib.diffusion.one_step import one_step_estimate
from debiaslib.diffusion.optimum import GaussianDenoiser, OptimalDenoiser
from debiaslib.diffusion.prediction import PREDICTION_TYPES
from debiaslib.diffusion.sampling import sample
from debiaslib.diffusion.schedule import Schedule
from debiaslib.diffusion.weighting import loss_weight
from debiaslib.metrics.distances import evaluate
from debiaslib.metrics.features import load_extractor
from debiaslib.study.experiment import SAMPLERS
from debiaslib.training.config import TrainConfig
from debiaslib.training.loop import Training
from debiaslib.training.network import build_network
from debiaslib.training.objective import Objective
from debiaslib.training.run import Run

SCHEDULE = Schedule.linear()
TINY = {"sample_size": 8, "in_channels": 3, "block_out_channels": [8, 16], "layers_per_block": 1, "norm_num_groups": 4}
TINY |= {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]}
TINY |= {"attention_head_dim": 8, "out_channels": 3}
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU on this machine")


def network(seed=0, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DModel(**TINY | settings).eval()


def images(count, size=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), dtype=np.uint8)


# On "meta"


def everything_on(module, device):
    tensors = [*module.parameters(), *module.buffers()]
    return bool(tensors) and all(tensor.device.type == device for tensor in tensors)


@pytest.fixture
def arrivals(monkeypatch):
    """Devices that finished batches came from. Noise begins on the CPU, which a GPU copies and "meta" forgets."""
    seen = []

    def to_uint8(x):
        seen.append(x.device.type)
        return torch.zeros(x.shape, dtype=torch.uint8)

    def check(finite, timesteps, seeds):  # once a batch, when all its steps are done and it is fetched anyway
        assert {one.device.type for one in finite} == {"meta"}

    monkeypatch.setattr(sampling, "to_uint8", to_uint8)
    monkeypatch.setattr(sampling, "_check_answers", check)
    return seen


@pytest.mark.parametrize("learned_variance", [False, True])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_sampler_leaves_the_device_or_waits_for_it(arrivals, sampler, prediction_type, learned_variance):
    model = network(out_channels=6 if learned_variance else 3).to("meta")
    options = {"prediction_type": prediction_type, "steps": 5, "batch_size": 2, "device": "meta"}
    found = sample(model, SCHEDULE, [0, 1, 2], sampler=sampler, **options)
    assert found.shape == (3, 3, 8, 8) and arrivals == ["meta", "meta"]


def test_classes_do_not_leave_the_device(arrivals):
    model = network(num_class_embeds=4).to("meta")
    sample(model, SCHEDULE, [0, 1, 2], steps=4, batch_size=2, device="meta")
    assert arrivals == ["meta", "meta"]


@pytest.fixture
def no_autocast(monkeypatch):
    """torch.autocast does not know "meta"."""
    monkeypatch.setattr(torch, "autocast", lambda *arguments, **options: contextlib.nullcontext())


@pytest.mark.parametrize("name", ["minifaces", "cifar10"])
def test_our_feature_networks_are_on_the_device(name, no_autocast):
    extractor = load_extractor(name, device="meta")
    assert everything_on(extractor.network, "meta")
    assert extractor.network(torch.zeros(2, 3, 32, 32, dtype=torch.uint8, device="meta")).shape[0] == 2


def config(device, **changes):
    return TrainConfig("minifaces", 8, TINY, 64, 4, 1e-3, device=device, **changes)


@pytest.mark.parametrize("learned_variance", [False, True])
@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_training_step_stays_on_the_device(prediction_type, learned_variance, no_autocast):
    c = config("cpu", prediction_type=prediction_type, learned_variance=learned_variance)
    model, objective = build_network(c).to("meta"), Objective(c)
    objective.factor = objective.factor.to("meta")
    x0 = torch.zeros(4, 3, 8, 8, device="meta")
    loss, mse = objective.loss(model, x0, objective.timesteps(0), torch.zeros_like(x0))
    loss.backward()
    assert loss.device.type == mse.device.type == "meta"
    assert {p.grad.device.type for p in model.parameters()} == {"meta"}


# Without float64


class OnApple(torch.Tensor):
    """A tensor that says it is on an Apple GPU, and so do results of it; float64 is refused until it is on the CPU."""

    device = property(lambda self: torch.device("mps"))

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def double(self):
        return self.to(torch.float64)

    def to(self, *what, **more):
        if torch.float64 in what:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        to_cpu = "cpu" in map(str, what)
        return self.cpu().to(*what, **more) if to_cpu else super().to(*what, **more)


def apple(tensor):
    return tensor.as_subclass(OnApple)


def test_a_loss_weight_on_apple():
    scheduler = DDPMScheduler(1000)
    wanted = loss_weight("debiased", scheduler)
    scheduler.alphas_cumprod = apple(scheduler.alphas_cumprod)  # where `add_noise` leaves it
    assert torch.equal(loss_weight("debiased", scheduler), wanted)
    snr = SCHEDULE.snr.float()
    assert torch.equal(loss_weight("debiased", apple(snr)), loss_weight("debiased", snr))


@pytest.mark.parametrize("whole", [True, False])
def test_the_optima_on_apple(whole):
    data = torch.from_numpy(images(9)) if whole else torch.from_numpy(images(9)).float() / 255
    x_t = SCHEDULE.add_noise(torch.rand(4, 3, 8, 8), torch.randn(4, 3, 8, 8), 500)
    for given in (data, apple(data)):
        assert torch.equal(OptimalDenoiser(given, SCHEDULE)(apple(x_t), 500), OptimalDenoiser(data, SCHEDULE)(x_t, 500))
    law = GaussianDenoiser(torch.zeros(192), torch.eye(192), SCHEDULE)
    assert torch.equal(law(apple(x_t), 500), law(x_t, 500))


def test_a_training_step_on_apple(tmp_path, monkeypatch):
    """Its loss and gradient norm are summed up in float64 on the CPU."""
    c = config("cpu")
    norm = torch.nn.utils.get_total_norm

    def with_kernels(gradients, foreach=None):
        assert foreach is None  # where torch has no such kernels, it refuses True
        return apple(norm(gradients))

    monkeypatch.setattr(torch.nn.utils, "get_total_norm", with_kernels)
    training = Training(Run(tmp_path), c, ImageSet(images(8), "some", "f"))
    backward = training.backward
    training.backward = lambda batch: apple(backward(batch))
    training.one_step()
    assert training.log.total.dtype == torch.float64 and bool((training.log.total > 0).all())


# On a GPU


@needs_gpu
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_gpu_draws_the_cpus_images(sampler):
    here = sample(network(), SCHEDULE, range(6), sampler=sampler, steps=10, batch_size=4)
    there = sample(network().to("cuda"), SCHEDULE, range(6), sampler=sampler, steps=10, batch_size=4, device="cuda")
    difference = np.abs(here.astype(int) - there)
    assert difference.max() <= 2 and (difference == 0).mean() > 0.98 and here.std() > 10


@needs_gpu
@pytest.mark.parametrize("name", ["minifaces", "cifar10", "pooled"])
def test_a_gpu_gives_the_cpus_distances(name):
    one, other = images(300, 32), images(300, 32, seed=1) // 2
    found = [evaluate(one, other, load_extractor(name, device)) for device in ("cpu", "cuda")]
    for here, there in zip(*found, strict=True):
        assert here["metric"] == there["metric"] and here["weights_sha256"] == there["weights_sha256"]
        assert there["value"] == pytest.approx(here["value"], rel=1e-3, abs=1e-3)


@needs_gpu
def test_a_gpu_gives_the_cpus_loss_and_gradients():
    values = {}
    for device in ("cpu", "cuda"):
        c = config(device)
        model, objective = build_network(c).to(device), Objective(c)
        x0, noise = (torch.from_numpy(images(4, seed=s)).float() / 127.5 - 1 for s in (0, 1))
        loss, _ = objective.loss(model, x0.to(device), objective.timesteps(0), noise.to(device))
        loss.backward()
        values[device] = loss.item(), torch.cat([p.grad.flatten().cpu() for p in model.parameters()])
    assert values["cuda"][0] == pytest.approx(values["cpu"][0], rel=1e-3)
    gap = (values["cuda"][1] - values["cpu"][1]).norm() / values["cpu"][1].norm()
    assert gap < 5e-3  # convolutions in TF32


@needs_gpu
def test_a_gpu_gives_the_cpus_one_step_estimate():
    x0, noise = (torch.from_numpy(images(4, seed=s)).float() / 127.5 - 1 for s in (0, 1))
    here = one_step_estimate(network(), x0, 300, noise, SCHEDULE).x0_hat
    there = one_step_estimate(network().to("cuda"), x0.to("cuda"), 300, noise.to("cuda"), SCHEDULE).x0_hat
    assert there.is_cuda and torch.allclose(there.cpu(), here, atol=1e-2)


@needs_gpu
def test_the_optimum_on_a_gpu():
    data = images(50)
    x_t = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    here = OptimalDenoiser(data, SCHEDULE)(x_t, 700)
    there = OptimalDenoiser(torch.from_numpy(data).to("cuda"), SCHEDULE)(x_t.to("cuda"), 700)
    assert there.is_cuda and torch.allclose(there.cpu(), here, atol=1e-5)
