"""Claims of an HBA id."""

import os
from pathlib import Path

import pytest

from vscsihba.engine.claim import claim_hba
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


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HostError, match=r"hba3\.lock: File exists"):
        claim_hba(3, tmp_path / "file").__enter__()
