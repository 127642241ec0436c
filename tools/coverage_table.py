"""The branch coverage of debiaslib into RELIABILITY.md, from the data that `make coverage` has combined.

    python tools/coverage_table.py SECONDS

SECONDS: how long the tests took. The exit code is 1 where less than pyproject.toml's `fail_under` percent were run, of
the branches or of the lines and branches together, which is what coverage.py calls the coverage.
"""

import json
import sys
import tempfile
from pathlib import Path

import coverage
from reliability_page import put, stamp


def measured():
    """(coverage.py's JSON report as a dict, the percentage that is wanted)."""
    data = coverage.Coverage()
    data.load()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "coverage.json"
        data.json_report(outfile=str(file))
        return json.loads(file.read_text(encoding="utf-8")), data.get_option("report:fail_under")


def share(covered, possible):
    """Percent; 100 where nothing can be run."""
    return 100 * covered / possible if possible else 100.0


def figures(summary):
    """(lines, branches, both together) in percent, of the summary of a file or of the totals."""
    lines, branches = summary["covered_lines"], summary["covered_branches"]
    of_lines, of_branches = summary["num_statements"], summary["num_branches"]
    together = share(lines + branches, of_lines + of_branches)
    return share(lines, of_lines), share(branches, of_branches), together


def text(report, wanted):
    """Markdown: the totals, and every module of which less than the wanted percentage was run."""
    rows = {"all of debiaslib": figures(report["totals"])}
    modules = {name: figures(file["summary"]) for name, file in sorted(report["files"].items())}
    rows |= {name: values for name, values in modules.items() if values[2] < wanted}
    lines = ["| file | lines, % | branches, % | together, % |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {' | '.join(f'{value:.1f}' for value in values)} |" for name, values in rows.items()]
    return "\n".join(lines)


def main(seconds):
    report, wanted = measured()
    put("coverage", f"{stamp(seconds)}.\n\n{text(report, wanted)}")
    print(text(report, wanted))
    return int(min(figures(report["totals"])[1:]) < wanted)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1])))
