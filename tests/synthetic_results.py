"""Tables of an experiment that nobody trained, in the real ones' formats, so that every figure can be drawn at once."""

import itertools
import json

import numpy as np
import pandas as pd

from debiaslib.data.minifaces import render
from debiaslib.diffusion.strategies import parse_strategy
from debiaslib.study.controls import OUTCOMES
from debiaslib.training.config import run_name

WEIGHTINGS = ("constant", "debiased", "p2(k=1,gamma=1)", "min_snr(gamma=5)")
TIMESTEPS = [0, 10, 25, 50, 100, 150, 200, 300, 400, 500, 600, 700, 800, 850, 900, 950, 999]
SHOWN = [50, 200, 400, 600, 700, 800, 900, 999]
STEPS = [2, 3, 4, 5, 10, 50, 100]
SEEN = [16_000, 32_000, 64_000, 96_000, 128_000]
ALPHA_BAR = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
SNR = ALPHA_BAR / (1 - ALPHA_BAR)
_QUALITY = {"constant": 1.0, "debiased": 0.35, "p2": 0.55, "min_snr": 0.7}


def write_synthetic_results(folder, seeds=(0,), weightings=WEIGHTINGS, resolution=16, heldout=True, real=True):
    """Write tables/ and runs/*/log.jsonl below `folder`, the same bytes for the same arguments. Returns `folder`."""
    weightings = tuple(str(parse_strategy(w)) for w in weightings)
    tables, rng = folder / "tables", np.random.default_rng(0)
    tables.mkdir(parents=True, exist_ok=True)
    _weights(weightings).to_csv(tables / "weights.csv", index=False)
    _mse(weightings, seeds, ["train", "heldout"] if heldout else ["train"], rng).to_csv(tables / "mse.csv", index=False)
    _bias(weightings, seeds).to_csv(tables / "bias.csv", index=False)
    _one_step(tables / "one_step.npz", weightings, resolution, rng)
    ratios, rates = _controls(seeds, np.random.default_rng(1))
    ratios.to_csv(tables / "controls.csv", index=False)
    rates.to_csv(tables / "learning_rates.csv", index=False)
    for weighting in weightings:
        for seed in seeds:
            _one_run(folder, weighting, seed, resolution, rng)
    if real:
        values = {"fd_minifaces": 0.11, "kid_minifaces": 0.0004, "precision": 0.93, "recall": 0.95}
        rows = [_distance("real", None, None, None, metric, value) for metric, value in values.items()]
        pd.DataFrame(rows).to_csv(tables / "distances-real.csv", index=False)
    return folder


def write_swap(folder):
    """Write the two tables of the oracle swap below `folder`, two seeds and two numbers of steps. Returns `folder`."""
    tables, t_star, who = folder / "tables", (300, 700), ("constant", "debiased", "optimum")
    tables.mkdir(parents=True, exist_ok=True)
    alone, pairs = [(one, one) for one in who], list(itertools.permutations(who, 2))
    rows = [
        {"above": a, "below": b, "t_star": t, "seed": seed, "steps": steps, "metric": metric, "value": 2.0 + seed,
         "n": 500}
        for a, b in (*alone, *pairs) for t in (t_star if a != b else (-1,)) for seed in (0, 1) for steps in (10, 50)
        for metric in ("colour_w1", "layout_energy", "fd_minifaces")
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tables / "oracle_swap.csv", index=False)
    images = render(range(9 * 2 * 8), 16).reshape(9, 2, 8, 3, 16, 16)
    names = np.array([" | ".join(pair) for pair in (*alone, *pairs)])
    np.savez_compressed(tables / "oracle_swap_samples.npz", names=names, t_star=t_star, images=images)
    return folder


def quality(weighting):
    """How wrong a synthetic network is: 1 for constant, less for the others."""
    return _QUALITY.get(parse_strategy(weighting).name, 0.8)


