"""Where clients and backends may be: behind routers, on the same machine, the same one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from lab import SERVICE, Lab, exchange, wait_for
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether

if TYPE_CHECKING:
    from collections.abc import Iterator
    from socket import socket

FAR = "10.9.0.2"
MODES = ("native", "generic")
WAY = re.compile(r"172[.\d]+ > 172[.\d]+\d")


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("backends", [("172.11.0.20",), ("172.11.0.20", "172.11.0.21")])
def test_a_backend_is_a_client_too(lab: Lab, mode: str, backends: tuple[str, ...]) -> None:
    """Also where it is balanced to itself (RFC 4787 REQ-9)."""
    lab.up("--mode", mode, "--hash", "5-tuple", backends=backends)
    servers = {address: lab.socket(address, 53) for address in backends}
    met = set()
    for number in range(20):
        client = lab.socket("172.11.0.20", 6000 + number)
        client.sendto(b"ask", (SERVICE, 53))
        server = lab.first_ready(*servers.values())
        question, peer = server.recvfrom(100)
        assert (question, peer[0]) == (b"ask", SERVICE)
        server.sendto(b"answer", peer)
        assert client.recvfrom(100) == (b"answer", (SERVICE, 53))
        met.add(server.getsockname()[0])
    assert met == set(backends)


@pytest.mark.parametrize("mode", MODES)
def test_a_backend_behind_a_router_is_reached_by_its_route(lab: Lab, mode: str) -> None:
    with lab.far_network():
        lab.up("--mode", mode, backends=(FAR,))
        server = lab.socket(FAR, 53, where="f")
        client = lab.socket("172.11.0.23")
        assert exchange(client, server, b"far away", 53)[0] == SERVICE
        (backend,) = lab.status()["services"][0]["backends"]
        assert backend["next_hop"] == "172.11.0.22"


@pytest.mark.parametrize("mode", MODES)
def test_a_client_behind_a_router_is_answered(lab: Lab, mode: str) -> None:
    with lab.far_network():
        lab.up("--mode", mode, backends=("172.11.0.20",))
        server = lab.socket("172.11.0.20", 53)
        client = lab.socket(FAR, where="f")
        exchange(client, server, b"from far away", 53)


@pytest.mark.parametrize("mode", MODES)
def test_tagged_frames_are_balanced_in_their_vlan(lab: Lab, mode: str) -> None:
    """The kernel here has no VLAN interfaces, so both ends speak in raw frames."""
    lab.ip("b", "neighbour add 172.11.0.99 lladdr 02:00:00:00:99:99 dev balancer nud permanent")
    lab.up("--mode", mode, backends=("172.11.0.99",))
    mac = lab.link("b", "balancer")[1]
    ends = lab.packet_socket("outside")
    ends.settimeout(3)
    lab.ip("h", "link set outside promisc on")
    head = Ether(src="02:00:00:00:00:22", dst=mac) / Dot1Q(vlan=10, prio=5)
    capture = lab.process_output("h", "tcpdump", "-nelqi", "outside", "-c", "4", "vlan", "10")
    ask = IP(src="172.11.0.50", dst=SERVICE) / UDP(sport=5555, dport=53) / b"in a VLAN"
    ends.send(bytes(head / ask))
    wait_for(lambda: lab.status()["verdicts"]["forward"] == 1)
    port = next(port for port in iter(lambda: _sent_to(ends, "172.11.0.99"), None) if port)
    back = Ether(src="02:00:00:00:99:99", dst=mac) / Dot1Q(vlan=10)
    answer = IP(src="172.11.0.99", dst=SERVICE) / UDP(sport=53, dport=port) / b"and back"
    ends.send(bytes(back / answer))
    lines = capture()
    assert all("vlan 10, p " in line for line in lines)
    assert [found[0] for line in lines if (found := WAY.search(line))] == [
        "172.11.0.50.5555 > 172.11.0.1.53",
        f"172.11.0.1.{port} > 172.11.0.99.53",
        f"172.11.0.99.53 > 172.11.0.1.{port}",
        "172.11.0.1.53 > 172.11.0.50.5555",
    ]


def _sent_to(sock: socket, address: str) -> int:
    """The source port of the next frame, if it is a datagram to ``address``; else 0."""
    frame = Ether(sock.recv(2000))
    return int(frame[UDP].sport) if UDP in frame and frame[IP].dst == address else 0
