"""Asking a layer of a disk that is in use: of the daemon where there is one, else of the engine itself."""

import argparse
from collections.abc import Mapping
from typing import Any

from vscsihba.cli.lun_arg import lun_of
from vscsihba.cli.program import Parser
from vscsihba.cli.verbs import progress_bar


def add_force(parser: Parser) -> None:
    """Add the option ``--force`` to a verb that disturbs the users of a disk."""
    parser.add_argument("--force", action="store_true", help="also while the disk is in use")


def act(
    options: argparse.Namespace, layer: str, action: str, arguments: Mapping[str, object] | None = None
) -> Any:
    """Have a layer of the disk ``options.disk`` do something, and return what it tells.

    Raises:
        UsageError, HostError: As the layer says; or there is no such disk.
    """
    from vscsihba.control import NobodyListensError  # noqa: PLC0415 - --help needs none of it
    from vscsihba.daemon.calls import Daemon  # noqa: PLC0415 - likewise
    from vscsihba.engine import owner  # noqa: PLC0415 - likewise

    hba_id, lun = lun_of(options.disk)
    wanted = owner.Action(hba_id, lun, layer, action, arguments or {}, getattr(options, "force", False))
    with progress_bar(f"{layer} {action.replace('_', ' ')}") as bar:

        def report(said: Any) -> None:
            bar(int(said["done"]), int(said["of"]))

        try:
            answer = Daemon().act(wanted, progress=report)
        except NobodyListensError:
            answer = owner.act(wanted, progress=report)
    return answer["result"]
