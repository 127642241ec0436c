"""The same number of images for all: distances are biased by it, so arms compare at one N alone. Imports no torch."""

from ..errors import InputError

__all__ = ["check_equal_n"]


def check_equal_n(table):
    """Return `table`, rows of `metrics.evaluate` with a column weighting, if each metric has one N for all weightings.

    Tables of several runs are concatenated first. What must be equal within a metric and its features: n, n_reference,
    and where they are there extractor, weights_sha256 and dtype. Raises InputError that names the arms which differ.
    """
    for column in ("weighting", "metric", "features", "n", "n_reference"):
        if column not in table:
            raise InputError(f"the table has no column {column!r}; it has {', '.join(map(str, table.columns))}")
    must = [name for name in ("n", "n_reference", "extractor", "weights_sha256", "dtype") if name in table]
    for (metric, features), rows in table.groupby(["metric", "features"]):
        for column in must:
            arms = {value: _arms(part) for value, part in rows.groupby(column, dropna=False)}
            if len(arms) > 1:
                differ = "; ".join(f"{_short(value)} for {who}" for value, who in arms.items())
                raise InputError(f"{metric} ({features}) has not one {column}, so arms cannot be compared: {differ}")
    return table


def _arms(rows):
    variants = rows["variant"].astype(object).fillna("") if "variant" in rows else [""] * len(rows)
    names = [f"{who}; {what}" if what else str(who) for who, what in zip(rows.weighting, variants, strict=True)]
    return ", ".join(dict.fromkeys(names))


def _short(value):
    if isinstance(value, float):
        return f"{value:g}"
    text = str(value)
    return text if len(text) <= 24 else f"{text[:12]}..."
