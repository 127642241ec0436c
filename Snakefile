# The order of the work, for one experiment. `make reproduce` comes here through debiaslib.study.pipeline, which first
# checks everything, and says what it found. By hand, without that:
#     snakemake -j 2 --keep-incomplete --directory results/quick --config experiment=quick
#
# Declared are records and tables. Snakemake removes what a job declares before the job runs and when it fails, except
# `update` files under --keep-incomplete; so checkpoints and executed notebooks are not declared, and where a job makes
# several tables they are `update`. Every worker takes a lock, resumes by itself and returns at once when its work is
# there, so a killed engine needs no hand.
import re
import shlex
import sys

from debiaslib.files import sha256_file
from debiaslib.paths import notebook_files
from debiaslib.study.experiment import load_experiment
from debiaslib.training.config import run_name

E = load_experiment(config["experiment"], config.get("dataset", ""))
RUNS = {run_name(arm, seed): f"--weighting {shlex.quote(arm)} --seed {seed}" for arm, seed in E.runs}
RECORDS = [f"runs/{run}/record.json" for run in RUNS]
FOUND = {key: config.get(key, "") for key in ("heldout", "further")}
NOTEBOOKS = {name: notebook_files()[name] for name in E.notebooks}
THREADS = E.train_config(*E.runs[0]).threads
# exec: the worker's parent is then Snakemake itself, whose death it watches
PYTHON = f"exec {shlex.quote(sys.executable)} -m"
FLAGS = " ".join(f"--{key} {shlex.quote(str(config[key]))}" for key in ("experiment", "dataset", "results") if config.get(key))
# The tables of the whole experiment: what `measurements` makes each with. One job each, so that no table is lost with another.
TABLES = {
    "weights.csv": "weights real_distances",
    "gate.csv": "gate",
    "one_step.npz": "one_step",
    "mse.csv": "mse",
    "bias.csv": "bias",
}
if E.variants:
    TABLES["arm_errors.csv"] = "arm_errors"
if E.swap_timesteps:
    TABLES |= {"oracle_swap.csv": "oracle_swap", "oracle_swap_samples.npz": "oracle_swap_samples"}
# The tables of one run, made by one process, which draws its samples.
OF_ONE = ["samples-{run}.npz", "training-{run}.npz", "distances-{run}.csv"]


def with_notes(names):
    """The files of tables, each with the note that says what it was made from."""
    return [f"tables/{name}{note}" for name in names for note in ("", ".json")]


def first_come(wildcards):
    """Priority of a training: what the experiment lists first is trained first."""
    return 10 + len(RUNS) - list(RUNS).index(wildcards.run)


wildcard_constraints:
    run="|".join(map(re.escape, RUNS)),
    notebook="|".join(NOTEBOOKS),
    table="|".join(map(re.escape, TABLES)),


# All of it by name, so that a file deleted by hand is made again.
rule all:
    input:
        "report.html",
        expand("notebooks/{notebook}.json", notebook=NOTEBOOKS),
        with_notes(TABLES),
        expand(with_notes(OF_ONE), run=RUNS),
        RECORDS,


rule report:
    input:
        expand("notebooks/{notebook}.json", notebook=NOTEBOOKS),
    output:
        "report.html",
    log:
        "logs/report.log",
    shell:
        "{PYTHON} debiaslib.report {FLAGS} > {log} 2>&1"


rule train:
    output:
        "runs/{run}/record.json",
    log:
        "logs/train-{run}.log",
    params:
        run=lambda wildcards: RUNS[wildcards.run],
    threads: THREADS
    priority: first_come
    shell:
        "{PYTHON} debiaslib.training {params.run} {FLAGS} > {log} 2>&1"


rule measure_run:
    input:
        "runs/{run}/record.json",
    output:
        [update(file) for file in with_notes(OF_ONE)],
    log:
        "logs/measure-{run}.log",
    params:
        run=lambda wildcards: RUNS[wildcards.run],
        settings={**E.measured, "further": FOUND["further"]},
    threads: THREADS
    priority: 5
    shell:
        "{PYTHON} debiaslib.study.measurements distances samples training_samples {params.run} {FLAGS} > {log} 2>&1"


rule measure:
    input:
        lambda wildcards: [] if wildcards.table == "weights.csv" else RECORDS,
    output:
        update("tables/{table}"),
        update("tables/{table}.json"),
    log:
        "logs/measure-{table}.log",
    params:
        names=lambda wildcards: TABLES[wildcards.table],
        settings={**E.measured, "weightings": E.weightings, "training": E.training, **FOUND},
    threads: THREADS
    shell:
        "{PYTHON} debiaslib.study.measurements {params.names} {FLAGS} > {log} 2>&1"


rule notebook:
    input:
        with_notes(TABLES),
        expand(with_notes(OF_ONE), run=RUNS),
    output:
        "notebooks/{notebook}.json",
    log:
        "logs/{notebook}.log",
    params:
        source=lambda wildcards: sha256_file(NOTEBOOKS[wildcards.notebook]),
    threads: THREADS
    shell:
        "{PYTHON} debiaslib.study.run_notebook {wildcards.notebook} {FLAGS} > {log} 2>&1"
