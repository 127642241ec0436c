"""Is the error of a one-step estimate a bias or a variance? By channel, by spatial frequency, and over training seeds.

Two questions, on images i = 1..n with one x_t each and d_i = x0_hat_i - x0_i (or the distance from the optimum):

- Is x0_hat off on average over images and noise? |E d|^2 is estimated without bias by the pairs of different images,

      bias2 = sum_{i != j} <d_i, d_j> / (n (n - 1)) = |mean d|^2 - variance / n,

  which is below zero about as often as above where there is no bias. Its standard error is the jackknife's over
  images: right where the bias stands out, and sqrt(2) too large where there is none.
- Is it off at each x_t whatever the training seed? With d_s the distance from E[x0 | x_t] of the network of seed s,

      excess = common + between,    common = mean over s != s' of <d_s, d_s'>,    between = the variance over seeds,

  common = |mean over seeds - E[x0 | x_t]|^2 - between / S without bias: what every training of this kind leaves.

Both are given for all frequencies together and by bands. Band b holds the coefficients whose frequency, in cycles per
image, is in [2^(b-1), 2^b); band 0 is frequency 0 alone, the mean colour. Values of a band are means over its
coefficients, so (Parseval) the sum of value times weight over the bands is the mean over pixels.
"""

from dataclasses import dataclass

import torch

from ..errors import InputError, check_finite

_CHUNK_NUMBERS = 1 << 21  # complex128: 32 MiB of coefficients at once


@dataclass(frozen=True)
class Bands:
    """`frequency`: the lowest of each band, cycles per image; `weight`: its share of the coefficients; both (B,)."""

    frequency: torch.Tensor
    weight: torch.Tensor
    members: torch.Tensor  # (H (W//2 + 1), B): 1 or 2 over the number of coefficients of the band, where one belongs


@dataclass(frozen=True)
class Spectrum:
    """Mean square and squared mean, with standard errors: each (1 + B,), all frequencies together, then the bands."""

    power: torch.Tensor
    power_se: torch.Tensor
    bias2: torch.Tensor
    bias2_se: torch.Tensor


@dataclass(frozen=True)
class Decomposition:
    """excess = common + between over training seeds: each (1 + B,), all frequencies together, then the bands.

    `*_se` are over images, for these networks; `*_seed_se` over seeds, by the jackknife: rough for so few, NaN for two.
    """

    common: torch.Tensor
    common_se: torch.Tensor
    common_seed_se: torch.Tensor
    between: torch.Tensor
    between_se: torch.Tensor
    between_seed_se: torch.Tensor


