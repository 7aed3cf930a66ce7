"""Servers that misbehave: refused when the disk is opened, honest errors later, never wrong bytes."""

import errno
import threading
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest

from tests.handlers.http.conftest import CONTENT, MakeServer
from tests.handlers.http.servers import Reply, Request, Script, Scripted
from tests.polling import wait_until
from vscsihba import threads
from vscsihba.errors import HostError, MediumError
from vscsihba.handlers.http.read_ahead import Reader
from vscsihba.handlers.stack import Document, build
from vscsihba.testing.disk_model import read

SHORT = 1.5
"""Seconds of a time limit that a test waits for."""


def disk_of(server: Scripted, **options: object) -> Document:
    return {"handler": "http", "url": server.url(), "read_ahead": 0, **options}


def change(**changes: object) -> Script:
    """Return a script that sets attributes of each reply."""

    def script(request: Request, reply: Reply) -> None:
        for name, value in changes.items():
            setattr(reply, name, value)

    return script


def fields(**changes: str | None) -> Script:
    """Return a script that changes fields of each reply; None removes one."""

    def script(request: Request, reply: Reply) -> None:
        for key, value in changes.items():
            name = key.replace("_", "-")
            if value is None:
                reply.fields.pop(name, None)
            else:
                reply.fields[name] = value

    return script


def whole_file(request: Request, reply: Reply) -> None:
    """A server that does not know ranges."""
    reply.status, reply.body = 200, CONTENT
    reply.fields.pop("Content-Range")


def more_than_asked_for(request: Request, reply: Reply) -> None:
    start, end = request.range
    reply.body = CONTENT[start : end + 512]
    reply.fields["Content-Range"] = f"bytes {start}-{start + len(reply.body) - 1}/{len(CONTENT)}"


def longer_body(request: Request, reply: Reply) -> None:
    reply.body += b"more"


def elsewhere(request: Request, reply: Reply) -> None:
    start, end = request.range
    reply.fields["Content-Range"] = f"bytes {start + 512}-{end + 511}/{len(CONTENT)}"


def several_parts(request: Request, reply: Reply) -> None:
    del reply.fields["Content-Range"]
    reply.fields["Content-Type"] = "multipart/byteranges; boundary=x"


def two_ranges(request: Request, reply: Reply) -> None:
    reply.fields["content-range"] = reply.fields["Content-Range"]


def endless_header(request: Request, reply: Reply) -> None:
    reply.raw = b"HTTP/1.1 206 Partial Content\r\n" + b"".join(
        b"X-%d: %s\r\n" % (n, b"x" * 900) for n in range(2000)
    )
    reply.close = True


def a_local_file(request: Request, reply: Reply) -> None:
    reply.status, reply.fields, reply.body = 302, {"Location": "file:///etc/passwd"}, b""


BROKEN: dict[str, tuple[Script, str]] = {
    "whole file": (whole_file, "whole file"),
    "no size": (fields(Content_Range="bytes 0-8191/*"), "Content-Range"),
    "no range": (fields(Content_Range=None), "Content-Range"),
    "nonsense": (fields(Content_Range="bytes zero-one/two"), "Content-Range"),
    "backwards": (fields(Content_Range="bytes 9-0/100"), "Content-Range"),
    "behind the end": (fields(Content_Range="bytes 0-8191/100"), "Content-Range"),
    "elsewhere": (elsewhere, "bytes 512 to"),
    "more": (more_than_asked_for, "sends bytes"),
    "longer body": (longer_body, "more bytes"),
    "several parts": (several_parts, "Content-Range"),
    "two ranges": (two_ranges, "Content-Range"),
    "encoded": (fields(Content_Encoding="gzip"), "gzip"),
    "garbage": (change(raw=b"\x00\xff garbage\r\n\r\n", close=True), "(HTTP/0.9|protocol).*; check the port"),
    "gone": (change(status=410, body=b"gone"), "410"),
    "forbidden": (change(status=403, body=b""), "403 Forbidden; allow it on the server, or name a file with"),
    "teapot": (change(status=418, body=b""), "418"),
    "nowhere": (change(status=302, body=b""), "redirects to nowhere"),
    "endless header": (endless_header, "header"),
    "a file": (a_local_file, "file:///etc/passwd"),
}
AT_OPEN: dict[str, tuple[Script, str]] = {
    **BROKEN,
    "no validator": (fields(ETag=None), "neither ETag nor Last-Modified.*; have the server send"),
    "weak validator": (fields(ETag='W/"x"'), "weak ETag.*; have the server send .* or download the file"),
    "wrong validator": (fields(ETag="one"), "neither|ETag"),
    "silence": (change(raw=b"", close=True), "Empty reply.*; check that an HTTP server listens there"),
    "reset body": (change(raw=b"HTTP/1.1 206 X\r\nContent-Length: 10\r\n", close=True), "."),
    "short body": (change(body=b"short"), "fewer bytes"),
    "busy": (change(status=503, body=b"later"), "503"),
}


