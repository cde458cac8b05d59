"""A saved description is true: what was changed after it was built is refused, with the way out."""

import copy
import json

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations
from torch.nn.utils import spectral_norm as old_spectral_norm

from imtrans import (
    LocalEnhancer,
    MultiscaleDiscriminator,
    PatchDiscriminator,
    Pix2Pix,
    ProceduralFacades,
    ResnetGenerator,
    Trainer,
    UNetGenerator,
    load_pretrained,
    running_as,
)
from imtrans.distributed.sync_batchnorm import convert_sync_batchnorm
from imtrans.errors import SavedModelError
from imtrans.hub.pretrained import Pretrained
from imtrans.modes import MODES
from imtrans.nn.init import init_net


def unet(**changes):
    return UNetGenerator(base_channels=4, depth=3, **changes)


def resnet(**changes):
    return ResnetGenerator(base_channels=4, num_blocks=1, num_downs=1, **changes)


def change(path, **attributes):
    """A function that sets attributes of a module of the network."""

    def edit(network):
        for name, value in attributes.items():
            setattr(network.get_submodule(path), name, value)

    return edit


def track_statistics(network):
    network.stem.norm = nn.InstanceNorm2d(4, track_running_stats=True)


def replace_forward(network):
    network.head.forward = lambda x: x


EDITS = {
    "out_act": (unet, change("", out_act=nn.Sigmoid()), "out_act is Sigmoid(), but they give Tanh()."),
    "act": (resnet, change("stem", act=nn.SiLU()), "stem.act is SiLU(), but they give ReLU(inplace=True)."),
    "padding_mode": (
        unet,
        change("encoder.0.conv", padding_mode="reflect"),
        "encoder.0.conv.padding_mode is 'reflect', but they give 'zeros'.",
    ),
    "slope": (
        unet,
        change("encoder.0.act", negative_slope=0.1),
        "encoder.0.act.negative_slope is 0.1, but they give 0.2.",
    ),
    "odd_sizes": (unet, change("", odd_sizes="error"), "odd_sizes is 'error', but they give 'pad'."),
    "dropout": (unet, change("decoder.0.dropout", p=0.1), "decoder.0.dropout.p is 0.1, but they give 0.5."),
    "batch to group norm": (
        unet,
        change("encoder.1", norm=nn.GroupNorm(1, 8)),
        "encoder.1.norm is GroupNorm(1, 8, eps=1e-05, affine=True",
    ),
    "tracked instance norm": (
        resnet,
        track_statistics,
        "stem.norm.track_running_stats is True, but they give False; stem.norm.running_mean is a tensor of shape (4,), "
        "but they give nothing; ",
    ),
    "batch to tracked instance norm": (
        unet,
        change("encoder.1", norm=nn.InstanceNorm2d(8, affine=True, track_running_stats=True)),
        "encoder.1.norm is InstanceNorm2d(8, ",
    ),
    "head": (
        unet,
        change("", head=nn.ConvTranspose2d(8, 3, 2, 2)),
        "head.kernel_size is (2, 2), but they give (4, 4); ",
    ),
    "width of the head": (
        unet,
        change("", head=nn.ConvTranspose2d(8, 5, 4, 2, 1)),
        "head.weight is a tensor of shape (8, 5, 4, 4), but they give a tensor of shape (8, 3, 4, 4)",
    ),
    "spectral norm": (
        resnet,
        lambda network: parametrizations.spectral_norm(network.stem.conv),
        "stem.conv.parametrizations is ModuleDict(",
    ),
    "old spectral norm": (
        resnet,
        lambda network: old_spectral_norm(network.stem.conv),
        "stem.conv._forward_pre_hooks is SpectralNorm, but they give nothing; ",
    ),
    "hook": (
        resnet,
        lambda network: network.stem.register_forward_hook(replace_forward),
        "stem._forward_hooks is replace_forward, but they give nothing.",
    ),
    "forward": (resnet, replace_forward, "head.forward is <function replace_forward"),
    "removed module": (unet, change("decoder.0", merge=None), "decoder.0.merge is nothing, but they give ConcatSkip()"),
    "added module": (unet, change("", extra=nn.ReLU()), "extra is ReLU(), but they give nothing."),
    "added parameter": (
        unet,
        change("", scale=nn.Parameter(torch.ones(2))),
        "scale is a tensor of shape (2,), but they give nothing.",
    ),
}


@pytest.mark.filterwarnings("ignore:.*spectral_norm.*is deprecated")
@pytest.mark.parametrize("edit", EDITS)
def test_a_changed_network_is_not_saved(tmp_path, edit):
    make, apply, message = EDITS[edit]
    network = make()
    apply(network)
    with pytest.raises(SavedModelError) as caught:
        network.save_pretrained(tmp_path / "saved")
    text = str(caught.value)
    assert text.startswith(
        f"{make().__class__.__name__}: the network differs from its description, config.json, which holds only the "
        "class and its arguments: "
    )
    assert message in text
    assert "Build the network with arguments that give this, or make the change in the __init__ of a subclass" in text
    assert not (tmp_path / "saved").exists()


