"""The program ``vscsitarget id=<0..255> -files <file1,file2,...> [-v]``.

Attaches each file, or stack of handlers, as a disk of the HBA, prints a line for each disk that is ready, and
serves them in the foreground until a signal. A disk that fails is reported and retried, while the others are
served; the program ends when all have failed. `vscsihba.cli.disk_args` reads the arguments, and
`vscsihba.engine.target` serves the disks.
"""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack

from vscsihba.cli.printer import Printer
from vscsihba.cli.program import HelpFormatter, Parser, run
from vscsihba.cli.start import interrupts_end
from vscsihba.errors import NoSuchFileError, UsageError
from vscsihba.stop_signal import StopSignal
from vscsihba.units import parse_size

PROGRAM = "vscsitarget"

_EPILOG = """\
examples:
  vscsitarget id=0 -files a.img                      attach a.img as a disk
  vscsitarget id=0 -files a.img,b.img -v             attach two disks; print every SCSI command
  vscsitarget id=7 -files new.img --create 10GiB     create a sparse file and attach it
  vscsitarget id=0 -files 'cow:vm.cow;create=true|golden.img'        write changes to vm.cow only
  vscsitarget id=0 --handler mine.py -files mine:size=1GiB           use your own handler

Ctrl-C or SIGTERM detaches the disks and exits. If a disk is in use, send the signal twice.
A disk that fails is reported and retried every few seconds; the other disks keep running.
Exit codes: 0 detached, 1 refused by the machine, or all disks failed, 2 wrong usage.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code."""
    return run(PROGRAM, _serve, arguments)


def parser() -> Parser:
    """Return the parser of the command line."""
    made = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} id=<0..255> -files <file1,file2,...> [-v] [options]",
        description="Attach files as SCSI disks, and serve them until interrupted.",
        epilog=_EPILOG,
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    made.add_argument("id", metavar="id=N", type=_hba_id, help="number of the HBA, 0 to 255")
    made.add_argument(
        "-files",
        "--files",
        metavar="LIST",
        required=True,
        help="image files, block devices or stacks of handlers, separated by commas; the first is LUN 0",
    )
    made.take_handlers()
    made.add_argument("-v", "--verbose", action="store_true", help="print every SCSI command, decoded")
    made.add_argument(
        "--create",
        metavar="SIZE",
        type=_size,
        help='create missing files, sparse, with this size: "512M", "10GiB"',
    )
    made.add_argument(
        "--block-size",
        metavar="BYTES",
        type=int,
        choices=(512, 1024, 2048, 4096),
        help="logical block size: 512, 1024, 2048 or 4096 (default: that of the device, or 512)",
    )
    made.add_argument(
        "--physical-block-size",
        metavar="BYTES",
        type=int,
        choices=(512, 1024, 2048, 4096),
        help="physical block size, at least the logical one (default: that of the device, or the same)",
    )
    made.add_argument("--read-only", action="store_true", help="write-protect the disks")
    made.add_argument(
        "--removable", action="store_true", help="present removable media, which can be ejected"
    )
    made.add_argument("--json", action="store_true", help="print one JSON object a line")
    return made


def _hba_id(word: str) -> int:
    """Read ``id=N``."""
    key, _, number = word.partition("=")
    if key != "id" or not number.isascii() or not number.isdigit() or not 0 <= int(number) <= 255:
        raise argparse.ArgumentTypeError(f"{word!r} is not an HBA; use id=0 to id=255")
    return int(number)


def _size(word: str) -> int:
    try:
        return parse_size(word)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _serve(arguments: Sequence[str]) -> int:
    """Attach the files, serve until a signal, detach."""
    options = parser().parse_args(arguments)
    # --help and usage errors do without these imports, which take most of the time.
    with interrupts_end():
        from vscsihba.cli import disk_args  # noqa: PLC0415
        from vscsihba.engine import reclaim  # noqa: PLC0415
        from vscsihba.engine.descriptors import raise_limit  # noqa: PLC0415
        from vscsihba.engine.serving.listeners import Listeners  # noqa: PLC0415
        from vscsihba.engine.serving.trace_lines import TraceLines  # noqa: PLC0415
        from vscsihba.engine.target import LunSpec, Target  # noqa: PLC0415

    raise_limit()
    reclaim.protect()
    for_all = disk_args.DiskOptions(
        options.create, options.block_size, options.physical_block_size, options.read_only
    )
    wanted = disk_args.read_disks(options.files, disk_args.registry_of(options.handler), for_all)
    stop_signal = StopSignal()
    specs = [LunSpec(lun, disk.document, removable=options.removable) for lun, disk in enumerate(wanted)]
    with ExitStack() as stack:
        printer = stack.enter_context(Printer(options.id, as_json=options.json))

        def failed(text: str) -> None:
            printer.failed(text)
            stop_signal.failed(text)

        listeners = Listeners(failed=failed, notice=printer.notice)
        if options.verbose:
            listeners.taps.observe(TraceLines(printer.trace))
        try:
            target = stack.enter_context(Target(options.id, specs, listeners=listeners))
        except NoSuchFileError as error:
            if any(disk.lacks(error) for disk in wanted):
                raise UsageError(error.message, cure="create it, or use --create SIZE") from error
            raise
        for disk in target.disks:
            named = wanted[disk.lun]
            printer.ready(disk.lun, str(disk.device), disk.size, label=named.label, file=named.word)
        stop_signal.wait(lambda: target.lost)
        if users := target.users():
            printer.in_use(users)
            stop_signal.wait(lambda: target.lost)
    return 0
