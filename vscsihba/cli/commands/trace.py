"""``vscsihba trace``: shows every SCSI command of disks in use, or writes a capture for Wireshark."""

import argparse
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from vscsihba.cli.command_table import parser_of
from vscsihba.cli.lun_arg import lun_of
from vscsihba.cli.output import terminal_width, wrapped
from vscsihba.cli.program import Parser
from vscsihba.errors import UsageError
from vscsihba.stop_signal import StopSignal
from vscsihba.units import counted, parse_size

if TYPE_CHECKING:
    from vscsihba.capture.feed import Feed
    from vscsihba.capture.filters import Filter
    from vscsihba.capture.seen import Seen

_EXAMPLES: Final = """\
  vscsihba trace                                   show the commands of all disks
  vscsihba trace hba0/lun1 /dev/sdc                show the commands of two disks
  vscsihba trace --slower 5ms --times              show slow commands, and where the time went
  vscsihba trace --errors --json                   show commands that failed, one JSON object a line
  vscsihba trace --opcode WRITE,UNMAP --lba 0-2047 --count 20
  vscsihba trace --pcap disk.pcapng --snaplen all  write a capture, with all data
  vscsihba trace --pcap - | wireshark -k -i -      watch in Wireshark
  vscsihba trace --pcap d.pcapng --ring 10x64MiB   keep the newest 10 files of 64 MiB each

Ctrl-C ends the trace, after what was sent until then; a second one ends it at once. The trace
never delays a disk: if it is too slow, it loses commands and says how many.
"""

_NARROWEST: Final = 20
"""Columns for the command itself, below which its line is left to the terminal to wrap."""

_PAUSE: Final = 0.2
"""Seconds between two looks at signals and at LUNs that are gone."""

_SHORT: Final = "128"
"""Bytes of data of each command in a capture, unless others are named."""


def parser() -> Parser:
    """Return the parser of the command line."""
    made = parser_of(
        "trace",
        usage="[LUN ...] [--pcap FILE] [options]",
        examples=_EXAMPLES,
        json_help="print one JSON object a line; with --pcap, the result at the end",
    )
    made.add_argument(
        "luns", metavar="LUN", nargs="*", help="disks, as hba0/lun1 or /dev/sdb (default: all disks)"
    )
    made.add_argument("--opcode", metavar="LIST", help='only these commands: "READ", "READ(10)", "28h"')
    made.add_argument("--lba", metavar="A-B", help="only commands that touch one of these blocks")
    made.add_argument("--slower", metavar="TIME", help='only commands that took longer: "5ms", "250us"')
    made.add_argument("--errors", action="store_true", help="only commands that did not end with GOOD")
    made.add_argument(
        "--times", action="store_true", help="also show the time in the queue and in the storage"
    )
    made.add_argument("--count", metavar="N", type=_count, help="end after N commands")
    made.add_argument("--follow", action="store_true", help="wait for disks that are not served")
    made.add_argument(
        "--pcap", metavar="FILE", help='write a capture in the format pcapng; "-" is standard output'
    )
    made.add_argument(
        "--snaplen",
        metavar="SIZE",
        type=_snaplen,
        help=f'bytes of data kept of each command, or "all" (default: {_SHORT} with --pcap, else 0)',
    )
    made.add_argument(
        "--ring", metavar="NxSIZE", type=_ring, help="with --pcap: keep the newest N files of this size"
    )
    made.add_argument(
        "--install-extcap",
        metavar="DIR",
        help="make vscsihba an interface of Wireshark, by a script in its extcap folder, and exit",
    )
    made.add_argument(
        "--buffer",
        metavar="SIZE",
        type=_buffer,
        help="memory of each engine for commands that were not read yet (default: 64MiB)",
    )
    return made


def _count(word: str) -> int:
    if not word.isascii() or not word.isdigit() or not int(word):
        raise argparse.ArgumentTypeError(f"{word!r} is not a number of commands")
    return int(word)


def _snaplen(word: str) -> int:
    from vscsihba.engine.trace_stream import MAX_SNAPLEN  # noqa: PLC0415 - --help needs none of it

    return MAX_SNAPLEN if word == "all" else min(_size(word), MAX_SNAPLEN)


def _buffer(word: str) -> int:
    size = _size(word)
    if not 1 << 12 <= size <= 1 << 30:
        raise argparse.ArgumentTypeError(f"{word!r} is not a size from 4KiB to 1GiB")
    return size


def _ring(word: str) -> tuple[int, int]:
    """Read the number of files and the bytes of each."""
    match = re.fullmatch(r"(\d{1,5})x(.+)", word)
    if match is None or not int(match[1]):
        raise argparse.ArgumentTypeError(f'{word!r} is not a ring of files; use "10x64MiB"')
    return int(match[1]), max(_size(match[2]), 4096)


def _size(word: str) -> int:
    try:
        return parse_size(word)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def run(arguments: Sequence[str]) -> int:
    """Trace until a signal, the number of commands, or the end of the disks."""
    from vscsihba.cli import extcap  # noqa: PLC0415 - --help needs none of it

    if extcap.is_asked(arguments):
        wanted = extcap.trace_arguments(arguments)
        return 0 if wanted is None else run(wanted)
    options = parser().parse_args(arguments)
    if options.install_extcap:
        script = extcap.install(os.path.realpath(sys.argv[0]), Path(options.install_extcap))
        print(json.dumps({"script": str(script)}) if options.json else script)
        return 0
    if options.ring and options.pcap in (None, "-"):
        raise UsageError("--ring needs --pcap FILE")
    return _Trace(options).run()


