import importlib.machinery
import math
import re
import sys
import types

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)
from torchmetrics.image.fid import FrechetInceptionDistance

from imtrans.colours import ciede2000, lab_to_rgb, rgb_to_lab
from imtrans.errors import ArgumentError, ShapeError
from imtrans.evaluation.metrics import (
    NETWORKS,
    Fid,
    LabHistograms,
    Lpips,
    Mean,
    Scores,
    colour_difference,
    gmsd,
    l1,
    ms_ssim,
    psnr,
    ssim,
)

CPU = torch.device("cpu")


@given(seed=st.integers(0, 2**16), batch=st.integers(1, 3), channels=st.integers(1, 3))
def test_l1_and_psnr_are_those_of_the_formulas(seed, batch, channels):
    rng = np.random.default_rng(seed)
    fake, target = rng.uniform(-1, 1, (2, batch, channels, 4, 5))
    pair = torch.from_numpy(fake), torch.from_numpy(target)
    for i, (found_l1, found_psnr) in enumerate(zip(l1(*pair).tolist(), psnr(*pair).tolist(), strict=True)):
        one, other = (fake[i] + 1) / 2, (target[i] + 1) / 2
        assert found_l1 == pytest.approx(np.abs(one - other).mean(), rel=1e-5)
        assert found_psnr == pytest.approx(10 * math.log10(1 / ((one - other) ** 2).mean()), rel=1e-5)


def test_an_identical_picture_has_a_finite_psnr():
    picture = torch.rand(1, 3, 4, 4)
    assert (l1(picture, picture).item(), psnr(picture, picture).item()) == (0, 100)


def test_half_precision_is_compared_in_full():
    fake, target = torch.full((1, 1, 64, 64), 0.5, dtype=torch.bfloat16), torch.zeros(1, 1, 64, 64)
    assert l1(fake, target).item() == 0.25


def test_ssim_is_that_of_torchmetrics_for_each_picture():
    fake, target = torch.rand(2, 3, 3, 20, 24) * 2 - 1
    expected = structural_similarity_index_measure((fake + 1) / 2, (target + 1) / 2, data_range=1.0, reduction="none")
    assert expected.shape == (3,)
    torch.testing.assert_close(ssim(fake, target), expected)


def test_ssim_refuses_a_picture_smaller_than_its_window():
    message = (
        "ssim: height and width must be at least 11, the size of its window, got 10x32. Use larger images, or other "
        "metrics."
    )
    with pytest.raises(ShapeError, match=re.escape(message)):
        ssim(torch.zeros(1, 3, 10, 32), torch.zeros(1, 3, 10, 32))


def test_ms_ssim_is_that_of_torchmetrics_for_each_picture():
    fake, target = torch.rand(2, 2, 3, 176, 180) * 2 - 1
    fake[1] = 0.9 * target[1] + 0.1 * fake[1]
    found = ms_ssim(fake, target)
    for i in range(2):
        pair = (fake[i : i + 1] + 1) / 2, (target[i : i + 1] + 1) / 2
        alone = multiscale_structural_similarity_index_measure(*pair, data_range=1.0).item()
        assert found[i].item() == pytest.approx(alone, rel=1e-4)
    assert found[0] < 0.5 < found[1] < 1
    assert ms_ssim(target, target).tolist() == pytest.approx([1, 1])


