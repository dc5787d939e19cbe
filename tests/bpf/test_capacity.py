"""What ``xdplb capacity`` predicts, and what the program then does: each figure was said before."""

from __future__ import annotations

import os
import random
import struct
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from bench.frames import Template, mac_bytes, requests
from bench.programs import Source
from bpf_harness import Loaded, make_request
from packets import CLIENT_MAC, OUR_MAC, SERVICE, udp

from xdplb.capacity.load import Load
from xdplb.capacity.sizing import Sizing, size
from xdplb.capacity.stock import Stock, memory, safe
from xdplb.kernel import clock
from xdplb.kernel.memory import WRITE, mapped
from xdplb.model import Backend, PortRange, Timeouts
from xdplb.ports import NatPool
from xdplb.request import Request, Service
from xdplb.wire import TICKS_PER_S, FlowCode

if TYPE_CHECKING:
    from collections.abc import Iterator

BACKENDS: Final = ("172.11.0.20", "172.11.0.21", "172.11.0.22", "172.11.0.23")
BACKEND: Final = {4: "172.11.0.20", 6: "2001:db8::20"}
POOL: Final = PortRange(2000, 2511)
NEVER_S: Final = 86_400
MAPS: Final = ("reverse_lookup", "client_port", "client_flows")
PAGES: Final = 16_384
"""Bytes that the kernel takes for a map beside its entries."""


def balancer_of(stock: Stock, sizing: Sizing, unreplied_s: int, hash_key: int) -> Loaded:
    """A balancer as it was reckoned with, but for a limit on clients; it has a hash of its own."""
    nat = tuple(ip_address(f"172.11.0.{2 + number}") for number in range(sizing.nat_addresses))
    service = Service(
        tuple(Backend(ip_address(text)) for text in BACKENDS[: sizing.backends]),
        address=ip_address(SERVICE),
        nat_addresses=nat if sizing.nat_addresses > 1 else (),
        timeouts=Timeouts(unreplied=unreplied_s),
    )
    request = Request(
        ("lo",),
        (service,),
        max_flows=sizing.max_flows,
        nat_ports=stock.pool.ranges,
        max_client_flows=0,
    )
    return Loaded(request, hash_keys=(hash_key, 7))


def strangers(seed: int) -> Iterator[bytes]:
    """Datagrams of clients that nobody has seen, each from an address of its own."""
    dice = random.Random(seed)
    for number in dice.sample(range(1 << 24), 1 << 14):
        yield udp(src=f"{IPv4Address('10.0.0.0') + number}", sport=1024 + number % 60_000)


