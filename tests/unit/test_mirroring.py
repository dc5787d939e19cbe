"""What another balancer has to be told of records, and what not."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from fake_machine import service
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import POOL, plan_for

from xdplb import wire
from xdplb.mirroring import NAMES, Look, Mirror
from xdplb.model import IPV4, IPV6
from xdplb.saved import FLOW
from xdplb.saving import Origin, origin
from xdplb.startup import describe
from xdplb.wire import FlowCode, FlowRecord, Owner

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xdplb.plan import Plan

NOW = 1_000_000
MAC = bytes.fromhex("020000000022")
LIMIT = wire.ticks(120)
PLANS = {
    IPV4: plan_for(service("192.0.2.1", "192.0.2.10", "192.0.2.11")),
    IPV6: plan_for(service("2001:db8::1", "2001:db8::10", "2001:db8::11")),
}
FIRST_PORT = POOL[0].first
ROOM = POOL[0].count
"""Records that are looked at: more than are compared at once."""


class Flow(NamedTuple):
    """One that was told."""

    client: int
    client_port: int
    nat_port: int
    state: str
    idle_ms: int


def meaning(plan: Plan) -> Origin:
    state = describe([plan], 0, (), {})
    return origin(state, state.sides[0], plan.records)


def record(plan: Plan, client: int, port: int = 5555, **owner: Any) -> FlowRecord:
    """A flow of a client toward the first backend, seen just now."""
    first = ip_address("198.51.100.0" if plan.version == IPV4 else "2001:db8:5::")
    found = Owner(NOW, 0, FlowCode.ANSWERED, plan.records[0].generation)._replace(**owner)
    return FlowRecord(found, first + client, port, 53, MAC, 0, bytes(8), 0)


def packed(plan: Plan, records: Mapping[int, FlowRecord]) -> bytes:
    """The records, by their places."""
    size = wire.SIZES[plan.version]["flow"]
    data = bytearray(ROOM * size)
    for at, one in records.items():
        data[at * size : (at + 1) * size] = one.pack()
    return bytes(data)


class Told:
    """A mirror, and what it tells."""

    def __init__(self, version: int = IPV4) -> None:
        self.plan = PLANS[version]
        self.first = self.plan.records[0].slot_first
        self._mirror = Mirror(version)
        self._meaning = meaning(self.plan)

    def __call__(
        self, records: Mapping[int, FlowRecord], now: int = NOW, *, is_due: bool = False
    ) -> list[Flow]:
        look = Look(self.first, packed(self.plan, records), now, is_due)
        data = self._mirror.changes(look, self._meaning)
        unpack = FLOW[self.plan.version].iter_unpack
        return [
            Flow(
                client=client[-1],
                client_port=int.from_bytes(port, "big"),
                nat_port=int.from_bytes(nat_port, "big"),
                state=NAMES[state],
                idle_ms=idle,
            )
            for client, port, _, nat_port, _, idle, state, *_ in unpack(data)
        ]


@pytest.fixture(params=[IPV4, IPV6])
def told(request: pytest.FixtureRequest) -> Told:
    return Told(request.param)


def test_all_is_told_at_first_and_then_only_what_is_new(told: Told) -> None:
    records = {at: record(told.plan, at) for at in (0, 1, 70, 99)}
    first = told(records)
    assert [(flow.client, flow.nat_port, flow.state) for flow in first] == [
        (at, FIRST_PORT + at, "answered") for at in records
    ]
    assert told(records) == []
    records[80] = record(told.plan, 80)
    assert [flow.client for flow in told(records)] == [80]


@pytest.mark.parametrize(
    "change", [{"state": FlowCode.UNREPLIED}, {"state": FlowCode.TCP_CLOSING}], ids=str
)
def test_another_state_is_told_and_ends_nothing(told: Told, change: dict[str, Any]) -> None:
    told({9: record(told.plan, 9)})
    (flow,) = told({9: record(told.plan, 9, **change)})
    assert (flow.client, flow.state) == (9, change["state"].name.lower())


@pytest.mark.parametrize("owner", [{}, {"state": FlowCode.UNREPLIED}], ids=str)
def test_another_flow_in_its_place_ends_the_first(told: Told, owner: dict[str, Any]) -> None:
    told({9: record(told.plan, 9)})
    for client, port in ((10, 5555), (10, 5556)):
        ended, new = told({9: record(told.plan, client, port, **owner)})
        assert (ended.state, ended.nat_port, new.nat_port) == (
            "ended",
            FIRST_PORT + 9,
            FIRST_PORT + 9,
        )
        assert (new.client, new.client_port) == (client, port)


@pytest.mark.parametrize(
    "owner",
    [{"state": FlowCode.FREE}, {"state": FlowCode.CLAIMED}, {"generation": 0x80}, {"backend": 7}],
    ids=str,
)
def test_a_flow_that_is_no_more_ends(told: Told, owner: dict[str, Any]) -> None:
    told({9: record(told.plan, 9)})
    (ended,) = told({9: record(told.plan, 9, **owner)})
    assert (ended.client, ended.state) == (9, "ended")
    assert told({9: record(told.plan, 9, **owner)}) == []


def test_a_claim_and_a_reservation_are_nothing_to_tell(told: Told) -> None:
    for state in (FlowCode.CLAIMED, FlowCode.RESERVED):
        assert told({9: record(told.plan, 9, state=state)}) == []
    assert [flow.state for flow in told({9: record(told.plan, 9)})] == ["answered"]


@pytest.mark.parametrize(
    ("seen", "now", "is_told"),
    [
        (NOW + 1, NOW + 1, False),
        (NOW + LIMIT // 4, NOW + LIMIT // 4, False),
        (NOW + LIMIT // 4 + 1, NOW + LIMIT // 4 + 1, True),
        (NOW + 1, NOW + 1 + LIMIT // 8 - 2, False),
        (NOW + 1, NOW + 1 + LIMIT // 8, True),
        (NOW, NOW + LIMIT // 2, False),
    ],
)
def test_a_flow_that_only_goes_on_is_told_when_that_matters(
    told: Told,
    seen: int,
    now: int,
    is_told: bool,  # noqa: FBT001 - a parameter
) -> None:
    told({9: record(told.plan, 9)})
    again = {9: record(told.plan, 9, seen=seen)}
    assert told(again, now) == [], "its turn has not come"
    found = told(again, now, is_due=True)
    assert [flow.client for flow in found] == [9] * is_told
    if is_told:
        assert abs(found[0].idle_ms - (now - seen) * wire.TICK_NS / 1e6) < 200
        assert told(again, now, is_due=True) == []


SLOTS = st.integers(0, 15)
STEPS = st.lists(
    st.tuples(SLOTS, st.integers(0, 5), st.sampled_from([0, *FlowCode]), st.booleans()),
    min_size=1,
    max_size=6,
)


@settings(deadline=None)
@given(st.lists(STEPS, max_size=8))
def test_who_is_told_all_knows_all_in_the_end(
    turns: list[list[tuple[int, int, int, bool]]],
) -> None:
    """A client has one flow; another one of its ends where it is told of the new one."""
    told = Told()
    records: dict[int, FlowRecord] = {}
    known: dict[int, tuple[int, str]] = {}
    for turn in turns:
        for slot, client, state, is_other in turn:
            code = FlowCode(state)
            generation = told.plan.records[0].generation ^ (0x80 if is_other else 0)
            records[6 * slot] = record(told.plan, client, state=code, generation=generation)
        for flow in told(records):
            if flow.state == "ended":
                if known.get(flow.nat_port, (None,))[0] == flow.client:
                    del known[flow.nat_port]
            else:
                known[flow.nat_port] = (flow.client, flow.state)
        whole = {flow.nat_port: (flow.client, flow.state) for flow in Told()(records)}
        assert known == whole
