"""A test session in the sandbox: the same command is run there, with the folders that it writes to.

Knows pytest's options and the files that they name; `vscsihba.sandbox` runs the command.
"""

import os
import re
import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

from vscsihba.errors import UsageError, VscsihbaError
from vscsihba.sandbox import Plan, run_plan, terminal
from vscsihba.sandbox.plan import DEFAULT_MEMORY, SCRATCH
from vscsihba.sandbox.surroundings import INSIDE, environment, memory_size, writable_folder
from vscsihba.units import parse_size

OPTION: Final = "--vscsi-sandbox"
_FILES: Final = (
    *("allure_report_dir", "basetemp", "debug", "htmlpath", "json_report_file", "log_file", "report_log"),
    *("xmlpath",),
)
"""Options of pytest and of common plugins that name a file or folder to write: names of their attributes."""
_COLOUR_VARIABLES: Final = frozenset({"FORCE_COLOR", "NO_COLOR", "PY_COLORS"})
_OPTIONS_OF_THE_PROGRAM: Final = re.compile(
    r"(?<!--fetch )--(kernel|memory|scratch|timeout|verbose|writable)\b"
)
_TEMPORARY: Final = "/run"
"""Folder inside the sandbox for pytest's temporary folders. The machine's own may have a ``pytest-of-root``
of the real root, which the sandbox cannot read."""


def is_wanted(config: pytest.Config) -> bool:
    """Return whether this session is to run in the sandbox and does not run there yet."""
    options = config.known_args_namespace
    if INSIDE in os.environ or options.help or options.version:
        return False
    return bool(options.vscsi_sandbox)


def run_session(config: pytest.Config) -> int:
    """Run the whole session in the sandbox, and return its exit code.

    Args:
        config: The configuration before any conftest.py is loaded.

    Raises:
        pytest.UsageError: The sandbox cannot be started; the message is one line, with the cure.
    """
    try:
        plan = session_plan(config)
        with terminal.Waiting(quiet=plan.verbose) as waiting:
            report = run_plan(plan, on_ready=waiting.over)
    except BrokenPipeError:
        raise
    except (VscsihbaError, OSError) as error:
        message = _OPTIONS_OF_THE_PROGRAM.sub(rf"{OPTION}-\1", str(error))
        raise pytest.UsageError(f"{OPTION}: {message}") from error
    if report.timed_out:
        sys.stderr.write(
            f"{OPTION}: the time limit of {plan.timeout:g} s was reached, and the sandbox ended\n"
        )
    return report.exit_code


def session_plan(config: pytest.Config) -> Plan:
    """Return the plan of a session.

    Raises:
        VscsihbaError: An option is wrong, or a folder cannot be written through.
    """
    options = config.known_args_namespace
    if any(not isinstance(plugin, str) for plugin in config.invocation_params.plugins or ()):
        raise UsageError(
            "plugins that are Python objects cannot go into the sandbox", cure="name modules with -p"
        )
    if options.vscsi_sandbox_timeout is not None and not options.vscsi_sandbox_timeout > 0:
        raise UsageError("--timeout must be more than 0", cure="give seconds")
    memory, scratch = options.vscsi_sandbox_memory, options.vscsi_sandbox_scratch
    return Plan(
        command=command(config),
        environ=_environment(scratch=scratch is not None),
        cwd=config.invocation_params.dir,
        writable=writable_folders(config),
        kernel=options.vscsi_sandbox_kernel,
        memory=DEFAULT_MEMORY if memory is None else memory_size(memory),
        scratch=0 if scratch is None else parse_size(scratch),
        timeout=options.vscsi_sandbox_timeout,
        verbose=options.vscsi_sandbox_verbose,
    )


def command(config: pytest.Config) -> list[str]:
    """Return the command that started this session: Python's options, pytest, and the arguments.

    `OPTION` stays among the arguments, since it has no effect inside. A session that a program has started
    with ``pytest.main`` becomes ``python -m pytest``.
    """
    arguments = [os.fspath(argument) for argument in config.invocation_params.args]
    plugins = [word for plugin in config.invocation_params.plugins or () for word in ("-p", str(plugin))]
    colour = [] if terminal.is_interactive() else _colour(config.known_args_namespace)
    return [sys.executable, *_started_with(arguments), *colour, *plugins, *arguments]


def _started_with(arguments: Sequence[str]) -> list[str]:
    """Return the words between the interpreter and pytest's arguments on the command line."""
    if sys.argv[1:] == arguments:
        match sys.orig_argv[1 : len(sys.orig_argv) - len(arguments)]:
            case [*options, "-m", "pytest"] if "-m" not in options:
                return [*options, "-m", "pytest"]
            case [*options, script] if "-m" not in options and Path(script).name in {"pytest", "py.test"}:
                return [*options, script]
    return ["-m", "pytest"]


def _colour(options: Namespace) -> list[str]:
    """Return the argument for colours if pytest would use them here; in the sandbox it has only pipes."""
    decided = options.color != "auto" or not _COLOUR_VARIABLES.isdisjoint(os.environ)
    return ["--color=yes"] if _is_shown() and not decided and os.environ.get("TERM") != "dumb" else []


def _is_shown() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _environment(*, scratch: bool) -> Mapping[str, str]:
    added = {"PYTEST_DEBUG_TEMPROOT": SCRATCH if scratch else _TEMPORARY}
    if _is_shown() and not terminal.is_interactive():
        added["COLUMNS"] = str(terminal.size()[1])
    return {**added, **environment(scratch=scratch)}


def writable_folders(config: pytest.Config) -> list[Path]:
    """Return the folders that a session writes to; none of them is inside another.

    Raises:
        UsageError: The sandbox cannot write one of them through to this machine.
    """
    options, here = config.known_args_namespace, config.invocation_params.dir
    folders = {
        writable_folder(str(config.rootpath), "rootdir"),
        writable_folder(str(here), "current folder"),
        *(_folder_of(here / file) for file in _written_files(options) if not _is_inside_only(file)),
        *(_folder_of(config.rootpath / file) for file in _cache_folder(config)),
        *(writable_folder(str(here / name)) for name in options.vscsi_sandbox_writable),
    }
    return sorted(folder for folder in folders if folders.isdisjoint(folder.parents))


def _written_files(options: Namespace) -> Iterator[str]:
    for name in _FILES:
        value = getattr(options, name, None)
        if value and isinstance(value, str | os.PathLike):
            yield os.fspath(value)
    reports = getattr(options, "cov_report", None)
    if isinstance(reports, Mapping):  # pytest-cov: file or folder by kind of report
        yield from (file for kind, file in reports.items() if file and not kind.startswith("term"))
    if file := os.environ.get("COVERAGE_FILE"):
        yield file


def _cache_folder(config: pytest.Config) -> Iterator[str]:
    try:
        yield os.path.expandvars(config.getini("cache_dir"))
    except ValueError:  # -p no:cacheprovider
        return


def _is_inside_only(path: str) -> bool:
    return Path(path).is_relative_to(_TEMPORARY)


def _folder_of(path: Path) -> Path:
    """Return the nearest existing folder above a file or folder, to be written through.

    It is never the path itself: pytest removes the folder of ``--basetemp``, and a mount point cannot be
    removed.
    """
    return writable_folder(str(next(folder for folder in path.parents if folder.is_dir())), "folder")
