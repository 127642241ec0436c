"""The measurements of an experiment with variants, at the smallest size: errors by hand, and the tables' contents."""

import math

import pandas as pd
import pytest

from debiaslib.diffusion.one_step import mse_by_timestep
from debiaslib.diffusion.sampling import sample
from debiaslib.files import read_json
from debiaslib.metrics.distances import evaluate
from debiaslib.metrics.features import load_extractor
from debiaslib.study import controls, measurements
from debiaslib.study.common import measured_images, subset
from debiaslib.study.study import open_study

EXPERIMENT = """
preset: minifaces16
weightings: [constant, debiased]
variants: ["debiased; lr=0.004", "constant; lr=0.004", "constant; prediction_type=sample"]
seeds: [0, 1]
notebooks: [07_controls]
features: [pooled]
raw_weights: true
training: {images: 32, batch_size: 16, network: {block_out_channels: [8, 8, 8], norm_num_groups: 4}}
optimum_images: 128
shown_timesteps: [50, 900]
curve_images: 8
sampling_batch_size: 50
distance_steps: [5]
distance_images: 50
snapshot_steps: [5]
reference_images: 64
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("controls")
    (folder / "tiny.yaml").write_text(EXPERIMENT)
    return open_study(folder / "tiny.yaml", "", folder)


@pytest.fixture(scope="module")
def errors(study):
    return measurements.arm_errors(study)


@pytest.mark.parametrize(
    "arm, raw, kind",
    [
        ("constant; prediction_type=sample", False, "sample"),
        ("debiased; lr=0.004", False, "epsilon"),
        ("debiased", True, "epsilon"),
    ],
)
def test_an_error_is_that_of_the_arms_own_network_and_prediction(study, errors, arm, raw, kind):
    x0, network = measured_images(study, 8)[0], study.model(arm, 1, raw=raw)
    by_hand = mse_by_timestep({"it": network}, x0, [50, 900], study.schedule, prediction_type=kind)
    by_hand = by_hand[(by_hand.model == "it") & (by_hand.quantity == "x0_mse")].groupby("t").value.mean()
    weighting, _, variant = arm.partition("; ")
    found = errors[(errors.weighting == weighting) & (errors.variant == variant) & (errors.seed == 1)]
    found = found[(found.network == ("raw" if raw else "ema")) & (found.quantity == "x0_mse")].set_index("t").value
    assert found.to_dict() == pytest.approx(by_hand.to_dict(), rel=1e-6)


def test_the_samples_of_a_training_seed_start_from_noise_of_their_own(study):
    measurements.arm_outcomes(study)  # it makes the distances
    images = sample(study.model("constant", 1), study.schedule, range(10**6, 10**6 + 50), steps=5, batch_size=50)
    wanted = evaluate(images, subset(study.images().images, 64), load_extractor("pooled"))[0]
    table = pd.read_csv(study.folder / "tables" / "distances-constant-s1.csv")
    found = table[(table.metric == wanted["metric"]) & (table.network == "ema")].value.item()
    assert found == pytest.approx(wanted["value"], rel=1e-6)


def test_the_contrasts_and_the_sweep_are_those_of_the_outcomes(study):
    outcomes, ratios = measurements.arm_outcomes(study), measurements.control_ratios(study)
    pd.testing.assert_frame_equal(ratios, controls.contrasts(outcomes), check_exact=False, rtol=1e-4)
    value = outcomes[(outcomes.network == "ema") & (outcomes.outcome == "x0_mse, t = 900")].set_index(["arm", "seed"])
    logs = [math.log(value.value["debiased", seed] / value.value["constant", seed]) for seed in (0, 1)]
    published = ratios[(ratios.condition == "baseline") & (ratios.outcome == "x0_mse, t = 900")]
    assert published.ratio.item() == pytest.approx(math.exp(sum(logs) / 2), rel=1e-4)
    rates = measurements.learning_rates(study)
    assert set(rates.lr) == {0.002, 0.004} and set(rates.n) == {2}


def test_a_table_is_made_from_the_experiments_own_runs_alone(study):
    measurements.control_ratios(study)
    stale = study.folder / "tables" / "distances-inverse_snr-s0.csv"
    before = read_json(study.folder / "tables" / "controls.csv.json")
    stale.write_text("metric,value\n")
    measurements.control_ratios(study)
    assert read_json(study.folder / "tables" / "controls.csv.json") == before
    assert stale.name not in before["inputs"]["tables"] and len(before["inputs"]["tables"]) == 10 + 1
