"""Real TCP through a real balancer."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from lab import SERVICE, Lab, run, wait_for
from nginx import start_nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TCP = ("--protocol", "tcp")
MODES = ("native", "generic")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


def listen(lab: Lab, port: int, address: str = "172.11.0.20") -> socket.socket:
    server = lab.socket(address, port, kind=socket.SOCK_STREAM)
    server.listen(128)
    return server


def connect(lab: Lab, port: int, address: str = "172.11.0.22") -> socket.socket:
    client = lab.socket(address, kind=socket.SOCK_STREAM)
    client.connect((SERVICE, port))
    return client


def accept(lab: Lab, server: socket.socket) -> tuple[socket.socket, tuple[str, int]]:
    connection, peer = server.accept()
    lab.keep(connection)
    connection.settimeout(3)
    return connection, peer


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("reverse", [False, True], ids=["upload", "download"])
def test_iperf3_moves_its_bytes_with_default_offloads(
    lab: Lab, mode: str, *, reverse: bool
) -> None:
    """In generic mode these are super-packets of up to 64 KB.

    The receiver stops counting when the sender has written its last byte: what the sockets
    hold then, up to the largest tcp_wmem and tcp_rmem, does not count. So more is sent.
    """
    lab.up(*TCP, "--port", "5201", "--mode", mode, backends=("172.11.0.20",))
    server = lab.process("h", "iperf3", "--server", "--one-off", "--bind", "172.11.0.20")
    wait_for(lambda: ":1451 " in run(*lab.inside("h", "cat", "/proc/net/tcp")).stdout)
    words = ("--client", SERVICE, "--bind", "172.11.0.22", "--bytes", "150M", "--json")
    done = run(*lab.inside("h", "iperf3", *words, *(("--reverse",) if reverse else ())))
    end = json.loads(done.stdout)["end"]
    assert end["sum_sent"]["bytes"] >= end["sum_received"]["bytes"] >= 99 << 20
    assert server.wait(10) == 0
    assert lab.counter("Tcp", "InCsumErrors") == 0
    verdicts = lab.status()["verdicts"]
    assert not any(count for name, count in verdicts.items() if name.startswith("drop"))


@pytest.mark.parametrize("mode", MODES)
def test_nginx_serves_a_large_file_to_curl(lab: Lab, mode: str, tmp_path: Path) -> None:
    content = hashlib.sha256(b"xdplb").digest() * 640_000
    (tmp_path / "file").write_bytes(content)
    lab.up(*TCP, "--port", "8080", "--mode", mode)
    for address in ("172.11.0.20", "172.11.0.21"):
        start_nginx(lab, address, 8080, tmp_path)
    for client in (22, 23, 24, 25):
        copy = tmp_path / f"copy{client}"
        words = ("--silent", "--fail", "--interface", f"172.11.0.{client}", "--output", f"{copy}")
        run(*lab.inside("h", "curl", *words, f"http://{SERVICE}:8080/file"))
        assert copy.read_bytes() == content
    assert lab.counter("Tcp", "InCsumErrors") == 0


def test_two_thousand_short_connections(lab: Lab) -> None:
    lab.up(*TCP, "--port", "9000", backends=("172.11.0.20",))
    server = listen(lab, 9000)
    served = 0

    def serve() -> None:
        nonlocal served
        for _ in range(2000):
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(100)[::-1])
            served += 1

    worker = threading.Thread(target=serve)
    worker.start()
    for number in range(2000):
        with lab.client(f"172.11.0.{22 + number % 4}") as client:
            client.connect((SERVICE, 9000))
            question = f"{number:08}".encode()
            client.sendall(question)
            assert client.recv(100) == question[::-1]
    worker.join(10)
    assert served == 2000
    verdicts = lab.status()["verdicts"]
    assert not any(count for name, count in verdicts.items() if name.startswith("drop"))


def test_a_client_that_has_said_all_still_hears(lab: Lab) -> None:
    lab.up(*TCP, "--port", "9000", backends=("172.11.0.20",))
    server = listen(lab, 9000)
    client = connect(lab, 9000)
    connection, peer = accept(lab, server)
    assert peer[0] == SERVICE
    client.sendall(b"all")
    client.shutdown(socket.SHUT_WR)
    assert connection.recv(10) == b"all"
    assert connection.recv(10) == b""
    for number in range(50):
        connection.sendall(b"x" * 10_000)
        heard = 0
        while heard < 10_000:
            heard += len(client.recv(10_000 - heard))
        assert heard == 10_000, number
    connection.close()
    assert client.recv(10) == b""


def test_a_closed_port_is_refused_at_once(lab: Lab) -> None:
    lab.up(*TCP, "--port", "9000", backends=("172.11.0.20",))
    with pytest.raises(ConnectionRefusedError):
        connect(lab, 9000)


def test_a_connection_survives_a_second_up(lab: Lab) -> None:
    lab.up(*TCP, "--port", "9000", backends=("172.11.0.20",))
    server = listen(lab, 9000)
    client = connect(lab, 9000)
    connection, _ = accept(lab, server)
    lab.up(*TCP, "--port", "9000", "--hash", "5-tuple")
    client.sendall(b"still here")
    assert connection.recv(100) == b"still here"
    connection.sendall(b"so am I")
    assert client.recv(100) == b"so am I"


def test_a_connection_from_before_is_reset_and_not_left_hanging(lab: Lab) -> None:
    lab.up(*TCP, "--port", "9000", backends=("172.11.0.20",))
    server = listen(lab, 9000)
    client = connect(lab, 9000)
    accept(lab, server)
    lab.xdplb("down")
    lab.up(*TCP, "--port", "9000", backends=("172.11.0.20",))
    client.sendall(b"anybody?")
    with pytest.raises(ConnectionResetError):
        client.recv(100)


def test_the_hosts_own_tcp_is_left_alone(lab: Lab) -> None:
    lab.up(*TCP, "--port", "9000", backends=("172.11.0.20",))
    host = lab.socket(SERVICE, 2222, where="b", kind=socket.SOCK_STREAM)
    host.listen()
    client = connect(lab, 2222)
    connection, peer = accept(lab, host)
    assert peer[0] == "172.11.0.22"
    client.sendall(b"ssh")
    assert connection.recv(10) == b"ssh"
    server = listen(lab, 9000)
    out = lab.socket(SERVICE, where="b", kind=socket.SOCK_STREAM)
    out.connect(("172.11.0.20", 9000))
    assert accept(lab, server)[1][0] == SERVICE


def test_dns_is_asked_over_both(lab: Lab) -> None:
    lab.up("--protocol", "udp", *TCP, "--port", "53", backends=("172.11.0.20",))
    options = ("--no-daemon", "--no-resolv", "--no-hosts", "--listen-address=172.11.0.20")
    lab.process("h", "dnsmasq", *options, "--bind-interfaces", "--address=/name.test/192.0.2.80")
    wait_for(lambda: "0035 " in run(*lab.inside("h", "cat", "/proc/net/udp")).stdout)
    for transport in ("+notcp", "+tcp"):
        words = ("+short", "+tries=1", transport, "-b", "172.11.0.22", f"@{SERVICE}")
        done = run(*lab.inside("h", "dig", *words, "name.test"))
        assert done.stdout.strip() == "192.0.2.80"
    services = {item["protocol"]: item for item in lab.status()["services"]}
    assert set(services) == {"udp", "tcp"}
    assert services["udp"]["backends"][0]["packets_in"] == 1
    assert services["tcp"]["backends"][0]["packets_in"] > 3
    assert [services[name]["backends"][0]["flows"] for name in ("udp", "tcp")] == [1, 1]
