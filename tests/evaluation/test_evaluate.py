import json
import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imtrans import (
    PatchDiscriminator,
    Pix2Pix,
    ProceduralFacades,
    UNetGenerator,
    evaluate,
    frechet_distance,
    sliced_wasserstein,
)
from imtrans.data.loader import batches
from imtrans.errors import ArgumentError, DataError, ShapeError
from imtrans.evaluation.evaluate import compare_modes
from imtrans.evaluation.metrics import l1, psnr, ssim
from imtrans.modes import DETERMINISTIC, MODES, running_as
from imtrans.runtime import fork_rng

CPU = torch.device("cpu")


class Scale(nn.Module):
    """Multiplies by 0 in eval mode, otherwise by what makes "batch_stats" (1) or "paper" (0.5) of it."""

    def __init__(self, factors):
        super().__init__()
        self.norm, self.dropout, self.factors = nn.BatchNorm2d(3), nn.Dropout(), factors

    def translate(self, batch):
        mode = "paper" if self.dropout.training else "batch_stats" if self.norm.training else "eval"
        return batch["source"] * self.factors[mode], batch["target"]


class Change(Scale):
    """Changes the target by a function for each mode."""

    def translate(self, batch):
        mode = "paper" if self.dropout.training else "batch_stats" if self.norm.training else "eval"
        return self.factors[mode](batch["target"]), batch["target"]


def compared(changes, images, **settings):
    method = Change(changes)
    return compare_modes(method, {"": method.translate}, lambda: [{"target": images}], CPU, **settings)


def blurred(images):
    return F.avg_pool2d(images, 3, stride=1, padding=1)


def brighter(images):
    return images + 0.5


@pytest.mark.parametrize("best", DETERMINISTIC)
def test_the_best_mode_has_the_lowest_sliced_wasserstein_distance_not_l1(best):
    images = torch.rand(3, 3, 32, 32) / 2
    found = compared({mode: brighter if mode == best else blurred for mode in MODES}, images)
    other = next(mode for mode in DETERMINISTIC if mode != best)
    assert found["best"] == best
    assert found[best]["l1"] > found[other]["l1"]
    assert found[best] == {**found[best], "swd": pytest.approx(0, abs=0.1)}
    assert found[other]["swd"] == pytest.approx(sliced_wasserstein(blurred(images), images)["swd"])
    assert found[other]["swd"] > 1


@pytest.mark.parametrize("best", DETERMINISTIC)
def test_l1_decides_between_equal_distances(best):
    # Set by set, the contrast is normalised. Powers of 2 are scaled without rounding.
    found = compared({m: lambda x, m=m: x * (0.5 if m == best else 0.25) for m in MODES}, torch.rand(2, 3, 16, 16))
    assert found["eval"]["swd"] == found["batch_stats"]["swd"]
    assert found["best"] == best


@pytest.mark.parametrize("best", DETERMINISTIC)
def test_l1_decides_where_images_are_too_small_for_patches(best):
    images = torch.rand(3, 3, 15, 40) / 2
    found = compared({mode: blurred if mode == best else brighter for mode in MODES}, images)
    assert [list(found[mode]) for mode in MODES] == [["l1", "psnr"]] * 3
    assert found["best"] == best
    with pytest.raises(ShapeError, match="sliced_wasserstein: images must be"):
        compared(dict.fromkeys(MODES, blurred), images, metrics=["swd"])


def test_a_set_with_one_small_image_has_no_sliced_wasserstein_distance():
    method = Change(dict.fromkeys(MODES, blurred))
    samples = [{"target": torch.rand(1, 3, side, side)} for side in (32, 8, 32)]
    found = compare_modes(method, {"": method.translate}, lambda: samples, CPU)
    assert list(found["eval"]) == ["l1", "psnr"]


@pytest.mark.parametrize("best", DETERMINISTIC)
def test_images_too_small_for_patches_are_compared_by_l1(best):
    method = Scale({mode: 1.0 if mode == best else 0.25 for mode in MODES})
    picture = torch.rand(5, 3, 4, 4)
    samples = [{"source": picture[i : i + 2], "target": picture[i : i + 2]} for i in (0, 2, 4)]
    found = compare_modes(method, {"": method.translate}, lambda: samples, CPU)
    assert list(found) == [*MODES, "best"]
    assert found["best"] == best
    assert found[best] == {"l1": 0, "psnr": 100}
    other = next(mode for mode in MODES if mode != best)
    # A mean over the pictures, not over the batches: the last batch is smaller.
    assert found[other]["l1"] == pytest.approx(0.375 * picture.mean().item(), rel=1e-5)


def test_the_random_mode_is_the_best_only_if_it_is_a_candidate():
    method, picture = Scale({"eval": 0.25, "batch_stats": 0.5, "paper": 1.0}), torch.rand(2, 3, 4, 4)
    samples = [{"source": picture, "target": picture}]
    found = compare_modes(method, {"": method.translate}, lambda: samples, CPU)
    assert found["paper"]["l1"] == 0
    assert found["best"] == "batch_stats"
    asked = compare_modes(method, {"": method.translate}, lambda: samples, CPU, candidates=["paper"])
    assert asked == {**found, "best": "paper"}