def _weights(weightings):
    forms = {"constant": np.ones_like, "debiased": lambda s: s**-0.5, "p2": lambda s: 1 / (1 + s)}
    forms |= {"inverse_snr": lambda s: 1 / s, "min_snr": lambda s: np.minimum(1, 5 / s)}
    units = {"epsilon": np.ones(1000), "sample": SNR, "v_prediction": SNR / (1 + SNR)}
    frames = []
    for weighting in weightings:
        strategy = parse_strategy(weighting)
        epsilon = forms.get(strategy.name, lambda s: np.maximum(1, 1 / s))(SNR)
        for unit, factor in units.items():
            raw = epsilon * factor
            facts = {"weighting": weighting, "label": strategy.label, "prediction_type": unit}
            columns = {"raw": raw, "normalized": raw / epsilon.mean(), "share": epsilon.cumsum() / epsilon.sum()}
            frames.append(pd.DataFrame({"t": range(1000), "snr": SNR, **facts, **columns}))
    return pd.concat(frames)


def _mse(weightings, seeds, splits, rng):
    snr = SNR[TIMESTEPS]
    floor = 0.25 / (1 + snr) ** 0.75
    initial = {"epsilon_mse": 1 / snr**0.3, "x0_mse": 1 / (1 + snr), "colour_mse": 0.05 / (1 + snr)}
    rows = []
    for split in splits:
        for seed in seeds:
            base = None
            for model in (*weightings, "initial", *(["optimum"] if split == "train" else [])):
                if model == "initial":
                    values = initial
                else:
                    left = np.zeros(len(snr)) if model == "optimum" else _left(quality(model), snr, rng)
                    x0_mse = floor + left
                    values = {"x0_mse": x0_mse, "epsilon_mse": x0_mse * snr, "colour_mse": floor / 9 + left / 4}
                    if split == "train" and model != "optimum":
                        values |= {"excess": left, "colour_excess": left / 4}
                base = base or values
                rows += [
                    _error(split, seed, model, quantity, value, base[quantity]) for quantity, value in values.items()
                ]
            if split == "train":
                rows.append(_error(split, seed, "optimum", "floor", floor, np.full(len(floor), np.nan)))
    return pd.concat(rows)


def _left(wrong, snr, rng):
    """The excess of a network over the optimum, by t."""
    return wrong * (0.02 + 0.3 / snr**0.75) * rng.lognormal(0, 0.1, len(snr)) + 0.002 / max(wrong, 0.1)


def _error(split, seed, model, quantity, mean, base):
    facts = {"split": split, "seed": seed, "model": model, "t": TIMESTEPS, "quantity": quantity}
    paired = {"difference": mean - base, "difference_se": mean * 0.03}
    return pd.DataFrame({**facts, "mean": mean, "se": mean * 0.06, "n": 256, **paired})


def _bias(weightings, seeds):
    """bias.csv as `debiaslib.study.bias` writes it; a third of the excess is a variance over seeds."""
    columns = ["quantity", "split", "model", "t", "frequency", "weight", "value", "se", "n"]
    rows = []
    for t, model in itertools.product(TIMESTEPS, weightings if len(seeds) > 1 else ()):
        excess = quality(model) * (0.002 + 0.3 / SNR[t] ** 0.75)
        for quantity, share in (("excess_common", 0.67), ("excess_between", 0.33)):
            for frequency, weight, power in ((None, 1.0, share * excess), (0, 1 / 256, 100 * share * excess)):
                rows.append([quantity, "train", model, t, frequency, weight, power, power / 20, 256])
    return pd.DataFrame(rows, columns=columns)


def _faces(first, count, resolution):
    return render(range(first, first + count), resolution).astype(np.float32) / 127.5 - 1


def _one_step(path, weightings, resolution, rng):
    x0, names = _faces(0, 8, resolution), [*weightings, "optimum"]
    signal = np.sqrt(ALPHA_BAR[SHOWN])[:, None, None, None, None]
    blur = np.clip(0.9 / SNR[SHOWN] ** 0.5 / 20, 0, 1)[:, None, None, None, None]
    x_t = signal * x0 + np.sqrt(1 - signal**2) * rng.standard_normal((len(SHOWN), *x0.shape))
    best = (1 - blur) * x0 + blur * x0.mean(axis=0)
    cast = rng.standard_normal((len(SHOWN), 8, 3, 1, 1)) * blur * 3
    texture = rng.standard_normal((len(SHOWN), *x0.shape)) * blur
    x0_hat = np.stack([best if n == "optimum" else best + quality(n) * (cast + texture) for n in names]).astype(
        np.float32
    )
    arrays = {"x0": x0, "x_t": x_t.astype(np.float32), "x0_hat": x0_hat, "amplified_error": x0 - x0_hat}
    residual = np.full((len(names), len(SHOWN)), 3e-6)
    np.savez_compressed(path, t=SHOWN, names=np.array(names), **arrays, residual=residual)


