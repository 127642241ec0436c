"""The Snakefile on a real Slurm of one node: a job array of trainings, one of them requeued, whose run ends as a local
one does.

`make test-slurm` runs it. The test starts munged, slurmctld and slurmd itself, configured in /etc/slurm, where
jobs look for it (the plugin clears SLURM_CONF from their environment), and takes both away again. So it needs root, a
machine without a Slurm of its own, and `apt install slurm-wlm munge`.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from debiaslib.study.experiment import load_experiment
from debiaslib.training.checkpoints import load_checkpoint
from debiaslib.training.loop import train
from debiaslib.training.run import find_run

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATION = Path("/etc/slurm/slurm.conf")
NEEDED = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "squeue")


def _lacking():
    """Why there is no Slurm to test on, in one line, or None."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing:
        return f"no Slurm here: {', '.join(missing)} not found (apt install slurm-wlm munge)"
    if os.geteuid() != 0:
        return "Slurm's daemons are started by root"
    if CONFIGURATION.exists():
        return f"{CONFIGURATION} is there: a Slurm of this machine's own, which is left alone"
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        return "snakemake-executor-plugin-slurm is not installed (pip install 'debiaslib[slurm]')"
    return None


pytestmark = [pytest.mark.slow, pytest.mark.skipif(_lacking() is not None, reason=str(_lacking()))]

SLURM = """
ClusterName=debiaslib
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=30
MessageTimeout=60
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def ask(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def wait_for(condition, seconds, what):
    """The first value of `condition()` that is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"after {seconds} s: {what()}"
        time.sleep(0.5)
    return value


def ports():
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        return one.getsockname()[1], other.getsockname()[1]


@pytest.fixture
def slurm(tmp_path):
    """A Slurm of this machine with two processors, for as long as the test takes."""
    folder, host = tmp_path / "slurm", socket.gethostname().partition(".")[0]
    for name in ("state", "spool"):
        (folder / name).mkdir(parents=True)
    for parent in [folder, *folder.parents][:-1]:
        parent.chmod(parent.stat().st_mode | 0o011)  # munge insists that others can reach its socket
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o400)
    munge = [f"--{name}={folder}/munge.{name.partition('-')[0]}" for name in ("socket", "log-file", "pid-file")]
    commands = [["munged", "--foreground", "--force", f"--key-file={folder}/key", f"--seed-file={folder}/seed", *munge],
                ["slurmctld", "-D"], ["slurmd", "-D", "-N", host]]  # fmt: skip
    daemons = []
    try:
        CONFIGURATION.write_text(SLURM.format(folder=folder, host=host, ports=ports()))
        for command in commands:
            with open(folder / f"{command[0]}.out", "w") as said:
                daemons.append(subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True))
            time.sleep(1)
        wait_for(lambda: "idle" in ask("sinfo", "-h").stdout, 60, lambda: ask("sinfo").stderr)
        yield
    finally:
        CONFIGURATION.unlink()
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(30)


@pytest.fixture
def experiment(tmp_path):
    """A YAML file of two trainings of some seconds."""
    network = {"block_out_channels": [8, 8], "layers_per_block": 1, "norm_num_groups": 4, "add_attention": False,
               "down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2}  # fmt: skip
    training = {"resolution": 8, "images": 1200, "batch_size": 4, "network": network}
    settings = {"preset": "minifaces16", "weightings": ["constant", "debiased"], "features": ["pooled"],
                "notebooks": ["06_fid_evaluation"], "training": training}  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path / "tiny.yaml"


@contextlib.contextmanager
def snakemake(experiment, results):
    """The engine at work on both trainings, by the profile for users but for what a cluster of its own has."""
    folder, records = results / "tiny", [f"runs/{name}-s0/record.json" for name in ("constant", "debiased")]
    folder.mkdir(parents=True)
    # A GPU, the memory and the account of the profile are what every user edits.
    ours = ["--set-resources", "train:gres=", "--default-resources", "runtime=30", "mem_mb=100", "cpus_per_task=1"]
    ours += ["--slurm-status-command", "squeue", "--slurm-init-seconds-before-status-checks", "3"]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder),
               "--profile", str(ROOT / "config" / "slurm"), "--nolock", "--rerun-incomplete", *ours,
               "--config", f"experiment={experiment}", f"results={results}", "--", *records]  # fmt: skip
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    with open(results / "engine.log", "w") as log:
        engine = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        yield engine
    finally:
        if engine.poll() is None:
            os.killpg(engine.pid, signal.SIGKILL)
        engine.wait(60)


def task_of(run):
    """The task of a job array that trains `run`, as Slurm names it (array_task), from its process's environment."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            open_files = [os.readlink(handle) for handle in (process / "fd").iterdir()]
            if str(run.folder / ".lock") in open_files:
                lines = (process / "environ").read_text().split("\0")
                variables = dict(line.partition("=")[::2] for line in lines)
                if "SLURM_ARRAY_JOB_ID" in variables:
                    return f"{variables['SLURM_ARRAY_JOB_ID']}_{variables['SLURM_ARRAY_TASK_ID']}"
    raise AssertionError(f"no task holds {run.folder}")


def test_a_requeued_training_ends_as_one_that_was_not(slurm, experiment, tmp_path):
    results, settings = tmp_path / "cluster", load_experiment(str(experiment))
    run = find_run("tiny", "debiased", 0, results)

    def said():
        log = results / "tiny" / "logs" / "train-debiased-s0.log"
        return (results / "engine.log").read_text()[-2000:] + (log.read_text()[-2000:] if log.exists() else "")

    with snakemake(experiment, results) as engine:
        wait_for(lambda: run.log() or engine.poll() is not None, 300, said)
        job = task_of(run)
        array = job.partition("_")[0]
        assert {f"{array}_1", f"{array}_2"} >= set(ask("squeue", "-h", "-r", "-o", "%i").stdout.split()) >= {job}
        assert ask("scontrol", "requeue", job).returncode == 0
        wait_for(lambda: "PENDING" in ask("squeue", "-h", "-j", job, "-o", "%T").stdout, 60, said)
        saved, _ = load_checkpoint(run.folder / "checkpoints")
        assert 0 < saved < 300 and run.record is None  # stopped in the middle, at a step of its own choice
        ask("scontrol", "update", f"jobid={job}", "StartTime=now")  # Slurm would wait two minutes
        assert engine.wait(600) == 0, said()
        assert "Restarts=1" in ask("scontrol", "show", "job", job).stdout
    for arm, seed in settings.runs:
        local = train(settings.train_config(arm, seed), tmp_path / "local", "tiny", progress=False)
        remote = find_run("tiny", arm, seed, results)
        assert remote.record["snapshots"] == local.record["snapshots"] and remote.record["raw"] == local.record["raw"]
