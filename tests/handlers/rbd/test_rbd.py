import errno
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.ceph import Cluster, cluster
from tests.handlers.rbd.conftest import Describe
from tests.polling import wait_until
from vscsihba.block import Space
from vscsihba.errors import HostError, MediumError, UsageError
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.rbd import library
from vscsihba.handlers.rbd.handler import RbdHandler
from vscsihba.handlers.rbd.library import rbd
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import read, write

BLOCK = 4096
MIB = 1 << 20


def name_of(document: Document) -> str:
    assert not isinstance(document, str)
    return str(document["image"])


def refusal(document: Document) -> str:
    """Return the one line that refuses a disk."""
    with pytest.raises((UsageError, HostError)) as caught, build(document):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def images(ceph: Cluster) -> list[str]:
    with ceph.pool() as pool:
        return list(rbd().RBD().list(pool))


def test_wrong_names_are_refused_with_those_that_exist(ceph: Cluster, describe: Describe) -> None:
    with build(describe()):
        pass
    name = name_of(describe())
    assert refusal(describe(pool="rdb")) == 'there is no pool rdb; did you mean "rbd"?'
    assert f'did you mean "{name}"' in refusal(describe(image=f"{name}x", size=None))
    assert refusal(describe(snapshot="s", size=None)) == (
        f"there is no snapshot rbd/{name}@s; there is no snapshot at all"
    )
    assert refusal(describe(namespace="n")).startswith("there is no namespace rbd/n; ")
    assert refusal(describe(image="new", data_pool="rdb")) == 'there is no pool rdb; did you mean "rbd"?'
    assert "librbd does not know all of the features" in refusal(
        describe(image="new", features=["bogus", "exclusive-lock"])
    )
    assert "new" not in images(ceph)


def test_a_wrong_user_key_or_configuration_is_refused(
    ceph: Cluster, describe: Describe, tmp_path: Path
) -> None:
    empty, wrong = tmp_path / "empty", tmp_path / "wrong"
    empty.touch(0o600)
    wrong.write_text("[client.admin]\nkey = AQBvaC9mAAAAABAAqzS2XK4cSgoHfSwsMkLk5g==\n")
    wrong.chmod(0o600)
    assert "client.nobody" in refusal(describe(user="nobody"))
    assert "client.admin" in refusal(describe(keyring=str(empty)))
    assert "the Ceph cluster refuses client.admin; check" in refusal(describe(keyring=str(wrong)))
    assert "no such Ceph configuration" in refusal(describe(conf=str(tmp_path / "none.conf")))
    (tmp_path / "bad.conf").write_text("mon_host = 127.0.0.1:1\n")
    assert "does not answer; check mon_host" in refusal(
        describe(conf=str(tmp_path / "bad.conf"), keyring=str(ceph.keyring("admin")), timeout=1)
    )


@pytest.mark.parametrize("named", [True, False])
def test_a_keyring_that_others_can_read_is_refused(ceph: Cluster, describe: Describe, named: bool) -> None:
    keyring = ceph.make_user("open", mon="profile rbd", osd="profile rbd")
    keyring.chmod(0o640)
    document = describe(user="open", **({"keyring": str(keyring)} if named else {}))
    assert refusal(document) == f"others can read the keyring {keyring} (mode 0640); chmod 600 {keyring}"
    keyring.chmod(0o600)
    with build(document):
        pass


def test_the_capabilities_of_the_documentation_are_enough(ceph: Cluster, describe: Describe) -> None:
    keyring = ceph.make_user("plain", mon="profile rbd", osd="profile rbd pool=rbd")
    with build(describe(user="plain", keyring=str(keyring))) as disk:
        write(disk, 0, b"\1" * BLOCK)
        disk.resize(16 * MIB)


def test_a_key_in_an_image_is_not_said_to_be_destroyed(describe: Describe, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"k" * 32)
    encrypted = {"handler": "encrypt", "key_file": str(tmp_path / "key"), "create": True}
    stack = {**encrypted, "kdf_memory": "1MiB", "kdf_time": 1, "next": describe(size=32 * MIB)}
    with build(stack) as disk:
        assert not disk.capabilities.crypto_erase
        write(disk, 5000, b"\1" * BLOCK)
        assert read(disk, 5000, BLOCK) == b"\1" * BLOCK