def _one_run(folder, weighting, seed, resolution, rng):
    name, tables = run_name(weighting, seed), folder / "tables"
    cast = rng.standard_normal((8, 3, 1, 1)) * quality(weighting)

    def cast_images(amounts):
        images = np.stack([_faces(100, 8, resolution) + amount * cast for amount in amounts])
        return np.rint((images.clip(-1, 1) + 1) * 127.5).astype(np.uint8)

    np.savez_compressed(
        tables / f"samples-{name}.npz", steps=STEPS, seeds=range(8), images=cast_images([2 / s**0.5 for s in STEPS])
    )
    np.savez_compressed(
        tables / f"training-{name}.npz", images_seen=SEEN, seeds=range(8), images=cast_images([3e4 / s for s in SEEN])
    )
    rows = []
    for seen, steps in [(SEEN[-1], s) for s in (5, 10, 20, 50, 100)] + [(s, 20) for s in SEEN[:-1]]:
        fd = quality(weighting) ** 2 * 30 * (1 + 4 / steps) * (SEEN[-1] / seen) ** 0.7 * rng.lognormal(0, 0.12)
        values = {"fd_minifaces": fd, "kid_minifaces": fd / 300, "precision": 1 - fd / 200, "recall": 0.9 - fd / 150}
        values |= {"colour_w1": 5 + fd**0.5, "layout_energy": fd**0.5 - 0.1}
        values |= {f"{what}_{c}": fd / 40 for what in ("mean", "spread") for c in ("red", "green", "blue")}
        rows += [_distance(weighting, seed, steps, seen, metric, value) for metric, value in values.items()]
    pd.DataFrame(rows).to_csv(tables / f"distances-{name}.csv", index=False)
    _log(folder / "runs" / name / "log.jsonl", rng)


def _distance(weighting, seed, steps, seen, metric, value):
    drawn = {"network": None, "sampler": None} if seed is None else {"network": "ema", "sampler": "ddim"}
    facts = {"weighting": weighting, "variant": "", "seed": seed, **drawn, "steps": steps, "images_seen": seen}
    colour = metric.startswith(("colour", "layout", "mean", "spread"))
    measured = {"metric": metric, "value": value, "se": value * 0.05 if metric.startswith("kid") else None}
    of = {"features": "colour" if colour else "minifaces", "n": 500, "n_reference": 2048, "library": "torch-fidelity"}
    return {**facts, **measured, **of}


def _controls(seeds, rng):
    """(controls.csv, learning_rates.csv) as `debiaslib.study.controls` writes them."""
    ratios, rates = [], []
    for outcome in OUTCOMES:
        for condition in ("baseline", "each at its best learning rate", "lr 0.0005", "max_grad_norm 1"):
            ratio, spread = rng.lognormal(-0.8, 0.5), 1.3 if len(seeds) > 1 else np.nan
            row = {"condition": condition, "arm": "debiased", "baseline": "constant", "network": "ema"}
            bounds = {"ratio": ratio, "low": ratio / spread, "high": ratio * spread}
            ratios.append({**row, "outcome": outcome, **bounds, "n": len(seeds), "share": 1.0})
        for weighting in ("constant", "debiased"):
            for lr in (5e-4, 2e-3, 8e-3):
                mean = 30 * quality(weighting) * rng.lognormal(0, 0.3)
                row = {"weighting": weighting, "lr": lr, "outcome": outcome, "mean": mean}
                rates.append({**row, "low": mean / spread, "high": mean * spread, "n": len(seeds)})
    return pd.DataFrame(ratios), pd.DataFrame(rates)


def _log(path, rng):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        for step in range(10, 2001, 10):
            loss = (0.02 + 2 / step**0.8) * float(rng.lognormal(0, 0.15))
            row = {"step": step, "images": step * 64, "loss": loss, "mse": loss * 1.3, "grad_norm": 3 * loss**0.5}
            row |= {"lr": 2e-3, "ema_decay": 0.99, "images_per_second": 480 + 20 * float(rng.standard_normal())}
            file.write(json.dumps({**row, "seconds": step * 0.13}) + "\n")
