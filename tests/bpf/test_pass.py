"""What is not the service's goes to the kernel as it came."""

from __future__ import annotations

import random
import socket
from typing import TYPE_CHECKING, Any

import pytest
from bpf_harness import XDP_DROP, XDP_PASS, Loaded, make_request
from packets import CLIENT, CLIENT_MAC, OUR_MAC, SERVICE, arp_reply, udp
from scapy.layers.dhcp import BOOTP
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def balancer() -> Iterator[Loaded]:
    with Loaded() as loaded:
        yield loaded


def frame(*layers: object, dst: str = OUR_MAC) -> bytes:
    """An Ethernet frame from the client."""
    packet = Ether(src=CLIENT_MAC, dst=dst)
    for layer in layers:
        packet /= layer
    return bytes(packet)


TO_US = IP(src=CLIENT, dst=SERVICE)
NOT_OURS = {
    "ping": frame(TO_US, ICMP(), b"ping"),
    "tcp": frame(TO_US, TCP(dport=22)),
    "udp to another address": udp(dst="172.11.0.2"),
    "udp to the broadcast address": udp(dst="172.11.0.255", ether={"dst": "ff:ff:ff:ff:ff:ff"}),
    "udp to a multicast group": udp(dst="224.0.0.251", ether={"dst": "01:00:5e:00:00:fb"}),
    "udp to another mac address": udp(ether={"dst": "02:00:00:00:00:99"}),
    "udp to the service by broadcast": udp(ether={"dst": "ff:ff:ff:ff:ff:ff"}),
    "dhcp": frame(
        IP(src="0.0.0.0", dst="255.255.255.255"),
        UDP(sport=68, dport=67),
        BOOTP(),
        dst="ff:ff:ff:ff:ff:ff",
    ),
    "arp request": frame(ARP(psrc=CLIENT, pdst=SERVICE), dst="ff:ff:ff:ff:ff:ff"),
    "arp cut short": frame(ARP(psrc=CLIENT, pdst=SERVICE))[:30],
    "arp for another hardware": frame(ARP(hwtype=6, psrc="172.11.0.20", pdst=SERVICE)),
    "three vlan tags": bytes(
        Ether(src=CLIENT_MAC, dst=OUR_MAC)
        / (Dot1Q(vlan=5) / Dot1Q(vlan=6) / Dot1Q(vlan=7) / TO_US / UDP() / b"x")
    ),
    "ipv6": frame(IPv6(), UDP(dport=53), b"x"),
    "lldp": bytes(Ether(dst="01:80:c2:00:00:0e", type=0x88CC)) + bytes(40),
    "vrrp": frame(IP(src=CLIENT, dst="224.0.0.18", proto=112), b"x" * 20),
    "gre": frame(IP(src=CLIENT, dst=SERVICE, proto=47), b"x" * 20),
    "ip version 6 in an ipv4 frame": udp(ip={"version": 6}),
    "header length below 20": udp(ip={"ihl": 4}),
    "header length beyond the packet": udp(ip={"ihl": 15}),
    "total length beyond the packet": udp(ip={"len": 500}),
    "total length below the header": udp(ip={"len": 10}),
    "no room for the udp header": frame(IP(src=CLIENT, dst=SERVICE, proto=17), b"1234567"),
    "only an ethernet header": frame(),
    "cut inside the ip header": udp()[:30],
    "cut inside the udp header": udp()[:40],
}


@pytest.mark.parametrize("packet", NOT_OURS.values(), ids=NOT_OURS.keys())
def test_it_passes_untouched(balancer: Loaded, packet: bytes) -> None:
    result = balancer.run(packet)
    assert (result.verdict, result.action) == ("pass_not_ours", XDP_PASS)
    assert result.packet == packet
    assert balancer.entries() == {}


def test_random_bytes_pass_untouched_or_are_dropped(balancer: Loaded) -> None:
    source = random.Random(1)
    for _ in range(3000):
        packet = source.randbytes(source.randint(14, 200))
        result = balancer.run(packet)
        assert result.action == XDP_PASS
        assert result.packet == packet


def test_every_mutation_of_a_datagram_passes_untouched_is_dropped_or_is_rewritten(
    balancer: Loaded,
) -> None:
    source = random.Random(2)
    original = udp(b"payload of a datagram")
    for _ in range(5000):
        packet = bytearray(original)
        for _ in range(source.randint(1, 4)):
            packet[source.randrange(len(packet))] = source.randrange(256)
        cut = bytes(packet[: source.randint(14, len(packet))])
        result = balancer.run(cut)
        assert result.action != 0, "XDP_ABORTED"
        if result.action == XDP_PASS:
            assert result.packet == cut
        assert len(result.packet) == len(cut) or result.verdict == "reply_ttl"


def test_the_tail_of_a_fragmented_datagram_passes_untouched(balancer: Loaded) -> None:
    packet = udp(ip={"frag": 100})
    result = balancer.run(packet)
    assert (result.verdict, result.action, result.packet) == ("pass_fragment", XDP_PASS, packet)


DROPPED = {
    "first fragment": ("drop_fragment", udp(ip={"flags": "MF"})),
    "udp length below 8": ("drop_malformed", udp(header={"len": 7})),
    "udp length beyond the ip payload": ("drop_malformed", udp(header={"len": 100})),
    "udp length beyond it, with padding": ("drop_malformed", udp(header={"len": 20}) + bytes(20)),
    "source on loopback": ("drop_martian", udp(src="127.0.0.1")),
    "source in 0/8": ("drop_martian", udp(src="0.0.0.0")),
    "source is multicast": ("drop_martian", udp(src="224.0.0.1")),
    "source is broadcast": ("drop_martian", udp(src="255.255.255.255")),
    "source is reserved": ("drop_martian", udp(src="240.0.0.1")),
    "source is the service": ("drop_martian", udp(src=SERVICE)),
    "land": ("drop_martian", udp(src=SERVICE, sport=53)),
}


