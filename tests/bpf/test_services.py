"""Many services in one program: each packet meets its own, and leaves from its address."""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from bpf_harness import XDP_DROP, XDP_PASS, XDP_TX, Loaded, joined, reservation, verified
from packets import CLIENT_MAC, OUR_MAC, backend_mac, network, readdressed, tcp, udp
from scapy.layers.inet import ICMP, IP, UDP, fragment
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether

from xdplb import wire
from xdplb.kernel import clock, flows, libbpf, tables
from xdplb.model import ALL_PORTS, Backend, Hash, Mode, OnDown, PortRange, Protocol, Timeouts
from xdplb.plan import Port
from xdplb.request import Request, Service
from xdplb.selection import select_slot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdplb.wire import ClientValue

DNS = (PortRange(53, 53),)


@dataclass(frozen=True, slots=True)
class Net:
    """Addresses of one IP version by their last numbers."""

    prefix: str

    def __call__(self, number: int) -> str:
        return f"{self.prefix}{number}"

    @property
    def client(self) -> str:
        return self(22)

    def service(self, number: int, *backends: int, **fields: Any) -> Service:
        """A service at an address, by default UDP at port 53."""
        nat = tuple(ip_address(self(item)) for item in fields.pop("nat", ()))
        return Service(
            backends=tuple(Backend(ip_address(self(item))) for item in backends),
            address=ip_address(self(number)),
            nat_addresses=nat,
            **{"ports": DNS, **fields},
        )


NETS = [Net("172.11.0."), Net("2001:db8::")]


@pytest.fixture(params=NETS, ids=["IPv4", "IPv6"])
def net(request: pytest.FixtureRequest) -> Net:
    found: Net = request.param
    return found


def load(*services: Service, **more: Any) -> Loaded:
    return Loaded(Request(("lo",), services, **more))


def entry(balancer: Loaded, net: Net, dst: int, **fields: Any) -> ClientValue:
    """Where a flow of the client to a service leads."""
    found = [
        value
        for key, value in balancer.entries().items()
        if key.service == ip_address(net(dst))
        and key.client == ip_address(net.client)
        and (key.client_port, key.service_port)
        == (fields.get("sport", 5555), fields.get("dport", 53))
        and key.protocol is fields.get("protocol", Protocol.UDP)
    ]
    (value,) = found
    return value


def answer(
    balancer: Loaded,
    value: ClientValue,
    make: Callable[..., bytes] = udp,
    *args: Any,
    **fields: Any,
) -> bytes:
    """What the backend of a flow sends back to the address that it was spoken to from."""
    record = balancer.backend(value.backend)
    ours = {
        "src": f"{record.address}",
        "dst": f"{balancer.plan.addresses[record.local]}",
        "sport": record.port or 53,
        "dport": value.nat_port,
        "ether": {"src": backend_mac(value.backend)},
    }
    return make(*args, **{**ours, **fields})


def test_each_service_has_backends_of_its_own(net: Net) -> None:
    services = [net.service(number, 20 + number) for number in range(1, 5)]
    with load(*services) as balancer:
        for number in range(1, 5):
            packet = udp(src=net.client, dst=net(number))
            result = balancer.run(packet)
            value = entry(balancer, net, number)
            assert (result.verdict, result.action) == ("forward", XDP_TX)
            assert result.packet == readdressed(
                packet,
                src=net(number),
                dst=net(20 + number),
                sport=value.nat_port,
                smac=OUR_MAC,
                dmac=backend_mac(value.backend),
            )
            back = answer(balancer, value, payload=b"it is " + bytes([number]))
            result = balancer.run(back)
            assert (result.verdict, result.action) == ("return", XDP_TX)
            assert result.packet == readdressed(
                back,
                src=net(number),
                dst=net.client,
                dport=5555,
                smac=OUR_MAC,
                dmac=CLIENT_MAC,
            )


def test_ports_of_one_address_are_of_different_services(net: Net) -> None:
    with load(
        net.service(1, 20),
        net.service(1, 21, ports=(PortRange(100, 511), PortRange(65535, 65535))),
        net.service(1, 22, ports=(PortRange(512, 600),), protocol=Protocol.TCP),
    ) as balancer:
        reached = {}
        for port in (1, 52, 53, 54, 99, 100, 255, 256, 511, 512, 65534, 65535):
            result = balancer.run(udp(src=net.client, dst=net(1), dport=port))
            if result.verdict == "forward":
                reached[port] = network(Ether(result.packet)).dst
            else:
                assert (result.verdict, result.action) == ("pass_not_ours", XDP_PASS)
        second = dict.fromkeys((100, 255, 256, 511, 65535), net(21))
        assert reached == {53: net(20), **second}
        for port, verdict in ((511, "pass_not_ours"), (512, "forward"), (601, "pass_not_ours")):
            assert balancer.run(tcp("S", src=net.client, dst=net(1), dport=port)).verdict == verdict


