"""The flags that the training examples share: each reaches the networks, the method or the trainer."""

import importlib.util
import json
import sys

import pytest
import torch
from authors_server import FACADES, checkpoint, home_fixture, site_fixture  # noqa: F401
from example_runs import EXAMPLES, run_example
from loopback_hub import hub_fixture  # noqa: F401
from PIL import Image
from torch import nn

from imtrans import (
    PatchDiscriminator,
    PixelDiscriminator,
    ResnetGenerator,
    Trainer,
    UNetGenerator,
    load_pretrained,
    recipe,
)

PAIRED = ("pix2pix_facades.py", "colorize.py", "day2night.py")
SCRIPTS = (*PAIRED, "cyclegan.py")
TINY = ["--size", "32", "--base-channels", "4", "--device", "cpu"]
TESTED = {  # here, in all three scripts
    "--generator", "--norm", "--n-layers", "--init", "--init-gain", "--warm-start", "--gan-mode", "--pool-size", "--lr",
    "--betas", "--load-size", "--no-flip", "--discriminator", "--ema",
}  # fmt: skip
TESTED_PAIRED = {
    "--recipe", "--no-dropout", "--l1-weight", "--feature-weight", "--pixel-loss", "--d-loss-weight",
    "--diversity-weight", "--noise-channels", "--noise-at",
}  # fmt: skip
SHARED_PAIRED = {  # of the examples on pairs and on photos
    "--help", "--data", "--epochs", "--size", "--base-channels", "--out", "--on-bad-image", "--seed", "--decay-epochs",
    "--lr-policy", "--warmup-epochs", "--max-steps", "--batch-size", "--precision", "--no-compile", "--device",
    "--num-workers", "--checkpoint-every", "--resume", "--push-to-hub", "--segmenter", *TESTED, *TESTED_PAIRED,
}  # fmt: skip
CHANNELS = {"pix2pix_facades.py": (3, 3), "colorize.py": (1, 2), "cyclegan.py": (3, 3), "day2night.py": (3, 3)}


@pytest.fixture
def build(monkeypatch, tmp_path):
    """Run a script up to the training: ``build(script, *flags)`` returns the trainer, and None after an error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def build(script, *flags):
        spec = importlib.util.spec_from_file_location("example", EXAMPLES / script)
        example = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(example)
        made = []

        monkeypatch.setattr(Trainer, "fit", lambda self, *, resume: made.append(self))
        monkeypatch.setattr(sys, "argv", [script, *TINY, *map(str, flags)])
        code = example.main(example.run, example.arguments())
        return made[0] if code == 0 else None

    return build


def networks_of(trainer):
    """The generators and the discriminators of a method."""
    networks = list(trainer.method.children())
    return (
        [n for n in networks if isinstance(n, (UNetGenerator, ResnetGenerator))],
        [n for n in networks if isinstance(n, (PatchDiscriminator, PixelDiscriminator))],
    )


@pytest.mark.parametrize(
    ("script", "name"),
    [*((script, name) for script in PAIRED for name in ("paper", "sharp")), *((script, None) for script in SCRIPTS)],
)
def test_a_recipe_is_the_one_of_the_library(build, script, name):
    trainer = build(script, *([] if name is None else ["--recipe", name]))
    default = "paper" if script == "cyclegan.py" else "sharp"
    size = {"size": 32, "base_channels": 4, "device": "cpu"}
    method, arguments = recipe(name or default, type(trainer.method), **size)
    made = [network.config for kinds in networks_of(trainer) for network in kinds]
    assert made == [network.config for kinds in networks_of(Trainer(method, trainer.train_data)) for network in kinds]
    config = trainer._config()
    assert config["settings"] == method.settings()
    short = {} if script == "cyclegan.py" else {"lr": 5e-4, "ema": 0.995}  # without --data
    expected = {"ema": None} | arguments | short
    keys = ("lr", "betas", "lr_policy", "batch_size", "seed", "ema")
    assert {key: config[key] for key in keys} == {key: expected[key] for key in keys}
    assert config["recipe"] == (name or default)
    assert config["init"] == {"scheme": "normal", "gain": 0.02}
    assert "warm_start" not in config


@pytest.mark.parametrize("script", PAIRED)
def test_a_folder_trains_at_the_rate_of_the_recipe(build, script, tmp_path):
    (tmp_path / "photos" / "train").mkdir(parents=True)
    Image.new("RGB", (80, 40)).save(tmp_path / "photos" / "train" / "1.png")
    config = build(script, "--data", "photos")._config()
    assert (config["lr"], config["ema"]) == (recipe("sharp").trainer["lr"], None)


@pytest.mark.parametrize("script", SCRIPTS)
def test_averaged_weights(build, script):
    assert build(script, "--ema", 0.9)._config()["ema"] == 0.9


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("name", "cls", "expected"),
    [
        ("unet_256", UNetGenerator, {"depth": 8}),
        ("unet_128", UNetGenerator, {"depth": 7}),
        ("resnet_9blocks", ResnetGenerator, {"num_blocks": 9}),
        ("resnet_6blocks", ResnetGenerator, {"num_blocks": 6}),
    ],
)
def test_generator_is_the_one_of_the_reference(build, script, name, cls, expected):
    """With the norm and the dropout that the reference's model has by default."""
    generators, _ = networks_of(build(script, "--generator", name))
    paired = script in PAIRED
    if cls is UNetGenerator:
        dropout = (0.0, 0.5, 0.5, 0.5)[: expected["depth"] - 4] if paired else ()
    else:
        dropout = 0.5 if paired else 0.0
    arguments = {"norm": "batch" if paired else "instance", "dropout": dropout, "base_channels": 4, **expected}
    assert len(generators) == (1 if paired else 2)
    for generator in generators:
        assert type(generator) is cls
        assert arguments.items() <= generator.config.items()
        assert (generator.in_channels, generator.out_channels) == CHANNELS[script]


