"""Feature networks: what they compute, in which units, and what happens without weights, network or torchvision."""

import hashlib
import io
import math
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from debiaslib.errors import InputError
from debiaslib.metrics import dinov2, features
from debiaslib.metrics.dinov2 import VisionTransformer
from debiaslib.metrics.feature_weights import DINOV2, INCEPTION
from debiaslib.metrics.features import EXTRACTORS, Extractor, load_extractor


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
    from debiaslib.metrics.minifaces_features import feature_hash, load_features

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


def test_the_configuration_knows_every_extractor_and_its_dimension(monkeypatch):
    from debiaslib.metrics import cifar10_features
    from debiaslib.training import config

    assert set(config.FEATURES) == set(EXTRACTORS)
    for name in ("minifaces", "pooled"):
        assert load_extractor(name).dimension == config._DIMENSIONS[name]
    network = cifar10_features.CIFAR10Features().eval()
    monkeypatch.setattr(cifar10_features, "load_features", lambda: network)
    monkeypatch.setattr(cifar10_features, "feature_hash", lambda: "0" * 64)
    extractor = load_extractor("cifar10")
    assert extractor.features(random_images(2)).shape == (2, extractor.dimension)
    assert extractor.dimension == config._DIMENSIONS["cifar10"] == 256
    assert (extractor.distance, extractor.kernel) == ("fd_cifar10", "kid_cifar10")


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


def expect(monkeypatch, name, sha256, **changes):
    """Weights of another hash, since the real ones are not here."""
    changed = replace({"INCEPTION": INCEPTION, "DINOV2": DINOV2}[name], sha256=sha256, **changes)
    monkeypatch.setattr(features, name, changed)
    return changed


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
    path = tmp_path_factory.mktemp("weights") / INCEPTION.file
    torch.save(random_state, path)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def weights_file(saved, monkeypatch):
    path, digest = saved
    expect(monkeypatch, "INCEPTION", digest[:8])
    monkeypatch.setenv("DEBIASLIB_INCEPTION", str(path))
    return path


def test_constants_are_torch_fidelitys(random_state):
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    assert INCEPTION.url == URL_INCEPTION_V3
    assert INCEPTION.url.endswith(f"/{INCEPTION.file}")
    assert INCEPTION.file.removesuffix(".pth").rsplit("-", 1)[1] == INCEPTION.sha256
    numbers = sum(value.numel() * value.element_size() for value in random_state.values())
    assert f"about {numbers / 1e6:.1f} MB" == INCEPTION.size


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


# DINOv2: the real weights (1.2 GB) are not here, and a transformer of the right size is too slow for a test. Ours is
# small; that the large one has the published names and shapes is checked without memory for them.


SMALL = {"width": 48, "depth": 2, "heads": 3, "grid": 5}


def random_transformer(seed=0):
    network = VisionTransformer(**SMALL)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * (0.15 if value.ndim > 1 else 0.5))
    return network.eval()


