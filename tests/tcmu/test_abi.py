"""The ABI mirror compared with the real header, which is compiled here."""

import ctypes
import json
import shutil
import subprocess
from pathlib import Path

import pytest

from vscsihba.tcmu import abi

HEADER = Path("/usr/include/linux/target_core_user.h")

STRUCTS: dict[str, type[ctypes.Structure]] = {
    "struct tcmu_mailbox": abi.tcmu_mailbox,
    "struct tcmu_cmd_entry_hdr": abi.tcmu_cmd_entry_hdr,
    "struct tcmu_cmd_entry": abi.tcmu_cmd_entry,
    "struct tcmu_tmr_entry": abi.tcmu_tmr_entry,
    "struct iovec": abi.iovec,
}
CONSTANTS = sorted(name for name in vars(abi) if name.startswith("TCMU_"))


def mirror() -> dict[str, int]:
    """Return sizes, offsets and constants of the mirror by their C expressions."""
    facts = {f"sizeof({name})": ctypes.sizeof(struct) for name, struct in STRUCTS.items()}
    for name, struct in STRUCTS.items():
        for field, *_ in struct._fields_:
            if field != "body" and not field.startswith("_"):
                facts[f"offsetof({name}, {field})"] = getattr(struct, field).offset
    entry = "struct tcmu_cmd_entry"
    for part, inner in abi._Body._fields_:
        for field, *_ in inner._fields_:
            if not field.startswith("__"):
                offset = abi.REQ_OFFSET + getattr(inner, field).offset
                facts[f"offsetof({entry}, {part}.{field})"] = offset
    facts["offsetof(struct tcmu_cmd_entry, req.iov[3])"] = abi.IOV_OFFSET + 3 * ctypes.sizeof(abi.iovec)
    facts["offsetof(struct tcmu_tmr_entry, cmd_ids[3])"] = abi.CMD_IDS_OFFSET + 3 * 2
    return facts | {name: getattr(abi, name) for name in CONSTANTS}


@pytest.fixture(scope="module")
def header(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Values of the same expressions from a C compiler."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler: cc is missing (apt install gcc)")
    if not HEADER.exists():
        pytest.skip(f"{HEADER} is missing (apt install linux-libc-dev)")
    folder = tmp_path_factory.mktemp("abi")
    lines = "".join(
        f'    printf("%s\\"%s\\": %llu", sep, "{fact}", (unsigned long long)({fact})); sep = ", ";\n'
        for fact in mirror()
    )
    (folder / "abi.c").write_text(
        "#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n"
        "#include <linux/target_core_user.h>\n"
        'int main(void)\n{\n    const char *sep = "{";\n' + lines + '    puts("}");\n    return 0;\n}\n'
    )
    subprocess.run(["cc", "-o", folder / "abi", folder / "abi.c"], check=True, capture_output=True, text=True)
    output = subprocess.run([folder / "abi"], check=True, capture_output=True, text=True).stdout
    facts: dict[str, int] = json.loads(output)
    return facts


def test_mirror_agrees_with_the_header(header: dict[str, int]) -> None:
    assert mirror() == header


def test_mirror_is_compared_as_a_whole() -> None:
    facts = mirror()
    assert "offsetof(struct tcmu_cmd_entry, req.iov)" in facts
    assert "offsetof(struct tcmu_cmd_entry, rsp.sense_buffer)" in facts
    assert "offsetof(struct tcmu_tmr_entry, cmd_ids)" in facts
    assert len(facts) > 40


def test_names_used_on_the_hot_path_are_the_mirrors() -> None:
    assert (abi.MAILBOX_SIZE, abi.CMD_HEAD_OFFSET, abi.CMD_TAIL_OFFSET) == (128, 12, 64)
    assert (abi.REQ_OFFSET, abi.IOV_OFFSET, abi.SENSE_OFFSET, abi.CMD_ENTRY_SIZE) == (8, 48, 16, 112)
