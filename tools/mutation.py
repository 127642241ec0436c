"""Mutation testing: change the loss weight's three files in every small way, and see that a test notices each change.

    python tools/mutation.py                # all of it, and the part of RELIABILITY.md
    python tools/mutation.py --match clamp  # only mutants of lines with this text; nothing is written

A mutant is killed when a test of TESTS fails, is not collected, or takes five times its usual processor time. One that
survives must be explained in mutation_survivors.yaml: which line becomes what, and why no test can notice it. An
explanation without a survivor is an error too. Needs tools/requirements.txt.
"""

import argparse
import collections
import itertools
import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import yaml
from reliability_page import REPOSITORY, put, stamp

WANTED = 0.95
# The files, and the tests that are to notice: those of the file itself first.
TESTS = {
    "debiaslib/diffusion/schedule.py": [
        "tests/diffusion/test_schedule.py",
        "tests/diffusion/test_weighting.py",
        "tests/diffusion/test_prediction.py",
    ],
    "debiaslib/diffusion/weighting.py": ["tests/diffusion/test_weighting.py"],
    "debiaslib/diffusion/prediction.py": ["tests/diffusion/test_prediction.py", "tests/diffusion/test_weighting.py"],
}
EXPLANATIONS = REPOSITORY / "tools" / "mutation_survivors.yaml"


@dataclass(frozen=True)
class Baseline:
    """How the tests of one test file go on the unchanged package."""

    seconds: dict  # {test: seconds}
    total: float  # seconds of processor time, imports included

    @property
    def limit(self):
        """Seconds of processor time after which a mutant counts as killed."""
        return 10 + 5 * self.total


def measure_baselines():
    """{test file: Baseline}. Raises RuntimeError where a test fails on the unchanged package."""
    found = {}
    for name in dict.fromkeys(itertools.chain(*TESTS.values())):
        trial = run_tests([name], limit=3600)
        if trial.outcome != "passed":
            raise RuntimeError(f"{name} {trial.outcome} without any mutant:\n{trial.printed}")
        found[name] = Baseline(trial.seconds, trial.total)
        print(f"{name}: {len(trial.seconds)} tests, {found[name].total:.1f} s", file=sys.stderr)
    return found


def try_mutant(mutant, baselines):
    """The `Trial` of the first test file that notices the mutant, or of the last."""
    for name in TESTS[mutant.path]:
        base, module = baselines[name], mutant.path.removesuffix(".py").replace("/", ".")
        trial = run_tests([name], base.limit, module=module, source=mutant.source, seconds=base.seconds)
        if trial.outcome != "passed":
            break
    return trial


def try_all(mutants, baselines, jobs):
    """[(mutant, trial)] in the order of the mutants; survivors are printed as they come."""
    results, begin = [], time.monotonic()
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        trials = pool.imap(partial(try_mutant, baselines=baselines), mutants)
        for done, (mutant, trial) in enumerate(zip(mutants, trials, strict=True), 1):
            results.append((mutant, trial))
            if trial.outcome == "passed":
                print(f"survived: {mutant}", flush=True)
            if done % 100 == 0:
                print(f"{done} of {len(mutants)}, {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    return results


def explained():
    """{(path, line, becomes): why} of mutation_survivors.yaml. Raises ValueError where one is explained twice."""
    found = {}
    for group in yaml.safe_load(EXPLANATIONS.read_text(encoding="utf-8")):
        for one in group["mutants"]:
            key = group["file"], one["line"], one["becomes"]
            if key in found:
                raise ValueError(f"{EXPLANATIONS.name} explains twice: {key}")
            found[key] = group["why"]
    return found


def key_of(mutant):
    return mutant.path, mutant.line, mutant.becomes


def score_table(results):
    """Markdown: how many mutants of each file were made and killed."""
    lines = ["| file | mutants | killed | of these by the time limit | survived | killed, % |", "|---|" + "---:|" * 5]
    groups = {path: [r for r in results if r[0].path == path] for path in TESTS}
    groups["cosmic-ray's"] = [r for r in results if not r[0].ours]
    groups["of our operators"] = [r for r in results if r[0].ours]
    groups["all"] = results
    for name, group in groups.items():
        counts = collections.Counter(trial.outcome for _, trial in group)
        killed = len(group) - counts["passed"]
        share = f"{100 * killed / len(group):.1f}" if group else ""
        lines.append(f"| {name} | {len(group)} | {killed} | {counts['timed out']} | {counts['passed']} | {share} |")
    return "\n".join(lines)


def survivor_table(survivors, reasons):
    """Markdown: every survivor with the reason, those of one place and one reason together."""
    grouped = collections.defaultdict(list)
    for mutant in survivors:
        place = f"{mutant.path.removeprefix('debiaslib/')}:{mutant.number}"
        grouped[place, mutant.line, reasons.get(key_of(mutant), "**unexplained**")].append(mutant.becomes)
    lines = ["| place | line | survives as | why no test can notice |", "|---|---|---|---|"]
    for (place, line, why), becomes in grouped.items():
        cells = [place, _code(line), "<br>".join(map(_code, becomes)), " ".join(why.split())]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _code(text):
    return "`" + text.replace("|", "\\|") + "`" if text else "(left out)"


def problems(results, reasons, whole):
    """What is not as it should be, a line each."""
    survivors = [mutant for mutant, trial in results if trial.outcome == "passed"]
    found = [f"unexplained: {mutant}" for mutant in survivors if key_of(mutant) not in reasons]
    if whole:
        stale = set(reasons) - {key_of(mutant) for mutant in survivors}
        found += [f"explained, but does not survive: {' | '.join(key)}" for key in sorted(stale)]
        killed = 1 - len(survivors) / len(results)
        found += [f"{100 * killed:.1f} % killed; wanted {100 * WANTED:.0f} %"] if killed < WANTED else []
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--match", help="only mutants whose line, before or after, has this text; writes nothing")
    parser.add_argument("--file", choices=TESTS, help="only mutants of this file; writes nothing")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side")
    options = parser.parse_args(arguments)
    begin, whole = time.monotonic(), not (options.match or options.file)
    made = [mutant for path in TESTS for mutant in mutants(path, Path(path).read_text(encoding="utf-8"))]
    made = [one for one in made if options.file in (None, one.path) and (options.match or "") in one.line + one.becomes]
    if not made:
        parser.error("no mutant is of such a line")
    import_what_is_imported([*dict.fromkeys(itertools.chain(*TESTS.values())), *TESTS], without={"debiaslib"})
    results, reasons = try_all(made, measure_baselines(), options.jobs), explained()
    survivors = [mutant for mutant, trial in results if trial.outcome == "passed"]
    print(score_table(results))
    wrong = problems(results, reasons, whole)
    for line in wrong:
        print(line, file=sys.stderr)
    if whole:
        text = [stamp(time.monotonic() - begin) + ".", score_table(results), survivor_table(survivors, reasons)]
        put("mutation testing", "\n\n".join(text))
    return 1 if wrong else 0


if __name__ == "__main__":
    os.chdir(REPOSITORY)
    sys.path.insert(0, str(REPOSITORY))
    try:
        from mutation_operators import mutants
        from mutation_trial import import_what_is_imported, run_tests
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed: pip install -r tools/requirements.txt")
    sys.exit(main())