@pytest.mark.parametrize("spoilt", MODES)
def test_a_mode_that_gives_nan_is_not_the_best(spoilt):
    factors = dict(zip(MODES, (0.5, 0.6, 0.7), strict=True)) | {spoilt: float("nan")}
    method, picture = Scale(factors), torch.rand(2, 3, 4, 4)
    found = compare_modes(
        method, {"": method.translate}, lambda: [{"source": picture, "target": picture}], CPU, candidates=MODES
    )
    assert found["best"] == max((mode for mode in MODES if mode != spoilt), key=lambda mode: factors[mode])


def pix2pix(**settings):
    return Pix2Pix(UNetGenerator(base_channels=4, depth=3, **settings), PatchDiscriminator(6, base_channels=4))


def translations(method):
    return {translation.name: translation.output_and_target for translation in method.translations()}


@pytest.fixture
def samples():
    return [{"source": torch.rand(2, 3, 16, 16) * 2 - 1, "target": torch.rand(2, 3, 16, 16) * 2 - 1}]


def test_each_mode_is_that_of_running_as(samples):
    method = pix2pix(dropout=())
    found = compare_modes(method, translations(method), lambda: samples, CPU)
    for mode in ("eval", "batch_stats"):
        with torch.no_grad(), running_as(method.generator, mode):
            fake = method.generator(samples[0]["source"])
        expected = {of.__name__: pytest.approx(of(fake, samples[0]["target"]).mean().item()) for of in (l1, psnr)}
        expected["swd"] = pytest.approx(sliced_wasserstein(fake, samples[0]["target"])["swd"])
        assert found[mode] == expected
    assert found["paper"] == found["batch_stats"]
    assert found["eval"] != found["batch_stats"]


def test_further_metrics_are_beside_the_three_that_are_always_there(samples):
    method = pix2pix(dropout=())
    found = compare_modes(method, translations(method), lambda: samples, CPU, metrics=("ssim", "l1"))
    assert [list(found[mode]) for mode in MODES] == [["l1", "psnr", "swd", "ssim"]] * 3
    with torch.no_grad(), running_as(method.generator, "eval"):
        fake = method.generator(samples[0]["source"])
    assert found["eval"]["ssim"] == pytest.approx(ssim(fake, samples[0]["target"]).mean().item())


def test_dropout_is_drawn_from_the_seed(samples):
    method = pix2pix()
    one, again, other = (compare_modes(method, translations(method), lambda: samples, CPU, seed=s) for s in (1, 1, 2))
    assert one == again
    assert one["paper"] != other["paper"]
    assert one["eval"] == other["eval"]


def test_the_network_and_the_random_state_are_left_as_they_were(samples, device):
    method = pix2pix().to(device)
    method.discriminator.eval()
    weights = {name: tensor.clone() for name, tensor in method.generator.state_dict().items()}
    training = {name: module.training for name, module in method.named_modules()}
    with torch.random.fork_rng([]):
        state = torch.get_rng_state()
        compare_modes(method, translations(method), lambda: samples, device)
        assert torch.equal(torch.get_rng_state(), state)
    assert {name: module.training for name, module in method.named_modules()} == training
    for name, tensor in method.generator.state_dict().items():
        assert torch.equal(tensor, weights[name]), name
    assert all(p.grad is None and p.requires_grad for p in method.parameters())


@pytest.mark.parametrize("missing", ["source", "target"])
def test_a_method_without_pairs_is_not_compared(samples, missing):
    lacking = [{name: tensor for name, tensor in samples[0].items() if name != missing}]
    named, state = translations(pix2pix()), torch.get_rng_state()
    assert compare_modes(nn.Identity(), named, lambda: lacking, CPU) is None
    assert compare_modes(nn.Identity(), {}, lambda: samples, CPU) is None
    assert torch.equal(torch.get_rng_state(), state)


def test_several_translations_are_named_and_the_best_mode_is_that_of_their_mean():
    one, other = ({"eval": a, "batch_stats": b, "paper": c} for a, b, c in ((1, 0.5, 0.25), (0, 0.75, 0.5)))
    method, picture = nn.ModuleDict({"one": Scale(one), "other": Scale(other)}), torch.rand(2, 3, 4, 4)
    named = {name: module.translate for name, module in method.items()}
    found = compare_modes(method, named, lambda: [{"source": picture, "target": picture}], CPU)
    for mode in MODES:
        assert list(found[mode]) == ["one_l1", "one_psnr", "other_l1", "other_psnr"]
        for name, factors in {"one": one, "other": other}.items():
            expected = (1 - factors[mode]) * picture.mean().item() / 2
            assert found[mode][f"{name}_l1"] == pytest.approx(expected, abs=1e-6)
    assert found["best"] == "batch_stats"
    lacking = compare_modes(
        method, named | {"none": lambda _: None}, lambda: [{"source": picture, "target": picture}], CPU
    )
    assert lacking == found


