"""Networks that others trained: equal answers from a pipeline and a checkpoint; unsafe and damaged files refused."""

import json
from pathlib import Path

import adm_weights
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, UNet2DModel
from safetensors.torch import load_file, save_file

from debiaslib.diffusion.schedule import Schedule
from debiaslib.training.arms import split_settings
from debiaslib.training.load import load_model, load_pretrained
from tests.training import tiny
from tests.training.test_convert import SMALL, shapes
from tests.training.tiny import ask, refused

NETWORK = {**tiny.NETWORK, "block_out_channels": (8, 16), "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
           "up_block_types": ("AttnUpBlock2D", "UpBlock2D"), "add_attention": True, "dropout": 0.3}  # fmt: skip
SAFE, PICKLED = "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"
SCHEDULER = "scheduler/scheduler_config.json"


def unet(**changed):
    torch.manual_seed(0)
    return UNet2DModel(**{**NETWORK, **changed})


def pipeline(folder, scheduler=None, safe=True, **changed):
    """A pipeline's folder as diffusers itself writes it."""
    DDPMPipeline(unet(**changed), scheduler or DDPMScheduler()).save_pretrained(folder, safe_serialization=safe)
    return folder


# Pipelines


@pytest.mark.parametrize("safe", [True, False])
def test_a_pipeline_answers_as_diffusers_loads_it(tmp_path, safe):
    folder = pipeline(tmp_path / "some pipeline", safe=safe)
    made = load_pretrained(str(folder))
    assert torch.equal(ask(made.network), ask(unet().eval())) and torch.equal(
        ask(load_model(folder)), ask(made.network)
    )
    assert not made.network.training and not any(p.requires_grad for p in made.network.parameters())
    assert (made.name, made.resolution, made.prediction_type) == ("some pipeline", 8, "epsilon")
    assert made.clip_x0 and not made.learned_variance
    torch.testing.assert_close(made.schedule.alpha_bar, Schedule.linear().alpha_bar, rtol=1e-4, atol=1e-9)


def test_the_files_at_the_top_as_the_first_pipelines_of_the_hub_have_them(tmp_path):
    """google/ddpm-cifar10-32 has no folders, and its attention's layers have the names of another age."""
    folder = pipeline(tmp_path)
    for file in ("unet/config.json", f"unet/{SAFE}", SCHEDULER):
        (folder / file).rename(folder / Path(file).name)
    state = load_file(folder / SAFE)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    for name in list(state):
        for new, before in old.items():
            if f".{new}." in name:
                state[name.replace(f".{new}.", f".{before}.")] = state.pop(name)
    assert any("proj_attn" in name for name in state)
    save_file(state, folder / SAFE)
    assert torch.equal(ask(load_model(folder)), ask(unet().eval()))


def test_half_precision_is_loaded_as_float32(tmp_path):
    folder = tmp_path / "half"
    DDPMPipeline(unet().half(), DDPMScheduler()).save_pretrained(folder)
    network = load_model(folder)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    assert torch.equal(ask(network), ask(unet().half().float().eval()))


@pytest.mark.parametrize(
    ("scheduler", "schedule"),
    [
        (DDPMScheduler(num_train_timesteps=200, beta_schedule="squaredcos_cap_v2"), Schedule.cosine(200)),
        (DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"), Schedule.scaled_linear()),
        (DDPMScheduler(trained_betas=[0.1, 0.2, 0.4]), Schedule(torch.tensor([0.9, 0.72, 0.432]))),
        (
            DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction", clip_sample=False),
            Schedule.linear().rescale_zero_terminal_snr(),
        ),
    ],
)
def test_the_schedule_is_the_schedulers(tmp_path, scheduler, schedule):
    made = load_pretrained(pipeline(tmp_path, scheduler))
    assert (made.prediction_type, made.clip_x0) == (scheduler.config.prediction_type, scheduler.config.clip_sample)
    torch.testing.assert_close(made.schedule.snr, schedule.snr, rtol=5e-4, atol=1e-12)


def test_the_identity_is_of_the_weights_and_of_what_else_decides(tmp_path):
    first = load_pretrained(pipeline(tmp_path / "a"))
    same = load_pretrained(pipeline(tmp_path / "b"))
    other = load_pretrained(pipeline(tmp_path / "c", DDPMScheduler(beta_end=0.03)))
    assert first.identity == same.identity and first.slug.startswith("a-") and first.slug[2:] == same.slug[2:]
    assert other.identity["ema"] == first.identity["ema"] and other.identity["config"] != first.identity["config"]


def changed_json(path, **values):
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("unet/config.json", {"_class_name": "UNet2DConditionModel"}, "'UNet2DConditionModel' is unknown"),
        (
            "unet/config.json",
            {"num_class_embeds": 4},
            "does not fit its config.json: missing_keys class_embedding.weight",
        ),
        ("unet/config.json", {"layers_per_block": 2}, "is refused: "),
        ("unet/config.json", {"down_block_types": ["None2D", "None2D"]}, "is refused: "),
        (SCHEDULER, {"_class_name": "ScoreSdeVeScheduler"}, "'ScoreSdeVe' is unknown"),
        (SCHEDULER, {"prediction_type": "flow_prediction"}, "'flow_prediction' is unknown"),
        (SCHEDULER, {"use_flow_sigmas": True}, "says flow matching"),
        (SCHEDULER, {"thresholding": True}, "thresholding"),
        (SCHEDULER, {"beta_schedule": "other"}, "makes no schedule"),
    ],
)
def test_a_pipeline_that_does_not_fit_is_one_line(tmp_path, file, values, said):
    folder = pipeline(tmp_path)
    changed_json(folder / file, **values)
    assert said in refused(load_model, folder)