@pytest.mark.parametrize("script", PAIRED)
@pytest.mark.parametrize(
    ("flags", "none"), [([], ()), (["--generator", "unet_128"], ()), (["--generator", "resnet_6blocks"], 0.0)]
)
def test_no_dropout(build, script, flags, none):
    generators, _ = networks_of(build(script, *flags, "--no-dropout"))
    assert generators[0].config["dropout"] == none


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("norm", "kind"),
    [("batch", nn.BatchNorm2d), ("instance", nn.InstanceNorm2d), ("group", nn.GroupNorm), ("none", None)],
)
def test_norm_is_the_norm_of_all_networks(build, script, norm, kind):
    known = (nn.BatchNorm2d, nn.InstanceNorm2d, nn.GroupNorm)
    for network in (network for kinds in networks_of(build(script, "--norm", norm)) for network in kinds):
        assert {type(m) for m in network.modules() if isinstance(m, known)} == ({kind} if kind else set())


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_losses_the_pool_and_the_discriminator(build, script):
    trainer = build(script, "--gan-mode", "hinge", "--pool-size", 7, "--n-layers", 2)
    method = trainer.method
    assert method.gan_loss.mode == "hinge"
    pools = [method.pool] if script in PAIRED else [method.target_pool, method.source_pool]
    assert [pool.size for pool in pools] == [7] * len(pools)
    assert {discriminator.receptive_field for discriminator in networks_of(trainer)[1]} == {34}
    settings = trainer._config()["settings"]
    assert (settings["gan_mode"], settings["pool_size"]) == ("hinge", 7)


@pytest.mark.parametrize("script", PAIRED)
@pytest.mark.parametrize("name", ["l1_weight", "feature_weight", "d_loss_weight"])
def test_weights_of_losses(build, script, name):
    trainer = build(script, f"--{name.replace('_', '-')}", 0.25)
    assert getattr(trainer.method, name) == 0.25
    assert trainer._config()["settings"][name] == 0.25


@pytest.mark.parametrize("script", PAIRED)
def test_the_pixel_loss(build, script):
    assert build(script).method.pixel_loss == "l1"
    trainer = build(script, "--pixel-loss", "charbonnier")
    assert trainer.method.pixel_loss == trainer._config()["settings"]["pixel_loss"] == "charbonnier"


