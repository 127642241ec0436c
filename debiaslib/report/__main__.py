"""`python -m debiaslib.report`: the command of `report.py`."""

from ..cli import run_command
from .report import main

if __name__ == "__main__":
    run_command(main)
