"""Claims of an HBA id."""

import os
from pathlib import Path

import pytest

from vscsihba.engine.claim import claim_hba, try_lock
from vscsihba.errors import HostError, InUseError


def test_a_second_claim_names_the_first_process(tmp_path: Path) -> None:
    with claim_hba(3, tmp_path), pytest.raises(InUseError, match=rf"id=3 .* process {os.getpid()}"):
        claim_hba(3, tmp_path).__enter__()


def test_other_ids_are_free(tmp_path: Path) -> None:
    with claim_hba(3, tmp_path), claim_hba(4, tmp_path):
        pass


def test_a_claim_ends_with_its_context(tmp_path: Path) -> None:
    for _ in range(2):
        with claim_hba(3, tmp_path):
            pass


def test_engines_share_a_claim_and_others_do_not(tmp_path: Path) -> None:
    with claim_hba(3, tmp_path, shared=True), claim_hba(3, tmp_path, shared=True), pytest.raises(InUseError):
        claim_hba(3, tmp_path).__enter__()


def test_a_lock_is_free_when_its_descriptor_is_closed(tmp_path: Path) -> None:
    held = try_lock(tmp_path / "lun0.lock")
    assert held is not None
    assert try_lock(tmp_path / "lun0.lock") is None
    os.close(held)
    again = try_lock(tmp_path / "lun0.lock")
    assert again is not None
    os.close(again)


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match="file/hba3: Not a directory"):
        claim_hba(3, tmp_path / "file").__enter__()
