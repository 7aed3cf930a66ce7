from pathlib import Path

import pytest

from vagrant import kernels_page

JUNIT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite name="pytest" timestamp="{day}T10:11:12.5">
<testcase classname="tests.vm.test_attach" name="test_one" time="1"/>
<testcase classname="tests.vm.test_attach" name="test_two[a]" time="1">
  <skipped type="pytest.skip" message="needs a moon">where</skipped></testcase>
<testcase classname="tests.vm.test_disk" name="test_three" time="1">{more}</testcase>
</testsuite></testsuites>
"""


def results(folder: Path, release: str, more: str = "", day: str = "2026-01-02") -> None:
    folder.mkdir(exist_ok=True)
    (folder / f"vm-tests-{release}.xml").write_text(JUNIT.format(more=more, day=day))


def test_kernels_are_columns_and_files_are_rows(tmp_path: Path) -> None:
    results(tmp_path / "a", "6.12.9-amd64", more="<failure message='no'/>", day="2026-03-04")
    results(tmp_path / "b", "6.1.0-56-amd64")
    where = tmp_path / "page.md"
    assert kernels_page.main(tmp_path, where) == 0
    table = [line for line in where.read_text().splitlines() if line.startswith("|")]
    assert table == [
        "| tests | Linux 6.1.0-56-amd64 | Linux 6.12.9-amd64 |",
        "| --- | --- | --- |",
        "| day | 2026-01-02 | 2026-03-04 |",
        "| `tests/vm/test_attach.py` | 1 passed, 1 skipped | 1 passed, 1 skipped |",
        "| `tests/vm/test_disk.py` | 1 passed | 1 failed |",
    ]
    assert where.read_text().endswith("\n## Skipped\n\n- needs a moon: `tests/vm/test_attach.py`\n")


def test_the_newest_result_of_a_test_counts(tmp_path: Path) -> None:
    results(tmp_path / "a", "6.1.0-56-amd64", day="2026-03-04")
    results(tmp_path / "b", "6.1.0-56-amd64", more="<failure message='no'/>", day="2026-01-02")
    (run,) = kernels_page.read_runs(tmp_path.rglob("*.xml"))
    assert (run.summary("tests/vm/test_disk.py"), run.date) == ("1 passed", "2026-03-04")


def test_an_error_in_a_fixture_is_no_pass(tmp_path: Path) -> None:
    results(tmp_path, "6.1.0-56-amd64", more="<error message='broken'/>")
    (run,) = kernels_page.read_runs(tmp_path.glob("*.xml"))
    assert run.summary("tests/vm/test_disk.py") == "1 failed"


def test_no_results_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert kernels_page.main(tmp_path, tmp_path / "page.md") == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "page.md").exists()


def test_the_page_in_the_docs_is_of_this_form() -> None:
    told = kernels_page.PAGE.read_text()
    assert told.startswith(kernels_page.INTRODUCTION)
    rows = [line for line in told.splitlines() if line.startswith("| `")]
    assert rows
    for line in rows:
        assert (kernels_page.TREE / line.split("`")[1]).exists(), line
