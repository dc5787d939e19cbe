"""The program that tells what it does: the same verdicts and bytes, and an event for each."""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest
from bpf_harness import Loaded, compiled, make_request, reservation, verified
from packets import CLIENT, CLIENT6, icmp_error, tcp, udp

from xdplb import source, tracing
from xdplb.flags import flags
from xdplb.kernel import libbpf, tables, tap, twin
from xdplb.kernel.ring import Ring
from xdplb.kernel.tap import Tap
from xdplb.model import Mode, PortRange, Protocol
from xdplb.plan import Port
from xdplb.startup import describe
from xdplb.tracing import Event, Wanted

if TYPE_CHECKING:
    from collections.abc import Iterator

OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "all": {
        "protocols": tuple(Protocol),
        "ports": (PortRange(53, 53),),
        "mode": Mode.GENERIC,
        "reservations": (reservation(CLIENT, 5555, 6666),),
        "max_client_flows": 100,
    },
}


class Traced:
    """A balancer's twin, which is fed packets like the balancer."""

    def __init__(self, tap: Tap, snap: int) -> None:
        self.tap = tap
        self.snap = snap

    def run(self, packet: bytes) -> tuple[libbpf.ProgramRun, list[Event]]:
        done = libbpf.run_program(self.tap.program_fd, packet, room=70000)
        return done, [
            tracing.read(data, source.verdicts(), {1: "lo"}, 0, self.snap)
            for data in self.tap.wait(0)
        ]


@contextmanager
def traced(
    balancer: Loaded, wanted: Wanted | None = None, *, shares_ports: bool = False
) -> Iterator[Traced]:
    """The twin of a balancer."""
    plan, wanted = balancer.plan, wanted or Wanted()
    mine = (
        *flags(plan, shares_ports=shares_ports),
        *tracing.constants(wanted, source.verdicts(), plan.version),
    )
    code = compiled(plan.version, mine)
    every = twin.shared(balancer.every)
    try:
        tables.add_meta(every, describe([plan], 0, (), {}), balancer.fd)
        with Tap(every, {plan.version: code}) as tap:
            tap.ask_for(60)
            yield Traced(tap, wanted.snap)
    finally:
        every.close()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("version", [4, 6])
def test_it_loads_whatever_is_balanced(options: dict[str, Any], version: int) -> None:
    backend, client = {4: ("172.11.0.20", CLIENT), 6: ("2001:db8::20", CLIENT6)}[version]
    if "reservations" in options:
        options = {**options, "reservations": (reservation(client, 5555, 6666),)}
    mode = options.get("mode", Mode.NATIVE)
    interfaces = tuple(Port(f"if{n}", n, bytes(6), mode, redirect=True) for n in (1, 2))
    network = ip_network(f"{client}/{24 if version == 4 else 64}", strict=False)
    wanted = Wanted(clients=network, client_port=5555, sample=3, snap=1500)
    with (
        Loaded(make_request(backend, **options), shares_ports=True, ports=interfaces) as balancer,
        traced(balancer, wanted, shares_ports=True) as twin_of_it,
    ):
        assert verified(twin_of_it.tap.program_fd) < 600_000


@pytest.mark.parametrize("version", [4, 6])
def test_a_packet_is_told_as_it_came_and_as_it_left(version: int) -> None:
    backend, client = {4: ("172.11.0.20", CLIENT), 6: ("2001:db8::20", CLIENT6)}[version]
    with Loaded(make_request(backend)) as balancer, traced(balancer) as twin_of_it:
        request = udp(b"x" * 300, src=client)
        done, (first,) = twin_of_it.run(request)
        assert (first.verdict, first.is_new, first.interface) == ("forward", True, "lo")
        assert first.lengths == (len(request), len(done.packet))
        assert (first.came, first.left) == (request[:128], done.packet[:128])
        _, (again,) = twin_of_it.run(request)
        assert (again.verdict, again.is_new) == ("forward", False)
        _, (answer,) = twin_of_it.run(balancer.answer(balancer.index()))
        assert (answer.verdict, answer.is_new) == ("return", False)
        assert first.at_ns < again.at_ns < answer.at_ns
        assert balancer.run(request).packet == done.packet  # it is the same flow for both
        assert twin_of_it.tap.lost() == 0