def test_the_weights_of_cyclegan(build):
    weights = {"source_cycle_weight": 3.0, "target_cycle_weight": 4.0, "identity_weight": 0.0}
    flags = [word for name, weight in weights.items() for word in (f"--{name.replace('_', '-')}", weight)]
    trainer = build("cyclegan.py", *flags)
    assert {name: getattr(trainer.method, name) for name in weights} == weights
    assert weights.items() <= trainer._config()["settings"].items()


@pytest.mark.parametrize("script", SCRIPTS)
def test_lr_and_betas(build, script):
    trainer = build(script, "--lr", 0.01, "--betas", 0.9, 0.99)
    for optimizer in trainer.optimizers.values():
        assert {(group["lr"], group["betas"]) for group in optimizer.param_groups} == {(0.01, (0.9, 0.99))}
    assert (trainer._config()["lr"], trainer._config()["betas"]) == (0.01, (0.9, 0.99))


def first_conv(network):
    conv = next(m for m in network.modules() if isinstance(m, nn.Conv2d))
    return next(w for key, w in conv.named_parameters() if "weight" in key).detach().flatten(1)  # without spectral norm


@pytest.mark.parametrize("script", SCRIPTS)
def test_init(build, script):
    plain, twice, orthogonal, kaiming = (
        networks_of(build(script, *flags))
        for flags in (
            [],
            ["--init-gain", 0.04],
            ["--init", "orthogonal", "--init-gain", 1],
            ["--init", "kaiming"],
        )
    )
    for kind in (0, 1):
        for index, network in enumerate(plain[kind]):
            assert torch.allclose(2 * first_conv(network), first_conv(twice[kind][index]))
            rows = first_conv(orthogonal[kind][index])
            assert torch.allclose(rows @ rows.T, torch.eye(len(rows)), atol=1e-5)
            he = first_conv(kaiming[kind][index])
            assert he.std() == pytest.approx((2 / he.shape[1]) ** 0.5, rel=0.5)
    assert build(script, "--init", "xavier", "--init-gain", 1)._config()["init"] == {"scheme": "xavier", "gain": 1.0}


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_discriminator_of_single_pixels(build, script):
    trainer = build(script, "--discriminator", "pixel", "--norm", "instance")
    discriminators = networks_of(trainer)[1]
    assert len(discriminators) == (1 if script in PAIRED else 2)
    for discriminator in discriminators:
        assert isinstance(discriminator, PixelDiscriminator)
        assert (discriminator.config["base_channels"], discriminator.config["norm"]) == (4, "instance")
        assert discriminator.in_channels == (sum(CHANNELS[script]) if script in PAIRED else 3)


@pytest.fixture
def folder(tmp_path):
    """A folder that each script takes."""
    for name in ("train", "trainA", "trainB", "val", "testA", "testB"):
        (tmp_path / "data" / name).mkdir(parents=True)
        for index in range(2):
            Image.effect_noise((80, 40), 64).convert("RGB").save(tmp_path / "data" / name / f"{index}.png")
    return tmp_path / "data"


@pytest.mark.parametrize("script", SCRIPTS)
def test_rectangles_and_the_size_of_what_is_cropped(tmp_path, folder, script):
    flags = [*TINY, "--data", folder, "--size", 16, 48, "--load-size", 20, 60, "--no-flip", "--max-steps", 1]
    found = run_example(script, *flags, "--discriminator", "pixel", "--out", "run", cwd=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "as Jitter(size=(16, 48), load_size=(20, 60), flip=False)" in found.stdout
    assert "resized to 48x16" in found.stdout
    assert json.loads((tmp_path / "run" / "config.json").read_text())["size"] == [16, 48]
    name = "to_target" if script == "cyclegan.py" else "generator"
    generator = load_pretrained(tmp_path / "run" / name)
    if script in PAIRED:
        assert generator.depth == 4  # fits the shorter side: 2**4 = 16
    with Image.open(next((tmp_path / "run" / "samples").glob("*.png"))) as grid:
        assert grid.height == 2 * 16 + 4
        assert (grid.width + 4) % 52 == 0


def test_the_blocks_of_cyclegan_fit_the_shorter_side(build, folder):
    for size, blocks in (((256, 300), 9), ((255, 300), 6), ((256,), 9)):
        generators, _ = networks_of(build("cyclegan.py", "--data", folder, "--size", *size))
        assert generators[0].config["num_blocks"] == blocks


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--size", 32, 64], "--size HEIGHT WIDTH is for the images of a folder, and there is no --data"),
        (["--load-size", 40], "--load-size is for the images of a folder, and there is no --data"),
        (["--no-flip"], "--no-flip is for the images of a folder, and there is no --data"),
        (["--size", 1, 2, 3], "argument --size: give one number, or height and width"),
        (["--discriminator", "basic"], "argument --discriminator: invalid choice: 'basic'"),
    ],
)
def test_a_wrong_size_or_discriminator(build, capsys, script, flags, text):
    with pytest.raises(SystemExit, match="2"):
        build(script, *flags)
    assert text in capsys.readouterr().err


