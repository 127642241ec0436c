"""The oracle swap: who is asked where, and that a swap of one denoiser with itself is that denoiser."""

from pathlib import Path

import numpy as np
import torch

from debiaslib import OptimalDenoiser, Schedule, sample
from debiaslib.diffusion.solvers import respaced_timesteps
from debiaslib.study.common import subset
from debiaslib.study.oracle_swap import as_denoiser, oracle_swap, oracle_swap_samples, swapped, swaps

SMOKE = Path(__file__).resolve().parents[1] / "smoke.yaml"
SHAPE, SCHEDULE = (3, 4, 4), Schedule.linear(T=1000)
FACTS = {"prediction_type": "sample", "shape": SHAPE, "steps": 10}


def images(count=6):
    return torch.randint(0, 256, (count, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8).numpy()


def test_above_is_asked_above_t_star_and_below_from_there_down():
    asked = {"above": [], "below": []}

    def denoiser(name):
        def answer(x_t, t):
            asked[name].append(int(t[0]))
            return torch.zeros_like(x_t)

        return answer

    sample(swapped(denoiser("above"), denoiser("below"), 600), SCHEDULE, [0], **FACTS)
    timesteps = respaced_timesteps(10, 1000)
    assert asked["above"] == [t for t in timesteps if t > 600] and asked["below"] == [t for t in timesteps if t <= 600]


def test_a_swap_with_itself_is_the_denoiser_alone():
    best = OptimalDenoiser(images(), SCHEDULE)
    alone = sample(best, SCHEDULE, range(3), **FACTS)
    assert np.array_equal(sample(swapped(best, best, 500), SCHEDULE, range(3), **FACTS), alone)
    # The exact optimum over a few images draws these images again.
    assert all((abs(image.astype(int) - images().astype(int)).max(axis=(1, 2, 3)) <= 1).any() for image in alone)


def test_a_network_of_epsilon_as_a_denoiser():
    x0, noise, t = torch.rand(2, *SHAPE) * 2 - 1, torch.randn(2, *SHAPE), torch.tensor([700, 700])
    x_t = SCHEDULE.add_noise(x0, noise, t)
    answer = as_denoiser(lambda x, t: noise, SCHEDULE, "epsilon")(x_t, t)
    assert torch.allclose(answer, x0, atol=1e-4)


def test_the_tables(smoke):
    study, table = smoke, oracle_swap(smoke)
    wanted = {(above, below, t, steps) for above, below, t in swaps(study.experiment) for steps in (2, 3)}
    assert set(zip(table.above, table.below, table.t_star, table.steps, strict=True)) == wanted
    assert {"colour_energy", "fd_pooled", "fd_minifaces"} <= set(table.metric) and table.value.notna().all()
    grid = oracle_swap_samples(study)
    assert grid["images"].shape == (9, 1, 8, 3, 16, 16) and grid["images"].dtype == np.uint8
    alone = ["constant | constant", "debiased | debiased", "optimum | optimum"]
    assert list(grid["names"])[:4] == [*alone, "optimum | constant"]


def test_the_optimum_below_returns_images_of_its_set_and_a_network_below_does_not(smoke):
    """At the last call, t = 0, an optimum over a set knows the image: it tells which of the two was asked there."""
    pool, grid = subset(smoke.images().images, smoke.experiment.optimum_images).astype(int), oracle_swap_samples(smoke)
    drawn = {str(name): images[0].astype(int) for name, images in zip(grid["names"], grid["images"], strict=True)}

    def known(name):
        return [bool((abs(pool - image).max(axis=(1, 2, 3)) <= 1).any()) for image in drawn[name]]

    for weighting in ("constant", "debiased"):
        assert all(known(f"{weighting} | optimum")) and not any(known(f"optimum | {weighting}"))