@pytest.mark.parametrize("snap", [65, 102])
def test_of_a_packet_as_much_is_told_as_was_asked_for(snap: int) -> None:
    with Loaded() as balancer, traced(balancer, Wanted(snap=snap)) as twin_of_it:
        for packet in (udp(bytes(range(200))), udp(b"short")):
            done, (event,) = twin_of_it.run(packet)
            assert (event.came, event.left) == (packet[:snap], done.packet[:snap])


def test_what_does_not_leave_is_told_as_it_came() -> None:
    with Loaded(make_request("172.11.0.20")) as balancer, traced(balancer) as twin_of_it:
        for packet, verdict in (
            (udp(dst="172.11.0.9"), "pass_not_ours"),
            (udp(src="127.0.0.1"), "drop_martian"),
            (b"\xff" * 14, "pass_not_ours"),
        ):
            _, (event,) = twin_of_it.run(packet)
            assert (event.verdict, event.came, event.left) == (verdict, packet[:128], b"")
            assert event.lengths == (len(packet), 0)


def test_an_error_that_is_translated_is_told() -> None:
    with Loaded(make_request("172.11.0.20")) as balancer, traced(balancer) as twin_of_it:
        sent = balancer.run(udp()).packet
        complaint = icmp_error(sent)
        done, (event,) = twin_of_it.run(complaint)
        assert event.verdict == "return_error"
        assert (event.came, event.left) == (complaint[:128], done.packet[:128])


ONE_CLIENT = Wanted(clients=ip_network(f"{CLIENT}/32"), client_port=5555)


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        (Wanted(frozenset({"drop", "icmp"})), ["drop_martian", "reply_ttl"]),
        (Wanted(frozenset({"new", "pass"})), ["forward", "pass_not_ours"]),
        (Wanted(frozenset({"return", "drop_ttl"})), ["return"]),
        (ONE_CLIENT, ["forward", "reply_ttl", "return", "forward"]),
        (replace(ONE_CLIENT, client_port=1), ["reply_ttl"]),
        (Wanted(clients=ip_network("127.0.0.0/8")), ["drop_martian"]),
        (Wanted(clients=ip_network("2001:db8::/32")), []),
        (Wanted(sample=1 << 30), []),
    ],
)
def test_only_what_was_asked_for_is_told(wanted: Wanted, told: list[str]) -> None:
    with Loaded(make_request("172.11.0.20")) as balancer, traced(balancer, wanted) as twin_of_it:
        events = []
        packets = [
            udp(),
            udp(src="127.0.0.1"),
            udp(ip={"ttl": 1}),
            udp(dst="172.11.0.9", src="10.0.0.1"),
        ]
        for packet in packets:
            events += twin_of_it.run(packet)[1]
        events += twin_of_it.run(balancer.answer(balancer.index()))[1]
        events += twin_of_it.run(udp())[1]
        assert [event.verdict for event in events] == told


def test_nobody_is_told_when_nobody_has_asked_for_long() -> None:
    with Loaded() as balancer, traced(balancer) as twin_of_it:
        twin_of_it.tap.ask_for(-1)
        assert twin_of_it.run(udp())[1] == []
        twin_of_it.tap.ask_for(60)
        assert len(twin_of_it.run(udp())[1]) == 1


def test_what_there_is_no_room_for_is_counted() -> None:
    with Loaded() as balancer, traced(balancer, Wanted(snap=1500)) as twin_of_it:
        packet = udp()
        libbpf.run_program(twin_of_it.tap.program_fd, packet, repeat=9000)
        told = []
        while events := twin_of_it.tap.wait(0):
            told += events
        assert twin_of_it.tap.lost() == 9000 - len(told) > 0


class Interrupted(Ring):
    """One that a Ctrl-C meets with every packet that it takes."""

    def _take(self, context: int | None, data: int, size: int) -> int:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        return super()._take(context, data, size)


def test_a_signal_amid_packets_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tap, "Ring", Interrupted)
    with Loaded() as balancer, traced(balancer) as twin_of_it:
        libbpf.run_program(twin_of_it.tap.program_fd, udp(), repeat=10)
        with pytest.raises(KeyboardInterrupt):
            twin_of_it.tap.wait(0)


def test_a_connection_is_told() -> None:
    request = make_request("172.11.0.20", protocols=(Protocol.TCP,), ports=(PortRange(53, 53),))
    with Loaded(request) as balancer, traced(balancer) as twin_of_it:
        _, (event,) = twin_of_it.run(tcp("S"))
        assert (event.verdict, event.is_new) == ("forward", True)
