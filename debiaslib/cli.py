"""What every command of this package shares: errors in one line, exit codes, the arguments that name an experiment."""

import argparse
import os
import sys

from .errors import InputError, check_choice, one_line
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


class Parser(argparse.ArgumentParser):
    """An argument parser that says a mistake in one line, without its usage, and ends with exit code 2."""

    def parse_args(self, args=None, namespace=None):
        found, unknown = self.parse_known_args(args, namespace)
        try:
            if unknown:
                known = [option for option in self._option_string_actions if option.startswith("--")]
                check_choice("argument", unknown[0].partition("=")[0], known)
        except InputError as error:
            self.error(str(error))
        return found

    def error(self, message):
        self.exit(2, f"error: {one_line(message)}\n")


def experiment_parser(description):
    """An argument parser with --experiment, --dataset and --results."""
    parser = Parser(description=description)
    parser.add_argument(
        "--experiment", default="quick", help="an experiment of config/ by name, or the path of a YAML file"
    )
    parser.add_argument(
        "--dataset", default="", help="a data set by name, path or hub id; default: the experiment's own"
    )
    parser.add_argument("--results", default="", help="the folder of all results; default: results/ of the checkout")
    return parser
