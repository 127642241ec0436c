"""Each training seed draws its samples from noise of its own, equal for all arms."""

from debiaslib.study.samples import image_seeds


def test_no_two_training_seeds_share_an_image():
    assert image_seeds(0, 5) == range(5)
    taken = [set(image_seeds(seed, 50_000)) for seed in (0, 1, 2, 100, 3999)]
    assert sum(map(len, taken)) == len(set().union(*taken))
    assert max(max(seeds) for seeds in taken) < 2**32
