# The order of the work, for one experiment. `make reproduce` comes here through debiaslib.study.pipeline, which first checks everything.
# By hand:  snakemake -j 2 --directory results/quick --config experiment=quick
#
# Outputs are records and tables; checkpoints and executed notebooks are not declared, because Snakemake deletes what a failed
# job declared.
# Every worker takes a lock, resumes by itself and returns at once when its work is there, so a killed engine needs no hand.
import re
import shlex
import sys

from debiaslib.study.experiment import load_experiment
from debiaslib.training.config import run_name
from debiaslib.files import sha256_file
from debiaslib.paths import notebook_files

E = load_experiment(config["experiment"], config.get("dataset", ""))
RUNS = {run_name(arm, seed): f"--weighting {shlex.quote(arm)} --seed {seed}" for arm, seed in E.runs}
NOTEBOOKS = {name: notebook_files()[name] for name in E.notebooks}
THREADS = E.train_config(*E.runs[0]).threads
# exec: the worker's parent is then Snakemake itself, whose death it watches
PYTHON = f"exec {shlex.quote(sys.executable)} -m"
FLAGS = " ".join(f"--{key} {shlex.quote(str(config[key]))}" for key in ("experiment", "dataset", "results") if config.get(key))
OF_ALL = [
    f"tables/{name}{note}"
    for name in ("gate.csv", "weights.csv", "gradient_noise.csv", "one_step.npz", "mse.csv", "bias.csv", *(["arm_errors.csv"] if E.variants else []), *(["oracle_swap.csv", "oracle_swap_samples.npz"] if E.swap_timesteps else []))
    for note in ("", ".json")
]
ARMS = " ".join(["arm_errors"] * bool(E.variants) + ["oracle_swap", "oracle_swap_samples"] * bool(E.swap_timesteps))
OF_ONE = [
    f"tables/{name}{note}"
    for name in ("samples-{run}.npz", "training-{run}.npz", "distances-{run}.csv")
    for note in ("", ".json")
]


LONG = [f"tables/long-{run_name(*run)}.csv{note}" for run in E.long_runs for note in ("", ".json")]


wildcard_constraints:
    run="|".join(map(re.escape, RUNS)),
    notebook="|".join(NOTEBOOKS),


# All of it by name, so that a file deleted by hand is made again.
rule all:
    input:
        "report.html",
        expand("notebooks/{notebook}.json", notebook=NOTEBOOKS),
        OF_ALL,
        LONG,
        expand(OF_ONE, run=RUNS),
        expand("runs/{run}/record.json", run=RUNS),


# What the report of a part of the experiment shows (time_limit.py writes that report).
rule results:
    input:
        expand("notebooks/{notebook}.json", notebook=NOTEBOOKS),
        OF_ALL,
        expand(OF_ONE, run=RUNS),


rule report:
    input:
        expand("notebooks/{notebook}.json", notebook=NOTEBOOKS),
        LONG,
    output:
        "report.html",
    log:
        "logs/report.log",
    shell:
        "{PYTHON} debiaslib.report.report {FLAGS} > {log} 2>&1"


rule train:
    output:
        "runs/{run}/record.json",
    log:
        "logs/train-{run}.log",
    params:
        run=lambda wildcards: RUNS[wildcards.run],
    threads: THREADS
    priority: 10
    shell:
        "{PYTHON} debiaslib.training.loop {params.run} {FLAGS} > {log} 2>&1"


rule measure_run:
    input:
        "runs/{run}/record.json",
    output:
        OF_ONE,
    log:
        "logs/measure-{run}.log",
    params:
        run=lambda wildcards: RUNS[wildcards.run],
        settings=E.measured,
    threads: THREADS
    priority: 5
    shell:
        "{PYTHON} debiaslib.study.measurements distances samples training_samples {params.run} {FLAGS} > {log} 2>&1"


rule measure_long:
    input:
        "runs/{run}/record.json",
    output:
        "tables/long-{run}.csv",
        "tables/long-{run}.csv.json",
    log:
        "logs/long-{run}.log",
    params:
        run=lambda wildcards: RUNS[wildcards.run],
        settings=E.measured,
    threads: THREADS
    shell:
        "{PYTHON} debiaslib.study.measurements long {params.run} {FLAGS} > {log} 2>&1"


rule measure:
    input:
        expand("runs/{run}/record.json", run=RUNS),
    output:
        OF_ALL,
    log:
        "logs/measure.log",
    params:
        settings=E.measured,
    threads: THREADS
    shell:
        "{PYTHON} debiaslib.study.measurements gate weights gradient_noise one_step mse bias {ARMS} real_distances {FLAGS} > {log} 2>&1"


rule notebook:
    input:
        OF_ALL,
        expand(OF_ONE, run=RUNS),
    output:
        "notebooks/{notebook}.json",
    log:
        "logs/{notebook}.log",
    params:
        source=lambda wildcards: sha256_file(NOTEBOOKS[wildcards.notebook]),
    threads: THREADS
    shell:
        "{PYTHON} debiaslib.study.run_notebook {wildcards.notebook} {FLAGS} > {log} 2>&1"
