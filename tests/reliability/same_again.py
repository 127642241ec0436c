"""An experiment at the smallest size, made whole in a process of its own: all trainings, samples and tables.

python same_again.py EXPERIMENT RESULTS all|few
"""

import sys

import pandas as pd

from debiaslib.report.tables import write_result_tables
from debiaslib.study import measurements
from debiaslib.study.study import open_study
from debiaslib.training.config import run_name


def main(experiment, results, how_much):
    """Make the tables; of `few` those of one training alone."""
    study = open_study(experiment, "", results)
    runs = study.experiment.runs if how_much == "all" else study.experiment.runs[:1]
    for make in measurements.OF_ALL.values() if how_much == "all" else ():
        made = make(study)
        assert len(made) if isinstance(made, pd.DataFrame) else made, make
    for run in runs:
        for name in measurements.OF_ONE if how_much == "all" else ("samples", "distances"):
            measurements.OF_ONE[name](study, *run)
    if how_much == "all":
        measurements.control_ratios(study), measurements.learning_rates(study)
        write_result_tables(study.folder, study.experiment.runs)
    print(*(run_name(*run) for run in runs))


if __name__ == "__main__":
    main(*sys.argv[1:])
