import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from imtrans import GANLoss, PatchDiscriminator, feature_matching_loss, gradient_penalty
from imtrans.errors import ArgumentError, ShapeError
from imtrans.nn.losses import GAN_MODES, PIXEL_LOSSES, charbonnier_loss, logits_of

FORMULAS = {
    "vanilla": (lambda x: F.softplus(-x), F.softplus, lambda x: F.softplus(-x)),
    "lsgan": (lambda x: (x - 1) ** 2, lambda x: x**2, lambda x: (x - 1) ** 2),
    "wgangp": (lambda x: -x, lambda x: x, lambda x: -x),
    "hinge": (lambda x: (1 - x).clamp(min=0), lambda x: (1 + x).clamp(min=0), lambda x: -x),
}


@pytest.mark.parametrize("mode", GAN_MODES)
def test_the_values_are_those_of_the_formulas(mode):
    gan = GANLoss(mode)
    real, fake = 2 * torch.randn(2, 3, 1, 5, 6)
    of_real, of_fake, of_generator = (lambda x, f=f: f(x).mean() for f in FORMULAS[mode])
    torch.testing.assert_close(gan.real(real), of_real(real))
    torch.testing.assert_close(gan.fake(fake), of_fake(fake))
    torch.testing.assert_close(gan.discriminator(real, fake), of_real(real) + of_fake(fake))
    torch.testing.assert_close(gan.generator(fake), of_generator(fake))


@pytest.mark.parametrize("mode", GAN_MODES)
def test_it_is_called_as_the_reference_implementation_does(mode):
    gan, logits = GANLoss(mode), torch.randn(2, 1, 5, 6)
    for scales in (logits, [logits, logits[..., :3]]):
        assert torch.equal(gan(scales, True), gan.real(scales))
        assert torch.equal(gan(scales, False), gan.fake(scales))
        if mode != "hinge":
            assert torch.equal(gan(scales, True), gan.generator(scales))
    with pytest.raises(ArgumentError) as caught:
        gan(logits, logits)
    assert str(caught.value).startswith("GANLoss: real must be True or False, got tensor(")


@pytest.mark.parametrize("mode", GAN_MODES)
def test_gradients_are_finite_even_for_extreme_logits(mode):
    logits = torch.tensor([-1e4, -1.0, 0.0, 1.0, 1e4], requires_grad=True)
    gan = GANLoss(mode)
    for loss in (gan.real(logits), gan.fake(logits), gan.generator(logits)):
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("mode", GAN_MODES)
def test_losses_of_logits_in_half_precision_are_computed_in_float32(mode, dtype):
    gan, logits = GANLoss(mode), (2 * torch.randn(2, 1, 30, 30)).to(dtype)
    for loss in (gan.real, gan.fake, gan.generator):
        for given, same in (
            (logits, logits.float()),
            ([logits, logits[..., :9]], [logits.float(), logits[..., :9].float()]),
        ):
            assert loss(given).dtype == torch.float32
            assert torch.equal(loss(given), loss(same))


