"""IPv6, where it is not as IPv4: every byte against scapy."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import TYPE_CHECKING, Any

import pytest
from bpf_harness import XDP_DROP, XDP_PASS, XDP_TX, Loaded, make_request, reservation
from packets import (
    BACKEND_MAC,
    CLIENT6,
    CLIENT_MAC,
    OUR_MAC,
    SERVICE6,
    advertisement,
    backend_mac,
    icmp6_error,
    pseudo_sum,
    readdressed,
    solicitation,
    tcp,
    udp,
    udp_checksum,
)
from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    defragment6,
    fragment6,
)
from scapy.layers.ipsec import AH
from scapy.layers.l2 import Ether

from xdplb.kernel import libbpf, tables
from xdplb.model import Hash, Mode, PortRange, Protocol
from xdplb.selection import select_slot
from xdplb.wire import FlowCode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BACKENDS = ("2001:db8::20", "2001:db8::21")
PORTS = (PortRange(53, 53),)
ROUTER = "2001:db8:9::9"


def ask(payload: bytes = b"hello", **more: Any) -> bytes:
    """A datagram of the client."""
    return udp(payload, **{"src": CLIENT6, **more})


def call(flags: str, payload: bytes = b"", **more: Any) -> bytes:
    """A segment of the client."""
    return tcp(flags, payload, **{"src": CLIENT6, **more})


def loaded(**options: Any) -> Loaded:
    """Two backends, UDP and TCP."""
    return Loaded(
        make_request(*BACKENDS, **{"protocols": tuple(Protocol), "ports": PORTS, **options})
    )


@pytest.fixture(params=[Mode.NATIVE, Mode.GENERIC])
def balancer(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    with loaded(mode=request.param) as made:
        yield made


class TestForward:
    """From client to backend and back."""

    @pytest.mark.parametrize("size", [0, 1, 7, 8, 33, 1400, 1452])
    def test_a_datagram_leaves_as_a_nat_should_send_it(self, balancer: Loaded, size: int) -> None:
        packet = ask(bytes(number % 251 for number in range(size)))
        result = balancer.run(packet)
        assert (result.verdict, result.action) == ("forward", XDP_TX)
        assert result.packet == balancer.forwarded(packet)

    def test_the_answer_comes_back_to_the_client(self, balancer: Loaded) -> None:
        packet = balancer.answer(balancer.open())
        expected = readdressed(
            packet, src=SERVICE6, dst=CLIENT6, sport=53, dport=5555, smac=OUR_MAC, dmac=CLIENT_MAC
        )
        result = balancer.run(packet)
        assert (result.verdict, result.packet) == ("return", expected)

    def test_a_connection_opens_with_its_handshake(self, balancer: Loaded) -> None:
        assert balancer.run(call("S")).verdict == "forward"
        value = balancer.index(protocol=Protocol.TCP)
        address = f"{balancer.backend(value.backend).address}"
        answer = tcp("SA", src=address, sport=53, dport=value.nat_port)
        assert balancer.run(answer).packet == readdressed(
            answer, src=SERVICE6, dst=CLIENT6, sport=53, dport=5555, smac=OUR_MAC, dmac=CLIENT_MAC
        )
        assert balancer.run(call("A", b"GET")).verdict == "forward"
        assert balancer.flow(value).owner.state is FlowCode.TCP_ESTABLISHED

    def test_a_segment_leaves_as_a_nat_should_send_it(self, balancer: Loaded) -> None:
        packet = call("S", b"x" * 33)
        out = balancer.run(packet).packet
        value = balancer.index(protocol=Protocol.TCP)
        assert out == readdressed(
            packet,
            src=SERVICE6,
            dst=f"{balancer.backend(value.backend).address}",
            sport=value.nat_port,
            smac=OUR_MAC,
            dmac=backend_mac(value.backend),
        )

    def test_a_segment_of_no_connection_is_the_kernels(self, balancer: Loaded) -> None:
        assert balancer.run(call("A")).verdict == "pass_no_flow"

    @pytest.mark.parametrize(
        "fields", [{"tc": 0xB8}, {"tc": 3}, {"fl": 0x12345}, {"hlim": 2}, {"hlim": 255}], ids=str
    )
    def test_what_a_nat_need_not_change_stays(
        self, balancer: Loaded, fields: dict[str, int]
    ) -> None:
        packet = ask(ip=fields)
        balancer.open()
        assert balancer.run(packet).packet == balancer.forwarded(packet)

    def test_a_reserved_client_has_its_port(self) -> None:
        with loaded(reservations=(reservation(CLIENT6, 5555, 6666),)) as balancer:
            assert Ether(balancer.run(ask()).packet)[UDP].sport == 6666

    @pytest.mark.parametrize("kind", list(Hash))
    def test_the_program_chooses_the_backend_that_python_computes(self, kind: Hash) -> None:
        backends = [f"2001:db8::{number:x}" for number in range(32, 48)]
        with Loaded(make_request(*backends, hash=kind)) as balancer:
            for number in range(100):
                client, port = f"2001:db8:{number:x}::{number * 7:x}", 1000 + number
                slot = select_slot(
                    kind,
                    balancer.plan.facts.hash_keys,
                    (IPv6Address(client), port),
                    (IPv6Address(SERVICE6), 53),
                )
                table = balancer.plan.tables[0]
                assert balancer.open(client, port).backend == table[slot]

    def test_many_backends_are_all_found_by_their_answers(self) -> None:
        backends = [f"2001:db8::{number:x}" for number in range(256, 556)]
        with Loaded(make_request(*backends, max_flows=1 << 20)) as balancer:
            for number in range(300):
                value = balancer.open(f"2001:db8:5::{number + 1:x}")
                assert balancer.run(balancer.answer(value)).verdict == "return"


class TestChecksum:
    """UDP has to have one (RFC 8200 8.1)."""

    def test_a_datagram_without_one_is_dropped(self, balancer: Loaded) -> None:
        result = balancer.run(ask(header={"chksum": 0}))
        assert (result.verdict, result.action) == ("drop_checksum", XDP_DROP)

    def test_an_answer_without_one_is_dropped(self, balancer: Loaded) -> None:
        answer = balancer.answer(balancer.open(), header={"chksum": 0})
        assert balancer.run(answer).verdict == "drop_checksum"

    def test_a_wrong_one_stays_wrong_by_as_much(self, balancer: Loaded) -> None:
        packet = ask()
        wrong = (udp_checksum(packet) + 1) % 0xFFFF
        balancer.open()
        right = udp_checksum(balancer.run(packet).packet)
        out = balancer.run(ask(header={"chksum": wrong})).packet
        assert (udp_checksum(out) - right) % 0xFFFF == 1

    @pytest.mark.parametrize("make", [ask, call], ids=["udp", "tcp"])
    def test_a_partial_one_is_treated_as_the_mode_wants(self, balancer: Loaded, make: Any) -> None:
        first = ("S", b"partial!!") if make is call else (b"partial!!",)
        packet = make(*first)
        balancer.run(packet)
        partial = make(*first, header={"chksum": pseudo_sum(packet)})
        whole = balancer.run(packet).packet
        out = balancer.run(partial).packet
        is_native = balancer.plan.facts.ports[0].mode is Mode.NATIVE
        assert udp_checksum(out) == (udp_checksum(whole) if is_native else pseudo_sum(whole))


OPTIONS = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))])
WALKED = {
    "hop-by-hop": IPv6ExtHdrHopByHop(),
    "destination options": OPTIONS,
    "a long one": IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(250))]),
    "routing that is done": IPv6ExtHdrRouting(segleft=0, addresses=["2001:db8::9"]),
    "several": IPv6ExtHdrHopByHop() / OPTIONS / IPv6ExtHdrRouting(segleft=0) / OPTIONS,
    "an atomic fragment": IPv6ExtHdrFragment(id=7, offset=0, m=0),
    "six": IPv6ExtHdrHopByHop() / OPTIONS / OPTIONS / OPTIONS / OPTIONS / OPTIONS,
}
PASSED = {
    "seven": IPv6ExtHdrHopByHop() / OPTIONS / OPTIONS / OPTIONS / OPTIONS / OPTIONS / OPTIONS,
    "routing that goes on": IPv6ExtHdrRouting(segleft=1, addresses=["2001:db8::9"]),
    "authentication": AH(icv=bytes(12)),
    "two fragment headers": IPv6ExtHdrFragment(id=7, m=1) / IPv6ExtHdrFragment(id=8, m=1),
}


class TestExtensionHeaders:
    """Stepped over up to a bound, and kept (RFC 8200 section 4)."""

    @pytest.mark.parametrize("headers", WALKED.values(), ids=WALKED)
    def test_they_are_stepped_over_and_kept(self, balancer: Loaded, headers: Any) -> None:
        packet = ask(ip={"then": headers.copy()})
        result = balancer.run(packet)
        assert result.verdict == "forward"
        assert result.packet == balancer.forwarded(packet)

    @pytest.mark.parametrize("headers", PASSED.values(), ids=PASSED)
    def test_what_is_not_understood_is_the_kernels(self, balancer: Loaded, headers: Any) -> None:
        packet = ask(ip={"then": headers.copy()})
        result = balancer.run(packet)
        assert (result.verdict, result.action) == ("pass_not_ours", XDP_PASS)
        assert result.packet == packet

    def test_one_that_is_cut_off_is_the_kernels(self, balancer: Loaded) -> None:
        packet = ask(ip={"then": OPTIONS.copy()})
        for length in range(54, 54 + 24):
            assert balancer.run(packet[:length]).verdict == "pass_not_ours"

    def test_a_jumbogram_is_the_kernels(self, balancer: Loaded) -> None:
        assert balancer.run(ask(ip={"plen": 0})).verdict == "pass_not_ours"

    def test_no_next_header_is_the_kernels(self, balancer: Loaded) -> None:
        assert balancer.run(ask(ip={"nh": 59})).verdict == "pass_not_ours"


@pytest.mark.parametrize(
    "source",
    ["ff02::1", "::", "::1", "::ffff:192.0.2.1", "fe80::1", "febf::1", SERVICE6],
)
def test_a_source_that_nobody_can_answer_is_dropped(balancer: Loaded, source: str) -> None:
    result = balancer.run(ask(src=source))
    assert (result.verdict, result.action) == ("drop_martian", XDP_DROP)


@pytest.mark.parametrize("source", ["fec0::1", "fd00::1", "1::", "::1:0:0"])
def test_an_unusual_source_is_a_client_like_any_other(balancer: Loaded, source: str) -> None:
    assert balancer.run(ask(src=source)).verdict == "forward"


@pytest.mark.parametrize(
    "packet",
    [
        ask(dst="2001:db8::2"),
        ask(dst="ff02::1"),
        ask(dport=54),
        ask(ether={"dst": "02:00:00:00:00:99"}),
        udp(),
        bytes(Ether(src=CLIENT_MAC, dst=OUR_MAC) / IPv6(src=CLIENT6, dst=SERVICE6))
        + bytes(ICMPv6EchoRequest()),
    ],
    ids=["address", "multicast", "port", "mac", "ipv4", "echo"],
)
def test_what_is_not_for_the_service_passes_untouched(balancer: Loaded, packet: bytes) -> None:
    result = balancer.run(packet)
    assert (result.verdict, result.action, result.packet) == ("pass_not_ours", XDP_PASS, packet)


def pieces(packet: bytes, size: int = 1280) -> list[bytes]:
    """The frames that a sender makes of one that is too long."""
    frame = Ether(packet)
    whole = frame[IPv6]
    layer = whole.payload
    whole = IPv6(src=whole.src, dst=whole.dst, hlim=whole.hlim) / IPv6ExtHdrFragment(id=0xABCD)
    parts = fragment6(whole / layer, size)  # type: ignore[no-untyped-call]
    return [bytes(Ether(src=frame.src, dst=frame.dst) / part) for part in parts]


def joined(frames: Sequence[bytes]) -> IPv6:
    """The datagram that a receiver puts together."""
    parts = [Ether(frame)[IPv6] for frame in frames]
    return IPv6(bytes(defragment6(parts)))  # type: ignore[no-untyped-call]


def right_checksum(datagram: IPv6) -> bool:
    """Whether the UDP checksum is the one that scapy computes."""
    sent = datagram[UDP].chksum
    del datagram[UDP].chksum
    return bool(IPv6(bytes(datagram))[UDP].chksum == sent)


class TestFragments:
    """They follow the first one of their datagram (RFC 8200 4.5)."""

    @pytest.mark.parametrize("size", [1400, 8000, 60000])
    def test_every_fragment_follows_the_first(self, balancer: Loaded, size: int) -> None:
        payload = bytes(number % 251 for number in range(size))
        results = [balancer.run(frame) for frame in pieces(ask(payload))]
        assert {item.verdict for item in results} == {"forward"}
        value = balancer.index()
        outs = [Ether(item.packet) for item in results]
        assert {out.dst for out in outs} == {backend_mac(value.backend)}
        assert {out[IPv6].hlim for out in outs} == {63}
        assert len({out[IPv6ExtHdrFragment].id for out in outs}) == 1
        whole = joined([item.packet for item in results])
        assert whole.dst == f"{balancer.backend(value.backend).address}"
        assert (whole[UDP].sport, bytes(whole[UDP].payload)) == (value.nat_port, payload)
        assert right_checksum(whole)

    def test_an_answer_in_fragments_comes_back_whole(self, balancer: Loaded) -> None:
        value = balancer.open()
        payload = b"answer " * 1000
        results = [balancer.run(frame) for frame in pieces(balancer.answer(value, payload))]
        assert {item.verdict for item in results} == {"return"}
        whole = joined([item.packet for item in results])
        assert (whole.src, whole.dst, whole[UDP].dport) == (SERVICE6, CLIENT6, 5555)
        assert bytes(whole[UDP].payload) == payload
        assert right_checksum(whole)

    def test_a_fragment_before_the_first_is_the_kernels(self, balancer: Loaded) -> None:
        frame = pieces(ask(bytes(4000)))[1]
        result = balancer.run(frame)
        assert (result.verdict, result.packet) == ("pass_fragment", frame)

    def test_a_fragment_of_another_datagram_does_not_follow(self, balancer: Loaded) -> None:
        first, second, *_ = pieces(ask(bytes(4000)))
        balancer.run(first)
        other = bytearray(second)
        other[14 + 40 + 7] ^= 1
        assert balancer.run(bytes(other)).verdict == "pass_fragment"

    def test_clients_with_the_same_identification_get_different_ones(self) -> None:
        with Loaded(make_request("2001:db8::20")) as balancer:
            ids = set()
            for number in range(50):
                first, *_ = pieces(ask(bytes(2000), src=f"2001:db8:1::{number + 1:x}"))
                ids.add(Ether(balancer.run(first).packet)[IPv6ExtHdrFragment].id)
            assert len(ids) == 50

    def test_a_first_fragment_of_a_wrong_length_is_dropped(self, balancer: Loaded) -> None:
        packet = ask(bytes(13), ip={"then": IPv6ExtHdrFragment(id=3, m=1)})
        assert balancer.run(packet).verdict == "drop_fragment"

    def test_a_fragment_cannot_rewrite_a_tcp_header(self, balancer: Loaded) -> None:
        first = call("S", bytes(12), ip={"then": IPv6ExtHdrFragment(id=3, m=1)})
        assert balancer.run(first).verdict == "forward"
        header = IPv6ExtHdrFragment(id=3, offset=1, nh=6)
        over = Ether(src=CLIENT_MAC, dst=OUR_MAC) / IPv6(src=CLIENT6, dst=SERVICE6) / header
        assert balancer.run(bytes(over / bytes(40))).verdict == "drop_fragment"


KINDS: dict[str, Any] = {
    "port unreachable": ICMPv6DestUnreach(code=4),
    "no route": ICMPv6DestUnreach(code=0),
    "too big": ICMPv6PacketTooBig(mtu=1280),
    "hop limit": ICMPv6TimeExceeded(code=0),
    "parameter": ICMPv6ParamProblem(code=1, ptr=6),
}


class TestErrors:
    """ICMPv6 errors: to whom they go, and what they quote (RFC 4443)."""

    @staticmethod
    def hopped(packet: bytes) -> bytes:
        """As its sender knows it, but for the hop that it has made."""
        frame = Ether(packet)
        frame[IPv6].hlim -= 1
        return bytes(frame)

    @pytest.mark.parametrize("size", [0, 1, 32, 1000, 1400])
    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    def test_an_error_about_a_request_reaches_its_client(
        self, balancer: Loaded, kind: Any, size: int
    ) -> None:
        sent = ask((bytes(range(200)) * 8)[:size])
        out = balancer.run(sent).packet
        error = icmp6_error(out, kind.copy(), src=ROUTER, hlim=60)
        result = balancer.run(error)
        assert (result.verdict, result.action) == ("return_error", XDP_TX)
        expected = Ether(src=OUR_MAC, dst=CLIENT_MAC) / IPv6(src=SERVICE6, dst=CLIENT6, hlim=59)
        quoted = self.hopped(sent)[14:1246]
        assert result.packet == bytes(expected / kind.copy() / quoted)

    @pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
    def test_an_error_about_an_answer_reaches_its_backend(
        self, balancer: Loaded, kind: Any
    ) -> None:
        value = balancer.open()
        answer = balancer.answer(value, b"answer" * 30)
        out = balancer.run(answer).packet
        result = balancer.run(icmp6_error(out, kind.copy(), src=ROUTER, hlim=60))
        assert result.verdict == "forward_error"
        address = f"{balancer.backend(value.backend).address}"
        expected = Ether(src=OUR_MAC, dst=backend_mac(value.backend)) / IPv6(
            src=SERVICE6, dst=address, hlim=59
        )
        assert result.packet == bytes(expected / kind.copy() / self.hopped(answer)[14:1246])

    def test_an_error_about_tcp_reaches_its_client(self, balancer: Loaded) -> None:
        sent = call("S")
        out = balancer.run(sent).packet
        result = balancer.run(icmp6_error(out, ICMPv6PacketTooBig(mtu=1300)))
        assert result.verdict == "return_error"
        assert bytes(Ether(result.packet)[ICMPv6PacketTooBig].payload) == self.hopped(sent)[14:]

    def test_an_error_that_quotes_a_fragment_reaches_its_client(self, balancer: Loaded) -> None:
        first, *_ = pieces(ask(bytes(4000)))
        out = balancer.run(first).packet
        result = balancer.run(icmp6_error(out, ICMPv6PacketTooBig(mtu=1280)))
        assert result.verdict == "return_error"
        quoted = IPv6(bytes(Ether(result.packet)[ICMPv6PacketTooBig].payload))
        assert (quoted.src, quoted.dst) == (CLIENT6, SERVICE6)
        assert quoted[UDP].sport == 5555

    def test_an_error_with_a_wrong_checksum_is_dropped(self, balancer: Loaded) -> None:
        out = balancer.run(ask()).packet
        error = icmp6_error(out, ICMPv6DestUnreach(code=4, cksum=1))
        assert balancer.run(error).verdict == "drop_checksum"

    def test_an_error_about_nothing_of_ours_is_the_kernels(self, balancer: Loaded) -> None:
        balancer.open()
        error = icmp6_error(ask(src=SERVICE6, dst=BACKENDS[0], sport=1, dport=53))
        result = balancer.run(error)
        assert (result.verdict, result.packet) == ("pass_not_ours", error)

    def test_an_error_neither_refreshes_nor_ends_a_flow(self, balancer: Loaded) -> None:
        out = balancer.run(ask()).packet
        balancer.age(20)
        before = balancer.flow(balancer.index())
        balancer.run(icmp6_error(out))
        assert balancer.flow(balancer.index()) == before

    @pytest.mark.parametrize("size", [0, 33, 1452])
    @pytest.mark.parametrize("hops", [0, 1])
    def test_a_packet_whose_hops_run_out_is_answered(
        self, balancer: Loaded, size: int, hops: int
    ) -> None:
        packet = ask(bytes(size), ip={"hlim": hops})
        result = balancer.run(packet)
        assert (result.verdict, result.action) == ("reply_ttl", XDP_TX)
        expected = Ether(src=OUR_MAC, dst=CLIENT_MAC) / IPv6(src=SERVICE6, dst=CLIENT6, hlim=64)
        assert result.packet == bytes(expected / ICMPv6TimeExceeded() / packet[14:1246])
        assert len(result.packet) <= 14 + 1280


class TestNeighbours:
    """MAC addresses are learned from neighbour discovery as it passes (RFC 4861)."""

    NEW = "02:00:00:00:77:01"

    def mac(self, balancer: Loaded) -> str:
        """What backend 0 is reached at."""
        mac = balancer.backend(0).mac
        return mac.hex(":") if mac else ""

    def test_an_advertisement_teaches_a_mac(self, balancer: Loaded) -> None:
        packet = advertisement(BACKENDS[0], self.NEW)
        result = balancer.run(packet)
        assert (result.verdict, result.packet) == ("pass_not_ours", packet)
        assert self.mac(balancer) == self.NEW

    def test_a_solicitation_teaches_a_mac(self, balancer: Loaded) -> None:
        balancer.run(solicitation(BACKENDS[0], self.NEW))
        assert self.mac(balancer) == self.NEW

    def test_one_that_asks_not_to_override_teaches_only_the_unknown(self, balancer: Loaded) -> None:
        balancer.run(advertisement(BACKENDS[0], self.NEW, O=0))
        assert self.mac(balancer) == BACKEND_MAC
        balancer.change_backend(0, mac=None)
        balancer.run(advertisement(BACKENDS[0], self.NEW, O=0))
        assert self.mac(balancer) == self.NEW

    @pytest.mark.parametrize(
        "packet",
        [
            advertisement(BACKENDS[0], NEW, hlim=254),
            advertisement(BACKENDS[0], NEW, source="02:00:00:00:77:02"),
            advertisement("2001:db8::99", NEW),
            advertisement(BACKENDS[0], "01:00:5e:00:00:01"),
            advertisement(BACKENDS[0], NEW)[:-8],
            advertisement(BACKENDS[0], NEW)[:-1],
        ],
        ids=["from afar", "for another", "of a stranger", "multicast", "no option", "cut off"],
    )
    def test_what_is_not_sound_teaches_nothing(self, balancer: Loaded, packet: bytes) -> None:
        balancer.run(packet)
        assert self.mac(balancer) == BACKEND_MAC

    def test_a_fixed_mac_stays(self, balancer: Loaded) -> None:
        balancer.change_backend(0, mac_is_fixed=True)
        balancer.run(advertisement(BACKENDS[0], self.NEW))
        assert self.mac(balancer) == BACKEND_MAC


def test_ipv4_and_ipv6_have_flows_of_their_own(balancer: Loaded) -> None:
    """The maps of IPv6 are named apart, and no IPv4 packet touches them."""
    names = {libbpf.map_info(balancer.maps[name]).name.decode() for name in ("backends", "maglev")}
    assert names == {"backends6", "maglev6"}
    assert tables.active_table(balancer.maps, 0) == 0
    assert TCP in Ether(call("S"))
