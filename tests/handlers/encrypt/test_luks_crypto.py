import hashlib
import os
from pathlib import Path
from threading import Event, Thread

import pytest

from vscsihba.errors import HostError
from vscsihba.handlers.encrypt.crypto import Argon2, Argon2i, Pbkdf2, derive, gather, new_kdf, spread
from vscsihba.handlers.shared import linux

pytest.importorskip("cryptography")


@pytest.mark.parametrize("hash_", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("length", [32, 64])
def test_a_key_that_is_spread_can_be_gathered(hash_: str, length: int) -> None:
    key = os.urandom(length)
    stripes = spread(key, hash_)
    assert gather(stripes, length, hash_) == key
    damaged = stripes[:12345] + bytes([stripes[12345] ^ 1]) + stripes[12346:]
    assert gather(damaged, length, hash_) != key


def test_derivations() -> None:
    pytest.importorskip("argon2")
    salt = bytes(range(32))
    assert derive(Pbkdf2(salt, "sha256", 1000), b"x", 32) == hashlib.pbkdf2_hmac(
        "sha256", b"x", salt, 1000, 32
    )
    assert derive(Argon2(salt, 1, 64, 1), b"x", 32) != derive(Argon2i(salt, 1, 64, 1), b"x", 32)
    with pytest.raises(HostError, match="hash 'md99'"):
        derive(Pbkdf2(salt, "md99", 1000), b"x", 32)


def test_new_derivations_are_never_weaker_than_allowed() -> None:
    slow = new_kdf(argon2=False, time=0, memory=0)
    assert isinstance(slow, Pbkdf2)
    assert slow.iterations == 1000
    hungry = new_kdf(argon2=True, time=0, memory=0)
    assert isinstance(hungry, Argon2)
    assert (hungry.time, hungry.memory) == (1, 32)
    assert slow.salt != new_kdf(argon2=False, time=0, memory=0).salt


def test_a_new_key_takes_at_most_half_of_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "memory_total", lambda: 512 << 20)
    kdf = new_kdf(argon2=True, time=1, memory=1 << 30)
    assert isinstance(kdf, Argon2)
    assert kdf.memory == 256 << 10
    small = new_kdf(argon2=True, time=1, memory=1 << 20)
    assert isinstance(small, Argon2)
    assert small.memory == 1 << 10


def test_more_memory_than_there_is_is_told_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("argon2")
    monkeypatch.setattr(linux, "memory_available", lambda: 1 << 20)
    with pytest.raises(HostError, match=r"takes 1.0 GiB of memory: 1.0 MiB is available; free some"):
        derive(Argon2(bytes(32), 1, 1 << 20, 1), b"x", 32)


def test_a_failing_argon2_is_one_line() -> None:
    pytest.importorskip("argon2")
    with pytest.raises(HostError, match=r"a key derivation \(argon2\) takes 8.0 KiB of memory"):
        derive(Argon2(bytes(2), 1, 8, 1), b"x", 32)  # a salt of two bytes


def test_more_iterations_than_openssl_takes() -> None:
    with pytest.raises(HostError, match="iterations of PBKDF2"):
        derive(Pbkdf2(b"salt", "sha256", 1 << 40), b"x", 32)


def test_memory_of_the_control_group_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = tmp_path / "groups" / "a" / "b"
    inner.mkdir(parents=True)
    (tmp_path / "self").write_text("0::/a/b\n")
    (inner / "memory.max").write_text("max\n")
    (inner.parent / "memory.max").write_text(f"{64 << 20}\n")
    (inner.parent / "memory.current").write_text(f"{40 << 20}\n")
    (inner.parent / "memory.stat").write_text(f"anon 1\ninactive_file {8 << 20}\nactive_file {2 << 20}\n")
    monkeypatch.setattr(linux, "_OWN_GROUP", tmp_path / "self")
    monkeypatch.setattr(linux, "_GROUPS", tmp_path / "groups")
    assert linux.memory_total() == 64 << 20
    assert linux.memory_available() == 34 << 20
    (tmp_path / "self").write_text("1:memory:/a\n")
    assert linux.memory_available() > 64 << 20


def test_derivations_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that begin at once would both find the memory that is there for one."""
    argon2 = pytest.importorskip("argon2.low_level")
    real, inside, most = argon2.hash_secret_raw, [0], [0]

    def slow(*arguments: object, **keywords: object) -> bytes:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        Event().wait(0.05)  # so that the others come meanwhile
        inside[0] -= 1
        return bytes(real(*arguments, **keywords))

    monkeypatch.setattr(argon2, "hash_secret_raw", slow)
    kdf = Argon2(bytes(32), 1, 8, 1)
    threads = [Thread(target=derive, args=(kdf, b"x", 32)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1]
