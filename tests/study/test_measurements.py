"""The tables of an experiment at the smallest size: their columns and shapes, and their numbers made again by hand."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from debiaslib.diffusion.randomness import stream
from debiaslib.diffusion.sampling import sample
from debiaslib.errors import InputError
from debiaslib.files import read_json
from debiaslib.metrics.distances import evaluate
from debiaslib.metrics.features import load_extractor
from debiaslib.study import measurements
from debiaslib.study.samples import image_seeds
from debiaslib.study.study import open_study
from debiaslib.training import loop as training

SMOKE = Path(__file__).resolve().parents[1] / "smoke.yaml"
ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
SNR = ALPHA_BAR / (1 - ALPHA_BAR)


@pytest.fixture(scope="module")
def study(smoke):
    return smoke


def changed(study, **settings):
    return dataclasses.replace(study, experiment=dataclasses.replace(study.experiment, **settings))


def apart(study, folder):
    """The same study in a folder of its own, with the same trainings: the tables of other tests stay."""
    copy = dataclasses.replace(study, results=folder)
    copy.folder.mkdir()
    (copy.folder / "runs").symlink_to(study.folder / "runs")
    return copy


def refused(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# Weights: from the schedule alone


def test_weights_are_the_published_formulas_in_each_unit(study):
    table = measurements.weights(study)
    assert list(table.columns) == ["t", "snr", "weighting", "label", "prediction_type", "raw", "normalized", "share"]
    assert len(table) == 2 * 3 * 1000
    of_epsilon = {"constant": np.ones(1000), "debiased": 1 / np.sqrt(SNR)}
    unit = {"epsilon": 1, "sample": SNR, "v_prediction": SNR / (1 + SNR)}
    for (weighting, kind), part in table.groupby(["weighting", "prediction_type"]):
        assert part.t.tolist() == list(range(1000))
        share = np.cumsum(of_epsilon[weighting]) / of_epsilon[weighting].sum()
        raw = of_epsilon[weighting] * unit[kind]
        columns = {"snr": SNR, "raw": raw, "normalized": raw / of_epsilon[weighting].mean(), "share": share}
        for column, wanted in columns.items():
            assert np.allclose(part[column], wanted, rtol=1e-6, atol=0), column
        assert part.share.iloc[-1] == 1
        if kind == "epsilon":
            assert part.normalized.mean() == pytest.approx(1, abs=1e-6)
    debiased = table[(table.weighting == "debiased") & (table.prediction_type == "epsilon")]
    assert debiased.raw.mean() == pytest.approx(17.82, abs=0.005)  # the golden numbers of the linear schedule
    assert 1 - debiased.share.iloc[899] == pytest.approx(0.566, abs=0.001)
    assert set(table.label) == {"constant", "debiased"}


def test_the_differences_are_against_the_weighting_that_comes_first_now(study, tmp_path):
    measurements.mse(study)
    turned = apart(changed(study, weightings=("debiased", "constant"), swap_steps=(3, 2)), tmp_path)
    (turned.folder / "tables").mkdir()
    for name in ("mse.csv", "mse.csv.json"):
        (turned.folder / "tables" / name).write_bytes((study.folder / "tables" / name).read_bytes())
    of = measurements.mse(turned).query("t == 500 and quantity == 'x0_mse'").groupby("model").difference.first()
    assert of.debiased == 0 and of.constant != 0
    measurements.oracle_swap_samples(turned)
    note = read_json(turned.folder / "tables" / "oracle_swap_samples.npz.json")
    assert note["inputs"]["steps"] == 3  # the largest, as the curves have it


def test_weights_leave_out_a_timestep_without_signal(study, tmp_path):
    training = {**study.experiment.training, "zero_terminal_snr": True, "prediction_type": "v_prediction"}
    terminal = changed(study, training=training, notebooks=("06_fid_evaluation",))
    table = measurements.weights(apart(terminal, tmp_path))
    assert table.t.max() == 998 and (table.snr > 0).all() and np.isfinite(table.raw).all()
    debiased = table[(table.weighting == "debiased") & (table.prediction_type == "epsilon")]
    assert np.allclose(debiased.raw, debiased.snr**-0.5, rtol=1e-6)


# One step


@pytest.fixture(scope="module")
def one_step(study):
    return measurements.one_step(study)


def test_one_step_shapes(one_step):
    arrays = one_step
    shapes = {key: array.shape for key, array in arrays.items()}
    K, N, M = 3, 4, 3
    image = (3, 16, 16)
    assert shapes == {"t": (K,), "names": (M,), "x0": (N, *image), "x_t": (K, N, *image), "x0_hat": (M, K, N, *image),
                      "amplified_error": (M, K, N, *image), "residual": (M, K)}  # fmt: skip
    assert arrays["t"].tolist() == [50, 500, 900] and arrays["names"].tolist() == ["constant", "debiased", "optimum"]
    assert {arrays[key].dtype for key in ("x0", "x_t", "x0_hat", "amplified_error")} == {np.dtype("float32")}
    assert np.abs(arrays["x0"]).max() <= 1


def of_the_optimum(images):
    """256 images from all over the files, in their order."""
    return images[np.sort(torch.randperm(len(images), generator=stream(0, "subset"))[:256].numpy())]


def test_one_step_is_one_call_of_the_network(study, one_step):
    arrays = one_step
    x0 = arrays["x0"].astype(np.float64)
    images = of_the_optimum(study.images().images) / 127.5 - 1
    assert all(np.abs(images - image).max(axis=(1, 2, 3)).min() < 1e-6 for image in x0)  # of those of the optimum
    for k, t in enumerate((50, 500, 900)):
        a, s = ALPHA_BAR[t] ** 0.5, (1 - ALPHA_BAR[t]) ** 0.5
        noise = (arrays["x_t"][k] - a * x0) / s
        assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.05
        for m, weighting in enumerate(("constant", "debiased")):
            with torch.no_grad():
                output = study.model(weighting, 0)(torch.from_numpy(arrays["x_t"][k]), t).sample.double().numpy()
            x0_hat = (arrays["x_t"][k] - s * output) / a
            assert np.abs(arrays["x0_hat"][m, k] - x0_hat).max() < 1e-3 / a
    assert arrays["residual"].max() > 0
    assert (arrays["residual"] < 2e-6 / ALPHA_BAR[[50, 500, 900]] ** 0.5).all()  # float32's rounding of x_t, over a
    error = np.abs(arrays["x0"] - arrays["x0_hat"] - arrays["amplified_error"]).max(axis=(2, 3, 4, 5))
    assert np.allclose(error, arrays["residual"], rtol=1e-3, atol=1e-6)


def test_the_optimum_of_one_step_is_the_posterior_mean(study, one_step):
    arrays = one_step
    images = (of_the_optimum(study.images().images) / 127.5 - 1).reshape(256, -1)
    for k, t in enumerate((50, 500, 900)):
        x_t = arrays["x_t"][k].reshape(4, -1).astype(np.float64)
        exponent = -((x_t[:, None] - ALPHA_BAR[t] ** 0.5 * images) ** 2).sum(axis=2) / (2 * (1 - ALPHA_BAR[t]))
        p = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        mean = (p / p.sum(axis=1, keepdims=True)) @ images
        assert np.abs(arrays["x0_hat"][2, k].reshape(4, -1) - mean).max() < 1e-5


# Errors by timestep


@pytest.fixture(scope="module")
def mse(study):
    return measurements.mse(study)


def value(table, column="mean", **where):
    for key, wanted in where.items():
        table = table[table[key] == wanted]
    assert len(table) == 1, where
    return table[column].iloc[0]


def test_mse_columns_and_rows(mse):
    table = mse
    keys = {"split", "seed", "model", "t", "quantity"}
    assert set(table.columns) == keys | {"mean", "se", "n", "difference", "difference_se"}
    assert set(table.t) == {0, 100, 500, 999} and set(table.seed) == {0} and set(table.n) == {16}
    train, heldout = (table[table.split == split] for split in ("train", "heldout"))
    quantities = {"epsilon_mse", "x0_mse", "colour_mse", "excess", "colour_excess", "cross", "clipped_excess"}
    assert set(train.quantity) == quantities | {"floor"}
    assert set(heldout.quantity) == {"epsilon_mse", "x0_mse", "colour_mse"}  # no optimum, no floor
    assert set(train.model) == {"constant", "debiased", "initial", "optimum"}
    assert set(heldout.model) == {"constant", "debiased", "initial"}
    assert set(train[train.quantity == "floor"].model) == {"optimum"}
    assert len(train) == 4 * (3 * 7 + 3 + 1) and len(heldout) == 4 * 3 * 3
    assert np.isfinite(table.drop(columns=["split", "model", "quantity"])).all().all()


def errors_by_hand(study, split, weighting, t):
    """Per-image squared errors of one network: {quantity: (16,)}; held-out images have noise of their own."""
    images = study.images(split).images
    images = of_the_optimum(images) if split == "train" else images
    chosen = np.sort(torch.randperm(len(images), generator=stream(0, "subset"))[:16].numpy())
    x0 = images[chosen] / 127.5 - 1
    noise = torch.randn(16, 3, 16, 16, generator=stream(0 if split == "train" else 1, "mse", t)).double().numpy()
    a, s = ALPHA_BAR[t] ** 0.5, (1 - ALPHA_BAR[t]) ** 0.5
    x_t = a * x0 + s * noise
    with torch.no_grad():
        output = study.model(weighting, 0)(torch.from_numpy(x_t).float(), t).sample.double().numpy()
    x0_error = (x_t - s * output) / a - x0
    return {
        "epsilon_mse": ((output - noise) ** 2).mean(axis=(1, 2, 3)),
        "x0_mse": (x0_error**2).mean(axis=(1, 2, 3)),
        "colour_mse": (x0_error.mean(axis=(2, 3)) ** 2).mean(axis=1),
    }


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("t", [100, 999])
def test_means_errors_and_paired_differences_by_hand(study, split, t, mse):
    constant, debiased = (errors_by_hand(study, split, weighting, t) for weighting in ("constant", "debiased"))
    for quantity, errors in debiased.items():
        where = {"split": split, "t": t, "quantity": quantity, "model": "debiased"}
        difference = errors - constant[quantity]
        by_hand = {"mean": errors.mean(), "se": errors.std(ddof=1) / 4, "difference": difference.mean(),
                   "difference_se": difference.std(ddof=1) / 4}  # fmt: skip
        for column, wanted in by_hand.items():
            assert value(mse, column, **where) == pytest.approx(wanted, rel=2e-3, abs=1e-4 * errors.mean()), column


def test_error_is_floor_and_excess_and_a_term_that_averages_to_zero(mse):
    for model, t in itertools.product(("constant", "debiased", "initial"), (0, 100, 500, 999)):
        where = {"split": "train", "t": t, "model": model}
        x0_mse, excess, cross = (value(mse, quantity=name, **where) for name in ("x0_mse", "excess", "cross"))
        floor = value(mse, t=t, quantity="floor")
        assert x0_mse == pytest.approx(floor + excess + cross, rel=1e-4, abs=1e-9)  # float32
        assert abs(cross) <= 4.5 * value(mse, "se", quantity="cross", **where) + 1e-9


# Samples


@pytest.fixture(scope="module")
def samples(study):
    return {weighting: measurements.samples(study, weighting, 0) for weighting in ("constant", "debiased")}


def test_samples_by_steps(study, samples):
    arrays = samples["debiased"]
    assert {key: array.shape for key, array in arrays.items()} == {
        "steps": (3,),
        "seeds": (4,),
        "images": (3, 4, 3, 16, 16),
    }
    assert arrays["steps"].tolist() == [1, 2, 5] and arrays["seeds"].tolist() == [0, 1, 2, 3]
    assert arrays["images"].dtype == np.uint8
    settings = {"shape": (3, 16, 16), "steps": 5, "batch_size": 35}
    again = sample(study.model("debiased", 0), study.schedule, [3, 1], **settings)
    assert np.array_equal(again, arrays["images"][2, [3, 1]])  # whatever the order and number of seeds
    assert not np.array_equal(samples["constant"]["images"], arrays["images"])


def test_no_two_training_seeds_share_an_image():
    assert image_seeds(0, 5) == range(5)
    taken = [set(image_seeds(seed, 50_000)) for seed in (0, 1, 2, 100, 3999)]
    assert sum(map(len, taken)) == len(set().union(*taken))
    assert max(max(seeds) for seeds in taken) < 2**32


def test_samples_during_training(study, samples):
    arrays = measurements.training_samples(study, "debiased", 0)
    assert {key: array.shape for key, array in arrays.items()} == {
        "images_seen": (2,),
        "seeds": (4,),
        "images": (2, 4, 3, 16, 16),
    }
    assert arrays["images_seen"].tolist() == [80, 160]
    for i, seen in enumerate((80, 160)):
        again = sample(study.model("debiased", 0, seen), study.schedule, range(4), steps=2, batch_size=35)
        assert np.array_equal(arrays["images"][i], again)
    assert np.array_equal(arrays["images"][1], samples["debiased"]["images"][1])  # two steps, at the end


# Distances

COLUMNS = {"weighting", "variant", "seed", "network", "sampler", "steps", "images_seen", "metric", "value", "se",
           "features", "n", "n_reference", "library", "version", "extractor", "weights_sha256", "dtype",
           "batch"}  # fmt: skip
METRICS = {"fd_minifaces", "kid_minifaces", "precision", "recall"}


def by_minifaces(table):
    """The rows of one feature network; test_colour has the others."""
    return table[table.features == "minifaces"]


@pytest.fixture(scope="module")
def distances(study):
    return measurements.distances(study, "debiased", 0)


def test_a_row_for_each_metric_number_of_steps_and_snapshot(distances):
    assert set(distances.columns) == COLUMNS and np.isfinite(distances.value).all()
    table = by_minifaces(distances)
    settings = ("ema", "ddim"), ("ema", "ddpm"), ("raw", "ddim")
    final = {(network, sampler, 160, steps) for network, sampler in settings for steps in (2, 5)}
    jobs = final | {("ema", "ddim", 80, 2)}  # the last one and two steps are in both panels and made once
    keys = ["network", "sampler", "images_seen", "steps"]
    assert set(table[keys].itertuples(index=False, name=None)) == jobs and len(table) == len(jobs) * 4
    assert set(table.metric) == METRICS and (table.groupby(keys).metric.nunique() == 4).all()
    for column, only in {"weighting": "debiased", "seed": 0, "n": 70, "n_reference": 100,
                         "library": "torch-fidelity"}.items():  # fmt: skip
        assert set(table[column]) == {only}
    assert set(table[table.se.notna()].metric) == {"kid_minifaces"}
    assert table.weights_sha256.str.fullmatch("[0-9a-f]{64}").all()


@pytest.mark.parametrize(
    "network, sampler, seen, steps",
    [("ema", "ddim", 160, 5), ("raw", "ddim", 160, 5), ("ema", "ddpm", 160, 5), ("ema", "ddim", 80, 2)],
)
def test_a_distance_made_again(study, distances, network, sampler, seen, steps):
    model = study.model("debiased", 0, seen, raw=network == "raw")
    images = sample(model, study.schedule, range(70), sampler=sampler, steps=steps, batch_size=35)
    train = study.images().images
    chosen = np.sort(torch.randperm(len(train), generator=stream(0, "subset"))[:100].numpy())
    table = by_minifaces(distances)
    for row in evaluate(images, train[chosen], load_extractor("minifaces")):
        where = {"steps": steps, "metric": row["metric"], "network": network, "sampler": sampler, "images_seen": seen}
        assert value(table, "value", **where) == pytest.approx(row["value"], rel=1e-6)


def test_features_that_are_not_at_hand_are_left_out(study, monkeypatch, tmp_path):
    monkeypatch.setenv("DEBIASLIB_INCEPTION", str(tmp_path / "nothing.pth"))
    few = {"features": ("pooled",), "distance_steps": (2,), "snapshot_steps": (2,), "raw_weights": False}
    few |= {"further_samplers": ()}
    some = changed(apart(study, tmp_path), further_features=("minifaces", "inception"), **few)
    assert set(measurements.distances(some, "debiased", 0).features) >= {"pooled", "minifaces"}
    fewer = changed(some, distance_images=60)  # fewer than the 64 numbers of the further features
    assert "minifaces" not in set(measurements.distances(fewer, "debiased", 0).features)


def test_real_images_are_nearer_than_those_of_a_network_that_has_hardly_learned(study, distances):
    every = measurements.real_distances(study)
    assert set(every.columns) == COLUMNS and set(every.weighting) == {"real"} and set(every.n) == {70}
    assert every[["seed", "network", "sampler", "steps", "images_seen"]].isna().all().all()
    real, ours = by_minifaces(every), by_minifaces(distances)
    assert set(real.metric) == METRICS and len(real) == 4 and set(real.n_reference) == {100}
    where = {"steps": 5, "network": "ema", "sampler": "ddim", "metric": "fd_minifaces"}
    assert value(real, "value", metric="fd_minifaces") < value(ours, "value", **where)


def test_further_features_that_the_held_out_images_are_too_few_for_are_left_out(study, monkeypatch, tmp_path):
    some = changed(apart(study, tmp_path), features=("pooled",), further_features=("minifaces",))
    train, held = some.images(), some.images("heldout")
    held = dataclasses.replace(held, images=held.images[:60])  # fewer than the 64 numbers of the further features
    monkeypatch.setattr(type(some), "images", lambda self, split="train": train if split == "train" else held)
    found = measurements.real_distances(some)
    assert set(found.features) >= {"pooled"} and "minifaces" not in set(found.features) and set(found.n) == {60}


def test_without_held_out_images_none_of_earlier_ones_is_left(study, monkeypatch, tmp_path):
    some = apart(study, tmp_path)
    measurements.real_distances(some)
    assert (some.folder / "tables" / "distances-real.csv").exists()
    monkeypatch.setattr(type(some), "images", lambda self, split="train": None)
    assert measurements.real_distances(some) is None
    assert not list((some.folder / "tables").glob("distances-real*"))


# Made once, and again when it has to be


def never(*arguments, **options):
    raise AssertionError("it was made again")


TABLES = {
    "weights.csv": measurements.weights,
    "one_step.npz": measurements.one_step,
    "distances-debiased-s0.csv": lambda study: measurements.distances(study, "debiased", 0),
}


@pytest.mark.parametrize("name", TABLES)
def test_nothing_changed_nothing_is_made(study, name, monkeypatch):
    first = TABLES[name](study)
    path = study.folder / "tables" / name
    times = path.stat().st_mtime_ns, path.with_name(f"{name}.json").stat().st_mtime_ns
    monkeypatch.setattr(training, "Training", never)
    monkeypatch.setattr("debiaslib.store.atomic_path", never)  # what every table is written by
    second = TABLES[name](open_study(SMOKE, "", study.results))
    assert (path.stat().st_mtime_ns, path.with_name(f"{name}.json").stat().st_mtime_ns) == times
    if isinstance(first, pd.DataFrame):
        pd.testing.assert_frame_equal(first, second)
    else:
        assert first.keys() == second.keys() and all(np.array_equal(first[key], second[key]) for key in first)


def test_other_numbers_are_measured_again_and_nothing_is_trained(study, tmp_path, monkeypatch):
    """What else decides each table is in tests/reliability/test_stale_caches.py."""
    copy = changed(apart(study, tmp_path), curve_images=4)
    monkeypatch.setattr(training, "Training", never)
    assert set(measurements.mse(copy).n) == {4}
    path = copy.folder / "tables" / "mse.csv"
    before = path.read_bytes()
    measurements.mse(changed(copy, grid_images=3))  # which this table does not depend on
    assert path.read_bytes() == before
    measurements.mse(changed(copy, curve_images=5))
    assert path.read_bytes() != before and read_json(path.with_name("mse.csv.json"))["inputs"]["images"] == 5


# The command


def test_a_measurement_that_is_unknown_or_of_one_run(tmp_path):
    base = ["--experiment", str(SMOKE), "--results", str(tmp_path)]
    wrong = {"msee": "did you mean 'mse'?", "weights samples": "name its --weighting and --seed"}
    wrong["samples --weighting debased"] = "did you mean 'debiased'?"
    for arguments, said in wrong.items():
        assert said in refused(measurements.main, [*arguments.split(), *base])
    assert list(tmp_path.rglob("*.npz")) == list(tmp_path.rglob("*.csv")) == []
