import warnings
from copy import deepcopy

import pytest
import torch
from tape import Tape
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import SGD, Adam

from imtrans import PatchDiscriminator, Pix2Pix, Trainer, UNetGenerator
from imtrans.errors import ArgumentError, TrainingError
from imtrans.methods.optimizer_state import make_capturable, set_learning_rates
from imtrans.training.cuda_graph import WARM_UP, CapturedStep, check_compile, prepare

CPU = torch.device("cpu")


class Run:
    """A method with everything that has a state, and its step in a precision."""

    def __init__(self, precision="fp32", gan_loss="vanilla", *, sharp=False):
        torch.manual_seed(3)
        norm = "instance" if gan_loss == "wgangp" else "batch"
        generator = UNetGenerator(base_channels=4, depth=3, upsample="nearest" if sharp else "deconv")
        discriminator = PatchDiscriminator(6, base_channels=4, n_layers=1, norm=norm, spectral_norm=sharp)
        weight = 10.0 if sharp else 0.0
        self.method = Pix2Pix(generator, discriminator, pool_size=3, gan_loss=gan_loss, feature_weight=weight).train()
        self.optimizers = self.method.make_optimizers(0.01, (0.5, 0.999))
        assert make_capturable(self.optimizers, CPU) is None
        self.base = [[0.01]] * 2
        self.precision = precision

    def step(self, batch):
        with torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16"):
            return self.method.step(batch, self.optimizers)

    def state(self):
        of_optimizers = [t for o in self.optimizers.values() for s in o.state.values() for t in s.values()]
        pool = [t for name, t in self.method.pool.get_extra_state().items() if name != "seed"]
        return [*self.method.parameters(), *self.method.buffers(), *of_optimizers, *pool]

    def train(self, step, batches):
        """Half way, the learning rate changes."""
        torch.manual_seed(5)
        losses = []
        for i, batch in enumerate(batches):
            set_learning_rates(self.optimizers, self.base, 1.0 if i < len(batches) // 2 else 0.25)
            losses.append(step(batch))
        return losses


def random_batches(count, samples=2, size=16):
    made = torch.Generator().manual_seed(count)
    shape = (count, samples, 3, size, size)
    source, target = (torch.rand(shape, generator=made) * 2 - 1 for _ in range(2))
    return [{"source": s, "target": t} for s, t in zip(source, target, strict=True)]


def check_equal(one, other):
    assert len(one) == len(other)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("gan_loss", ["vanilla", "lsgan", "hinge", "wgangp"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_recorded_step_trains_bit_for_bit_like_the_plain_one(precision, gan_loss):
    """Nothing of a step is lost by a recording: no number that Python holds, no random draw, no new rate."""
    plain, captured = Run(precision, gan_loss), Run(precision, gan_loss)
    tape = Tape(captured.state)
    batches = random_batches(12)
    expected = plain.train(plain.step, batches)
    found = captured.train(CapturedStep(captured.step, tape, insist=True), batches)
    assert (tape.plain, tape.recorded, tape.replayed) == (WARM_UP, 1, len(batches) - WARM_UP)
    check_equal([t for losses in found for t in losses.values()], [t for losses in expected for t in losses.values()])
    check_equal(captured.state(), plain.state())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_folded_kernels_and_spectral_norms_are_recorded(precision):
    plain, captured = Run(precision, sharp=True), Run(precision, sharp=True)
    tape = Tape(captured.state)
    batches = random_batches(8, size=32)  # the last map is 16x16: folded
    plain.train(plain.step, batches)
    captured.train(CapturedStep(captured.step, tape, insist=True), batches)
    assert (tape.recorded, tape.replayed) == (1, len(batches) - WARM_UP)
    check_equal(captured.state(), plain.state())


def test_the_tape_does_not_repeat_what_python_knew():
    """Were a rate a plain number, the tape would show it."""
    plain, captured = Run(), Run()
    for optimizer in captured.optimizers.values():
        for group in optimizer.param_groups:
            group["lr"] = float(group["lr"])
    batches = random_batches(10)
    plain.train(plain.step, batches)
    captured.train(CapturedStep(captured.step, Tape(captured.state), insist=True), batches)
    assert not torch.equal(
        plain.method.generator.encoder[0].conv.weight, captured.method.generator.encoder[0].conv.weight
    )


def test_a_smaller_last_batch_runs_plainly_and_without_a_word():
    plain, captured = Run(), Run()
    tape = Tape(captured.state)
    epoch = [*random_batches(3), *random_batches(1, samples=1)]
    batches = 3 * epoch
    plain.train(plain.step, batches)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        captured.train(CapturedStep(captured.step, tape, insist=False), batches)
    assert (tape.plain, tape.recorded, tape.replayed) == (WARM_UP + 3, 1, 6)
    check_equal(captured.state(), plain.state())


def test_strings_beside_the_tensors_do_not_matter_to_a_recording():
    plain, captured = Run(), Run()
    tape = Tape(captured.state)
    batches = random_batches(8)
    plain.train(plain.step, batches)
    named = [{**batch, "path": [f"{i}.png"] * 2} for i, batch in enumerate(batches)]
    captured.train(CapturedStep(captured.step, tape, insist=True), named)
    assert (tape.recorded, tape.replayed) == (1, len(batches) - WARM_UP)
    check_equal(captured.state(), plain.state())


def test_a_step_that_reads_a_string_runs_uncaptured():
    run, seen = Run(), []

    def step(batch):
        seen.append(batch["path"])
        return run.step(batch)

    captured = CapturedStep(step, Tape(run.state), insist=False)
    named = [{**batch, "path": str(i)} for i, batch in enumerate(random_batches(6))]
    with pytest.warns(UserWarning, match="because it reads the batch's 'path', which is not a tensor"):
        run.train(captured, named)
    assert seen == [str(i) for i in range(6)]


def test_many_shapes_are_told_once():
    run = Run()
    step = CapturedStep(run.step, Tape(run.state), insist=False)
    batches = [random_batches(1, samples)[0] for samples in (1, 2, 3, 4, 5)]
    with pytest.warns(UserWarning, match="shapes so far") as caught:
        run.train(step, batches)
    assert [str(warning.message) for warning in caught] == [
        "the batches have 3 shapes so far. Only the first that comes 4 times is captured; the others run "
        "uncaptured, which is slower. Give images of one size."
    ]


def test_losses_are_not_those_of_a_later_step():
    run = Run()
    step = CapturedStep(run.step, Tape(run.state), insist=True)
    batches = random_batches(6)
    first = run.train(step, batches[:5])
    values = {name: loss.clone() for name, loss in first[-1].items()}
    step(batches[5])
    assert all(torch.equal(first[-1][name], value) for name, value in values.items())


def reads(step):
    def reading(batch):
        losses = step(batch)
        losses["G_l1"].item()
        return losses

    return reading


WHY = "it cannot be captured, because a value was read."


def test_what_cannot_be_recorded_runs_plainly_and_says_so_once():
    plain, captured = Run(), Run()
    tape = Tape(captured.state)
    batches = random_batches(8)
    plain.train(plain.step, batches)
    with pytest.warns(UserWarning, match="runs uncaptured") as caught:
        captured.train(CapturedStep(reads(captured.step), tape, insist=False), batches)
    assert [str(w.message) for w in caught] == [f"the step runs uncaptured, which is slower: {WHY}"]
    assert (tape.plain, tape.recorded, tape.replayed) == (8, 1, 0)
    check_equal(captured.state(), plain.state())


def test_what_waits_is_not_recorded():
    run = Run()
    tape = Tape(run.state, waits=["loop.py, line 3"])
    with pytest.warns(UserWarning, match="runs uncaptured") as caught:
        run.train(CapturedStep(run.step, tape, insist=False), random_batches(8))
    assert str(caught[0].message).endswith("because it waits for the device (loop.py, line 3).")
    assert (tape.plain, tape.recorded, tape.replayed) == (8, 0, 0)


def test_who_insists_gets_an_error():
    run = Run()
    with pytest.raises(TrainingError) as caught:
        run.train(CapturedStep(reads(run.step), Tape(run.state), insist=True), random_batches(8))
    assert str(caught.value) == (
        "compile=True, but the step cannot be captured: a value was read. Use compile='auto', which runs it uncaptured."
    )


def test_optimizers_that_keep_counters_on_the_host():
    run = Run()
    run.optimizers["discriminator"] = SGD(run.method.discriminator.parameters(), lr=0.1)
    why = "the optimizer 'discriminator' (SGD) has no option 'capturable'"
    card = torch.device("cuda", 0)
    with pytest.raises(TrainingError) as caught:
        prepare(run.step, run.optimizers, card, compile=True)
    assert why in str(caught.value)
    with pytest.warns(UserWarning, match="runs uncaptured") as warned:
        assert prepare(run.step, run.optimizers, card, compile="auto") == run.step
    assert why in str(warned[0].message)


@pytest.mark.parametrize("compiled", ["auto", False])
def test_a_cpu_runs_the_step_as_it_is(compiled):
    run = Run()
    assert prepare(run.step, run.optimizers, CPU, compile=compiled) == run.step


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "Trainer: compile=True captures the step as a CUDA graph, and the device is cpu. Use 'auto'."),
        ("yes", "Trainer: compile must be 'auto', True or False, got 'yes'."),
        (1, "Trainer: compile must be 'auto', True or False, got 1."),
        (None, "Trainer: compile must be 'auto', True or False, got None."),
    ],
)
def test_compile_is_checked(value, text):
    with pytest.raises(ArgumentError) as caught:
        check_compile("Trainer", value, CPU)
    assert str(caught.value) == text


