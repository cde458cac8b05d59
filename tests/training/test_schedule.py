import pytest
from hypothesis import given
from hypothesis import strategies as st

from imtrans.training.schedule import Schedule

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
