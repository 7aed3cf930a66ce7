"""A disk on a real nginx: what is read, what is refused, and a server that comes and goes."""

import errno
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

from tests.handlers.http.conftest import CONTENT
from tests.handlers.http.servers import Nginx
from tests.handlers.places import MEMORY_DIRECTORY, open_files
from tests.polling import wait_until
from vscsihba.errors import HostError, MediumError, UsageError
from vscsihba.handlers.checked import Checked
from vscsihba.handlers.shared import optional
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import DiskModel, as_tests, lengths, offsets, read, write


def disk_of(url: str, **options: object) -> Document:
    return {"handler": "http", "url": url, **options}


class HttpModel(DiskModel):
    """A file of an nginx, which is only read."""

    scratch = MEMORY_DIRECTORY
    resizes = False
    server: Nginx
    count = 0

    def prepare(self, directory: Path) -> bytearray:
        type(self).count += 1
        self.file = f"{directory.name}.img"
        self.server.put(self.file, CONTENT[: self.size])
        return bytearray(CONTENT[: self.size])

    def teardown(self) -> None:
        super().teardown()
        if hasattr(self, "file"):
            (self.server.root / self.file).unlink()

    def document(self, directory: Path) -> Document:
        return disk_of(self.server.url(self.file), read_ahead="1MiB")


class ReadOnlyModel(HttpModel):
    """The same, with writes that have to be refused."""

    @rule(offset=offsets, length=lengths, seed=st.just(0), cuts=st.just([]), fua=st.booleans())
    def write(self, offset: int, length: int, seed: int, cuts: list[int], fua: bool) -> None:
        with pytest.raises(OSError, match="Read-only"):
            write(self.disk, *self.clip(offset, length)[:1], b"x", fua=fua)

    @rule(offset=offsets, length=lengths, may_unmap=st.booleans(), fua=st.booleans())
    def write_zeroes(self, offset: int, length: int, may_unmap: bool, fua: bool) -> None:
        with pytest.raises(OSError, match="Read-only"):
            self.disk.write_zeroes(*self.clip(offset, length), may_unmap=may_unmap, fua=fua)


class CowModel(HttpModel):
    """The same below an overlay, where it can be written."""

    resizes = True
    grows_with_zeroes = False

    def document(self, directory: Path) -> Document:
        below = super().document(directory)
        return {"handler": "cow", "path": str(directory / "a.cow"), "create": True, "next": below}


class CacheModel(HttpModel):
    """Both, with a cache between them."""

    resizes = True
    grows_with_zeroes = False

    def document(self, directory: Path) -> Document:
        cache = {"handler": "cache", "size": "64KiB", "next": super().document(directory)}
        return {"handler": "cow", "path": str(directory / "a.cow"), "create": True, "next": cache}


@pytest.mark.parametrize("model", [ReadOnlyModel, CowModel, CacheModel])
def test_a_disk_is_a_bytearray(shared_nginx: Nginx, model: type[HttpModel]) -> None:
    case: type[HttpModel] = type("Model", (model,), {"server": shared_nginx})
    as_tests(case, examples=8)("runTest").runTest()
    assert case.count > 0


def test_an_incomplete_last_block_is_filled_with_zeroes(shared_nginx: Nginx) -> None:
    shared_nginx.put("odd.iso", CONTENT[:5000])
    with build(disk_of(shared_nginx.url("odd.iso"), block_size=2048)) as disk:
        assert disk.geometry.size == 6144
        assert disk.geometry.block_size == 2048
        assert read(disk, 0, 6144) == CONTENT[:5000] + bytes(1144)
        assert read(disk, 4990, 20) == CONTENT[4990:5000] + bytes(10)
        assert read(disk, 5000, 100) == bytes(100)


def test_a_file_that_is_smaller_than_a_block_is_a_disk(shared_nginx: Nginx) -> None:
    shared_nginx.put("tiny", b"x")
    with build(disk_of(shared_nginx.url("tiny"))) as disk:
        assert read(disk, 0, 512) == b"x" + bytes(511)


def test_the_identity_is_the_url_with_the_version(shared_nginx: Nginx) -> None:
    url = shared_nginx.url("version.img")
    path = shared_nginx.put("version.img", CONTENT[:4096])
    identities = set()
    for moment in (1_600_000_000, 1_600_000_001, 1_600_000_000):
        os.utime(path, (moment, moment))
        with build(disk_of(url)) as disk:
            assert url in disk.identity
            identities.add(disk.identity)
    assert len(identities) == 2


