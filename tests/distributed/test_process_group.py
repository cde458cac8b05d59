"""What several processes of a run tell one another. Two are started, and call each function that is a case."""

import os
import signal
import socket
from types import SimpleNamespace

import pytest
import torch
from processes import finish, start, together

from imtrans.distributed.process_group import ProcessGroup, init_process_group, rank_seed
from imtrans.distributed.torchrun import local_world_size, restarted_run_id, torchrun_id
from imtrans.errors import ArgumentError, TrainingError

CPU = torch.device("cpu")


def group():
    return init_process_group(CPU)


def gathers():
    return group().all_gather_object({"rank": group().rank})


def first_decides():
    return group().run_on_rank0(lambda: f"made by {group().rank}")


def first_fails():
    def fail():
        raise ArgumentError("lr is wrong.")

    try:
        group().run_on_rank0(fail)
    except (ArgumentError, TrainingError) as error:
        return type(error).__name__, str(error)


def one_says_stop():
    answers = []
    for step in range(3):
        ask = group().all_reduce_max(lambda: 15 if group().rank == 1 and step == 1 else 0)  # noqa: B023
        answers.append(ask())
    return answers


def spreads():
    tensors = [torch.full((2,), float(group().rank)), torch.tensor(group().rank)]
    group().broadcast(tensors)
    return [tensor.tolist() for tensor in tensors]


def differ():
    group().check_same(data="5 samples", steps=3)
    try:
        group().check_same(data="5 samples", steps=3 + group().rank)
    except ArgumentError as error:
        return str(error)


def joined_again():
    return init_process_group(CPU) is group()


CASES = (gathers, first_decides, first_fails, one_says_stop, spreads, differ, joined_again)


def all_cases():
    init_process_group(CPU)
    return {case.__name__: case() for case in CASES}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    first, second = together("test_process_group", "all_cases", tmp_path_factory.mktemp("found"))
    return {name: [first[name], second[name]] for name in first}


def test_values_are_gathered_in_the_order_of_the_processes(found):
    assert found["gathers"] == [[{"rank": 0}, {"rank": 1}]] * 2


def test_what_the_first_one_makes_all_have(found):
    assert found["first_decides"] == ["made by 0"] * 2


def test_what_fails_in_the_first_one_stops_all(found):
    assert found["first_fails"] == [
        ("ArgumentError", "lr is wrong."),
        ("TrainingError", "rank 0 stopped the run: ArgumentError: lr is wrong."),
    ]


def test_a_signal_to_one_is_known_to_all_in_the_same_step(found):
    assert found["one_says_stop"] == [[0, 15, 0]] * 2


def test_tensors_of_the_first_one_are_spread(found):
    assert found["spreads"] == [[[0.0, 0.0], 0]] * 2


def test_processes_with_other_arguments_are_refused_in_all_of_them(found):
    text = (
        "the processes of this run differ in steps: 3 on rank 0, 4 on rank 1. Start all with the same "
        "arguments, data and version."
    )
    assert found["differ"] == [text] * 2


def test_joining_twice_is_joining_once(found):
    assert found["joined_again"] == [True, True]


def wait_for_the_other():
    init_process_group(CPU)
    if group().rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        group().all_gather_object(None)
    except TrainingError as error:
        print(error)


def test_a_process_that_was_killed_is_noticed_at_once():
    output, nothing = finish(start("test_process_group", "wait_for_the_other", size=2))
    assert "another process of this run has stopped or does not answer (" in output
    assert output.rstrip().endswith("Its own output says why; resume from the newest checkpoint.")
    assert nothing == ""


# Alone


def test_one_process_is_all_there_are():
    alone = ProcessGroup()
    assert alone.is_rank0
    assert alone.all_gather_object(3) == [3]
    assert alone.run_on_rank0(lambda: 4) == 4
    late: list[int] = [0]
    ask = alone.all_reduce_max(lambda: late[0])
    late[0] = 2
    assert ask() == 2
    alone.check_same(data="anything")
    with pytest.raises(ArgumentError, match="of the caller"):
        alone.run_on_rank0(lambda: (_ for _ in ()).throw(ArgumentError("of the caller")))


