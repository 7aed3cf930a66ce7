"""Metrics: names, values and formats, and the server that serves them."""

import json
import shutil
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon.fake import FakeService
from vscsihba.cli import machine_state
from vscsihba.cli.main import main
from vscsihba.daemon import statistics
from vscsihba.daemon.calls import Daemon
from vscsihba.errors import HostError, UsageError
from vscsihba.metrics.exposition import Exposition
from vscsihba.metrics.families import Families
from vscsihba.metrics.server import Address, MetricsServer

parser = pytest.importorskip(
    "prometheus_client.openmetrics.parser", reason="prometheus-client is not installed"
)

Capture = pytest.CaptureFixture[str]


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return the samples of a text in OpenMetrics, by name and labels."""
    return {
        (sample.name, *(f"{name}={value}" for name, value in sorted(sample.labels.items()))): sample.value
        for family in parser.text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_every_disk_and_engine_has_its_values(running: FakeService, capsys: Capture) -> None:
    assert main(["metrics"]) == 0
    found = samples(capsys.readouterr().out)
    lun = ("hba=0", "lun=1")
    assert found["vscsihba_service_up",] == 1
    assert found["vscsihba_lun_up", *lun] == 1
    assert found["vscsihba_lun_size_bytes", *lun] == 1 << 20
    assert found["vscsihba_lun_info", "backstore=d2", "device=/dev/sdb", *lun, "stack=memory"] == 1
    assert found["vscsihba_lun_commands_total", *lun, "operation=read"] == 1000
    assert found["vscsihba_lun_commands_total", *lun, "operation=other"] == 7
    assert found["vscsihba_lun_transferred_bytes_total", *lun, "operation=read"] == 4096000
    assert found["vscsihba_lun_errors_total", *lun] == 1
    assert found["vscsihba_engine_up", "hba=0", "pid=900"] == 1


def test_histograms_are_cumulative_and_in_seconds(running: FakeService, capsys: Capture) -> None:
    assert main(["metrics"]) == 0
    found = samples(capsys.readouterr().out)
    name, labels = "vscsihba_lun_command_duration_seconds", ("hba=0", "lun=0", "operation=read")
    limits = {
        key[2]: value for key, value in found.items() if key[0] == f"{name}_bucket" and key[4] == labels[2]
    }
    assert limits["le=1e-05"] == 0
    assert limits["le=2.5e-05"] == limits["le=60.0"] == limits["le=+Inf"] == 1000
    assert found[f"{name}_count", *labels] == 1000
    assert found[f"{name}_sum", *labels] == pytest.approx(0.012, rel=0.03)


def test_a_machine_without_service_and_disks_has_metrics_too(
    no_service: None, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(machine_state, "kernel_status", lambda: {"daemon": None, "problems": [], "hbas": []})
    monkeypatch.setattr(statistics, "statistics", list)
    assert main(["metrics"]) == 0
    assert samples(capsys.readouterr().out)["vscsihba_service_up",] == 0


def test_json_and_a_file_have_the_same_values(running: FakeService, tmp_path: Path, capsys: Capture) -> None:
    assert main(["metrics", "--json"]) == 0
    (reads,) = (
        each["value"]
        for each in json.loads(capsys.readouterr().out)
        if each["name"] == "vscsihba_lun_commands_total"
        and each["labels"] == {"hba": "0", "lun": "0", "operation": "read"}
    )
    assert reads == 1000
    path = tmp_path / "vscsihba.prom"
    assert main(["metrics", "--textfile", str(path)]) == 0
    assert 'vscsihba_lun_commands_total{hba="0",lun="0",operation="read"} 1000.0\n' in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    assert sorted(each.name for each in tmp_path.iterdir()) == ["control.sock", "vscsihba.prom"]
    assert main(["metrics", "--textfile", str(tmp_path / "none/vscsihba.prom")]) == 1
    assert "none" in capsys.readouterr().err


@pytest.mark.skipif(
    shutil.which("promtool") is None, reason="promtool of the package prometheus is not installed"
)
def test_promtool_has_no_objection(running: FakeService, tmp_path: Path) -> None:
    path = tmp_path / "vscsihba.prom"
    assert main(["metrics", "--textfile", str(path)]) == 0
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=path.read_bytes(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")
    rules = Path(__file__).parents[3] / "examples/prometheus-alerts.yml"
    subprocess.run(["promtool", "check", "rules", rules], check=True, capture_output=True)


@pytest.fixture(params=["127.0.0.1:0", "[::1]:0", "unix"])
def server(request: pytest.FixtureRequest, tmp_path: Path, running: FakeService) -> Iterator[MetricsServer]:
    text = f"unix:{tmp_path}/m.sock" if request.param == "unix" else request.param
    now = Exposition(lambda: Families(Daemon().status(), Daemon().statistics()))
    try:
        made = MetricsServer(Address(text), {"/metrics": now.page})
    except HostError as error:
        if "::1" in text:
            pytest.skip(f"this machine has no IPv6: {error}")
        raise
    with made:
        thread = threading.Thread(target=made.serve)
        thread.start()
        yield made
        made.stop()
        thread.join()


def get(address: Address, request: bytes) -> bytes:
    """Send a request and return the answer, headers and all."""
    family = socket.AF_UNIX if address.path else socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family) as client:
        client.settimeout(10)
        client.connect(str(address.path) if address.path else (address.host, address.port))
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(1 << 16), b""))


def test_the_format_is_what_the_client_accepts(server: MetricsServer) -> None:
    accept = b"Accept: application/openmetrics-text; version=1.0.0\r\n"
    head, _, body = get(server.address, b"GET /metrics HTTP/1.0\r\n" + accept + b"\r\n").partition(
        b"\r\n\r\n"
    )
    assert b"200 OK" in head
    assert b"application/openmetrics-text" in head
    assert body.endswith(b"# EOF\n")
    plain = get(server.address, b"GET /metrics HTTP/1.0\r\n\r\n")
    assert b"text/plain" in plain
    assert b"# EOF" not in plain


def test_other_paths_methods_and_garbage_do_not_stop_the_server(server: MetricsServer) -> None:
    assert b"404" in get(server.address, b"GET /etc/passwd HTTP/1.0\r\n\r\n").splitlines()[0]
    assert b"501" in get(server.address, b"POST /metrics HTTP/1.0\r\n\r\n").splitlines()[0]
    get(server.address, b"\x00\xff" * 500 + b"\r\n\r\n")
    assert b"200 OK" in get(server.address, b"GET /metrics?x=1 HTTP/1.0\r\n\r\n")


def test_a_silent_client_holds_nobody_up(server: MetricsServer) -> None:
    family = (
        socket.AF_UNIX
        if server.address.path
        else socket.AF_INET6
        if ":" in server.address.host
        else socket.AF_INET
    )
    with socket.socket(family) as silent:
        silent.connect(
            str(server.address.path) if server.address.path else (server.address.host, server.address.port)
        )
        assert b"200 OK" in get(server.address, b"GET /metrics HTTP/1.0\r\n\r\n")


def test_a_service_that_fails_is_told_to_the_client(running: FakeService) -> None:
    def fail() -> Families:
        raise HostError("the service does not answer", cure="see its log")

    with MetricsServer(Address("127.0.0.1:0"), {"/metrics": Exposition(fail).page}) as made:
        thread = threading.Thread(target=made.serve)
        thread.start()
        answer = get(made.address, b"GET /metrics HTTP/1.0\r\n\r\n")
        made.stop()
        thread.join()
    assert b"503" in answer.splitlines()[0]
    assert b"the service does not answer" in answer


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("9809", "no address with a port"),
        ("localhost:9809", "no address with a port"),
        ("127.0.0.1:http", "no address with a port"),
        ("127.0.0.1:70000", "70000 is no port"),
        ("unix:metrics.sock", "no absolute path"),
        ("", "no address with a port"),
    ],
)
def test_a_bad_address_is_refused(text: str, words: str, capsys: Capture) -> None:
    with pytest.raises(UsageError, match=words):
        Address(text)
    assert main(["metrics", "--listen", text]) == 2
    assert words in capsys.readouterr().err


def test_an_address_that_others_reach_must_be_asked_for(capsys: Capture) -> None:
    for text in ("0.0.0.0:9809", "[::]:9809", "192.0.2.7:9809"):
        assert main(["metrics", "--listen", text]) == 2
        assert "add --expose" in capsys.readouterr().err


def test_an_address_that_is_taken_is_refused(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            HostError, match=f"cannot listen on http://127.0.0.1:{port}: Address already in use"
        ):
            MetricsServer(Address(f"127.0.0.1:{port}"), {})
    with pytest.raises(HostError, match="Cannot assign requested address"):
        MetricsServer(Address("192.0.2.7:9809"), {})
    path = tmp_path / "m.sock"
    with MetricsServer(Address(f"unix:{path}"), {}), pytest.raises(HostError, match="Address already in use"):
        MetricsServer(Address(f"unix:{path}"), {})
    path.write_text("a file of somebody")
    with pytest.raises(HostError, match="it is no socket"):
        MetricsServer(Address(f"unix:{path}"), {})
    assert path.read_text() == "a file of somebody"


def test_the_socket_of_a_killed_server_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "m.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with MetricsServer(Address(f"unix:{path}"), {}):
        assert path.is_socket()
    assert not path.exists()


def test_the_command_serves_until_a_signal(running: FakeService) -> None:
    script = "import sys; from vscsihba.daemon import calls; from pathlib import Path\n"
    script += f"calls.SOCKET = Path({str(running.socket)!r})\n"
    script += "from vscsihba.cli.main import main; sys.exit(main(['metrics', '--listen', '127.0.0.1:0']))"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        with urllib.request.urlopen(url, timeout=20) as answer:
            assert b"vscsihba_service_up 1.0" in answer.read()
        process.terminate()
        assert process.wait(20) == 0


def test_a_missing_package_is_named(
    running: FakeService, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client.core", None)
    monkeypatch.setitem(sys.modules, "prometheus_client.openmetrics.exposition", None)
    assert main(["metrics"]) == 1
    assert (
        "the command metrics needs the Python package prometheus-client; install" in capsys.readouterr().err
    )