@pytest.mark.parametrize(("script", "said"), AT_OPEN.values(), ids=AT_OPEN)
def test_a_server_that_makes_no_disk_is_refused_in_one_line(
    server: Scripted, script: Script, said: str
) -> None:
    server.script = script
    started = time.monotonic()
    with pytest.raises(HostError, match=said) as refused:
        build(disk_of(server)).open()
    assert server.url() in str(refused.value)
    assert "\n" not in str(refused.value)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(("script", "said"), BROKEN.values(), ids=BROKEN)
def test_a_server_that_breaks_later_gives_errors_and_never_wrong_bytes(
    server: Scripted, script: Script, said: str
) -> None:
    with build(disk_of(server)) as disk:
        server.script = script
        with pytest.raises(OSError) as broken:  # noqa: PT011  # the errno is what counts
            read(disk, 65536, 8192)
        assert broken.value.errno == errno.EIO
        server.script = lambda request, reply: None
        assert read(disk, 65536, 8192) == CONTENT[65536 : 65536 + 8192]


def test_a_changed_file_is_noticed_by_its_validator_alone(server: Scripted) -> None:
    with build(disk_of(server)) as disk:
        server.fields["ETag"] = '"two"'
        server.content = bytes(len(CONTENT))
        with pytest.raises(MediumError, match="changed"):
            read(disk, 0, 4096)
        assert server.requests[-1].fields["if-match"] == '"one"'


def test_a_changed_file_is_noticed_by_its_size_alone(server: Scripted) -> None:
    with build(disk_of(server)) as disk:
        server.content = CONTENT + bytes(512)
        with pytest.raises(MediumError, match="bytes now") as lost:
            read(disk, 4096, 4096)
        assert lost.value.offset == 4096


@pytest.mark.parametrize("etag", [None, 'W/"one"', '"One"', ""])
def test_a_response_without_the_validator_is_no_response(server: Scripted, etag: str | None) -> None:
    with build(disk_of(server)) as disk:
        server.script = fields(ETag=etag)
        with pytest.raises(OSError, match=r"etag|changed") as broken:
            read(disk, 0, 4096)
        assert broken.value.errno == errno.EIO


def test_versions_are_never_mixed_within_one_read(server: Scripted) -> None:
    with build(disk_of(server)) as disk:

        def change_in_between(request: Request, reply: Reply) -> None:
            reply.body = reply.body[:1000]
            reply.close = True
            reply.fields["Content-Length"] = "4096"
            server.fields["ETag"] = '"two"'
            server.content = bytes(len(CONTENT))

        server.script = change_in_between
        with pytest.raises(MediumError, match="changed"):
            read(disk, 0, 4096)


@pytest.mark.parametrize(("status", "offset"), [(412, 0), (416, 512)])
def test_statuses_that_say_that_the_file_has_changed(server: Scripted, status: int, offset: int) -> None:
    def script(request: Request, reply: Reply) -> None:
        reply.status, reply.body = status, b"no"
        reply.fields["Content-Range"] = "bytes */100"

    with build(disk_of(server)) as disk:
        server.script = script
        with pytest.raises(MediumError) as lost:
            read(disk, offset, 512)
        assert lost.value.offset == offset


def dated(age: float) -> dict[str, str]:
    now = 1_700_000_000
    return {"Last-Modified": formatdate(now - age, usegmt=True), "Date": formatdate(now, usegmt=True)}


