"""Agreement with the reference implementation, on the cases that an index file lists.

`IMTRANS_PARITY_DIR` names another folder of the same form.
"""

import json
import os
from functools import cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tape import Tape

from imtrans import (
    CycleGAN,
    GANLoss,
    PatchDiscriminator,
    Pix2Pix,
    PixelDiscriminator,
    ResnetGenerator,
    Trainer,
    UNetGenerator,
    decay_factor,
    gradient_penalty,
    running_as,
)
from imtrans.convert.junyanz import from_junyanz, load_reference
from imtrans.methods.optimizer_state import make_capturable
from imtrans.training.cuda_graph import CapturedStep

FOLDER = Path(os.environ.get("IMTRANS_PARITY_DIR", Path(__file__).parents[1] / "fixtures" / "parity"))
INDEX = json.loads((FOLDER / "index.json").read_text())


def cases(kind):
    return [name for name, case in INDEX.items() if case["kind"] == kind]


@cache
def tensors(name):
    return load_file(FOLDER / f"{name}.safetensors")


def reference_state(name):
    return torch.load(FOLDER / f"{name}.pth", weights_only=True)


def generator_of(case, norm):
    name = f"junyanz/{case['netG']}"
    cls = UNetGenerator if name in UNetGenerator.presets else ResnetGenerator
    changes = {"base_channels": case["ngf"], "norm": norm}
    if cls is ResnetGenerator:
        changes["dropout"] = 0.5 if case["dropout"] else 0.0
    elif not case["dropout"]:
        changes["dropout"] = ()
    return cls.preset(name, case.get("input_nc", 3), case.get("output_nc", 3), **changes)


def discriminator_of(case, norm):
    shared = {"base_channels": case["ndf"], "norm": norm}
    in_channels = case.get("input_nc", 6)
    if case["netD"] == "pixel":
        return PixelDiscriminator(in_channels, **shared)
    return PatchDiscriminator(in_channels, n_layers=case.get("n_layers_D", 3), **shared)


def loaded(network, state):
    load_reference(network, state)
    return network