def test_an_address_that_only_speaks_to_backends_takes_no_requests(net: Net) -> None:
    with load(net.service(1, 20, nat=(9,), ports=ALL_PORTS)) as balancer:
        assert balancer.run(udp(src=net.client, dst=net(1))).verdict == "forward"
        assert balancer.run(udp(src=net.client, dst=net(9))).verdict == "pass_not_ours"
        assert balancer.run(udp(src=net.client, dst=net(8))).verdict == "pass_not_ours"


def test_a_service_speaks_from_its_nat_address(net: Net) -> None:
    with load(net.service(1, 20, nat=(9,))) as balancer:
        packet = udp(b"x" * 99, src=net.client, dst=net(1))
        sent = balancer.run(packet).packet
        value = entry(balancer, net, 1)
        assert sent == readdressed(
            packet,
            src=net(9),
            dst=net(20),
            sport=value.nat_port,
            smac=OUR_MAC,
            dmac=backend_mac(value.backend),
        )
        back = answer(balancer, value)
        result = balancer.run(back)
        assert result.verdict == "return"
        assert result.packet == readdressed(
            back, src=net(1), dst=net.client, dport=5555, smac=OUR_MAC, dmac=CLIENT_MAC
        )
        elsewhere = answer(balancer, value, dst=net(1))
        assert balancer.run(elsewhere).verdict == "pass_not_ours"


def test_a_client_always_meets_the_same_nat_address_and_all_are_used(net: Net) -> None:
    with load(net.service(1, 20, nat=(7, 8, 9), hash=Hash.SRC)) as balancer:
        seen: dict[int, set[str]] = {}
        for number in range(100, 160):
            for port in range(5):
                packet = udp(src=net(number), dst=net(1), sport=2000 + port)
                source = network(Ether(balancer.run(packet).packet)).src
                seen.setdefault(number, set()).add(source)
        assert all(len(sources) == 1 for sources in seen.values())
        assert set.union(*seen.values()) == {net(7), net(8), net(9)}


def test_each_nat_address_has_ports_of_its_own(net: Net) -> None:
    """Twice as many flows toward one backend, with twice the addresses."""
    ports = (PortRange(2000, 2015),)
    with load(net.service(1, 20, nat=(8, 9), hash=Hash.FIVE_TUPLE), nat_ports=ports) as balancer:
        verdicts = [
            balancer.run(udp(src=net(100), dst=net(1), sport=3000 + port)).verdict
            for port in range(64)
        ]
        assert verdicts.count("forward") == 8  # half of the 16 ports is one client's limit
    with load(
        net.service(1, 20, nat=(8, 9), hash=Hash.FIVE_TUPLE),
        nat_ports=ports,
        max_client_flows=0,
    ) as balancer:
        for port in range(400):
            balancer.run(udp(src=net(100), dst=net(1), sport=3000 + port))
        places = {
            (balancer.backend(value.backend).local, value.nat_port)
            for value in balancer.entries().values()
        }
        assert len(places) == 32


def test_one_client_port_to_two_services_at_one_backend(net: Net) -> None:
    """The backend sees two flows, and each answer comes from the address that was asked."""
    with load(net.service(1, 20, nat=(9,)), net.service(2, 20, nat=(9,))) as balancer:
        for number in (1, 2):
            balancer.run(udp(src=net.client, dst=net(number)))
        values = {number: entry(balancer, net, number) for number in (1, 2)}
        assert len({value.nat_port for value in values.values()}) == 2
        for number, value in values.items():
            frame = Ether(balancer.run(answer(balancer, value)).packet)
            assert network(frame).src == net(number)


def test_each_service_hashes_what_it_is_told_to(net: Net) -> None:
    kinds = dict(enumerate(Hash, 1))
    services = [net.service(at, *range(30, 46), hash=kind) for at, kind in kinds.items()]
    with load(*services) as balancer:
        for at, kind in kinds.items():
            for number in range(100, 140):
                client = net(number)
                sent = balancer.run(udp(src=client, dst=net(at), sport=number)).packet
                slot = select_slot(
                    kind,
                    balancer.plan.facts.hash_keys,
                    (ip_address(client), number),
                    (ip_address(net(at)), 53),
                )
                table = balancer.plan.tables[balancer.plan.services[at - 1].number]
                expected = balancer.backend(table[slot]).address
                assert network(Ether(sent)).dst == f"{expected}"