def test_an_old_date_of_modification_is_a_validator(server: Scripted) -> None:
    server.fields = dated(60)
    with build(disk_of(server)) as disk:
        assert read(disk, 0, 4096) == CONTENT[:4096]
        assert server.requests[-1].fields["if-unmodified-since"] == server.fields["Last-Modified"]
        server.fields = dated(59)
        with pytest.raises(MediumError, match="changed"):
            read(disk, 8192, 4096)


@pytest.mark.parametrize("field", ["Date", "Last-Modified"])
@pytest.mark.parametrize("value", [None, "yesterday", "Thu, 99 Foo 2023 00:00:00 GMT"])
def test_a_date_that_is_none_is_no_validator(server: Scripted, field: str, value: str | None) -> None:
    server.fields = dated(60)
    server.script = fields(**{field.replace("-", "_"): value})
    with pytest.raises(HostError, match=r"[Mm]odif"):
        build(disk_of(server)).open()


def test_a_new_date_of_modification_is_no_validator(server: Scripted) -> None:
    server.fields = dated(59)
    with pytest.raises(HostError, match="wait a minute"):
        build(disk_of(server)).open()


def test_a_weak_etag_does_not_count_where_a_date_does(server: Scripted) -> None:
    server.fields = {"ETag": 'W/"one"', **dated(60)}
    with build(disk_of(server)) as disk:
        assert read(disk, 0, 512) == CONTENT[:512]
        assert "if-match" not in server.requests[-1].fields


def cut_short(count: int) -> Script:
    """Return a script that ends the connection after `count` bytes of the body."""

    def script(request: Request, reply: Reply) -> None:
        reply.fields["Content-Length"] = str(len(reply.body))
        reply.body = reply.body[:count]
        reply.close = True

    return script


def test_a_read_goes_on_where_a_lost_connection_has_left_it(server: Scripted) -> None:
    with build(disk_of(server)) as disk:
        server.script = cut_short(1000)
        before = len(server.requests)
        assert read(disk, 512, 4000) == CONTENT[512:4512]
        assert [request.range for request in server.requests[before:]] == [
            (512, 4512),
            (1512, 4512),
            (2512, 4512),
            (3512, 4512),
        ]


def test_a_server_may_send_less_than_was_asked_for(server: Scripted) -> None:
    def at_most_1000(request: Request, reply: Reply) -> None:
        start = request.range[0]
        reply.body = reply.body[:1000]
        reply.fields["Content-Range"] = f"bytes {start}-{start + len(reply.body) - 1}/{len(CONTENT)}"

    with build(disk_of(server)) as disk:
        server.script = at_most_1000
        assert read(disk, 3, 4000) == CONTENT[3:4003]


def test_a_body_without_a_length_is_right_if_it_has_all_bytes(server: Scripted) -> None:
    def chunked(request: Request, reply: Reply) -> None:
        reply.raw = (
            b"HTTP/1.1 206 Partial Content\r\nTransfer-Encoding: chunked\r\n"
            + b"".join(f"{name}: {value}\r\n".encode() for name, value in reply.fields.items())
            + b"\r\n"
            + b"".join(
                b"%x\r\n%s\r\n" % (len(part), part) for part in (reply.body[:700], reply.body[700:]) if part
            )
        )
        reply.close = True  # without the last chunk

    with build(disk_of(server)) as disk:
        server.script = chunked
        assert read(disk, 512, 4000) == CONTENT[512:4512]


