import inspect
from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from loopback_hub import hub_fixture  # noqa: F401
from PIL import Image
from tape import Tape
from test_trainer import QUIET, Stop, equal, everything, metrics
from torch import nn
from torch.optim import SGD, Adam
from torch.utils._python_dispatch import TorchDispatchMode

from imtrans import (
    CycleGAN,
    GANLoss,
    ImagePool,
    PairedImages,
    PatchDiscriminator,
    Pix2Pix,
    ProceduralFacades,
    ResnetGenerator,
    Trainer,
    UNetGenerator,
    UnpairedFacades,
    evaluate,
    gradient_penalty,
    load_pretrained,
    translate,
)
from imtrans.data.images import to_image, to_tensor
from imtrans.errors import ArgumentError
from imtrans.methods.base import Method, sample_columns
from imtrans.methods.optimizer_state import make_capturable
from imtrans.training.cuda_graph import CapturedStep

RATE, BETAS = 0.02, (0.5, 0.999)
MODES = ("vanilla", "lsgan", "hinge", "wgangp")


def tiny_generator(norm=True):
    middle = nn.BatchNorm2d(4) if norm else nn.Identity()
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), middle, nn.Dropout(0.5), nn.Conv2d(4, 3, 1))


def tiny_discriminator(norm=True):
    middle = nn.BatchNorm2d(4) if norm else nn.Identity()
    return nn.Sequential(nn.Conv2d(3, 4, 3), middle, nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3))


def tiny(norm=True, **settings):
    return CycleGAN(
        tiny_generator(), tiny_generator(), target_discriminator=tiny_discriminator(norm),
        source_discriminator=tiny_discriminator(norm), **settings,
    )  # fmt: skip


def networks_of(kind="resnet", base_channels=4):
    def generator():
        if kind == "unet":
            return UNetGenerator(base_channels=base_channels, depth=3)
        return ResnetGenerator(base_channels=base_channels, num_blocks=1)

    def discriminator():
        return PatchDiscriminator(3, base_channels=4, n_layers=1, norm="instance")

    return {
        "to_target": generator(), "to_source": generator(), "target_discriminator": discriminator(),
        "source_discriminator": discriminator(),
    }  # fmt: skip


def batches(count=3, size=8, samples=2):
    return [{n: torch.rand(samples, 3, size, size) * 2 - 1 for n in ("source", "target")} for _ in range(count)]


def bce(logits, label):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))


REAL = {
    "vanilla": lambda x: bce(x, 1.0),
    "lsgan": lambda x: (x - 1).square().mean(),
    "hinge": lambda x: F.relu(1 - x).mean(),
    "wgangp": lambda x: -x.mean(),
}
FAKE = {
    "vanilla": lambda x: bce(x, 0.0),
    "lsgan": lambda x: x.square().mean(),
    "hinge": lambda x: F.relu(1 + x).mean(),
    "wgangp": lambda x: x.mean(),
}
FOOL = {**REAL, "hinge": lambda x: -x.mean()}


