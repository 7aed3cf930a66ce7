"""``vscsihba trace`` and ``replay`` on a real kernel: what Linux sends, decoded by tshark, and sent again."""

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.polling import wait_until
from tests.vm.conftest import Serve
from tests.vm.shell import run

PROGRAM = Path(sys.executable).parent / "vscsihba"
SYNTHETIC = "not sent: tells the type of the device"
LIMIT = 240.0
SIZE = 32 << 20
MIB = 1 << 20


@contextmanager
def tracing(path: Path, *words: str) -> Iterator[dict[str, int]]:
    """Capture into a file while the context is entered; yields the result, which is filled in at its end."""
    result: dict[str, int] = {}
    words = (str(PROGRAM), "trace", "--pcap", str(path), "--json", *words)
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            # The INQUIRY in front of the commands of each LUN is in the file as soon as they are observed.
            wait_until(lambda: path.exists() and path.stat().st_size > 400, "the trace to begin", limit=LIMIT)
            yield result
        finally:
            process.send_signal(signal.SIGINT)
            output, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, errors
    result |= json.loads(output)


def test_linux_is_captured_decoded_and_sent_again(serve: Serve, image: Callable[..., Path]) -> None:
    first, second = image("first.img", SIZE), image("second.img", SIZE)
    target = serve([first, second])
    disk, copy = (lun.node for lun in target.luns)
    made, more = first.with_name("mkfs.pcapng"), first.with_name("more.pcapng")
    with tracing(made, str(disk), "--snaplen", "all") as mkfs:
        run("mkfs.ext4", "-q", disk)
        run("sync")
    assert mkfs["lost"] == 0
    content = first.read_bytes()
    refused = subprocess.run(
        [PROGRAM, "replay", made, copy], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert refused.returncode == 2
    assert refused.stderr.endswith(f"has commands that change {copy}; use --overwrite\n")
    run(PROGRAM, "replay", made, copy, "--overwrite")
    assert content == second.read_bytes()
    assert any(content)

    with tracing(more, "hba0/lun0") as result:
        run(
            "fio", "--name=x", f"--filename={disk}", "--rw=randrw", "--bs=4k", "--size=1M", "--direct=1",
            "--ioengine=libaio", "--iodepth=8",
        )  # fmt: skip
        for words in ("sg_inq", "sg_readcap -l", "sg_modes", "sg_vpd -p di", "sg_reset -d", "sg_turs"):
            subprocess.run([*words.split(), disk], check=False, capture_output=True, timeout=LIMIT)
    assert result["lost"] == 0
    assert target.stop() == 0
    if shutil.which("tshark") is None:
        pytest.skip("the decoding is not tested: tshark is not installed")
    for path, commands in ((made, mkfs["commands"]), (more, result["commands"])):
        check_decoded(path, commands)


def check_decoded(path: Path, commands: int) -> None:
    """Check that tshark finds no malformed packet, and the request of each answer, and as many as we do."""
    names = ("frame.number", "frame.comment", "_ws.malformed", "iscsi.opcode", "iscsi.request_frame")
    words = ["tshark", "-r", str(path), "-T", "fields", *(f"-e{name}" for name in names)]
    output = subprocess.run(words, capture_output=True, text=True, check=True, timeout=LIMIT).stdout
    packets = [line.split("\t") for line in output.splitlines()]
    assert [packet for packet in packets if packet[2]] == []
    ours = [packet for packet in packets if packet[1] != SYNTHETIC]
    requests = {packet[0] for packet in ours if packet[3] == "0x01"}
    answers = [packet[4] for packet in ours if packet[3] == "0x21"]
    assert len(requests) == commands
    assert sorted(answers) == sorted(requests)


def test_the_lines_of_a_trace_and_a_lun_that_goes(serve: Serve, image: Callable[..., Path]) -> None:
    target = serve([image("a.img", MIB)])
    words = [str(PROGRAM), "trace", "hba0/lun0", "--times"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().split()[0] == "TIME"
        wait_until(lambda: read_is_seen(process, target.luns[0].node), "a READ in the trace", limit=LIMIT)
        assert target.stop() == 0
        _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert errors == ("vscsihba: LUN 0 of HBA 0 is no longer served; use --follow to wait for it\n")


def read_is_seen(process: "subprocess.Popen[str]", disk: Path) -> bool:
    """Read a block past the kernel's cache; return whether the next line of the trace is the command."""
    assert process.stdout is not None
    run("dd", f"if={disk}", "of=/dev/null", "bs=4k", "count=1", "iflag=direct")
    line = process.stdout.readline()
    return bool(re.search(r" 0:0 +\d+ +\d+ .* READ\(\d+\) lba=\d+ blocks=\d+", line))
