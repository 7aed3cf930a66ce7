"""The structure of SG_IO, against the kernel's own header, compiled here."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import pytest

from vscsihba.handlers.file import reflink
from vscsihba.handlers.sg import sg_io
from vscsihba.handlers.sg.cdb import Direction

HEADERS = ("scsi/sg.h", "linux/fs.h")


def mirror() -> dict[str, int]:
    """Return our values, by the C expression of each."""
    facts = {}
    structs: dict[str, type[ctypes.Structure]] = {"sg_io_hdr": sg_io._Header, "sg_iovec": sg_io._Piece}
    for name, struct in structs.items():
        facts[f"sizeof(struct {name})"] = ctypes.sizeof(struct)
        for field, *_ in struct._fields_:
            facts[f"offsetof(struct {name}, {field})"] = getattr(struct, field).offset
    directions = {"NONE": "NONE", "OUT": "TO_DEV", "IN": "FROM_DEV", "BOTH": "TO_FROM_DEV"}
    facts |= {f"SG_DXFER_{theirs}": Direction[ours] for ours, theirs in directions.items()}
    return facts | {
        "SG_IO": sg_io._SG_IO,
        "BLKSECTGET": sg_io._BLKSECTGET,
        "FICLONE": reflink._FICLONE,
        "FICLONERANGE": reflink._FICLONERANGE,
    }


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """The C compiler's values of the same expressions."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: cc is missing (apt install gcc)")
    for header in HEADERS:
        if not (Path("/usr/include") / header).exists():
            pytest.skip(f"{header} is missing (apt install linux-libc-dev libc6-dev)")
    folder = tmp_path_factory.mktemp("sg")
    lines = "".join(f'    say("{fact}", {fact});\n' for fact in mirror())
    included = "".join(f"#include <{name}>\n" for name in ("stddef.h", "stdio.h", "sys/ioctl.h", *HEADERS))
    (folder / "sg.c").write_text(
        included
        + '#define say(name, value) printf("%s\\n%lld\\n", name, (long long)(value))\n'
        + f"int main(void)\n{{\n{lines}    return 0;\n}}\n"
    )
    subprocess.run(["cc", "-o", folder / "sg", folder / "sg.c"], check=True, capture_output=True, text=True)
    said = subprocess.run([folder / "sg"], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    return dict(zip(said[::2], map(int, said[1::2]), strict=True))


def test_structures_and_numbers_are_the_kernels(headers: dict[str, int]) -> None:
    assert mirror() == headers
