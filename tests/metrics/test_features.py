"""Feature networks: what they compute, in which units, and what happens without weights, network or torchvision."""

import hashlib
import io
from urllib.error import URLError

import numpy as np
import pytest
import torch

from debiaslib.errors import InputError
from debiaslib.metrics import feature_weights, features
from debiaslib.metrics.features import EXTRACTORS, load_extractor


def random_images(count, height=16, width=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), dtype=np.uint8)


def error_of(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


# Names and shapes


@pytest.mark.parametrize("name, dimension", [("minifaces", 64), ("cifar10", 256)])
def test_shipped_networks(name, dimension):
    from debiaslib.metrics.feature_nets import load_network

    extractor, images = load_extractor(name), random_images(10)
    network, sha256 = load_network(name)
    found, logits = extractor.features_and_logits(images)
    assert found.shape == (10, extractor.dimension) == (10, dimension) and found.dtype == np.float32
    assert np.array_equal(found, network(torch.from_numpy(images)).numpy()) and logits is None
    assert (extractor.distance, extractor.kernel) == (f"fd_{name}", f"kid_{name}")
    assert extractor.weights_sha256 == sha256


def test_pooled():
    extractor, images = load_extractor("pooled", device="meta"), random_images(9, 8, 12)
    found = extractor.features(images)
    assert found.dtype == np.float64
    expected = images.astype(float).reshape(9, 3, 4, 2, 4, 3).mean((3, 5)).reshape(9, 48) / 255
    assert np.abs(found - expected).max() < 1e-15
    assert (extractor.distance, extractor.kernel) == ("fd_pooled", "kid_pooled")
    assert extractor.weights_sha256 is None
    assert extractor.dtype == "float64"


def test_the_configuration_knows_every_extractor_and_its_dimension():
    from debiaslib.study import experiment

    assert set(experiment.DIMENSIONS) == set(EXTRACTORS)
    for name in ("minifaces", "cifar10", "pooled"):
        assert load_extractor(name).dimension == experiment.DIMENSIONS[name]


@pytest.mark.parametrize("name", ["minifaces", "pooled"])
def test_batches_do_not_matter_much(name, monkeypatch):
    extractor, images = load_extractor(name), random_images(30)
    together = extractor.features(torch.from_numpy(images))
    monkeypatch.setattr(features, "BATCH_SIZE", 7)
    assert np.abs(together - extractor.features(images)).max() < 1e-4


IMAGES = random_images(2)


@pytest.mark.parametrize(
    "images", [IMAGES.astype(np.float32), IMAGES[:, :1], IMAGES[0], IMAGES.transpose(0, 2, 3, 1), IMAGES[:0]]
)
def test_other_images_are_refused(images):
    text = error_of(load_extractor("pooled").features, images)
    assert str(images.shape) in text and "uint8 (N, 3, H, W)" in text


def test_unknown_names():
    assert "did you mean 'inception'" in error_of(load_extractor, "inceptoin")


def test_precision_settings_are_set_and_restored():
    cudnn = torch.backends.cudnn
    homes = (torch.backends.cuda.matmul, torch.backends.mkldnn.matmul, cudnn.conv)

    def settings():
        precisions = [home.fp32_precision for home in homes]
        return *precisions, cudnn.benchmark, cudnn.deterministic, torch.is_autocast_enabled("cpu")

    before = settings()
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", torch.bfloat16):
            outside = settings()
            with features._exact("cpu"):
                assert settings() == ("ieee", "ieee", "ieee", False, True, False)
            assert settings() == outside
    finally:
        torch.backends.cudnn.benchmark = before[3]
        for home, precision in zip(homes, before, strict=False):
            home.fp32_precision = precision
    assert settings() == before
    torch.get_float32_matmul_precision()  # raises where torch's older and newer settings contradict each other


def expect(monkeypatch, sha256):
    """Weights of another hash, since the real ones are not here."""
    monkeypatch.setattr(feature_weights, "SHA256", sha256)


# Inception: the real weights (95.5 MB) are not here, so the network bears random ones.


@pytest.fixture(scope="module")
def random_state():
    """Weights of the right names and shapes; convolutions scaled so that the signal passes through all layers."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Bare(FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            pass

    buffer = io.BytesIO()
    torch.save({}, buffer)
    buffer.seek(0)
    state = Bare("bare", ["2048"], feature_extractor_weights_path=buffer).state_dict()
    generator = torch.Generator().manual_seed(0)
    for value in state.values():
        if value.ndim > 1:
            fan_in = value[0].numel()
            value.copy_(torch.randn(value.shape, generator=generator) * (2 / fan_in) ** 0.5)
    return state


@pytest.fixture(scope="module")
def saved(random_state, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(random_state, path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def weights_file(saved, monkeypatch):
    path, digest = saved
    expect(monkeypatch, digest[:8])
    monkeypatch.setenv("DEBIASLIB_INCEPTION", str(path))
    return path


def test_constants_are_torch_fidelitys(random_state):
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    assert feature_weights.URL == URL_INCEPTION_V3
    assert feature_weights.URL.removesuffix(".pth").rsplit("-", 1)[1] == feature_weights.SHA256
    numbers = sum(value.numel() * value.element_size() for value in random_state.values())
    assert f"about {numbers / 1e6:.1f} MB" == feature_weights.SIZE


def test_inception_computes_what_torch_fidelity_does(weights_file, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    from torch_fidelity.utils import create_feature_extractor

    monkeypatch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", 107)  # for speed; 299 otherwise

    extractor, images = load_extractor("inception"), random_images(2, 32, 32)
    assert extractor.weights_sha256 == hashlib.sha256(weights_file.read_bytes()).hexdigest()
    assert (extractor.distance, extractor.kernel, extractor.dtype) == ("fid", "kid", "float32")
    found, logits = extractor.features_and_logits(images)
    theirs = create_feature_extractor(
        "inception-v3-compat",
        ["logits_unbiased", "2048"],
        cuda=False,
        feature_extractor_weights_path=str(weights_file),
        verbose=False,
    )
    expected_logits, expected = theirs(torch.from_numpy(images))
    assert found.shape == (2, extractor.dimension) == (2, 2048)
    assert logits.shape == (2, 1008)
    assert np.array_equal(found, expected.numpy())
    assert np.array_equal(logits, expected_logits.numpy())
    assert found.std() > 0.01  # the comparison is not one of zeros


# Missing, damaged and foreign weights


def test_missing_weights_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv(feature_weights.VARIABLE, str(tmp_path / "no-such-file.pth"))
    text = error_of(load_extractor, "inception")
    for part in ("about 95.5 MB", "6726825d", "no-such-file.pth", "fetch-inception", "DEBIASLIB_INCEPTION"):
        assert part in text


def test_where_the_weights_belong(tmp_path, monkeypatch):
    monkeypatch.delenv(feature_weights.VARIABLE, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    name = "weights-inception-2015-12-05-6726825d.pth"
    assert feature_weights.inception_path() == tmp_path / "checkpoints" / name
    monkeypatch.setenv(feature_weights.VARIABLE, str(tmp_path))
    assert feature_weights.inception_path() == tmp_path / name


def test_damaged_weights_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    expect(monkeypatch, hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setenv(feature_weights.VARIABLE, str(path))
    for damaged in (b"weighty", b"weight", b""):
        path.write_bytes(damaged)
        assert "damaged" in error_of(load_extractor, "inception")


class Harmful:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("content", [{"some": torch.zeros(1)}, [1], {"harm": Harmful()}, b"not a file of torch"])
def test_other_files_are_refused_and_never_executed(tmp_path, monkeypatch, capsys, content):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    expect(monkeypatch, hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setenv(feature_weights.VARIABLE, str(path))
    assert "does not hold Inception-v3's weights" in error_of(load_extractor, "inception")
    assert "executed" not in capsys.readouterr().out


# Fetching


@pytest.fixture
def served(tmp_path, monkeypatch):
    """A small file at a file:// address in the place of the real one."""
    path = tmp_path / "served.pth"
    torch.save({}, path)
    expect(monkeypatch, hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    monkeypatch.setattr(feature_weights, "URL", path.as_uri())
    monkeypatch.setenv(feature_weights.VARIABLE, str(tmp_path / "new" / "folder" / "weights.pth"))
    return path


def test_fetch(served, capsys):
    features.main(["fetch-inception"])
    path = feature_weights.inception_path()
    assert path.read_bytes() == served.read_bytes()
    assert capsys.readouterr().out.strip() == str(path)
    served.unlink()
    assert feature_weights.fetch_inception() == path  # it is there already
    assert [entry.name for entry in path.parent.iterdir()] == ["weights.pth"]
    path.write_bytes(b"cut off")
    assert "is damaged" in error_of(feature_weights.fetch_inception)


def test_a_wrong_download_leaves_nothing(served):
    served.write_bytes(b"something else")
    assert "invalid hash" in error_of(feature_weights.fetch_inception)
    assert list(feature_weights.inception_path().parent.iterdir()) == []


def test_fetch_without_a_network(served, monkeypatch):
    def offline(*arguments):
        raise URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr(torch.hub, "urlopen", offline)
    shown = error_of(features.main, ["fetch-inception"])
    assert "Name or service not known" in shown and feature_weights.inception_path().name in shown


@pytest.mark.parametrize(
    "error", [RuntimeError("torchvision::nms does not exist"), ModuleNotFoundError("No module torch_fidelity")]
)
def test_torch_fidelity_that_cannot_be_imported(monkeypatch, error):
    def broken(name):
        raise error

    monkeypatch.setattr(features, "import_module", broken)
    said = error_of(features.torch_fidelity_module)
    assert f"({error})" in said and "pip install 'debiaslib[lab]'" in said