class _Trace:
    """One run of the command.

    Args:
        options: The command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        from vscsihba.capture.presence import Presence  # noqa: PLC0415 - --help needs none of it

        self._options = options
        self._luns = [lun_of(word) for word in options.luns] or None
        self._wanted = _filter_of(options)
        self._stop = StopSignal()
        self._presence = Presence(self._luns, follow=options.follow, now=time.monotonic())
        self._shown = 0

    def run(self) -> int:
        """Trace; return the exit code."""
        from vscsihba.capture.feed import DEFAULT_BUFFER, Feed  # noqa: PLC0415 - likewise

        snaplen = self._options.snaplen
        if snaplen is None:
            snaplen = int(_SHORT) if self._options.pcap else 0
        buffer = self._options.buffer or DEFAULT_BUFFER
        with Feed(self._luns, snaplen=snaplen, buffer=buffer) as feed, suppress(BrokenPipeError):
            if self._options.pcap:
                self._capture(feed)
            else:
                self._print(feed)
        return 0

    def _print(self, feed: "Feed") -> None:
        """Print each command."""
        from vscsihba.capture import lines  # noqa: PLC0415 - likewise

        as_json, times = self._options.json, self._options.times
        width = terminal_width()
        if not as_json:
            print(lines.TIMES_HEADING if times else lines.HEADING)
        lost = 0
        for seen in self._events(feed):
            if seen is None:
                if feed.lost != lost:
                    _print_lost(feed.lost - lost, as_json=as_json)
                    lost = feed.lost
                sys.stdout.flush()
            elif as_json:
                print(json.dumps(lines.as_json(seen), separators=(",", ":")))
            else:
                _print_text(lines.front(seen, times=times), lines.text(seen), width)

    def _capture(self, feed: "Feed") -> None:
        """Write a capture, and say what is in it."""
        from vscsihba.capture.files import CaptureFiles  # noqa: PLC0415 - likewise
        from vscsihba.capture.packets import CaptureWriter  # noqa: PLC0415 - likewise

        path = None if self._options.pcap == "-" else Path(self._options.pcap)
        most_files, most_bytes = self._options.ring or (0, 0)
        with ExitStack() as stack:
            files = stack.enter_context(CaptureFiles(path, most_files=most_files, most_bytes=most_bytes))
            writer = CaptureWriter(files)
            for seen in self._events(feed, lun_events=True):
                if seen is None:
                    writer.write_until(time.time())
                else:
                    writer.add(seen)
            writer.close(feed.lost, time.time())
        if path is not None:
            self._print_result(files.name, writer.commands, feed.lost)

    def _print_result(self, name: str, commands: int, lost: int) -> None:
        if self._options.json:
            print(json.dumps({"file": name, "commands": commands, "lost": lost}))
        else:
            losses = f"; {counted(lost, 'command')} lost" if lost else ""
            print(f"{name}: {counted(commands, 'command')}{losses}")

    def _events(self, feed: "Feed", *, lun_events: bool = False) -> "Iterator[Seen | None]":
        """Yield the wanted events until the end of the trace, and None after those that arrived together."""
        from vscsihba.records import Kind  # noqa: PLC0415 - likewise

        for seen in self._arrivals(feed):
            if seen is None:
                yield None
            elif seen.is_command:
                if not self._wanted(seen):
                    continue
                yield seen
                self._shown += 1
                if self._shown == self._options.count:
                    yield None
                    return
            elif seen.record.kind is Kind.MANAGEMENT or (seen.record.kind is Kind.LUN and lun_events):
                yield seen

    def _arrivals(self, feed: "Feed") -> "Iterator[Seen | None]":
        """Yield all events until a signal, and None after those that arrived together.

        After the signal, events that engines have kept until then are yielded; a second signal ends that.
        """
        until: float | None = None
        while True:
            if self._stop.arrives_within(0):
                if until is not None:
                    return
                self._stop.wait(lambda: False)  # it takes the signal
                until = time.time()
            late = False
            for seen in feed.events(_PAUSE):
                late = until is not None and seen.time > until
                yield seen
            yield None
            if until is None:
                for notice in self._presence.update(feed.served, time.monotonic()):
                    print(f"vscsihba: {notice}", file=sys.stderr)
            elif late or feed.idle:
                return


def _filter_of(options: argparse.Namespace) -> "Filter":
    """Return the filter that the options describe."""
    from vscsihba.capture import filters  # noqa: PLC0415 - --help needs none of it

    made: list[Filter] = [filters.failed] if options.errors else []
    readers: list[tuple[str | None, Callable[[str], Filter]]] = [
        (options.opcode, filters.by_opcode),
        (options.lba, filters.by_blocks),
        (options.slower, filters.slower_than),
    ]
    made += [read(word) for word, read in readers if word is not None]
    return filters.all_of(made)


def _print_text(front: str, text: str, width: int | None) -> None:
    """Print a line; on a terminal, the command is wrapped below its own beginning."""
    from rich.text import Text  # noqa: PLC0415 - likewise

    if width is None or len(front) + len(text) <= width or width - len(front) < _NARROWEST:
        print(front + text)
        return
    for line in wrapped(Text(text), width - len(front)):
        print(front + line.plain.rstrip())
        front = " " * len(front)


def _print_lost(count: int, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"event": "lost", "commands": count}))
    else:
        print(f"({counted(count, 'command')} lost: this trace was too slow)")
