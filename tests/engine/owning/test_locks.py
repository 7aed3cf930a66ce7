"""Locks of an HBA id, held alone or shared by engines of one program."""

import os
from pathlib import Path

import pytest

from vscsihba.engine.owning.locks import SERVICE, holder_of, lock_hba, try_lock
from vscsihba.errors import HostError, InUseError


def test_a_second_claim_names_the_first_process(tmp_path: Path) -> None:
    with lock_hba(3, tmp_path), pytest.raises(InUseError, match=rf"HBA 3 .* process {os.getpid()}"):
        lock_hba(3, tmp_path).__enter__()


def test_other_ids_are_free(tmp_path: Path) -> None:
    with lock_hba(3, tmp_path), lock_hba(4, tmp_path):
        pass


def test_a_claim_ends_with_its_context(tmp_path: Path) -> None:
    for _ in range(2):
        with lock_hba(3, tmp_path):
            pass


def test_those_that_say_the_same_share_a_claim_and_others_do_not(tmp_path: Path) -> None:
    with lock_hba(3, tmp_path, by="daemon"), lock_hba(3, tmp_path, by="daemon"):
        assert holder_of(3, tmp_path) == (os.getpid(), "daemon")
        with pytest.raises(InUseError, match=rf"HBA 3 is already served by daemon {os.getpid()}; choose"):
            lock_hba(3, tmp_path).__enter__()
        with pytest.raises(InUseError, match="already served by daemon"):
            lock_hba(3, tmp_path, by="vscsitarget").__enter__()
    with lock_hba(3, tmp_path, by="vscsitarget"):
        assert holder_of(3, tmp_path) == (os.getpid(), "vscsitarget")


def test_remedy_for_an_engine_of_the_service_is_not_to_end_it(tmp_path: Path) -> None:
    """The service would start another one."""
    with (
        lock_hba(3, tmp_path, by=SERVICE),
        pytest.raises(InUseError, match=r'; choose another id, or run "vscsihba clear 3"$'),
    ):
        lock_hba(3, tmp_path).__enter__()
    with (
        lock_hba(3, tmp_path, by="vscsitarget"),
        pytest.raises(InUseError, match=r"; choose another id, or end that process$"),
    ):
        lock_hba(3, tmp_path).__enter__()


def test_a_claim_that_is_not_shared_keeps_everybody_out(tmp_path: Path) -> None:
    with lock_hba(3, tmp_path), pytest.raises(InUseError, match=f"served by process {os.getpid()}"):
        lock_hba(3, tmp_path, by="daemon").__enter__()


def test_an_id_that_nobody_holds_has_no_holder(tmp_path: Path) -> None:
    assert holder_of(3, tmp_path) is None
    with lock_hba(3, tmp_path, by="daemon"):
        pass
    assert holder_of(3, tmp_path) is None
    with lock_hba(3, tmp_path, by="vscsitarget"):
        pass


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
        lock_hba(3, tmp_path / "file").__enter__()