def test_short_bodies_without_end_are_an_error(server: Scripted) -> None:
    with build(disk_of(server, timeout=20.0)) as disk:
        server.script = change(body=b"")
        started = time.monotonic()
        with pytest.raises(OSError, match="fewer bytes") as broken:
            read(disk, 0, 4096)
        assert broken.value.errno == errno.EIO
        assert time.monotonic() - started < 15


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: Scripted, status: int) -> None:
    failures = 3

    def busy(request: Request, reply: Reply) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            reply.status, reply.body = status, b"later"

    with build(disk_of(server)) as disk:
        server.script = busy
        assert read(disk, 0, 4096) == CONTENT[:4096]
        assert failures == 0


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_server_that_asks_to_be_left_alone_is_left_alone(server: Scripted, form: str) -> None:
    moments: list[float] = []

    def busy_once(request: Request, reply: Reply) -> None:
        moments.append(time.monotonic())
        if len(moments) == 1:
            reply.status, reply.body = 503, b"later"
            reply.fields["Retry-After"] = (
                "2" if form == "seconds" else formatdate(time.time() + 3, usegmt=True)
            )

    with build(disk_of(server)) as disk:
        server.script = busy_once
        first = threading.Thread(target=read, args=(disk, 0, 4096))
        first.start()
        wait_until(lambda: len(moments) == 1)
        time.sleep(0.1)
        assert read(disk, 65536, 4096) == CONTENT[65536 : 65536 + 4096]
        first.join()
        assert len(moments) == 3
        assert moments[1] - moments[0] > 1.8


def test_a_server_that_stays_busy_is_an_error_of_a_server_that_is_away(server: Scripted) -> None:
    with build(disk_of(server, timeout=SHORT)) as disk:
        server.script = change(status=503, body=b"later")
        with pytest.raises(OSError, match="503") as away:
            read(disk, 0, 4096)
        assert away.value.errno == errno.ETIMEDOUT


def hang(request: Request, reply: Reply) -> None:
    reply.hang = True


def trickle(request: Request, reply: Reply) -> None:
    reply.pause = 0.2


def half_a_header(request: Request, reply: Reply) -> None:
    reply.raw = b"HTTP/1.1 206 Partial Content\r\nContent-"


@pytest.mark.parametrize("script", [hang, trickle, half_a_header])
def test_a_server_that_stops_sending_is_an_error_within_the_time_limit(
    server: Scripted, script: Script
) -> None:
    with build(disk_of(server, timeout=SHORT)) as disk:
        server.script = script
        started = time.monotonic()
        with pytest.raises(OSError) as away:  # noqa: PT011  # the errno is what counts
            read(disk, 0, 4096)
        assert away.value.errno == errno.ETIMEDOUT
        assert SHORT - 0.1 <= time.monotonic() - started < SHORT + 5
        server.script = lambda request, reply: None
        assert read(disk, 65536, 4096) == CONTENT[65536 : 65536 + 4096]


def test_a_request_that_hangs_is_sent_again_within_the_time_limit(server: Scripted) -> None:
    with build(disk_of(server, timeout=12.0)) as disk:
        hung = threading.Event()

        def hang_once(request: Request, reply: Reply) -> None:
            reply.hang = not hung.is_set()
            hung.set()

        server.script = hang_once
        assert read(disk, 0, 4096) == CONTENT[:4096]
        assert hung.is_set()


def test_a_hanging_server_does_not_hold_up_the_end(server: Scripted) -> None:
    stack = build(disk_of(server))
    disk = stack.open()
    server.script = hang
    errors: list[OSError | None] = []
    verbs = disk.asynchronous
    assert verbs is not None
    assert verbs.read is not None
    verbs.read(0, [memoryview(bytearray(512))], errors.append)
    started = time.monotonic()
    stack.close()
    assert time.monotonic() - started < 4
    assert [type(error) for error in errors] == [OSError]


