"""python3-rbd and python3-rados: importing them, and their errors as ``OSError``.

Both packages come with Ceph and are not on PyPI. Their exceptions are not subclasses of Python's ``OSError``,
but most of them have an errno.
"""

import errno
import os
from importlib import import_module
from typing import Any

from vscsihba.errors import HostError

PACKAGES = "python3-rbd and python3-rados"
"""Names of the Debian packages."""


def rados() -> Any:
    """Return the module `rados`.

    Raises:
        HostError: It is not installed.
    """
    return _module("rados")


def rbd() -> Any:
    """Return the module `rbd`.

    Raises:
        HostError: It is not installed.
    """
    return _module("rbd")


def _module(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise HostError(
            f"the handler rbd needs the Python package {name}",
            cure=f"install {PACKAGES}; a virtual environment must be made with --system-site-packages",
        ) from error


def errors() -> tuple[type[Exception], ...]:
    """Return the base classes of the exceptions of both packages."""
    return (rados().Error, rbd().Error)


def number_of(error: BaseException) -> int:
    """Return the errno of an exception of either package, EIO if it has none."""
    number = getattr(error, "errno", None)
    return abs(number) if isinstance(number, int) and number else errno.EIO


def os_error(error: BaseException, action: str) -> OSError:
    """Return an exception of either package as an ``OSError`` with an errno.

    Args:
        error: The exception.
        action: The action that failed, for the message.
    """
    return failure(number_of(error), action)


def failure(number: int, action: str) -> OSError:
    """Return the ``OSError`` for an errno of librbd."""
    if number == errno.ESHUTDOWN:
        return OSError(number, f"{action}: another client has taken over the image, and this one is blocked")
    return OSError(number, f"{action}: {os.strerror(number)}")
