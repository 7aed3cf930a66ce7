"""The page docs/conformance.md: it has all runs, and the promised counts."""

import re

import pytest

from tests.conformance import profiles
from tests.conformance.document import PATH
from tests.conformance.limits import LIMITS

TGT_OVER_ISCSI = 166


@pytest.fixture(scope="module")
def page() -> str:
    return PATH.read_text()


def counts(page: str) -> dict[tuple[str, str], tuple[int, ...]]:
    """Return passed, failed, skipped and crashed, by kind of disk and transport."""
    rows = re.findall(
        r"^\| \*\*vscsihba\*\*, (\S+)(?: \(\d+ tests\))? \| (\S+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|$",
        page,
        re.MULTILINE,
    )
    ways = {"`/dev/sg`": "sg", "iSCSI": "iscsi"}
    return {(name, ways[way]): tuple(map(int, numbers)) for name, way, *numbers in rows}


def test_every_kind_of_disk_is_shown_and_the_first_with_all_tests(page: str) -> None:
    found = counts(page)
    assert set(profiles.LANES) <= found.keys()
    for transport in profiles.TRANSPORTS:
        assert sum(found[profiles.FIRST, transport]) == 230


def test_the_promised_counts_are_held(page: str) -> None:
    found = counts(page)
    best_on_sg = max(numbers for (_, way), numbers in found.items() if way == "sg")
    assert best_on_sg[0] >= 150
    assert best_on_sg[1] == 0
    assert max(numbers[0] for (_, way), numbers in found.items() if way == "iscsi") > TGT_OVER_ISCSI
    somewhere = re.search(r"Over `/dev/sg`, (\d+) tests pass on at least one kind of disk", page)
    assert somewhere is not None
    assert int(somewhere[1]) >= 175


def test_every_failure_has_a_cause_that_is_not_ours(page: str) -> None:
    causes = {f"{limit.reason} ({limit.source})" for limit in LIMITS}
    told = re.findall(r"^\| \S+ \| (?:failed|crashed) \| (.+?) \|", page, re.MULTILINE)
    elsewhere = page.partition("## Failures on other kinds of disk")[2]
    told += re.findall(r"^\| \S+\.\S+ \| \S+ \| \S+ \| (.+?) \|$", elsewhere, re.MULTILINE)
    assert told
    assert set(told) <= causes
