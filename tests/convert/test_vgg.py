"""VGG19 from a file of torchvision's: the layers here are made by the table of the paper, with random weights."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from imtrans.convert import load_vgg19
from imtrans.errors import SavedModelError

TABLE_E = [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"]


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(0)
    layers, channels = [], 3
    for entry in TABLE_E:
        if entry == "M":
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        else:
            layers += [nn.Conv2d(channels, entry, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
            channels = entry
    return nn.Sequential(*layers).eval()


def saved(path, state):
    state = {**state, "classifier.0.weight": torch.zeros(2, 3)}
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


@pytest.mark.parametrize("file", ["vgg19.pth", "vgg19.safetensors"])
@pytest.mark.parametrize("prefix", ["features.", ""])
@torch.no_grad()
def test_the_outputs_are_those_of_torchvisions_layers(reference, tmp_path, file, prefix):
    path = saved(tmp_path / file, {f"{prefix}{key}": tensor for key, tensor in reference.state_dict().items()})
    network = load_vgg19(str(path))
    image = torch.rand(1, 3, 32, 32)
    assert torch.equal(network(image), reference(image))
    assert torch.equal(network[:29](image), reference[:29](image))
    assert not network.training


def test_another_file_is_refused(reference, tmp_path):
    state = {f"features.{key}": tensor for key, tensor in reference.state_dict().items()}
    del state["features.34.bias"]
    state["features.0.weight"] = torch.zeros(64, 1, 3, 3)
    give = "Give the state dict of torchvision's vgg19, such as vgg19-dcbb9e9d.pth."
    for file in ("a.pth", "a.safetensors"):
        with pytest.raises(SavedModelError) as caught:
            load_vgg19(saved(tmp_path / file, state))
        assert str(caught.value) == (
            f"{tmp_path / file} holds no VGG19: it lacks features.0.weight, features.34.bias, or has another shape "
            f"there. {give}"
        )
        (tmp_path / file).write_bytes(b"damaged")
        with pytest.raises(SavedModelError, match=r"is not a state dict of plain|is damaged or not a safetensors file"):
            load_vgg19(tmp_path / file)
        with pytest.raises(SavedModelError, match=r"cannot be read: No such file or directory\. Check the path\."):
            load_vgg19(tmp_path / f"none{file}")
    torch.save([1], tmp_path / "list.pth")
    with pytest.raises(SavedModelError) as caught:
        load_vgg19(tmp_path / "list.pth")
    assert str(caught.value).endswith(f"holds a list, not a dict of tensors. {give}")