@pytest.mark.parametrize("mode", GAN_MODES)
def test_the_first_loss_scale_of_fp16_gives_finite_gradients(mode):
    """The scale is 65536, above the largest number of fp16."""
    gan, logits = GANLoss(mode), torch.randn(1, 1, 30, 30).half()
    for loss in (gan.real, gan.fake, gan.generator):
        half, single = (logits.detach().clone().to(dtype).requires_grad_() for dtype in (torch.float16, torch.float32))
        for each in (half, single):
            (65536 * loss(each)).backward()
        torch.testing.assert_close(half.grad.float(), single.grad, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", PIXEL_LOSSES)
def test_pixel_losses_of_half_precision_are_computed_in_float32(name, dtype):
    output, target = torch.randn(2, 1, 3, 16, 16).to(dtype)
    found = PIXEL_LOSSES[name](output, target)
    assert found.dtype == torch.float32
    assert torch.equal(found, PIXEL_LOSSES[name](output.float(), target.float()))


def test_features_in_half_precision_are_matched_in_float32():
    real, fake = ([torch.randn(1, 8, 9, 9).bfloat16(), torch.zeros(1, 1, 2, 2)] for _ in range(2))
    found = feature_matching_loss(real, fake)
    assert found.dtype == torch.float32
    assert torch.equal(found, feature_matching_loss([each.float() for each in real], [each.float() for each in fake]))


@pytest.mark.parametrize("mode", GAN_MODES)
def test_minimising_moves_the_logits_apart_and_the_generator_raises_its_own(mode):
    logits = torch.full((4,), 0.5, requires_grad=True)
    gan = GANLoss(mode)
    assert (torch.autograd.grad(gan.real(logits), logits)[0] < 0).all()
    assert (torch.autograd.grad(gan.fake(logits), logits)[0] > 0).all()
    assert (torch.autograd.grad(gan.generator(logits), logits)[0] < 0).all()


@pytest.mark.parametrize("mode", GAN_MODES)
@pytest.mark.parametrize("scales", ["mean", "sum"])
@pytest.mark.parametrize("kind", [list, tuple])
def test_the_losses_of_several_scales_are_averaged_or_summed(mode, scales, kind):
    gan, single = GANLoss(mode, scales=scales), GANLoss(mode)
    maps = [torch.randn(2, 1, size, size) for size in (8, 4, 2)]
    for name in ("real", "fake", "generator"):
        each = torch.stack([getattr(single, name)(m) for m in maps])
        torch.testing.assert_close(getattr(gan, name)(kind(maps)), getattr(each, scales)())


def test_no_scale_at_all_is_refused():
    with pytest.raises(ArgumentError) as caught:
        GANLoss().real([])
    assert str(caught.value) == "GANLoss: got an empty sequence of logits. Pass one tensor for each scale."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"mode": "lsgn"},
            "mode='lsgn' is not one of ['hinge', 'lsgan', 'vanilla', 'wgangp']. Did you mean 'lsgan'?",
        ),
        ({"scales": "avg"}, "scales='avg' is not one of ['mean', 'sum']."),
        ({"penalty_weight": -1}, "penalty_weight must be a number >= 0, got -1."),
    ],
)
def test_the_loss_refuses_what_it_does_not_know(arguments, message):
    with pytest.raises(ArgumentError) as caught:
        GANLoss(**arguments)
    assert str(caught.value) == f"GANLoss: {message}"


def test_the_repr_tells_the_mode():
    assert repr(GANLoss("hinge")) == "GANLoss('hinge')"


# The gradient penalty


class LinearCritic(nn.Module):
    """Its gradient at any image is its weight."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return (x * self.weight).sum((1, 2, 3), keepdim=True)


class SquareCritic(nn.Module):
    """Its gradient at an image is the image."""

    def forward(self, x):
        return x.square().sum((1, 2, 3)) / 2


class ConstantCritic(nn.Module):
    """Its gradient is zero."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return x.mean((1, 2, 3)) * self.weight


def pair():
    return torch.rand(2, 4, 3, 5, 5)


@pytest.mark.parametrize(("weight", "target"), [(10.0, 1.0), (1.0, 0.0), (2.5, 3.0)])
def test_the_penalty_of_a_linear_critic_is_known(weight, target):
    critic = LinearCritic(torch.full((3, 5, 5), 0.5))
    norm = 0.5 * math.sqrt(75)
    penalty = gradient_penalty(critic, *pair(), weight=weight, target=target)
    assert penalty.shape == ()
    assert penalty.item() == pytest.approx(weight * (norm - target) ** 2, rel=1e-5)
    penalty.backward()
    expected = weight * 2 * (norm - target) * 0.5 / norm  # d norm / d w = w / norm
    torch.testing.assert_close(critic.weight.grad, torch.full((3, 5, 5), expected))


def test_the_gradient_of_a_map_of_logits_is_that_of_its_sum():
    class MapCritic(nn.Module):
        def forward(self, x):
            return 2 * x.sum(1, keepdim=True)

    norm = 2 * math.sqrt(75)
    assert gradient_penalty(MapCritic(), *pair(), weight=1.0).item() == pytest.approx((norm - 1) ** 2, rel=1e-5)


