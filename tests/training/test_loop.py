"""A training step as written out: batches, loss, gradients, learning rate, moving average; refusals of a bad loss."""

import collections
import copy
import dataclasses
import functools
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from debiaslib import provenance
from debiaslib.data.images import load_images
from debiaslib.diffusion.randomness import stream
from debiaslib.errors import InputError
from debiaslib.training import loop, objective
from debiaslib.training.checkpoints import load_checkpoint
from debiaslib.training.config import TrainConfig
from debiaslib.training.log import TrainingLog
from debiaslib.training.loop import Training, train
from debiaslib.training.network import build_network
from debiaslib.training.run import find_run
from tests.training.tiny import BATCH, STEPS, STILL, config, equal, quietly

ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
pytestmark = pytest.mark.usefixtures("rows_of_four_steps")


@pytest.fixture
def one_step(settings):
    """Settings of a training of one step, without what is random besides the batch."""
    still = {"network": STILL, "images": BATCH, "snapshots": [], "horizontal_flip": False, "weight_decay": 0.0}
    return {**settings, **still}


def training_of(config, results):
    return Training(find_run("test", "debiased", 0, results), config, load_images(config.dataset, 8))


# The loss


def first_batch(config, images):
    """The images, timesteps and noise of the first step, drawn as the contract says: from (seed, purpose, step)."""
    index = torch.randint(len(images), (config.batch_size,), generator=stream(config.seed, "images", 0))
    t = torch.randint(1000, (config.batch_size,), generator=stream(config.seed, "timesteps", 0))
    x0 = torch.from_numpy(np.array(images)[index.numpy()]).double() / 127.5 - 1
    noise = torch.randn(x0.shape, generator=stream(config.seed, "noise", 0)).double()
    return x0, t, noise


def network64(config):
    network = build_network(config).double()
    del network.conv_out.forward  # the one that insists on float32
    return network


WEIGHTS = {  # of the epsilon error
    "constant": lambda S: np.ones_like(S),
    "debiased": lambda S: 1 / np.sqrt(S),
    "p2(k=1,gamma=1)": lambda S: 1 / (1 + S),
    "min_snr(gamma=5)": lambda S: np.minimum(S, 5) / S,
}


def by_hand(config, x0, t, noise):
    """(loss, mse, network) in float64, the loss with its graph."""
    network = network64(config)
    ab = torch.from_numpy(ALPHA_BAR[t.numpy()]).view(-1, 1, 1, 1)
    S = ALPHA_BAR[t.numpy()] / (1 - ALPHA_BAR[t.numpy()])
    target = {
        "epsilon": noise,
        "sample": x0,
        "v_prediction": ab.sqrt() * noise - (1 - ab).sqrt() * x0,
    }[config.prediction_type]
    unit = {"epsilon": 1, "sample": S, "v_prediction": S / (1 + S)}[config.prediction_type]
    output = network(ab.sqrt() * x0 + (1 - ab).sqrt() * noise, t).sample
    loss = 0
    for i, weight in enumerate(WEIGHTS[config.weighting](S) * unit):
        loss = loss + weight * ((output[i] - target[i]) ** 2).mean() / len(t)
    return loss, ((output - target) ** 2).mean().item(), network


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize("weighting", WEIGHTS)
def test_the_first_step_by_hand(one_step, tmp_path, weighting, kind):
    """The loss, its unweighted error, all gradients (read from AdamW's first moment) and the step that AdamW takes."""
    run = quietly(one_step, tmp_path, weighting=weighting, prediction_type=kind, lr_decay="none")
    made = TrainConfig(**{**one_step, "weighting": weighting, "prediction_type": kind})
    loss, mse, network = by_hand(made, *first_batch(made, load_images(made.dataset, 8).images))
    loss.backward()
    (row,) = run.log()
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-5) and row["mse"] == pytest.approx(mse, rel=1e-5)
    norm = math.sqrt(sum(p.grad.square().sum().item() for p in network.parameters()))
    assert row["grad_norm"] == pytest.approx(norm, rel=1e-4)
    state = load_checkpoint(run.folder / "checkpoints")[1]
    for i, (name, parameter) in enumerate(network.named_parameters()):
        moment = state["optimizer"]["state"][i]["exp_avg"].double()
        assert (moment / 0.1 - parameter.grad).abs().max() < 1e-4 * norm, name
        large = parameter.grad.abs() > 1e-3 * norm  # Adam's first step is lr in the direction of the sign
        moved = parameter.detach() - made.lr * parameter.grad.sign()
        assert torch.allclose(state["network"][name].double()[large], moved[large], rtol=0, atol=1e-5), name