def test_each_service_has_timeouts_of_its_own(net: Net) -> None:
    short, long = Timeouts(unreplied=10, answered=20), Timeouts(unreplied=100, answered=200)
    with load(
        net.service(1, 20, timeouts=short),
        net.service(2, 21, timeouts=long),
        max_flows=8,
    ) as balancer:
        for number in (1, 2):
            for sport in range(1000, 1008):
                balancer.run(udp(src=net.client, dst=net(number), sport=sport))
        running = len(balancer.entries())
        for key, value in balancer.entries().items():
            place = balancer.flow_place(value)
            flow = tables.read_flow(balancer.maps, place)
            seen = (clock.ticks() - round(50 * wire.TICKS_PER_S)) & 0xFFFFFFFF
            aged = flow._replace(owner=flow.owner._replace(seen=seen))
            libbpf.update(balancer.maps["reverse_lookup"], wire.U32.pack(place), aged.pack())
            assert flow.service == key.number
        assert running == 8
        verdicts = {
            number: balancer.run(udp(src=net(99), dst=net(number))).verdict for number in (1, 2)
        }
        assert verdicts == {1: "forward", 2: "forward"}


def test_udp_and_tcp_of_one_server_are_kept_apart(net: Net) -> None:
    with load(
        net.service(1, 20, nat=(9,)),
        net.service(1, 20, nat=(9,), protocol=Protocol.TCP),
        net.service(2, 20),
    ) as balancer:
        balancer.run(udp(src=net.client, dst=net(1)))
        balancer.run(tcp("S", src=net.client, dst=net(1)))
        value = entry(balancer, net, 1, protocol=Protocol.TCP)
        back = answer(balancer, value, tcp, "SA")
        result = balancer.run(back)
        assert result.verdict == "return"
        assert result.packet == readdressed(
            back, src=net(1), dst=net.client, dport=5555, smac=OUR_MAC, dmac=CLIENT_MAC
        )
        as_udp = balancer.run(answer(balancer, value)).verdict
        assert as_udp == (
            "return" if entry(balancer, net, 1).nat_port == value.nat_port else "pass_not_ours"
        )


def test_a_backend_that_is_held_gets_nothing_and_loses_nothing(net: Net) -> None:
    services = (
        net.service(1, 20, 21, on_down=OnDown.DROP),
        net.service(2, 20, 21, on_down=OnDown.REHASH),
    )
    with load(*services) as balancer:
        for number in (1, 2):
            balancer.run(udp(src=net.client, dst=net(number)))
        values = {number: entry(balancer, net, number) for number in (1, 2)}
        for number, state in ((1, wire.BackendCode.HELD), (2, wire.BackendCode.DOWN)):
            balancer.change_backend(values[number].backend, state=state)
        held = balancer.run(udp(src=net.client, dst=net(1)))
        assert (held.verdict, held.action) == ("drop_no_backend", XDP_DROP)
        assert entry(balancer, net, 1) == values[1]
        balancer.change_backend(values[1].backend, state=wire.BackendCode.UP)
        assert balancer.run(udp(src=net.client, dst=net(1))).verdict == "forward"
        assert entry(balancer, net, 1) == values[1]


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
def test_a_flow_that_moved_stays_where_it_went(net: Net, *, many: bool) -> None:
    """Its old record must not take it back when the first backend is up again."""
    others = [net.service(2, 22)] if many else []
    with load(net.service(1, 20, 21), *others) as balancer:
        packet = udp(src=net.client, dst=net(1))
        balancer.run(packet)
        first = entry(balancer, net, 1)
        balancer.change_backend(first.backend, state=wire.BackendCode.DOWN)
        away = 1 - first.backend
        table = array("H", [away]) * len(balancer.plan.tables[0])
        tables.write_table(balancer.maps, 0, balancer.plan.service_records()[0], table)
        balancer.run(packet)
        second = entry(balancer, net, 1)
        assert second.backend == away
        late = balancer.run(answer(balancer, first))
        assert late.verdict == "pass_not_ours"
        balancer.change_backend(first.backend, state=wire.BackendCode.UP)
        usual = balancer.plan.tables[0]
        tables.write_table(balancer.maps, 0, balancer.plan.service_records()[0], usual)
        sent = Ether(balancer.run(packet).packet)
        assert entry(balancer, net, 1) == second
        assert (network(sent).dst, sent[UDP].sport) == (
            f"{balancer.backend(away).address}",
            second.nat_port,
        )


