"""A plan: everything that one run of the sandbox is asked for. Does nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

MIB = 1 << 20
DEFAULT_MEMORY = 1 << 30
LEAST_MEMORY = 128 * MIB


@dataclass(frozen=True, slots=True)
class Preparation:
    """A program that runs in the sandbox before the command.

    Attributes:
        name: Begins the message of a failure.
        command: Program and arguments.
        ready: Path that a program which goes on beside the command makes when it is ready; None for a
            program that runs to its end first.
    """

    name: str
    command: Sequence[str]
    ready: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """One run of the sandbox.

    Attributes:
        command: Program and arguments.
        environ: The command's environment.
        cwd: Absolute; the folder that it starts in.
        preparations: Run in order before it.
        files: Written where the sandbox sees them, at ``/run/.sandbox/NAME``.
        writable: Absolute; folders of this machine that are written through.
        kernel: Path or version of User-Mode Linux; None takes what is there.
        memory: Bytes.
        scratch: Bytes of an ext4 at ``/run/scratch``; 0 for none.
        timeout: Seconds after which the run is ended; None for no limit.
        verbose: Show the kernel's messages.
    """

    command: Sequence[str]
    environ: Mapping[str, str]
    cwd: Path
    preparations: Sequence[Preparation] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    writable: Sequence[Path] = ()
    kernel: str | None = None
    memory: int = DEFAULT_MEMORY
    scratch: int = 0
    timeout: float | None = None
    verbose: bool = False


FOLDER = "/run/.sandbox"
"""The folder of `Plan.files` inside the sandbox."""
SCRATCH = "/run/scratch"
HIDDEN = ("/dev", "/proc", "/run", "/sys")
"""Folders of this machine that the sandbox has in another form, or not at all."""