def test_the_weight_is_normalised_and_bounded_as_asked(one_step, tmp_path):
    """The debiased weight of epsilon: its mean over the 1000 steps is 17.82; bounded at 2 before that."""
    made = TrainConfig(**one_step)
    x0, t, noise = first_batch(made, load_images(made.dataset, 8).images)
    table = ((1 - ALPHA_BAR) / ALPHA_BAR) ** 0.5
    plain = quietly(one_step, tmp_path / "plain").log()[0]
    normalised = quietly(one_step, tmp_path / "normalised", normalize_weight=True).log()[0]
    assert plain["loss"] / normalised["loss"] == pytest.approx(table.mean(), rel=1e-5)
    bounded = quietly(one_step, tmp_path / "bounded", max_weight=2.0).log()[0]
    with torch.no_grad():
        ab = torch.from_numpy(ALPHA_BAR[t.numpy()]).view(-1, 1, 1, 1)
        output = network64(made)(ab.sqrt() * x0 + (1 - ab).sqrt() * noise, t).sample
    error = (output - noise).square().flatten(1).mean(dim=1).numpy()
    assert table[t.numpy()].max() > 2
    assert bounded["loss"] == pytest.approx((np.minimum(table[t.numpy()], 2) * error).mean(), rel=1e-4)


# Microbatches


@pytest.mark.parametrize("more", [{}, {"learned_variance": True}, {"max_grad_norm": 0.5}])
@pytest.mark.parametrize("size", [1, 3, 4])
def test_microbatches_give_the_whole_batchs_numbers(settings, tmp_path, size, more):
    """To rounding: the gradient of one batch, then the log of a training. Of 4 images, 3 leave one over."""
    more = {**more, "network": STILL}
    whole, parts = (TrainConfig(**{**settings, **more, "microbatch": m}) for m in (None, size))
    one, other = training_of(whole, tmp_path / "a"), training_of(parts, tmp_path / "b")
    means = [training.backward(training.batches(0)) for training in (one, other)]
    torch.testing.assert_close(*means, rtol=1e-5, atol=1e-7)
    largest = max(p.grad.abs().max() for p in one.parameters)
    for a, b in zip(one.parameters, other.parameters, strict=True):
        assert (a.grad - b.grad).abs().max() <= 1e-5 * largest
    few = [dataclasses.replace(c, images=5 * BATCH, snapshots=()) for c in (whole, parts)]
    logs = [train(c, tmp_path / str(i), "t", progress=False).log() for i, c in enumerate(few)]
    for a, b in zip(*logs, strict=True):
        assert [b[key] for key in ("loss", "mse", "grad_norm")] == pytest.approx(
            [a[key] for key in ("loss", "mse", "grad_norm")], rel=1e-3
        )


def test_a_microbatch_is_what_the_network_sees_at_once(settings, tmp_path, monkeypatch):
    calls, _ = seen({**settings, "batch_size": 8}, tmp_path, monkeypatch, microbatch=3)
    assert [len(t) for _, t in calls] == [3, 3, 2] * 3
    with pytest.raises(InputError, match="microbatch is 9; it must be a whole number >= 1 and <= 4"):
        TrainConfig(**settings, microbatch=9)


# All weightings of a seed see the same


def seen(settings, results, monkeypatch, **more):
    """What the network is shown in each step; a look at the coming one, before a checkpoint, has no gradients."""
    calls, call = [], objective.network_output

    def spy(network, x_t, t, labels=None):
        if torch.is_grad_enabled():
            calls.append((x_t.clone(), t.clone()))
        return call(network, x_t, t, labels)

    with monkeypatch.context() as patch:
        patch.setattr(objective, "network_output", spy)
        run = quietly(settings, results, images=5 * BATCH, snapshots=[], **more)
    return calls, run


def test_weightings_of_one_seed_see_the_same_and_other_seeds_see_other(settings, tmp_path, monkeypatch):
    shown = {w: seen(settings, tmp_path, monkeypatch, weighting=w) for w in WEIGHTS}
    reference = shown["constant"][0]
    assert len(reference) == 5
    for calls, _ in shown.values():
        assert equal(calls, reference)
    firsts = {w: run.log()[0] for w, (_, run) in shown.items()}
    assert firsts["debiased"]["loss"] != firsts["constant"]["loss"] != firsts["p2(k=1,gamma=1)"]["loss"]
    other, _ = seen(settings, tmp_path, monkeypatch, weighting="constant", seed=1)
    for (x, t), (x_other, t_other) in zip(reference, other, strict=True):
        assert not torch.equal(t, t_other) and (x - x_other).abs().max() > 0.5
    for (x, _), (x_next, _) in zip(reference, reference[1:], strict=False):
        assert (x - x_next).abs().max() > 0.5


