"""How a training is made fast on the device at hand: precision, memory format, compilation.

All three change the last bits of a result, so each is a setting of the run and is written into its config.json as a
concrete value; "auto" is a question, answered here once, when the run begins.
"""

import dataclasses
import sys

import torch

_X86_UNITS = ("avx512_bf16", "amx_bf16")
_COMPILE_MODES = {"default": "default", "cuda_graphs": "reduce-overhead"}  # as torch.compile calls them


def has_bf16_units(device="cpu"):
    """Whether matrix products in bfloat16 are faster than in float32 on `device`, by the hardware that it names.

    CPU: AVX512-BF16 or AMX, used through oneDNN; other processors are answered False, as nothing was measured on them.
    CUDA: compute capability 8.0 or later, emulation not counted. MPS: False.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if hasattr(torch.cpu, "get_capabilities"):
        units = torch.cpu.get_capabilities()
        return any(units.get(name, False) for name in _X86_UNITS)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # before torch 2.12


def concrete_precision(config, made=None):
    """`config` with precision "auto" replaced by what the run was begun in, or else by what this device is good at.

    made: the configuration that the run's folder holds (a dict), or None. What was chosen is said on stderr in a line.
    """
    if config.precision != "auto":
        return config
    if made is not None:
        return dataclasses.replace(config, precision=made.get("precision", "float32"))
    fast = has_bf16_units(config.device)
    precision = "bfloat16" if fast else "float32"
    why = "has" if fast else "has no"
    print(f"precision is {precision}: {config.device} {why} bfloat16 matrix units", file=sys.stderr)
    return dataclasses.replace(config, precision=precision)


def prepare_network(network, config):
    """The same network, laid out and compiled in place as `config` says; names and values of its weights stay.

    memory_format "channels_last" stores 4-D weights, and so all activations, with the channels innermost. compilation
    "default" is torch.compile, "cuda_graphs" its mode that also records CUDA graphs ("reduce-overhead").
    """
    if config.memory_format == "channels_last":
        network.to(memory_format=torch.channels_last)
    if config.compilation != "none":
        network.compile(mode=_COMPILE_MODES[config.compilation])
    return network