@pytest.mark.parametrize(("verdict", "packet"), DROPPED.values(), ids=DROPPED.keys())
def test_what_cannot_be_served_is_dropped_by_name(
    balancer: Loaded, verdict: str, packet: bytes
) -> None:
    result = balancer.run(packet)
    assert (result.verdict, result.action) == (verdict, XDP_DROP)
    assert balancer.entries() == {}


@pytest.mark.parametrize("name", ["first fragment", "udp length below 8"])
def test_it_is_dropped_from_a_known_client_too(balancer: Loaded, name: str) -> None:
    verdict, packet = DROPPED[name]
    value = balancer.open()
    assert balancer.run(packet).verdict == verdict
    assert balancer.index() == value


@pytest.mark.parametrize(
    ("verdict", "change"),
    [
        ("drop_fragment", {"ip": {"flags": "MF"}}),
        ("drop_malformed", {"header": {"len": 7}}),
    ],
)
def test_it_is_dropped_from_a_backend_too(
    balancer: Loaded, verdict: str, change: dict[str, Any]
) -> None:
    packet = balancer.answer(balancer.open(), **change)
    assert balancer.run(packet).verdict == verdict


def test_a_socket_of_the_host_gets_its_datagram(private_network: None) -> None:
    del private_network
    with Loaded(shares_ports=True) as balancer, socket.socket(type=socket.SOCK_DGRAM) as host:
        host.bind(("0.0.0.0", 40000))
        packet = udp(dport=40000)
        result = balancer.run(packet)
        assert (result.verdict, result.action) == ("pass_socket", XDP_PASS)
        assert result.packet == packet
        assert balancer.run(udp(dport=40001)).verdict == "forward"


def test_a_known_flow_is_not_taken_by_a_socket_that_comes_later(private_network: None) -> None:
    del private_network
    with Loaded(shares_ports=True) as balancer, socket.socket(type=socket.SOCK_DGRAM) as host:
        assert balancer.run(udp(dport=40000)).verdict == "forward"
        host.bind(("0.0.0.0", 40000))
        assert balancer.run(udp(dport=40000)).verdict == "forward"


def test_ports_that_are_asked_for_by_number_are_not_shared(private_network: None) -> None:
    del private_network
    with Loaded(make_request()) as balancer, socket.socket(type=socket.SOCK_DGRAM) as host:
        host.bind(("0.0.0.0", 53))
        assert balancer.run(udp(dport=53)).verdict == "forward"


class TestNeighbours:
    """The program learns the MAC address of next hops from ARP that passes."""

    MAC = "02:aa:bb:cc:dd:ee"

    def learned(self, balancer: Loaded, number: int = 0) -> str | None:
        """What the program would send to."""
        mac = balancer.backend(number).mac
        return mac.hex(":") if mac else None

    @pytest.mark.parametrize("op", [1, 2], ids=["request", "answer"])
    def test_a_backend_is_learned(self, balancer: Loaded, op: int) -> None:
        packet = arp_reply("172.11.0.20", self.MAC, op=op)
        result = balancer.run(packet)
        assert (result.verdict, result.packet) == ("pass_not_ours", packet)
        assert self.learned(balancer) == self.MAC

    def test_an_unresolved_backend_heals(self) -> None:
        with Loaded(make_request("172.11.0.20")) as balancer:
            balancer.change_backend(0, mac=None)
            assert balancer.run(udp()).verdict == "drop_unresolved"
            balancer.run(arp_reply("172.11.0.20", self.MAC))
            result = balancer.run(udp())
            assert result.verdict == "forward"
            assert result.packet[:6] == bytes.fromhex(self.MAC.replace(":", ""))

    def test_a_stranger_teaches_nothing(self, balancer: Loaded) -> None:
        before = [balancer.backend(number) for number in (0, 1)]
        balancer.run(arp_reply("172.11.0.99", self.MAC))
        assert [balancer.backend(number) for number in (0, 1)] == before

    @pytest.mark.parametrize(
        ("mac", "source"),
        [
            ("ff:ff:ff:ff:ff:ff", None),
            ("01:00:5e:00:00:01", None),
            ("00:00:00:00:00:00", None),
            (MAC, "02:00:00:00:00:55"),
        ],
        ids=["broadcast", "multicast", "zero", "sent by another"],
    )
    def test_an_address_that_cannot_be_is_not_learned(
        self, balancer: Loaded, mac: str, source: str | None
    ) -> None:
        before = balancer.backend(0)
        balancer.run(arp_reply("172.11.0.20", mac, source=source))
        assert balancer.backend(0) == before

    def test_an_administrators_address_stays(self, balancer: Loaded) -> None:
        balancer.change_backend(0, mac_is_fixed=True)
        before = balancer.backend(0)
        balancer.run(arp_reply("172.11.0.20", self.MAC))
        assert balancer.backend(0) == before

    def test_another_interface_teaches_nothing(self, balancer: Loaded) -> None:
        balancer.change_backend(0, interface=1)
        before = balancer.backend(0)
        balancer.run(arp_reply("172.11.0.20", self.MAC))
        assert balancer.backend(0) == before

    def test_all_backends_with_that_address_learn(self) -> None:
        with Loaded(make_request("172.11.0.20:53", "172.11.0.20:54", "172.11.0.21")) as balancer:
            other = self.learned(balancer, 2)
            balancer.run(arp_reply("172.11.0.20", self.MAC))
            assert [self.learned(balancer, number) for number in range(3)] == [
                self.MAC,
                self.MAC,
                other,
            ]
