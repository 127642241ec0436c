"""`python -m debiaslib.training`: the command of `loop.py`."""

from ..cli import run_command
from .loop import main

if __name__ == "__main__":
    run_command(main)
