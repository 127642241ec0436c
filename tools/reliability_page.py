"""Parts of RELIABILITY.md that a command writes anew, each between two marks of its own."""

import datetime
import os
import platform
import re
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "RELIABILITY.md"


def stamp(seconds):
    """When, with what and in how many minutes."""
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=REPOSITORY, capture_output=True, text=True)
    return (
        f"{datetime.date.today():%Y-%m-%d}, commit {commit.stdout.strip()}, Python {platform.python_version()}, "
        f"{platform.system()}, {os.cpu_count()} cores, {seconds / 60:.0f} minutes"
    )


def put(name, text, page=PAGE):
    """Replace what stands between `<!-- name: begin -->` and `<!-- name: end -->`. Raises ValueError without them."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    old = page.read_text(encoding="utf-8")
    new, found = re.subn(f"{begin}.*{end}", lambda _: f"{begin}\n{text}\n{end}", old, flags=re.DOTALL)
    if found != 1:
        raise ValueError(f"{page} has no marks {begin} and {end}, or has them twice")
    page.write_text(new, encoding="utf-8")