def test_a_load_size_below_the_size(build, capsys, folder):
    assert build("pix2pix_facades.py", "--data", folder, "--load-size", 20) is None
    assert capsys.readouterr().err == "error: Jitter: load_size must be a whole number >= 32, got 20.\n"


@pytest.mark.parametrize(
    ("script", "flags", "text"),
    [
        ("cyclegan.py", ["--l1-weight", 1], "unrecognized arguments: --l1-weight 1"),
        ("cyclegan.py", ["--no-dropout"], "unrecognized arguments: --no-dropout"),
        ("pix2pix_facades.py", ["--identity-weight", 1], "unrecognized arguments: --identity-weight 1"),
        ("colorize.py", ["--source-cycle-weight", 1], "unrecognized arguments: --source-cycle-weight 1"),
        ("colorize.py", ["--generator", "unet"], "argument --generator: invalid choice: 'unet'"),
    ],
)
def test_a_flag_without_a_meaning_is_refused(build, capsys, script, flags, text):
    with pytest.raises(SystemExit, match="2"):
        build(script, *flags)
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--init", "kaiming", "--init-gain", 1], "error: --init-gain has no effect with --init kaiming"),
        (["--init-gain", -1], "error: init_weights: gain must be a number >= 0, got -1.0."),
        (["--lr", -1], "error: Trainer: lr must be a number >= 0, got -1.0."),
        (["--betas", 0.5, 1], "error: Trainer: betas must be two numbers from 0 to below 1, got (0.5, 1.0)."),
        (["--pool-size", -1], "error: ImagePool: size must be a whole number >= 0, got -1."),
        (["--l1-weight", -1], "error: Pix2Pix: l1_weight must be a number >= 0, got -1.0."),
        (["--n-layers", 0], "error: PatchDiscriminator: n_layers must be a whole number from 1 to 16, got 0."),
        (["--discriminator", "pixel", "--n-layers", 2], "error: --n-layers has no effect with --discriminator pixel"),
        (["--gan-mode", "wgangp"], "error: --gan-mode wgangp cannot train a discriminator with batch norm"),
        (
            ["--recipe", "paper", "--warm-start", "nothing"],
            "error: nothing is neither a folder nor the name of a repo on the Hub",
        ),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_a_wrong_value_is_one_line(build, capsys, flags, text):
    assert build("pix2pix_facades.py", *flags) is None
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert line.startswith(text)


# Warm start


def same_weights(one, other):
    return all(torch.equal(one.state_dict()[key], tensor) for key, tensor in other.state_dict().items())


@pytest.mark.parametrize("name", ["saved", "run", "whole"])
def test_warm_start_from_a_network_or_a_run_folder(build, capsys, tmp_path, name):
    """``saved`` is a network, ``run`` a run folder, and ``whole`` has a discriminator, too."""
    saved, judge = UNetGenerator(base_channels=4, depth=5), PatchDiscriminator(6, base_channels=4)
    folder = tmp_path / name
    saved.save_pretrained(folder / "generator" if name == "run" else folder)
    if name == "whole":
        judge.save_pretrained(folder / "discriminator")
    trainer = build("pix2pix_facades.py", "--recipe", "paper", "--warm-start", name)
    assert same_weights(trainer.method.generator, saved)
    assert same_weights(trainer.method.discriminator, judge) == (name == "whole")
    assert trainer._config()["warm_start"] == name
    lines = capsys.readouterr().out.splitlines()
    assert f"generator: weights of {name}{'/generator' if name == 'run' else ''}" in lines
    (line,) = [line for line in lines if line.startswith("discriminator: ")]
    if name == "whole":
        assert line == "discriminator: weights of whole/discriminator"
    else:
        assert line == f"discriminator: initial weights, because {name} has no folder discriminator"


