"""`python -m debiaslib.figures`: the command of `draw.py`."""

from ..cli import check_matplotlib, run_command


def main():
    """Draw every figure again."""
    check_matplotlib()  # before matplotlib is imported
    from .draw import main as draw

    return draw()


if __name__ == "__main__":
    run_command(main)