def test_the_order_of_modules_counts(tmp_path):
    network = unet()
    network.encoder[1]._modules = dict(reversed(network.encoder[1]._modules.items()))
    with pytest.raises(SavedModelError, match=r"encoder\.1 is in the order act, norm, conv, but they give the order"):
        network.save_pretrained(tmp_path)


def test_many_differences_are_counted(tmp_path):
    network = resnet()
    for module in network.modules():
        if isinstance(module, nn.InstanceNorm2d):
            module.eps = 1e-3
    with pytest.raises(SavedModelError, match=r"stem\.norm\.eps is 0\.001, but .* And 2 more differences\."):
        network.save_pretrained(tmp_path)


HARMLESS = {
    "evaluation mode": lambda network: network.eval(),
    "inplace": change("encoder.1.act", inplace=False),
    "half": lambda network: network.half(),
    "float64": lambda network: network.double(),
    "frozen": lambda network: network.requires_grad_(False),
    "frozen biases": lambda network: network.head.bias.requires_grad_(False),
    "channels last": lambda network: network.to(memory_format=torch.channels_last),
    "norms over processes": convert_sync_batchnorm,
    "torch's norms over processes": nn.SyncBatchNorm.convert_sync_batchnorm,
    "mode": change("", inference_mode="paper"),
    "a note": change("", note="the best so far"),
    "drawn weights": lambda network: init_net(network, "cpu", seed=1),
    "gradients": lambda network: network(torch.rand(2, 3, 16, 16)).sum().backward(),
    "backward hook": lambda network: network.head.register_full_backward_hook(lambda *_: None),
    "compiled in place": lambda network: network.compile(backend="eager"),
}


@pytest.mark.parametrize("edit", HARMLESS)
def test_what_changes_no_output_is_saved(tmp_path, edit):
    network = unet()
    HARMLESS[edit](network)
    network.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    network.eval()
    images = torch.rand(1, 3, 16, 16).to(next(loaded.parameters()).dtype)
    assert torch.equal(loaded(images), network(images))


@pytest.mark.parametrize(
    "network",
    [
        unet(skips=["gate", "add"], attention=(1,), upsample="shuffle", downsample="blur"),
        LocalEnhancer(base_channels=2, num_blocks=1, global_blocks=1, global_downs=1, num_enhancers=2),
        MultiscaleDiscriminator(4, base_channels=2, spectral_norm=True),
        PatchDiscriminator(4, base_channels=2, spectral_norm=True),
    ],
    ids=lambda network: type(network).__name__,
)
def test_deep_copies_and_networks_from_the_meta_device_are_saved(tmp_path, network):
    copy.deepcopy(network).save_pretrained(tmp_path / "copy")
    with torch.device("meta"):
        empty = type(network)(**network.config)
    init_net(empty, "cpu", seed=0).save_pretrained(tmp_path / "meta")
    assert load_pretrained(tmp_path / "meta").config == load_pretrained(tmp_path / "copy").config == network.config


def test_an_edit_after_a_save_is_seen(tmp_path):
    network = unet()
    network.save_pretrained(tmp_path)
    network.out_act = nn.Sigmoid()
    with pytest.raises(SavedModelError, match="out_act is Sigmoid"):
        network.save_pretrained(tmp_path)
    network.out_act = nn.Tanh()
    network.save_pretrained(tmp_path)


def test_the_network_is_built_once_for_many_saves(tmp_path):
    built = []

    class Counted(Pretrained):
        def __init__(self, width):
            super().__init__()
            built.append(torch.get_default_device().type)
            self.conv = nn.Conv2d(width, width, 1)

    network = Counted(2)
    state = torch.get_rng_state()
    for _ in range(3):
        network.save_pretrained(tmp_path)
    assert built == ["cpu", "meta"]
    assert torch.equal(torch.get_rng_state(), state)


# Subclasses


class Keywords(UNetGenerator):
    def __init__(self, extra=1, **kwargs):
        super().__init__(**kwargs)
        self.extra = extra


class Anything(UNetGenerator):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


def test_keyword_arguments_of_a_subclass_are_saved(tmp_path):
    network = Keywords(base_channels=4, depth=2, skips=["add"]).eval()
    network.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["arguments"] == {
        "extra": 1, "base_channels": 4, "depth": 2, "skips": ["add"]
    }  # fmt: skip
    loaded = Keywords.from_pretrained(tmp_path)
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(loaded(images), network(images))
    Anything(base_channels=4, depth=2).save_pretrained(tmp_path)
    assert Anything.from_pretrained(tmp_path).depth == 2


def test_colours_of_a_subclass_with_keyword_arguments():
    network = Keywords(in_channels=1, out_channels=2, base_channels=2, depth=1)
    network.colours = "lab"
    assert network.description()["colours"] == "lab"


