"""Learned variance end to end: the hybrid loss leaves the mean's gradient alone; DDPM samples with what was learned."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMScheduler

from debiaslib.diffusion.sampling import sample
from debiaslib.diffusion.schedule import Schedule
from debiaslib.study.experiment import load_experiment
from debiaslib.training.load import load_model
from debiaslib.training.loop import train
from debiaslib.training.network import build_network
from debiaslib.training.objective import Objective

SMOKE = load_experiment(Path(__file__).resolve().parents[1] / "smoke.yaml").train_config("debiased", 0)


def test_the_prediction_gets_the_weighted_error_alone():
    config = dataclasses.replace(SMOKE, learned_variance=True)
    generator = torch.Generator().manual_seed(0)
    x0 = torch.rand(8, 3, 16, 16, generator=generator) * 2 - 1
    noise, answer = torch.randn(8, 3, 16, 16, generator=generator), torch.randn(8, 6, 16, 16, generator=generator)
    t = torch.tensor([0, 1, 50, 200, 400, 600, 900, 999])
    answer.requires_grad_()
    loss, mse = Objective(config).loss(lambda x, t: answer, x0, t, noise)
    (gradient,) = torch.autograd.grad(loss, answer)
    weight = Schedule.linear().snr[t].rsqrt().view(-1, 1, 1, 1)
    expected = 2 * weight * (answer.detach()[:, :3] - noise).double() / noise.numel()
    torch.testing.assert_close(gradient[:, :3].double(), expected, rtol=1e-5, atol=1e-9)
    assert (gradient[:, 3:] != 0).any(dim=(1, 2, 3)).all()
    torch.testing.assert_close(mse, (answer.detach()[:, :3] - noise).square().mean())


@pytest.mark.parametrize("steps", [1, 7])
def test_ddpm_follows_diffusers_with_the_learned_variance(steps):
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 6, 3, padding=1).requires_grad_(False)
    with torch.no_grad():
        network.weight *= 0.5
    images = sample(
        lambda x, t: network(x), Schedule.linear(), [5], sampler="ddpm", steps=steps, shape=(3, 8, 8), batch_size=1
    )
    scheduler = DDPMScheduler(variance_type="learned_range", timestep_spacing="linspace", clip_sample=True)
    timesteps = torch.tensor([999]) if steps == 1 else None
    scheduler.set_timesteps(steps)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(1, 3, 8, 8, generator=generator)
    for t in scheduler.timesteps if timesteps is None else []:
        x = scheduler.step(network(x), t, x, generator=generator).prev_sample
    if timesteps is not None:  # theirs starts one step at t = 0, the paper's at T-1: its answer is x0_hat
        ab = Schedule.linear().alpha_bar[999].float()
        x = ((x - (1 - ab).sqrt() * network(x)[:, :3]) / ab.sqrt()).clamp(-1, 1)
    expected = ((x + 1) * 127.5).round().clamp(0, 255)
    assert np.abs(images - expected.numpy()).max() <= 1


def test_a_run_with_learned_variance_trains_and_samples(tmp_path):
    config = dataclasses.replace(SMOKE, learned_variance=True, images=96, snapshots=())
    run = train(config, tmp_path, progress=False)
    model = load_model(run)
    assert model.config.out_channels == 6
    drawn = {
        sampler: sample(model, Schedule.linear(), [0, 1], sampler=sampler, steps=3, batch_size=2)
        for sampler in ("ddim", "ddpm")
    }
    assert drawn["ddim"].shape == drawn["ddpm"].shape == (2, 3, 16, 16)


def test_the_networks_of_both_kinds_start_alike_in_all_but_the_output():
    plain, learned = (build_network(dataclasses.replace(SMOKE, learned_variance=flag)) for flag in (False, True))
    for (name, one), (_, other) in zip(plain.named_parameters(), learned.named_parameters(), strict=True):
        if not name.startswith("conv_out"):
            assert torch.equal(one, other), name
