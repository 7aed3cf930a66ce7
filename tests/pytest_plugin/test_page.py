"""docs/pytest.md, compared with the plugin: its options, and its example of a workflow."""

import re
from pathlib import Path

import pytest
import yaml

from vscsihba import pytest_plugin

PAGE = (Path(__file__).parents[2] / "docs/pytest.md").read_text()


def options() -> set[str]:
    """Return the options of the plugin."""
    parser = pytest.Parser(_ispytest=True)
    pytest_plugin.pytest_addoption(parser)
    group = parser.getgroup("vscsihba")
    return {name for option in group.options for name in option.names()}


def test_the_page_has_the_options_of_the_plugin() -> None:
    assert set(re.findall(r"--vscsi[\w-]*\w", PAGE)) == options()


def test_the_workflow_runs_the_tests_as_an_ordinary_user() -> None:
    (text,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (job,) = yaml.safe_load(text)["jobs"].values()
    assert job["container"] == "debian:12"  # by its name alone: without options, it has no privileges
    *_, tests = [step["run"] for step in job["steps"] if "run" in step]
    assert tests.startswith("setpriv --reuid=tester")
    assert set(re.findall(r"--vscsi[\w-]*\w", tests)) <= options()
