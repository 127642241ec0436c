"""What every command of this package shares: errors in one line, exit codes, the arguments that name an experiment."""

import argparse
import os
import sys

from .errors import InputError
from .signals import SUPERVISED, end_with_parent


def run_command(main):
    """Run `main()` as a command: exit 0, 2 on an InputError (one line on stderr), 130 and 143 on SIGINT and SIGTERM."""
    if os.environ.get(SUPERVISED):
        end_with_parent(int(os.environ[SUPERVISED]))
    try:
        sys.exit(main() or 0)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def experiment_parser(description):
    """An argument parser with --experiment, --dataset and --results."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--experiment", default="quick", help="an experiment of config/ by name, or the path of a YAML file"
    )
    parser.add_argument(
        "--dataset", default="", help="a data set by name, path or hub id; default: the experiment's own"
    )
    parser.add_argument("--results", default="", help="the folder of all results; default: results/ of the checkout")
    return parser
