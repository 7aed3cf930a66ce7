"""The frame of every program: one line for an error, and an exit code."""

import argparse
import contextlib
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from typing import NoReturn, TextIO

from vscsihba.errors import UsageError, VscsihbaError
from vscsihba.logs import log_in_background

Main = Callable[[Sequence[str]], int]


class HelpFormatter(argparse.HelpFormatter):
    """Help that keeps indented lines and line ends after a full stop, and fits other text to the terminal."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs: list[str] = []
        for line in text.splitlines():
            last = paragraphs[-1] if paragraphs else ""
            if line[:1].strip() and last[:1].strip() and last[-1] not in ".:":
                paragraphs[-1] = f"{last} {line}"
            else:
                paragraphs.append(line)
        return "\n".join(
            textwrap.fill(line, width, initial_indent=indent, subsequent_indent=indent)
            if line[:1].strip()
            else f"{indent}{line}".rstrip()
            for line in paragraphs
        )


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like those of commands."""

    def error(self, message: str) -> NoReturn:
        """Raise the error that argparse found.

        Raises:
            UsageError: Always.
        """
        raise UsageError(message, cure=f'see "{self.prog} --help"')

    def take_handlers(self) -> None:
        """Add the option ``--handler``, a list of files for `vscsihba.cli.disk_args.registry_of`."""
        self.add_argument(
            "--handler",
            metavar="FILE.py",
            action="append",
            default=[],
            help="load handlers from a Python file; may be given several times",
        )


def run(program: str, command: Main, arguments: Sequence[str] | None) -> int:
    """Run a command and return its exit code: 0, 1 (the machine refused) or 2 (bad usage).

    Args:
        program: Name at the start of messages.
        command: Function that does the work.
        arguments: Arguments of the program; None takes those of the process.
    """
    open_standard_streams()
    listener = log_in_background(program)
    try:
        return _run(program, command, sys.argv[1:] if arguments is None else arguments)
    finally:
        listener.stop()
        _flush_or_discard(sys.stdout)
        _flush_or_discard(sys.stderr)


def open_standard_streams() -> None:
    """Open /dev/null for standard streams that the caller has closed (``>&-``).

    Otherwise the next file that is opened, such as a disk, would get the number of the closed stream, and
    receive the output of this process or of a child.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
        if getattr(sys, name) is None:
            # Lasts as long as the process, like the streams that the interpreter opens.
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115


def _run(program: str, command: Main, arguments: Sequence[str]) -> int:
    try:
        code = command(arguments)
        sys.stdout.flush()
    except VscsihbaError as error:
        _complain(program, str(error))
        return error.exit_code
    except BrokenPipeError:  # the reader of the output has closed it: not an error
        return 1
    except KeyboardInterrupt as error:
        _complain(program, "; ".join(["interrupted", *map(str, error.args)]))
        return 130
    except OSError as error:
        _complain(program, f"{error.filename or 'system call'}: {error.strerror or error}")
        return 1
    return code


def _complain(program: str, message: str) -> None:
    """Print one line on standard error, if possible."""
    with contextlib.suppress(OSError):
        print(f"{program}: {message}", file=sys.stderr)


def _flush_or_discard(stream: TextIO) -> None:
    """Flush a stream; if that fails, replace it, to avoid a traceback at exit."""
    try:
        stream.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
