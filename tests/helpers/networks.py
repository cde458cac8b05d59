"""Every network with every option that it has, small: the cases of the contract suite, and helpers for them."""

import pytest
import torch
from torch import nn

from imtrans import (
    HugGANGenerator,
    LocalEnhancer,
    MultiscaleDiscriminator,
    PatchDiscriminator,
    PixelDiscriminator,
    ResnetGenerator,
    UNetGenerator,
)
from imtrans.nn.attention import SelfAttention
from imtrans.nn.layers import group_norm
from imtrans.nn.skips import AddSkip, GatedSkip


def trained(generator):
    """Give a network statistics and weights in which a mistake shows."""
    for module in generator.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2.0)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.5, 0.5)
        elif isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            module.weight.data.normal_(0.0, 0.1)
        elif isinstance(module, SelfAttention):
            module.gamma.data.fill_(0.5)
    return generator


SMALL = {
    UNetGenerator: {"base_channels": 4, "depth": 3},
    ResnetGenerator: {"base_channels": 4, "num_blocks": 2},
    LocalEnhancer: {"base_channels": 2, "num_blocks": 1, "global_blocks": 1, "global_downs": 2},
    HugGANGenerator: {"base_channels": 4, "depth": 4},
    PatchDiscriminator: {"base_channels": 4, "n_layers": 2},
    PixelDiscriminator: {"base_channels": 4},
    MultiscaleDiscriminator: {"base_channels": 4, "n_layers": 2},
}
GENERATORS = (UNetGenerator, ResnetGenerator, LocalEnhancer, HugGANGenerator)
CONVOLUTIONAL = (PatchDiscriminator, MultiscaleDiscriminator)  # of a number of layers

NORMS = [{"norm": norm} for norm in ("batch", "instance", "group", "keras_batch", "none")]
BIASES = [{"bias": bias} for bias in (True, False)]
ACTS = [
    {"act": act} for act in ("relu", "leaky_relu", "leaky_relu_0.3", "elu", "gelu", "silu", "tanh", "sigmoid", "none")
]
UPSAMPLES = [{"upsample": upsample} for upsample in ("nearest", "bilinear", "shuffle")]
OUT_ACTS = [{"out_act": "sigmoid"}, {"out_act": "none"}]

OPTIONS = {
    UNetGenerator: [
        {},
        *NORMS,
        *BIASES,
        *ACTS,
        *UPSAMPLES,
        *OUT_ACTS,
        {"skips": "add"},
        {"skips": "gate"},
        {"skips": "none"},
        {"skips": ("gate", "none")},
        {"skips": "add", "norm": "none", "upsample": "nearest"},
        {"decoder_act": "leaky_relu"},
        {"decoder_act": "none"},
        {"act_before_merge": True},
        {"act_before_merge": True, "skips": ("gate", "none"), "decoder_act": "leaky_relu"},
        {"act_before_merge": True, "skips": "add", "num_convs": 2, "stem": True},
        {"bottleneck_norm": True, "norm": "keras_batch"},
        {"bottleneck_norm": True, "norm": "group", "downsample": "pool", "num_convs": 2},
        {"bottleneck_norm": True, "depth": 1, "stem": True},
        {"dropout": ()},
        {"dropout": (0.0, 0.5)},
        {"dropout": (1.0, 0.25, 0.5, 0.5)},
        {"downsample": "pool"},
        {"downsample": "blur"},
        {"downsample": "pool", "num_convs": 2},
        {"num_convs": 3, "skips": "none"},
        {"stem": True},
        {"stem": True, "downsample": "pool", "num_convs": 2, "deconv_size": 2, "norm": "none"},
        {"stem": True, "attention": (0,), "upsample": "shuffle"},
        {"stem": True, "depth": 1},
        {"deconv_size": 2},
        {"deconv_size": 3},
        {"width_cap": 1},
        {"attention": (1,)},
        {"attention": (0, 2), "norm": "group"},
        {"base_channels": 64, "depth": 8, "channels": (3, 5, 7)},
        {"depth": 1},
        {"depth": 1, "attention": (0,), "num_convs": 2},
        {"depth": 5},
        {"odd_sizes": "error"},
        {"in_channels": 1, "out_channels": 5},
    ],
    ResnetGenerator: [
        {},
        *NORMS,
        *BIASES,
        *ACTS,
        *UPSAMPLES,
        *OUT_ACTS,
        *({"padding_mode": mode} for mode in ("zeros", "reflect", "replicate", "circular")),
        {"dropout": 0.5},
        {"num_blocks": 0},
        {"num_downs": 0},
        {"num_downs": 3},
        {"odd_sizes": "error"},
        {"in_channels": 1, "out_channels": 5},
    ],
    LocalEnhancer: [
        {},
        *NORMS,
        *BIASES,
        *ACTS,
        *UPSAMPLES,
        *OUT_ACTS,
        *({"padding_mode": mode} for mode in ("zeros", "replicate", "circular")),
        {"dropout": 0.5},
        {"num_enhancers": 2, "num_blocks": 0},
        {"num_blocks": 0},
        {"global_blocks": 0},
        {"global_downs": 0},
        {"odd_sizes": "error"},
        {"in_channels": 9, "out_channels": 5},
    ],
    HugGANGenerator: [
        {},
        *({"dropout": p} for p in (0.0, 0.25)),
        *({"depth": n} for n in (1, 2, 5)),
        {"odd_sizes": "error"},
        {"in_channels": 1, "out_channels": 5},
    ],
    PatchDiscriminator: [
        {},
        *NORMS,
        *BIASES,
        *ACTS,
        *({"n_layers": n} for n in (1, 3)),
        {"padding": 0, "n_layers": 1},
        *({"padding": n} for n in (2, 3)),
        {"spectral_norm": True},
        {"spectral_norm": True, "norm": "none", "bias": False},
        {"first_bias": False},
        {"in_channels": 1},
    ],
    PixelDiscriminator: [{}, *NORMS, *BIASES, *ACTS, {"in_channels": 1}],
    MultiscaleDiscriminator: [
        {},
        *NORMS,
        *BIASES,
        *ACTS,
        *({"num_scales": n} for n in (1, 3)),
        {"n_layers": 1},
        {"padding": 1},
        {"spectral_norm": True},
        {"in_channels": 1},
    ],
}