@pytest.mark.parametrize("whole", [True, False])
def test_warm_start_from_the_hub(build, capsys, tmp_path, hub, whole):
    saved, judge = UNetGenerator(base_channels=4, depth=5), PatchDiscriminator(6, base_channels=4)
    saved.save_pretrained(tmp_path / "repo")
    if whole:
        judge.save_pretrained(tmp_path / "repo" / "discriminator")
    files = [path for path in (tmp_path / "repo").rglob("*") if path.is_file()]
    hub.add_repo("user/labels", {path.relative_to(tmp_path / "repo").as_posix(): path.read_bytes() for path in files})
    method = build("pix2pix_facades.py", "--recipe", "paper", "--warm-start", "user/labels").method
    assert same_weights(method.generator, saved)
    assert same_weights(method.discriminator, judge) == whole
    lines = capsys.readouterr().out
    assert "generator: weights of user/labels\n" in lines
    expected = (
        "weights of user/labels/discriminator" if whole else "initial weights, because user/labels: the repo lacks"
    )
    assert f"discriminator: {expected}" in lines


def test_warm_start_from_published_weights(build, capsys, site):
    saved = UNetGenerator(base_channels=4, depth=5)
    site.content = checkpoint(saved)
    method = build("pix2pix_facades.py", "--recipe", "paper", "--warm-start", FACADES).method
    assert same_weights(method.generator, saved)
    lines = capsys.readouterr().out
    assert f"generator: weights of {FACADES}, which has dropout=() instead of (0.5, 0.5, 0.5)\n" in lines
    assert f"discriminator: initial weights, because {FACADES} has no folder discriminator\n" in lines


def test_warm_start_names_the_arguments_that_differ_without_a_size(build, capsys, tmp_path):
    saved = UNetGenerator(base_channels=4, depth=5, dropout=())
    saved.save_pretrained(tmp_path / "saved")
    assert same_weights(
        build("pix2pix_facades.py", "--recipe", "paper", "--warm-start", "saved").method.generator, saved
    )
    assert "generator: weights of saved, which has dropout=() instead of (0.5, 0.5, 0.5)" in capsys.readouterr().out


def test_warm_start_names_the_sizes_that_differ(build, capsys, tmp_path):
    UNetGenerator(base_channels=8, depth=5).save_pretrained(tmp_path / "wide")
    assert build("pix2pix_facades.py", "--recipe", "paper", "--warm-start", "wide") is None
    assert capsys.readouterr().err == (
        "error: --warm-start: wide has other sizes than the network of this run. Arguments: base_channels=8 instead of "
        "4. Tensors: encoder.0.conv.weight is (8, 3, 4, 4) instead of (4, 3, 4, 4), encoder.1.conv.weight is "
        "(16, 8, 4, 4) instead of (8, 4, 4, 4), encoder.1.norm.weight is (16,) instead of (8,) and 35 more. "
        "Use the --recipe, --generator, --norm, --size and --base-channels of its training.\n"
    )
    UNetGenerator(base_channels=4, depth=6).save_pretrained(tmp_path / "deep")
    assert build("pix2pix_facades.py", "--recipe", "paper", "--warm-start", "deep") is None
    assert "Arguments: depth=6 instead of 5. Tensors: 12 tensors in only one of the two" in capsys.readouterr().err
    ResnetGenerator(base_channels=4).save_pretrained(tmp_path / "resnet")
    assert build("pix2pix_facades.py", "--recipe", "paper", "--warm-start", "resnet") is None
    assert "Arguments: ResnetGenerator instead of UNetGenerator." in capsys.readouterr().err