def test_an_overlay_refuses_another_version_as_its_base(shared_nginx: Nginx, tmp_path: Path) -> None:
    path = shared_nginx.put("base.img", CONTENT)
    document: Document = {
        "handler": "cow",
        "path": str(tmp_path / "a.cow"),
        "create": True,
        "next": disk_of(shared_nginx.url("base.img")),
    }
    with build(document) as disk:
        write(disk, 4096, b"written")
        disk.flush()
    with build(document) as disk:
        assert read(disk, 4090, 20) == CONTENT[4090:4096] + b"written" + CONTENT[4103:4110]
    assert path.read_bytes() == CONTENT
    os.utime(path, (1_600_000_000,) * 2)
    with pytest.raises(HostError, match="its base"):
        build(document).open()


def test_a_file_that_is_replaced_is_noticed(shared_nginx: Nginx) -> None:
    shared_nginx.put("changing.img", CONTENT)
    with build(disk_of(shared_nginx.url("changing.img"), read_ahead=0)) as disk:
        assert read(disk, 0, 4096) == CONTENT[:4096]
        new = shared_nginx.put("new.img", bytes(len(CONTENT)))
        os.utime(new, (1_600_000_000,) * 2)
        new.rename(shared_nginx.root / "changing.img")
        for _ in range(2):
            with pytest.raises(MediumError, match="changed") as lost:
                read(disk, 8192, 4096)
            assert lost.value.offset == 8192
        shared_nginx.put("changing.img", CONTENT)
        os.utime(shared_nginx.root / "changing.img", (1_700_000_000,) * 2)
        with pytest.raises(MediumError, match="changed"):
            read(disk, 8192, 4096)


def test_a_file_that_is_cut_is_noticed(shared_nginx: Nginx) -> None:
    path = shared_nginx.put("cut.img", CONTENT)
    status = path.stat()
    with build(disk_of(shared_nginx.url("cut.img"))) as disk:
        os.truncate(path, 8192)
        os.utime(path, (status.st_atime, status.st_mtime))
        for offset in (0, 65536):
            with pytest.raises(MediumError) as lost:
                read(disk, offset, 4096)
            assert lost.value.offset == offset


def test_a_server_that_is_killed_and_started_again_is_no_error(nginx: Nginx) -> None:
    nginx.put("a.img", CONTENT)
    with build(disk_of(nginx.url("a.img"), read_ahead="512KiB")) as disk:
        over = threading.Event()
        results: list[str] = []

        def keep_reading(step: int) -> None:
            offset = 0
            while not over.is_set():
                offset = (offset + step) % (len(CONTENT) - 65536)
                if read(disk, offset, 65536) != CONTENT[offset : offset + 65536]:
                    results.append(f"wrong bytes at {offset}")
            results.append("ended")

        readers = [threading.Thread(target=keep_reading, args=(step,)) for step in (65536, 4096, 77777, 1)]
        for reader in readers:
            reader.start()
        for _ in range(5):
            time.sleep(0.2)
            nginx.kill()
            time.sleep(0.2)
            nginx.start()
        over.set()
        for reader in readers:
            reader.join()
    assert results == ["ended"] * 4


def test_a_server_that_stays_away_is_an_error_within_the_time_limit_and_not_for_ever(nginx: Nginx) -> None:
    nginx.put("a.img", CONTENT)
    with build(disk_of(nginx.url("a.img"), timeout=1.0, read_ahead=0)) as disk:
        nginx.kill()
        started = time.monotonic()
        with pytest.raises(OSError, match="connect") as lost:
            read(disk, 65536, 4096)
        assert lost.value.errno == errno.ETIMEDOUT
        assert 0.9 <= time.monotonic() - started < 10
        nginx.start()
        assert read(disk, 65536, 4096) == CONTENT[65536 : 65536 + 4096]


def test_a_disk_opens_again_while_its_server_starts(nginx: Nginx) -> None:
    nginx.put("a.img", CONTENT)
    stack = build(disk_of(nginx.url("a.img")))
    stack.forbid_making()  # as in a takeover
    nginx.kill()
    starter = threading.Timer(0.5, nginx.start)
    starter.start()
    with stack as disk:
        assert read(disk, 0, 100) == CONTENT[:100]
    starter.join()


