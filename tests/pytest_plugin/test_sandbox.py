"""A session in the sandbox: its command and its folders; the sandbox itself is a fake."""

import os
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from vscsihba.errors import SandboxError
from vscsihba.pytest_plugin import sandbox
from vscsihba.sandbox import Plan, Report
from vscsihba.sandbox.surroundings import INSIDE

pytest_plugins = ["pytester"]

EXIT_CODE = 7


@pytest.fixture
def plans(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> list[Plan]:
    """The plans that were run, each with exit code 7; a test that runs outside the sandbox fails."""
    run: list[Plan] = []
    output = os.fstat(1)

    def run_plan(plan: Plan, **_how: object) -> Report:
        assert os.path.samestat(os.fstat(1), output), "pytest has captured the output of the sandbox"
        run.append(plan)
        return Report(exit_code=EXIT_CODE, kernel="6.1.0", boot_seconds=1, seconds=2)

    for name in (INSIDE, "COVERAGE_FILE", "PYTEST_ADDOPTS", "PYTEST_DEBUG_TEMPROOT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sandbox, "run_plan", run_plan)
    pytester.makepyfile("def test_it(): assert False, 'outside'")
    return run


def start(*arguments: str) -> int:
    """Start pytest in this process, as no other in-process run of pytester does: without plugin objects."""
    try:
        return pytest.main(list(arguments))
    except SystemExit as end:
        return int(end.code or 0)


def run_one(plans: list[Plan], *arguments: str) -> Plan:
    """Run a session in the sandbox, and return its plan."""
    assert start("--vscsi-sandbox", *arguments) == EXIT_CODE
    (plan,) = plans
    return plan


def test_the_session_is_the_same_in_the_sandbox(pytester: pytest.Pytester, plans: list[Plan]) -> None:
    arguments = ["-x", "-s", "-k", "a or b", "--junitxml=r.xml"]
    plan = run_one(plans, *arguments)
    assert plan.command[0] == sys.executable
    assert list(plan.command)[1:3] == ["-m", "pytest"]
    assert [word for word in plan.command if word in arguments] == arguments
    assert plan.cwd == pytester.path
    assert plan.writable == [pytester.path]
    assert plan.environ[INSIDE] == "1"
    assert (plan.memory, plan.scratch, plan.timeout, plan.kernel, plan.verbose) == (
        1 << 30,
        0,
        None,
        None,
        False,
    )


@pytest.mark.parametrize("where", ["pyproject.toml", "PYTEST_ADDOPTS"])
def test_the_option_can_stand_elsewhere(
    pytester: pytest.Pytester, plans: list[Plan], monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "pyproject.toml":
        pytester.makepyprojecttoml('[tool.pytest.ini_options]\naddopts = "--vscsi-sandbox"\n')
    else:
        monkeypatch.setenv("PYTEST_ADDOPTS", "--vscsi-sandbox")
    assert start("-q", "-p", "no:cacheprovider") == EXIT_CODE
    assert [word for word in plans[0].command if word in {"-q", "no:cacheprovider"}] == [
        "-q",
        "no:cacheprovider",
    ]


def test_nothing_of_the_session_happens_outside(pytester: pytest.Pytester, plans: list[Plan]) -> None:
    pytester.makeconftest("raise AssertionError('loaded outside of the sandbox')")
    data = pytester.path / ".coverage"
    data.write_bytes(b"of an earlier session")
    run_one(plans, "--cov=.")
    assert data.read_bytes() == b"of an earlier session"
    assert not (pytester.path / ".pytest_cache").exists()


def test_inside_the_sandbox_the_option_does_nothing(
    pytester: pytest.Pytester, plans: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(INSIDE, "1")
    pytester.runpytest_inprocess("--vscsi-sandbox").assert_outcomes(failed=1)
    assert plans == []


def test_help_needs_no_sandbox(pytester: pytest.Pytester, plans: list[Plan]) -> None:
    done = pytester.runpytest_inprocess("--vscsi-sandbox", "--help")
    done.stdout.fnmatch_lines(["*--vscsi-sandbox *", "*--vscsi-sandbox-memory=SIZE*"])
    assert (done.ret, plans) == (0, [])


def test_options_of_the_sandbox(pytester: pytest.Pytester, plans: list[Plan]) -> None:
    plan = run_one(
        plans,
        *("--vscsi-sandbox-memory=512MiB", "--vscsi-sandbox-scratch=1GiB", "--vscsi-sandbox-kernel=6.12"),
        *("--vscsi-sandbox-timeout=60", "--vscsi-sandbox-verbose"),
    )
    assert (plan.memory, plan.scratch, plan.timeout, plan.kernel) == (512 << 20, 1 << 30, 60, "6.12")
    assert plan.verbose
    assert plan.environ["PYTEST_DEBUG_TEMPROOT"] == plan.environ["VSCSIHBA_SCRATCH"] == "/run/scratch"


@pytest.mark.parametrize(
    "option",
    [
        "--junitxml={}/reports/today/r.xml",
        "--basetemp={}/reports",
        "--basetemp={}/there",
        "--log-file={}/reports",
        "--cov-report=html:{}/reports/html",
        "--cov-report=xml:{}/cov.xml",
        "--vscsi-sandbox-writable={}",
        "--override-ini=cache_dir={}/cache",
    ],
)
def test_the_folders_of_reports_are_written_through(
    pytester: pytest.Pytester, plans: list[Plan], tmp_path_factory: pytest.TempPathFactory, option: str
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "there").mkdir()  # pytest removes such a folder, and a mount point cannot be removed
    plan = run_one(plans, option.format(elsewhere))
    assert plan.writable == sorted([pytester.path, elsewhere])


def test_the_file_of_coverage_is_written_through(
    pytester: pytest.Pytester, plans: list[Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setenv("COVERAGE_FILE", str(elsewhere / "data"))
    assert elsewhere in run_one(plans, "--cov=.", "--cov-report=term:skip-covered").writable


def test_rootdir_and_current_folder_are_written_through(
    pytester: pytest.Pytester, plans: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makeini("[pytest]\n")
    folder = pytester.mkdir("below")
    monkeypatch.chdir(folder)
    plan = run_one(plans, "--junitxml=/run/inside-only.xml")
    assert (plan.cwd, plan.writable) == (folder, [pytester.path])


def test_colours_where_only_the_output_is_a_terminal(
    pytester: pytest.Pytester, plans: list[Plan], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sandbox, "_is_shown", lambda: True)
    plan = run_one(plans)
    assert "--color=yes" in plan.command
    assert plan.environ["COLUMNS"].isdigit()
    assert start("--vscsi-sandbox", "--color=no") == EXIT_CODE
    assert "--color=yes" not in plans[-1].command


@pytest.mark.parametrize(
    ("started", "again"),
    [
        (["python", "-W", "error", "-m", "pytest"], ["-W", "error", "-m", "pytest"]),
        (["/venv/bin/python", "-X", "dev", "/venv/bin/pytest"], ["-X", "dev", "/venv/bin/pytest"]),
        (["python", "-m", "coverage", "run", "-m", "pytest"], ["-m", "pytest"]),
        (["python", "all_tests.py"], ["-m", "pytest"]),
    ],
)
def test_python_is_started_as_this_one_was(
    pytester: pytest.Pytester,
    plans: list[Plan],
    monkeypatch: pytest.MonkeyPatch,
    started: list[str],
    again: list[str],
) -> None:
    arguments = ["--vscsi-sandbox", "-p", "no:cacheprovider"]
    config = pytester.parseconfig("-p", "no:cacheprovider")
    monkeypatch.setattr(sys, "argv", ["pytest", *arguments])
    monkeypatch.setattr(sys, "orig_argv", [*started, *arguments])
    assert sandbox.command(config)[1:3] == ["-m", "pytest"]  # other arguments: pytest.main of a program
    invocation = pytest.Config.InvocationParams(args=arguments, plugins=None, dir=pytester.path)
    monkeypatch.setattr(config, "invocation_params", invocation)
    assert sandbox.command(config) == [sys.executable, *again, *arguments]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--vscsi-sandbox-kernel=/no/linux.uml"], "*/no/linux.uml is not an executable; *"),
        (["--vscsi-sandbox-memory=1MiB"], "*--vscsi-sandbox-memory 1MiB is too little for Linux; *"),
        (["--vscsi-sandbox-memory=much"], "*much*"),
        (["--vscsi-sandbox-timeout=0"], "*--vscsi-sandbox-timeout must be more than 0; *"),
        (["--vscsi-sandbox-writable=none"], "*--vscsi-sandbox-writable *none: no such folder; *"),
        (["--rootdir=/"], "*rootdir /: the root cannot be written through; *"),
        (["--junitxml=/dev/shm/r.xml"], "*folder /dev/shm: the sandbox has a /dev of its own; *"),
    ],
)
def test_a_sandbox_that_cannot_be_made_is_one_line(
    pytester: pytest.Pytester,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.delenv(INSIDE, raising=False)
    assert start("--vscsi-sandbox", *arguments) == pytest.ExitCode.USAGE_ERROR
    out, err = capfd.readouterr()
    assert out == ""
    assert fnmatch(err, f"ERROR: --vscsi-sandbox: {message}\n\n")
    assert len(err.splitlines()) == 2


def test_cures_name_the_options_of_pytest(
    plans: list[Plan], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_what: object, **_how: object) -> Report:
        raise SandboxError("no room", cure='use --memory, or "vscsihba sandbox --fetch --kernel 6.12"')

    monkeypatch.setattr(sandbox, "run_plan", fail)
    assert start("--vscsi-sandbox") == pytest.ExitCode.USAGE_ERROR
    assert capsys.readouterr().err.strip() == (
        "ERROR: --vscsi-sandbox: no room; use --vscsi-sandbox-memory, "
        'or "vscsihba sandbox --fetch --kernel 6.12"'
    )


def test_the_end_of_the_time_is_told(
    plans: list[Plan], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def late(*_what: object, **_how: object) -> Report:
        return Report(exit_code=124, kernel="6.1.0", boot_seconds=1, seconds=2, timed_out=True)

    monkeypatch.setattr(sandbox, "run_plan", late)
    assert start("--vscsi-sandbox", "--vscsi-sandbox-timeout=2") == 124
    assert capsys.readouterr().err == (
        "--vscsi-sandbox: the time limit of 2 s was reached, and the sandbox ended\n"
    )


def test_plugins_that_are_objects_are_refused(plans: list[Plan], capsys: pytest.CaptureFixture[str]) -> None:
    assert pytest.main(["--vscsi-sandbox"], plugins=[object()]) == pytest.ExitCode.USAGE_ERROR
    assert "plugins that are Python objects cannot go into the sandbox; name" in capsys.readouterr().err
    assert plans == []
