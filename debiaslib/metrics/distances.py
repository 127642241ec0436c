"""Distances between sets of images, from feature arrays (N, d), by torch-fidelity's own formulas in float64.

Generated images come first and the reference second: precision and recall depend on it.
"""

import numpy as np
import torch

from ..errors import InputError, check_number
from .colour import check_images
from .features import BATCH_SIZE, reference_features, torch_fidelity_module

SEED = 2020  # of the shuffles, torch-fidelity's own
SUBSETS = 10  # of the kernel distance: their spread is its error
PART = 1000  # images in a part of the kernel distance, at most: the usual size
KERNEL = {"kid_kernel": "poly", "kid_kernel_poly_degree": 3, "kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1}


def _float64(features):
    return torch.from_numpy(np.ascontiguousarray(features, np.float64))


def frechet_distance(generated, reference, allow_singular=False):
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)) between Gaussians of the features' means and covariances.

    Features (N, d) and (M, d). Biased upwards, by about 1/N, so it compares only at equal N. Rounding below zero is
    returned as 0. With N <= d a covariance is singular and the value mostly bias: InputError, unless `allow_singular`.
    """
    _check_rank(min(len(generated), len(reference)), generated.shape[1], allow_singular)
    formula = torch_fidelity_module("metric_fid")
    statistics = [formula.fid_features_to_statistics(_float64(part)) for part in (generated, reference)]
    for part in statistics:
        part["sigma"] = np.atleast_2d(part["sigma"])  # a bare number where d = 1
    return max(float(formula.fid_statistics_to_metric(*statistics, verbose=False)[formula.KEY_METRIC_FID]), 0.0)


def _check_rank(n, d, allow_singular):
    if n <= d and not allow_singular:
        raise InputError(f"a Frechet distance of {d} features needs more than {d} images of each kind; N is {n}")


def kernel_distance(generated, reference, subsets=SUBSETS, seed=SEED):
    """(value, standard error) of the squared MMD under the kernel (x.y/d + 1)^3: KID if the features are Inception's.

    Unbiased, so slightly negative values are right for equal distributions. Both sets are shuffled (`seed`) and dealt
    into disjoint subsets; the value is the mean of the subsets' estimates, the error their standard deviation over
    sqrt(subsets). Within a subset the estimates of parts of equal size, PART at most, are averaged. Raises InputError
    for fewer than two images of each kind in a subset.
    """
    _check_subsets("a kernel distance", subsets, min(len(generated), len(reference)))
    formula, estimates = torch_fidelity_module("metric_kid"), []
    for pairs in _parts(len(generated), len(reference), subsets, seed):
        whole = {"kid_subsets": 1, "kid_subset_size": len(pairs[0][0]), "rng_seed": SEED}  # all that there is
        parts = ((_float64(generated[ours]), _float64(reference[theirs])) for ours, theirs in pairs)
        rows = [formula.kid_features_to_metric(*pair, **whole, **KERNEL, verbose=False) for pair in parts]
        estimates.append(np.mean([row[formula.KEY_METRIC_KID_MEAN] for row in rows]))
    return float(np.mean(estimates)), float(np.std(estimates, ddof=1) / subsets**0.5)


def _check_subsets(what, subsets, n):
    check_number("subsets", subsets, minimum=2, integer=True)
    if n < 2 * subsets:
        raise InputError(f"{what} of {subsets} subsets needs {2 * subsets} images of each kind; N is {n}")


def _parts(n, n_reference, subsets, seed):
    """One list per subset of index pairs, (P,) of the generated and (P,) of the reference features, P <= PART.

    The smaller set's parts are taken again where the larger has more of them.
    """
    shuffle = np.random.default_rng(seed)
    groups = [np.array_split(shuffle.permutation(count), subsets) for count in (n, n_reference)]
    size = min(n // subsets, n_reference // subsets, PART)
    dealt = []
    for subset in zip(*groups, strict=True):
        ours, theirs = (part[: len(part) // size * size].reshape(-1, size) for part in subset)
        pairs = max(len(ours), len(theirs))
        dealt.append([(ours[i % len(ours)], theirs[i % len(theirs)]) for i in range(pairs)])
    return dealt


def precision_recall(generated, reference, neighbors=3):
    """(precision, recall): the share of generated images in the reference's manifold, and the other way round.

    A manifold is the union of balls about each image's features that reach the `neighbors`-th nearest of its own set
    (Kynkaanniemi et al. 2019). Both depend on N and M. Raises InputError for too few images.
    """
    check_number("neighbors", neighbors, minimum=1, below=min(len(generated), len(reference)), integer=True)
    formula = torch_fidelity_module("metric_prc")
    pair = _float64(generated), _float64(reference)
    memory = {"prc_batch_size": 2000, "save_cpu_ram": True}  # rows of the distance matrix held at a time
    row = formula.prc_features_to_metric(*pair, prc_neighborhood=neighbors, **memory, verbose=False)
    return row[formula.KEY_METRIC_PRECISION], row[formula.KEY_METRIC_RECALL]


def inception_score(logits, splits=10, seed=SEED):
    """(value, standard error) of exp(mean KL(p(y|x) || p(y))) from Inception's unbiased logits (N, classes).

    The mean over `splits` disjoint parts after a shuffle (`seed`), as is usual; the error is the parts' standard
    deviation over sqrt(splits). Biased by the parts' size, so it compares only at equal N. InputError for N < 2 splits.
    """
    _check_subsets("an inception score", splits, len(logits))
    formula = torch_fidelity_module("metric_isc")
    row = formula.isc_features_to_metric(_float64(logits), splits=splits, shuffle=True, rng_seed=seed)
    # Its "std" divides by the number of parts, not by one less.
    return float(row[formula.KEY_METRIC_ISC_MEAN]), float(row[formula.KEY_METRIC_ISC_STD]) / (splits - 1) ** 0.5


def evaluate(images, reference_images, extractor, allow_singular=False):
    """All metrics of `extractor` for uint8 images (N, 3, R, R) against the reference (M, 3, R, R): one dict per metric.

    Rows: the Frechet distance, the kernel distance, precision, recall, and for Inception the inception score ("is").
    Keys: metric, value, se (None where there is none), features (the extractor's name), n, n_reference, library and
    version (of the formulas), extractor (network, layer, resizing), weights_sha256, dtype, batch (images that pass the
    network at a time: float32 features depend on it a little). The reference's features are cached. Raises InputError
    for images of another kind and for too few of them, before any features are computed.
    """
    images = check_images("images", images)
    reference_images = check_images("reference images", reference_images)
    if images.shape[2:] != reference_images.shape[2:]:
        sizes = ["x".join(map(str, array.shape[2:])) for array in (images, reference_images)]
        raise InputError(f"images are {sizes[0]} and the reference {sizes[1]}; bring them to one size first")
    fewest = min(len(images), len(reference_images))
    _check_rank(fewest, extractor.dimension, allow_singular)
    _check_subsets("a kernel distance", SUBSETS, fewest)
    features, logits = extractor.features_and_logits(images)
    reference = reference_features(reference_images, extractor)
    precision, recall = precision_recall(features, reference)
    values = {
        extractor.distance: (frechet_distance(features, reference, allow_singular), None),
        extractor.kernel: kernel_distance(features, reference),
        "precision": (precision, None),
        "recall": (recall, None),
    }
    if logits is not None:
        values["is"] = inception_score(logits)
    shared = {"features": extractor.name, "n": len(images), "n_reference": len(reference_images)}
    shared |= {"library": "torch-fidelity", "version": torch_fidelity_module().__version__, "extractor": extractor.rule}
    shared |= {"weights_sha256": extractor.weights_sha256, "dtype": extractor.dtype, "batch": BATCH_SIZE}
    return [{"metric": metric, "value": value, "se": se} | shared for metric, (value, se) in values.items()]
