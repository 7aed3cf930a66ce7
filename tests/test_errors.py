"""The exception tree: messages and exit codes."""

import errno
import inspect
import re

import pytest

from vscsihba import errors
from vscsihba.errors import ConfigError, MediumError, SandboxError, UsageError, VscsihbaError

TREE = [error for _, error in inspect.getmembers(errors, inspect.isclass) if issubclass(error, VscsihbaError)]


def test_message_alone() -> None:
    error = VscsihbaError("the disk is gone")
    assert (str(error), error.message, error.cure) == ("the disk is gone", "the disk is gone", None)


def test_cure_follows_the_message() -> None:
    error = VscsihbaError("the disk is gone", cure="plug it in")
    assert (str(error), error.message, error.cure) == (
        "the disk is gone; plug it in",
        "the disk is gone",
        "plug it in",
    )


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_exit_code_says_whose_fault_it_is(error: type[VscsihbaError]) -> None:
    known: dict[type[VscsihbaError], int] = {SandboxError: 125}
    assert error.exit_code == known.get(error, 2 if issubclass(error, UsageError) else 1)


def test_config_error_names_the_place() -> None:
    error = ConfigError("$.hbas[0].id", "is not a number", cure="write 0 to 255")
    assert str(error) == "$.hbas[0].id: is not a number; write 0 to 255"
    assert error.place == "$.hbas[0].id"


def test_medium_error_is_an_oserror_with_the_place() -> None:
    error = MediumError(4096, "the file ends")
    assert isinstance(error, OSError)
    assert not isinstance(error, VscsihbaError)
    assert (error.errno, error.offset, error.strerror) == (errno.EIO, 4096, "the file ends")


def test_tree_in_the_caption_is_the_tree() -> None:
    """The tree in the docstring of the module has each class below its base."""
    picture = re.findall(r"^( *[|]? *(?:[+]-- )?)(\w+Error)\b", str(errors.__doc__), re.MULTILINE)
    above: list[tuple[int, str]] = []
    drawn = {}
    for lead, name in picture:
        while above and above[-1][0] >= len(lead):
            above.pop()
        drawn[name] = above[-1][1] if above else "Exception"
        above.append((len(lead), name))
    assert drawn == {error.__name__: error.__base__.__name__ for error in TREE if error.__base__}
