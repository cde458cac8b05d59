"""The authors' server on 127.0.0.1, with a small network in the real layout and format.

In a test, ask for the fixtures::

    def test_pull(site, home):
        load_pretrained(FACADES)
        assert site.paths == [PATHS[FACADES]]
"""

import io
import pickle
import types
from collections import OrderedDict

import pytest
import torch
from file_server import serving

from imtrans import ResnetGenerator, UNetGenerator
from imtrans.convert import published
from imtrans.convert.junyanz import reference_names

FACADES, ZEBRA = "junyanz/pix2pix/facades_label2photo", "junyanz/cyclegan/horse2zebra"
NETWORKS = {
    FACADES: lambda: UNetGenerator.preset("junyanz/unet_256", base_channels=2),
    ZEBRA: lambda: ResnetGenerator.preset("junyanz/resnet_9blocks", base_channels=2),
}
PATHS = {
    FACADES: "/pix2pix/models-pytorch/facades_label2photo.pth",
    ZEBRA: "/cyclegan/pretrained_models/horse2zebra.pth",
}


class Python2Pickler(pickle._Pickler):
    """Writes strings and ordered dicts as the pickle of Python 2, in which the first of the files were saved."""

    def save_str(self, text):
        self.write(pickle.SHORT_BINSTRING + bytes([len(text)]) + text.encode())
        self.memoize(text)

    def reducer_override(self, value):
        if type(value) is not OrderedDict:
            return NotImplemented
        return OrderedDict, ([list(pair) for pair in value.items()],), *([vars(value)] if vars(value) else [])

    dispatch = {**pickle._Pickler.dispatch, str: save_str}  # noqa: RUF012


def dump(value, file, protocol):
    Python2Pickler(file, protocol).dump(value)


PYTHON2 = types.ModuleType("python2")
PYTHON2.Pickler, PYTHON2.dump = Python2Pickler, dump
FORMATS = {
    "zip": {},
    "before 1.6": {"_use_new_zipfile_serialization": False},
    "Python 2": {"_use_new_zipfile_serialization": False, "pickle_module": PYTHON2},
}


def checkpoint(network, save=FORMATS["before 1.6"], *, half=False):
    """The file that the authors would have published of `network`."""
    names, ours = reference_names(network), network.state_dict()
    state = OrderedDict()
    for key, value in ours.items():
        layer, _, kind = key.rpartition(".")
        state[f"{names[layer]}.{kind}"] = value.half() if half and value.is_floating_point() else value
    for name, module in network.named_modules():
        if isinstance(module, torch.nn.InstanceNorm2d):
            state[f"{names[name]}.running_mean"] = torch.zeros(module.num_features)
            state[f"{names[name]}.running_var"] = torch.ones(module.num_features)
            state[f"{names[name]}.num_batches_tracked"] = torch.tensor(0)
    state._metadata = OrderedDict([("", {"version": 1}), ("model", {"version": 1})])
    file = io.BytesIO()
    torch.save(state, file, **save)
    return file.getvalue()


@pytest.fixture(name="home")
def home_fixture(tmp_path, monkeypatch):
    """An empty cache folder, which does not exist yet."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("IMTRANS_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(name="site")
def site_fixture(home, monkeypatch):
    """The server, which answers each request with a generator of facades."""
    with serving(content=checkpoint(NETWORKS[FACADES]())) as site:
        monkeypatch.setattr(published, "SERVER", site.url.removesuffix("/a.bin"))
        yield site
