import pytest
from hypothesis import given
from hypothesis import strategies as st

from imtrans import checks, errors
from imtrans.checks import at_least, in_range, one_of
from imtrans.errors import ArgumentError, ImtransError, did_you_mean, join_names, one_line, short_repr


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ArgumentError", ValueError),
        ("ShapeError", ValueError),
        ("DataError", ValueError),
        ("SavedModelError", ValueError),
        ("HubError", OSError),
        ("CheckpointError", RuntimeError),
        ("TrainingError", RuntimeError),
    ],
)
def test_every_error_is_ours_and_one_that_others_catch(name, builtin):
    assert issubclass(getattr(errors, name), ImtransError)
    assert issubclass(getattr(errors, name), builtin)


def test_a_hint_names_the_nearest_or_nothing():
    assert did_you_mean("btch", ["batch", "group"]) == " Did you mean 'batch'?"
    assert did_you_mean("xyz", ["batch", "group"]) == ""
    assert did_you_mean(3, {"batch": 1}) == ""


def test_one_of_returns_a_known_name():
    assert one_of("Owner", "norm", "batch", {"batch", "group"}) == "batch"


@pytest.mark.parametrize("value", ["grup", 1, None, ["batch"], True])
def test_one_of_refuses_anything_else(value):
    with pytest.raises(ArgumentError) as caught:
        one_of("Owner", "norm", value, ("group", "batch"))
    assert str(caught.value).startswith(f"Owner: norm={value!r} is not one of ['batch', 'group'].")


@given(value=st.integers(), minimum=st.integers(-5, 5))
def test_at_least_accepts_exactly_the_numbers_from_its_minimum_on(value, minimum):
    if value >= minimum:
        assert at_least("Owner", "count", value, minimum) == value
    else:
        with pytest.raises(ArgumentError) as caught:
            at_least("Owner", "count", value, minimum)
        assert str(caught.value) == f"Owner: count must be a whole number >= {minimum}, got {value}."


@given(value=st.integers(-3, 9), minimum=st.integers(-2, 2), maximum=st.integers(0, 4))
def test_at_least_with_a_maximum_accepts_exactly_the_numbers_between(value, minimum, maximum):
    if minimum <= value <= maximum:
        assert at_least("Owner", "count", value, minimum, maximum) == value
    else:
        with pytest.raises(ArgumentError) as caught:
            at_least("Owner", "count", value, minimum, maximum)
        assert str(caught.value) == f"Owner: count must be a whole number from {minimum} to {maximum}, got {value}."


@pytest.mark.parametrize("value", [2.0, "2", None, True, [2]])
def test_at_least_refuses_what_is_no_whole_number(value):
    with pytest.raises(ArgumentError) as caught:
        at_least("Owner", "count", value, 1)
    assert str(caught.value) == f"Owner: count must be a whole number >= 1, got {value!r}."


@pytest.mark.parametrize("value", [0, 1, 0.5, 1.0])
def test_in_range_returns_a_float(value):
    returned = in_range("Owner", "share", value, 0.0, 1.0)
    assert returned == value
    assert type(returned) is float


@pytest.mark.parametrize("value", [-0.01, 1.01, float("nan"), float("inf"), "0.5", None, True])
def test_in_range_refuses_anything_else(value):
    with pytest.raises(ArgumentError) as caught:
        in_range("Owner", "share", value, 0.0, 1.0)
    assert str(caught.value) == f"Owner: share must be a number between 0 and 1, got {value!r}."


def test_in_range_without_an_upper_end_says_so():
    assert in_range("Owner", "weight", 1e9, 0.0) == 1e9
    with pytest.raises(ArgumentError) as caught:
        in_range("Owner", "weight", -1, 0.5)
    assert str(caught.value) == "Owner: weight must be a number >= 0.5, got -1."


def test_some_of_counts_what_it_leaves_out():
    assert join_names(["a"]) == "a"
    assert join_names(["a", "b", "c", "d", "e"]) == "a, b, c, d, e"
    assert join_names(["a", "b", "c", "d", "e", "f", "g"]) == "a, b, c, d, e and 2 more"
    assert join_names([1, 2, 3], most=1) == "1 and 2 more"


@pytest.mark.parametrize(("unset", "allowed"), [(False, "True or False"), (True, "None, True or False")])
def test_a_flag_is_a_bool_and_none_only_where_it_may_be_unset(unset, allowed):
    for value in (True, False, *([None] if unset else [])):
        checks.check_bool("Owner", "bias", value, unset=unset)
    with pytest.raises(errors.ArgumentError, match=f"^Owner: bias must be {allowed}, got 'no'.$"):
        checks.check_bool("Owner", "bias", "no", unset=unset)


@given(name=st.text(st.characters(exclude_categories=()), max_size=20))
def test_a_name_is_shown_in_one_line_that_can_be_written(name):
    shown = errors.printable(name)
    assert len(shown.splitlines()) <= 1
    assert "\x1b" not in shown
    shown.encode()
    if name.isprintable():
        assert shown == name


def test_letters_of_every_script_are_shown():
    for name in ("façade", "ファイル", "می\u200cخواهم", "𝔣", "a b", "\u3000"):
        assert errors.printable(name) == name
    assert errors.printable("a\nb\x1b[2J\udce9\u2028\x85") == "a\\nb\\x1b[2J\\udce9\\u2028\\x85"


def test_values_of_any_size_and_depth_are_shown_in_brief():
    nested = []
    for _ in range(10**5):
        nested = [nested]
    assert short_repr(nested) == "[[[[...]]]]"
    assert short_repr("x" * 10**6) == "'" + "x" * 47 + "..." + "x" * 48 + "'"
    assert len(short_repr(list(range(10**6)))) < 100
    assert short_repr(10**100) == "100000000000000000...0000000000000000000"


def test_text_is_shortened_to_one_line_that_can_be_printed():
    assert one_line(" a\n b\ud800\x1b[31m ") == "a b\\ud800\\x1b[31m"
    assert one_line("x" * 10**6, 10) == "xxxxxx ..."
    assert one_line("x" * 10, 10) == "x" * 10
