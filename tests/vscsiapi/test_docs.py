"""docs/api.md: its examples run, and its tables are correct."""

import re
from pathlib import Path

import pytest

from vscsihba import vscsiapi as api

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_example_runs(block: str) -> None:
    exec(compile(block, "docs/api.md", "exec"), {})


def test_there_are_examples_of_both_faces() -> None:
    assert any("VirtualHba(" in block for block in BLOCKS)
    assert any("register_scsi_host(" in block for block in BLOCKS)


def test_table_of_codes_is_complete() -> None:
    told = dict(re.findall(r"\| `Code\.(\w+)` \| (-?\d) \|", PAGE))
    assert told == {code.name: str(code.value) for code in api.Code}


def test_table_of_fields_is_complete() -> None:
    fields = [name for name, *_ in api.user_scsitap_task._fields_]
    table = PAGE.partition("### The structure")[2].partition("### The calls")[0]
    assert re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) == fields


def test_every_public_name_is_told_of() -> None:
    assert [name for name in api.__all__ if name not in PAGE] == []


def test_message_that_it_quotes(capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = [block for block in BLOCKS if "print(error)" in block]
    test_example_runs(block)
    assert f"print(error)  # {capsys.readouterr().out}" in block
