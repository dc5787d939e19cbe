"""VLAN tags (IEEE 802.1Q): kept, put on, taken off, and never in the way."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from bpf_harness import LOOPBACK, XDP_PASS, XDP_TX, Loaded, make_request
from packets import (
    BACKEND_MAC,
    OUR_MAC,
    advertisement,
    arp_reply,
    icmp6_error,
    icmp_error,
    tcp,
    udp,
)
from scapy.layers.inet import IP, fragment
from scapy.layers.l2 import Ether

from xdplb.model import Mode, PortRange, Protocol
from xdplb.plan import Hop, Port
from xdplb.wire import vlan_tag

if TYPE_CHECKING:
    from collections.abc import Iterator

PORTS = (PortRange(53, 53),)
NEW_MAC = "02:00:00:00:77:01"
TAGS = {
    "one": bytes.fromhex("8100600a"),
    "with a priority": bytes.fromhex("8100e00a"),
    "of a provider": bytes.fromhex("88a80014"),
    "two": bytes.fromhex("88a800148100000a"),
    "twice the same": bytes.fromhex("8100000a8100000b"),
}
BACKEND = {4: "172.11.0.20", 6: "2001:db8::20"}


def tagged(packet: bytes, tags: bytes) -> bytes:
    """The frame with tags behind its MAC addresses."""
    return packet[:12] + tags + packet[12:]


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def balancer(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    options: dict[str, Any] = {"protocols": tuple(Protocol), "ports": PORTS}
    with Loaded(make_request(BACKEND[request.param], **options)) as loaded:
        yield loaded


def ask(balancer: Loaded, **more: Any) -> bytes:
    """A datagram of the usual client."""
    return udp(**{"src": balancer.client, **more})


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
def test_a_tagged_request_leaves_with_its_tags(balancer: Loaded, tags: bytes) -> None:
    packet = ask(balancer)
    result = balancer.run(tagged(packet, tags))
    assert (result.verdict, result.action) == ("forward", XDP_TX)
    assert result.packet == tagged(balancer.forwarded(packet), tags)


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
def test_the_answer_has_the_tags_of_the_client(balancer: Loaded, tags: bytes) -> None:
    balancer.run(tagged(ask(balancer), tags))
    answer = balancer.answer(balancer.index())
    plain = balancer.run(answer)
    assert (plain.verdict, plain.packet[12:][: len(tags)]) == ("return", tags)
    other = balancer.run(tagged(answer, bytes.fromhex("81000fff")))
    assert other.packet == plain.packet


def test_a_client_that_moves_to_another_vlan_is_followed(balancer: Loaded) -> None:
    balancer.run(tagged(ask(balancer), TAGS["one"]))
    balancer.age(5)
    balancer.run(ask(balancer))
    answer = balancer.answer(balancer.index())
    assert len(balancer.run(answer).packet) == len(answer)


def test_a_backend_in_a_known_vlan_gets_its_tag(balancer: Loaded) -> None:
    balancer.change_backend(0, tag=vlan_tag(0x8100, 20))
    packet = ask(balancer)
    assert balancer.run(packet).packet == tagged(
        balancer.forwarded(packet), bytes.fromhex("81000014")
    )
    again = balancer.run(tagged(packet, TAGS["two"])).packet
    assert again == tagged(balancer.forwarded(packet), bytes.fromhex("81000014"))


def test_tcp_is_no_different(balancer: Loaded) -> None:
    result = balancer.run(tagged(tcp("S", src=balancer.client), TAGS["two"]))
    assert (result.verdict, result.packet[12:20]) == ("forward", TAGS["two"])


@pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
@pytest.mark.parametrize("size", [0, 7, 46])
def test_what_is_not_for_the_service_passes_with_its_tags(
    balancer: Loaded, tags: bytes, size: int
) -> None:
    for plain in (
        ask(balancer, dst="192.0.2.1" if balancer.version == 4 else "2001:db8:7::1"),
        ask(balancer, dport=54),
        arp_reply("172.11.0.99", NEW_MAC),
        bytes(Ether(type=0x88CC) / bytes(size)),
        bytes(Ether(type=0x8100) / bytes(size)),
        bytes(Ether())[:14],
    ):
        packet = tagged(plain, tags)
        result = balancer.run(packet)
        assert (result.action, result.packet) == (XDP_PASS, packet)


def test_without_vlans_tagged_frames_are_the_kernels() -> None:
    with Loaded(make_request("172.11.0.20", vlan=False)) as balancer:
        packet = tagged(udp(), TAGS["one"])
        result = balancer.run(packet)
        assert (result.verdict, result.packet) == ("pass_not_ours", packet)
        balancer.change_backend(0, tag=vlan_tag(0x8100, 20))
        balancer.open()
        assert balancer.run(udp()).packet == balancer.forwarded(udp())


def test_three_tags_are_the_kernels(balancer: Loaded) -> None:
    packet = tagged(ask(balancer), TAGS["two"] + TAGS["one"])
    result = balancer.run(packet)
    assert (result.verdict, result.packet) == ("pass_not_ours", packet)


def test_a_frame_that_ends_in_its_tags_is_the_kernels(balancer: Loaded) -> None:
    packet = tagged(ask(balancer), TAGS["two"])
    for length in range(14, 34):
        result = balancer.run(packet[:length])
        assert (result.verdict, result.packet) == ("pass_not_ours", packet[:length])


def test_an_error_about_a_tagged_client_goes_to_its_vlan(balancer: Loaded) -> None:
    out = balancer.run(tagged(ask(balancer), TAGS["one"])).packet
    plain = out[:12] + out[16:]
    error = icmp_error(plain) if balancer.version == 4 else icmp6_error(plain)
    result = balancer.run(error)
    assert (result.verdict, result.packet[12:16]) == ("return_error", TAGS["one"])


def test_an_error_about_an_answer_goes_to_the_vlan_of_the_backend(balancer: Loaded) -> None:
    balancer.change_backend(0, tag=vlan_tag(0x8100, 20))
    answer = balancer.answer(balancer.open())
    out = balancer.run(answer).packet
    error = icmp_error(out) if balancer.version == 4 else icmp6_error(out)
    result = balancer.run(error)
    assert (result.verdict, result.packet[12:16]) == ("forward_error", bytes.fromhex("81000014"))


def test_who_hears_that_the_time_has_run_out_hears_it_in_its_vlan(balancer: Loaded) -> None:
    hops = {"ttl": 1} if balancer.version == 4 else {"hlim": 1}
    plain = balancer.run(ask(balancer, ip=hops)).packet
    result = balancer.run(tagged(ask(balancer, ip=hops), TAGS["two"]))
    assert (result.verdict, result.packet) == ("reply_ttl", tagged(plain, TAGS["two"]))


def test_fragments_follow_the_first_one_into_its_vlan() -> None:
    with Loaded(make_request("172.11.0.20")) as balancer:
        balancer.change_backend(0, tag=vlan_tag(0x8100, 20))
        frame = Ether(udp(bytes(4000)))
        parts = fragment(frame[IP], fragsize=1480)  # type: ignore[no-untyped-call]
        for part in parts:
            piece = bytes(Ether(src=frame.src, dst=frame.dst) / part)
            result = balancer.run(tagged(piece, TAGS["one"]))
            assert (result.verdict, result.packet[12:16].hex()) == ("forward", "81000014")


class TestNeighbours:
    """A MAC address is learned in the VLAN that the backend is known to be in."""

    @staticmethod
    def lesson(balancer: Loaded) -> bytes:
        """What teaches a new MAC address of the backend."""
        make = arp_reply if balancer.version == 4 else advertisement
        return make(BACKEND[balancer.version], NEW_MAC)

    @staticmethod
    def mac(balancer: Loaded) -> str:
        """What the backend is reached at."""
        return (balancer.backend(0).mac or b"").hex(":")

    def test_another_vlan_teaches_nothing(self, balancer: Loaded) -> None:
        balancer.run(tagged(self.lesson(balancer), TAGS["one"]))
        assert self.mac(balancer) == BACKEND_MAC
        balancer.change_backend(0, tag=vlan_tag(0x8100, 20))
        balancer.run(self.lesson(balancer))
        balancer.run(tagged(self.lesson(balancer), TAGS["one"]))
        assert self.mac(balancer) == BACKEND_MAC

    @pytest.mark.parametrize("tag", ["81000014", "8100e014"])
    def test_its_own_vlan_does(self, balancer: Loaded, tag: str) -> None:
        balancer.change_backend(0, tag=vlan_tag(0x8100, 20))
        balancer.run(tagged(self.lesson(balancer), bytes.fromhex(tag)))
        assert self.mac(balancer) == NEW_MAC

    def test_a_priority_without_a_vlan_is_no_vlan(self, balancer: Loaded) -> None:
        balancer.run(tagged(self.lesson(balancer), bytes.fromhex("8100e000")))
        assert self.mac(balancer) == NEW_MAC


def test_a_packet_to_another_interface_leaves_without_the_tags_of_the_first() -> None:
    near, far = (bytes.fromhex(mac.replace(":", "")) for mac in (OUR_MAC, "02:00:00:00:00:02"))
    address = ip_address("172.11.0.20")
    with Loaded(
        make_request("172.11.0.20"),
        ports=(
            Port("lo", LOOPBACK, near, Mode.NATIVE, redirect=False),
            Port("far", 7, far, Mode.NATIVE, redirect=False),
        ),
        hops={address: Hop(address, 1, 7)},
    ) as balancer:
        packet = udp()
        result = balancer.run(tagged(packet, TAGS["one"]))
        assert len(result.packet) == len(packet)
        answer = balancer.run(balancer.answer(balancer.index(), ether={"dst": OUR_MAC}))
        assert (answer.verdict, answer.packet[12:16]) == ("return", TAGS["one"])
