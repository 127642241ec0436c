"""A weighting is a string: what is read, its canonical form, its names in files and figures, and all mistakes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from debiaslib.diffusion.strategies import KNOWN, LABELS, Strategy, parse_strategy
from debiaslib.errors import InputError

PLAIN = ("constant", "debiased", "inverse_snr")
OUT_OF_RANGE = ["-1", "-1e-9", "1e999", "-1e999", "nan", "1" + "0" * 400]
FINITE = st.one_of(st.floats(0, 1e300), st.integers(0, 10**9))


def message(text):
    with pytest.raises(InputError) as caught:
        parse_strategy(text)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize(
    "text, canonical, slug, label",
    [
        ("constant", "constant", "constant", "constant"),
        ("debiased", "debiased", "debiased", "debiased"),
        (" debiased ( ) ", "debiased", "debiased", "debiased"),
        ("inverse_snr", "inverse_snr", "inverse_snr", "1/SNR"),
        ("p2", "p2(k=1,gamma=1)", "p2-k1-gamma1", "P2 (1, 1)"),
        ("p2(gamma=.5)", "p2(k=1,gamma=0.5)", "p2-k1-gamma0.5", "P2 (1, 0.5)"),
        ("p2(gamma=0.5, k=0)", "p2(k=0,gamma=0.5)", "p2-k0-gamma0.5", "P2 (0, 0.5)"),
        ("min_snr", "min_snr(gamma=5)", "min_snr-gamma5", "Min-SNR-5"),
        ("min_snr( gamma = 5.0 )", "min_snr(gamma=5)", "min_snr-gamma5", "Min-SNR-5"),
        ("soft_min_snr(gamma=1e-3)", "soft_min_snr(gamma=0.001)", "soft_min_snr-gamma0.001", "soft Min-SNR-0.001"),
        ("max_snr", "max_snr(gamma=1)", "max_snr-gamma1", "Max-SNR-1"),
        ("edm", "edm(sigma_data=0.5)", "edm-sigma_data0.5", "EDM-0.5"),
        ("edm(sigma_data=1)", "edm(sigma_data=1)", "edm-sigma_data1", "EDM-1"),
    ],
)
def test_what_is_read(text, canonical, slug, label):
    strategy = parse_strategy(text)
    assert (str(strategy), strategy.slug, strategy.label) == (canonical, slug, label)
    assert parse_strategy(strategy) == strategy == parse_strategy(canonical)


def test_every_weighting_has_a_label_of_its_own():
    assert set(LABELS) < set(KNOWN)
    assert len({parse_strategy(name).label for name in KNOWN}) == len(KNOWN)


@given(FINITE, FINITE)
def test_the_canonical_form_says_the_same_weighting(k, gamma):
    # A configuration stores the canonical form: a digit lost there would train with another weight than was asked for.
    strategy = parse_strategy(f"p2(k={k!r},gamma={gamma!r})")
    assert dict(strategy.arguments) == {"k": k, "gamma": gamma}
    assert parse_strategy(str(strategy)) == strategy


@given(st.floats(1e-9, 1e9), st.floats(1e-9, 1e9))
def test_different_weightings_have_different_names(one, other):
    a, b = parse_strategy(f"min_snr(gamma={one!r})"), parse_strategy(f"min_snr(gamma={other!r})")
    assert (a == b) == (str(a) == str(b)) == (a.slug == b.slug) == (one == other)


@pytest.mark.parametrize("text, near", [("debaised", "debiased"), ("P2", "p2"), ("minsnr", "min_snr")])
def test_an_unknown_one_names_the_nearest_and_all(text, near):
    line = message(text)
    assert f"weighting {text!r} is unknown; did you mean {near!r}?" in line
    assert line.endswith(", ".join(KNOWN))


@pytest.mark.parametrize("name", [name for name in KNOWN if name not in PLAIN])
@pytest.mark.parametrize("value", OUT_OF_RANGE, ids=lambda value: value[:20])
def test_an_argument_out_of_range(name, value):
    for argument in KNOWN[name]:
        line = message(f"{name}({argument}={value})")
        assert line.startswith(f"{argument} of weighting {name!r} is ")
        assert "it must be a finite number >" in line


def test_unknown_arguments():
    assert "did you mean 'gamma'? known: gamma" in message("min_snr(gama=5)")
    assert "'k' is unknown; known: gamma" in message("min_snr(k=5)")
    assert "did you mean 'sigma_data'? known: sigma_data" in message("edm(sigma_dat=1)")
    assert message("debiased(gamma=1)") == "weighting 'debiased' takes no argument; got 'gamma'"


@pytest.mark.parametrize(
    "text",
    ["", " ", "p2(1,1)", "p2(*[1])", "p2(k=x)", "p2(k='1')", "p2(k=True)", "p2(k=10**9)", "p2(k=1,k=2)", "p2(k=1=2)",
     "p2(k=1", "p2 k=1", "a.b", "p2[1]", "p2(k=1)(k=1)", "lambda: 1", "__import__('os').getcwd()", "p2\nmin_snr",
     "p2(k=\0)", "\ud800", "(" * 100_000],
    ids=lambda text: repr(text)[:30],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(text):
    assert "cannot be read; write it as 'name' or 'name(argument=value)'" in message(text)


@pytest.mark.parametrize("value", [None, 3, b"debiased", ["debiased"], object])
def test_what_is_no_string_is_one_line(value):
    assert "it must be a string" in message(value)


@settings(max_examples=200)
@given(
    st.one_of(
        st.text(), st.text("p2k=1.,() gam'\"[]{}-+:*\n", max_size=30), st.sampled_from(sorted(KNOWN)).map("{}(".format)
    )
)
def test_any_text_is_read_or_refused(text):
    try:
        assert isinstance(parse_strategy(text), Strategy)
    except InputError as error:
        assert "\n" not in str(error)
