import warnings
from contextlib import contextmanager
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from processes import together
from tape import Tape
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.optim import SGD, Adam

from imtrans import PatchDiscriminator, Pix2Pix, Trainer, UNetGenerator
from imtrans.distributed.data_parallel import shard_range
from imtrans.distributed.process_group import init_process_group
from imtrans.errors import ArgumentError, TrainingError
from imtrans.methods.optimizer_state import make_capturable, set_learning_rates
from imtrans.runtime import random_state
from imtrans.training.cuda_graph import WARM_UP, CapturedStep, CudaGraphs, check_compile, prepare
from imtrans.training.train_step import TrainStep

CPU = torch.device("cpu")


class Run:
    """A method with everything that has a state, and its step in a precision."""

    def __init__(self, precision="fp32", gan_loss="vanilla", *, sharp=False, pool_size=3):
        torch.manual_seed(3)
        norm = "instance" if gan_loss == "wgangp" else "batch"
        generator = UNetGenerator(base_channels=4, depth=3, upsample="nearest" if sharp else "deconv")
        discriminator = PatchDiscriminator(6, base_channels=4, n_layers=1, norm=norm, spectral_norm=sharp)
        weight = 10.0 if sharp else 0.0
        settings = {"pool_size": pool_size, "gan_loss": gan_loss, "feature_weight": weight}
        self.method = Pix2Pix(generator, discriminator, **settings).train()
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


# A captured run beside a plain one


class NoReplay:
    """A recorder whose replays do nothing."""

    def __init__(self, recorder):
        self.run_on_stream, self.detect_syncs, self._record = (
            recorder.run_on_stream,
            recorder.detect_syncs,
            recorder.record,
        )

    def record(self, step, batch):
        _, losses = self._record(step, batch)
        return lambda: None, losses


def run_of_trainer(device, precision, *, captured, wrap=lambda recorder: recorder):
    """Train 12 steps, and change the rate after 8; return what a run changes, by name."""
    method = Run().method
    trainer = Trainer(method, out=None, lr=0.01, device=device, precision=precision, compile="auto")
    step = trainer._train_step
    if device.type == "cpu":
        assert make_capturable(step.optimizers, device) is None
        of_optimizers = step.optimizers.values()
        pool = method.pool.get_extra_state
        tape = Tape(
            lambda: [
                *method.parameters(),
                *method.buffers(),
                *(t for o in of_optimizers for s in o.state.values() for t in s.values()),
                *(pool()[name] for name in ("images", "seen")),
            ]
        )
        step._run = CapturedStep(step._run_uncaptured, tape, insist=True)
    step._run._recorder = wrap(step._run._recorder)
    torch.manual_seed(5)
    found = {}
    for i, batch in enumerate(random_batches(12)):
        step.set_lr_factor(1.0 if i < 8 else 0.25)
        found[f"losses of step {i}"] = [*step(batch, capture=captured).values()]
    assert (step._run._recorded is not None) == captured
    found["weights"] = [*method.parameters()]
    found["batches of norms"] = [b for name, b in method.named_buffers() if name.endswith("num_batches_tracked")]
    found["steps of Adam"] = [s["step"] for o in step.optimizers.values() for s in o.state.values()]
    found["images of the pool"] = [method.pool.get_extra_state()["seen"]]
    found["random state"] = [random_state(trainer.device)[device.type]]
    return {name: [t.detach().cpu().clone() for t in tensors] for name, tensors in found.items()}


EXACT = ("batches of norms", "steps of Adam", "images of the pool", "random state")


def differences(one, other):
    """What differs between two runs by more than rounding: an update of Adam changes weights by about 0.01."""
    assert one.keys() == other.keys()
    return [
        name
        for name, tensors in one.items()
        if not all(
            torch.equal(a, b) if name in EXACT else torch.allclose(a, b, atol=1e-3, rtol=1e-2)
            for a, b in zip(tensors, other[name], strict=True)
        )
    ]


@pytest.mark.filterwarnings("ignore:.*capturable=True")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_captured_run_is_the_plain_run(precision, device):
    plain = run_of_trainer(device, precision, captured=False)
    assert differences(plain, run_of_trainer(device, precision, captured=True)) == []


@pytest.mark.filterwarnings("ignore:.*capturable=True")
def test_the_comparison_shows_replays_that_do_nothing(device):
    plain = run_of_trainer(device, "fp32", captured=False)
    idle = run_of_trainer(device, "fp32", captured=True, wrap=NoReplay)
    # A tape runs the step that it records, a card does not.
    steps = range(WARM_UP + (device.type == "cpu"), 12)
    assert differences(plain, idle) == [*(f"losses of step {i}" for i in steps), "weights", *EXACT]


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