def test_closing_leaves_neither_thread_nor_descriptor(shared_nginx: Nginx) -> None:
    shared_nginx.put("a.img", CONTENT)
    names, files = {thread.name for thread in threading.enumerate()}, open_files()
    for _ in range(3):
        with build(disk_of(shared_nginx.url("a.img"))) as disk:
            read(disk, 0, len(CONTENT))
            assert {thread.name for thread in threading.enumerate()} > names
    with pytest.raises(HostError):
        build(disk_of(shared_nginx.url("missing.img"))).open()
    wait_until(lambda: {thread.name for thread in threading.enumerate()} == names)
    assert open_files() == files


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://127.0.0.1:{port}/missing.img", "404 Not Found; check the URL"),
        ("http://127.0.0.1:1/a.img", "connect.*; start the server, or correct host and port in the URL"),
        ("http://no-such-host.invalid/a.img", "resolve.*; correct the host in the URL, or check the DNS"),
        ("https://127.0.0.1:{port}/a.img", '; if the server does not use TLS, begin the URL with "http://"'),
    ],
)
def test_a_url_that_leads_to_no_file_is_refused_at_once(shared_nginx: Nginx, url: str, said: str) -> None:
    shared_nginx.put("a.img", CONTENT)
    started = time.monotonic()
    with pytest.raises(HostError, match=said) as refused:
        build(disk_of(url.format(port=shared_nginx.port))).open()
    assert "\n" not in str(refused.value)
    assert time.monotonic() - started < 20


def test_an_image_of_another_format_is_refused_unless_its_bytes_are_wanted(shared_nginx: Nginx) -> None:
    image = b"QFI\xfb\x00\x00\x00\x03" + bytes(4096)
    shared_nginx.put("a.qcow2", image)
    shared_nginx.put("a.vhd", bytes(100_000) + b"conectix" + bytes(504))
    for name, format_ in (("a.qcow2", "qcow2"), ("a.vhd", "VHD")):
        with pytest.raises(UsageError, match=format_):
            build(disk_of(shared_nginx.url(name))).open()
    with build(disk_of(shared_nginx.url("a.qcow2"), format="raw")) as disk:
        assert read(disk, 0, len(image)) == image


def test_an_empty_file_is_refused(shared_nginx: Nginx) -> None:
    shared_nginx.put("empty", b"")
    with pytest.raises(HostError, match="empty"):
        build(disk_of(shared_nginx.url("empty"))).open()


def test_a_missing_package_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(optional, "import_module", missing)
    with pytest.raises(HostError, match=r"pycurl.*python3-pycurl.*vscsihba\[http\]"):
        build(disk_of("http://127.0.0.1/a.img")).open()


def htpasswd(nginx: Nginx, password: str) -> None:
    (nginx.root.parent / "users").write_text(f"anna:{{PLAIN}}{password}\n")


def test_user_and_password_come_from_a_file_that_nobody_else_can_read(tmp_path: Path) -> None:
    folder = tmp_path / "nginx"
    nginx = Nginx(folder, more=f"auth_basic private; auth_basic_user_file {folder}/users;")
    htpasswd(nginx, "päss wörd")
    nginx.put("a.img", CONTENT)
    nginx.start()
    try:
        with pytest.raises(HostError, match=r"401.*credentials_file"):
            build(disk_of(nginx.url("a.img"))).open()
        secret = tmp_path / "secret"
        secret.write_text("anna:päss wörd\n")
        secret.chmod(0o644)
        document = disk_of(nginx.url("a.img"), credentials_file=str(secret))
        with pytest.raises(UsageError, match="others can read"):
            build(document).open()
        secret.chmod(0o600)
        with build(document) as disk:
            assert read(disk, 5, 100) == CONTENT[5:105]
            htpasswd(nginx, "another")
            with pytest.raises(OSError, match="401") as refused:
                read(disk, 500_000, 100)
            assert refused.value.errno == errno.EIO
    finally:
        nginx.kill()


@pytest.fixture
def certified(tmp_path: Path) -> Path:
    """Make a CA, a certificate of the server for 127.0.0.1, and one for a client."""
    folder = tmp_path / "tls"
    folder.mkdir()
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    issued = ["-CA", f"{folder}/ca.pem", "-CAkey", f"{folder}/ca.key"]
    address = ["-addext", "subjectAltName=IP:127.0.0.1"]
    for name, more in (("ca", []), ("otherca", []), ("server", issued + address), ("client", issued)):
        files = ["-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.pem"]
        command = ["openssl", "req", "-x509", *key, "-subj", f"/CN={name}", *files, *more]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def start_tls(tmp_path: Path, certified: Path, more: str = "", folder: str = "nginx") -> Nginx:
    lines = f"ssl_certificate {certified}/server.pem; ssl_certificate_key {certified}/server.key; {more}"
    nginx = Nginx(tmp_path / folder, more=lines, listen=" ssl")
    nginx.put("a.img", CONTENT)
    nginx.start()
    return nginx