def test_several_requests_are_under_way_at_once(server: Scripted) -> None:
    with build(disk_of(server, connections=4)) as disk:
        together = threading.Barrier(4, timeout=20)

        def meet(request: Request, reply: Reply) -> None:
            together.wait()

        server.script = meet
        readers = [threading.Thread(target=read, args=(disk, 8192 * at, 512)) for at in range(4)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert not together.broken


def test_there_are_no_more_requests_at_once_than_connections(server: Scripted) -> None:
    with build(disk_of(server, connections=2)) as disk:
        lock, now, most = threading.Lock(), 0, 0

        def count(request: Request, reply: Reply) -> None:
            nonlocal now, most
            with lock:
                now += 1
                most = max(most, now)
            time.sleep(0.02)
            with lock:
                now -= 1

        server.script = count
        readers = [threading.Thread(target=read, args=(disk, 8192 * at, 512)) for at in range(8)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
        assert most == 2


def redirect(target: str, status: int = 302) -> Script:
    def script(request: Request, reply: Reply) -> None:
        reply.status, reply.body = status, b"elsewhere"
        reply.fields = {"Location": target}

    return script


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_and_remembered(make_server: MakeServer, status: int) -> None:
    first, second = make_server(CONTENT), make_server(CONTENT)
    first.script = redirect(second.url("b.img"), status)
    with build(disk_of(first)) as disk:
        assert first.url() in disk.identity
        assert read(disk, 0, 4096) == CONTENT[:4096]
        assert read(disk, 8192, 4096) == CONTENT[8192 : 8192 + 4096]
    assert len(first.requests) == 1
    assert {request.target for request in second.requests} == {"/b.img"}


def test_relative_redirects_are_followed(server: Scripted) -> None:
    def script(request: Request, reply: Reply) -> None:
        if request.target == "/a.img":
            redirect("/elsewhere/b.img")(request, reply)

    server.script = script
    with build(disk_of(server)) as disk:
        assert read(disk, 0, 512) == CONTENT[:512]


def test_redirects_without_end_are_refused(server: Scripted) -> None:
    server.script = redirect(server.url())
    with pytest.raises(HostError, match="more than 10 times"):
        build(disk_of(server)).open()
    assert len(server.requests) <= 12


@pytest.mark.parametrize("failure", [change(status=403, body=b""), change(status=410, body=b"")])
def test_a_place_that_has_expired_is_asked_for_again(make_server: MakeServer, failure: Script) -> None:
    first, old, new = make_server(CONTENT), make_server(CONTENT), make_server(CONTENT)
    first.script = redirect(old.url("old"))
    with build(disk_of(first)) as disk:
        assert read(disk, 0, 512) == CONTENT[:512]
        old.script = failure
        first.script = redirect(new.url("new"))
        assert read(disk, 8192, 512) == CONTENT[8192 : 8192 + 512]
        assert [request.target for request in new.requests] == ["/new"]
        new.script = failure
        first.script = failure
        with pytest.raises(OSError, match=r"403|410"):
            read(disk, 65536, 512)


def test_a_place_that_is_lost_is_asked_for_again(make_server: MakeServer) -> None:
    first, old, new = make_server(CONTENT), make_server(CONTENT), make_server(CONTENT)
    first.script = redirect(old.url())
    with build(disk_of(first)) as disk:
        first.script = redirect(new.url())
        old.close()
        assert read(disk, 8192, 512) == CONTENT[8192 : 8192 + 512]


def test_another_version_at_the_end_of_a_redirect_is_noticed(make_server: MakeServer) -> None:
    first, old, new = make_server(CONTENT), make_server(CONTENT), make_server(bytes(len(CONTENT)))
    new.fields = {"ETag": '"two"'}
    first.script = redirect(old.url())
    with build(disk_of(first)) as disk:
        first.script = redirect(new.url())
        old.close()
        with pytest.raises(MediumError, match="changed"):
            read(disk, 8192, 512)


def test_credentials_go_to_no_other_host(make_server: MakeServer, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("anna:secret")
    secret.chmod(0o600)
    first, second = make_server(CONTENT), make_server(CONTENT)

    def script(request: Request, reply: Reply) -> None:
        if request.target == "/a.img":
            redirect("/b.img")(request, reply)
        elif request.target == "/b.img":
            redirect(second.url("c.img"))(request, reply)

    first.script = script
    with build(disk_of(first, credentials_file=str(secret))) as disk:
        for offset in range(0, 65536, 4096):
            assert read(disk, offset, 512) == CONTENT[offset : offset + 512]
        second.close()
        first.script = lambda request, reply: None
        assert read(disk, 0, 512) == CONTENT[:512]
    assert all("authorization" in request.fields for request in first.requests)
    assert second.requests
    assert not any("authorization" in request.fields for request in second.requests)


def proxied(server: Scripted) -> list[str]:
    return [request.target for request in server.requests]


def test_a_proxy_is_used_that_the_option_names(server: Scripted) -> None:
    url = "http://cloud.invalid/a.img"
    document = {"handler": "http", "url": url, "proxy": f"http://127.0.0.1:{server.port}"}
    with build(document) as disk:
        assert read(disk, 0, 512) == CONTENT[:512]
    assert set(proxied(server)) == {url}


def test_a_proxy_of_the_environment_is_used_unless_there_is_to_be_none(
    make_server: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, server = make_server(CONTENT), make_server(CONTENT)
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
    with build(disk_of(server)) as disk:
        read(disk, 0, 512)
    assert set(proxied(proxy)) == {server.url()}
    assert not server.requests
    count = len(proxy.requests)
    with build(disk_of(server, proxy="none")) as disk:
        read(disk, 0, 512)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with build(disk_of(server)) as disk:
        read(disk, 0, 512)
    assert len(proxy.requests) == count
    with build(disk_of(server, proxy=f"http://127.0.0.1:{proxy.port}")) as disk:
        read(disk, 0, 512)
    assert len(proxy.requests) > count


@pytest.mark.parametrize(
    ("script", "said"),
    [
        (change(status=200, body=b"", close=True), "."),
        (change(status=407, body=b"", close=True), "407"),
        (change(raw=b"HTTP/1.1 200 Connected\r\n\r\n", close=True), "."),
    ],
)
def test_a_proxy_that_breaks_a_tunnel_is_no_server(server: Scripted, script: Script, said: str) -> None:
    server.right = lambda request: Reply(200)  # type: ignore[method-assign]
    server.script = script
    proxy = f"http://127.0.0.1:{server.port}"
    document = {"handler": "http", "url": "https://cloud.invalid/a.img", "proxy": proxy, "timeout": 5.0}
    with pytest.raises(HostError, match=said) as refused:
        build(document).open()
    assert "whole file" not in str(refused.value)


@pytest.mark.parametrize("fault", [ValueError("a bug"), MemoryError("a bug")])
@pytest.mark.parametrize("method", ["read", "_begin_parts", "_go_ahead"])
def test_an_error_of_our_own_fails_reads_and_not_the_disk(
    server: Scripted,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    method: str,
    fault: Exception,
) -> None:
    monkeypatch.setattr(threads, "PAUSE", 0.01)
    with build(disk_of(server, read_ahead="1MiB")) as disk:
        right: Callable[..., None] = getattr(Reader, method)

        def wrong(self: Reader, *arguments: object) -> None:
            right(self, *arguments)
            raise fault

        monkeypatch.setattr(Reader, method, wrong)
        verbs = disk.asynchronous
        assert verbs is not None
        assert verbs.read is not None
        errors: list[OSError | None] = []
        for offset in (0, 65536, 131_072):
            verbs.read(offset, [memoryview(bytearray(4096))], errors.append)
        wait_until(lambda: len(errors) == 3)
        assert {error.errno for error in errors if error is not None} <= {errno.EIO, errno.ENOMEM}
        assert None not in errors
        assert "a bug" in caplog.text
        monkeypatch.setattr(Reader, method, right)
        assert read(disk, 0, 4096) == CONTENT[:4096]


def refuse(request: Request, reply: Reply) -> None:
    reply.status = 410


def of_another_version(request: Request, reply: Reply) -> None:
    reply.fields["ETag"] = '"two"'


def right(request: Request, reply: Reply) -> None:
    """A server without fault."""


@pytest.mark.parametrize(
    "script", [right, refuse, elsewhere, of_another_version, longer_body, hang, change(status=503, body=b"")]
)
def test_a_read_that_has_ended_keeps_no_view(server: Scripted, script: Script, no_collection: None) -> None:
    """The memory of a ring cannot be unmapped while there is a view of it."""
    with build(disk_of(server, timeout=SHORT)) as disk:
        server.script = script
        verbs = disk.asynchronous
        assert verbs is not None
        assert verbs.read is not None
        room, errors = bytearray(4096), list[str]()
        verbs.read(65536, [memoryview(room)], lambda error: errors.append(str(error)))
        wait_until(lambda: errors)
        wait_until(lambda: is_free(room), limit=5)


def is_free(room: bytearray) -> bool:
    """Return whether there is no view of a bytearray, so that it can change its size."""
    try:
        room.append(0)
    except BufferError:
        return False
    return True
