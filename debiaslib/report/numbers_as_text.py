"""Numbers as the tables of a report write them."""

import math


def number(value):
    """Three significant digits, no exponent down to a millionth; a dash for NaN and None."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, digits)}f}" if digits <= 8 else f"{value:.2e}"


def with_interval(value, half):
    """`73.7 ± 4.2`: the interval with two significant digits, the value with as many decimals; no interval for NaN."""
    if math.isnan(half):
        return number(value)
    if not 1e-9 < half < math.inf:
        return f"{number(value)} ± {number(half)}"
    decimals = max(0, 1 - math.floor(math.log10(half)))
    return f"{value:,.{decimals}f} ± {half:.{decimals}f}"


def bracketed(value, low, high):
    """`0.45 [0.31, 0.65]`; without brackets where there is no interval, as for one seed, and a dash for NaN."""
    if not math.isfinite(value):
        return "–"
    texts = [f"{one:.2f}" if abs(one) >= 0.1 else f"{one:.2g}" for one in (value, low, high)]
    return "{} [{}, {}]".format(*texts) if math.isfinite(low) and math.isfinite(high) else texts[0]


def describe_spread(seeds, log_odds=False):
    """What stands behind ±, or in brackets for a share, in a table of so many seeds."""
    what, log = ("[95 % t-interval]", ", both of the log odds") if log_odds else ("± half the 95 % t-interval", "")
    return "one seed, no interval" if seeds == 1 else f"mean {what} over {seeds} seeds{log}"


def duration(seconds):
    """`4.1 s`, `12 min 3 s`, `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
