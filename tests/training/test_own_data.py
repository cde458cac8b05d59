"""Data sets and networks of the user's own that a `Trainer` cannot use as they are, or takes with more than tensors."""

import pytest
import torch
from torch.utils.data import DataLoader

from imtrans import PatchDiscriminator, Pix2Pix, Trainer, UNetGenerator, evaluate
from imtrans.errors import ArgumentError, DataError

QUIET = {"device": "cpu", "precision": "fp32", "progress": False, "epochs": 1, "out": None}


def method():
    return Pix2Pix(UNetGenerator(base_channels=4, depth=2), PatchDiscriminator(base_channels=4, n_layers=1))


def image():
    return torch.rand(3, 16, 16) * 2 - 1


def pairs(count=2, **more):
    return [{"source": image(), "target": image(), **more} for _ in range(count)]


def test_strings_and_numbers_beside_the_tensors_are_carried_along(tmp_path):
    data = pairs(path="a.png", number=3)
    settings = {**QUIET, "out": tmp_path / "run", "sample_every": 1, "batch_size": 2, "log_every": 1}
    found = Trainer(method(), data, val_data=data, **settings).fit()
    assert set(found["eval"]) == {"l1", "psnr", "swd"}
    assert (tmp_path / "run" / "samples" / "000001.png").exists()
    assert evaluate(method().generator, data, metrics=["l1"])["l1"] > 0


def test_a_nan_in_such_a_batch_is_still_found(tmp_path):
    data = pairs(path="a.png")
    data[0]["source"][0] = float("nan")
    with pytest.raises(RuntimeError, match="First was the batch's source"):
        Trainer(method(), data, **{**QUIET, "out": tmp_path / "run"}).fit()


def test_tuples_are_refused():
    trainer = Trainer(method(), [(image(), image())], **QUIET)
    with pytest.raises(DataError, match=r"a sample must be a dict of tensors, got a tuple\. Return a dict in"):
        trainer.fit()
    with pytest.raises(DataError, match=r"Trainer: a sample must be a dict of tensors, got a list\."):
        trainer.train_step([image(), image()])


def test_samples_with_other_keys_are_refused_with_the_names_to_give_them():
    data = [{"A": image(), "B": image(), "A_paths": "a.png"}]
    message = (
        "a sample needs 'source', 'target', and the data set gives 'A', 'B', 'A_paths'. Rename them in the data set: "
        "{'source': sample['A'], 'target': sample['B']}."
    )
    with pytest.raises(DataError) as caught:
        Trainer(method(), data, **QUIET).fit()
    assert str(caught.value) == f"Trainer: {message}"
    with pytest.raises(DataError) as caught:
        evaluate(method().generator, data)
    assert str(caught.value) == f"evaluate: {message}"
    with pytest.raises(DataError, match=r"needs 'target', and the data set gives 'source'\. Add it in the data set\."):
        Trainer(method(), [{"source": image()}], **QUIET).fit()


def test_a_key_error_of_the_users_own_stays_as_it_is():
    class Own(Pix2Pix):
        def step(self, batch, optimizers):
            return super().step(batch["weather"], optimizers)

    own = Own(UNetGenerator(base_channels=4, depth=2), None)
    with pytest.raises(KeyError, match="weather"):
        Trainer(own, pairs(), **QUIET).fit()


@pytest.mark.parametrize("argument", ["train_data", "val_data"])
def test_a_data_loader_is_refused_with_the_arguments_to_give(argument):
    loader = DataLoader(pairs(), batch_size=4)
    with pytest.raises(ArgumentError) as caught:
        Trainer(method(), **{"train_data": pairs(), argument: loader}, **QUIET)
    assert str(caught.value) == (
        f"Trainer: {argument} is a DataLoader, and Trainer makes batches itself. Pass the data set of the loader and "
        f"its batch size: {argument}=loader.dataset, batch_size=4. Its sampler and collate_fn are not used."
    )
    with pytest.raises(ArgumentError, match="evaluate: data is a DataLoader"):
        evaluate(method().generator, loader)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_network_in_half_precision_is_not_trained(dtype):
    own = method()
    own.generator.to(dtype)
    with pytest.raises(ArgumentError) as caught:
        Trainer(own, pairs(), **QUIET)
    assert str(caught.value) == (
        f"Trainer: generator.encoder.0.conv.weight is {dtype}, which is too coarse to add the updates of Adam to. Call "
        ".float() on the network, and set precision= to compute in half precision."
    )
    own.generator.requires_grad_(False)
    Trainer(own, pairs(), **QUIET)


@pytest.mark.parametrize("argument", ["train_data", "val_data"])
def test_data_without_a_length_is_refused(argument):
    data = {"train_data": pairs(), argument: (sample for sample in pairs())}
    with pytest.raises(ArgumentError) as caught:
        Trainer(Pix2Pix(UNetGenerator(base_channels=4, depth=3), None), **data, out=None, device="cpu")
    assert str(caught.value) == (
        f"Trainer: {argument} is a generator, which has no length. Give a data set with __len__ and __getitem__, or a "
        "list of its samples."
    )


@pytest.mark.parametrize("name", ["on_log", "on_step_end"])
def test_a_function_that_cannot_be_called_is_refused_before_the_run(name):
    with pytest.raises(ArgumentError, match=f"Trainer: {name} must be a function, got 'print'"):
        Trainer(method(), pairs(), **QUIET, **{name: "print"})
