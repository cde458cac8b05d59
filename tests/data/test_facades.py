import numpy as np
import pytest
import torch

from imtrans import ProceduralFacades
from imtrans.data.facades import plan
from imtrans.data.facades.paint import Canvas
from imtrans.data.facades.plan import LABELS, draw_facade
from imtrans.data.images import to_image
from imtrans.errors import ArgumentError


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in ("source", "target"))


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize("size", [16, 32, 33])
def test_samples_are_pairs_in_the_range(size, augment):
    sample = ProceduralFacades(2, size=size, augment=augment)[1]
    assert sorted(sample) == ["source", "target"]
    for image in sample.values():
        assert image.shape == (3, size, size)
        assert image.dtype == torch.float32
        assert -1 <= image.min() < image.max() <= 1


def test_the_source_has_the_colours_of_the_labels_and_the_target_more():
    sample = ProceduralFacades(1, size=64, augment=False)[0]
    colours = {name: set(to_image(image).get_flattened_data()) for name, image in sample.items()}
    assert colours["source"] <= set(LABELS.values())
    assert len(colours["source"]) > 2
    assert len(colours["target"]) > 100


def test_without_augmentation_a_sample_is_the_building_itself():
    photo, labels = draw_facade(3, 1, 32)
    sample = ProceduralFacades(2, size=32, seed=3, augment=False).draw(1, epoch=9)
    assert (torch.from_numpy(photo).permute(2, 0, 1) / 127.5 - 1 - sample["target"]).abs().max() < 1e-6
    assert (torch.from_numpy(labels).permute(2, 0, 1) / 127.5 - 1 - sample["source"]).abs().max() < 1e-6


def test_samples_do_not_depend_on_what_was_drawn_before():
    forward, backward = ProceduralFacades(3, size=16), ProceduralFacades(3, size=16)
    assert all(equal(forward.draw(i, 2), backward.draw(i, 2)) for i in (0, 1, 2, 0))
    fresh = ProceduralFacades(3, size=16)
    assert equal(fresh.draw(2, 5), backward.draw(2, 5))


def test_epochs_cut_other_windows_of_the_same_building():
    data = ProceduralFacades(1, size=32)
    different = {data.draw(0, epoch)["source"].numpy().tobytes() for epoch in range(8)}
    assert len(different) > 4
    assert equal(data[0], data.draw(0, epoch=0))
    still = ProceduralFacades(1, size=32, augment=False)
    assert equal(still.draw(0, 0), still.draw(0, 1))


def test_buildings_differ_by_index_and_by_seed():
    buildings = [ProceduralFacades(3, size=16, seed=seed, augment=False)[i] for seed in (0, 1) for i in range(3)]
    assert len({b["target"].numpy().tobytes() for b in buildings}) == 6


@pytest.mark.parametrize("weather", ["clear", "golden", "overcast", "dusk"])
def test_a_weather_changes_the_pictures_and_not_the_label_maps(weather):
    drawn, other = (ProceduralFacades(9, size=32, augment=False, weather=each) for each in (None, weather))
    pairs = [(drawn[i], other[i]) for i in range(9)]
    assert all(torch.equal(one["source"], two["source"]) for one, two in pairs)
    assert 4 < sum(not torch.equal(one["target"], two["target"]) for one, two in pairs) <= 9


def test_in_one_weather_all_buildings_have_one_sky_and_the_light_from_the_left(monkeypatch):
    suns = []
    monkeypatch.setattr(plan, "Canvas", lambda side, sun, **more: suns.append(sun) or Canvas(side, sun, **more))

    def spread(weather):
        skies = []
        for i in range(12):
            photo, labels = draw_facade(0, i, 32, weather=weather)
            skies.append(photo[(labels == LABELS["sky"]).all(-1)].mean(0))
        return np.std(skies, axis=0).max()

    assert spread("clear") < 0.7 * spread(None)
    assert (set(suns[:12]), set(suns[12:])) == ({1}, {-1, 1})


def test_iteration_ends():
    data = ProceduralFacades(3, size=16)
    assert len(data) == 3
    assert len(list(data)) == 3


@pytest.mark.parametrize("index", [3, -1])
def test_an_index_outside(index):
    with pytest.raises(IndexError) as caught:
        ProceduralFacades(3, size=16)[index]
    assert str(caught.value) == f"ProceduralFacades has 3 samples, no index {index}"


def test_repr():
    assert repr(ProceduralFacades(7, size=16, augment=False)).endswith(", labels to pictures, resized to 16x16")
    assert repr(ProceduralFacades(7, size=16, seed=2, weather="dusk")).startswith(
        "7 procedural facades of seed 2 in dusk weather, labels to pictures, as "
    )
    assert repr(ProceduralFacades(7, size=16, seed=2)) == (
        "7 procedural facades of seed 2, labels to pictures, as Jitter(size=16, load_size=None, flip=True)"
    )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"length": 0}, "ProceduralFacades: length must be a whole number >= 1, got 0."),
        ({"length": 1, "size": 15}, "ProceduralFacades: size must be a whole number >= 16, got 15."),
        ({"length": 1, "seed": -1}, "ProceduralFacades: seed must be a whole number >= 0, got -1."),
        (
            {"length": 1, "weather": "cleer"},
            "ProceduralFacades: weather='cleer' is not one of ['clear', 'dusk', 'golden', 'overcast']. Did you mean "
            "'clear'?",
        ),
    ],
)
def test_arguments_are_checked(settings, text):
    with pytest.raises(ArgumentError) as caught:
        ProceduralFacades(**settings)
    assert str(caught.value) == text
