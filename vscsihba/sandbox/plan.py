"""The settings of one run of the sandbox. Values only."""

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
        name: The first word of an error message.
        command: Program and arguments.
        ready: Path that a background program creates when it is ready; None for a program that ends before
            the command starts.
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
        cwd: The command's working directory; absolute.
        preparations: Programs that run in order before the command.
        files: Files in the sandbox, at ``/run/.sandbox/NAME``, with their contents.
        writable: Folders of this machine into which the sandbox may write; absolute.
        kernel: Path or version of User-Mode Linux; None for the default.
        memory: Bytes.
        scratch: Bytes of an ext4 at ``/run/scratch``; 0 for none.
        timeout: Seconds after which the run is ended; None for no limit.
        verbose: Show the kernel's messages.
        diagnose: At the time limit, collect what shows why the command has not ended (`Report.diagnosis`).
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
    diagnose: bool = False


FOLDER = "/run/.sandbox"
"""The folder of `Plan.files` inside the sandbox."""
SCRATCH = "/run/scratch"
HIDDEN = ("/dev", "/proc", "/run", "/sys")
"""Folders of this machine that the sandbox does not share."""
