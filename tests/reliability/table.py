"""Write the figures that the reliability tests reached into RELIABILITY.md.

    python tests/reliability/table.py JUNIT.xml

``JUNIT.xml`` is what ``pytest --junitxml`` wrote; ``make reliability`` calls both. A test that failed is a row too.
"""

import datetime
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "RELIABILITY.md"
BEGIN, END = "<!-- last run: begin -->", "<!-- last run: end -->"


def rows_of(junit):
    """``(item, what, wanted, got)`` of every figure noted in the file, and of every test that failed, by item."""
    rows = []
    for case in ElementTree.parse(junit).getroot().iter("testcase"):
        name = case.get("classname", "").rpartition(".")[2] + "::" + case.get("name", "")
        if case.find("failure") is not None or case.find("error") is not None:
            rows.append((0, f"`{name}`", "to pass", "**failed**"))
            continue
        for noted in case.iter("property"):
            if noted.get("name") == "reliability":
                rows.append(tuple(json.loads(noted.get("value"))))
    return sorted(rows, key=lambda row: row[:2])


def table(rows, seconds):
    """The Markdown between the two marks of the page."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True)
    lines = [
        f"{datetime.date.today():%Y-%m-%d}, commit {commit.stdout.strip()}, Python {platform.python_version()}, "
        f"{platform.system()}, {os.cpu_count()} cores, {seconds / 60:.0f} minutes.",
        "",
        "| item | what was tried | wanted | reached |",
        "|---|---|---|---|",
    ]
    for item, *texts in rows:
        lines.append("| " + " | ".join([str(item or "–"), *(text.replace("|", "\\|") for text in texts)]) + " |")
    return "\n".join(lines)


def main(junit):
    """Replace what stands between the marks of RELIABILITY.md."""
    seconds = sum(float(suite.get("time", 0)) for suite in ElementTree.parse(junit).getroot().iter("testsuite"))
    text = PAGE.read_text(encoding="utf-8")
    new = f"{BEGIN}\n{table(rows_of(junit), seconds)}\n{END}"
    PAGE.write_text(re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: new, text, flags=re.DOTALL), "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