def by_hand(method, data, mode="lsgan", weights=(10.0, 10.0), identity=0.5, pool_size=50):
    """CycleGAN in plain PyTorch, with the names of the paper: G: X -> Y, judged by D_Y; F: Y -> X, judged by D_X."""
    g, f, d_y, d_x = method.to_target, method.to_source, method.target_discriminator, method.source_discriminator
    adam_g = Adam([*g.parameters(), *f.parameters()], lr=RATE, betas=BETAS, fused=True)
    adam_d = Adam([*d_y.parameters(), *d_x.parameters()], lr=RATE, betas=BETAS, fused=True)
    pool_y, pool_x = ImagePool(pool_size), ImagePool(pool_size, seed=1)
    history = []
    for batch in data:
        x, y = batch["source"], batch["target"]
        for d in (d_x, d_y):
            d.requires_grad_(False)
        fake_y = g(x)
        back_x = f(fake_y)
        fake_x = f(y)
        back_y = g(fake_x)
        losses = {"G_target": FOOL[mode](d_y(fake_y)), "G_source": FOOL[mode](d_x(fake_x))}
        losses["cycle_source"] = weights[0] * (back_x - x).abs().mean()
        losses["cycle_target"] = weights[1] * (back_y - y).abs().mean()
        if identity:
            losses["identity_target"] = identity * weights[1] * (g(y) - y).abs().mean()
            losses["identity_source"] = identity * weights[0] * (f(x) - x).abs().mean()
        adam_g.zero_grad()
        sum(losses.values()).backward()
        adam_g.step()

        for d in (d_x, d_y):
            d.requires_grad_(True)
        adam_d.zero_grad()
        for name, d, real, fake in (("D_target", d_y, y, pool_y(fake_y)), ("D_source", d_x, x, pool_x(fake_x))):
            loss = REAL[mode](d(real)) + FAKE[mode](d(fake))
            losses[name] = (loss + (gradient_penalty(d, real, fake) if mode == "wgangp" else 0)) / 2
            losses[name].backward()
        adam_d.step()
        history.append({name: loss.detach() for name, loss in losses.items()})
    return history


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"identity_weight": 0.0},
        {"identity_weight": 2.0, "source_cycle_weight": 3.0, "target_cycle_weight": 7.0},
        {"source_cycle_weight": 0.0},
        {"pool_size": 0},
        {"pool_size": 3},
        {"gan_loss": "vanilla"},
        {"gan_loss": "hinge"},
        {"gan_loss": "wgangp", "pool_size": 2},
    ],
    ids=str,
)
def test_training_is_exactly_that_of_a_loop_written_by_hand(settings):
    data = batches(4)
    method = tiny(norm=settings.get("gan_loss") != "wgangp", **settings)
    plain = deepcopy(method)
    torch.manual_seed(1)
    expected = by_hand(
        plain,
        data,
        settings.get("gan_loss", "lsgan"),
        (settings.get("source_cycle_weight", 10.0), settings.get("target_cycle_weight", 10.0)),
        settings.get("identity_weight", 0.5),
        settings.get("pool_size", 50),
    )
    torch.manual_seed(1)
    optimizers = method.make_optimizers(RATE, BETAS)
    for batch, losses in zip(data, expected, strict=True):
        found = method.step(batch, optimizers)
        assert list(found) == list(losses)
        torch.testing.assert_close(found, losses, rtol=1e-6, atol=1e-6)
    for (name, one), other in zip(plain.named_parameters(), method.parameters(), strict=True):
        assert torch.equal(other, one), name


def test_losses_are_detached_scalars_under_their_names():
    method = tiny()
    losses = method.step(batches()[0], method.make_optimizers(RATE, BETAS))
    sides = [f"{what}_{side}" for what in ("G", "cycle", "identity", "D") for side in ("target", "source")]
    assert sorted(losses) == sorted(sides)
    assert all(loss.shape == () and not loss.requires_grad for loss in losses.values())


@pytest.mark.parametrize("still", ["generators", "discriminators"])
def test_each_optimizer_moves_its_own_two_networks_alone(still):
    method = tiny()
    before = deepcopy(method)
    optimizers = method.make_optimizers(RATE, BETAS)
    assert list(optimizers) == ["generators", "discriminators"]
    for group in optimizers[still].param_groups:
        group["lr"] = 0.0
    for batch in batches():
        method.step(batch, optimizers)
    for name in ("to_target", "to_source", "target_discriminator", "source_discriminator"):
        stays = (name in ("to_target", "to_source")) == (still == "generators")
        pairs = zip(getattr(method, name).parameters(), getattr(before, name).parameters(), strict=True)
        assert {torch.equal(one, other) for one, other in pairs} == {stays}, name