def gmsd_in_numpy(one, other):
    """Equations 1 to 6 of Xue et al. 2014 for one pair ``(c, h, w)`` in [0, 255], pixel by pixel."""

    def gradient(image):
        grey = image[0] if len(image) == 1 else 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
        height, width = grey.shape[0] // 2, grey.shape[1] // 2
        half = np.zeros((height + 2, width + 2))  # zeros around the image
        magnitude = np.zeros((height, width))
        for y, x in np.ndindex(height, width):
            half[y + 1, x + 1] = grey[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean()
        for y, x in np.ndindex(height, width):
            around = half[y : y + 3, x : x + 3] / 3
            along, down = around[:, 0].sum() - around[:, 2].sum(), around[0].sum() - around[2].sum()
            magnitude[y, x] = np.sqrt(along**2 + down**2)
        return magnitude

    m_r, m_d, c = gradient(one), gradient(other), 170
    similarity = (2 * m_r * m_d + c) / (m_r**2 + m_d**2 + c)
    return np.sqrt(((similarity - similarity.mean()) ** 2).mean())


@pytest.mark.parametrize(("channels", "size"), [(3, (12, 10)), (1, (9, 15))])
def test_gmsd_is_that_of_its_paper(channels, size):
    rng = np.random.default_rng(0)
    one, other = rng.uniform(0, 255, (2, 2, channels, *size))
    other[1] = 0.8 * one[1] + 0.2 * other[1]
    expected = [gmsd_in_numpy(*pair) for pair in zip(one, other, strict=True)]
    found = gmsd(*(torch.from_numpy(images / 127.5 - 1) for images in (one, other)))
    assert found.tolist() == pytest.approx(expected, rel=1e-4)
    assert expected[0] > 2 * expected[1] > 0


def test_gmsd_sees_a_blur_and_not_a_shift_of_brightness():
    image = torch.rand(1, 3, 32, 32) - 0.5
    blurred = torch.nn.functional.avg_pool2d(image, 5, stride=1, padding=2, count_include_pad=False)
    assert gmsd(image, image).item() == 0
    assert gmsd(blurred, image).item() > 0.02
    inside = (slice(None), slice(None), slice(2, -2), slice(2, -2))  # the border is a step to black
    shifted = image.clone()
    shifted[inside] += 0.05
    assert gmsd(shifted, image).item() < 0.5 * gmsd(blurred, image).item()


@pytest.mark.parametrize(
    ("metric", "shape", "message"),
    [
        (
            ms_ssim,
            (1, 3, 175, 200),
            "ms_ssim: height and width must be at least 176, the size of its window at the coarsest scale, got "
            "175x200. Use larger images, or other metrics.",
        ),
        (
            gmsd,
            (1, 3, 8, 3),
            "gmsd: height and width must be at least 4, for a map of 2x2 values, got 8x3. Use larger images, or other "
            "metrics.",
        ),
        (
            gmsd,
            (1, 2, 8, 8),
            "evaluate: 'gmsd' needs grey or RGB images, got images with 2 channels. Remove it from metrics.",
        ),
        (
            colour_difference,
            (1, 1, 8, 8),
            "evaluate: 'ciede2000' needs RGB images, got images with 1 channel. Remove it from metrics.",
        ),
    ],
)
def test_images_that_a_metric_does_not_support(metric, shape, message):
    with pytest.raises(ShapeError, match=f"^{re.escape(message)}$"):
        metric(torch.zeros(shape), torch.zeros(shape))


def test_the_colour_difference_is_the_mean_of_its_pixels():
    image = torch.rand(2, 3, 4, 5) * 2 - 1
    other = image.clone()
    other[1, :, 0, 0] = -image[1, :, 0, 0]
    one_pixel = ciede2000(rgb_to_lab(image), rgb_to_lab(other))[1, 0, 0].item()
    assert colour_difference(image, other).tolist() == pytest.approx([0, one_pixel / 20], abs=1e-6)
    assert one_pixel > 1
    white, black = torch.ones(1, 3, 2, 2), torch.full((1, 3, 2, 2), -1.5)
    assert colour_difference(white, black).item() == pytest.approx(100, abs=1e-2)


def test_the_new_metrics_are_scores_by_name():
    scores = Scores(["ms_ssim", "gmsd", "ciede2000"], device=CPU)
    scores.add(torch.zeros(2, 3, 176, 176), torch.zeros(2, 3, 176, 176))
    assert scores.result() == {"ms_ssim": pytest.approx(1), "gmsd": 0, "ciede2000": 0}


def test_a_mean_is_one_over_pictures_not_over_batches():
    mean = Mean("l1", l1)
    mean.add(torch.ones(3, 1, 2, 2), torch.zeros(3, 1, 2, 2))
    mean.add(torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))
    assert mean.result() == {"l1": 0.375}


def of_lab(*colours):
    """A picture, one row, of colours in Lab."""
    return lab_to_rgb(torch.tensor(colours).T[None, :, None])


def histograms(*pairs):
    metric = LabHistograms()
    for fake, target in pairs:
        metric.add(fake, target)
    return list(metric.result().values())


def test_histograms_count_how_often_not_where():
    picture = torch.rand(1, 3, 8, 8) * 2 - 1
    assert histograms((picture, picture.flip(-1))) == [1, 1, 1]


def test_histograms_are_of_each_channel_of_lab_alone():
    light, dark = of_lab((80.5, 10.5, -20.5)), of_lab((30.5, 10.5, -20.5))
    assert histograms((light, dark)) == [0, 1, 1]
    red, green = of_lab((50.5, 30.5, 10.5)), of_lab((50.5, -30.5, 10.5))
    assert histograms((red, green)) == [1, 0, 1]


def test_histograms_are_over_the_whole_set():
    """Pictures that swap their colours with one another match as a set."""
    one, other = of_lab((20.5, 0.5, 0.5), (20.5, 0.5, 0.5)), of_lab((70.5, 20.5, 30.5), (70.5, 20.5, 30.5))
    assert histograms((one, other), (other, one)) == [1, 1, 1]
    assert histograms((one, other), (one, one)) == [0.5, 0.5, 0.5]


@given(seed=st.integers(0, 2**16))
def test_histograms_are_those_of_numpy(seed):
    generator = torch.Generator().manual_seed(seed)
    fake, target = torch.rand(2, 2, 3, 5, 6, generator=generator) * 2 - 1
    expected = []
    for k, edges in enumerate((np.arange(0, 221), np.arange(-110, 111), np.arange(-110, 111))):
        of_fake, of_target = (np.histogram(rgb_to_lab(x)[:, k], edges)[0] / 60 for x in (fake, target))
        expected.append(np.minimum(of_fake, of_target).sum())
    assert histograms((fake[:1], target[:1]), (fake[1:], target[1:])) == pytest.approx(expected)