def test_the_server_has_to_be_certified(tmp_path: Path, certified: Path) -> None:
    nginx = start_tls(tmp_path, certified)
    try:
        url = nginx.url("a.img", "https")
        with build(disk_of(url, ca_file=f"{certified}/ca.pem")) as disk:
            assert read(disk, 0, len(CONTENT)) == CONTENT
        with pytest.raises(HostError, match=r"certificate.*ca_file"):
            build(disk_of(url)).open()
        with pytest.raises(HostError, match="certificate"):
            build(disk_of(url, ca_file=f"{certified}/otherca.pem")).open()
        with pytest.raises(HostError, match=r'400 Bad Request; check the port; .* URL with "https://"'):
            build(disk_of(nginx.url("a.img"))).open()
        other_name = nginx.url("a.img", "https", "localhost")
        with pytest.raises(HostError, match="localhost"):
            build(disk_of(other_name, ca_file=f"{certified}/ca.pem")).open()
    finally:
        nginx.kill()


def test_a_server_may_ask_for_a_certificate(tmp_path: Path, certified: Path) -> None:
    more = f"ssl_verify_client on; ssl_client_certificate {certified}/ca.pem;"
    nginx = start_tls(tmp_path, certified, more)
    try:
        url = nginx.url("a.img", "https")
        with pytest.raises(HostError, match="400"):
            build(disk_of(url, ca_file=f"{certified}/ca.pem")).open()
        shown = {"client_certificate": f"{certified}/client.pem", "client_key": f"{certified}/client.key"}
        with build(disk_of(url, ca_file=f"{certified}/ca.pem", **shown)) as disk:
            assert read(disk, 0, 4096) == CONTENT[:4096]
        (certified / "client.key").chmod(0o640)
        with pytest.raises(UsageError, match="others can read"):
            build(disk_of(url, ca_file=f"{certified}/ca.pem", **shown)).open()
    finally:
        nginx.kill()


def test_a_certificate_is_shown_to_no_other_host(tmp_path: Path, certified: Path) -> None:
    asks = f"ssl_verify_client optional; ssl_client_certificate {certified}/ca.pem;"
    other = start_tls(
        tmp_path, certified, f"{asks} if ($ssl_client_verify != NONE) {{ return 418; }}", "other"
    )
    more = f"{asks} if ($ssl_client_verify != SUCCESS) {{ return 418; }}"
    target = other.url("a.img", "https")
    nginx = start_tls(tmp_path, certified, f"{more} location = /b.img {{ return 302 {target}; }}")
    shown: dict[str, object] = {
        "client_certificate": f"{certified}/client.pem",
        "client_key": f"{certified}/client.key",
        "ca_file": f"{certified}/ca.pem",
    }
    try:
        for name in ("a.img", "b.img"):
            with build(disk_of(nginx.url(name, "https"), **shown)) as disk:
                assert read(disk, 0, 4096) == CONTENT[:4096]
        with pytest.raises(HostError, match="418"):
            build(disk_of(target, **shown)).open()
    finally:
        nginx.kill()
        other.kill()


def test_a_redirect_from_https_to_http_is_refused(
    shared_nginx: Nginx, tmp_path: Path, certified: Path
) -> None:
    shared_nginx.put("plain.img", CONTENT)
    more = f"location = /b.img {{ return 302 {shared_nginx.url('plain.img')}; }}"
    nginx = start_tls(tmp_path, certified, more)
    try:
        with pytest.raises(HostError, match="redirects from https"):
            build(disk_of(nginx.url("b.img", "https"), ca_file=f"{certified}/ca.pem")).open()
    finally:
        nginx.kill()


def test_reads_are_asynchronous(shared_nginx: Nginx) -> None:
    shared_nginx.put("async.img", CONTENT)
    with build(disk_of(shared_nginx.url("async.img"))) as disk:
        check_asynchronous(disk)


def check_asynchronous(disk: Checked) -> None:
    verbs = disk.asynchronous
    assert verbs is not None
    assert verbs.read is not None
    rooms = {offset: bytearray(5000) for offset in range(0, 1_000_000, 5000)}
    done: list[OSError | None] = []
    for offset, room in rooms.items():
        verbs.read(offset, [memoryview(room)[:700], memoryview(room)[700:]], done.append)
    wait_until(lambda: len(done) == len(rooms))
    assert set(done) == {None}
    for offset, room in rooms.items():
        assert room == CONTENT[offset : offset + 5000]
