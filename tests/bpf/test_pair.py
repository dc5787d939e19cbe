"""Two balancers with one secret: they choose the same backend and the same NAT port, unasked."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from bpf_harness import Loaded, make_request
from packets import udp

from xdplb.kernel import libbpf
from xdplb.model import Hash
from xdplb.secret import hash_keys

if TYPE_CHECKING:
    from pathlib import Path

    from xdplb.model import Address

BACKENDS = {
    4: ("172.11.0.20", "172.11.0.21", "172.11.0.23:5353"),
    6: ("2001:db8::20", "2001:db8::21", "[2001:db8::23]:5353"),
}
CLIENTS = {4: "10.0.{}.7", 6: "2001:db8:{}::7"}
COUNT = 120


def secret(path: Path, text: bytes) -> tuple[int, int]:
    """The keys of a secret in a file."""
    path.write_bytes(text)
    path.chmod(0o600)
    return hash_keys(path)


def ways(balancer: Loaded) -> list[tuple[Address, int]]:
    """Where each of some clients is sent, and from which port, alone in an empty table."""
    found = []
    for number in range(COUNT):
        value = balancer.open(CLIENTS[balancer.version].format(number), port=4000 + number)
        found.append((balancer.backend(value.backend).address, value.nat_port))
    return found


def later(version: int, kind: Hash, keys: tuple[int, int]) -> Loaded:
    """A balancer with the same backends that it got one after the other, in another order."""
    one, two, three = BACKENDS[version]
    with Loaded(make_request(three, one), hash_keys=keys) as before:
        return Loaded(
            make_request(three, two, one, hash=kind, vlan=False),
            hash_keys=keys,
            side=before.plan.side,
            records=before.plan.records,
        )


@pytest.mark.parametrize("kind", Hash)
@pytest.mark.parametrize("version", [4, 6])
def test_balancers_with_one_secret_choose_alike_whatever_their_history(
    tmp_path: Path, version: int, kind: Hash
) -> None:
    keys = secret(tmp_path / "one", b"0123456789abcdef")
    again = secret(tmp_path / "two", b"0123456789abcdef")
    request = make_request(*BACKENDS[version], hash=kind)
    with Loaded(request, hash_keys=keys) as one, later(version, kind, again) as other:
        numbers = [[f"{record.address}" for record in it.plan.records] for it in (one, other)]
        assert numbers[0] != numbers[1]
        assert ways(one) == ways(other)


def test_of_many_flows_in_another_order_nearly_all_get_the_same_port(tmp_path: Path) -> None:
    """Those that share a home with others may change places."""
    keys = secret(tmp_path / "one", b"0123456789abcdef")
    packets = [udp(src=CLIENTS[4].format(at % 200), sport=2000 + at) for at in range(1000)]
    found = []
    for order in (packets, packets[::-1]):
        with Loaded(make_request("172.11.0.20", max_client_flows=0), hash_keys=keys) as balancer:
            for packet in order:
                libbpf.run_program(balancer.fd, packet)
            found.append({key: value.nat_port for key, value in balancer.entries().items()})
    one, other = found
    assert len(one) == len(other) == 1000
    assert sum(other[key] == port for key, port in one.items()) > 900


@pytest.mark.parametrize("version", [4, 6])
def test_balancers_with_other_secrets_choose_otherwise(tmp_path: Path, version: int) -> None:
    """Of 120 clients, 40 have the same one of three backends by chance, and none the port."""
    keys = secret(tmp_path / "one", b"0123456789abcdef")
    others = secret(tmp_path / "two", b"0123456789abcdeg")
    request = make_request(*BACKENDS[version])
    with Loaded(request, hash_keys=keys) as one, Loaded(request, hash_keys=others) as other:
        pairs = list(zip(ways(one), ways(other), strict=True))
    assert sum(here[0] == there[0] for here, there in pairs) < COUNT * 2 // 3
    assert sum(here[1] == there[1] for here, there in pairs) < COUNT // 20