def test_an_image_is_created_once(ceph: Cluster, describe: Describe) -> None:
    document = describe()
    missing = build(document, make=False)
    with pytest.raises(UsageError, match="only adding the LUN makes one"):
        missing.open()
    assert name_of(document) not in images(ceph)
    with build(document) as disk:
        assert disk.geometry.size == 8 * MIB
        assert disk.geometry.optimal_io == 4 * MIB


def test_a_smaller_image_is_enlarged_when_the_disk_is_added(describe: Describe) -> None:
    with build(describe()):
        pass
    with build(describe(size=16 * MIB), make=False) as disk:
        assert disk.geometry.size == 8 * MIB
    with build(describe(size=16 * MIB, create=True)) as disk:
        assert disk.geometry.size == 8 * MIB
    with build(describe(size=16 * MIB)) as disk:
        assert disk.geometry.size == 16 * MIB
    with build(describe()) as disk:
        assert disk.geometry.size == 16 * MIB


def test_a_created_image_goes_away_if_the_disk_cannot_be_opened(
    ceph: Cluster, describe: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise HostError("no")

    monkeypatch.setattr("vscsihba.handlers.rbd.lock.acquire", refuse)
    assert refusal(describe()) == "no"
    assert name_of(describe()) not in images(ceph)


def test_options_of_a_new_image(ceph: Cluster, describe: Describe) -> None:
    ceph.make_pool("data")
    with ceph.pool() as pool:
        rbd().RBD().namespace_create(pool, "tenant")
    document = describe(data_pool="data", namespace="tenant", features=["layering", "exclusive-lock"])
    with build(document) as disk:
        write(disk, 0, b"\1" * BLOCK)
    with ceph.pool() as pool:
        pool.set_namespace("tenant")
        with rbd().Image(pool, name_of(document)) as image:
            assert image.features() & ~rbd().RBD_FEATURE_DATA_POOL == (
                rbd().RBD_FEATURE_LAYERING | rbd().RBD_FEATURE_EXCLUSIVE_LOCK
            )
            assert image.data_pool_id() != pool.get_pool_id()
            assert image.read(0, BLOCK) == b"\1" * BLOCK


def test_a_size_that_is_no_multiple_of_the_block_is_refused(ceph: Cluster, describe: Describe) -> None:
    document = describe(size=None)
    with ceph.pool() as pool:
        rbd().RBD().create(pool, name_of(document), MIB + 512)
    with build(document) as disk:
        assert disk.geometry.size == MIB + 512
    assert "is not a multiple of the block size 4096" in refusal(describe(size=None, block_size=4096))
    assert "is not a multiple of the block size 512" in refusal(describe(image="odd", size=MIB + 1))
    assert "odd" not in images(ceph)


def test_a_snapshot_is_a_disk_that_nobody_writes(ceph: Cluster, describe: Describe) -> None:
    with build(describe()) as disk:
        write(disk, 0, b"\1" * BLOCK)
        with ceph.pool() as pool, rbd().Image(pool, name_of(describe())) as image:
            image.create_snap("monday")
        write(disk, 0, b"\2" * BLOCK)
        with build(describe(size=None, snapshot="monday")) as old:
            assert old.capabilities.read_only
            assert old.identity.startswith(f"{disk.identity}@")
            assert read(old, 0, BLOCK) == b"\1" * BLOCK
            assert read(disk, 0, BLOCK) == b"\2" * BLOCK
    assert 'did you mean "monday"' in refusal(describe(size=None, snapshot="mondy"))


def test_the_identity_is_that_of_the_image_not_of_its_name(ceph: Cluster, describe: Describe) -> None:
    with build(describe()) as disk:
        first = disk.identity
    with ceph.pool() as pool:
        rbd().RBD().rename(pool, name_of(describe()), "renamed")
    with build(describe(image="renamed")) as disk:
        assert disk.identity == first
    with build(describe()) as disk:
        assert disk.identity != first


def test_a_resize_by_another_client_is_noticed(
    ceph: Cluster, describe: Describe, caplog: pytest.LogCaptureFixture
) -> None:
    def noticed(size: str) -> None:
        wait_until(lambda: f"has changed the size to {size}" in caplog.text, f"{size} is noticed")

    stack, told = build(describe()), list[int]()
    stack.layers[0].resized = told.append
    with stack as disk, ceph.pool() as pool, rbd().Image(pool, name_of(describe())) as image:
        write(disk, 6 * MIB, b"\1" * BLOCK)
        image.resize(16 * MIB)
        noticed("16.0 MiB")
        assert disk.geometry.size == 8 * MIB  # as the initiators know it
        wait_until(lambda: told == [16 * MIB], "the owner is told")
        disk.resize(16 * MIB)
        disk.resize(8 * MIB)  # undone: the image keeps the size that another client has given it
        assert image.size() == 16 * MIB
        disk.resize(16 * MIB)
        write(disk, 15 * MIB, b"\2" * BLOCK)
        image.resize(4 * MIB)
        noticed("4.0 MiB")
        for verb in (
            lambda: write(disk, 6 * MIB, b"\1" * BLOCK),
            lambda: read(disk, 4 * MIB - 512, BLOCK),
            lambda: disk.unmap(5 * MIB, MIB),
            lambda: disk.extents(4 * MIB, MIB),
        ):
            with pytest.raises(MediumError, match="was cut to") as caught:
                verb()
            assert caught.value.offset >= 4 * MIB
        disk.resize(8 * MIB)
        assert not any(read(disk, 4 * MIB, 4 * MIB))


def test_the_size_of_objects_is_chosen(describe: Describe) -> None:
    with build(describe(object_size="1MiB")) as disk:
        assert disk.geometry.optimal_io == MIB


def test_space_is_that_of_objects_and_pool(
    ceph: Cluster, describe: Describe, monkeypatch: pytest.MonkeyPatch
) -> None:
    stack = build(describe())
    (handler,) = stack.layers
    assert isinstance(handler, RbdHandler)
    with stack as disk, ceph.pool() as pool:
        assert disk.space() is None  # this cluster has no manager, who counts
        pools = [{"id": 99, "stats": {}}, {"id": pool.get_pool_id(), "stats": {"max_avail": 5 * MIB}}]
        report = json.dumps({"pools": pools}).encode()
        cluster = SimpleNamespace(mon_command=lambda _command, _data: (0, report, ""))
        monkeypatch.setattr(handler._session, "cluster", cluster)
        assert disk.space() == Space(available=5 * MIB, used=0)
        write(disk, 4 * MIB - 512, b"\1" * 1024)
        assert disk.space() == Space(available=5 * MIB, used=8 * MIB)
        cluster.mon_command = lambda _command, _data: (-errno.EACCES, b"", "denied")
        with pytest.raises(OSError, match="ceph df: denied"):
            disk.space()
    with build(describe(image="plain", features=["layering", "exclusive-lock"])) as disk:
        assert disk.space() is None  # each object would have to be asked


@pytest.mark.skipif(shutil.which("ceph-mgr") is None, reason="needs ceph-mgr: ./dev setup --ceph")
def test_space_with_a_manager(tmp_path: Path) -> None:
    """In a cluster of its own, since others have none: without, starts are quicker."""
    with cluster(tmp_path) as ceph:
        ceph.start_mgr()
        image = {"handler": "rbd", "pool": "rbd", "image": "space", "size": "64MiB", "conf": str(ceph.conf)}
        with build(image) as disk:
            space = disk.space()
            assert space is not None
            assert 0 < space.available < 2 << 30
            assert space.used == 0
            write(disk, 4 * MIB - 512, b"\1" * 1024)
            space = disk.space()
            assert space is not None
            assert space.used == 8 * MIB


def test_discards_are_exact(describe: Describe) -> None:
    with build(describe()) as disk:
        write(disk, 0, b"\1" * (8 * MIB))
        disk.unmap(4 * MIB - 700, 1000)
        assert read(disk, 4 * MIB - 701, 1002) == b"\1" + bytes(1000) + b"\1"
        disk.unmap(0, 8 * MIB)
        (extent,) = disk.extents(0, 8 * MIB)
        assert (extent.allocated, extent.zero) == (False, True)


def test_zeroes_that_keep_their_storage(describe: Describe) -> None:
    with build(describe()) as disk:
        disk.write_zeroes(MIB - 100, MIB + 300, may_unmap=False)
        assert not any(read(disk, 0, 8 * MIB))
        allocated = [each.extent for each in disk.extents(0, 8 * MIB) if each.allocated]
        assert [(each.offset, each.end) for each in allocated] == [
            (0, 2 * MIB + BLOCK)
        ]  # from the object's start


def test_a_range_longer_than_one_request_of_the_library(ceph: Cluster, describe: Describe) -> None:
    with build(describe(size=5 << 30)) as disk:
        for at in (0, (1 << 30) - BLOCK, 3 << 30, (5 << 30) - BLOCK):
            write(disk, at, b"\1" * BLOCK)
        disk.write_zeroes(BLOCK, (5 << 30) - 2 * BLOCK, may_unmap=True)
        assert read(disk, 0, 2 * BLOCK) == b"\1" * BLOCK + bytes(BLOCK)
        assert not any(read(disk, (1 << 30) - BLOCK, BLOCK) + read(disk, 3 << 30, BLOCK))
        at, allocated = 0, []
        while at < 5 << 30:
            for each in disk.extents(at, (5 << 30) - at):
                allocated += [each.extent.offset] * each.allocated
                at = each.extent.end
        assert allocated == [0, (5 << 30) - 4 * MIB]


def test_a_full_cluster_is_an_error_and_not_a_wait(ceph: Cluster, describe: Describe, tmp_path: Path) -> None:
    assert ceph.conf.exists()  # a cluster that was full once is so for long: this one is thrown away
    with cluster(tmp_path) as full, build(describe(conf=str(full.conf), size=64 * MIB)) as disk:
        write(disk, 0, b"\1" * (8 * MIB))
        full.set_full_ratio(0.001)
        objects = iter(range(2, 16))
        error = wait_until(lambda: _failure(disk, 4 * MIB * next(objects)), "the cluster is full", pause=1)
        assert error is not None
        assert error.errno == errno.ENOSPC
        write(disk, 0, b"\2" * BLOCK)  # which needs no new space
        assert read(disk, 0, BLOCK) == b"\2" * BLOCK
        disk.unmap(0, 4 * MIB)


def _failure(disk: Checked, offset: int) -> OSError | None:
    """Return the error of a write, None if there is none."""
    try:
        write(disk, offset, b"\1" * BLOCK)
    except OSError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("settings", "meaning"),
    [
        ({"rbd_cache": "true"}, "a cache that acknowledges writes"),
        ({"rbd_cache": "true", "rbd_cache_policy": "writethrough"}, ""),
        ({"rbd_blocklist_on_break_lock": "false"}, "locks that are broken without blocking"),
    ],
)
def test_settings_of_an_image_that_break_promises_are_refused(
    ceph: Cluster, describe: Describe, settings: dict[str, str], meaning: str
) -> None:
    document = describe()
    with build(document):
        pass
    with ceph.pool() as pool, rbd().Image(pool, name_of(document)) as image:
        for name, value in settings.items():
            image.config_set(name, value)
    if meaning:
        assert meaning in refusal(document)
    else:
        with build(document) as disk:
            write(disk, 0, b"\1" * BLOCK)


def test_missing_packages_are_named(describe: Describe, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    document = describe()
    monkeypatch.setattr(library, "import_module", missing)
    assert refusal(document) == (
        "the handler rbd needs the Python package rados; install python3-rbd and python3-rados; "
        "a virtual environment must be made with --system-site-packages"
    )
