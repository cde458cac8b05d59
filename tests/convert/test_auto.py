import json

import pytest
import torch

import imtrans
from imtrans import PatchDiscriminator, load_pretrained
from imtrans.convert.auto import CLASSES
from imtrans.errors import SavedModelError
from imtrans.hub.pretrained import Pretrained


def test_every_network_of_the_library_can_be_loaded():
    values = [getattr(imtrans, name) for name in imtrans.__all__]
    public = [value for value in values if isinstance(value, type) and issubclass(value, Pretrained)]
    assert len(public) == 7
    assert set(CLASSES.values()) == set(public)
    assert all(name == cls.__name__ for name, cls in CLASSES.items())


def test_it_picks_the_class_and_loads_the_weights(tmp_path):
    network = PatchDiscriminator(base_channels=2)
    network.inference_mode = "batch_stats"
    network.save_pretrained(tmp_path)
    loaded = load_pretrained(str(tmp_path))
    assert type(loaded) is PatchDiscriminator
    assert not loaded.training
    assert loaded.inference_mode == "batch_stats"
    images = torch.rand(1, 6, 32, 32)
    assert torch.equal(loaded(images), network.eval()(images))


def test_a_class_that_does_not_exist_is_refused_with_a_hint(tmp_path):
    PatchDiscriminator(base_channels=2).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "class": "PatchDiscriminater"}))
    with pytest.raises(SavedModelError) as caught:
        load_pretrained(tmp_path)
    assert str(caught.value) == (
        f"config.json of {tmp_path} names the class 'PatchDiscriminater', which is not one of UNetGenerator, "
        "ResnetGenerator, LocalEnhancer, HugGANGenerator, PatchDiscriminator, PixelDiscriminator, "
        "MultiscaleDiscriminator. Did you mean 'PatchDiscriminator'? Load a class of your own with its from_pretrained."
    )


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(SavedModelError, match=r"is not a saved model: config\.json cannot be read"):
        load_pretrained(tmp_path)
