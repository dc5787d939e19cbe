"""ICMP between real kernels: refusal, path MTU, traceroute, ping."""

from __future__ import annotations

import socket
import struct
import threading
from typing import TYPE_CHECKING, NamedTuple

import pytest
from lab import SERVICE, Lab, exchange, run, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

IP_RECVERR = 11
IP_MTU_DISCOVER = 10
IP_PMTUDISC_DO = 2
MSG_ERRQUEUE = 0x2000
FAR = "10.9.0.2"


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_a_client_hears_that_its_backend_does_not_listen(lab: Lab, mode: str) -> None:
    lab.up("--mode", mode, backends=("172.11.0.20",))
    client = lab.socket("172.11.0.22")
    client.connect((SERVICE, 53))
    client.send(b"anybody?")
    with pytest.raises(ConnectionRefusedError):
        client.recv(100)
    assert lab.status()["verdicts"]["return_error"] == 1


def test_a_backend_hears_that_its_client_has_gone(lab: Lab) -> None:
    lab.up(backends=("172.11.0.20",))
    server = lab.socket("172.11.0.20", 53)
    client = lab.socket("172.11.0.22")
    client.sendto(b"hello", (SERVICE, 53))
    _, peer = server.recvfrom(100)
    client.close()
    server.connect(peer)
    server.send(b"hello?")
    with pytest.raises(ConnectionRefusedError):
        server.recv(100)
    assert lab.status()["verdicts"]["forward_error"] == 1


def test_the_service_answers_ping(lab: Lab) -> None:
    lab.up()
    run(*lab.inside("h", "ping", "-c", "2", "-i", "0.2", "-I", "172.11.0.22", SERVICE))


class Hop(NamedTuple):
    """Who complained, and how."""

    address: str
    kind: int
    code: int


def ask_with_ttl(client: socket.socket, ttl: int) -> Hop:
    """Send a datagram that gets so far, and read who says so (ip(7), IP_RECVERR)."""
    client.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
    client.send(b"how far?")
    wait_for(lambda: client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0)
    _, ancillary, _, _ = client.recvmsg(512, 512, MSG_ERRQUEUE)
    ((_, _, data),) = (item for item in ancillary if item[1] == IP_RECVERR)
    _, _, kind, code = struct.unpack_from("=IBBB", data)
    return Hop(socket.inet_ntoa(data[20:24]), kind, code)


def test_traceroute_sees_the_balancer_and_then_the_end(lab: Lab) -> None:
    lab.up(backends=("172.11.0.20",))
    client = lab.socket("172.11.0.22")
    client.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    client.connect((SERVICE, 33434))
    assert ask_with_ttl(client, 1) == (SERVICE, 11, 0), "the balancer, where its time runs out"
    assert ask_with_ttl(client, 2) == (SERVICE, 3, 3), "the backend, which has no such port"


@pytest.fixture
def narrow(lab: Lab) -> Iterator[Lab]:
    """A client behind a router whose way to it takes 1,300 bytes at a time."""
    with lab.far_network(mtu=1300):
        yield lab


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_a_transfer_finds_the_narrow_place_on_its_way(narrow: Lab, mode: str) -> None:
    """The router tells the service, which tells the backend, which sends less at a time."""
    lab = narrow
    ports = ("--protocol", "tcp", "--port", "9000")
    lab.up(*ports, "--mode", mode, backends=("172.11.0.20",))
    server = lab.socket("172.11.0.20", 9000, kind=socket.SOCK_STREAM)
    server.listen()
    client = lab.socket(FAR, kind=socket.SOCK_STREAM, where="f")
    client.connect((SERVICE, 9000))
    connection, _ = server.accept()
    lab.keep(connection)
    sender = threading.Thread(target=connection.sendall, args=(b"m" * 1_000_000,))
    sender.start()
    heard = 0
    while heard < 1_000_000:
        heard += len(client.recv(65536))
    sender.join(5)
    verdicts = lab.status()["verdicts"]
    assert verdicts["forward_error"] >= 1
    assert verdicts["drop_checksum"] == 0


def test_a_large_answer_is_refused_with_its_limit(narrow: Lab) -> None:
    lab = narrow
    lab.up(backends=("172.11.0.20",))
    server = lab.socket("172.11.0.20", 53)
    client = lab.socket(FAR, where="f")
    peer = exchange(client, server, b"small", 53)
    server.setsockopt(socket.IPPROTO_IP, IP_MTU_DISCOVER, IP_PMTUDISC_DO)
    server.connect(peer)
    server.send(b"l" * 1400)
    with pytest.raises(OSError, match="Message too long"):
        server.recv(2000)
