import pytest
import torch
from torch import nn

from imtrans import GANLoss, MultiscaleDiscriminator, PatchDiscriminator, gradient_penalty, receptive_field
from imtrans.errors import ShapeError
from imtrans.nn.layers import downsample


class AuthorsDiscriminator(nn.Module):
    """One scale of pix2pixHD, written down again from what its code computes: the features of each layer."""

    def __init__(self, in_channels, base_channels, n_layers):
        super().__init__()
        wide = base_channels
        first = nn.Conv2d(in_channels, wide, 4, 2, padding=2)
        layers = [nn.Sequential(first, nn.LeakyReLU(0.2))]
        for i in range(n_layers):
            narrow, wide = wide, min(2 * wide, 512)
            conv = nn.Conv2d(narrow, wide, 4, 2 if i < n_layers - 1 else 1, padding=2)
            layers.append(nn.Sequential(conv, nn.InstanceNorm2d(wide), nn.LeakyReLU(0.2)))
        self.layers = nn.ModuleList([*layers, nn.Conv2d(wide, 1, 4, 1, padding=2)])

    def forward(self, x):
        features = []
        for layer in self.layers:
            x = layer(x)
            features.append(x)
        return features


def halved_by_hand(image):
    """The mean over those of 3x3 pixels that there are."""
    height, width = image.shape[-2:]
    rows = [slice(max(0, y - 1), y + 2) for y in range(0, height, 2)]
    columns = [slice(max(0, x - 1), x + 2) for x in range(0, width, 2)]
    return torch.stack(
        [torch.stack([image[..., r, c].mean(dim=(-2, -1)) for c in columns], dim=-1) for r in rows], dim=-2
    )


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 3)])
def test_the_pool_between_scales_does_not_count_the_padding(size):
    image = torch.randn(2, 3, *size)
    torch.testing.assert_close(downsample()(image), halved_by_hand(image))
    assert torch.equal(downsample()(torch.ones(1, 1, *size)).unique(), torch.ones(1))


@pytest.mark.parametrize(("num_scales", "n_layers"), [(2, 3), (3, 3), (1, 2)])
def test_it_computes_what_that_of_pix2pixhd_computes(num_scales, n_layers):
    network = MultiscaleDiscriminator(5, num_scales=num_scales, base_channels=4, n_layers=n_layers)
    image = torch.randn(2, 5, 48, 40)
    found, logits = network.features(image), network(image)
    assert len(found) == num_scales
    for scale, ours in enumerate(found):
        theirs = AuthorsDiscriminator(5, 4, n_layers)
        with torch.no_grad():
            for p, q in zip(theirs.parameters(), network.scales[scale].parameters(), strict=True):
                p.copy_(q)
        expected = theirs(image)
        assert len(ours) == n_layers + 2
        for one, other in zip(ours, expected, strict=True):
            torch.testing.assert_close(one, other)
        assert torch.equal(logits[scale], ours[-1])
        image = halved_by_hand(image)


@pytest.mark.parametrize(("num_scales", "in_channels"), [(2, 39), (3, 39), (2, 6)])
def test_it_has_as_many_parameters_as_that_of_pix2pixhd(num_scales, in_channels):
    """At the authors' width of 64, their cap at 512 channels is eight times the base, which is ours."""
    with torch.device("meta"):
        ours = MultiscaleDiscriminator(in_channels, num_scales=num_scales)
        theirs = [AuthorsDiscriminator(in_channels, 64, 3) for _ in range(num_scales)]
    assert ours.num_parameters() == sum(p.numel() for d in theirs for p in d.parameters())
    widths = [16 * in_channels * 64 + 64, 16 * 64 * 128 + 128, 16 * 128 * 256 + 256, 16 * 256 * 512 + 512, 16 * 512 + 1]
    assert ours.num_parameters() == num_scales * sum(widths)


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_a_receptive_field_is_counted_in_pixels_of_the_full_image(n_layers):
    """Counted by the gradient that one logit sends back to the image."""
    network = MultiscaleDiscriminator(1, num_scales=3, base_channels=1, n_layers=n_layers, norm="none", act="none")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(1.0)
    image = torch.zeros(1, 1, 400, 400, requires_grad=True)
    for logits, size in zip(network(image), network.receptive_field, strict=True):
        middle = logits[0, 0, logits.shape[2] // 2, logits.shape[3] // 2]
        (gradient,) = torch.autograd.grad(middle, image, retain_graph=True)
        touched = gradient[0, 0].nonzero()
        assert (touched.max(dim=0)[0] - touched.min(dim=0)[0] + 1).tolist() == [size, size]


def test_the_receptive_fields_of_pix2pixhd():
    assert MultiscaleDiscriminator(base_channels=1, num_scales=3).receptive_field == (70, 141, 283)
    path = nn.Sequential(downsample(), PatchDiscriminator(3, base_channels=1, padding=2).layers)
    assert receptive_field(path, in_channels=3).stride == 16


def test_scales_have_weights_of_their_own_and_the_first_judges_the_full_image():
    network = MultiscaleDiscriminator(3, base_channels=2, n_layers=1, norm="none")
    image = torch.rand(1, 3, 32, 32)
    before = network(image)
    assert before[0].shape[-1] > before[1].shape[-1]
    with torch.no_grad():
        network.scales[0].layers[-1].conv.bias.add_(1)
    after = network(image)
    assert torch.allclose(after[0], before[0] + 1)
    assert torch.equal(after[1], before[1])


@pytest.mark.parametrize("mode", ["vanilla", "lsgan", "hinge", "wgangp"])
@pytest.mark.parametrize("scales", ["mean", "sum"])
def test_every_loss_takes_its_logits(mode, scales):
    network = MultiscaleDiscriminator(3, base_channels=2, n_layers=1)
    real, fake = torch.rand(2, 2, 3, 16, 16).unbind()
    loss = GANLoss(mode, scales=scales)
    total = loss.discriminator(network(real), network(fake)) + loss.penalty(network, real, fake)
    each = [loss.discriminator(a, b) for a, b in zip(network(real), network(fake), strict=True)]
    if mode != "wgangp":
        assert total.item() == pytest.approx(sum(each).item() / (2 if scales == "mean" else 1), rel=1e-5)
    total.backward()
    assert all(p.grad.isfinite().all() for p in network.parameters())
    assert gradient_penalty(network, real, fake).isfinite()


def test_a_multiscale_discriminator_refuses_an_image_by_its_smallest_scale():
    network = MultiscaleDiscriminator(base_channels=1, num_scales=3, padding=1)
    ran = []
    network.scales[0].layers[0].register_forward_hook(lambda *_: ran.append(True))
    with pytest.raises(ShapeError) as caught:
        network(torch.zeros(1, 6, 60, 90))
    assert str(caught.value) == (
        "MultiscaleDiscriminator, at 1/4 of the size: an image of 15x23 is too small for 5 layers. Use "
        "larger images or fewer layers."
    )
    assert not ran
