"""Optional packages: imported when they are needed, and one line that says so when they are missing."""

from importlib import import_module
from types import ModuleType

from vscsihba.errors import HostError


def need(module: str, *, package: str, debian: str, extra: str | None, user: str) -> ModuleType:
    """Import a module of a package that not everybody has.

    Args:
        module: Name of the module to import.
        package: Where it comes from on PyPI.
        debian: Where it comes from on Debian and Ubuntu.
        extra: The extra of this project that brings it; None if it is not on PyPI.
        user: The feature that needs it, for the message.

    Raises:
        HostError: It is not installed.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise HostError(
            f"{user} needs the Python package {package}",
            cure=f"install {debian}" + (f", or pip install 'vscsihba[{extra}]'" if extra else ""),
        ) from error
