"""The gate: have an experiment's networks learned their task, so that comparing them says something?

A network passes where the error of its one-step estimate of x0 (EMA weights, training images, not clipped) is

    at t = 600  at most 1.25 times the optimum's        (no network can do better than the optimum)
    at t = 900  at most twice that of returning x_t     (which needs no network)

on the linear schedule with T = 1000, and at equal SNR on another schedule. Nothing is asked at t = 600 where the
optimum recognises more than a fifth of the images (error below a hundredth), as one over few or large images does: a
network could reach it by memorising the images alone.
"""

import math

from ..diffusion.schedule import Schedule
from .common import cached_by_t, errors_of, measured_images, optimal_denoiser, trained

OF_OPTIMUM, OF_INPUT = 1.25, 2.0  # the limits, as multiples of the optimum's error and of that of returning x_t
# The error of an image that the optimum recognises, and which share of them is too many. At 32x32 it is about 0.1 with
# all 50,000 images of CIFAR-10 in the optimum, and 0.26 with 4,000; at 16x16 with 4,000 it is 0.002.
_RECOGNISED, _TOO_MANY = 0.01, 0.2


def gate_timesteps(schedule):
    """The two timesteps of `schedule` whose SNR is nearest (in its logarithm) to that of t = 600 and 900: two ints."""
    wanted = Schedule.linear(T=1000).snr[[600, 900]]
    known = schedule.snr.clamp(min=1e-30).log()
    return tuple(int((known - snr.log()).abs().argmin()) for snr in wanted)


def gate(study):
    """Every training's error of x0 at the gate's two timesteps, tables/gate.csv: a DataFrame, a row a run and timestep.

    Columns: arm, seed, t, error, optimum and x_t (mean squared errors per number of x0 in [-1, 1]: of the network, of
    the exact optimum, of returning x_t), limit, passes (error <= limit).
    """
    e, timesteps = study.experiment, gate_timesteps(study.schedule)
    inputs = {"runs": [trained(study, [seed], [arm])["runs"] for arm, seed in e.runs]}
    inputs |= {"t": timesteps, "images": e.curve_images, "optimum": e.optimum_images}

    def rows():
        optimal, of_law = optimal_denoiser(study)
        best, images = cached_by_t(optimal), measured_images(study, e.curve_images)
        return [row for run in e.runs for row in _rows(study, *run, timesteps, images, best, of_law)]

    return study.csv("gate.csv", {**inputs, "limits": [OF_OPTIMUM, OF_INPUT, _RECOGNISED, _TOO_MANY]}, rows, digits=6)


def _rows(study, arm, seed, timesteps, images, best, of_law):
    found = errors_of(study, [arm], seed, timesteps, images, best).query("quantity == 'x0_mse'").groupby(["model", "t"])
    mean, recognised = found.value.mean(), found.value.agg(lambda values: (values < _RECOGNISED).mean())
    for t, base, factor in zip(timesteps, ("optimum", "initial"), (OF_OPTIMUM, OF_INPUT), strict=True):
        memorised = base == "optimum" and recognised[base, t] > _TOO_MANY and not of_law
        error, limit = mean[arm, t], math.inf if memorised else factor * mean[base, t]
        row = {"arm": arm, "seed": seed, "t": t, "error": error, "optimum": mean["optimum", t]}
        yield {**row, "x_t": mean["initial", t], "limit": limit, "passes": bool(error <= limit)}


def gate_line(table, arms):
    """One sentence on the runs of `arms`, from the table of `gate`: they have learned their task, or not, and by what.

    The numbers are those of the run and timestep that is furthest above its limit, or nearest to it.
    """
    rows = table[table.arm.isin(arms)]
    worst = rows.loc[(rows.error / rows.limit).idxmax()]
    runs, all_runs = (part.groupby(["arm", "seed"]).passes.all() for part in (rows, table))
    of_all = f" (all arms: {all_runs.sum()} of {len(all_runs)})" if len(all_runs) > len(runs) else ""
    verdict = "has learned its task" if runs.all() else "has NOT learned its task"
    base = "1.25 times the optimum's" if worst.t == rows.t.min() else "twice that of returning x_t"
    silent = f" (At t = {rows.t.min()} the optimum recognises too many of the images, so nothing is asked.)"
    return (
        f"This experiment {verdict}: {runs.sum()} of {len(runs)} trainings pass the gate{of_all}. The one with the "
        f"least room, {worst.arm} with seed {worst.seed}, has an error of x0 of {worst.error:.3g} at t = {worst.t}; "
        f"{worst.limit:.3g} is allowed, {base}.{silent if rows.limit.eq(math.inf).any() else ''}"
    )
