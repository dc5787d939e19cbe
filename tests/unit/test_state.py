"""What a balancer knows of itself, when it is not what this version wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address

import pytest
from fake_machine import FakeMachine, request

from xdplb import wire
from xdplb.balancer import Balancer
from xdplb.errors import TableError
from xdplb.model import IPV4, IPV6, Endpoint, Reservation
from xdplb.state import Restore, Side, State, interface_indexes

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
    assert state.reservations == RESERVED
    assert State.from_bytes(state.to_bytes() + b"\0\0\0") == state
    assert interface_indexes(state.to_bytes()) == [2]


def test_what_down_puts_back_survives_as_text() -> None:
    items = (
        Restore("gro", 7, 2),
        Restore("neighbour", 7, 3, "192.0.2.10", existed=True),
        Restore("offload", 7, 4, feature="tx-tcp-segmentation"),
    )
    state = replace(_state("192.0.2.10", services=1), restore=items)
    assert State.from_bytes(state.to_bytes()).restore == items


def test_a_state_from_before_offloads_were_switched_is_read() -> None:
    document = json.loads(_state("192.0.2.10", services=1).to_bytes())
    assert document["restore"]
    for item in document["restore"]:
        del item["feature"]
    assert State.from_bytes(json.dumps(document).encode()).restore[0].feature == ""


def test_a_state_knows_its_sides_by_ip_version() -> None:
    state = _state("192.0.2.10", "2001:db8::10")
    assert state.versions == (IPV4, IPV6)
    assert state.side(IPV4) == Side(SERVICES[0], 256)
    assert state.side(IPV6) == Side(SERVICES[1], 256)
    assert _state("192.0.2.10", services=1).side(IPV6) is None


@pytest.mark.parametrize("version", ["ipv4", "ipv6"])
def test_records_of_another_length_are_refused_of_either_ip_version(version: str) -> None:
    document = json.loads(_state("192.0.2.10", "2001:db8::10").to_bytes())
    assert document["layout"][version] == wire.SIZES[int(version[-1])]
    document["layout"][version]["flow"] += 8
    with pytest.raises(TableError, match="records are of version"):
        State.from_bytes(json.dumps(document).encode())


@pytest.mark.parametrize("text", [b"", b"\0\0", b"{", b"{}", b"[]", b"null", b"7", b"\xff\xfe"])
def test_a_description_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(TableError) as refused:
        State.from_bytes(text)
    assert refused.value.exit_code == 4
    assert "nothing was changed" in refused.value.hint
