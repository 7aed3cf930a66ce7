"""``./dev bench``: print the native benchmarks as a table or as JSON."""

import argparse
import json
import platform
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from tests.bench import road, slow_flush


def main() -> None:
    """Measure, then print."""
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    console = Console(stderr=True)
    rows = []
    with console.status("measuring") as status:
        for row in road.rows():
            rows.append(row)
            status.update(f"measured {row.name}")
        status.update("measuring reads beside a slow flush")
        flush = slow_flush.measure()
    if options.json:
        results = {"rows": [asdict(row) for row in rows], "slow_flush": asdict(flush)}
        print(json.dumps({"python": platform.python_version(), **results}))
        return
    table = Table(title="One command through ring, decode, checks, handler and answer, natively")
    for heading in ("command", "road, us", "spread, us", "bare call, us", "ratio"):
        table.add_column(heading, justify="left" if heading == "command" else "right")
    for row in rows:
        bare, ratio = (f"{row.bare:.2f}", f"{row.ratio:.2f}") if row.bare else ("", "")
        table.add_row(row.name, f"{row.road:.2f}", f"{row.spread:.2f}", bare, ratio)
    Console().print(table)
    Console().print(
        f"4 KiB reads of a slow stack, beside a flush of {slow_flush.FLUSH_SECONDS * 1e3:.0f} ms: "
        f"{flush.beside:.0f} us; alone: {flush.alone:.0f} us; ratio {flush.ratio:.2f}"
    )


if __name__ == "__main__":
    main()
