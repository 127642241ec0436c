"""Networks: the published sizes, the input skip, the zero start, the transformer; precision and memory layout."""

import copy

import pytest
import torch
from diffusers import DiTTransformer2DModel, UNet2DModel

from debiaslib.diffusion.one_step import one_step_estimate
from debiaslib.diffusion.sampling import sample
from debiaslib.diffusion.schedule import Schedule
from debiaslib.errors import InputError
from debiaslib.training.load import load_model, load_pretrained
from debiaslib.training.loop import train
from debiaslib.training.network import build_network, build_schedule, prepare_network, skip_scale
from tests.training.tiny import NETWORK, STILL, TRANSFORMER, ask, config, equal

SKIP = {**STILL, "input_skip": True}
ATTENDING = {**STILL, "down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "add_attention": True}
KINDS = ["epsilon", "sample", "v_prediction"]
T = torch.tensor([0, 3, 500, 999])


def x_t():
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


# Sizes and beginnings


def test_all_weightings_of_a_seed_start_from_the_same_weights():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    states = [build_network(config(weighting=w)).state_dict() for w in ("constant", "debiased", "p2")]
    assert torch.equal(torch.get_rng_state(), before) and all(equal(state, states[0]) for state in states)
    assert not equal(build_network(config(seed=1)).state_dict(), states[0])


@pytest.mark.parametrize("name", ["linear", "scaled_linear", "cosine", "sigmoid"])
def test_the_schedule_by_its_name(name):
    schedule = build_schedule(config(schedule=name, timesteps=50))
    assert schedule.name == name and torch.equal(schedule.alpha_bar, getattr(Schedule, name)(50).alpha_bar)


@pytest.mark.parametrize("change", [{"down_block_types": ["DownBlock2D"]}, {"norm_num_groups": 7}, {"chanels": 3}])
def test_a_network_that_diffusers_refuses_is_one_line(change):
    with pytest.raises(InputError, match="the network's settings are refused by diffusers: ") as caught:
        build_network(config(network={**NETWORK, **change}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "network, said",
    [
        ({**TRANSFORMER, "in_channels": 1}, "the network cannot take images of 3x8x8: "),
        ({**STILL, "block_out_channels": []}, "the network's settings are refused by diffusers: "),
        ({**STILL, "class_embed_type": "timestep"}, "the network cannot take images of 3x8x8: "),
        ({**STILL, "sample_size": 16}, "sample_size of the network is 16; it must be the resolution, 8"),
        ({**STILL, "out_channels": 6}, "the network answers (6, 8, 8) to an image; it must be (3, 8, 8)"),
    ],
)
def test_a_network_that_does_not_fit_the_images_is_refused_before_anything_is_written(tmp_path, network, said):
    with pytest.raises(InputError) as caught:
        train(config(network=network), tmp_path, progress=False)
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)
    assert not [*tmp_path.rglob("config.json")]
    train(config(), tmp_path, progress=False)  # the folder takes the mended call


# The input skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("terminal", [False, True])
def test_the_scale_is_the_best_linear_guess_for_unit_variance(kind, terminal):
    scale = skip_scale(config(prediction_type=kind, zero_terminal_snr=terminal))
    schedule = Schedule.linear().rescale_zero_terminal_snr() if terminal else Schedule.linear()
    a, s = schedule.alpha_bar.sqrt(), (1 - schedule.alpha_bar).sqrt()
    # x0 and epsilon independent of variance 1: Cov(target, x_t) / Var(x_t), Var(x_t) = 1.
    wanted = {"epsilon": s, "sample": a, "v_prediction": a * s - s * a}[kind]
    assert scale.dtype == torch.float32
    torch.testing.assert_close(scale.double(), wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_network_with_a_skip_is_scale_x_t_plus_the_plain_one(kind):
    """To the bit; and its weights have the plain network's names and values."""
    plain, skip = (build_network(config(network=n, prediction_type=kind)).eval() for n in (STILL, SKIP))
    assert type(plain) is UNet2DModel and list(plain.state_dict()) == list(UNet2DModel(**STILL).state_dict())
    assert equal(dict(skip.state_dict()), dict(plain.state_dict()))
    scale = skip_scale(config(prediction_type=kind))[T].view(-1, 1, 1, 1)
    with torch.no_grad():
        assert torch.equal(skip(x_t(), T).sample, plain(x_t(), T).sample + scale * x_t())
        assert torch.equal(skip(x_t(), 7, return_dict=False)[0], skip(x_t(), torch.full((4,), 7)).sample)


def test_the_values_of_a_learned_variance_get_no_skip():
    plain, skip = (build_network(config(network=n, learned_variance=True)).eval() for n in (STILL, SKIP))
    scale = skip_scale(config())[T].view(-1, 1, 1, 1)
    with torch.no_grad():
        output, without = skip(x_t(), T).sample, plain(x_t(), T).sample
    assert output.shape == (4, 6, 8, 8) and torch.equal(output[:, 3:], without[:, 3:])
    assert torch.equal(output[:, :3], without[:, :3] + scale * x_t())


@pytest.mark.parametrize("base", [STILL, ATTENDING, TRANSFORMER])
def test_from_zero_it_answers_the_scale_times_x_t_exactly(base):
    network = build_network(config(network={**base, "input_skip": True, "zero_init": True})).eval()
    scale = skip_scale(config())[T].view(-1, 1, 1, 1)
    with torch.no_grad():
        assert torch.equal(network(x_t(), T).sample, scale * x_t())
        without = build_network(config(network={**base, "zero_init": True})).eval()
        assert not without(x_t(), T).sample.any()


def test_the_zero_start_is_where_adm_has_it():
    """The last layer of each residual block and attention, and of the network; other weights as without."""
    networks = [build_network(config(network={**ATTENDING, "zero_init": zero})) for zero in (True, False)]
    zero, plain = (dict(network.state_dict()) for network in networks)
    emptied = {name for name in zero if not torch.equal(zero[name], plain[name])}
    ends = (".conv2.weight", ".to_out.0.weight", "conv_out.weight")
    assert emptied and all(name.replace(".bias", ".weight").endswith(ends) for name in emptied)
    assert all(not zero[name].any() for name in zero if name.endswith(ends)) and len(emptied) >= 2 * 8


@pytest.mark.parametrize("network", [{**SKIP, "zero_init": True}, {**TRANSFORMER, "input_skip": True}, TRANSFORMER])
def test_it_is_trained_loaded_sampled_and_asked_one_step(tmp_path, network):
    run = train(config(network=network, images=24, snapshots=[8]), tmp_path, "test", progress=False)
    loaded, schedule = load_model(run), Schedule.linear()
    fresh = build_network(config(network=network))
    fresh.load_state_dict({name: value.clone() for name, value in loaded.state_dict().items()})
    assert torch.equal(ask(loaded), ask(fresh.eval())) and torch.equal(
        ask(load_pretrained(run.folder).network), ask(loaded)
    )
    made = one_step_estimate(loaded, x_t().clamp(-1, 1), 500, x_t(), schedule)
    assert made.x0_hat.shape == (4, 3, 8, 8) and made.x0_hat.isfinite().all()
    images = sample(loaded, schedule, [0, 1], steps=3, shape=(3, 8, 8), batch_size=2)
    assert images.shape == (2, 3, 8, 8) and images.std() > 1


def test_the_transformer_is_diffusers_own():
    network = build_network(config(network=TRANSFORMER)).eval()
    settings = {key: value for key, value in TRANSFORMER.items() if key != "_class_name"}
    stock = DiTTransformer2DModel(**settings, num_embeds_ada_norm=1).eval()
    stock.load_state_dict(network.state_dict())
    with torch.no_grad():
        wanted = stock(x_t(), timestep=T, class_labels=torch.zeros(4, dtype=torch.long)).sample
        assert torch.equal(network(x_t(), T).sample, wanted)
        assert torch.equal(network.train()(x_t(), T).sample, wanted)  # diffusers drops 10 % of the classes in training
    with pytest.raises(InputError, match="_class_name of the network 'DiT' is unknown"):
        build_network(config(network={**TRANSFORMER, "_class_name": "DiT"}))


@pytest.mark.parametrize("network", [STILL, SKIP, TRANSFORMER])
def test_the_output_is_finer_than_bfloat16_under_autocast(network):
    made = build_network(config(network=network)).eval()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        output = made(torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), 500).sample
    assert output.dtype == torch.float32 and not torch.equal(output, output.bfloat16().float())


# Memory layout, compilation


def test_channels_last_is_the_same_network():
    plain, last = (build_network(config(memory_format=name)) for name in ("contiguous", "channels_last"))
    assert prepare_network(last, config(memory_format="channels_last")) is last
    assert last.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert not last.conv_in.weight.is_contiguous() and plain.conv_in.weight.is_contiguous()
    assert equal(dict(last.state_dict()), dict(plain.state_dict()))
    torch.testing.assert_close(ask(last), ask(plain), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("compilation", "device", "modes"),
    [("none", "cpu", []), ("default", "cpu", ["default"]), ("cuda_graphs", "cuda", ["reduce-overhead"])],
)
def test_compilation_is_in_place(monkeypatch, compilation, device, modes):
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, mode: asked.append(mode))
    made = config(compilation=compilation, device=device)
    network = build_network(made)
    names = list(network.state_dict())
    assert prepare_network(network, made) is network and asked == modes and list(network.state_dict()) == names


@pytest.mark.parametrize("base", [SKIP, TRANSFORMER])
def test_it_is_copied_saved_asked_in_half_precision_and_at_a_float_timestep(base, tmp_path):
    network = build_network(config(network=base)).eval()
    torch.save(network, tmp_path / "network.pt")
    with torch.no_grad():
        wanted = network(x_t(), T).sample
        for one in (copy.deepcopy(network), torch.load(tmp_path / "network.pt", weights_only=False)):
            assert torch.equal(one(x_t(), T).sample, wanted)
        assert torch.equal(network(x_t(), T.float()).sample, wanted)
        half = network.to(torch.bfloat16)(x_t().bfloat16(), T).sample
    assert half.dtype == torch.bfloat16 and torch.allclose(half.float(), wanted, atol=0.1)