@pytest.mark.parametrize(
    ("backends", "nat_addresses", "max_flows"),
    [(1, 1, None), (2, 1, None), (2, 2, None), (4, 1, None), (3, 1, 2 * 512 + 200), (4, 1, 1024)],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_the_first_new_flow_is_refused_when_it_was_predicted(
    backends: int, nat_addresses: int, max_flows: int | None, seed: int
) -> None:
    """At one flow a second that never ends, the seconds until then are a number of flows."""
    stock = Stock(
        NatPool((POOL,)),
        backends=backends,
        nat_addresses=nat_addresses,
        balancers=1,
        max_flows=max_flows or backends * nat_addresses * POOL.count,
    )
    sizing = size(Load(rate=1, odd=1, timeouts=Timeouts(unreplied=NEVER_S)), stock)
    predicted = sizing.refusal
    assert predicted is not None
    assert predicted.last_s is not None
    with balancer_of(stock, sizing, NEVER_S, seed) as balancer:
        taken = 0
        for packet in strangers(seed):
            verdict = balancer.run(packet).verdict
            if verdict != "forward":
                break
            taken += 1
        assert verdict == "drop_no_port"
        assert predicted.first_s <= taken <= predicted.last_s


# Flows that come and go


TIMEOUT_S: Final = 10
STEP_TICKS: Final = 2
STEPS: Final = round(6 * TIMEOUT_S * TICKS_PER_S / STEP_TICKS)
_SEEN: Final = struct.Struct("=I")
_RECORD: Final = 32


class Clock:
    """Time that passes only when it is told to: records grow old by it, and by nothing else."""

    def __init__(self, balancer: Loaded) -> None:
        """Begin now."""
        self._balancer = balancer
        self._real = clock.ticks()

    def pass_ticks(self, ticks: int) -> None:
        """Let so many pass, less those that have passed by themselves."""
        now = clock.ticks()
        more = ticks - (now - self._real)
        self._real = now
        size = self._balancer.plan.capacity * _RECORD
        with mapped(self._balancer.maps["reverse_lookup"], size, WRITE) as memory_of:
            for at in range(0, size, _RECORD):
                (seen,) = _SEEN.unpack_from(memory_of, at)
                if memory_of[at + 6] != FlowCode.FREE:
                    _SEEN.pack_into(memory_of, at, (seen - more) & 0xFFFFFFFF)


def two_backends(rate: float) -> Sizing:
    """A load of flows that nobody answers, on two backends of 512 ports each."""
    pool = NatPool((POOL,))
    stock = Stock(pool, backends=2, nat_addresses=1, balancers=1, max_flows=2 * pool.size)
    return size(Load(rate=rate, odd=1, timeouts=Timeouts(unreplied=TIMEOUT_S)), stock)


def refused(sizing: Sizing, seed: int) -> float:
    """The part of new flows that the program refuses, when each place has been full once."""
    dice, per_step = random.Random(seed), sizing.load.rate * STEP_TICKS / TICKS_PER_S
    counted = {"forward": 0, "drop_no_port": 0}
    with balancer_of(sizing.stock, sizing, TIMEOUT_S, seed) as balancer:
        time, packets, due = Clock(balancer), strangers(seed), 0.0
        for step in range(STEPS):
            while due < 1:
                due += dice.expovariate(per_step)
                verdict = balancer.run(next(packets)).verdict
                counted[verdict] += step * STEP_TICKS > 2 * TIMEOUT_S * TICKS_PER_S
            due -= 1
            time.pass_ticks(STEP_TICKS)
    return counted["drop_no_port"] / sum(counted.values())


def test_a_load_that_fits_just_so_goes_on_without_a_refusal() -> None:
    rate = max(rate for rate in range(1, 200) if two_backends(rate).fits)
    assert refused(two_backends(rate), seed=1) == 0


@pytest.mark.parametrize("beyond", [1.1, 1.5])
def test_of_a_load_beyond_all_ports_as_many_are_refused_as_predicted(beyond: float) -> None:
    sizing = two_backends(beyond * 2 * POOL.count / TIMEOUT_S)
    predicted = sizing.refusal
    assert predicted is not None
    assert predicted.part == pytest.approx(1 - 1 / beyond)
    assert predicted.part * 0.9 <= refused(sizing, seed=1) <= predicted.part + 0.1


# Larger pools


@pytest.mark.parametrize("ports", [128, 256, 1024, 4096, 36_280, 64_512])
def test_hardly_a_search_fails_before_the_safe_part_of_a_pool_is_in_use(ports: int) -> None:
    """One does in one of some thousand fills: chance has the flows in rows by then."""
    pool = (PortRange(1024, 1023 + ports),)
    request = make_request(
        BACKEND[4],
        max_flows=ports,
        max_client_flows=0,
        nat_ports=pool,
        timeouts=Timeouts(unreplied=NEVER_S),
    )
    with Loaded(request) as balancer, Source("drive") as source:
        source.aim(balancer.fd)
        source.give(Template(mac_bytes(CLIENT_MAC), mac_bytes(OUR_MAC)), requests(0, 2 * ports))
        source.drive(int(safe(ports)))
        assert balancer.verdicts()["drop_no_port"] <= 1
        source.drive(ports - int(safe(ports)) + 2)
        assert balancer.verdicts()["drop_no_port"] > 1


# Memory


COUNTS_MEMORY = (6, 4)
"""Linux; an older one says what keys and values of a map take, and not what the map does."""


@pytest.mark.skipif(
    tuple(map(int, os.uname().release.split(".")[:2])) < COUNTS_MEMORY,
    reason="this kernel does not say what a map takes",
)
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flows", [1000, 100_000, 262_144, 300_000])
def test_the_flow_table_takes_as_much_memory_as_predicted(version: int, flows: int) -> None:
    with Loaded(make_request(BACKEND[version], max_flows=flows)) as balancer:
        taken = sum(memory_of(balancer.maps[name]) for name in MAPS)
    assert 0 <= taken - memory(flows, version) <= len(MAPS) * PAGES


def memory_of(fd: int) -> int:
    """What the kernel says that a map takes, in bytes."""
    info = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return int(info.split("memlock:")[1].split()[0])
