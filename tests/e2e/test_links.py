"""Where clients and backends may be: behind routers, on the same machine, the same one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from lab import SERVICE, Lab, exchange

if TYPE_CHECKING:
    from collections.abc import Iterator

FAR = "10.9.0.2"
MODES = ("native", "generic")


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