@pytest.mark.parametrize("size", [None, "1"])
def test_without_torchrun_nothing_is_joined(monkeypatch, size):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size:
        monkeypatch.setenv("WORLD_SIZE", size)
    assert init_process_group(CPU) == ProcessGroup()
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("given", "odd"),
    [
        ({"WORLD_SIZE": "2"}, "RANK and LOCAL_RANK and MASTER_ADDR and MASTER_PORT"),
        ({"WORLD_SIZE": "2", "RANK": "x", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK"),
        ({"WORLD_SIZE": "two", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "WORLD_SIZE"),
    ],
)
def test_an_environment_that_is_incomplete(monkeypatch, given, odd):
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ArgumentError) as caught:
        init_process_group(CPU)
    assert str(caught.value) == (
        f"WORLD_SIZE={given['WORLD_SIZE']} says that this is one of several processes, but {odd} is missing or not "
        "a number. Start them with torchrun --nproc-per-node=N, or unset WORLD_SIZE."
    )


def test_a_device_that_cannot_talk_to_others(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "a"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "1")
    with pytest.raises(ArgumentError) as caught:
        init_process_group(torch.device("mps"))
    assert str(caught.value) == "device='mps' cannot train in 2 processes. Use CUDA cards, or device='cpu'."


def test_the_card_becomes_the_current_one(monkeypatch):
    """Else a run on card 1 opens a context on card 0 too."""
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    chosen = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    for device in ("cpu", "cuda:1"):
        init_process_group(torch.device(device))
    assert chosen == [torch.device("cuda", 1)]


@pytest.mark.parametrize(
    ("others", "error"),
    [
        (["GPU-2 cuda:1 of one", "GPU-3 cuda:1 of two"], None),
        (["GPU-1 cuda:1 of one", "GPU-3 cuda:1 of two"], "2 processes were given cuda:0 of {host}."),
        (["GPU-3 cuda:1 of two", "GPU-3 cuda:1 of two"], "2 processes were given cuda:1 of two."),
    ],
)
def test_two_processes_on_one_card_are_told_before_nccl_is_reached(monkeypatch, others, error):
    """By the card's UUID: CUDA_VISIBLE_DEVICES may give one card two numbers."""
    given = {"WORLD_SIZE": "3", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    store = torch.distributed.HashStore()
    for rank, card in enumerate(others, start=1):
        store.set(f"card of rank {rank}", card)

    def reach_nccl(*args, **options):
        raise RuntimeError("NCCL was reached")

    monkeypatch.setattr(torch.distributed, "rendezvous", lambda url: iter([(store, 0, 3)]))
    monkeypatch.setattr(torch.distributed, "init_process_group", reach_nccl)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="GPU-1"))
    with pytest.raises(TrainingError if error is None else ArgumentError) as caught:
        init_process_group(torch.device("cuda", 0))
    if error is None:
        assert "cannot reach one another: NCCL was reached" in str(caught.value)
    else:
        assert str(caught.value) == error.format(host=socket.gethostname()) + (
            " Use device='cuda', which gives each process its own card, and start no more processes than there are "
            "cards."
        )


def test_a_run_of_torchrun_keeps_its_name_when_it_restarts(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    assert torchrun_id() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "0")
    assert torchrun_id().endswith(f":{os.getppid()}")
    assert restarted_run_id() is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "mine")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert restarted_run_id() == torchrun_id() == "mine"


def test_seeds_of_processes_differ_below_32_bits():
    """A generator on the CPU takes no more of a seed."""
    seeds = [rank_seed(seed, rank) for seed in range(20) for rank in range(20)]
    assert len({seed % 2**32 for seed in seeds}) == len(seeds)


def test_processes_on_one_machine_share_its_memory(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert local_world_size() == 1
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert local_world_size() == 4