def test_the_penalty_of_wgangp_is_part_of_what_the_discriminators_minimise():
    method, batch = tiny(norm=False), batches()[0]
    found = []
    for weight in (0.0, 1.0, 3.0):
        copy = deepcopy(method)
        copy.gan_loss = GANLoss("wgangp", penalty_weight=weight)
        torch.manual_seed(3)
        found.append(copy.step(batch, copy.make_optimizers(RATE, BETAS))["D_target"])
    assert found[1] > found[0]
    torch.testing.assert_close(found[2] - found[0], 3 * (found[1] - found[0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["resnet", "unet"])
def test_every_loss_trains_the_networks_of_the_library(kind, mode, device):
    method = CycleGAN(**networks_of(kind), gan_loss=mode, pool_size=2).to(device)
    batch = {name: image.to(device) for name, image in batches(1, size=16)[0].items()}
    optimizers = method.make_optimizers(2e-3, BETAS)
    history = [method.step(batch, optimizers) for _ in range(10)]
    for name in ("cycle_source", "cycle_target"):
        assert history[-1][name] < history[0][name]
    assert all(torch.isfinite(loss) for losses in history for loss in losses.values())


class NoWaiting(TorchDispatchMode):
    """Raises where the host would wait for a value of the device."""

    waits = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in self.waits:
            raise AssertionError(f"the step waits for the device: {func}")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("pool_size", [0, 2])
@pytest.mark.parametrize("mode", MODES)
def test_the_step_never_waits_for_the_device(mode, pool_size):
    method = tiny(norm=False, gan_loss=mode, pool_size=pool_size)
    # Adam keeps a counter on the host.
    optimizers = {name: SGD(o.param_groups, lr=0.1) for name, o in method.make_optimizers(RATE, BETAS).items()}
    with NoWaiting():
        for batch in batches():
            losses = method.step(batch, optimizers)
        with pytest.raises(AssertionError, match="the step waits"):
            float(losses["cycle_source"])


@pytest.mark.parametrize("pool_size", [0, 3])
def test_a_captured_step_is_the_step(pool_size):
    """Five steps are replayed, in which the pools swap."""
    plain, data = tiny(norm=False, pool_size=pool_size), batches(8)
    for generator in (plain.to_target, plain.to_source):
        generator[2].p = 0.0  # dropout draws from another place of the generator when it is replayed
    captured = deepcopy(plain)
    optimizers, others = plain.make_optimizers(RATE, BETAS), captured.make_optimizers(RATE, BETAS)
    for some in (optimizers, others):
        make_capturable(some, torch.device("cpu"))

    def state():
        pools = [t for pool in (captured.target_pool, captured.source_pool) for t in pool.get_extra_state().values()]
        moments = [t for o in others.values() for entry in o.state.values() for t in entry.values()]
        return [*captured.parameters(), *captured.buffers(), *moments, *pools]

    tape = Tape(state)
    step = CapturedStep(lambda batch: captured.step(batch, others), tape, insist=True)
    for batch in data:
        torch.testing.assert_close(step(batch), plain.step(batch, optimizers), rtol=1e-5, atol=1e-6)
    assert (tape.plain, tape.recorded, tape.replayed) == (3, 1, 5)
    for one, other in zip(plain.parameters(), captured.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)


def test_the_pools_are_part_of_the_state_and_draw_differently():
    method = tiny(pool_size=2)
    optimizers = method.make_optimizers(RATE, BETAS)
    for batch in batches(4):
        method.step(batch, optimizers)
    copy = tiny(pool_size=2)
    copy.load_state_dict(method.state_dict())
    images = torch.rand(20, 3, 8, 8)
    mixed = method.target_pool(images)
    assert torch.equal(copy.target_pool(images), mixed)
    assert torch.equal(copy.source_pool(images), method.source_pool(images))
    swapped = [
        [not torch.equal(shown, image) for shown, image in zip(pool(images), images, strict=True)]
        for pool in (ImagePool(2), ImagePool(2, seed=1))
    ]
    assert swapped[0] != swapped[1]


def test_its_translations_and_their_columns():
    networks = networks_of()
    method, batch = CycleGAN(**networks), batches(size=16)[0]
    columns = sample_columns(method, batch)
    assert list(columns) == ["source", "to_target", "cycled_source", "target", "to_source", "cycled_target"]
    assert all(column.shape == (2, 3, 16, 16) and not column.requires_grad for column in columns.values())
    for name, image in {"to_target": "source", "to_source": "target"}.items():
        assert torch.equal(columns[name], networks[name](batch[image]))
    assert torch.equal(columns["cycled_source"], networks["to_source"](columns["to_target"]))
    assert torch.equal(columns["cycled_target"], networks["to_target"](columns["to_source"]))
    assert [(each.name, each.network, each.inverse, each.paired) for each in method.translations()] == [
        ("to_target", networks["to_target"], networks["to_source"], False),
        ("to_source", networks["to_source"], networks["to_target"], False),
    ]
    assert isinstance(method, Method)


def test_the_keys_of_the_state_dict():
    networks = networks_of()
    keys = list(CycleGAN(**networks).state_dict())
    names = ("to_target", "to_source", "target_discriminator", "source_discriminator")
    of_networks = [f"{name}.{key}" for name in names for key in networks[name].state_dict()]
    assert keys == [*of_networks, "target_pool._extra_state", "source_pool._extra_state"]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"source_cycle_weight": -1}, "CycleGAN: source_cycle_weight must be a number >= 0, got -1."),
        ({"target_cycle_weight": -1}, "CycleGAN: target_cycle_weight must be a number >= 0, got -1."),
        ({"identity_weight": -0.5}, "CycleGAN: identity_weight must be a number >= 0, got -0.5."),
        ({"pool_size": -1}, "ImagePool: size must be a whole number >= 0, got -1."),
        (
            {"gan_loss": "lsgn"},
            "GANLoss: mode='lsgn' is not one of ['hinge', 'lsgan', 'vanilla', 'wgangp']. Did you mean 'lsgan'?",
        ),
        (
            {"gan_loss": "wgangp"},
            "GANLoss('wgangp'): the discriminator has a batch norm (1). The gradient penalty asks for each sample's "
            "own gradient, and a batch norm makes it depend on the others. Build it with norm='instance', 'group' "
            "or 'none'.",
        ),
    ],
)
def test_arguments_are_checked(settings, text):
    with pytest.raises(ArgumentError) as caught:
        tiny(**settings)
    assert str(caught.value) == text