def test_images_are_flipped_half_of_the_time_if_asked(settings, tmp_path):
    whole = torch.from_numpy(np.array(load_images(settings["dataset"], 8).images)).float() / 127.5 - 1
    batches = {}
    for flip in (True, False):
        made = TrainConfig(**{**settings, "horizontal_flip": flip, "batch_size": 80, "images": 80, "snapshots": []})
        batches[flip] = training_of(made, tmp_path).batches(0)
    (flipped, t, noise, labels), (plain, t_plain, noise_plain, _) = batches[True], batches[False]
    assert labels is None and torch.equal(t, t_plain) and torch.equal(noise, noise_plain)
    assert all(any(torch.equal(one, image) for image in whole) for one in plain)
    turned = [torch.equal(one, other.flip(-1)) for one, other in zip(flipped, plain, strict=True)]
    kept = [torch.equal(one, other) for one, other in zip(flipped, plain, strict=True)]
    assert all(a != b for a, b in zip(turned, kept, strict=True)) and 20 < sum(turned) < 60


# The optimiser


@pytest.mark.parametrize(("bound", "clipped"), [(None, False), (1.0, True), (1e6, False)])
def test_gradients_are_clipped_only_if_asked(one_step, tmp_path, bound, clipped):
    run = quietly(one_step, tmp_path, weighting="inverse_snr", max_grad_norm=bound)
    moments = load_checkpoint(run.folder / "checkpoints")[1]["optimizer"]["state"].values()
    used = math.sqrt(sum((moment["exp_avg"].double() / 0.1).square().sum().item() for moment in moments))
    (row,) = run.log()
    assert row["grad_norm"] > 2  # the norm before clipping is what is logged
    assert used == pytest.approx(1.0 if clipped else row["grad_norm"], rel=1e-4)


def taken(settings, results, monkeypatch, **more):
    """(learning rate, parameters after the step) of each step, and the run."""
    steps, one = [], loop.Training.one_step

    def spy(self):
        one(self)
        (rate,) = {group["lr"] for group in self.optimizer.param_groups}
        steps.append((rate, [p.detach().double().clone() for p in self.network.parameters()]))

    with monkeypatch.context() as patch:
        patch.setattr(loop.Training, "one_step", spy)
        run = quietly(settings, results, **more)
    return steps, run


@pytest.mark.parametrize("decay", ["none", "cosine"])
def test_the_learning_rate_and_its_log(settings, tmp_path, monkeypatch, decay):
    steps, run = taken(settings, tmp_path, monkeypatch, lr_decay=decay)
    for i, (rate, _) in enumerate(steps):
        factor = 1 if decay == "none" else (1 + math.cos(math.pi * i / STEPS)) / 2
        assert rate == pytest.approx(2e-3 * factor)
    for row in run.log():
        assert row["lr"] == steps[row["step"] - 1][0]


@pytest.mark.parametrize("limit", [0.8, 0.3])
def test_the_average_of_the_weights_with_its_warm_up(settings, tmp_path, monkeypatch, limit):
    """The first update copies; the n-th keeps min(limit, n / (9 + n)): diffusers counts the updates before it."""
    steps, run = taken(settings, tmp_path, monkeypatch, ema_decay=limit, lr_decay="none")
    average, kept, decays = None, {}, []
    for n, (_, weights) in enumerate(steps, start=1):
        decays.append(0.0 if n == 1 else min(limit, n / (9 + n)))
        if average is None:
            average = copy.deepcopy(weights)
        else:
            average = [decays[-1] * a + (1 - decays[-1]) * w for a, w in zip(average, weights, strict=True)]
        kept[n * BATCH] = average
    assert max(decays) == (limit if limit == 0.3 else 21 / 30)
    names = [name for name, _ in build_network(TrainConfig(**settings)).named_parameters()]
    for images in (20, 48, 84):
        saved = load_file(run.snapshot(images))
        for name, expected in zip(names, kept[images], strict=True):
            assert (saved[name].double() - expected).abs().max() < 1e-6
    assert any((a - w).abs().max() > 1e-4 for a, w in zip(average, steps[-1][1], strict=True))
    for row in run.log():
        assert row["ema_decay"] == pytest.approx(decays[row["step"] - 1])


# A loss that is not finite


def test_a_loss_that_is_not_finite_stops_there(settings, tmp_path):
    with pytest.raises(InputError) as caught:
        quietly(settings, tmp_path, checkpoint_seconds=0, lr=1e30)
    said = str(caught.value)
    step = int(said.split("is not finite at step ")[1].split()[0])
    assert said.startswith("the loss of debiased-s0 is not finite at step ") and "lower lr=1e+30" in said
    assert "\n" not in said and step == 2
    run = find_run("test", "debiased", 0, tmp_path)
    last, state = load_checkpoint(run.folder / "checkpoints")
    assert last == step - 1 and said.endswith("the last checkpoint is kept")
    assert all(tensor.isfinite().all() for tensor in state["network"].values())
    assert run.record is None and json.loads((run.folder / "config.json").read_text())["lr"] == 1e30
    with pytest.raises(InputError, match=f"not finite at step {step} "):  # again, from the checkpoint
        quietly(settings, tmp_path, checkpoint_seconds=0, lr=1e30)