def test_a_reservation_waits_for_its_backend(net: Net) -> None:
    reserved = (reservation(net.client, 5555, 6666),)
    with load(net.service(1, 20, 21, reservations=reserved)) as balancer:
        packet = udp(src=net.client, dst=net(1))
        assert Ether(balancer.run(packet).packet)[UDP].sport == 6666
        home = balancer.index(net.client, 5555, 0)
        balancer.change_backend(home.backend, state=wire.BackendCode.DOWN)
        away = array("H", [1 - home.backend]) * len(balancer.plan.tables[0])
        tables.write_table(balancer.maps, 0, balancer.plan.service_records()[0], away)
        other = Ether(balancer.run(packet).packet)
        assert network(other).dst == f"{balancer.backend(1 - home.backend).address}"
        assert balancer.index(net.client, 5555, 0) == home
        balancer.change_backend(home.backend, state=wire.BackendCode.UP)
        second = Ether(balancer.run(udp(src=net.client, dst=net(1), dport=53)).packet)
        assert second[UDP].sport == other[UDP].sport


def test_a_source_of_ours_is_a_martian(net: Net) -> None:
    with load(net.service(1, 20, nat=(9,)), net.service(2, 21)) as balancer:
        for number in (1, 2, 9):
            packet = udp(src=net(number), dst=net(1))
            assert balancer.run(packet).verdict == "drop_martian"


def error(about: bytes, source: str, to: str, code: int) -> bytes:
    """An ICMP error that says of a packet that something, by ``code``, is unreachable."""
    frame = Ether(src=CLIENT_MAC, dst=OUR_MAC)
    message: Any
    if ":" in source:
        message = IPv6(src=source, dst=to) / ICMPv6DestUnreach(code=code)
    else:
        message = IP(src=source, dst=to) / ICMP(type=3, code=code)
    return bytes(frame / message / about[14:])


def sound(packet: bytes) -> bool:
    """Whether every checksum of an ICMP error is right, the quoted ones included."""
    frame = Ether(packet)
    again = Ether(packet)
    if IP in frame:
        del again[IP].chksum, again[ICMP].chksum
    else:
        del again[ICMPv6DestUnreach].cksum
    return bytes(Ether(bytes(again))) == packet


def test_an_error_about_a_request_comes_from_the_service(net: Net) -> None:
    with load(net.service(1, 20, nat=(9,)), net.service(2, 21)) as balancer:
        sent = udp(src=net.client, dst=net(1))
        left = balancer.run(sent).packet
        code = 4 if ":" in net.prefix else 3
        result = balancer.run(error(left, net(20), net(9), code))
        assert (result.verdict, result.action) == ("return_error", XDP_TX)
        assert sound(result.packet)
        outer = network(Ether(result.packet))
        assert (outer.src, outer.dst) == (net(1), net.client)
        stats = tables.read_stats(balancer.maps, entry(balancer, net, 1).backend)
        assert stats.refused == 1
        quoted = IPv6(result.packet[62:]) if ":" in net.prefix else IP(result.packet[42:])
        assert (quoted.src, quoted.dst) == (net.client, net(1))
        assert (quoted[UDP].sport, quoted[UDP].dport) == (5555, 53)
        assert quoted[UDP].chksum == Ether(sent)[UDP].chksum
        # not what another address of ours is told, nor about another reason
        assert balancer.run(error(left, net(20), net(1), code)).verdict == "pass_not_ours"
        assert balancer.run(error(left, net(20), net(9), 1)).verdict == "return_error"
        assert tables.read_stats(balancer.maps, entry(balancer, net, 1).backend).refused == 1


def test_an_error_about_an_answer_comes_from_the_nat_address(net: Net) -> None:
    with load(net.service(1, 20, nat=(9,)), net.service(2, 21)) as balancer:
        balancer.run(udp(src=net.client, dst=net(1)))
        value = entry(balancer, net, 1)
        back = answer(balancer, value)
        left = balancer.run(back).packet
        result = balancer.run(error(left, net.client, net(1), 1))
        assert (result.verdict, result.action) == ("forward_error", XDP_TX)
        assert sound(result.packet)
        outer = network(Ether(result.packet))
        assert (outer.src, outer.dst) == (net(9), net(20))
        quoted = IPv6(result.packet[62:]) if ":" in net.prefix else IP(result.packet[42:])
        assert (quoted.src, quoted.dst) == (net(20), net(9))
        assert (quoted[UDP].sport, quoted[UDP].dport) == (53, value.nat_port)
        assert quoted[UDP].chksum == Ether(back)[UDP].chksum