def frequency_bands(height, width):
    """The `Bands` of the discrete Fourier transform of real images of that size."""
    rows = torch.fft.fftfreq(height, 1 / height, dtype=torch.float64)
    columns = torch.arange(width // 2 + 1, dtype=torch.float64)  # the others are their conjugates
    squared = (rows[:, None] ** 2 + columns**2).round().flatten()  # whole numbers: the edges are exact
    twice = torch.where((columns == 0) | (2 * columns == width), 1.0, 2.0).double().repeat(height)
    lower = torch.cat([torch.zeros(1), 4.0 ** torch.arange(16)]).double()  # 4^(b-1) <= squared < 4^b
    index = torch.searchsorted(lower, squared, right=True) - 1
    members = torch.nn.functional.one_hot(index, int(index.max()) + 1) * twice[:, None]
    counts = members.sum(dim=0)
    return Bands(lower[: len(counts)].sqrt(), counts / counts.sum(), members / counts)


@torch.no_grad()
def channel_bias(difference):
    """(mean, standard error over images) of each channel's mean over pixels: float64 (C,). difference: (N, C, H, W)."""
    per_image = check_finite("difference", difference).cpu().double().mean(dim=(2, 3))
    return per_image.mean(dim=0), _standard_error(per_image)


@torch.no_grad()
def spectrum(difference):
    """The `Spectrum` of N images: (N, C, H, W). The jackknife needs three: below, bias2_se is NaN.

    Raises InputError for one image and for numbers that are not finite.
    """
    n = len(difference)
    if n < 2:
        raise InputError(f"difference has {n} images; it must have at least 2")
    check_finite("difference", difference)
    bands = frequency_bands(*difference.shape[2:])
    total = _transform(difference.cpu().double().sum(dim=0, keepdim=True))
    squares, products = [], []
    for part in _parts(difference):
        coefficients = _transform(part)
        squares.append(_by_band(coefficients, coefficients, bands))
        products.append(_by_band(coefficients, total, bands))
    squares, products, whole = torch.cat(squares), torch.cat(products), _by_band(total, total, bands)[0]
    rest = squares.sum(dim=0)
    jackknife = torch.full_like(rest, torch.nan)
    if n > 2:  # bias2 without image i: |total - d_i|^2 less the squares of the others
        jackknife = _jackknife((whole - 2 * products + 2 * squares - rest) / ((n - 1) * (n - 2)))
    return Spectrum(squares.mean(dim=0), _standard_error(squares), (whole - rest) / (n * (n - 1)), jackknife)


@torch.no_grad()
def decompose_seeds(estimates, best):
    """The `Decomposition` of the excess of S >= 2 networks that differ in their training seed alone.

    estimates: (S, N, C, H, W), each network's x0_hat at the same x_t; best: (N, C, H, W), E[x0 | x_t] there. Raises
    InputError for other shapes and for numbers that are not finite.
    """
    seeds = len(estimates)
    if seeds < 2 or estimates.shape[1:] != best.shape:
        raise InputError(
            f"estimates have shape {tuple(estimates.shape)}; it must be (S, {', '.join(map(str, best.shape))}), S >= 2"
        )
    check_finite("estimates", estimates)
    check_finite("best", best)
    bands = frequency_bands(*best.shape[2:])
    # gram[s, s', i]: <d_s, d_s'> of image i
    gram = torch.cat([_gram(part, bands) for part in _parts((estimates - best).transpose(0, 1))], dim=2)
    of_images = _split(gram)
    seed_errors = [torch.full_like(gram[0, 0, 0], torch.nan)] * 2
    if seeds > 2:
        of_seeds = gram.mean(dim=2, keepdim=True)
        without = [_split(of_seeds[keep][:, keep]) for keep in ~torch.eye(seeds, dtype=torch.bool)]
        seed_errors = [_jackknife(torch.cat(part)) for part in zip(*without, strict=True)]
    columns = [(part.mean(dim=0), _standard_error(part), se) for part, se in zip(of_images, seed_errors, strict=True)]
    return Decomposition(*columns[0], *columns[1])


def _gram(distances, bands):
    """(S, S, N, 1 + B) of distances (N, S, C, H, W)."""
    coefficients = [_transform(one) for one in distances.unbind(dim=1)]
    return torch.stack([torch.stack([_by_band(one, other, bands) for other in coefficients]) for one in coefficients])


def _split(gram):
    """(common, between) of each image, (N, 1 + B), from (S, S, N, 1 + B)."""
    seeds = len(gram)
    own = torch.einsum("ssnb->nb", gram) / seeds
    common = (gram.sum(dim=(0, 1)) / seeds - own) / (seeds - 1)
    return common, own - common


def _parts(images):
    return images.split(max(1, _CHUNK_NUMBERS // images[0].numel()))


def _transform(images):
    """The orthonormal Fourier transform of (N, C, H, W) as real and imaginary parts: (N, C, H (W//2 + 1), 2)."""
    return torch.view_as_real(torch.fft.rfft2(images.cpu().double(), norm="ortho").flatten(2))


def _by_band(one, other, bands):
    """Re <one, other> as a mean over coefficients and channels, of all frequencies and of each band: (N, 1 + B)."""
    products = (one * other).sum(dim=(1, 3)) @ bands.members / one.shape[1]
    return torch.cat([products @ bands.weight[:, None], products], dim=1)


def _standard_error(rows):
    return rows.std(dim=0) / len(rows) ** 0.5


def _jackknife(without):
    """The standard error from the estimates that leave one out: (n, ...)."""
    return without.var(dim=0, correction=0).mul(len(without) - 1).sqrt()
