"""Real sockets whose balancer goes away and comes back with their flows."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING

import pytest
from lab import SERVICE, SERVICE6, Lab, exchange

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BACKENDS = ("172.11.0.20", "172.11.0.21", "2001:db8::20", "2001:db8::21")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


def _servers(lab: Lab, last: int) -> list[socket.socket]:
    return [lab.socket(f"{prefix}{last}", 53) for prefix in ("172.11.0.", "2001:db8::")]


@pytest.mark.parametrize("mode", ["native", "generic"])
def test_sockets_go_on_after_down_and_up(lab: Lab, tmp_path: Path, mode: str) -> None:
    file = f"{tmp_path / 'flows'}"
    options = ("--mode", mode, "--service", SERVICE, "--service", SERVICE6)
    lab.up(*options, backends=BACKENDS)
    servers = [server for last in (20, 21) for server in _servers(lab, last)]
    clients = [
        lab.socket(f"{prefix}{last}")
        for prefix in ("172.11.0.", "2001:db8::")
        for last in range(22, 26)
        for _ in range(3)
    ]
    peers = {client: _ask(lab, servers, client) for client in clients}
    first = lab.status()["program"]["id"]
    assert lab.xdplb("save", file).stdout.startswith(f"saved: {len(clients)} flows")
    lab.xdplb("down")
    words = [word for backend in reversed(BACKENDS) for word in ("--backend", backend)]
    done = lab.xdplb("up", "--iface", "balancer", *options, *words, "--restore", file)
    assert f"restored: {len(clients)} of {len(clients)} flows\n" in done.stdout
    assert lab.status()["program"]["id"] != first
    assert lab.status()["flows"]["active"] == len(clients)
    assert {client: _ask(lab, servers, client) for client in clients} == peers
    assert lab.status()["flows"]["active"] == len(clients), "none has begun anew"
    assert lab.bad_checksums() == 0


def _ask(
    lab: Lab, servers: list[socket.socket], client: socket.socket
) -> tuple[str, tuple[str, int]]:
    """One question and its answer; returns which server had it, and whom that saw."""
    service = SERVICE6 if client.family == socket.AF_INET6 else SERVICE
    client.sendto(b"question", (service, 53))
    server = lab.first_ready(*(one for one in servers if one.family == client.family))
    question, peer = server.recvfrom(100)
    server.sendto(question[::-1], peer)
    answer, source = client.recvfrom(100)
    assert (answer, source[:2]) == (b"noitseuq", (service, 53))
    return server.getsockname()[0], peer[:2]


def test_flows_go_on_where_clients_have_no_limit(lab: Lab, tmp_path: Path) -> None:
    """Such a program has no counters of clients."""
    file = f"{tmp_path / 'flows'}"
    lab.up("--max-client-flows", "0", backends=BACKENDS[:1])
    server, client = lab.socket("172.11.0.20", 53), lab.socket("172.11.0.22")
    peer = exchange(client, server, b"one", 53)
    lab.xdplb("save", file)
    assert (
        lab.xdplb("restore", file).stdout
        == "restored: 0 of 1 flows (1 skipped: 1 NAT port taken)\n"
    )
    lab.xdplb("down")
    words = ("--iface", "balancer", "--backend", BACKENDS[0], "--max-client-flows", "0")
    assert "restored: 1 of 1 flows" in lab.xdplb("up", *words, "--restore", file).stdout
    assert exchange(client, server, b"two", 53) == peer


def test_a_server_may_speak_first_after_a_reboot(lab: Lab, tmp_path: Path) -> None:
    file = f"{tmp_path / 'flows'}"
    lab.up(backends=BACKENDS[:1])
    server, client = lab.socket("172.11.0.20", 53), lab.socket("172.11.0.22")
    peer = exchange(client, server, b"one", 53)
    lab.xdplb("save", file)
    lab.xdplb("down")
    lab.up("--restore", file, backends=BACKENDS[:1])
    server.sendto(b"by myself", peer)
    assert client.recvfrom(100) == (b"by myself", (SERVICE, 53))


def test_flows_of_an_ip_version_that_is_not_balanced_are_counted(lab: Lab, tmp_path: Path) -> None:
    file = f"{tmp_path / 'flows'}"
    lab.up("--service", SERVICE, "--service", SERVICE6, backends=BACKENDS[::2])
    for prefix in ("172.11.0.", "2001:db8::"):
        exchange(lab.socket(f"{prefix}22"), lab.socket(f"{prefix}20", 53), b"one", 53)
    lab.xdplb("save", file)
    lab.xdplb("down")
    lab.up(backends=BACKENDS[:1])
    done = lab.xdplb("restore", file)
    assert done.stdout == "restored: 1 of 2 flows (1 skipped: 1 IP version not balanced)\n"


def test_a_connection_survives_down_and_up(lab: Lab, tmp_path: Path) -> None:
    file = f"{tmp_path / 'flows'}"
    words = ("--protocol", "tcp", "--port", "7000")
    backends = ("172.11.0.20", "172.11.0.21")
    servers = [lab.socket(address, 7000, kind=socket.SOCK_STREAM) for address in backends]
    for server in servers:
        server.listen()
    lab.up(*words, backends=backends)
    client = lab.socket("172.11.0.22", kind=socket.SOCK_STREAM)
    client.connect((SERVICE, 7000))
    connection, _ = lab.first_ready(*servers).accept()
    lab.keep(connection)
    connection.settimeout(10)
    client.settimeout(10)
    assert _both_ways(client, connection, b"before")
    lab.xdplb("save", file)
    lab.xdplb("down")
    lab.up(*words, "--restore", file, backends=backends[::-1])
    assert _both_ways(connection, client, b"after, from the server")
    assert _both_ways(client, connection, b"after" * 20000)
    client.close()
    assert connection.recv(1) == b"", "its end arrives, too"


def _both_ways(one: socket.socket, other: socket.socket, data: bytes) -> bool:
    for here, there in ((one, other), (other, one)):
        here.sendall(data)
        left = len(data)
        while left:
            part = there.recv(left)
            assert part, "the connection has ended"
            left -= len(part)
    return True


def test_a_running_balancer_takes_flows_in_and_keeps_its_own(lab: Lab, tmp_path: Path) -> None:
    file = f"{tmp_path / 'flows'}"
    lab.up(backends=BACKENDS[:1])
    server = lab.socket("172.11.0.20", 53)
    before, after = (lab.socket("172.11.0.22") for _ in range(2))
    peer = exchange(before, server, b"one", 53)
    lab.xdplb("save", file)
    lab.xdplb("down")
    lab.up(backends=BACKENDS[:1])
    mine = exchange(after, server, b"two", 53)
    for expected in (
        {"version": 1, "flows": 1, "restored": 1, "skipped": {}},
        {"version": 1, "flows": 1, "restored": 0, "skipped": {"nat_port_taken": 1}},
    ):
        done = lab.xdplb("restore", "--iface", "balancer", "--json", file)
        answer = json.loads(done.stdout)
        answer["skipped"] = {"nat_port_taken": 1} if answer["skipped"] else {}
        assert answer == expected
    assert exchange(before, server, b"three", 53) == peer
    assert exchange(after, server, b"four", 53) == mine


def test_what_cannot_be_is_refused_with_a_reason(lab: Lab, tmp_path: Path) -> None:
    lab.up()
    file = tmp_path / "flows"
    lab.xdplb("save", f"{file}")
    assert file.stat().st_mode & 0o777 == 0o600
    done = lab.xdplb("save", f"{tmp_path}", check=False)
    assert (done.returncode, "is a directory" in done.stderr) == (2, True)
    file.write_bytes(file.read_bytes()[:-1])
    for words in (
        ["restore"],
        ["up", "--iface", "balancer", "--backend", "172.11.0.20", "--restore"],
    ):
        done = lab.xdplb(*words, f"{file}", check=False)
        assert (done.returncode, f"{file} is damaged" in done.stderr) == (2, True)
    lab.xdplb("down")
    done = lab.xdplb("save", f"{file}", check=False)
    assert (done.returncode, "no balancer is up" in done.stderr) == (3, True)
