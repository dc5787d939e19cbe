"""What the program alone costs: nanoseconds a packet beyond a bare ``return XDP_TX``.

A small program writes the next packet's headers and tail-calls the program under test, so
that every run meets a fresh packet. The same with a bare program is subtracted.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final

from bench.figures import Figure
from bench.frames import SERVICE, SERVICE_PORT, Item, Template, mac_bytes, requests
from bench.programs import Own, Source, one_processor
from bpf_harness import Loaded
from packets import BACKEND_MAC, CLIENT_MAC, OUR_MAC

from xdplb import wire
from xdplb.kernel import libbpf
from xdplb.model import IPV4, Backend, PortRange
from xdplb.request import simple_request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from bench.figures import Report

SECTION: Final = "the program alone, over a bare XDP_TX program"
AGAINST: Final = "bare"
PORTS: Final = PortRange(1024, 65535)
NEW_FLOWS: Final = 4096
_STRANGERS: Final = 1 << 22
_TARGETS: Final = {1: 30.0, 1024: 40.0, 32768: 90.0, 262144: 190.0}
_NEW_TARGET: Final = 400.0
_CHECKS: Final = bytes.fromhex("13571357")
_MIN_FLOWS: Final = 262_144
_FULL: Final = 0.98
_NEARLY_FULL: Final = 0.9
_SIZES: Final = wire.SIZES[IPV4]


@dataclass(frozen=True, slots=True)
class Size:
    """How much is measured."""

    flows: Sequence[int]
    backends: Sequence[int]
    rounds: int
    runs: int


FULL: Final = Size((1, 1024, 32768, 262_144, 1_000_000), (2, 16, 256), 9, 150_000)
QUICK: Final = Size((1, 1024, 32768, 262_144), (16,), 7, 60_000)


FROM_CLIENT: Final = Template(mac_bytes(CLIENT_MAC), mac_bytes(OUR_MAC))
FROM_BACKEND: Final = Template(mac_bytes(BACKEND_MAC), mac_bytes(OUR_MAC))


def balancer(backends: int, flows: int) -> Loaded:
    """The program, with room for twice as many flows as are wanted."""
    addresses = [IPv4Address("172.12.0.0") + number + 1 for number in range(backends)]
    request = simple_request(
        ("lo",),
        tuple(Backend(address) for address in addresses),
        nat_ports=(PORTS,),
        max_flows=max(_MIN_FLOWS, 2 * flows),
    )
    return Loaded(request)


class Bench:
    """The programs that make packets and do nothing, and how often to ask them."""

    def __init__(self, driver: Source, nothing: Own, size: Size) -> None:
        """Bring them together."""
        self.driver = driver
        self.nothing = nothing
        self.size = size

    def cost(
        self,
        subjects: Sequence[int],
        template: Template,
        items: Sequence[Item] | bytes,
        runs: int | None = None,
        after: Callable[[], None] | None = None,
    ) -> tuple[list[float], list[list[float]]]:
        """Nanoseconds a packet: of the bare program, and of each subject beyond that.

        Args:
            subjects: The programs under test, which take turns with the bare one.
            template: What the packets have in common.
            items: The packets.
            runs: How many a round.
            after: To be done after each round, not timed.
        """
        runs = runs or self.size.runs
        self.driver.give(template, items)
        bare: list[float] = []
        beyond: list[list[float]] = [[] for _ in subjects]
        for number in range(self.size.rounds + 1):
            nothing, *others = (self._time(fd, runs) for fd in (self.nothing.fd, *subjects))
            if after is not None:
                after()
            if number:  # the first round fills the caches
                bare.append(nothing)
                for values, other in zip(beyond, others, strict=True):
                    values.append(other - nothing)
        return bare, beyond

    def _time(self, subject: int, runs: int) -> float:
        self.driver.aim(subject)
        return float(self.driver.drive(runs))


class Flows:
    """A balancer with live flows, and the packets that belong to them."""

    def __init__(self, loaded: Loaded, driver: Source, count: int) -> None:
        """Open them, each by its first packet, as clients do."""
        self.loaded = loaded
        driver.aim(loaded.fd)
        opened = 0
        entries: list[tuple[bytes, bytes]] = []
        while len(entries) < count:
            more = requests(opened, max(count - len(entries), min(count, 1000)))
            driver.give(FROM_CLIENT, more)
            driver.drive(len(more))
            opened += len(more)
            entries = self._entries()
        random.Random(2).shuffle(entries)
        self._live = entries[:count]

    def _entries(self) -> list[tuple[bytes, bytes]]:
        sizes = _SIZES["client_key"], _SIZES["client_value"]
        whole = libbpf.lookup_all(
            self.loaded.maps["client_port"], *sizes, self.loaded.plan.capacity
        )
        keys, values = (
            [data[at : at + size] for at in range(0, len(data), size)]
            for data, size in zip(whole, sizes, strict=True)
        )
        return list(zip(keys, values, strict=True))

    def forward(self) -> bytes:
        """A packet from each client, in random order."""
        return b"".join(key[:12] + _CHECKS for key, _ in self._live)

    def back(self) -> bytes:
        """An answer to each client, in random order."""
        addresses = [record.address.packed for record in self.loaded.plan.records]
        port = SERVICE_PORT.to_bytes(2, "big")
        return b"".join(
            addresses[wire.U16.unpack_from(value, 2)[0]]
            + SERVICE.packed
            + port
            + value[:2]
            + _CHECKS
            for _, value in self._live
        )


class Strangers:
    """Clients that nobody knows, and their disappearance."""

    def __init__(self, loaded: Loaded) -> None:
        """Think of them."""
        self._loaded = loaded
        self.items = requests(_STRANGERS, NEW_FLOWS)
        self._keys = [
            wire.ClientKey(
                item.source, item.source_port, item.destination, item.destination_port
            ).pack()
            for item in self.items
        ]
        self.opened = 0

    def forget(self) -> None:
        """Take their flows out of both maps."""
        maps, plan = self._loaded.maps, self._loaded.plan
        nothing = bytes(_SIZES["flow"])
        for key in self._keys:
            data = libbpf.lookup(maps["client_port"], key, _SIZES["client_value"])
            if data is None:
                continue
            self.opened += 1
            value = wire.ClientValue.unpack(data)
            libbpf.delete(maps["client_port"], key)
            place = plan.records[value.backend].slot_first + value.nat_port - PORTS.first
            libbpf.update(maps["reverse_lookup"], wire.U32.pack(place), nothing)


def measure(report: Report, *, quick: bool) -> None:
    """Every row of this section."""
    size = QUICK if quick else FULL
    with Source("drive") as driver, Own("bare") as nothing, one_processor():
        bench = Bench(driver, nothing, size)
        for backends in size.backends:
            for flows in size.flows:
                if flows > _FULL * backends * PORTS.count:
                    report.note(
                        f"{flows:,} flows toward {backends} backends are not measured: "
                        f"they have {backends * PORTS.count:,} ports"
                    )
                    continue
                with balancer(backends, flows) as loaded:
                    _live(report, bench, loaded, backends, flows)
        with balancer(2, 1) as loaded:
            _partial(report, bench, loaded)


Row = tuple[
    str,
    Template,
    "Sequence[Item] | bytes",
    int | None,
    "Callable[[], None] | None",
    float | None,
]
"""What a row is called, its packets, how many a round, what follows a round, its target."""


def _live(report: Report, bench: Bench, loaded: Loaded, backends: int, flows: int) -> None:
    live = Flows(loaded, bench.driver, flows)
    strangers = Strangers(loaded)
    place = f"{flows:,} {'flow' if flows == 1 else 'flows'}, {backends} backends"
    elsewhere = requests(0, min(flows, 1 << 16), IPv4Address("172.11.0.9"))
    target = _TARGETS.get(flows)
    before = loaded.verdicts()
    rows: list[Row] = [
        ("return", FROM_BACKEND, live.back(), None, None, target),
        ("pass, not ours", FROM_CLIENT, elsewhere, None, None, None),
    ]
    if flows <= _NEARLY_FULL * backends * PORTS.count:
        new = (FROM_CLIENT, strangers.items, NEW_FLOWS, strangers.forget, _NEW_TARGET)
        rows.append(("new flow", *new))
    else:
        report.note(f"no new flows at {place}: nearly all ports are taken")
    with Own("probe", client_port=loaded.maps["client_port"]) as probe:
        both = [loaded.fd, probe.fd]
        bare, (ours, lookup) = bench.cost(both, FROM_CLIENT, live.forward())
    report.add(
        Figure(SECTION, f"forward: {place}", "ns", ours, bare, AGAINST, target),
        Figure(SECTION, f"  one lookup in a hash map: {place}", "ns", lookup, bare, AGAINST),
    )
    for name, template, items, runs, after, bound in rows:
        bare, (ours,) = bench.cost([loaded.fd], template, items, runs, after)
        report.add(Figure(SECTION, f"{name}: {place}", "ns", ours, bare, AGAINST, bound))
    _check(loaded, before, bench.size, strangers)


def _check(loaded: Loaded, before: dict[str, int], size: Size, strangers: Strangers) -> None:
    """Nothing was measured but what the rows say."""
    rounds = size.rounds + 1
    counts = {name: count - before[name] for name, count in loaded.verdicts().items()}
    expected = {
        "forward": rounds * size.runs + strangers.opened,
        "return": rounds * size.runs,
        "pass_not_ours": rounds * size.runs,
    }
    got = {name: counts[name] for name in expected}
    if got != expected or strangers.opened not in {0, rounds * NEW_FLOWS}:
        raise RuntimeError(f"the packets met other verdicts than they should: {counts}")


def _partial(report: Report, bench: Bench, loaded: Loaded) -> None:
    for payload in (64, 512, 1472):
        template = replace(FROM_CLIENT, payload=payload)
        items = [item.summed(template, partial=True) for item in requests(0, 1)]
        bare, (ours,) = bench.cost([loaded.fd], template, items)
        name = f"forward, partial checksum over {payload} bytes: 1 flow"
        report.add(Figure(SECTION, name, "ns", ours, bare, AGAINST))