def with_channels(source, target, **changes):
    networks = {
        "to_target": ResnetGenerator(source, target, base_channels=2, num_blocks=0),
        "to_source": ResnetGenerator(target, source, base_channels=2, num_blocks=0),
        "target_discriminator": PatchDiscriminator(target, base_channels=2, n_layers=1),
        "source_discriminator": PatchDiscriminator(source, base_channels=2, n_layers=1),
    }
    return CycleGAN(**{**networks, **changes})


def test_four_networks_are_needed():
    networks = networks_of()
    wrong = [{"target_discriminator": None}, {"to_source": networks["to_target"]}]
    for change, last in zip(
        wrong, ["NoneType, PatchDiscriminator", "PatchDiscriminator, PatchDiscriminator"], strict=True
    ):
        with pytest.raises(ArgumentError) as caught:
            CycleGAN(**{**networks, **change})
        assert str(caught.value) == (
            "CycleGAN: to_target, to_source, target_discriminator and source_discriminator must be four different "
            f"modules, got ResnetGenerator, ResnetGenerator, {last}. Make one for each."
        )


def test_channels_that_differ_have_no_identity():
    with pytest.raises(ArgumentError) as caught:
        with_channels(3, 1)
    assert str(caught.value) == (
        "CycleGAN: identity_weight=0.5 needs equal channels of source and target, and to_target maps 3 channels to "
        "1. Use identity_weight=0, or equal channels."
    )
    method = with_channels(3, 1, identity_weight=0)
    batch = {"source": torch.rand(1, 3, 16, 16), "target": torch.rand(1, 1, 16, 16)}
    losses = method.step(batch, method.make_optimizers(RATE, BETAS))
    assert not [name for name in losses if name.startswith("identity")]
    assert [column.shape[1] for column in sample_columns(method, batch).values()] == [3, 1, 3, 1, 3, 1]


@pytest.mark.parametrize(
    ("name", "network", "text"),
    [
        (
            "to_source",
            ResnetGenerator(2, 3, base_channels=2),
            "to_source has in_channels=2. Use in_channels=1.",
        ),
        (
            "to_source",
            ResnetGenerator(1, 1, base_channels=2),
            "to_source has out_channels=1. Use out_channels=3.",
        ),
        (
            "target_discriminator",
            PatchDiscriminator(base_channels=2),
            "target_discriminator has in_channels=6. Use in_channels=1.",
        ),
        (
            "source_discriminator",
            PatchDiscriminator(base_channels=2),
            "source_discriminator has in_channels=6. Use in_channels=3.",
        ),
    ],
)
def test_networks_that_do_not_fit_together(name, network, text):
    with pytest.raises(ArgumentError) as caught:
        with_channels(3, 1, identity_weight=0, **{name: network})
    assert str(caught.value) == f"CycleGAN: to_target maps 3 channels to 1, and {text}"