def test_the_logits_of_several_scales_count_together():
    class TwoScales(nn.Module):
        def forward(self, x):
            return [x.sum(1, keepdim=True), 2 * x.mean((2, 3))]

    norm = (1 + 2 / 25) * math.sqrt(75)
    assert gradient_penalty(TwoScales(), *pair(), weight=1.0).item() == pytest.approx((norm - 1) ** 2, rel=1e-5)


def test_each_sample_is_mixed_in_a_proportion_of_its_own_and_its_norm_is_its_own():
    real, fake = torch.ones(64, 1, 2, 2), torch.zeros(64, 1, 2, 2)
    shares = torch.rand(64, generator=torch.Generator().manual_seed(3))
    norms = 2 * shares  # the image is share everywhere, four pixels
    penalty = gradient_penalty(SquareCritic(), real, fake, weight=1.0, generator=torch.Generator().manual_seed(3))
    assert penalty.item() == pytest.approx((norms - 1).square().mean().item(), rel=1e-5)
    assert norms.unique().numel() > 60


def test_the_generator_makes_the_mixing_repeatable_and_leaves_the_global_one_alone():
    def penalty(seed):
        return gradient_penalty(SquareCritic(), *images, generator=torch.Generator().manual_seed(seed))

    images = pair()
    before = torch.get_rng_state()
    assert torch.equal(penalty(1), penalty(1))
    assert not torch.equal(penalty(1), penalty(2))
    assert torch.equal(torch.get_rng_state(), before)


def test_the_penalty_reaches_every_weight_of_a_real_critic_but_not_the_images():
    critic = PatchDiscriminator(3, base_channels=4, n_layers=1, norm="instance", act="silu")
    real, fake = torch.rand(2, 2, 3, 16, 16).requires_grad_().unbind()
    gradient_penalty(critic, real, fake).backward()
    for name, parameter in critic.named_parameters():
        if name.endswith("weight"):
            assert parameter.grad.isfinite().all(), name
            assert parameter.grad.abs().sum() > 0, name
    assert not real.is_leaf
    assert real._base.grad is None


def test_a_gradient_of_zero_gives_no_nan():
    critic = ConstantCritic()
    penalty = gradient_penalty(critic, *pair(), weight=10.0)
    assert penalty.item() == 10
    penalty.backward()
    assert critic.weight.grad.isfinite().all()


def test_the_loss_adds_its_penalty_in_its_mode_alone():
    critic = LinearCritic(torch.full((3, 5, 5), 0.5))
    expected = (0.5 * math.sqrt(75) - 1) ** 2
    assert GANLoss("wgangp", penalty_weight=4.0).penalty(critic, *pair()).item() == pytest.approx(4 * expected)
    assert GANLoss("wgangp").penalty(critic, *pair()).item() == pytest.approx(10 * expected)
    for gan in (GANLoss("wgangp", penalty_weight=0), GANLoss("hinge"), GANLoss("lsgan"), GANLoss("vanilla")):
        assert gan.penalty(critic, *pair()).item() == 0


@pytest.mark.parametrize("norm", [nn.BatchNorm2d, nn.SyncBatchNorm])
def test_a_critic_with_batch_norm_is_refused(norm):
    critic = PatchDiscriminator(3, base_channels=2, n_layers=1, norm=norm)
    rest = (
        "the discriminator has a batch norm (layers.1.norm). The gradient penalty asks for each sample's own "
        "gradient, and a batch norm makes it depend on the others. Build it with norm='instance', 'group' or 'none'."
    )
    with pytest.raises(ArgumentError) as caught:
        gradient_penalty(critic, *pair())
    assert str(caught.value) == f"gradient_penalty: {rest}"
    with pytest.raises(ArgumentError) as caught:
        GANLoss("wgangp").check(critic)
    assert str(caught.value) == f"GANLoss('wgangp'): {rest}"
    for gan in (GANLoss("wgangp", penalty_weight=0), GANLoss("hinge")):
        gan.check(critic)


def test_a_critic_that_is_a_batch_norm_itself_is_named_so():
    with pytest.raises(ArgumentError, match=r"has a batch norm \(itself\)"):
        gradient_penalty(nn.BatchNorm2d(3), *pair())


@pytest.mark.parametrize("norm", ["instance", "group", "none"])
def test_a_critic_without_batch_norm_passes_the_check(norm):
    GANLoss("wgangp").check(PatchDiscriminator(base_channels=2, norm=norm))