@pytest.mark.parametrize("sharp", [False, True])
@pytest.mark.parametrize("gan_loss", ["vanilla", "lsgan", "hinge", "wgangp"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_step_branches_on_no_value(precision, gan_loss, sharp):
    """Fake tensors have no values: what would wait for the device, or branch on what is there, raises."""
    with FakeTensorMode():
        run = Run(precision, gan_loss, sharp=sharp)
        assert all(group["fused"] for o in run.optimizers.values() for group in o.param_groups)
        for _ in range(2):
            losses = run.step({name: torch.rand(2, 3, 32, 32) for name in ("source", "target")})
        with pytest.raises(Exception, match="_local_scalar_dense"):
            losses["G_l1"].item()


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_captured_run_is_the_plain_run_on_a_card(precision):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA card on this machine")
    base = Run()
    weights = {}
    for compiled in (False, True):
        method = deepcopy(base.method)
        trainer = Trainer(method, out=None, lr=2e-4, device="cuda", precision=precision, compile=compiled)
        torch.manual_seed(5)
        for batch in random_batches(12):
            trainer.train_step(batch)
        weights[compiled] = [p.detach().cpu() for p in method.parameters()]
    for captured, plain in zip(weights[True], weights[False], strict=True):
        torch.testing.assert_close(captured, plain, atol=2e-3, rtol=1e-2)


def test_plain_adam_can_be_captured_too():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizers = {"one": Adam([{"params": [parameter], "lr": 0.5}], lr=0.1)}
    assert make_capturable(optimizers, CPU) is None
    (group,) = optimizers["one"].param_groups
    assert group["capturable"]
    assert group["lr"].item() == 0.5
    same = group["lr"]
    set_learning_rates(optimizers, [[0.5]], 0.5)
    assert group["lr"] is same
    assert same.item() == 0.25


def test_several_processes_run_the_step_plainly():
    card = torch.device("cuda", 0)
    assert check_compile("Trainer", "auto", card, processes=2) is False
    with pytest.raises(ArgumentError) as caught:
        check_compile("Trainer", True, card, processes=2)
    assert str(caught.value) == ("Trainer: compile=True is for one process, and this run has 2. Use 'auto'.")