def log_of(delay, tmp_path):
    made = TrainingLog(find_run("test", "debiased", 0, tmp_path), config(lr=0.1, batch_size=1, images=37))
    assert made.delay == 1
    made.delay = delay
    return made


@pytest.mark.parametrize("delay", [1, 16, 100])
def test_a_late_fetch_changes_no_bit_and_misses_nothing(delay, tmp_path):
    values = torch.rand(37, 3, generator=torch.Generator().manual_seed(0))
    made, wanted = log_of(delay, tmp_path), torch.zeros(3, dtype=torch.float64)
    for step, row in enumerate(values, 1):
        made.add(step, row)
        wanted += row.double()
    made.flush(), made.flush()
    assert torch.equal(made.total, wanted)
    values[5:, 2] = math.inf
    with pytest.raises(InputError, match="the loss of debiased-s0 is not finite at step 6 .* lower lr=0.1 "):
        made = log_of(delay, tmp_path)
        for step, row in enumerate(values, 1):
            made.add(step, row)
        made.flush()


def test_the_callers_random_state_is_left_alone(settings, tmp_path):
    """A cell that trains and then draws must give the same numbers when the training is there already."""
    drawn = []
    for _ in range(2):
        torch.manual_seed(0)
        train(TrainConfig(**settings), tmp_path, progress=False)
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)


def test_the_callers_number_of_threads_comes_back(settings, tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        train(TrainConfig(**settings), tmp_path, progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_a_record_names_the_commit_that_its_training_began_with(settings, tmp_path, monkeypatch):
    states = iter([{"commit": "began", "clean": True}, {"commit": "ended", "clean": True}])
    monkeypatch.setattr(provenance, "git_state", functools.cache(lambda: next(states)))
    step = Training.one_step

    def commits_meanwhile(training):
        assert provenance.git_state.cache_info().currsize == 1
        step(training)

    monkeypatch.setattr(Training, "one_step", commits_meanwhile)
    assert train(TrainConfig(**settings), tmp_path, progress=False).record["commit"] == "began"


# Precision


def test_bfloat16_leaves_the_weights_and_the_output_layer_in_float32(settings, tmp_path, monkeypatch):
    dtypes, results = {}, {}

    def watched(config):
        network = build_network(config)
        for name in ("conv_in", "conv_out"):
            getattr(network, name).register_forward_hook(
                lambda module, given, answer, name=name: dtypes.update({name: answer.dtype})
            )
        return network

    monkeypatch.setattr(loop, "build_network", watched)
    for precision in ("float32", "bfloat16"):
        dtypes.clear()
        results[precision] = quietly(settings, tmp_path / precision, precision=precision)
        lowered = torch.bfloat16 if precision == "bfloat16" else torch.float32
        assert dtypes == {"conv_in": lowered, "conv_out": torch.float32}
    state = load_checkpoint(results["bfloat16"].folder / "checkpoints")[1]
    assert {tensor.dtype for tensor in state["network"].values()} == {torch.float32}
    assert {moment["exp_avg"].dtype for moment in state["optimizer"]["state"].values()} == {torch.float32}
    low, full = (results[p].log()[0]["mse"] for p in ("bfloat16", "float32"))
    assert low != full and low == pytest.approx(full, rel=0.02)


def test_a_trainings_configuration_is_handed_to_few_files(tmp_path):
    """The loop hands it on; no file gets it again and again. Its own file is left out."""
    handed, package = collections.Counter(), Path(loop.__file__).parents[1]

    def watch(frame, event, _):
        code, caller = frame.f_code, frame.f_back
        if event != "call" or not code.co_filename.startswith(f"{package}/"):
            return  # at once: it is asked at every call of torch, too
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        inside = code.co_filename != caller.f_code.co_filename
        if inside and any(isinstance(frame.f_locals.get(n), TrainConfig) for n in names):
            handed[Path(code.co_filename).relative_to(package).as_posix()] += 1

    given, before = config(), sys.getprofile()
    sys.setprofile(watch)
    try:
        train(given, tmp_path, progress=False)
    finally:
        sys.setprofile(before)
    del handed["training/config.py"]
    assert handed["training/loop.py"] == 1 and handed["training/network.py"] >= 1
    assert len(handed) + 1 < 12 and max(handed.values()) <= 3, handed