def test_real_and_fake_of_different_shapes_are_refused():
    with pytest.raises(ShapeError) as caught:
        gradient_penalty(SquareCritic(), torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4))
    assert str(caught.value) == ("gradient_penalty: real (2, 3, 4, 4) and fake (1, 3, 4, 4) must have the same shape.")


# Feature matching


def features(scales=2, layers=3):
    return [[torch.rand(2, 2 + j, 5 - i, 4) for j in range(layers)] for i in range(scales)]


@pytest.mark.parametrize(("scales", "n_layers"), [(1, 1), (2, 3), (3, 3), (2, 4)])
def test_feature_matching_is_the_sum_that_the_authors_of_pix2pixhd_write_down(scales, n_layers):
    """Each of n_layers + 1 maps before the logits of each of num_D scales counts 4 / (n_layers + 1) / num_D."""
    real, fake = features(scales, n_layers + 2), features(scales, n_layers + 2)
    expected = 0.0
    for i in range(scales):
        for j in range(n_layers + 1):
            expected += (1 / scales) * (4 / (n_layers + 1)) * F.l1_loss(fake[i][j], real[i][j]) * 10
    torch.testing.assert_close(feature_matching_loss(real, fake), expected)
    torch.testing.assert_close(feature_matching_loss(real, fake, weight=2.5), expected / 4)
    if scales == 1:
        torch.testing.assert_close(feature_matching_loss(real[0], fake[0]), expected)


def test_feature_matching_pulls_at_the_generated_side_alone_and_not_at_the_logits():
    real, fake = features(), features()
    for each in (*real[0], *real[1], *fake[0], *fake[1]):
        each.requires_grad_()
    feature_matching_loss(real, fake).backward()
    assert all(each.grad is None for scale in real for each in scale)
    assert all(each.grad.abs().min() > 0 for scale in fake for each in scale[:-1])
    assert all(scale[-1].grad is None for scale in fake)


def test_features_of_a_discriminator_match_themselves():
    discriminator = PatchDiscriminator(3, base_channels=2, n_layers=2)
    given = discriminator.features(torch.rand(1, 3, 32, 32))
    assert feature_matching_loss(given, given) == 0
    assert torch.equal(logits_of(given), given[-1])
    both = logits_of([given, given])
    assert [torch.equal(logits, given[-1]) for logits in both] == [True, True]


def test_the_pixel_losses_are_means_of_their_formulas():
    output, target = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    difference = output.numpy().astype(np.float64) - target.numpy()
    expected = {
        "l1": np.abs(difference).mean(),
        "l2": (difference**2).mean(),
        "charbonnier": np.sqrt(difference**2 + 1e-6).mean(),
    }
    assert {name: loss(output, target).item() for name, loss in PIXEL_LOSSES.items()} == pytest.approx(expected)


def test_the_charbonnier_loss_is_smooth_at_zero_and_keeps_single_precision():
    image = torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16, requires_grad=True)
    loss = charbonnier_loss(image, torch.zeros(1, 1, 2, 2))
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(1e-3)
    assert torch.equal(image.grad, torch.zeros_like(image))


def test_features_that_do_not_belong_together_are_refused():
    one = [torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 2, 2)]
    with pytest.raises(ShapeError) as caught:
        feature_matching_loss(one, [one[1], one[1]])
    assert str(caught.value) == (
        "feature_matching_loss: real_features have the shapes [[(1, 2, 3, 3), (1, 1, 2, 2)]], fake_features "
        "[[(1, 1, 2, 2), (1, 1, 2, 2)]]. Compute both with the same discriminator, from batches of the same shape."
    )
    with pytest.raises(ShapeError, match="real_features have the shapes"):
        feature_matching_loss([one, one], [one])
    for nothing, lengths in (([one, one[1:]], "[2, 1]"), (one[1:], "[1]"), ([], "[]")):
        with pytest.raises(ArgumentError) as caught:
            feature_matching_loss(nothing, nothing)
        assert str(caught.value) == (
            "feature_matching_loss: each scale needs the features of at least one layer and the logits, got lists of "
            f"{lengths} tensors."
        )
