"""Two interfaces, one of them narrow: who hears of it, and what."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from bpf_harness import LOOPBACK, XDP_DROP, XDP_REDIRECT, XDP_TX, Loaded, make_request
from packets import CLIENT_MAC, OUR_MAC, SERVICE, SERVICE6, network, tcp, udp
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6
from scapy.layers.l2 import Ether

from xdplb.model import Mode, PortRange, Protocol
from xdplb.plan import Hop, Port

if TYPE_CHECKING:
    from collections.abc import Iterator

MTU = 1300
FAR_MAC = "02:00:00:00:00:02"
PORTS = (PortRange(53, 53),)


def two_interfaces(backend: str, **options: Any) -> Loaded:
    """Clients on the first interface, the backend behind the second one, which is narrower."""
    near, far = (bytes.fromhex(mac.replace(":", "")) for mac in (OUR_MAC, FAR_MAC))
    address = ip_address(backend)
    return Loaded(
        make_request(backend, protocols=tuple(Protocol), ports=PORTS, **options),
        ports=(
            Port("lo", LOOPBACK, near, Mode.NATIVE, redirect=False, mtu=1500),
            Port("far", 7, far, Mode.NATIVE, redirect=False, mtu=MTU),
        ),
        hops={address: Hop(address, 1, 7)},
    )


@pytest.fixture(params=["172.11.0.20", "2001:db8::20"], ids=["ipv4", "ipv6"])
def balancer(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    with two_interfaces(request.param) as loaded:
        yield loaded


def longer_than(length: int, balancer: Loaded, **more: Any) -> bytes:
    """A datagram whose IP packet is one byte longer than ``length``."""
    headers = 28 if balancer.version == 4 else 48
    return udp(bytes(length + 1 - headers), src=balancer.client, **more)


def test_what_fits_the_narrow_interface_leaves_by_it(balancer: Loaded) -> None:
    result = balancer.run(longer_than(MTU - 1, balancer))
    assert (result.verdict, result.action) == ("forward", XDP_REDIRECT)
    assert Ether(result.packet).src == FAR_MAC


@pytest.mark.parametrize("make", [udp, tcp], ids=["udp", "tcp"])
def test_the_sender_of_what_does_not_fit_hears_how_much_would(balancer: Loaded, make: Any) -> None:
    more = {"ip": {"flags": "DF"}} if balancer.version == 4 else {}
    first = ("S",) if make is tcp else ()
    packet = make(*first, bytes(MTU), src=balancer.client, **more)
    result = balancer.run(packet)
    assert (result.verdict, result.action) == ("reply_too_big", XDP_TX)
    frame = Ether(result.packet)
    assert (frame.src, frame.dst) == (OUR_MAC, CLIENT_MAC)
    assert network(frame).dst == balancer.client
    if balancer.version == 4:
        error = ICMP(type=3, code=4, nexthopmtu=MTU)
        expected = IP(src=SERVICE, dst=balancer.client, ttl=64, id=0, flags="DF") / error
        assert bytes(frame[IP]) == bytes(expected / packet[14 : 14 + 28])
    else:
        head = IPv6(src=SERVICE6, dst=balancer.client, hlim=64) / ICMPv6PacketTooBig(mtu=MTU)
        assert bytes(frame[IPv6]) == bytes(head / packet[14 : 14 + 1280 - 48])


def test_an_ipv4_datagram_that_routers_may_fragment_is_dropped_in_silence() -> None:
    with two_interfaces("172.11.0.20") as balancer:
        result = balancer.run(longer_than(MTU, balancer))
        assert (result.verdict, result.action) == ("drop_too_big", XDP_DROP)


def test_a_later_fragment_that_does_not_fit_is_dropped_in_silence() -> None:
    with two_interfaces("172.11.0.20") as balancer:
        assert balancer.run(udp(bytes(800), ip={"flags": "MF"})).verdict == "forward"
        tail = udp(bytes(MTU), ip={"frag": 101})
        assert balancer.run(tail).verdict == "drop_too_big"


def test_an_answer_by_the_wide_interface_may_be_longer(balancer: Loaded) -> None:
    packet = balancer.answer(balancer.open(), bytes(1400), ether={"dst": OUR_MAC})
    assert balancer.run(packet).verdict == "return"


def test_so_many_errors_a_moment_and_no_more(balancer: Loaded) -> None:
    more = {"ip": {"flags": "DF"}} if balancer.version == 4 else {}
    verdicts = {balancer.run(longer_than(MTU, balancer, **more)).verdict for _ in range(100)}
    assert verdicts == {"reply_too_big", "drop_too_big"}
