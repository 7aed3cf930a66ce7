"""The GitHub workflow, compared with the entry points of .ci/run, since it cannot be run here."""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from vagrant.lane import cli

TREE = Path(__file__).resolve().parents[2]
WORKFLOW = TREE / ".github/workflows/tests.yml"
JOBS: dict[str, Any] = yaml.safe_load(WORKFLOW.read_text())["jobs"]


def commands() -> Iterator[list[str]]:
    """Yield the words of every command that a job runs, one for each kernel of its matrix."""
    for job in JOBS.values():
        for kernel in job.get("strategy", {}).get("matrix", {}).get("kernel", [""]):
            for step in job["steps"]:
                if "run" in step:
                    yield shlex.split(step["run"].replace("${{ matrix.kernel }}", kernel))


def entries_of_ci() -> set[tuple[str, ...]]:
    """Return the commands of .ci/run: a program, and the command of ./dev."""
    found = re.findall(r"^(\./dev \w+|vagrant/\w+)", (TREE / ".ci/run").read_text(), re.MULTILINE)
    return {tuple(line.split()) for line in found}


def entry(words: list[str]) -> tuple[str, ...]:
    return tuple(words[:2]) if words[0] == "./dev" else (words[0],)


def test_it_starts_the_same_commands_as_ci() -> None:
    assert {entry(words) for words in commands()} == entries_of_ci()


def test_every_job_runs_on_the_kernels_that_there_are() -> None:
    matrices = [job["strategy"]["matrix"]["kernel"] for job in JOBS.values() if "strategy" in job]
    assert matrices == [cli.versions()] * 2


def test_its_options_are_valid() -> None:
    told = subprocess.run([TREE / "dev", "help"], capture_output=True, text=True, check=True).stdout
    for words in commands():
        if words[0] == "vagrant/ci":
            assert cli.make_parser().parse_args(words[1:]).kernel
            continue
        assert re.search(rf"^  {words[1]}\b", told, re.MULTILINE), words
        for word in words[2:]:
            assert word in told or (TREE / word).exists() or word in cli.versions(), words


def test_the_unit_tests_run_on_each_python_that_the_package_names() -> None:
    project = tomllib.loads((TREE / "pyproject.toml").read_text())["project"]
    named = {word for word in project["classifiers"] if re.search(r":: 3\.\d+$", word)}
    pythons = {"debian:12": "3.11", "debian:13": "3.13"}
    tested = {pythons[JOBS[name]["container"]] for name in ("tree", "newest")}
    assert {word.rpartition(" ")[2] for word in named} == tested


@pytest.mark.parametrize("name", ["kernel", "vagrant"])
def test_jobs_that_boot_a_machine_have_kvm(name: str) -> None:
    assert "/dev/kvm" in JOBS[name]["container"]["options"]


def test_the_kept_folders_are_those_that_are_written() -> None:
    kept = [step["with"]["path"] for job in JOBS.values() for step in job["steps"] if "with" in step]
    written = (TREE / "dev").read_text() + (TREE / "vagrant/lane/cli.py").read_text()
    assert kept
    for path in kept:
        assert path in written
