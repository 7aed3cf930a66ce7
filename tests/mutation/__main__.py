"""Mutation testing from the command line: ``./dev mutate [MODULE ...]``."""

import argparse
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace

from tests.mutation import results
from tests.mutation.modules import TARGETS, Target
from tests.mutation.mutants import Mutant, mutants
from tests.mutation.runner import TOP, UntestableError, spread, tried


def chosen(wanted: argparse.Namespace, target: Target, every: Sequence[Mutant]) -> list[Mutant]:
    """Return the mutants of a module that are to be tried."""
    if wanted.survivors:
        survived = {verdict.key for verdict in results.kept(target, every) if not verdict.noticed}
        return [mutant for mutant in every if (mutant.code, mutant.what, mutant.number) in survived]
    found = [mutant for mutant in every if wanted.line in (None, mutant.line)]
    if wanted.new:
        known = {verdict.key for verdict in results.kept(target, every)}
        found = [mutant for mutant in found if (mutant.code, mutant.what, mutant.number) not in known]
    return list(spread(found, wanted.sample))


def examine(target: Target, wanted: argparse.Namespace) -> None:
    """Try mutants of a module and keep the verdicts.

    Raises:
        UntestableError: The tests fail without a fault.
    """
    every = list(mutants((TOP / target.path).read_text(encoding="utf-8")))
    verdicts = {verdict.key: verdict for verdict in results.kept(target, every)}
    to_try = chosen(wanted, target, every)
    if to_try:
        tests = (*target.tests, *(("-k", wanted.k) if wanted.k else ()))
        for verdict in tried(replace(target, tests=tests), to_try, most=wanted.seconds):
            verdicts[verdict.key] = verdict
            results.keep(target, list(verdicts.values()))
            if not verdict.noticed:
                print(f"survived: {target.path}:{verdict.line}: {verdict.what} {verdict.by}", flush=True)
    survivors = sum(not verdict.noticed for verdict in verdicts.values())
    print(
        f"{target.path}: {len(to_try)} mutants tried now, {len(verdicts)} of {len(every)} so far, "
        f"{survivors} survive",
        flush=True,
    )
    if wanted.write_docs:
        write_summary(target)


def write_summary(target: Target) -> None:
    """Keep the verdicts on a module for the documentation, if there are any."""
    every = list(mutants((TOP / target.path).read_text(encoding="utf-8")))
    if verdicts := results.kept(target, every):
        results.summarize(target, len(every), verdicts)


def main() -> int:
    """Try the mutants that the command line names; 1 if a module cannot be tested."""
    names = [target.name for target in TARGETS]
    parser = argparse.ArgumentParser(
        prog="./dev mutate",
        description="Does a test notice a fault in a critical line? Verdicts are kept in build/mutation/.",
    )
    parser.add_argument(
        "modules", nargs="*", metavar="MODULE", help="such as handlers/durable; all by default"
    )
    parser.add_argument(
        "--sample", type=int, default=0, help="mutants of each module, spread over it; all by default"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=math.inf,
        help="leave out the longest tests of each mutant, those beyond so many seconds of processor time",
    )
    parser.add_argument("-k", metavar="EXPRESSION", help="only tests that match, as pytest's option")
    parser.add_argument("--new", action="store_true", help="only mutants that have not been tried yet")
    parser.add_argument("--survivors", action="store_true", help="only mutants that survived earlier runs")
    parser.add_argument("--line", type=int, help="only the mutants of one line")
    parser.add_argument(
        "--write-docs",
        action="store_true",
        help="write the verdicts on these modules into the documentation",
    )
    parser.add_argument(
        "--docs-only",
        action="store_true",
        help="write all verdicts of build/mutation/ into the documentation, and try nothing",
    )
    wanted = parser.parse_args()
    if unknown := sorted(set(wanted.modules) - set(names)):
        parser.error(f"no module {', '.join(unknown)}; known are {', '.join(names)}")
    if wanted.docs_only:
        for target in TARGETS:
            write_summary(target)
        results.DOCS.write_text(results.page(results.summaries()), encoding="utf-8")
        return 0
    chosen_names = wanted.modules or names
    if len(chosen_names) > 1:
        return _each_in_a_process(chosen_names, sys.argv[1:])
    (target,) = [target for target in TARGETS if target.name == chosen_names[0]]
    try:
        examine(target, wanted)
    except UntestableError as error:
        print(f"{target.path}: {error}")
        return 1
    if wanted.write_docs:
        results.DOCS.write_text(results.page(results.summaries()), encoding="utf-8")
    return 0


def _each_in_a_process(names: Sequence[str], arguments: Sequence[str]) -> int:
    """Examine modules one after the other, each in a process that has not imported it."""
    options = [argument for argument in arguments if argument not in names]
    statuses = [
        subprocess.run([sys.executable, "-m", "tests.mutation", *options, name], check=False).returncode
        for name in names
    ]
    return int(any(statuses))


if __name__ == "__main__":
    sys.exit(main())