def test_arguments_without_names_are_refused(tmp_path):
    with pytest.raises(SavedModelError) as caught:
        Anything(1, 2, base_channels=4, depth=2).save_pretrained(tmp_path)
    assert str(caught.value) == (
        "Anything: the arguments *args=(1, 2) cannot be saved, because they have no names. Pass them by name, or give "
        "the parameters of __init__ names."
    )


def test_an_unknown_keyword_in_a_file_is_refused(tmp_path):
    Keywords(base_channels=4, depth=2).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"extra"', '"dpeth"'))
    with pytest.raises(SavedModelError, match=r"does not describe a network.*unexpected keyword argument 'dpeth'"):
        Keywords.from_pretrained(tmp_path)


def test_a_class_with_the_name_of_its_base_is_refused(tmp_path):
    cls = type("UNetGenerator", (UNetGenerator,), {})
    with pytest.raises(SavedModelError, match=r"a class that it derives from has the same name.* Give it a name of"):
        cls(base_channels=2, depth=1).save_pretrained(tmp_path)


def test_a_class_that_cannot_be_built_again_is_refused(tmp_path):
    class Once(Pretrained):
        def __init__(self, width):
            super().__init__()
            self.conv = nn.Conv2d(width, width, 1)
            self.total = self.conv.weight.sum().item()

    with pytest.raises(SavedModelError) as caught:
        Once(2).save_pretrained(tmp_path)
    assert str(caught.value).startswith(
        "Once: the network cannot be saved, because its class cannot be built again from its arguments {'width': 2} on "
        "the meta device: "
    )


def test_settings_of_any_type_are_compared(tmp_path):
    class Settings(Pretrained):
        def __init__(self, sizes=(1, 2)):
            super().__init__()
            self.sizes, self.act, self.dtype = list(sizes), nn.functional.relu, torch.float32
            self.table, self.names, self.nan = {"a": sizes}, {"x", "y"}, float("nan")
            self.grid = torch.zeros(3)

    network = Settings()
    network.dtype = torch.float16
    network.save_pretrained(tmp_path)
    for name, value in {
        "sizes": [2, 2], "act": nn.functional.silu, "table": {"a": [1, 3]}, "names": {"x"}, "nan": 0.0,
        "grid": torch.zeros(4),
    }.items():  # fmt: skip
        changed = Settings()
        setattr(changed, name, value)
        with pytest.raises(SavedModelError, match=f": {name} is "):
            changed.save_pretrained(tmp_path)


# Inside running_as


class Tracked(nn.InstanceNorm2d):
    def __init__(self, channels):
        super().__init__(channels, affine=True, track_running_stats=True)


class TrackedResnet(ResnetGenerator):
    def __init__(self):
        super().__init__(base_channels=4, num_blocks=1, num_downs=1, norm=Tracked)


@pytest.mark.parametrize("make", [unet, resnet, TrackedResnet])
@pytest.mark.parametrize("mode", MODES)
def test_a_network_is_saved_as_it_is_outside_of_running_as(tmp_path, make, mode):
    network = make()
    network(torch.randn(1, 3, 16, 16))  # running statistics leave their start
    with running_as(network, mode), running_as(network, "batch_stats"):
        network(torch.randn(1, 3, 16, 16))
        network.save_pretrained(tmp_path / "inside")
        with running_as(network, "eval"):
            pass
        network.save_pretrained(tmp_path / "inside")
    network.save_pretrained(tmp_path / "outside")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "inside" / name).read_bytes() == (tmp_path / "outside" / name).read_bytes()


def test_a_change_is_refused_inside_running_as_and_a_copy_made_there_keeps_its_settings(tmp_path):
    network = unet()
    network.decoder[0].norm.momentum = 0.3
    with running_as(network, "batch_stats"), pytest.raises(SavedModelError, match=r"norm\.momentum is 0\.3, but"):
        network.save_pretrained(tmp_path)
    with running_as(unet(), "batch_stats") as network:
        copied = copy.deepcopy(network)
    with pytest.raises(SavedModelError, match="track_running_stats is False, but they give True"):
        copied.save_pretrained(tmp_path)


# A run


def test_a_run_tells_at_its_start_of_a_network_that_cannot_be_saved(tmp_path):
    generator = unet()
    generator.out_act = nn.Sigmoid()
    method = Pix2Pix(generator, None)
    data = ProceduralFacades(2, size=16, augment=False)
    trainer = Trainer(method, data, out=tmp_path, epochs=1, device="cpu", precision="fp32", progress=False)
    with pytest.warns(UserWarning, match=r"out_act is Sigmoid.* The checkpoints in .* still hold") as caught:
        trainer.folder.check_networks(method.translations())
    assert len(caught) == 1
    with pytest.warns(UserWarning, match="out_act is Sigmoid") as caught:
        trainer.fit()
    assert len(caught) == 2  # at the start, and at the end
    assert not (tmp_path / "generator").exists()
    with pytest.raises(SavedModelError, match="out_act is Sigmoid"):
        trainer.push_to_hub("user/repo")
