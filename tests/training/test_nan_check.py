import pytest
import torch
from tape import Operations
from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

from imtrans import PatchDiscriminator, Pix2Pix, UNetGenerator
from imtrans.distributed.process_group import ProcessGroup
from imtrans.training.nan_check import first_non_finite, non_finite_weight

BATCH = {"source": torch.rand(1, 3, 16, 16) * 2 - 1, "target": torch.rand(1, 3, 16, 16) * 2 - 1}
ALONE = ProcessGroup()
BAD = [float("nan"), float("inf"), -float("inf")]


def small(**settings):
    return Pix2Pix(
        UNetGenerator(base_channels=4, depth=3), PatchDiscriminator(6, base_channels=4, n_layers=1), **settings
    )


def step_of(method, lr=1e-3):
    optimizers = method.make_optimizers(lr, (0.5, 0.999))
    return lambda batch: method.step(batch, optimizers)


@pytest.mark.parametrize("value", BAD)
def test_the_first_weight_that_is_not_finite_is_named(value):
    method = small()
    assert non_finite_weight(method) is None
    with torch.no_grad():
        method.generator.head.weight[0, 0, 0, 0] = value
        method.discriminator.layers[0].conv.weight.fill_(value)
    assert non_finite_weight(method) == "generator.head.weight"
    assert non_finite_weight(nn.ReLU()) is None


@pytest.mark.parametrize("value", BAD)
def test_a_running_statistic_that_is_not_finite_is_named_and_a_mask_is_not(value):
    method = small()
    method.register_buffer("mask", torch.tensor(value))
    assert non_finite_weight(method) is None
    method.discriminator.layers[1].norm.running_var[0] = value
    assert non_finite_weight(method) == "discriminator.layers.1.norm.running_var"


def test_large_weights_empty_ones_and_whole_numbers_are_finite():
    method = small()
    method.generator.head.weight.data.fill_(3e38)  # their sum is not finite
    method.nothing = nn.Parameter(torch.empty(0))
    method.number = nn.Parameter(torch.tensor(3), requires_grad=False)
    assert non_finite_weight(method) is None


def test_all_weights_are_checked_at_once():
    counts = []
    for layers in (1, 9):
        method = nn.Sequential(*[nn.Linear(2, 2) for _ in range(layers)])
        with Operations() as operations:
            non_finite_weight(method)
        counts.append(operations.count)
    assert counts[0] == counts[1] < 12


def test_nothing_is_found_in_a_step_that_is_fine_and_no_hook_is_left():
    method = small()
    hooks = [(module, len(module._forward_hooks), len(module._forward_pre_hooks)) for module in method.modules()]
    assert first_non_finite(method, step_of(method), BATCH, group=ALONE) is None
    assert [(m, len(m._forward_hooks), len(m._forward_pre_hooks)) for m in method.modules()] == hooks
    assert all(not p._backward_hooks for p in method.parameters())


@pytest.mark.parametrize("value", BAD)
@pytest.mark.parametrize("name", ["source", "target"])
def test_a_batch_that_is_not_finite_is_named(name, value):
    method, batch = small(), {**BATCH, name: torch.full((1, 3, 16, 16), value)}
    assert first_non_finite(method, step_of(method), batch, group=ALONE) == f"the batch's {name}"


def layers_of(method):
    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)
    return {name: module for name, module in method.named_modules() if isinstance(module, kinds)}


@pytest.mark.parametrize("name", layers_of(small()))
def test_the_output_of_any_layer(name):
    method = small()
    layer = layers_of(method)[name]
    with torch.no_grad():
        layer.weight.fill_(float("inf"))
    found = first_non_finite(method, step_of(method), BATCH, group=ALONE)
    assert found == f"the output of {name} ({type(layer).__name__})"


def test_a_layer_with_spectral_norm_is_a_layer():
    method = small()
    method.discriminator = nn.Sequential(spectral_norm(nn.Conv2d(6, 1, 3)), nn.ReLU())
    with torch.no_grad():
        method.discriminator[0].bias.fill_(float("nan"))
    found = first_non_finite(method, step_of(method), BATCH, group=ALONE)
    assert found == "the output of discriminator.0 (ParametrizedConv2d)"


class Root(nn.Module):
    def forward(self, x):
        return x + (x - x.detach()).abs().sqrt()


def test_a_gradient_is_named_by_the_layer_it_comes_from_unless_it_is_scaled():
    method = small()
    method.generator.out_act = Root()
    found = first_non_finite(method, step_of(method), BATCH, group=ALONE)
    assert found == "the gradient from generator.out_act (Root)"
    method = small()
    method.generator.out_act = Root()
    found = first_non_finite(method, step_of(method), BATCH, group=ALONE, gradients=False)
    assert found == "the weight generator.encoder.0.conv.weight, as it was updated"


def test_a_loss_may_be_too_large_though_every_layer_is_fine():
    method = small(l1_weight=1e38)
    batch = {"source": BATCH["source"], "target": torch.full((1, 3, 16, 16), 1e38)}
    assert first_non_finite(method, step_of(method), batch, group=ALONE) == "the loss G_l1, and no layer"


def test_an_update_that_is_too_large_is_found_in_the_weights():
    method = small()
    found = first_non_finite(method, step_of(method, lr=float("inf")), BATCH, group=ALONE)
    assert found is not None
    assert found.startswith("the output of discriminator.")  # D is updated first, and seen again by G
