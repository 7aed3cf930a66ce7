"""What every command does around its work: one clear line for an error, and an exit code."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from vscsihba.errors import UsageError, VscsihbaError
from vscsihba.logs import log_in_background

Command = Callable[[Sequence[str]], int]


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        """Refuse the command line.

        Raises:
            UsageError: Always.
        """
        raise UsageError(message, cure=f'see "{self.prog} --help"')

    def take_handlers(self) -> None:
        """Take the option ``--handler``, a list of files for `vscsihba.cli.disks.registry_of`."""
        self.add_argument(
            "--handler",
            metavar="FILE.py",
            action="append",
            default=[],
            help="load handlers from a Python file; may be given several times",
        )


def run(program: str, command: Command, arguments: Sequence[str] | None) -> int:
    """Run a command and return its exit code: 0, 1 (the machine refused) or 2 (bad usage).

    Args:
        program: Name to begin messages with.
        command: Does the work.
        arguments: The words after the program's name; None takes them from the process.
    """
    listener = log_in_background(program)
    try:
        code = command(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except VscsihbaError as error:
        print(f"{program}: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output has gone; keep the interpreter from trying again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        print(f"{program}: {error.filename or 'system call'}: {error.strerror or error}", file=sys.stderr)
        return 1
    finally:
        listener.stop()
    return code
