import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from imtrans.errors import ArgumentError
from imtrans.training.schedule import Schedule, plateau_factor, step_factor

COUNTS = st.integers(1, 12)
MAYBE = st.none() | COUNTS


@given(samples=COUNTS, epochs=COUNTS, batch_size=COUNTS, max_steps=MAYBE, every=st.tuples(COUNTS, MAYBE, MAYBE, MAYBE))
def test_every_run_ends_read_shown_judged_and_saved(samples, epochs, batch_size, max_steps, every):
    log, sample, validate, checkpoint = every
    plan = Schedule(
        samples, epochs=epochs, batch_size=batch_size, max_steps=max_steps, log_every=log,
        sample_every=sample, validate_every=validate, checkpoint_every=checkpoint,
    )  # fmt: skip
    whole = epochs * -(-samples // batch_size)
    assert plan.total_steps == min(whole, max_steps or whole)
    end = plan.total_steps
    assert plan.is_last(end)
    assert plan.logs(end)
    assert plan.samples(end)
    assert plan.saves(end)
    assert plan.validates(end)
    steps = range(1, end)
    assert not any(map(plan.is_last, steps))
    assert [s for s in steps if plan.logs(s)] == [s for s in steps if s % log == 0]
    assert [s for s in steps if plan.samples(s)] == [s for s in steps if s % (sample or max(1, end // 20)) == 0]
    assert [s for s in steps if plan.saves(s)] == [s for s in steps if s % (checkpoint or max(100, end // 20)) == 0]
    per_epoch = plan.batches_per_epoch
    judged = (validate or max(1, epochs // 10)) * per_epoch
    assert [s for s in steps if plan.validates(s)] == [s for s in steps if s % judged == 0]


@pytest.mark.parametrize(
    ("decay_epochs", "expected"), [(None, [1, 1, 2 / 3, 1 / 3]), (0, [1] * 4), (3, [1, 3 / 4, 2 / 4, 1 / 4])]
)
def test_the_rate_of_each_epoch(decay_epochs, expected):
    plan = Schedule(1, epochs=4, batch_size=1, decay_epochs=decay_epochs)
    assert [plan.lr_factor(epoch) for epoch in range(4)] == pytest.approx(expected)


POLICIES = {
    "step": lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, step_size=50, gamma=0.1),
    "cosine": lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=120, eta_min=0),
    "constant": lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1.0),
}


@pytest.mark.parametrize("policy", POLICIES)
def test_a_policy_is_the_one_of_the_reference(policy):
    plan = Schedule(1, epochs=120, batch_size=1, lr_policy=policy)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = POLICIES[policy](optimizer)
    for epoch in range(120):
        assert plan.lr_factor(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-9)
        optimizer.step()
        scheduler.step()
    assert plan.decay_epochs == 0


@given(losses=st.lists(st.sampled_from([0.1, 0.2, 0.1995, 0.3, float("nan")]), max_size=30))
def test_the_plateau_is_the_one_of_the_reference(losses):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, mode="min", factor=0.2, threshold=0.01, patience=5
    )
    for loss in losses:
        scheduler.step(loss)
    plan = Schedule(1, epochs=40, batch_size=1, lr_policy="plateau")
    assert plan.lr_factor(35, losses) == plateau_factor(losses) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert plan.validate_every == 1


def test_a_warmup_multiplies_the_policy():
    plan = Schedule(1, epochs=4, batch_size=1, warmup_epochs=3)
    assert [plan.lr_factor(epoch) for epoch in range(4)] == pytest.approx([1 / 4, 2 / 4, 3 / 4 * 2 / 3, 1 / 3])
    assert step_factor(149) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"lr_policy": "cosin"},
            "Trainer: lr_policy='cosin' is not one of ['constant', 'cosine', 'linear', 'plateau', 'step']. Did you "
            "mean 'cosine'?",
        ),
        (
            {"lr_policy": "cosine", "decay_epochs": 2},
            "Trainer: decay_epochs=2 is for lr_policy='linear', and lr_policy is 'cosine'. Use lr_policy='linear', or "
            "leave decay_epochs out.",
        ),
        ({"warmup_epochs": 5}, "Trainer: warmup_epochs must be a whole number from 0 to 4, got 5."),
    ],
)
def test_policies_are_checked(settings, text):
    with pytest.raises(ArgumentError) as caught:
        Schedule(1, epochs=4, batch_size=1, **settings)
    assert str(caught.value) == text
