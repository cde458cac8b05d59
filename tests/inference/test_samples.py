"""Several outputs for one source: `samples` and `seed` of translate and Translator."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from imtrans import ResnetGenerator, Translator, UNetGenerator, translate
from imtrans.errors import ArgumentError
from imtrans.inference import translator as module


def network(noise_at="input", **changes):
    torch.manual_seed(7)
    settings = {"base_channels": 4, "depth": 3, "noise_channels": 5, "noise_at": noise_at, **changes}
    generator = UNetGenerator(**settings)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.mul_(8)
    return generator.eval()


def by_either(function):
    made = {"translate": translate, "Translator": lambda generator, *a, **k: Translator(generator)(*a, **k)}
    return pytest.mark.parametrize("run", made.values(), ids=made)(function)


def different(outputs):
    return all(not torch.equal(a, b) for i, a in enumerate(outputs) for b in outputs[:i])


@by_either
@pytest.mark.parametrize("noise_at", ["input", "bottleneck"])
def test_samples_differ_and_a_seed_repeats_them(run, noise_at):
    generator, source = network(noise_at), torch.rand(3, 20, 30)
    state = torch.get_rng_state()
    four = run(generator, source, samples=4, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(four, list)
    assert [output.shape for output in four] == [(3, 20, 30)] * 4
    assert different([*four, *run(generator, source, samples=4, seed=1)])
    assert all(map(torch.equal, four, run(generator, source, samples=4, seed=0)))
    two = run(generator, source, samples=2, seed=0)
    assert all(map(torch.equal, two, four[:2]))
    assert torch.equal(run(generator, source, seed=0), four[0])


@by_either
def test_the_noise_is_the_one_of_the_seed(run):
    """The values are part of the interface: drawn in turn on the CPU, for each sample."""
    generator, source = network(), torch.rand(2, 3, 16, 16)
    outputs = run(generator, source, samples=3, seed=4)
    torch.manual_seed(4)
    for output in outputs:
        with torch.no_grad():
            torch.testing.assert_close(output, generator(source, torch.randn(2, 5)), atol=1e-5, rtol=1e-5)


@by_either
def test_without_a_seed_the_global_generator_draws(run):
    generator, source = network(), torch.rand(3, 16, 16)
    torch.manual_seed(2)
    one = run(generator, source, samples=2)
    torch.manual_seed(2)
    assert all(map(torch.equal, one, run(generator, source, samples=2)))
    assert different([*one, *run(generator, source, samples=2)])


@by_either
def test_each_kind_of_picture_comes_back_as_a_list_of_its_kind(run, tmp_path):
    generator, array = network(), np.zeros((16, 20, 3), np.uint8)
    Image.fromarray(array).save(tmp_path / "a.png")
    for picture in (tmp_path / "a.png", Image.fromarray(array)):
        outputs = run(generator, picture, samples=2, seed=0)
        assert [(type(output), output.size) for output in outputs] == [(Image.Image, (20, 16))] * 2
        assert outputs[0].tobytes() != outputs[1].tobytes()
    outputs = run(generator, array, samples=2, seed=0)
    assert [(output.dtype, output.shape) for output in outputs] == [(np.uint8, (16, 20, 3))] * 2
    assert len(run(generator, array, samples=1, seed=0)) == 1


@pytest.mark.parametrize("mode", ["eval", "batch_stats", "paper"])
def test_noise_is_random_in_every_mode(mode):
    assert different(translate(network(), torch.rand(3, 16, 16), mode=mode, samples=3, seed=0))


def test_dropout_in_paper_mode_gives_samples_too():
    generator, source = network(noise_channels=0), torch.rand(3, 16, 16)
    three = translate(generator, source, mode="paper", samples=3, seed=0)
    assert different(three)
    assert torch.equal(translate(generator, source, mode="paper", seed=0), three[0])


@pytest.mark.parametrize("tile", [16, 64])
def test_all_tiles_have_one_noise(tile):
    """Equal to the whole image: with another noise in each tile, it would not be."""
    generator = network(depth=2, norm="instance")
    source = torch.rand(1, 3, 100, 70)
    whole, tiled = (translate(generator, source, samples=2, seed=0, tile=t) for t in (None, 64))
    for one, other in zip(whole, tiled, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)
    small = translate(generator, source, samples=2, seed=0, tile=tile)
    assert different(small)
    assert (small[0] - whole[0]).abs().mean() < 0.3 * (whole[1] - whole[0]).abs().mean()


def test_wrappers_and_precision():
    generator, source = network(), torch.rand(3, 16, 16)
    plain = translate(generator, source, samples=2, seed=0)
    assert all(map(torch.equal, translate(nn.DataParallel(generator), source, samples=2, seed=0), plain))
    for one, other in zip(translate(generator, source, samples=2, seed=0, precision="bf16"), plain, strict=True):
        assert 0 < (one - other).abs().mean() < 0.1 * (plain[0] - plain[1]).abs().mean()
    half = translate(generator.bfloat16(), source, samples=2, seed=0)
    assert half[0].dtype == torch.float32
    assert different(half)


def test_compiled_code_gets_the_noise_as_an_input(monkeypatch):
    compiled = []

    def fake(network, **_):
        compiled.append(network)
        return lambda *inputs: network(*inputs)

    monkeypatch.setattr(module.torch, "compile", fake)
    translator, source = Translator(network(), compile=True), torch.rand(3, 16, 16)
    two = translator(source, samples=2, seed=0)
    assert len(compiled) == 1
    assert different(two)
    torch.testing.assert_close(two, translate(network(), source, samples=2, seed=0), atol=1e-5, rtol=1e-5)


@by_either
@pytest.mark.parametrize("samples", [0, -1, True, 2.0])
def test_a_number_that_is_no_count_is_refused(run, samples):
    with pytest.raises(ArgumentError, match=rf": samples must be a whole number >= 1, got {samples}\."):
        run(network(), torch.rand(3, 16, 16), samples=samples)


@pytest.mark.parametrize(
    ("generator", "mode", "name"),
    [
        (UNetGenerator(base_channels=4, depth=3), "eval", "UNetGenerator"),
        (UNetGenerator(base_channels=4, depth=3), "batch_stats", "UNetGenerator"),
        (UNetGenerator(base_channels=4, depth=3, dropout=()), "paper", "UNetGenerator"),
        (ResnetGenerator(base_channels=4, num_blocks=1), "paper", "ResnetGenerator"),
    ],
)
def test_a_generator_whose_outputs_are_equal_is_refused(generator, mode, name):
    for owner, run in (
        ("translate", lambda: translate(generator, torch.rand(3, 16, 16), mode=mode, samples=4)),
        ("Translator", lambda: Translator(generator, mode=mode)(torch.rand(3, 16, 16), samples=4)),
    ):
        with pytest.raises(ArgumentError) as caught:
            run()
        assert str(caught.value) == (
            f"{owner}: samples=4 would give equal outputs: {name} takes no noise, and no dropout is active with "
            f"mode={mode!r}. Use UNetGenerator(noise_channels=8), or mode='paper' with a generator that has dropout, "
            "or leave samples out."
        )
