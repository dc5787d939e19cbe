"""Saved flows and records: what is saved, where it goes, and why it does not."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
from fake_machine import service
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import plan_for

from xdplb import wire
from xdplb.errors import InvalidValueError
from xdplb.facts import Running
from xdplb.model import IPV4, IPV6, PortRange, Protocol, Timeouts
from xdplb.restoring import Destination, Moment, is_free
from xdplb.saved import FLOW, Part, Saved, Skip
from xdplb.saving import STATE_NAMES, STATES, origin, pick
from xdplb.startup import describe
from xdplb.state import AttachedTo
from xdplb.wire import BackendCode, FlowCode, FlowRecord, Owner

if TYPE_CHECKING:
    from xdplb.plan import Plan
    from xdplb.request import Service

NOW = 1_000_000
PLACES = {int(code): place for place, code in enumerate(STATES)}
A, B, N1, N2 = "192.0.2.1", "192.0.2.2", "192.0.2.101", "192.0.2.102"
TEN, ELEVEN = "192.0.2.10", "192.0.2.11"
MAC = bytes.fromhex("020000000022")
TAGS = bytes.fromhex("8100000500000000")


def running(plan: Plan, *interfaces: str) -> Running:
    """A balancer that a plan has made, on ``eth0`` or on these interfaces."""
    state = describe([plan], 0, (), {})
    mode = state.interfaces[0].mode
    attached = tuple(AttachedTo(name, 2 + at, mode) for at, name in enumerate(interfaces))
    return Running(
        7, "", replace(state, interfaces=attached or state.interfaces), {plan.version: plan.records}
    )


def record(plan: Plan, number: int = 0, **fields: Any) -> FlowRecord:
    """A flow toward backend ``number``, five seconds idle."""
    backend = plan.records[number]
    owner = Owner(NOW - 75, number, FlowCode.ANSWERED, backend.generation)
    client = ip_address("198.51.100.7" if plan.version == IPV4 else "2001:db8:5::7")
    owner = owner._replace(**fields.pop("owner", {}))
    return FlowRecord(owner, client, 5555, 53, MAC, 0, TAGS, backend.service)._replace(**fields)


def saved_of(on: Running, *flows: tuple[int, FlowRecord], now: int = NOW) -> Saved:
    """What is saved of a balancer that has these records at these indexes."""
    (side,) = on.state.sides
    size = wire.SIZES[side.version]["flow"]
    data = bytearray(size * on.state.capacity)
    for index, flow in flows:
        data[index * size : (index + 1) * size] = flow.pack()
    meaning = origin(on.state, side, on.records[side.version])
    half = on.state.capacity // 2
    first = pick(bytes(data[: half * size]), count(), meaning, now, PLACES)
    second = pick(bytes(data[half * size :]), count(half), meaning, now, PLACES)
    part = Part(side.version, meaning.lanes, memoryview(first + second))
    names = tuple(item.name for item in on.state.interfaces)
    return Saved(0.0, (*names, ""), STATE_NAMES, (part,))


def carried(saved: Saved, on: Running, away_s: float = 0.0, now: int = NOW) -> dict[Skip, int]:
    """Why flows are not restored."""
    return dict(+_placed(saved, on, away_s, now).skipped)


def _placed(saved: Saved, on: Running, away_s: float = 0.0, now: int = NOW) -> Destination:
    names = [item.name for item in on.state.interfaces]
    destination = Destination(on, names, saved, saved.parts[0], Moment(now, away_s))
    destination.place(0, saved.count, now)
    return destination


def records(saved: Saved, on: Running, away_s: float = 0.0, now: int = NOW) -> dict[int, Any]:
    """The records that are restored, with key and value of the index."""
    names = [item.name for item in on.state.interfaces]
    destination = Destination(on, names, saved, saved.parts[0], Moment(now, away_s))
    batch = destination.place(0, saved.count, now)
    found = {}
    for at, index in enumerate(batch.indexes):
        claimed = FlowRecord.unpack(batch.flows[at])
        assert claimed.owner.state is FlowCode.CLAIMED
        flow = claimed._replace(owner=Owner.of(batch.owners[at]))
        key = wire.ClientKey.unpack(batch.keys[at])
        found[index] = (flow, key, wire.ClientValue.unpack(batch.values[at]))
        assert batch.clients[at] == flow.client.packed
    return found


def one(*services: Service) -> Plan:
    return plan_for(*services or (service(A, TEN, ELEVEN),))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.integers(0, 1), st.sampled_from(STATES[:2])),
        unique_by=lambda item: item[:2],
    ),
    st.integers(0, 400),
)
def test_flows_come_back_as_they_were_wherever_their_backends_are_now(
    places: list[tuple[int, int, FlowCode]], idle: int
) -> None:
    old = running(one(service(A, TEN, ELEVEN)))
    new = running(one(service(B, TEN), service(A, "192.0.2.12", ELEVEN, TEN)))
    flows = {}
    for offset, number, state in places:
        owner = {"seen": NOW - idle, "state": state}
        flow = record(one(), number, owner=owner, client_port=1000 + 2 * offset + number)
        flows[old.records[IPV4][number].slot_first + offset] = flow
    found = records(saved_of(old, *flows.items()), new, now=5000)
    assert len(found) == len(flows)
    by_client = {
        flow.client_port: (index, flow, key, value) for index, (flow, key, value) in found.items()
    }
    for place, before in flows.items():
        index, after, key, value = by_client[before.client_port]
        then, now = old.records[IPV4][before.owner.backend], new.records[IPV4][value.backend]
        assert (then.address, place - then.slot_first) == (now.address, index - now.slot_first)
        assert value.nat_port == 2000 + place - then.slot_first
        assert after.owner.backend == value.backend
        assert (5000 - after.owner.seen & 0xFFFFFFFF, after.owner.state) == (
            idle,
            before.owner.state,
        )
        assert after[1:7] == before[1:7]
        assert key == wire.ClientKey(
            before.client, before.client_port, ip_address(A), 53, after.service
        )
        assert after.service == now.service


def test_ipv6_flows_and_connections_come_back() -> None:
    tcp = service("2001:db8::1", "2001:db8::10", protocol=Protocol.TCP)
    old, new = running(one(tcp)), running(one(service("2001:db8::1", "2001:db8::11"), tcp))
    flows = {
        at: record(one(tcp), owner={"state": code}, client_port=1000 + at)
        for at, code in enumerate(STATES[2:])
    }
    found = records(saved_of(old, *flows.items()), new)
    states = {flow.client_port: flow.owner.state for flow, _, _ in found.values()}
    assert states == {1000 + at: code for at, code in enumerate(STATES[2:])}
    assert {key.protocol for _, key, _ in found.values()} == {Protocol.TCP}


@pytest.mark.parametrize(
    "owner",
    [
        {"state": FlowCode.FREE},
        {"state": FlowCode.CLAIMED},
        {"state": FlowCode.RESERVED},
        {"state": FlowCode.UNREPLIED, "seen": NOW - 31 * 15},
        {"seen": NOW - 1800},
        {"generation": 9},
        {"backend": 5},
        {"backend": 1},
    ],
)
def test_what_is_no_live_flow_is_not_saved(owner: dict[str, Any]) -> None:
    plan = one()
    assert saved_of(running(plan), (3, record(plan, owner=owner))).count == 0
    assert saved_of(running(plan), (3, record(plan))).count == 1


def test_flows_of_a_backend_that_is_gone_are_not_saved() -> None:
    plan = one()
    gone = plan.records[0]._replace(state=BackendCode.UNUSED)
    on = replace(running(plan), records={IPV4: (gone, *plan.records[1:])})
    assert saved_of(on, (3, record(plan))).count == 0


def test_a_flow_that_another_processor_saw_later_than_now_is_not_idle() -> None:
    plan = one()
    saved = saved_of(running(plan), (3, record(plan, owner={"seen": NOW + 2})))
    ((flow, _, _),) = records(saved, running(plan)).values()
    assert flow.owner.seen == NOW


def test_the_clock_of_ticks_may_have_wrapped() -> None:
    plan = one()
    saved = saved_of(running(plan), (3, record(plan, owner={"seen": 2**32 - 10})), now=65)
    ((flow, _, _),) = records(saved, running(plan), now=20).values()
    assert flow.owner.seen == 2**32 - 55


@pytest.mark.parametrize(("away_s", "expected"), [(114, 0), (116, 1), (-9999, 0)])
def test_time_away_counts_unless_the_clock_makes_no_sense(away_s: float, expected: int) -> None:
    plan = one()
    saved = saved_of(running(plan), (3, record(plan)))
    assert carried(saved, running(plan), away_s).get(Skip.TIMED_OUT, 0) == expected


def test_the_timeouts_are_those_of_the_new_balancer() -> None:
    plan = one()
    saved = saved_of(running(plan), (3, record(plan)))
    patient = running(one(service(A, TEN, timeouts=Timeouts(1, 4, 1, 1))))
    assert carried(saved, patient) == {Skip.TIMED_OUT: 1}


@pytest.mark.parametrize(
    ("services", "reason"),
    [
        ([service(B, TEN)], Skip.SERVICE_GONE),
        ([service(A, TEN, ports=(54,))], Skip.SERVICE_GONE),
        ([service(A, TEN, protocol=Protocol.TCP)], Skip.SERVICE_GONE),
        ([service(A, ELEVEN)], Skip.BACKEND_GONE),
        ([service(A, TEN, nat_addresses=(ip_address(N1),))], Skip.NAT_ADDRESS_GONE),
    ],
)
def test_what_is_gone_is_counted(services: list[Service], reason: Skip) -> None:
    plan = one()
    saved = saved_of(running(plan), (3, record(plan)))
    assert carried(saved, running(one(*services))) == {reason: 1}
    assert carried(saved, running(plan)) == {}


def test_each_nat_address_keeps_its_flows() -> None:
    lanes = tuple(ip_address(item) for item in (N1, N2))
    old = one(service(A, TEN, nat_addresses=lanes))
    new = one(service(A, TEN, nat_addresses=lanes[::-1]))
    flows = [
        (old.records[number].slot_first + 3, record(old, number, client_port=1000 + number))
        for number in (0, 1)
    ]
    found = records(saved_of(running(old), *flows), running(new))
    ways = {
        flow.client_port: new.addresses[new.records[value.backend].local]
        for flow, _, value in found.values()
    }
    assert ways == {1000 + number: old.addresses[old.records[number].local] for number in (0, 1)}


def test_a_port_that_is_no_longer_to_be_had_is_counted() -> None:
    plan = one()
    saved = saved_of(running(plan), (3, record(plan)), (90, record(plan, client_port=6)))
    fewer = running(plan_for(service(A, TEN, ELEVEN), max_flows=50))
    assert carried(saved, fewer) == {Skip.PORT_GONE: 1}
    on = running(plan)
    others = replace(on, state=replace(on.state, nat_ports=(PortRange(3000, 3099),)))
    assert carried(saved, others) == {Skip.PORT_GONE: 2}


def test_an_interface_is_found_by_its_name_or_is_the_only_one() -> None:
    plan = one()
    two = running(plan, "eth0", "eth1")
    saved = saved_of(two, (3, record(plan, interface=1)), (4, record(plan, interface=9)))
    for names, slots, skipped in (
        (("eth1", "eth0"), [0], 1),
        (("eth5",), [0, 0], 0),
        (("eth5", "eth6"), [], 2),
    ):
        on = running(plan, *names)
        assert [flow.interface for flow, _, _ in records(saved, on).values()] == slots
        assert carried(saved, on).get(Skip.INTERFACE_GONE, 0) == skipped


def test_a_lane_that_is_not_in_the_file_is_a_backend_that_is_gone() -> None:
    plan = one()
    saved = saved_of(running(plan), (3, record(plan)))
    (part,) = saved.parts
    bare = replace(saved, parts=(replace(part, lanes=()),))
    assert carried(bare, running(plan)) == {Skip.BACKEND_GONE: 1}


def test_a_state_that_nobody_knows_is_refused() -> None:
    plan = one()
    saved = replace(saved_of(running(plan)), states=("quantum",))
    with pytest.raises(InvalidValueError, match="the state 'quantum'"):
        carried(saved, running(plan))


@pytest.mark.parametrize(
    ("state", "idle", "expected"),
    [
        (FlowCode.FREE, 0, True),
        (FlowCode.RESERVED, 10**6, False),
        (FlowCode.CLAIMED, 5, False),
        (FlowCode.UNREPLIED, 10, False),
        (FlowCode.UNREPLIED, 11, True),
        (FlowCode.ANSWERED, 20, False),
        (FlowCode.ANSWERED, 21, True),
        (FlowCode.ANSWERED, -1, False),
    ],
)
def test_a_record_is_free_when_its_flow_has_timed_out(
    state: FlowCode, idle: int, *, expected: bool
) -> None:
    limits = {4 << 8 | FlowCode.CLAIMED: 10, 4 << 8 | FlowCode.UNREPLIED: 10}
    limits[4 << 8 | FlowCode.ANSWERED] = 20
    word = Owner(NOW - idle, 3, state, 1).word()
    assert is_free(word, 4, limits, NOW) is expected


def test_a_flow_of_either_version_is_as_long_as_is_said() -> None:
    for version, plan in (
        (IPV4, one()),
        (IPV6, one(service("2001:db8::1", "2001:db8::10"))),
    ):
        saved = saved_of(running(plan), (3, record(plan)))
        assert len(saved.parts[0].flows) == FLOW[version].size
