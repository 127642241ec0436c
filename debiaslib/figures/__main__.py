"""`python -m debiaslib.figures`: the command of `draw.py`."""

from ..cli import run_command
from .draw import main

if __name__ == "__main__":
    run_command(main)
