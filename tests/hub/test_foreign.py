"""Generators that are not ours, and ours in PyTorch's wrappers: trained, saved, and told how to load."""

import json

import pytest
import torch
from loopback_hub import hub_fixture  # noqa: F401
from torch import nn
from torch.optim.swa_utils import AveragedModel

from imtrans import (
    PatchDiscriminator,
    Pix2Pix,
    ProceduralFacades,
    Trainer,
    Translator,
    UNetGenerator,
    evaluate,
    load_pretrained,
    translate,
)
from imtrans.errors import SavedModelError
from imtrans.hub.foreign import describe

DATA = ProceduralFacades(2, size=16, augment=False)


class Theirs(nn.Module):
    """A generator of another library."""

    def __init__(self, width=4):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.Conv2d(width, 3, 1))

    def forward(self, source):
        return self.layers(source)


class WithState(Theirs):
    def get_extra_state(self):
        return "a note"


def compiled(network):
    return torch.compile(network, backend="eager")


def unet():
    torch.manual_seed(0)
    return UNetGenerator(base_channels=4, depth=3)


def run(generator, out, **settings):
    method = Pix2Pix(generator, PatchDiscriminator(base_channels=2, n_layers=1))
    return Trainer(
        method, DATA, val_data=DATA, out=out, epochs=1, device="cpu", precision="fp32", progress=False, **settings
    )


def fit(generator, out):
    with pytest.warns(UserWarning, match="not a network of imtrans") as caught:
        run(generator, out).fit()
    return [str(warning.message) for warning in caught]


WRAPPERS = [nn.DataParallel, compiled, AveragedModel, lambda network: nn.DataParallel(compiled(network))]


@pytest.mark.parametrize("wrap", WRAPPERS, ids=["data parallel", "compiled", "averaged", "both"])
def test_a_wrapped_generator_is_saved_as_what_it_wraps(tmp_path, wrap):
    torch._dynamo.reset()
    wrapped = wrap(unet())
    trainer = run(wrapped, tmp_path)
    trainer.fit()
    loaded = load_pretrained(tmp_path / "generator")
    assert loaded.inference_mode == trainer.validation["best"]
    assert json.loads((tmp_path / "config.json").read_text())["networks"]["generator"]["class"] == "UNetGenerator"
    image = torch.rand(3, 20, 16) * 2 - 1
    expected = translate(loaded, image)
    torch.testing.assert_close(translate(wrapped, image), expected)
    torch.testing.assert_close(translate(wrapped, image, tile=16), translate(loaded, image, tile=16))
    torch.testing.assert_close(Translator(wrapped)(image), Translator(loaded)(image))
    assert evaluate(wrapped, DATA, metrics=("l1",))["l1"] == pytest.approx(
        evaluate(loaded, DATA, metrics=("l1",))["l1"], rel=1e-4
    )


def test_a_wrapped_generator_keeps_its_colours():
    network = UNetGenerator(1, 2, base_channels=2, depth=2)
    network.colours = "lab"
    assert translate(nn.DataParallel(network), torch.rand(3, 8, 8)).shape == (3, 8, 8)


def test_another_generator_is_saved_with_the_code_that_loads_it(tmp_path, monkeypatch):
    torch.manual_seed(0)
    generator = Theirs()
    messages = fit(nn.DataParallel(generator), tmp_path)
    assert messages == [
        "generator is a Theirs, not a network of imtrans: load_pretrained cannot build it. "
        f"{tmp_path / 'generator'} will have its weights, and the code that loads them in config.json. Keep the "
        "arguments that it was built with."
    ]
    folder = tmp_path / "generator"
    config = json.loads((folder / "config.json").read_text())
    assert (config["library"], config["module"], config["class"]) == ("imtrans", __name__, "Theirs")
    assert config["inference_mode"] in ("eval", "batch_stats", "paper")
    code = "\n".join(config["how_to_load"])
    card = (folder / "README.md").read_text()
    assert code in card
    assert f"A `{__name__}.Theirs` with " in card
    monkeypatch.chdir(folder)
    names = {}
    exec(code.replace("Theirs(...)", "Theirs()"), names)
    images = torch.rand(1, 3, 8, 8)
    assert torch.equal(names["network"](images), generator.eval()(images))


def test_loading_it_tells_the_class_and_the_code_and_imports_nothing(tmp_path):
    fit(Theirs(), tmp_path)
    folder = tmp_path / "generator"
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "module": "no_such_module"}))
    for load in (load_pretrained, UNetGenerator.from_pretrained):
        with pytest.raises(SavedModelError) as caught:
            load(folder)
        assert str(caught.value) == (
            f"{folder} holds a no_such_module.Theirs, which is not a network of imtrans, and no code is imported for "
            "it. Build it with the arguments that it had, and load its weights: from safetensors.torch import "
            "load_file; from no_such_module import Theirs; network = Theirs(...); "
            f'network.load_state_dict(load_file("{folder / "model.safetensors"}")); network.eval()'
        )


@pytest.mark.parametrize("module", [3, "a; import os", "", "a" * 201])
def test_a_file_that_names_no_class_is_refused(tmp_path, module):
    (tmp_path / "config.json").write_text(json.dumps({"library": "imtrans", "module": module, "class": "A"}))
    with pytest.raises(SavedModelError, match=r"does not name a class: module=.* Fetch it again\."):
        load_pretrained(tmp_path)


def test_a_class_of_the_training_script_is_to_be_defined_again():
    class Inner(Theirs):
        pass

    lines = describe(Inner())["how_to_load"]
    assert lines[1] == f"# define {Inner.__qualname__} as in the training script"
    assert lines[2].startswith("network = Inner(...)")


def test_a_state_that_is_not_tensors_is_told_at_the_start(tmp_path):
    message = "WithState: its state dict has an entry '_extra_state' that is not a tensor"
    with pytest.raises(SavedModelError, match=message):
        describe(WithState())
    with pytest.warns(UserWarning, match=f"{message}.* The checkpoints in .* still hold its weights"):
        run(WithState(), tmp_path).folder.check_networks(run(WithState(), None).method.translations())


def test_another_generator_is_pushed(hub):
    trainer = run(Theirs(), None)
    trainer.push_to_hub("user/repo", token=hub.token)
    assert sorted(hub.files("user/repo")) == [
        "README.md", "config.json", "discriminator/config.json", "discriminator/model.safetensors",
        "model.safetensors", "samples.png", "source.png",
    ]  # fmt: skip
    with pytest.raises(SavedModelError, match=r"user/repo holds a .*Theirs, which is not a network of imtrans"):
        load_pretrained("user/repo")
