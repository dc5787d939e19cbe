"""What a balancer knows of itself, when it is not what this version wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fake_machine import FakeMachine, request, service
from hypothesis import given, settings
from hypothesis import strategies as st

from xdplb import wire
from xdplb.balancer import Balancer
from xdplb.errors import TableError
from xdplb.model import (
    ALL_PORTS,
    IPV4,
    IPV6,
    Backend,
    BackendState,
    Endpoint,
    Hash,
    Mode,
    OnDown,
    PortRange,
    Protocol,
    Reservation,
    Timeouts,
)
from xdplb.request import Request, Service
from xdplb.state import (
    FORMAT,
    AttachedTo,
    Installed,
    Restore,
    Side,
    State,
    interface_indexes,
    restores,
)

if TYPE_CHECKING:
    from xdplb.model import Address

SERVICES = (ip_address("192.0.2.2"), ip_address("2001:db8::2"))
RESERVED = (
    Reservation(Endpoint(ip_address("198.51.100.7"), 5), 6666),
    Reservation(Endpoint(ip_address("2001:db8:7::7"), 5), 6667),
)


def _state(*backends: str, services: int = 2) -> State:
    machine = FakeMachine()
    reserved = RESERVED if services == 2 else ()
    Balancer(machine).up(request(*backends, services=SERVICES[:services], reservations=reserved))
    return machine.loaded[0][1]


def test_a_state_of_both_ip_versions_survives_as_text() -> None:
    state = _state("192.0.2.10", "2001:db8::10")
    assert [item.reservations for item in state.services] == [RESERVED[:1], RESERVED[1:]]
    assert State.from_bytes(state.to_bytes() + b"\0\0\0") == state
    assert interface_indexes(state.to_bytes()) == [2]


def test_a_state_survives_as_text() -> None:
    machine = FakeMachine()
    Balancer(machine).up(request(reservations=RESERVED[:1]))
    state = machine.loaded[0][1]
    assert State.from_bytes(state.to_bytes() + b"\0\0\0") == state


def test_what_down_puts_back_survives_as_text() -> None:
    items = (
        Restore("gro", 7, 2),
        Restore("neighbour", 7, 3, "192.0.2.10", existed=True),
        Restore("offload", 7, 4, feature="tx-tcp-segmentation"),
    )
    state = replace(_state("192.0.2.10", services=1), restore=items)
    assert State.from_bytes(state.to_bytes()).restore == items


def test_whether_it_drains_survives_as_text() -> None:
    state = replace(_state("192.0.2.10", services=1), draining=True)
    assert State.from_bytes(state.to_bytes()).draining
    assert not _state("192.0.2.10", services=1).draining


def test_a_state_from_before_there_was_draining_does_not_drain() -> None:
    document = json.loads(_state("192.0.2.10", services=1).to_bytes())
    del document["draining"]
    assert not State.from_bytes(json.dumps(document).encode()).draining


def test_a_state_from_before_offloads_were_switched_is_read() -> None:
    document = json.loads(_state("192.0.2.10", services=1).to_bytes())
    assert document["restore"]
    for item in document["restore"]:
        del item["feature"]
    assert State.from_bytes(json.dumps(document).encode()).restore[0].feature == ""


def test_a_state_knows_its_sides_by_ip_version() -> None:
    state = _state("192.0.2.10", "2001:db8::10")
    assert state.versions == (IPV4, IPV6)
    for version, address, item in zip(state.versions, SERVICES, state.services, strict=True):
        installed = (Installed(0, item),)
        assert state.side(version) == Side(version, 256, (address,), installed)
    assert _state("192.0.2.10", services=1).side(IPV6) is None


U64 = st.integers(0, 2**64 - 1)
PORTS = st.integers(1, 65535)
NAMES = st.text(max_size=20)
NETWORKS = {
    IPV4: ("198.51.100.0/24", "203.0.113.0/24", "10.0.0.0/8"),
    IPV6: ("2001:db8:1::/48", "2001:db8:2::/48", "2001:db8:3::/48"),
}
"""Of services, for NAT, of backends and clients."""


def _ranges(ends: set[int]) -> tuple[PortRange, ...]:
    ordered = sorted(ends)
    return tuple(PortRange(*pair) for pair in zip(ordered[::2], ordered[1::2], strict=False))


RANGES = st.sets(PORTS, min_size=2, max_size=7).map(_ranges).filter(lambda it: it != ALL_PORTS)
"""All ports are not for TCP."""


def _hosts(network: str) -> st.SearchStrategy[Address]:
    return st.ip_addresses(network=network)


def _services(version: int) -> st.SearchStrategy[Service]:
    own, nat, others = NETWORKS[version]
    backends = st.builds(
        Backend,
        _hosts(others),
        st.none() | PORTS,
        st.integers(0, 65535),
        st.sampled_from(BackendState),
    )
    clients = st.lists(
        st.builds(Reservation, st.builds(Endpoint, _hosts(others), PORTS), PORTS),
        max_size=3,
        unique_by=(lambda item: item.client, lambda item: item.nat_port),
    )
    return st.builds(
        Service,
        backends=st.lists(backends, min_size=1, max_size=4, unique_by=str).map(tuple),
        address=_hosts(own),
        protocol=st.sampled_from(Protocol),
        ports=RANGES,
        hash=st.sampled_from(Hash),
        timeouts=st.builds(Timeouts, *[st.integers(1, 86400)] * 4),
        name=NAMES,
        nat_addresses=st.lists(_hosts(nat), max_size=3, unique=True).map(tuple),
        reservations=clients.map(tuple),
        on_down=st.sampled_from(OnDown),
        one_way=st.booleans(),
    )


def _sides(version: int) -> st.SearchStrategy[Side]:
    installed = st.lists(
        st.builds(Installed, st.integers(0, 254), _services(version)),
        min_size=1,
        max_size=4,
        unique_by=lambda item: item.number,
    )
    own, nat, _ = NETWORKS[version]
    addresses = st.lists(_hosts(own) | _hosts(nat), max_size=5, unique=True)
    return st.builds(
        Side,
        st.just(version),
        st.integers(256, 32768),
        addresses.map(tuple),
        installed.map(tuple),
    )


STATES = st.builds(
    State,
    netns=U64,
    interfaces=st.lists(
        st.builds(AttachedTo, NAMES, PORTS, st.sampled_from(Mode)), min_size=1, max_size=3
    ).map(tuple),
    sides=st.tuples(_sides(IPV4), _sides(IPV6)) | st.tuples(_sides(IPV4)) | st.tuples(_sides(IPV6)),
    hash_keys=st.tuples(U64, U64),
    capacity=st.integers(1, 1 << 28),
    nat_ports=RANGES,
    vlan=st.booleans(),
    max_client_flows=st.none() | st.integers(0, 1 << 28),
    secret=st.none() | st.text(min_size=1).map(Path),
    virtual_mac=st.lists(NAMES, max_size=2).map(tuple),
    verdicts=st.lists(NAMES, max_size=3).map(tuple),
    restore=st.lists(
        st.builds(Restore, NAMES, U64, PORTS, NAMES, st.booleans(), NAMES), max_size=3
    ).map(tuple),
    version=NAMES,
)


@settings(max_examples=60, deadline=None)
@given(STATES, st.integers(0, 9))
def test_every_state_survives_as_text(state: State, padding: int) -> None:
    text = state.to_bytes()
    assert State.from_bytes(text + bytes(padding)) == state
    assert interface_indexes(text) == [item.index for item in state.interfaces]


def _many() -> tuple[FakeMachine, Request]:
    """Services of both IP versions that differ in all that a service has."""
    machine = FakeMachine()
    dns = service(
        "192.0.2.1",
        "192.0.2.10",
        "192.0.2.11",
        name="dns",
        nat_addresses=(ip_address("192.0.2.101"), ip_address("192.0.2.102")),
        reservations=RESERVED[:1],
        on_down=OnDown.DROP,
        hash=Hash.SRC,
        one_way=True,
    )
    web = service("192.0.2.2", "192.0.2.10", protocol=Protocol.TCP, timeouts=Timeouts(1, 2, 3, 4))
    log = service("2001:db8::2", "2001:db8::10", ports=(514,), reservations=RESERVED[1:])
    asked = Request(
        ("eth1", "eth0"),
        (dns, web, log),
        mode=Mode.GENERIC,
        max_flows=100_000,
        nat_ports=(PortRange(6000, 7000),),
        vlan=False,
        max_client_flows=77,
        virtual_mac=("00:00:5e:00:01:35",),
    )
    Balancer(machine).up(asked)
    return machine, asked


def test_a_state_knows_the_request_that_leads_to_it() -> None:
    machine, asked = _many()
    state = machine.loaded[0][1]
    assert state.request == asked
    assert State.from_bytes(state.to_bytes()).request == asked


def test_what_was_left_open_is_in_a_states_request_as_it_turned_out() -> None:
    machine = FakeMachine()
    asked = request()
    Balancer(machine).up(asked)
    state = machine.loaded[0][1]
    assert state.request == replace(
        asked.with_addresses({IPV4: ip_address("192.0.2.1")}),
        mode=Mode.NATIVE,
        max_flows=262_144,
        nat_ports=(PortRange(1024, 32767), PortRange(61000, 65535)),
    )


def test_to_ask_for_what_runs_changes_nothing() -> None:
    machine, _ = _many()
    machine.run_on()
    ((before, _), state) = machine.loaded[0]
    Balancer(machine).up(state.request)
    ((after, _), again) = machine.loaded[1]
    assert again == state
    assert after.records == before.records
    assert machine.ended == []


def test_a_side_knows_its_services_by_number() -> None:
    machine, asked = _many()
    side = machine.loaded[0][1].side(IPV4)
    assert side is not None
    assert [side.service(number) for number in range(4)] == [*asked.services[:2], None, None]


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
def test_records_of_another_length_are_refused_of_either_ip_version(version: str) -> None:
    document = json.loads(_state("192.0.2.10", "2001:db8::10").to_bytes())
    assert document["layout"][version] == wire.SIZES[int(version[-1])]
    document["layout"][version]["flow"] += 8
    with pytest.raises(TableError, match="does not read"):
        State.from_bytes(json.dumps(document).encode())


@pytest.mark.parametrize("text", [b"", b"\0\0", b"{", b"{}", b"[]", b"null", b"7", b"\xff\xfe"])
def test_a_description_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(TableError) as refused:
        State.from_bytes(text)
    assert refused.value.exit_code == 4
    assert "nothing was changed" in refused.value.hint


@pytest.mark.parametrize(
    "change",
    [{"format": FORMAT - 1}, {"format": FORMAT + 1}, {"layout": {}}],
    ids=["older", "newer", "layout"],
)
def test_a_state_of_another_version_is_refused(change: dict[str, Any]) -> None:
    text = json.dumps(
        {**json.loads(_state("192.0.2.10", services=1).to_bytes()), **change}
    ).encode()
    with pytest.raises(TableError, match="does not read"):
        State.from_bytes(text)


DAMAGE: dict[str, Any] = {
    **dict.fromkeys(("interfaces", "services", "sides", "hash_keys", "nat_ports", "restore"), 7),
    "interfaces of no mode": {"interfaces": [{"name": "eth0", "index": 2, "mode": "fast"}]},
    "one hash key": {"hash_keys": [1]},
    "no service": {"services": []},
    "a service without an address": {"services": [{"ports": [53]}]},
    "a service of no address": {"services": [{"address": "nowhere", "ports": [53]}]},
    "a service of no port": {"services": [{"address": "192.0.2.1", "ports": [70000]}]},
    "no verdicts": {"verdicts": None},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_description_is_refused(damage: str) -> None:
    what = DAMAGE[damage]
    document = json.loads(_state("192.0.2.10", services=1).to_bytes())
    document.update(what if isinstance(what, dict) else {damage: what})
    with pytest.raises(TableError, match="damaged") as refused:
        State.from_bytes(json.dumps(document).encode())
    assert "xdplb down" in refused.value.hint


def test_what_was_started_before_there_were_secrets_has_none() -> None:
    document = json.loads(_state("192.0.2.10", services=1).to_bytes())
    assert (document.pop("secret"), document.pop("virtual_mac")) == (None, [])
    state = State.from_bytes(json.dumps(document).encode())
    assert (state.secret, state.virtual_mac) == (None, ())


def test_what_another_format_changed_is_read_as_far_as_it_can_be() -> None:
    state = _state("192.0.2.10", services=1)
    document = {**json.loads(state.to_bytes()), "format": 99}
    assert restores(json.dumps(document).encode()) == state.restore
    document["restore"] = [{"something": "else"}]
    assert restores(json.dumps(document).encode()) == ()
    assert restores(b"junk") == ()
