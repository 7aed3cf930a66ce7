"""``vscsihba metrics``: metrics of disks, engines and the service for Prometheus."""

import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.machine_state import machine_statistics, machine_status
from vscsihba.cli.output import print_json
from vscsihba.cli.program import Parser
from vscsihba.errors import UsageError
from vscsihba.handlers.shared.durable import replace_file
from vscsihba.metrics.exposition import Exposition
from vscsihba.metrics.families import Families
from vscsihba.metrics.server import Address, MetricsServer
from vscsihba.stop_signal import StopSignal

_EXAMPLES: Final = """\
  vscsihba metrics                          print the metrics once, as OpenMetrics
  vscsihba metrics --listen 127.0.0.1:9809  serve them on http://127.0.0.1:9809/metrics
  vscsihba metrics --listen unix:/run/vscsihba/metrics.sock
  vscsihba metrics --textfile /var/lib/prometheus/node-exporter/vscsihba.prom

The server reads only, and ends with Ctrl-C or SIGTERM. A file for the textfile collector of node_exporter is
replaced as a whole; let a timer run the command. The metrics are in docs/metrics.md.
"""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of(
        "metrics", usage="[--listen ADDRESS [--expose] | --textfile FILE] [--json]", examples=_EXAMPLES
    )
    where = made.add_mutually_exclusive_group()
    where.add_argument(
        "--listen", metavar="ADDRESS", help="serve HTTP on IP:PORT or unix:PATH, until a signal ends it"
    )
    where.add_argument("--textfile", metavar="FILE", help="write them into a file, in the older text format")
    made.add_argument(
        "--expose",
        action="store_true",
        help="allow an address that other machines reach; nobody is asked for a password",
    )
    return made


def run(arguments: Sequence[str]) -> int:
    """Print, write or serve the metrics."""
    options = parser().parse_args(arguments)
    exposition = Exposition(_families)
    if options.listen is not None:
        _serve(_address(options.listen, expose=options.expose), exposition)
    elif options.textfile is not None:
        path = Path(options.textfile).absolute()
        replace_file(path, exposition.text())
        path.chmod(0o644)  # node_exporter is another user
    elif options.json:
        print_json(exposition.as_json())
    else:
        sys.stdout.write(exposition.open_metrics().decode())
    sys.stdout.flush()
    return 0


def _families() -> Families:
    return Families(machine_status(), machine_statistics())


def _address(text: str, *, expose: bool) -> Address:
    address = Address(text)
    if not address.local and not expose:
        raise UsageError(
            f"other machines reach {text}, and nobody is asked for a password",
            cure="use 127.0.0.1, or add --expose",
        )
    return address


def _serve(address: Address, exposition: Exposition) -> None:
    exposition.open_metrics()  # a package that is missing is reported now, not to the first client
    stop = StopSignal()
    with MetricsServer(address, {"/metrics": exposition.page}) as server:
        thread = threading.Thread(target=server.serve, name="metrics", daemon=True)
        thread.start()
        print(f"{server.address}/metrics" if address.path is None else str(server.address), flush=True)
        stop.wait(lambda: True)
        server.stop()
        thread.join()
