"""Does fd_cifar10, whose network was trained at 32x32, rank graded defects rightly on CIFAR-10 at 16x16?

    python -m benchmarks.feature_ranking --dataset FOLDER --out docs/fd_cifar10_at_16.csv

Held-out images are blurred, tinted or made noisy in four grades each, and compared with training images as they are. A
distance that can be trusted grows with the grade. `fd_pooled` stands beside it: it sees colour and no detail.
"""

import argparse

import numpy as np
import pandas as pd
from scipy.ndimage import gaussian_filter

from debiaslib.data.images import load_images
from debiaslib.metrics.distances import frechet_distance
from debiaslib.metrics.features import load_extractor


def blurred(images, sigma):
    return gaussian_filter(images, (0, 0, sigma, sigma), mode="nearest")


def tinted(images, levels):
    return images + np.array([levels, 0, -levels], np.float64)[:, None, None]


def noisy(images, sigma):
    return images + sigma * np.random.default_rng(0).standard_normal(images.shape)


DEFECTS = {  # the unit of the grades, what makes them, four of each
    "blur": ("standard deviation, pixels", blurred, (0.3, 0.5, 0.8, 1.2)),
    "tint": ("grey levels added to red, taken from blue", tinted, (4, 8, 16, 32)),
    "noise": ("standard deviation, grey levels", noisy, (4, 8, 16, 32)),
}


def ranking(images, reference, names=("cifar10", "pooled")):
    """A DataFrame: defect, unit, grade (0: none) and a column fd_* for each extractor, of uint8 (N, 3, H, W)."""
    extractors = [load_extractor(name) for name in names]
    known = {one.distance: one.features(reference) for one in extractors}
    rows = []
    for defect, (unit, change, grades) in DEFECTS.items():
        for grade in (0, *grades):
            changed = images if grade == 0 else change(images.astype(np.float64), grade)
            changed = np.clip(np.rint(changed), 0, 255).astype(np.uint8)
            values = {e.distance: frechet_distance(e.features(changed), known[e.distance]) for e in extractors}
            rows.append({"defect": defect, "unit": unit, "grade": grade, **values})
    return pd.DataFrame(rows)


def monotone(table):
    """{(distance, defect): whether the distance grows with every grade}."""
    distances = [name for name in table if name.startswith("fd_")]
    defects = list(table.groupby("defect", sort=False))
    return {(d, defect): bool((rows[d].diff().iloc[1:] > 0).all()) for d in distances for defect, rows in defects}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--dataset", required=True, help="CIFAR-10: a folder or a hub id")
    parser.add_argument("--resolution", type=int, default=16)
    parser.add_argument("--n", type=int, default=2000, help="held-out images")
    parser.add_argument("--n-reference", type=int, default=5000, help="training images")
    parser.add_argument("--out", help="a .csv to write")
    options = parser.parse_args(arguments)
    heldout = load_images(options.dataset, options.resolution, split="heldout").images[: options.n]
    train = load_images(options.dataset, options.resolution).images[: options.n_reference]
    table = ranking(np.asarray(heldout), np.asarray(train))
    print(table.to_string(index=False))
    for (distance, defect), grows in monotone(table).items():
        print(f"{distance} grows with {defect}: {grows}")
    if options.out:
        table.to_csv(options.out, index=False)


if __name__ == "__main__":
    main()
