"""Feature networks: what they compute, in which units, and what happens without weights, network or torchvision."""

import hashlib
import io
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from debiaslib import features
from debiaslib.errors import InputError
from debiaslib.features import Extractor, fetch_inception, inception_path, load_extractor


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_images(count, height=16, width=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, height, width), dtype=np.uint8)


def error_of(call, *arguments, **options):
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


# Names and shapes


def test_minifaces():
    from debiaslib.minifaces_features import feature_hash, load_features

    extractor, images = load_extractor("minifaces"), random_images(10)
    found = extractor.features(images)
    assert found.shape == (10, extractor.dimension) == (10, 64)
    assert found.dtype == np.float32
    assert np.array_equal(found, load_features()(torch.from_numpy(images)).numpy())
    assert (extractor.distance, extractor.kernel) == ("fd_minifaces", "kid_minifaces")
    assert extractor.weights_sha256 == feature_hash()
    assert extractor.features_and_logits(images)[1] is None


def test_pooled():
    extractor, images = load_extractor("pooled", device="meta"), random_images(9, 8, 12)
    found = extractor.features(images)
    assert found.dtype == np.float64
    expected = images.astype(float).reshape(9, 3, 4, 2, 4, 3).mean((3, 5)).reshape(9, 48) / 255
    assert np.abs(found - expected).max() < 1e-15
    assert (extractor.distance, extractor.kernel) == ("fd_pooled", "kid_pooled")
    assert extractor.weights_sha256 is None
    assert extractor.dtype == "float64"


def test_pooled_at_other_sizes():
    extractor = load_extractor("pooled")
    white = np.full((1, 3, 5, 7), 255, np.uint8)
    assert (extractor.features(white) == 1).all()
    smallest = random_images(2, 4, 4)
    assert np.array_equal(extractor.features(smallest), smallest.reshape(2, 48) / 255)
    assert "3x9" in error_of(extractor.features, random_images(1, 3, 9))


def test_only_inception_bears_the_names_fid_and_kid():
    for name in ("minifaces", "pooled"):
        extractor = load_extractor(name)
        assert not {extractor.distance, extractor.kernel} & {"fid", "kid"}


@pytest.mark.parametrize("name", ["minifaces", "pooled"])
def test_batches_do_not_matter_much(name):
    extractor, images = load_extractor(name), random_images(30)
    assert np.abs(extractor.features(images) - extractor.features(images, batch_size=7)).max() < 1e-4


def test_images_may_be_mapped_or_a_tensor(tmp_path):
    images = random_images(5)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    extractor = load_extractor("pooled")
    expected = extractor.features(images)
    assert np.array_equal(extractor.features(mapped), expected)
    assert np.array_equal(extractor.features(torch.from_numpy(images)), expected)


@pytest.mark.parametrize(
    "images",
    [
        random_images(2).astype(np.float32),
        random_images(2)[:, :1],
        random_images(2)[0],
        random_images(2).transpose(0, 2, 3, 1),
        random_images(2)[:0],
    ],
)
def test_other_images_are_refused(images):
    text = error_of(load_extractor("pooled").features, images)
    assert str(images.shape) in text
    assert "uint8 (N, 3, H, W)" in text


def test_unknown_names_and_options():
    assert "did you mean 'inception'" in error_of(load_extractor, "inceptoin")
    assert "float64" in error_of(load_extractor, "minifaces", dtype="float64")
    assert "batch_size" in error_of(load_extractor("pooled").features, random_images(2), batch_size=0)


def test_features_that_are_not_finite_are_refused():
    broken = Extractor("pooled", 1, "float64", None, "", "", "", network=lambda images: images[:, 0, 0, :1] / 0)
    assert "not finite" in error_of(broken.features, random_images(2))