# Checkpoints


def test_a_checkpoint_of_adm(tmp_path):
    path = tmp_path / "ema_0.9999_500000.pt"
    torch.save(adm_weights.weights(shapes("learned")), path)
    made = load_pretrained(f"{path}; resolution=8, num_head_channels=32")
    assert (made.name, made.resolution, made.prediction_type) == ("ema_0.9999_500000", 8, "epsilon")
    assert made.learned_variance and made.clip_x0
    assert torch.equal(made.schedule.alpha_bar, Schedule.linear().alpha_bar)
    assert torch.equal(ask(made.network), ask(load_model(path, resolution=8, num_head_channels=32)))


def test_its_schedule_is_scaled_as_adm_does(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(adm_weights.weights(shapes("plain")), path)
    made = load_pretrained(path, **SMALL, timesteps=500)
    assert torch.equal(made.schedule.alpha_bar, Schedule.linear(500, 2e-4, 0.04).alpha_bar)
    made = load_pretrained(path, **SMALL, schedule="cosine", timesteps=400)
    assert torch.equal(made.schedule.alpha_bar, Schedule.cosine(400).alpha_bar)


def test_a_pipeline_that_does_not_say_its_size_is_one_line(tmp_path):
    source = pipeline(tmp_path / "p")
    changed_json(tmp_path / "p" / "unet" / "config.json", sample_size=None)
    line = refused(lambda: load_pretrained(source).resolution)
    assert "does not say the size of its images; set sample_size in its config.json" in line


def test_a_runs_snapshot_takes_no_settings_of_a_checkpoint(tmp_path):
    line = refused(load_model, tmp_path, images=8, num_heads=4)
    assert line == "num_heads cannot be given with images or raw, which are of a run of ours"


def test_a_source_and_its_settings():
    assert split_settings("model", "google/ddpm-cifar10-32") == ("google/ddpm-cifar10-32", {})
    assert split_settings("model", " a.pt ; num_heads=4, new_attention_order=True, schedule=cosine") == (
        "a.pt",
        {"num_heads": 4, "new_attention_order": True, "schedule": "cosine"},
    )
    line = refused(split_settings, "model", "a.pt; resolution=8, resolution=16")
    assert "write it as 'name; setting=value, ...'" in line


# Safety


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("where", ["checkpoint", "pipeline"])
def test_code_in_a_pickle_does_not_run(tmp_path, where):
    canary, path = tmp_path / "ran", tmp_path / "model.pt"
    if where == "pipeline":
        folder = pipeline(tmp_path / "pipeline", safe=False)
        path = folder / "unet" / PICKLED
    torch.save({"out.2.weight": torch.zeros(1), "more": Canary(canary)}, path)
    line = refused(load_model, path if where == "checkpoint" else folder)
    assert path.suffix in line and not canary.exists()
    torch.load(path, weights_only=False)
    assert canary.exists()  # it would have run


@pytest.mark.parametrize("left", [0.0, 0.5, 0.99])
def test_a_file_cut_short_is_one_line(tmp_path, left):
    path = tmp_path / "model.pt"
    torch.save({"a": torch.arange(1000.0), "b": torch.zeros(3)}, path)
    weights = pipeline(tmp_path / "pipeline") / "unet" / SAFE
    for cut, source in ((path, path), (weights, tmp_path / "pipeline")):
        cut.write_bytes(cut.read_bytes()[: int(left * cut.stat().st_size)])
        assert cut.suffix in refused(load_model, source)


# The hub


def test_no_such_path_and_no_hub_id():
    assert "is no existing folder or file and no hub id" in refused(load_pretrained, "./nowhere/at/all")
    assert "only a checkpoint of ADM takes a setting; got 'revision'" in refused(
        load_pretrained, "tests; revision=main"
    )


def test_without_a_network_it_says_what_to_put_where(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    line = refused(load_pretrained, "google/ddpm-cifar10-32")
    assert line.startswith("model 'google/ddpm-cifar10-32' is no existing path, and the hub does not give it")
    assert "give a folder with its files, or copy the hub's cache, HF_HOME" in line


def test_a_pipeline_in_the_hubs_cache_needs_no_network(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    cache, commit = tmp_path / "models--some--faces", "0123456789abcdef0123456789abcdef01234567"
    pipeline(cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    made = load_pretrained("some/faces")
    assert made.name == "some/faces" and made.slug.startswith("some-faces-")
    assert torch.equal(ask(made.network), ask(unet().eval()))


# What a checkpoint does not say


def test_networks_of_several_kinds_of_attention_need_both_settings(tmp_path, monkeypatch):
    """As OpenAI's of 64x64 and 128x128: a wrong one would make no error, only a bad network."""
    path = tmp_path / "model.pt"
    torch.save(adm_weights.weights(shapes("plain")), path)
    monkeypatch.setattr("debiaslib.training.adm._AMBIGUOUS", ((1, 2, 2),))
    for given in ({"num_heads": 4}, {"num_head_channels": 16}, {"num_heads": 4, "schedule": "cosine"}):
        line = refused(lambda given=given: load_pretrained(path, resolution=16, **given))
        assert "give num_heads or num_head_channels, and new_attention_order" in line
    assert load_pretrained(path, **SMALL, new_attention_order=False).resolution == 16


@pytest.mark.parametrize("setting", ["num_heads=0", "num_head_channels=0", "num_heads=four", "resolution=true"])
def test_sizes_of_heads_and_images_are_whole_numbers(tmp_path, setting):
    torch.save(adm_weights.weights(shapes("plain")), tmp_path / "model.pt")
    line = refused(load_pretrained, f"{tmp_path / 'model.pt'}; {setting}")
    assert line.startswith(setting.split("=")[0] + " is ") and "it must be a whole number >= 1" in line


def test_what_is_assumed_is_said(tmp_path, capsys):
    torch.save(adm_weights.weights(shapes("plain")), tmp_path / "model.pt")
    load_pretrained(tmp_path / "model.pt", **SMALL)
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("model.pt: assumed {'new_attention_order': False, 'schedule': ")
    whole = {"new_attention_order": False, "schedule": "linear", "timesteps": 1000, "prediction_type": "epsilon"}
    load_pretrained(tmp_path / "model.pt", resolution=16, num_heads=4, **whole)
    assert capsys.readouterr().err == ""


def test_networks_of_other_than_three_channels_are_refused(tmp_path):
    path = tmp_path / "64_256_upsampler.pt"  # a super-resolution network is also given the small image
    torch.save(adm_weights.weights({**shapes("plain"), "input_blocks.0.0.weight": (32, 6, 3, 3)}), path)
    assert "takes 6 channels and answers" in refused(load_model, f"{path}; resolution=16, num_head_channels=16")
    grey = pipeline(tmp_path / "p", in_channels=1, out_channels=1)
    assert "takes 1 channels and answers 1; it must take 3" in refused(load_model, grey)


# What a scheduler of another age or kind says


@pytest.mark.parametrize(("old", "kind"), [(True, "epsilon"), (False, "sample")])
def test_predict_epsilon_of_before_diffusers_0_10(tmp_path, old, kind):
    folder = pipeline(tmp_path)
    path = folder / SCHEDULER
    said = json.loads(path.read_text())
    del said["prediction_type"]
    path.write_text(json.dumps({**said, "predict_epsilon": old}))
    assert load_pretrained(folder).prediction_type == kind
