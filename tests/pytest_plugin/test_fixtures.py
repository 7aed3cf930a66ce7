"""The plugin in a pytest of its own, which finds it by the entry point."""

import importlib.metadata

import pytest

pytest_plugins = ["pytester"]

CONFTEST = """
    import pytest
    from vscsihba.pytest_plugin import host

    @pytest.fixture(autouse=True)
    def lacking(monkeypatch):
        monkeypatch.setattr(host, "missing", lambda: "the moon is not full; wait")
"""
TEST = "def test_it(vscsi_disk): vscsi_disk()"


def test_the_entry_point_names_the_plugin() -> None:
    (point,) = importlib.metadata.entry_points(group="pytest11", name="vscsihba")
    assert point.value == "vscsihba.pytest_plugin"


def test_a_machine_that_cannot_is_a_skip_with_the_reason(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TEST)
    done = pytester.runpytest_subprocess("-rs")
    done.assert_outcomes(skipped=1)
    done.stdout.fnmatch_lines("*no virtual SCSI disks here: the moon is not full; wait*")


def test_where_disks_are_required_it_is_a_failure(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(TEST)
    done = pytester.runpytest_subprocess("--vscsi-required")
    done.assert_outcomes(errors=1)
    done.stdout.fnmatch_lines("*no virtual SCSI disks here: the moon is not full; wait*")


def test_a_project_that_asks_for_no_disk_pays_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys

        def test_it():
            assert not [name for name in sys.modules if name.startswith("vscsihba.hba")]
    """)
    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_the_fixtures_are_listed_with_what_they_do(pytester: pytest.Pytester) -> None:
    done = pytester.runpytest_subprocess("--fixtures", "-p", "no:cacheprovider")
    done.stdout.fnmatch_lines(["vscsi_hba*", "vscsi_disk*"])