def test_the_step_can_be_read_at_one_glance():
    assert len(inspect.getsourcelines(CycleGAN.step)[0]) <= 40


# In a run


class Small:
    """A run with everything that has a state: pools that swap, a last batch that is smaller, batch norm, dropout."""

    def __init__(self, out, *, stop_after=None, **settings):
        torch.manual_seed(7)
        self.method = CycleGAN(**networks_of("unet"), pool_size=2)
        data = UnpairedFacades(5, size=16)
        self.val_data = UnpairedFacades(2, size=16, seed=1, augment=False)
        arguments = {
            "val_data": self.val_data, "epochs": 2, "batch_size": 2, "lr": 0.01,
            "log_every": 2, "checkpoint_every": 1, "sample_every": 3, "seed": 3, **QUIET, **settings,
        }  # fmt: skip
        self.trainer = Trainer(self.method, data, out=out, **arguments)
        if stop_after is not None:
            step = self.method.step

            def interrupted(batch, optimizers):
                losses = step(batch, optimizers)
                if self.trainer.step == stop_after:
                    raise Stop
                return losses

            self.method.step = interrupted


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    run = Small(out)
    assert run.trainer.fit() is None  # there are no pairs to validate with
    return run, out


def side_by_side(folder):
    """A folder of pairs, in a data set of them."""
    (folder / "pairs").mkdir()
    for i in range(2):
        to_image(torch.rand(3, 16, 32) * 2 - 1).save(folder / "pairs" / f"{i}.png")
    return PairedImages(folder / "pairs", size=16, augment=False)


@pytest.mark.parametrize("kind", ["facades", "folder"])
def test_on_pairs_it_is_validated_in_both_directions(tmp_path, kind):
    pairs = side_by_side(tmp_path) if kind == "folder" else ProceduralFacades(2, size=16, augment=False)
    method = CycleGAN(**networks_of("unet"))
    out = tmp_path / "run"
    trainer = Trainer(method, UnpairedFacades(2, size=16), val_data=pairs, out=out, epochs=1, **QUIET)
    found = trainer.fit()
    names = [f"{way}_{metric}" for way in ("to_target", "to_source") for metric in ("l1", "psnr", "swd")]
    assert all(list(found[mode]) == names for mode in ("eval", "batch_stats", "paper"))
    best = min(("eval", "batch_stats"), key=lambda m: found[m]["to_target_swd"] + found[m]["to_source_swd"])
    assert found["best"] == best
    for name, ends in {"to_target": ("source", "target"), "to_source": ("target", "source")}.items():
        generator = load_pretrained(out / name)
        assert generator.inference_mode == best
        scored = [{"source": pairs[i][ends[0]], "target": pairs[i][ends[1]]} for i in range(2)]
        own = evaluate(generator, scored, metrics=("l1", "psnr", "swd"))
        assert own == pytest.approx({metric: found[best][f"{name}_{metric}"] for metric in own}, rel=1e-5)
        card = (out / name / "README.md").read_text()
        assert f"| mode | {' | '.join(names)} |" in card
        with Image.open(out / name / "source.png") as source:
            assert torch.equal(to_tensor(source), to_tensor(to_image(pairs[0][ends[0]])))
    page = (out / "index.html").read_text()
    assert all(f">{name} {'↑' if name.endswith('psnr') else '↓'}</th>" in page for name in names)


def test_on_pictures_that_are_no_pairs_it_is_not_validated():
    paired = Pix2Pix(UNetGenerator(base_channels=4, depth=3), None)
    unpaired, pairs = UnpairedFacades(2, size=16), ProceduralFacades(2, size=16)
    as_list = [pairs[0]]
    for method, data, compared in (
        (tiny(), unpaired, False),
        (tiny(), as_list, False),
        (paired, unpaired, False),
        (paired, as_list, True),
        (paired, pairs, True),
    ):
        trainer = Trainer(method, unpaired, val_data=data, out=None, epochs=1, **QUIET)
        assert (trainer.validate() is not None) is compared


