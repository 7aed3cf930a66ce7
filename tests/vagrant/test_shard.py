"""Distribution of the VM tests over shards."""

from pathlib import Path

import pytest

from tests.vm.shard import SECONDS, files_of, parse

FILES = list((Path(__file__).parents[1] / "vm").rglob("test_*.py"))


@pytest.mark.parametrize("of", [1, 2, 3])
def test_every_file_is_in_one_shard(of: int, tmp_path: Path) -> None:
    files = [tmp_path / f"test_{number}.py" for number in range(7)]
    for number, file in enumerate(files):
        file.write_bytes(bytes(100 + number))
    shards = [files_of([*files, files[0]], number, of) for number in range(1, of + 1)]
    assert sorted(file for shard in shards for file in shard) == files
    assert min(map(len, shards)) >= 7 // of


def test_what_was_measured_is_of_files_that_are_there() -> None:
    assert SECONDS.keys() <= {file.name for file in FILES}


def test_halves_take_equally_long() -> None:
    first, second = (
        sum(SECONDS.get(file.name, 0) for file in files_of(FILES, number, 2)) for number in (1, 2)
    )
    assert abs(first - second) < 0.15 * (first + second)


def test_words() -> None:
    assert parse("2/2") == (2, 2)
    for text in ("", "0/2", "3/2", "1", "a/b", "1/0"):
        with pytest.raises(pytest.UsageError, match="is no shard; write it as 1/2"):
            parse(text)