def test_precision_settings_are_set_and_restored():
    def settings():
        cudnn = torch.backends.cudnn
        precisions = torch.backends.cuda.matmul.fp32_precision, cudnn.conv.fp32_precision
        return *precisions, cudnn.benchmark, cudnn.deterministic, torch.is_autocast_enabled("cpu")

    before = settings()
    torch.backends.cudnn.benchmark = True
    try:
        with torch.autocast("cpu", torch.bfloat16):
            outside = settings()
            with features._exact("cpu"):
                assert settings() == ("ieee", "ieee", False, True, False)
            assert settings() == outside
    finally:
        torch.backends.cudnn.benchmark = before[2]
    assert settings() == before
    torch.get_float32_matmul_precision()  # raises where torch's older and newer settings contradict each other


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
    path = tmp_path_factory.mktemp("weights") / features.INCEPTION_FILE
    torch.save(random_state, path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def weights_file(saved, monkeypatch):
    path, digest = saved
    monkeypatch.setattr(features, "INCEPTION_SHA256", digest[:8])
    monkeypatch.setenv("DEBIASLIB_INCEPTION", str(path))
    return path


def test_constants_are_torch_fidelitys(random_state):
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    assert features.INCEPTION_URL == URL_INCEPTION_V3
    assert features.INCEPTION_FILE.removesuffix(".pth").rsplit("-", 1)[1] == features.INCEPTION_SHA256
    numbers = sum(value.numel() * value.element_size() for value in random_state.values())
    assert f"about {numbers / 1e6:.1f} MB" == features.INCEPTION_SIZE


def test_inception_computes_what_torch_fidelity_does(weights_file):
    from torch_fidelity.utils import create_feature_extractor

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
    assert found.std() > 0.1  # the comparison is not one of zeros


def test_inception_in_true_float64(weights_file, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    monkeypatch.setattr(FeatureExtractorInceptionV3, "INPUT_IMAGE_SIZE", 107)  # for speed; 299 otherwise
    single, double = load_extractor("inception"), load_extractor("inception", dtype="float64")
    assert double.dtype == "float64"
    assert all(value.dtype == torch.float64 for value in double.network.parameters())
    images = random_images(4, 32, 32)
    together, alone = double.features(images), double.features(images, batch_size=1)
    assert together.dtype == np.float32
    assert (np.abs(together - alone) <= 2e-7 * np.abs(alone)).all()  # one rounding to float32
    difference = np.abs(single.features(images) - together).max()
    assert 0 < difference < 1e-3


def test_missing_weights_say_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("DEBIASLIB_INCEPTION", str(tmp_path / "no-such-file.pth"))
    text = error_of(load_extractor, "inception")
    for part in ("95.5 MB", "6726825d", str(tmp_path), "fetch-inception"):
        assert part in text
    assert features.INCEPTION_FILE in text
    assert features.INCEPTION_URL in text


def test_where_the_weights_belong(tmp_path, monkeypatch):
    monkeypatch.delenv("DEBIASLIB_INCEPTION", raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert inception_path() == tmp_path / "checkpoints" / features.INCEPTION_FILE
    monkeypatch.setenv("DEBIASLIB_INCEPTION", str(tmp_path))
    assert inception_path() == tmp_path / features.INCEPTION_FILE


@pytest.mark.parametrize("damaged", [b"weighty", b"weight", b""])
def test_damaged_weights_are_refused(tmp_path, monkeypatch, damaged):
    path = tmp_path / "weights.pth"
    path.write_bytes(damaged)
    monkeypatch.setattr(features, "INCEPTION_SHA256", hashlib.sha256(b"weights").hexdigest()[:8])
    monkeypatch.setenv("DEBIASLIB_INCEPTION", str(path))
    assert "damaged" in error_of(load_extractor, "inception")
    assert "damaged" in error_of(fetch_inception)


class Harmful:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.mark.parametrize("content", [{"some": torch.zeros(1)}, {"harm": Harmful()}, b"not a file of torch"])
def test_other_files_are_refused_and_never_executed(tmp_path, monkeypatch, capsys, content):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    monkeypatch.setattr(features, "INCEPTION_SHA256", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    monkeypatch.setenv("DEBIASLIB_INCEPTION", str(path))
    assert "does not hold Inception-v3's weights" in error_of(load_extractor, "inception")
    assert "executed" not in capsys.readouterr().out


# Fetching


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A small file at a file:// address in the place of the real one."""
    path = tmp_path / "served.pth"
    path.write_bytes(b"weights" * 100)
    monkeypatch.setattr(features, "INCEPTION_URL", path.as_uri())
    monkeypatch.setattr(features, "INCEPTION_SHA256", hashlib.sha256(path.read_bytes()).hexdigest()[:8])
    monkeypatch.setenv("DEBIASLIB_INCEPTION", str(tmp_path / "new" / "folder" / "weights.pth"))
    return path


def test_fetch(source, capsys):
    features.main(["fetch-inception"])
    path = inception_path()
    assert path.read_bytes() == source.read_bytes()
    assert capsys.readouterr().out.strip() == str(path)
    source.unlink()
    assert fetch_inception() == path  # it is there already
    assert [entry.name for entry in path.parent.iterdir()] == ["weights.pth"]


def test_a_wrong_download_leaves_nothing(source):
    source.write_bytes(b"something else")
    assert "invalid hash" in error_of(fetch_inception, progress=False)
    assert list(inception_path().parent.iterdir()) == []


def test_fetch_without_a_network(source, monkeypatch, capsys):
    def offline(*arguments):
        raise URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr(torch.hub, "urlopen", offline)
    with pytest.raises(SystemExit) as caught:
        features.main(["fetch-inception"])
    assert caught.value.code == 1
    shown = capsys.readouterr().err.strip()
    assert shown.count("\n") == 0
    assert "Name or service not known" in shown
    assert str(inception_path()) in shown


# torch-fidelity that cannot be imported


def test_mismatch_of_torch_and_torchvision(tmp_path):
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    code = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(Path(features.__file__).parent.parent)!r}]\n"
        "from debiaslib import features, metrics, InputError\n"
        "features.load_extractor('pooled')\n"
        "for _ in range(2):\n"
        "    try: metrics.frechet_distance([[0.0], [1.0]], [[0.0], [1.0]])\n"
        "    except InputError as error: print(error)\n"
    )
    environment = {"OMP_NUM_THREADS": "1", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert "operator torchvision::nms does not exist" in lines[0]
    assert all("do not match" in line for line in lines)


def test_torch_fidelity_not_installed(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(features, "import_module", missing)
    text = error_of(features.torch_fidelity_module)
    assert "torch_fidelity is not installed" in text
