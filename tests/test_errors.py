"""One line that names the thing, its value and what is allowed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from debiaslib.errors import LONGEST, InputError, check_choice, check_number, one_line, shown

NUMBERS = st.one_of(st.integers(-10, 10), st.floats(-10, 10), st.floats(), st.integers(-(2**70), 2**70))
BOUNDS = st.one_of(st.none(), st.integers(-10, 10), st.floats(-10, 10))


def message(check, *arguments, **options):
    with pytest.raises(InputError) as caught:
        check(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_an_unknown_choice_names_the_nearest_and_all():
    text = message(check_choice, "sampler", "dddim", ("ddpm", "ddim"))
    assert text == "sampler 'dddim' is unknown; did you mean 'ddim'? known: ddpm, ddim"


def test_nothing_near_nothing_suggested():
    assert message(check_choice, "sampler", "qqq", ("ddpm", "ddim")) == "sampler 'qqq' is unknown; known: ddpm, ddim"


@pytest.mark.parametrize("value", [None, 3, 2.5, ["ddim"], {"a": 1}, "dd\nim", "", "\0", math.nan])
def test_any_value_is_an_unknown_choice_in_one_line(value):
    assert repr(value) in message(check_choice, "sampler", value, ("ddpm", "ddim"))


@given(NUMBERS, BOUNDS, BOUNDS, BOUNDS, BOUNDS, st.booleans())
def test_a_number_is_returned_if_and_only_if_it_is_within_the_bounds(value, minimum, maximum, above, below, integer):
    allowed = value - value == 0 and not (integer and isinstance(value, float))
    allowed &= minimum is None or value >= minimum
    allowed &= maximum is None or value <= maximum
    allowed &= above is None or value > above
    allowed &= below is None or value < below
    options = {"minimum": minimum, "maximum": maximum, "above": above, "below": below, "integer": integer}
    if allowed:
        assert check_number("size", value, **options) is value
    else:
        assert f"size is {value!r}; it must be " in message(check_number, "size", value, **options)


@pytest.mark.parametrize("value", [True, False, "3", None, [3], 1j, math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("integer", [True, False])
def test_what_is_no_finite_number_is_refused(value, integer):
    assert f"size is {value!r}; it must be a " in message(check_number, "size", value, integer=integer)


def test_the_bounds_are_said():
    assert message(check_number, "T", 0, minimum=1, integer=True) == "T is 0; it must be a whole number >= 1"
    assert message(check_number, "lr", -1, above=0) == "lr is -1; it must be a finite number > 0"
    assert message(check_number, "t", 9, minimum=0, below=9) == "t is 9; it must be a finite number >= 0 and < 9"
    assert message(check_number, "n", 9, above=0, maximum=8) == "n is 9; it must be a finite number > 0 and <= 8"
    assert message(check_number, "T", 2.0, integer=True) == "T is 2.0; it must be a whole number"


def test_a_whole_number_too_large_for_a_float():
    # YAML and JSON carry whole numbers of any size; math.isfinite overflows on this one.
    assert "size is 1000" in message(check_number, "size", 10**400, maximum=5)
    assert "size is 1000" in message(check_number, "size", 10**400, maximum=5, integer=True)
    assert "lr is 1000" in message(check_number, "lr", 10**400, above=0)  # no float holds it


@given(st.text(max_size=400) | st.text("ab '\"/", min_size=150, max_size=900), st.integers(60, 200))
def test_any_text_is_one_printable_line_of_the_width(text, width):
    line = one_line(text, width)
    assert len(line) <= width and line.isprintable()
    plain = " ".join(text.split())
    if plain.isprintable() and len(plain) <= width:
        assert line == plain
    assert str(InputError(text)) == one_line(text) and len(str(InputError(text))) <= LONGEST


def test_of_a_long_path_the_end_that_names_the_file_is_kept():
    path = "/home/me/" + "long-folder/" * 30 + "pictures/00012.png"
    line = one_line(f"the image {path} is broken: it is no image that can be read")
    assert (
        line
        == "the image /home/me/long-f...r/long-folder/pictures/00012.png is broken: it is no image that can be read"
    )
    line = one_line("word " * 100)
    assert len(line) == LONGEST and line[2 * LONGEST // 3 :].startswith("...")
    assert shown("x" * 100, 24) == "'" + 11 * "x" + "..." + 8 * "x" + "'"


def test_a_notebook_shows_the_line_and_no_traceback():
    pytest.importorskip("IPython")
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    shell = InteractiveShell()
    cell = "from debiaslib.errors import check_choice\ncheck_choice('sampler', 'x', ['ddim'])"
    with capture_output() as shown:
        result = shell.run_cell(cell)
    assert isinstance(result.error_in_exec, InputError)
    lines = [line for line in (shown.stdout + shown.stderr).splitlines() if line.strip()]
    assert lines == ["InputError: sampler 'x' is unknown; known: ddim"]