def test_a_discriminator_of_another_size_keeps_its_initial_weights(build, capsys, tmp_path):
    UNetGenerator(base_channels=4, depth=5).save_pretrained(tmp_path / "saved")
    PatchDiscriminator(6, base_channels=8).save_pretrained(tmp_path / "saved" / "discriminator")
    assert build("pix2pix_facades.py", "--recipe", "paper", "--warm-start", "saved") is not None
    assert (
        "discriminator: initial weights, because --warm-start: saved/discriminator has other sizes"
        in capsys.readouterr().out
    )


def test_a_damaged_discriminator_is_an_error(build, capsys, tmp_path):
    UNetGenerator(base_channels=4, depth=5).save_pretrained(tmp_path / "saved")
    PatchDiscriminator(6, base_channels=4).save_pretrained(tmp_path / "saved" / "discriminator")
    weights = tmp_path / "saved" / "discriminator" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-8])
    assert build("pix2pix_facades.py", "--recipe", "paper", "--warm-start", "saved") is None
    assert "error: saved/discriminator/model.safetensors is damaged" in capsys.readouterr().err


def test_warm_start_of_both_generators(build, tmp_path):
    saved = {name: ResnetGenerator(base_channels=4, num_blocks=6) for name in ("to_target", "to_source")}
    for name, generator in saved.items():
        generator.save_pretrained(tmp_path / "run" / name)
    method = build("cyclegan.py", "--warm-start", "run").method
    assert all(same_weights(getattr(method, name), generator) for name, generator in saved.items())
    assert build("cyclegan.py", "--warm-start", "run/to_target") is None


def test_warm_start_trains_on_and_resumes_without_the_saved_weights(tmp_path):
    UNetGenerator(base_channels=4, depth=5).save_pretrained(tmp_path / "saved")
    flags = [*TINY, "--epochs", "1", "--recipe", "paper", "--warm-start", "saved", "--out", "run"]
    first = run_example("pix2pix_facades.py", *flags, "--max-steps", "1", cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "generator: weights of saved" in first.stdout
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["warm_start"], config["betas"], config["settings"]["l1_weight"]) == ("saved", [0.5, 0.999], 100.0)
    (tmp_path / "saved" / "model.safetensors").unlink()
    more = run_example("pix2pix_facades.py", *flags, "--max-steps", "2", "--resume", cwd=tmp_path)
    assert more.returncode == 0, more.stderr
    assert "weights of saved" not in more.stdout
    assert load_pretrained(tmp_path / "run" / "generator").depth == 5


# Noise


@pytest.mark.parametrize("script", PAIRED)
@pytest.mark.parametrize("generator", [[], ["--generator", "unet_128"]], ids=["own", "unet_128"])
def test_noise_reaches_the_generator_and_the_diversity_weight_the_method(build, script, generator):
    flags = ["--noise-channels", 6, "--noise-at", "bottleneck", "--no-dropout", "--diversity-weight", 0.5]
    method = build(script, *generator, *flags).method
    expected = {"noise_channels": 6, "noise_at": "bottleneck", "dropout": ()}
    assert expected.items() <= method.generator.config.items()
    assert method.settings()["diversity_weight"] == 0.5
    plain = build(script, *generator).method
    assert (plain.generator.noise_channels, plain.diversity_weight) == (0, 0.0)
    assert build(script, "--noise-channels", 6).method.generator.noise_at == "input"


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (
            ["--noise-channels", 6, "--generator", "resnet_6blocks"],
            "--noise-channels is for U-Nets, and --generator is resnet_6blocks. Leave it out.",
        ),
        (["--noise-at", "bottleneck"], "UNetGenerator: noise_at='bottleneck' applies only to noise"),
        (["--diversity-weight", 1], "Pix2Pix: diversity_weight=1.0 compares outputs for different noise"),
        (["--noise-channels", -1], "UNetGenerator: noise_channels must be a whole number >= 0, got -1."),
    ],
)
def test_noise_flags_that_do_not_fit(build, capsys, flags, error):
    assert build("pix2pix_facades.py", *flags) is None
    assert f"error: {error}" in capsys.readouterr().err


def test_cyclegan_has_no_flags_for_noise(build, capsys):
    with pytest.raises(SystemExit):
        build("cyclegan.py", "--noise-channels", 6)
    assert "unrecognized arguments: --noise-channels 6" in capsys.readouterr().err
