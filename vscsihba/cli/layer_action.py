"""Actions on a layer of a disk in use: sent to the service, or to the engine if no service runs."""

import argparse
from collections.abc import Mapping
from typing import Any

from vscsihba.cli.lun_arg import lun_of
from vscsihba.cli.program import Parser
from vscsihba.cli.verbs import progress_bar


def add_force(parser: Parser) -> None:
    """Add the option ``--force`` to a verb that disturbs users of a disk."""
    parser.add_argument("--force", action="store_true", help="also if the disk is in use")


def act(
    options: argparse.Namespace, layer: str, action: str, arguments: Mapping[str, object] | None = None
) -> Any:
    """Run an action on a layer of the disk ``options.disk``, and return its result.

    Raises:
        UsageError, HostError: The layer refuses, or the disk does not exist.
    """
    from vscsihba.control import NotListeningError  # noqa: PLC0415 - --help needs none of it
    from vscsihba.daemon.calls import Daemon  # noqa: PLC0415 - likewise
    from vscsihba.engine import owner  # noqa: PLC0415 - likewise

    hba_id, lun = lun_of(options.disk)
    wanted = owner.Action(hba_id, lun, layer, action, arguments or {}, getattr(options, "force", False))
    with progress_bar(f"{layer} {action.replace('_', ' ')}") as bar:

        def report(said: Any) -> None:
            bar(int(said["done"]), int(said["of"]))

        try:
            answer = Daemon().act(wanted, progress=report)
        except NotListeningError:
            answer = owner.act(wanted, progress=report)
    return answer["result"]
