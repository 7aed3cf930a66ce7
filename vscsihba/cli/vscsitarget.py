"""The original's command: ``vscsitarget id=<0..255> -files <file1,file2,...> [-v]``.

Makes each file, or stack of handlers, a disk of the HBA, prints a line for each that is ready, and serves
in the foreground until a signal ends it. A disk that fails is reported and tried again; the others are served
on, and only with the last of them the program ends. This module reads words and prints lines;
what they mean is `vscsihba.cli.disk_args`' business, the work `vscsihba.engine.target`'s.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack

from vscsihba.cli.printer import Printer
from vscsihba.cli.program import Parser, run
from vscsihba.errors import UsageError
from vscsihba.stop_signal import StopSignal
from vscsihba.units import parse_size

PROGRAM = "vscsitarget"

_EPILOG = """\
examples:
  vscsitarget id=0 -files a.img                      a.img becomes a disk
  vscsitarget id=0 -files a.img,b.img -v             two disks; print every SCSI command
  vscsitarget id=7 -files new.img --create 10GiB     make the file first, sparse
  vscsitarget id=0 -files 'cow:vm.cow;create=true|golden.img'        changes go into vm.cow
  vscsitarget id=0 --handler mine.py -files mine:size=1GiB           a handler of one's own

Ctrl-C or SIGTERM detaches the disks and ends; while one is mounted, a second one is needed.
A disk that fails is reported, and tried again every few seconds; the others are served on.
exit codes: 0 detached, 1 the machine refused or took every disk away, 2 wrong usage
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(PROGRAM, _serve, arguments)


def parser() -> Parser:
    """Return the parser of the command line."""
    made = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} id=<0..255> -files <file1,file2,...> [-v] [options]",
        description="Make files appear as SCSI disks, and serve them until interrupted.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("id", metavar="id=N", type=_hba_id, help="the HBA's number, 0 to 255")
    made.add_argument(
        "-files",
        "--files",
        metavar="LIST",
        required=True,
        help="image files, block devices or stacks of handlers, with commas between; the first is LUN 0",
    )
    made.take_handlers()
    made.add_argument("-v", "--verbose", action="store_true", help="print every SCSI command, decoded")
    made.add_argument(
        "--create", metavar="SIZE", type=_size, help='make files that are missing, sparse: "512M", "10GiB"'
    )
    made.add_argument(
        "--block-size",
        metavar="BYTES",
        type=int,
        choices=(512, 1024, 2048, 4096),
        help="logical block length: 512, 1024, 2048 or 4096 (default: 512, or a block device's)",
    )
    made.add_argument(
        "--physical-block-size",
        metavar="BYTES",
        type=int,
        choices=(512, 1024, 2048, 4096),
        help="physical block length, at least the logical one (default: the same, or a block device's)",
    )
    made.add_argument("--read-only", action="store_true", help="refuse every write")
    made.add_argument("--removable", action="store_true", help="a removable medium, which can be ejected")
    made.add_argument("--json", action="store_true", help="print one JSON object a line")
    return made


def _hba_id(word: str) -> int:
    """Read ``id=N``."""
    key, _, number = word.partition("=")
    if key != "id" or not number.isascii() or not number.isdigit() or not 0 <= int(number) <= 255:
        raise argparse.ArgumentTypeError(f"{word!r} is no HBA; write id=0 to id=255")
    return int(number)


def _size(word: str) -> int:
    try:
        return parse_size(word)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _serve(arguments: Sequence[str]) -> int:
    """Attach the files, serve until a signal, detach."""
    options = parser().parse_args(arguments)
    # --help, and a command line that is wrong, need none of what follows: it takes four times as long.
    from vscsihba.cli import disk_args  # noqa: PLC0415
    from vscsihba.engine import reclaim  # noqa: PLC0415
    from vscsihba.engine.descriptors import raise_limit  # noqa: PLC0415
    from vscsihba.engine.serving.listeners import Listeners  # noqa: PLC0415
    from vscsihba.engine.target import LunSpec, Target  # noqa: PLC0415

    raise_limit()
    reclaim.protect()
    for_all = disk_args.DiskOptions(
        options.create, options.block_size, options.physical_block_size, options.read_only
    )
    wanted = disk_args.read_disks(options.files, disk_args.registry_of(options.handler), for_all)
    stop_signal = StopSignal()
    requests = [LunSpec(lun, disk.document, removable=options.removable) for lun, disk in enumerate(wanted)]
    with ExitStack() as stack:
        printer = stack.enter_context(Printer(options.id, as_json=options.json))

        def failed(text: str) -> None:
            printer.failed(text)
            stop_signal.failed(text)

        trace = printer.trace if options.verbose else None
        listeners = Listeners(trace=trace, failed=failed, notice=printer.notice)
        target = stack.enter_context(Target(options.id, requests, listeners=listeners))
        for disk in target.disks:
            named = wanted[disk.lun]
            printer.ready(disk.lun, str(disk.device), disk.size, label=named.label, file=named.word)
        stop_signal.wait(lambda: target.lost)
        if users := target.users():
            printer.in_use(users)
            stop_signal.wait(lambda: target.lost)
    return 0
