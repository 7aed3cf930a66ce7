"""Files with secrets: whether other users than the owner can read them."""

import stat
from pathlib import Path

from vscsihba.errors import UsageError


def check_private(path: str | Path, kind: str = "") -> None:
    """Refuse a file with a secret that other users can read.

    Args:
        path: Of the file.
        kind: Noun for messages, such as "keyring"; a plain file by default.

    Raises:
        UsageError: They can, or there is no such file.
    """
    if (mode := mode_of(path, kind)) & 0o077:
        name = f"the {kind} {path}" if kind else path
        raise UsageError(f"others can read {name} (mode {mode:04o})", cure=f"chmod 600 {path}")


def mode_of(path: str | Path, kind: str = "") -> int:
    """Return the permissions of a file; `kind` as for `check_private`.

    Raises:
        UsageError: There is no such file.
    """
    try:
        return stat.S_IMODE(Path(path).stat().st_mode)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", cure=f"name an existing {kind or 'file'}") from error