# Captures that fail, on a device that stands in for a card


class FakeCuda:
    """Streams and captures; a capture that was spoilt raises a second error at its end, on its stream."""

    def __init__(self, monkeypatch, *, spoilt):
        self.before = self.current = self.Stream()
        self.spoilt = spoilt
        fakes = {
            "Stream": lambda device: self.Stream(),
            "CUDAGraph": lambda: SimpleNamespace(replay=None),
            "current_stream": lambda device: self.current,
            "set_stream": lambda stream: setattr(self, "current", stream),
            "stream": self.on,
            "graph": self.capture,
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        self.graphs = CudaGraphs(torch.device("cuda", 0))

    class Stream:
        def wait_stream(self, other):
            pass

    @contextmanager
    def on(self, stream):
        before, self.current = self.current, stream
        yield
        self.current = before

    @contextmanager
    def capture(self, graph, stream, capture_error_mode):
        before, self.current = self.current, stream
        try:
            yield
        finally:
            if self.spoilt:
                raise RuntimeError("operation failed due to a previous error during capture")
            self.current = before


def waits(batch):
    raise RuntimeError("a value was read\nwhile the step was recorded")


@pytest.fixture
def fake_cuda(monkeypatch):
    return partial(FakeCuda, monkeypatch)


def test_a_capture_that_fails_is_undone_and_its_cause_is_raised(fake_cuda):
    cuda = fake_cuda(spoilt=True)
    with pytest.raises(RuntimeError, match="a value was read"):
        cuda.graphs.record(waits, {})
    assert cuda.current is cuda.before


def test_a_capture_that_is_spoilt_by_another_thread_is_undone(fake_cuda):
    cuda = fake_cuda(spoilt=True)
    with pytest.raises(RuntimeError, match="a previous error"):
        cuda.graphs.record(lambda batch: torch.zeros(1), {})
    assert cuda.current is cuda.before


@pytest.mark.parametrize("error", [KeyError("path"), KeyboardInterrupt()])
@pytest.mark.parametrize("spoilt", [False, True])
def test_any_error_of_the_step_is_raised_as_it_is(fake_cuda, spoilt, error):
    def fail(batch):
        raise error

    cuda = fake_cuda(spoilt=spoilt)
    with pytest.raises(type(error)) as caught:
        cuda.graphs.record(fail, {})
    assert caught.value is error
    assert cuda.current is cuda.before


def test_a_run_goes_on_after_a_capture_that_failed(fake_cuda, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.13.0+cu130")
    run, cuda = Run(), fake_cuda(spoilt=True)
    cuda.graphs.detect_syncs, cuda.graphs.run_on_stream = Tape(run.state).detect_syncs, Tape(run.state).run_on_stream
    with pytest.warns(UserWarning, match="because operation failed due to a previous error during capture"):
        losses = run.train(CapturedStep(run.step, cuda.graphs, insist=False), random_batches(6))
    assert len(losses) == 6
    assert cuda.current is cuda.before


@pytest.mark.parametrize("insist", [False, True])
def test_an_older_torch_cannot_go_on_after_a_capture_that_failed(fake_cuda, monkeypatch, insist):
    monkeypatch.setattr(torch, "__version__", "2.12.1+cu126")
    run, cuda = Run(), fake_cuda(spoilt=True)
    cuda.graphs.detect_syncs, cuda.graphs.run_on_stream = Tape(run.state).detect_syncs, Tape(run.state).run_on_stream
    with pytest.raises(TrainingError) as caught:
        run.train(CapturedStep(reads(run.step), cuda.graphs, insist=insist), random_batches(6))
    assert str(caught.value) == (
        "the step cannot be captured: operation failed due to a previous error during capture. Torch 2.12.1+cu126 "
        "cannot go on after that. Use compile=False, or torch 2.13 or newer."
    )
    assert cuda.current is cuda.before


def test_an_older_torch_goes_on_after_a_capture_that_ended_well(fake_cuda, monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.6.0")
    with pytest.raises(RuntimeError, match="a value was read"):
        fake_cuda(spoilt=False).graphs.record(waits, {})


@pytest.mark.parametrize(("search", "deterministic", "found"), [(1, 0, True), (0, 0, False), (1, 1, False)])
def test_cudnn_searches_from_the_warm_up_on_and_not_after(fake_cuda, monkeypatch, search, deterministic, found):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", bool(deterministic))
    cuda, seen = fake_cuda(spoilt=False), []

    def step(batch):
        seen.append(torch.backends.cudnn.benchmark)
        return {}

    cuda.graphs.run_on_stream(step, {}, search=bool(search))
    cuda.graphs.record(step, {})
    assert seen == [found, not deterministic]
    assert torch.backends.cudnn.benchmark is False


def test_cudnn_searches_for_two_shapes(monkeypatch):
    run = Run()
    tape = Tape(run.state)
    batches = [random_batches(1, samples)[0] for samples in (1, 2, 1, 2, 3, 3)]
    with pytest.warns(UserWarning, match="shapes so far"):
        run.train(CapturedStep(run.step, tape, insist=False), batches)
    assert (tape.plain, tape.searched) == (6, 4)


# In several processes


def group():
    return init_process_group(CPU)


def own(batch):
    chosen = shard_range(len(batch["source"]), group().rank, group().world_size)
    return {name: tensor[chosen.start : chosen.stop] for name, tensor in batch.items()}


def trained(batches, *, captured, pool_size=3, spoil=lambda step: step):
    """Train in this process on its shard of each batch; return the losses, the state, and what the tape did."""
    run = Run(pool_size=pool_size)
    step = TrainStep(
        run.method, lr=0.01, betas=(0.5, 0.999), precision="fp32", compile=False, device=CPU, group=group()
    )
    assert make_capturable(step.optimizers, CPU) is None
    run.optimizers, tape = step.optimizers, Tape(run.state)
    if captured:
        step._run = CapturedStep(spoil(step._run_uncaptured), tape, insist=False, group=group())
    torch.manual_seed(5 + group().rank)
    losses = [step(own(batch), samples=len(batch["source"])) for batch in batches]
    return losses, [t.detach().clone() for t in run.state()], (tape.plain, tape.recorded, tape.replayed)


def epochs(size=16):
    """Three steps with two images on each rank and one with two and one, three times."""
    return 3 * [*random_batches(3, 4, size), *random_batches(1, 3, size)]


def plain():
    return trained(epochs(), captured=False)


def captured():
    return trained(epochs(), captured=True)


def told(run):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            counts = run()[-1]
        except TrainingError as error:
            counts = str(error)
    return [str(each.message) for each in caught], counts


def one_reads_a_value():
    return told(lambda: trained(epochs(), captured=True, spoil=reads if group().rank else lambda step: step))


def images_of_two_sizes():
    return told(lambda: trained(epochs(16 + 16 * group().rank), captured=True, pool_size=0))


def a_size_changes_later():
    late = random_batches(1, 4, 32 if group().rank else 16)
    return told(lambda: trained([*epochs(), *late], captured=True))


def all_cases():
    init_process_group(CPU)
    cases = (plain, captured, one_reads_a_value, images_of_two_sizes)
    found = {case.__name__: case() for case in cases}
    if group().rank:  # it alone stops of itself
        return found | {"a_size_changes_later": a_size_changes_later()}
    with pytest.raises(RuntimeError, match="Connection"):
        trained([*epochs(), *random_batches(1, 4)], captured=True)
    return found | {"a_size_changes_later": None}


@pytest.fixture(scope="module")
def together_(tmp_path_factory):
    first, second = together("test_cuda_graph", "all_cases", tmp_path_factory.mktemp("found"))
    return {name: [first[name], second[name]] for name in first}


def test_processes_record_the_step_of_one_division_with_its_collectives(together_):
    for (losses, state, _), (found, found_state, counts) in zip(together_["plain"], together_["captured"], strict=True):
        assert counts == (WARM_UP + 3, 1, 6)
        check_equal([t for each in found for t in each.values()], [t for each in losses for t in each.values()])
        check_equal(found_state, state)


def test_what_one_process_cannot_record_none_records(together_):
    assert (
        together_["one_reads_a_value"]
        == [
            ([f"the step runs uncaptured, which is slower: {WHY}"], (12, 1, 0)),
        ]
        * 2
    )


def test_images_of_two_sizes_are_not_recorded(together_):
    why = "it cannot be captured, because the images of the processes differ in size."
    assert together_["images_of_two_sizes"][0] == ([f"the step runs uncaptured, which is slower: {why}"], (12, 0, 0))
    assert together_["images_of_two_sizes"][1] == together_["images_of_two_sizes"][0]


def test_a_process_with_another_size_than_the_recorded_one_stops(together_):
    messages, error = together_["a_size_changes_later"][1]
    assert messages == []
    assert error == (
        "the captured step is for a batch of source (2, 3, 16, 16), target (2, 3, 16, 16), and rank 1 has one of "
        "source (2, 3, 32, 32), target (2, 3, 32, 32). Give images of one size, or resume with compile=False."
    )
