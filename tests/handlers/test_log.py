import logging
import re

import pytest

from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import read, write

MEMORY: Document = {"handler": "memory", "size": "1MiB", "label": "m"}


@pytest.fixture(autouse=True)
def level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "vscsihba.handlers.log")


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [re.sub(r"[0-9.]+ ms", "N ms", record.getMessage()) for record in caplog.records]


def test_every_verb_with_its_outcome(caplog: pytest.LogCaptureFixture) -> None:
    document: Document = {"handler": "log", "next": {"handler": "error", "verbs": ["write"], "next": MEMORY}}
    with build(document) as disk:
        read(disk, 512, 4)
        with pytest.raises(OSError, match="on purpose"):
            write(disk, 0, b"x", fua=True)
        disk.flush()
    opened, *middle, closed = lines(caplog)
    assert opened.startswith("open memory:m Geometry(size=1048576")
    assert middle[0] == "read offset=512 length=4 ok N ms"
    assert middle[1].startswith("write offset=0 length=1 fua [Errno 5] ")
    assert middle[2] == "flush ok N ms"
    assert closed == "close"


def test_chosen_verbs_with_a_prefix(caplog: pytest.LogCaptureFixture) -> None:
    with build({"handler": "log", "prefix": "under:", "verbs": ["flush"], "next": MEMORY}) as disk:
        read(disk, 512, 4)
        disk.flush()
    assert lines(caplog)[1:] == ["under: flush ok N ms", "under: close"]
