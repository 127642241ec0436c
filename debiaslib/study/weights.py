"""The loss weights of an experiment by timestep, as a table."""

import pandas as pd

from ..diffusion.prediction import PREDICTION_TYPES
from ..diffusion.strategies import parse_strategy
from ..diffusion.weighting import loss_weight


def weights(study):
    """The weights by timestep in each parametrisation, raw and divided by the mean of the epsilon weight."""
    inputs = {"weightings": study.formulas, "schedule": study.schedule.name, "T": study.schedule.T}

    def rows():
        return pd.concat([_rows(study.schedule, w, p) for w in study.formulas for p in PREDICTION_TYPES])

    return study.csv("weights.csv", inputs, rows, digits=7)


def _rows(schedule, weighting, prediction_type):
    raw, epsilon = loss_weight(weighting, schedule, prediction_type), loss_weight(weighting, schedule)
    facts = {"weighting": weighting, "label": parse_strategy(weighting).label, "prediction_type": prediction_type}
    numbers = {"raw": raw, "normalized": raw / epsilon.mean(), "share": epsilon.cumsum(0) / epsilon.sum()}
    return pd.DataFrame({"t": range(schedule.T), "snr": schedule.snr, **facts, **numbers})