@pytest.fixture
def dinov2_file(tmp_path, monkeypatch):
    path = tmp_path / DINOV2.file
    torch.save(random_transformer().state_dict(), path)
    expect(monkeypatch, "DINOV2", hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setenv("DEBIASLIB_DINOV2", str(tmp_path))
    monkeypatch.setattr(dinov2, "VisionTransformer", partial(VisionTransformer, **SMALL))
    return path


def test_the_transformer_is_torchvisions():
    from torchvision.models.vision_transformer import VisionTransformer as Theirs

    ours, side = random_transformer(), 14 * SMALL["grid"]
    sizes = {"num_layers": SMALL["depth"], "num_heads": SMALL["heads"], "hidden_dim": SMALL["width"]}
    theirs = Theirs(image_size=side, patch_size=14, mlp_dim=4 * SMALL["width"], **sizes).eval()
    theirs.heads = torch.nn.Identity()
    state = ours.state_dict()
    wanted = {"class_token": state["cls_token"], "encoder.pos_embedding": state["pos_embed"]}
    for end in ("weight", "bias"):
        wanted[f"conv_proj.{end}"] = state[f"patch_embed.proj.{end}"]
        wanted[f"encoder.ln.{end}"] = state[f"norm.{end}"]
        for i in range(SMALL["depth"]):
            here, there = f"blocks.{i}.", f"encoder.layers.encoder_layer_{i}."
            wanted[f"{there}ln_1.{end}"] = state[f"{here}norm1.{end}"]
            wanted[f"{there}ln_2.{end}"] = state[f"{here}norm2.{end}"]
            wanted[f"{there}self_attention.in_proj_{end}"] = state[f"{here}attn.qkv.{end}"]
            wanted[f"{there}mlp.0.{end}"] = state[f"{here}mlp.fc1.{end}"]
            # They have no LayerScale, which is a factor of the last linear map's rows.
            for scale, last, name in (("ls1", "attn.proj", "self_attention.out_proj"), ("ls2", "mlp.fc2", "mlp.3")):
                value, gamma = state[f"{here}{last}.{end}"], state[f"{here}{scale}.gamma"]
                wanted[f"{there}{name}.{end}"] = gamma.view(-1, *[1] * (value.ndim - 1)) * value
    theirs.load_state_dict(wanted)
    images = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found, expected = ours(images), theirs(images)
    assert found.std() > 0.1
    assert (found - expected).abs().max() < 1e-5


def cubic_convolution(n, grid):
    """(n, grid): weights of Keys' kernel, a = -0.75, borders repeated, at the points of a scale of (n + 0.1)/grid."""
    a, weights = -0.75, np.zeros((n, grid))
    for i in range(n):
        x = (i + 0.5) * grid / (n + 0.1) - 0.5
        for j in range(math.floor(x) - 1, math.floor(x) + 3):
            d = abs(x - j)
            near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
            weights[i, min(max(j, 0), grid - 1)] += near if d <= 1 else far
    return weights


def test_positions_are_resampled_as_the_weights_were_used():
    network = VisionTransformer(width=2, depth=0, heads=1, grid=37).double()
    trained = np.random.default_rng(0).standard_normal((37, 37, 2))
    with torch.no_grad():
        network.pos_embed[0, 0] = 7
        network.pos_embed[0, 1:] = torch.from_numpy(trained.reshape(37**2, 2))
        found = network._positions(16, 20)
    assert (found[0, 0] == 7).all()
    expected = np.einsum("ik,jl,klc->ijc", cubic_convolution(16, 37), cubic_convolution(20, 37), trained)
    assert np.abs(found[0, 1:].numpy() - expected.reshape(-1, 2)).max() < 1e-12
    assert network._positions(37, 37) is network.pos_embed


def test_the_large_transformer_has_the_published_size():
    with torch.device("meta"):
        state = VisionTransformer().state_dict()
    numbers = sum(value.numel() for value in state.values())
    assert numbers == 304_368_640
    assert f"about {4 * numbers / 1e9:.2f} GB" == DINOV2.size
    assert state["pos_embed"].shape == (1, 1370, 1024)
    assert state["blocks.23.attn.qkv.weight"].shape == (3072, 1024)
    assert len(state) == 4 + 2 + 24 * 14 + 1
    assert DINOV2.url.endswith(f"/{DINOV2.file}")
    assert len(DINOV2.sha256) == 64


def test_dinov2_computes_what_torch_fidelity_does(dinov2_file, monkeypatch):
    from torch_fidelity.feature_extractor_dinov2 import FeatureExtractorDinoV2

    extractor, images = load_extractor("dinov2"), random_images(3, 32, 32)
    assert extractor.weights_sha256 == hashlib.sha256(dinov2_file.read_bytes()).hexdigest()
    assert (extractor.distance, extractor.kernel, extractor.dimension) == ("fd_dinov2", "kid_dinov2", 1024)
    monkeypatch.setattr(torch.hub, "load", lambda repository, name: random_transformer())
    theirs = FeatureExtractorDinoV2("dinov2-vit-l-14", ["dinov2"])
    found, logits = extractor.features_and_logits(images)
    assert logits is None
    assert found.std() > 0.1
    assert np.array_equal(found, theirs(torch.from_numpy(images))[0].numpy())


def test_dinov2_in_true_float64(dinov2_file):
    single, double = load_extractor("dinov2"), load_extractor("dinov2", dtype="float64")
    assert all(value.dtype == torch.float64 for value in double.network.parameters())
    images = random_images(3, 32, 32)
    together, alone = double.features(images), double.features(images, batch_size=1)
    assert together.dtype == np.float32
    assert (np.abs(together - alone) <= 2e-7 * np.abs(alone)).all()
    assert 0 < np.abs(single.features(images) - together).max() < 1e-3


def test_dinov2_fetches_and_executes_nothing(dinov2_file, monkeypatch):
    def refused(*arguments, **options):
        raise AssertionError("torch.hub was asked")

    for name in ("load", "download_url_to_file", "load_state_dict_from_url"):
        monkeypatch.setattr(torch.hub, name, refused)
    assert load_extractor("dinov2").features(random_images(1)).shape == (1, SMALL["width"])


# Missing, damaged and foreign weights, of both


KINDS = {"INCEPTION": (INCEPTION, "inception"), "DINOV2": (DINOV2, "dinov2")}
both = pytest.mark.parametrize("name", KINDS)


@both
def test_missing_weights_say_what_to_do(tmp_path, monkeypatch, name):
    weights, extractor = KINDS[name]
    monkeypatch.setenv(weights.variable, str(tmp_path / "no-such-file.pth"))
    text = error_of(load_extractor, extractor)
    for part in (weights.size, weights.sha256[:8], "no-such-file.pth", weights.command, weights.variable):
        assert part in text


@both
def test_where_the_weights_belong(tmp_path, monkeypatch, name):
    weights, _ = KINDS[name]
    monkeypatch.delenv(weights.variable, raising=False)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert weights.path() == tmp_path / "checkpoints" / weights.file
    monkeypatch.setenv(weights.variable, str(tmp_path))
    assert weights.path() == tmp_path / weights.file


@both
@pytest.mark.parametrize("damaged", [b"weighty", b"weight", b""])
def test_damaged_weights_are_refused(tmp_path, monkeypatch, damaged, name):
    weights, extractor = KINDS[name]
    path = tmp_path / "weights.pth"
    path.write_bytes(damaged)
    changed = expect(monkeypatch, name, hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setenv(weights.variable, str(path))
    assert "damaged" in error_of(load_extractor, extractor)
    assert "damaged" in error_of(changed.fetch)


class Harmful:
    def __reduce__(self):
        return (print, ("executed",))


@both
@pytest.mark.parametrize("content", [{"some": torch.zeros(1)}, [1], {"harm": Harmful()}, b"not a file of torch"])
def test_other_files_are_refused_and_never_executed(tmp_path, monkeypatch, capsys, content, name):
    weights, extractor = KINDS[name]
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    expect(monkeypatch, name, hashlib.sha256(path.read_bytes()).hexdigest())
    monkeypatch.setenv(weights.variable, str(path))
    assert f"does not hold {weights.network}'s weights" in error_of(load_extractor, extractor)
    assert "executed" not in capsys.readouterr().out


# Fetching


@pytest.fixture(params=KINDS)
def source(request, tmp_path, monkeypatch):
    """(weights, file): a small file at a file:// address in the place of the real one."""
    path = tmp_path / "served.pth"
    path.write_bytes(b"weights" * 100)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    weights = expect(monkeypatch, request.param, sha256[:8], url=path.as_uri())
    monkeypatch.setenv(weights.variable, str(tmp_path / "new" / "folder" / "weights.pth"))
    return weights, path


def test_fetch(source, capsys):
    weights, served = source
    features.main([weights.command])
    path = weights.path()
    assert path.read_bytes() == served.read_bytes()
    assert capsys.readouterr().out.strip() == str(path)
    served.unlink()
    assert weights.fetch() == path  # it is there already
    assert [entry.name for entry in path.parent.iterdir()] == ["weights.pth"]


def test_a_wrong_download_leaves_nothing(source):
    weights, served = source
    served.write_bytes(b"something else")
    assert "invalid hash" in error_of(weights.fetch, progress=False)
    assert list(weights.path().parent.iterdir()) == []


def test_fetch_without_a_network(source, monkeypatch, capsys):
    def offline(*arguments):
        raise URLError(OSError(-2, "Name or service not known"))

    weights, _ = source
    monkeypatch.setattr(torch.hub, "urlopen", offline)
    with pytest.raises(SystemExit) as caught:
        features.main([weights.command])
    assert caught.value.code == 1
    shown = capsys.readouterr().err.strip()
    assert shown.count("\n") == 0
    assert "Name or service not known" in shown
    assert weights.path().name in shown


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