def test_keep_randomness_gives_the_state_back_even_after_an_error(device):
    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), fork_rng(device):
        torch.manual_seed(9).seed() / 0
    assert torch.equal(torch.get_rng_state(), state)


@pytest.fixture
def facades():
    return ProceduralFacades(3, size=16, augment=False)


def test_evaluate_compares_each_translation_with_its_target(facades):
    generator = UNetGenerator(base_channels=4, depth=3, dropout=())
    found = evaluate(generator, facades)
    assert list(found) == ["l1", "psnr", "ssim", "histogram_l", "histogram_a", "histogram_b"]
    assert json.loads(json.dumps(found)) == found
    with torch.no_grad(), running_as(generator, "eval"):
        fakes = [generator(facades[i]["source"][None]) for i in range(3)]
    for of in (l1, psnr, ssim):
        each = [of(fake, facades[i]["target"][None]).item() for i, fake in enumerate(fakes)]
        assert found[of.__name__] == pytest.approx(sum(each) / 3, rel=1e-5)


def test_evaluate_is_what_the_trainer_validates_by(facades):
    method = pix2pix()
    batch = {name: torch.stack([facades[i][name] for i in range(3)]) for name in ("source", "target")}
    compared = compare_modes(method, translations(method), lambda: [batch], CPU, seed=4)
    for mode in MODES:
        found = evaluate(method.generator, facades, mode=mode, batch_size=3, metrics=("l1", "psnr", "swd"), seed=4)
        assert found == compared[mode]


def test_a_segmenter_adds_texture_and_layout(facades):
    segmenter = UNetGenerator.preset("unet_2015", 3, 4, base_channels=2, depth=3)
    generator = UNetGenerator(base_channels=4, depth=3)
    found = evaluate(generator, facades, metrics=("l1",), segmenter=segmenter)
    with torch.no_grad(), running_as(generator, "eval"):
        fakes = [generator(facades[i]["source"][None]) for i in range(3)]
    expected = frechet_distance(fakes, [facades[i]["target"][None] for i in range(3)], segmenter)
    assert found == {"l1": found["l1"], **expected}
    assert json.loads(json.dumps(found)) == found
    named = evaluate(generator, facades, metrics=("l1",), segmenter=segmenter, segmenter_layers={"deep": "encoder.2"})
    assert named == {"l1": found["l1"], "deep": found["layout"]}
    method = pix2pix()
    compared = compare_modes(method, translations(method), lambda: batches(facades, 1), CPU, segmenter=segmenter)
    assert [list(compared[mode]) for mode in MODES] == [["l1", "psnr", "swd", "texture", "layout"]] * 3
    with pytest.raises(ArgumentError, match="frechet_distance: layers=None needs a UNetGenerator, got a Identity"):
        evaluate(generator, facades, segmenter=nn.Identity())


def test_evaluate_runs_the_generator_as_it_is_saved(facades):
    generator = UNetGenerator(base_channels=4, depth=3)
    generator.inference_mode = "batch_stats"
    own = evaluate(generator, facades, metrics=("l1",))
    assert own == evaluate(generator, facades, mode="batch_stats", metrics=("l1",))
    assert own != evaluate(generator, facades, mode="eval", metrics=("l1",))
    assert generator.training


def test_evaluate_takes_any_module_and_perfect_ones_are_perfect(facades):
    same = [{"source": facades[i]["target"], "target": facades[i]["target"]} for i in range(3)]
    found = evaluate(nn.Identity(), same)
    assert found == pytest.approx(
        {"l1": 0, "psnr": 100, "ssim": 1, "histogram_l": 1, "histogram_a": 1, "histogram_b": 1}
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metrics": ("l1", "sim")}, "evaluate: metrics[1]='sim' is not one of"),
        ({"metrics": "l1"}, "evaluate: metrics must be a non-empty sequence of names from ["),
        ({"metrics": ()}, "evaluate: metrics must be a non-empty sequence of names from ["),
        ({"mode": "evl"}, "running_as: mode='evl' is not one of"),
        ({"batch_size": 0}, "evaluate: batch_size must be a whole number >= 1, got 0."),
    ],
)
def test_evaluate_refuses_what_it_does_not_know(facades, arguments, message):
    with pytest.raises(ArgumentError, match=re.escape(message)):
        evaluate(nn.Identity(), facades, **arguments)


def test_evaluate_refuses_no_data_and_outputs_of_another_shape(facades):
    with pytest.raises(DataError, match=re.escape("evaluate: the data set is empty. Give it samples.")):
        evaluate(nn.Identity(), [])
    message = (
        "evaluate: images and targets must have the same shape (b, c, h, w), got (1, 1, 16, 16) and (1, 3, 16, 16)."
    )
    with pytest.raises(ShapeError, match=re.escape(message)):
        evaluate(nn.Conv2d(3, 1, 1), facades)
