"""Properties of the port pool, of the groups and of the records."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdplb import wire
from xdplb.errors import InvalidValueError
from xdplb.model import Backend, PortRange, Protocol, Request
from xdplb.ports import NatPool, make_pool
from xdplb.wire import BackendCode, BackendRecord, ClientValue, FlowCode, Owner

U8, U16, U32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
MACS = st.none() | st.binary(min_size=6, max_size=6).filter(any)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3000), min_size=2, max_size=8, unique=True))
def test_an_offset_is_a_bijection_of_the_pool(ends: list[int]) -> None:
    ends = sorted(ends)[: len(ends) // 2 * 2]
    pool = NatPool(tuple(PortRange(*pair) for pair in zip(ends[::2], ends[1::2], strict=True)))
    offsets = [pool.offset(port) for port in range(1, 3002)]
    assert [item for item in offsets if item is not None] == list(range(pool.size))


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.integers(1, 65535), st.integers(1, 65535)).map(sorted))
def test_the_default_pool_is_what_is_unprivileged_and_not_the_hosts(ends: list[int]) -> None:
    ephemeral = PortRange(*ends)
    wanted = {*range(1024, ephemeral.first), *range(max(1024, ephemeral.last + 1), 65536)}
    if not wanted:
        with pytest.raises(InvalidValueError):
            make_pool((), ephemeral)
        return
    pool = make_pool((), ephemeral)
    assert {port for item in pool.ranges for port in range(item.first, item.last + 1)} == wanted


@given(U32, U16, st.sampled_from(FlowCode), U8)
def test_an_owner_survives_its_word(seen: int, backend: int, state: FlowCode, age: int) -> None:
    owner = Owner(seen, backend, state, age)
    assert Owner.of(owner.word()) == owner
    assert owner.word() < 2**64


@given(U16, U16)
def test_a_client_value_survives_the_wire(port: int, backend: int) -> None:
    value = ClientValue(port, backend)
    assert ClientValue.unpack(value.pack()) == value


@given(MACS)
def test_a_mac_survives_its_word(mac: bytes | None) -> None:
    assert wire.word_to_mac(wire.mac_to_word(mac)) == mac


@given(MACS, U32, st.none() | st.integers(1, 65535), st.sampled_from(BackendCode), U16, U32)
def test_a_backend_record_survives_the_wire(
    mac: bytes | None,
    address: int,
    port: int | None,
    state: BackendCode,
    weight: int,
    first: int,
) -> None:
    record = BackendRecord(
        mac=mac,
        address=IPv4Address(address),
        port=port,
        state=state,
        generation=weight & 0xFF,
        slot_first=first,
        slot_count=first,
        ifindex=first,
        interface=weight,
        weight=weight,
        next_hop=IPv4Address(address),
        next_neighbour=weight,
        mac_is_fixed=bool(weight & 1),
        protocol=Protocol.TCP if weight & 2 else Protocol.UDP,
    )
    assert len(record.pack()) == 64
    assert BackendRecord.unpack(record.pack()) == record


@pytest.mark.parametrize("weight", [-1, 65536])
def test_a_weight_that_no_record_can_hold_is_refused(weight: int) -> None:
    with pytest.raises(InvalidValueError):
        Request(("eth0",), (Backend(IPv4Address("192.0.2.10"), weight=weight),))