def test_the_hop_that_is_too_much_is_told_from_the_address_that_was_dialled(net: Net) -> None:
    with load(net.service(1, 20, nat=(9,)), net.service(2, 21)) as balancer:
        hops = {"hlim": 1} if ":" in net.prefix else {"ttl": 1}
        result = balancer.run(udp(src=net.client, dst=net(2), ip=hops))
        assert (result.verdict, result.action) == ("reply_ttl", XDP_TX)
        address = network(Ether(result.packet))
        assert (address.src, address.dst) == (net(2), net.client)


def test_fragments_follow_from_the_same_address() -> None:
    net = NETS[0]
    with load(net.service(1, 20, nat=(9,)), net.service(2, 21)) as balancer:
        whole = Ether(udp(b"x" * 4000, src=net.client, dst=net(1)))
        parts = fragment(whole[IP], fragsize=1480)  # type: ignore[no-untyped-call]
        for part in parts:
            result = balancer.run(bytes(Ether(src=whole.src, dst=whole.dst) / part))
            assert result.verdict == "forward"
            address = Ether(result.packet)[IP]
            assert (address.src, address.dst) == (net(9), net(20))
            stated = address.chksum
            del address.chksum
            assert IP(bytes(address)).chksum == stated


def test_a_reservation_is_for_one_service(net: Net) -> None:
    reserved = (reservation(net.client, 5555, 6666),)
    with load(
        net.service(1, 20, reservations=reserved),
        net.service(1, 21, ports=(PortRange(54, 54),)),
        net.service(2, 22),
    ) as balancer:
        ports = {}
        for dst, dport in ((1, 53), (1, 54), (2, 53)):
            sent = Ether(balancer.run(udp(src=net.client, dst=net(dst), dport=dport)).packet)
            ports[dst, dport] = (network(sent).dst, sent[UDP].sport)
        assert ports[1, 53] == (net(20), 6666)
        assert (ports[1, 54][0], ports[2, 53][0]) == (net(21), net(22))
        assert 6666 not in {ports[1, 54][1], ports[2, 53][1]}


def test_the_flows_of_a_service_can_be_ended_from_outside(net: Net) -> None:
    with load(net.service(1, 20), net.service(2, 20)) as balancer:
        for number in (1, 2):
            balancer.run(udp(src=net.client, dst=net(number)))
        before = {number: entry(balancer, net, number) for number in (1, 2)}
        ended = flows.end(
            balancer.maps,
            balancer.plan.pool,
            balancer.plan.records,
            clock.ticks(),
            lambda key: key.service == ip_address(net(1)),
        )
        assert ended == 1
        assert [key.service for key in balancer.entries()] == [ip_address(net(2))]
        late = balancer.run(answer(balancer, before[1]))
        assert late.verdict == "pass_not_ours"
        assert balancer.run(answer(balancer, before[2])).verdict == "return"
        assert balancer.run(udp(src=net.client, dst=net(1))).verdict == "forward"


@pytest.fixture
def crowded() -> Iterator[Loaded]:
    """As many addresses as there can be."""
    net = NETS[0]
    with load(*(net.service(number, 250) for number in range(100, 164))) as balancer:
        yield balancer


def test_the_last_of_many_addresses_is_found(crowded: Loaded) -> None:
    net = NETS[0]
    for number in (100, 131, 163):
        sent = Ether(crowded.run(udp(src=net.client, dst=net(number))).packet)
        assert sent[IP].src == net(number)
    assert crowded.run(udp(src=net.client, dst=net(164))).verdict == "pass_not_ours"


def everything(net: Net) -> Loaded:
    """Many services with all that a program can have."""
    services = [
        net.service(number, 20, hash=kind, nat=nat, protocol=protocol)
        for (number, kind), nat in zip(enumerate(Hash, 1), ((), (8, 9), ()), strict=True)
        for protocol in Protocol
    ]
    reserved = (reservation(net.client, 5555, 6666),)
    services[0] = replace(services[0], reservations=reserved)
    request = Request(("lo",), tuple(services), mode=Mode.GENERIC, max_client_flows=100)
    ports = tuple(Port(f"if{n}", n, bytes(6), Mode.GENERIC, redirect=True) for n in range(1, 9))
    return Loaded(request, shares_ports=True, ports=ports)


def test_the_verifier_has_room_for_many_services() -> None:
    """It gives up at a million instructions."""
    with everything(NETS[0]) as four, everything(NETS[1]) as six:
        fd = joined(four, six)
        assert verified(fd) < 950_000
        os.close(fd)
