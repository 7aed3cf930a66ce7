"""Files for people who join: valid for the tools that read them, and about commands that exist."""

import re
import subprocess
from typing import Any

import pytest
import yaml

from publish.dist import TREE

HELP = subprocess.run([TREE / "dev", "help"], capture_output=True, text=True, check=True).stdout
PAGES = ("CONTRIBUTING.md", "RELEASING.md", "SECURITY.md", "CHANGELOG.md", "README.md", "packaging/README.md")


def yaml_of(name: str) -> Any:
    return yaml.safe_load((TREE / name).read_text())


@pytest.mark.parametrize("name", ["bug", "feature"])
def test_forms_of_issues_have_the_keys_that_forms_have(name: str) -> None:
    form = yaml_of(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert {"name", "description", "body"} <= set(form)
    for element in form["body"]:
        assert element["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
        assert element["attributes"].get("label" if element["type"] != "markdown" else "value")


def test_hooks_are_part_of_lint() -> None:
    lint = (TREE / "dev").read_text().partition("\nlint() {")[2].partition("\n}\n")[0]
    (repo,) = yaml_of(".pre-commit-config.yaml")["repos"]
    for hook in repo["hooks"]:
        command = hook["entry"].replace(" --force-exclude", "")
        assert command in lint, hook["id"]


def test_the_release_is_published_without_a_password_and_after_the_build() -> None:
    workflow = yaml_of(".github/workflows/release.yml")
    publish = workflow["jobs"]["publish"]
    assert workflow["permissions"] == {"contents": "read"}
    assert (publish["needs"], publish["environment"]["name"]) == ("build", "pypi")
    assert publish["permissions"] == {"id-token": "write"}
    assert "secrets." not in (TREE / ".github/workflows/release.yml").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_commands_of_the_pages_exist(name: str) -> None:
    for command in re.findall(r"\./dev ([a-z]+)", (TREE / name).read_text()):
        assert re.search(rf"^  {command}\b", HELP, re.MULTILINE), command


@pytest.mark.parametrize("name", PAGES)
def test_files_that_pages_link_to_exist(name: str) -> None:
    page = TREE / name
    for link in re.findall(r"\]\(([^)#:]+)[^):]*\)", page.read_text()):
        assert (page.parent / link).exists(), link


def test_the_changelog_has_every_released_version_once_the_newest_first() -> None:
    found = re.findall(r"^## \[([^]]+)\]", (TREE / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert found[0] == "Unreleased"
    versions = [tuple(map(int, version.split("."))) for version in found[1:]]
    assert versions == sorted(set(versions), reverse=True)