@pytest.mark.parametrize("mode", ["eval", "batch_stats"])
@pytest.mark.parametrize("name", cases("network"))
def test_network(name, mode):
    case = INDEX[name]
    build = generator_of if "netG" in case else discriminator_of
    network = loaded(build(case, case["norm"]), reference_state(name))
    assert sum(p.numel() for p in network.parameters()) == case["params"]
    with torch.no_grad(), running_as(network, mode):
        output = network(tensors(name)["input"])
    torch.testing.assert_close(output, tensors(name)[f"output_{mode}"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", cases("network"))
def test_network_from_its_file_alone(name):
    """The architecture is that of the case, and the outputs are the recorded ones."""
    case = INDEX[name]
    network = from_junyanz(FOLDER / f"{name}.pth", dropout=case.get("dropout", False))
    build = generator_of if "netG" in case else discriminator_of
    expected = build(case, case["norm"])
    assert type(network) is type(expected)
    assert str(network) == str(expected)
    assert not network.training
    assert network.num_parameters() == case["params"]
    for mode in ("eval", "batch_stats"):
        with torch.no_grad(), running_as(network, mode):
            output = network(tensors(name)["input"])
        torch.testing.assert_close(output, tensors(name)[f"output_{mode}"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.pth")), ids=lambda path: path.stem)
def test_every_file_becomes_the_network_that_its_arguments_make(path):
    network = from_junyanz(path)
    again = loaded(type(network)(**network.config), torch.load(path, weights_only=True))
    for key, tensor in again.state_dict().items():
        assert torch.equal(network.state_dict()[key], tensor), key


@pytest.mark.parametrize("name", cases("loss values"))
def test_losses(name):
    values = tensors(name)
    checked = 0
    for key, expected in values.items():
        mode, _, rest = key.partition(".")
        logits, _, target = rest.partition(".is_")
        if not target:
            continue
        gan = GANLoss(mode)
        given = values[f"{logits}_logits"]
        loss = gan.real(given) if target == "real" else gan.fake(given)
        torch.testing.assert_close(loss.double(), expected.squeeze(), atol=1e-5, rtol=1e-5)
        if target == "real":
            torch.testing.assert_close(gan.generator(given), loss)
        checked += 1
    assert checked


@pytest.mark.parametrize("name", cases("loss values"))
def test_gradient_penalty(name):
    case, values = INDEX[name]["penalty_D"], tensors(name)
    critic = loaded(discriminator_of(case, case["norm"]), reference_state(Path(case["file"]).stem))
    for key in [key for key in values if key.startswith("penalty.") and key.endswith("_only")]:
        images = values[key.removesuffix("_only")]
        penalty = gradient_penalty(critic, images, images, weight=case["weight"], target=case["constant"])
        torch.testing.assert_close(penalty.double(), values[key].squeeze(), atol=1e-5, rtol=1e-5)
        assert penalty.requires_grad


@pytest.mark.parametrize("name", cases("learning rate per epoch, linear policy"))
def test_schedule(name):
    policies = {key: rates for key, rates in INDEX[name].items() if key != "kind"}
    for policy, rates in policies.items():
        constant, decay = map(int, policy.split("+"))
        ours = [
            rates[0] * decay_factor(epoch, epochs=constant + decay, decay_epochs=decay)
            for epoch in range(constant + decay)
        ]
        assert ours == pytest.approx(rates, rel=1e-12)


THROUGH = pytest.mark.parametrize("through", ["method", "trainer", "captured"])


def step_of(method, case, through):
    """The step, as it is, as the trainer runs it, or captured."""
    rate, betas = case["lr"], tuple(case["betas"])
    if through == "trainer":
        return Trainer(method, out=None, lr=rate, betas=betas, device="cpu", precision="fp32").train_step
    optimizers = method.make_optimizers(rate, betas)

    def step(batch):
        return method.step(batch, optimizers)

    if through == "captured":
        make_capturable(optimizers, torch.device("cpu"))
        return CapturedStep(step, Tape(lambda: state_of_run(method, optimizers)), insist=True)
    return step


@pytest.mark.parametrize("name", cases("pix2pix training run"))
@THROUGH
def test_pix2pix_run(name, through):
    case, run = INDEX[name], tensors(name)
    start_g, start_d = reference_state(f"{name}_G0"), reference_state(f"{name}_D0")
    generator = loaded(generator_of(case, case["normG"]), start_g)
    discriminator = loaded(discriminator_of(case, case["normD"]), start_d)
    method = Pix2Pix(generator, discriminator, gan_loss=case["gan_mode"], l1_weight=case["lambda_L1"])
    step = step_of(method, case, through)
    for i, expected in enumerate(run["losses_Dfake_Dreal_Ggan_Gl1"]):
        losses = step({"source": run[f"A{i}"], "target": run[f"B{i}"]})
        ours = torch.stack([losses[key] for key in ("D_fake", "D_real", "G_gan", "G_l1")])
        torch.testing.assert_close(ours.double(), expected, atol=1e-6, rtol=1e-3)

    check_final_weights(generator, generator_of(case, case["normG"]), part(run, "final", "G"), case)
    check_final_weights(discriminator, discriminator_of(case, case["normD"]), part(run, "final", "D"), case)
    with torch.no_grad(), running_as(generator, "eval"):
        torch.testing.assert_close(generator(run["probe"]), run["probe_output_eval"], atol=1e-3, rtol=1e-3)


def state_of_run(method, optimizers):
    of_optimizers = [t for o in optimizers.values() for state in o.state.values() for t in state.values()]
    return [*method.parameters(), *method.buffers(), *of_optimizers]


@pytest.mark.parametrize("name", cases("pix2pix training run"))
def test_pix2pix_run_in_bf16(name):
    """The same course, as near as 8 bits of mantissa keep it."""
    case, run = INDEX[name], tensors(name)
    generator = loaded(generator_of(case, case["normG"]), reference_state(f"{name}_G0"))
    discriminator = loaded(discriminator_of(case, case["normD"]), reference_state(f"{name}_D0"))
    method = Pix2Pix(generator, discriminator, gan_loss=case["gan_mode"], l1_weight=case["lambda_L1"])
    rate, betas = case["lr"], tuple(case["betas"])
    trainer = Trainer(method, out=None, lr=rate, betas=betas, device="cpu", precision="bf16")
    for i, expected in enumerate(run["losses_Dfake_Dreal_Ggan_Gl1"]):
        losses = trainer.train_step({"source": run[f"A{i}"], "target": run[f"B{i}"]})
        ours = torch.stack([losses[key] for key in ("D_fake", "D_real", "G_gan", "G_l1")])
        torch.testing.assert_close(ours.double(), expected, atol=0.05, rtol=0.1)


COLUMNS = {
    "D_A": "D_target", "G_A": "G_target", "cycle_A": "cycle_source", "idt_A": "identity_target",
    "D_B": "D_source", "G_B": "G_source", "cycle_B": "cycle_target", "idt_B": "identity_source",
}  # fmt: skip
"""Our names of the reference's losses, in which D_A judges what G_A makes of A."""


def cyclegan_networks(case):
    source, target = case.get("input_nc", 3), case.get("output_nc", 3)
    generator, discriminator = {**case, "input_nc": source, "output_nc": target}, {**case, "input_nc": target}
    back = {**case, "input_nc": target, "output_nc": source}
    return {
        "G_A": generator_of(generator, case["norm"]),
        "G_B": generator_of(back, case["norm"]),
        "D_A": discriminator_of(discriminator, case["norm"]),
        "D_B": discriminator_of({**discriminator, "input_nc": source}, case["norm"]),
    }


@pytest.mark.parametrize("name", cases("CycleGAN training run"))
@THROUGH
def test_cyclegan_run(name, through):
    case, run = INDEX[name], tensors(name)
    networks = {key: loaded(network, part(run, "start", key)) for key, network in cyclegan_networks(case).items()}
    method = CycleGAN(
        networks["G_A"],
        networks["G_B"],
        target_discriminator=networks["D_A"],
        source_discriminator=networks["D_B"],
        gan_loss=case["gan_mode"],
        source_cycle_weight=case["lambda_A"],
        target_cycle_weight=case["lambda_B"],
        identity_weight=case["lambda_identity"],
        pool_size=case["pool_size"],
    )
    step = step_of(method, case, through)
    for i, expected in enumerate(run["losses"]):
        losses = step({"source": run[f"A{i}"], "target": run[f"B{i}"]})
        ours = torch.stack([losses.get(COLUMNS[column], torch.zeros(())) for column in case["loss_columns"]])
        torch.testing.assert_close(ours.double(), expected, atol=1e-6, rtol=1e-3)
    for key, like in cyclegan_networks(case).items():
        check_final_weights(networks[key], like, part(run, "final", key), case)


def part(run, when, network):
    prefix = f"{when}.{network}."
    return {key.removeprefix(prefix): value for key, value in run.items() if key.startswith(prefix)}


def check_final_weights(trained, like, reference, case):
    """95% of the entries within 1e-4, all within what Adam can move, biases that a norm cancels left out."""
    expected = loaded(like, reference).state_dict()
    cancelled = cancelled_biases(trained)
    differences = torch.cat(
        [
            (value - expected[key]).abs().flatten().float()
            for key, value in trained.state_dict().items()
            if key not in cancelled and value.is_floating_point()
        ]
    )
    assert (differences < 1e-4).float().mean() >= 0.95
    assert differences.max() <= 2 * case["steps"] * case["lr"]


def cancelled_biases(network):
    """The biases of convolutions that a batch or instance norm follows."""
    names = dict(network.named_modules())
    norms = (torch.nn.BatchNorm2d, torch.nn.InstanceNorm2d)
    followed = [name.rpartition(".")[0] for name, module in names.items() if isinstance(module, norms)]
    return {f"{parent}.{conv}.bias" for parent in followed for conv in ("conv", "up")}


def test_every_kind_of_case_is_known():
    known = {
        "network",
        "loss values",
        "learning rate per epoch, linear policy",
        "pix2pix training run",
        "CycleGAN training run",
    }
    assert {case["kind"] for case in INDEX.values()} <= known