def test_histograms_need_colours():
    message = "evaluate: 'histogram' needs RGB images, got images with 1 channel. Remove it from metrics."
    with pytest.raises(ShapeError, match=re.escape(message)):
        LabHistograms().add(torch.zeros(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))


def test_scores_are_each_once_and_in_order():
    scores = Scores(["psnr", "l1", "psnr"], device=CPU)
    scores.add(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4))
    assert list(scores.result()) == ["psnr", "l1"]


@pytest.mark.parametrize(("metric", "package"), [("lpips", "torchvision"), ("fid", "torch-fidelity")])
def test_without_the_package_of_its_network_it_says_how_to_get_it(metric, package, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    message = (
        f"evaluate: {metric!r} needs {package}, which is not installed. pip install {package}, or remove {metric!r} "
        "from metrics."
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        Scores([metric], device=CPU)


@pytest.fixture
def hub_folder(tmp_path, monkeypatch):
    """PyTorch's folder of weights, empty; with the packages of the networks as good as installed."""
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    for package, _ in NETWORKS.values():
        module = types.ModuleType(package)
        module.__spec__ = importlib.machinery.ModuleSpec(package, None)
        monkeypatch.setitem(sys.modules, package, module)
    (tmp_path / "checkpoints").mkdir()
    return tmp_path / "checkpoints"


@pytest.mark.parametrize("metric", NETWORKS)
def test_without_weights_it_names_the_file_and_its_source_and_fetches_nothing(metric, hub_folder):
    url = NETWORKS[metric][1]
    message = (
        f"evaluate: {metric!r} needs network weights that are not on this machine; imtrans does not download them. "
        f"Save {url} as {hub_folder / url.split('/')[-1]}, or remove {metric!r} from metrics."
    )
    with pytest.raises(ArgumentError, match=re.escape(message)):
        Scores([metric], device=CPU)
    assert list(hub_folder.iterdir()) == []


class Features(torch.nn.Module):
    """Two numbers of each picture, in place of Inception's 2048."""

    num_features = 2

    def forward(self, images):
        return torch.stack([images.float().mean(dim=(1, 2, 3)), images.float()[:, 0].mean(dim=(1, 2)) ** 2], dim=1)


def test_fid_is_the_distance_of_the_set_of_fakes_from_the_set_of_targets(hub_folder, monkeypatch):
    weights = hub_folder / NETWORKS["fid"][1].split("/")[-1]
    weights.touch()

    def with_features(normalize, feature_extractor_weights_path):
        assert feature_extractor_weights_path == str(weights)
        return FrechetInceptionDistance(feature=Features(), normalize=normalize)

    monkeypatch.setattr("torchmetrics.image.fid.FrechetInceptionDistance", with_features)
    fake, target = torch.rand(2, 4, 3, 8, 8) * 2 - 1
    target = target * 0.5 - 0.4
    metric = Fid(CPU)
    metric.add(fake[:3], target[:3])
    metric.add(fake[3:], target[3:])
    features = [Features()((x + 1) / 2).double() for x in (fake, target)]
    (mean, cov), (mean_t, cov_t) = [(x.mean(0), torch.cov(x.T)) for x in features]
    root = torch.linalg.eigvals(cov @ cov_t).sqrt().real.sum()
    expected = (mean - mean_t).square().sum() + cov.trace() + cov_t.trace() - 2 * root
    assert metric.result() == {"fid": pytest.approx(expected.item(), rel=1e-4)}


def test_fid_of_one_picture_is_refused(hub_folder, monkeypatch):
    (hub_folder / NETWORKS["fid"][1].split("/")[-1]).touch()
    made = "torchmetrics.image.fid.FrechetInceptionDistance"
    monkeypatch.setattr(made, lambda **kwargs: FrechetInceptionDistance(feature=Features(), normalize=True))
    metric = Fid(CPU)
    metric.add(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ArgumentError, match=r"'fid' needs at least 2 images, got 1\. Remove it from metrics\."):
        metric.result()


def test_lpips_gets_pictures_in_its_range(hub_folder, monkeypatch):
    (hub_folder / NETWORKS["lpips"][1].split("/")[-1]).touch()

    class Stand(torch.nn.Module):
        def __init__(self, net_type):
            super().__init__()
            assert net_type == "alex"
            self.seen = []

        def update(self, fake, target):
            assert fake.abs().max() <= 1
            self.seen.append((fake - target).abs().mean())

        def compute(self):
            return torch.stack(self.seen).mean()

    monkeypatch.setattr("torchmetrics.image.lpip.LearnedPerceptualImagePatchSimilarity", Stand)
    metric = Lpips(CPU)
    metric.add(torch.full((1, 3, 8, 8), 1.5), torch.zeros(1, 3, 8, 8))
    metric.add(torch.full((1, 3, 8, 8), 0.5), torch.zeros(1, 3, 8, 8))
    assert metric.result() == {"lpips": 0.75}