CALLABLES = {
    UNetGenerator: [
        {"norm": group_norm},
        {"act": nn.GELU},
        {"decoder_act": nn.GELU},
        {"out_act": nn.Hardtanh},
        {"skips": GatedSkip},
        {"skips": (AddSkip, "concat")},
    ],
    ResnetGenerator: [{"norm": group_norm}, {"act": nn.GELU}, {"out_act": nn.Hardtanh}],
    LocalEnhancer: [{"norm": group_norm}, {"act": nn.GELU}, {"out_act": nn.Hardtanh}],
    PatchDiscriminator: [{"norm": nn.InstanceNorm2d}, {"act": nn.GELU}],
    PixelDiscriminator: [{"norm": nn.InstanceNorm2d}, {"act": nn.GELU}],
    MultiscaleDiscriminator: [{"norm": nn.BatchNorm2d}, {"act": nn.GELU}],
}


def params(table):
    return [pytest.param((cls, changes), id=in_words(cls, changes)) for cls in table for changes in table[cls]]


def in_words(cls, changes):
    arguments = ", ".join(f"{name}={getattr(value, '__name__', value)}" for name, value in changes.items())
    return f"{cls.__name__}({arguments})"


def build(case):
    cls, changes = case
    return cls(**{**SMALL[cls], **changes})


def images_for(network, size=(32, 32), batch=2, **kwargs):
    return torch.rand(batch, network.in_channels, *size, **kwargs) * 2 - 1


def is_generator(network):
    return isinstance(network, GENERATORS)


def maps(output):
    """The output of a network as a list: of one tensor, or of the logits of each scale."""
    return output if isinstance(output, list) else [output]


def same(one, other):
    return all(map(torch.equal, maps(one), maps(other))) and len(maps(one)) == len(maps(other))


def once(cases):
    """Each option with the first network that has it; the others, which share its code, are slow."""
    seen = set()
    for case in cases:
        (_, changes) = case.values[0]
        marks = [pytest.mark.slow] if changes and repr(changes) in seen else []
        seen.add(repr(changes))
        yield pytest.param(*case.values, id=case.id, marks=marks)


by_name = pytest.mark.parametrize("case", params(OPTIONS))
by_callable = pytest.mark.parametrize("case", params(CALLABLES))
by_either = pytest.mark.parametrize("case", [*params(OPTIONS), *params(CALLABLES)])
by_either_once = pytest.mark.parametrize("case", list(once([*params(OPTIONS), *params(CALLABLES)])))
plain = pytest.mark.parametrize("case", params({cls: [{}] for cls in SMALL}))
plain_with_norm = pytest.mark.parametrize("case", params({cls: [{}] for cls in SMALL if cls is not HugGANGenerator}))
