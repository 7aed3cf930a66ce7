"""docs/bench: the page, the plots and the findings, all of one run."""

from pathlib import Path
from typing import Final

from tests.bench import tables
from tests.bench.native import Native
from tests.bench.vm.findings import Findings

FOLDER: Final = Path(__file__).resolve().parents[2] / "docs/bench"
LIMITS: Final = Path(__file__).with_name("limits.md")
"""What the numbers say of what is slow, and why: written by people, put at the end of the page."""

_HEAD: Final = """\
# How quick it is

`./dev bench --write-docs` measures all of this and writes this page, the plots and
[findings.json](findings.json). `./dev bench` measures natively only, `./dev bench --vm` in the VM only, in
parts if asked to (`--part`, `--peer`, `--workload`, `--rounds`).

## Method

- *In the VM:* Linux {kernel}, {cpus} CPUs, clock {clock}, Python {python}. Without KVM the guest is emulated:
  all is then ten times as slow and more, and jumps about, so compare columns, not with another machine. The
  runner gives an emulated guest the processor's own clock, since fio and others look at it several times for
  each command, and keeps the kernel from `rep movsb`, which no emulated processor does quickly
  ([vagrant](../../vagrant/README.md)); both help everybody in the tables.
- Every contestant has an image of 64 MiB with random bytes in a tmpfs of the guest, so that nobody waits for
  a device, and all are there in one boot. Rounds are outermost: every workload is run on all contestants in
  turn, {rounds} times. Numbers are medians; ratios are medians of the ratios within a round.
- fio, libaio, O_DIRECT, one job, {seconds} s a run. No disk has a scheduler, and nothing is merged.
- *vscsihba* is `vscsitarget` with the file handler, as it comes. *loop* is the kernel's loop device,
  *LIO fileio* the kernel's target with its own file backstore over tcm_loop (with `fd_buffered_io`: else
  every write is synchronous). *nbdkit* (file plugin; Python plugin with `preadv`, `pwrite` and parallel
  requests) and *qemu-nbd* (writeback cache) serve the kernel's nbd over a Unix socket. *tcmu-runner* is
  Debian's package, which has no file handler: its qcow handler, which takes raw files too, stands in.
- Whether the machine was quiet shows in the spread: of a round in which other programs had the processors,
  only the ratios mean anything, and those not much.
- CPU time is what the kernel counts in the middle of a run: of the serving process, and of all CPUs together,
  fio and the kernel's own threads included. In-kernel targets have no process.
- *Natively:* a ring in this process, the command there and back, against the bare system call on the same
  blocks and memory, both by turns in one process. Median of 60 batches of 32; the spread is the
  interquartile range.
- Stacks of handlers are on [another page](stacks.md).
- Disks of [remote storage](remote.md) are on a page of their own.

## In the VM
"""
_PLOTS: Final = (("peers.png", "Commands a second"), ("cpu.png", "CPU time"), ("scaling.png", "Scaling"))


def write(findings: Findings, native: Native) -> Path:
    """Write the page and what it shows; return the folder."""
    from tests.bench.vm import plots  # noqa: PLC0415 - matplotlib is needed for nothing else

    FOLDER.mkdir(exist_ok=True)
    plots.draw(findings, FOLDER)
    (FOLDER / "findings.json").write_text(findings.dump())
    (FOLDER / "README.md").write_text(text(findings, native))
    return FOLDER


def text(findings: Findings, native: Native) -> str:
    """Return the page."""
    parts = [_HEAD.format(rounds=findings.rounds, **{"seconds": 2, **findings.machine})]
    parts += [f"**{table.title}**\n\n{table.markdown()}" for table in tables.of(findings)]
    parts += [f"{line}\n" for line in tables.rest(findings)]
    parts += [f"![{title}]({name})\n" for name, title in _PLOTS if (FOLDER / name).exists()]
    parts += ["## Natively\n"]
    parts += [f"**{table.title}**\n\n{table.markdown()}" for table in tables.native(native)]
    parts += [f"{line}.\n" for line in tables.slow_flush(native)]
    parts += [f"## Aims\n\n{tables.aims_reached(findings, native.rows).markdown()}", LIMITS.read_text()]
    return "\n".join(parts)