@pytest.mark.parametrize("stop_after", [2, 3, 5])
def test_a_resumed_run_ends_bit_for_bit_like_one_that_was_never_interrupted(tmp_path, whole, stop_after):
    with pytest.raises(Stop):
        Small(tmp_path, stop_after=stop_after).trainer.fit()
    resumed = Small(tmp_path)
    resumed.trainer.fit(resume=True)
    assert equal(everything(resumed), everything(whole[0]))
    assert metrics(tmp_path) == metrics(whole[1])


def test_a_run_leaves_both_generators_behind(whole):
    run, out = whole
    page = (out / "index.html").read_text()
    assert "rows of source, to target, cycled source, target, to source, cycled target" in page
    with Image.open(out / "samples" / "000006.png") as rows:
        assert rows.size == (6 * 20 - 4, 2 * 20 - 4)
    sample = run.val_data[0]
    for name, side in {"to_target": "source", "to_source": "target"}.items():
        loaded = load_pretrained(out / name)
        # What the samples show, a batch norm's statistics included, is what the saved network does.
        assert loaded.inference_mode == "batch_stats"
        shown = translate(loaded, sample[side])
        assert torch.equal(shown, translate(getattr(run.method, name), sample[side], mode="batch_stats"))
        with Image.open(out / name / "source.png") as source:
            assert torch.equal(to_tensor(source), to_tensor(to_image(sample[side])))
        card = (out / name / "README.md").read_text()
        assert "![source, to target, cycled source, target, to source, cycled target](samples.png)" in card
        assert "| method | CycleGAN |" in card


def test_a_run_is_pushed_and_either_generator_comes_back(hub, whole, tmp_path, monkeypatch):
    run, _ = whole
    run.trainer.push_to_hub("user/repo", token=hub.token)
    files = hub.files("user/repo")
    pictures = ["README.md", "config.json", "model.safetensors", "samples.png", "source.png"]
    assert sorted(files) == sorted(
        ["README.md"]
        + [f"{name}/{file}" for name in ("to_target", "to_source") for file in pictures]
        + [f"{side}_discriminator/{file}" for side in ("source", "target") for file in pictures[1:3]]
    )
    images = torch.rand(1, 3, 16, 16)
    for name, network in networks_of("unet").items():
        loaded = load_pretrained("user/repo", subfolder=name)
        assert type(loaded) is type(network)
        assert equal(loaded.state_dict(), dict(getattr(run.method, name).state_dict()))
    monkeypatch.chdir(tmp_path)
    for card, loads in (
        ("README.md", "to_target"),
        ("to_target/README.md", "to_target"),
        ("to_source/README.md", "to_source"),
    ):
        text = files[card].decode()
        names = {}
        exec(text.split("```python\n")[1].split("\n```")[0], names)
        network = names.get("network", names.get("generator"))
        with torch.no_grad():
            assert torch.equal(translate(network, images), translate(getattr(run.method, loads), images))
    with Image.open(tmp_path / "output.png") as output:
        assert output.size == (16, 16)


def test_each_generator_pushes_on_its_own(hub, whole):
    whole[0].method.to_source.push_to_hub("user/back", token=hub.token)
    assert equal(load_pretrained("user/back").state_dict(), dict(whole[0].method.to_source.state_dict()))


def test_the_cycle_loss_falls_on_unpaired_facades():
    torch.manual_seed(0)
    trainer = Trainer(
        CycleGAN(**networks_of(base_channels=8)), UnpairedFacades(8, size=16), out=None, epochs=10, decay_epochs=0,
        lr=1e-3, **QUIET,
    )  # fmt: skip
    history = []
    step = trainer.method.step
    trainer.method.step = lambda batch, optimizers: history.append(step(batch, optimizers)) or history[-1]
    trainer.fit()
    for name in ("cycle_source", "cycle_target"):
        course = torch.stack([losses[name] for losses in history])
        assert len(course) == 80
        assert course[-20:].mean() < 0.7 * course[:20].mean()
