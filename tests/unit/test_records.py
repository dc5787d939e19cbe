"""Properties of the port pool, of the groups and of the records."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdplb import wire
from xdplb.errors import InvalidValueError
from xdplb.model import IPV4, IPV6, Backend, PortRange, Protocol
from xdplb.ports import NatPool, make_pool
from xdplb.wire import (
    BUCKET_SIZE,
    AddressBucket,
    BackendCode,
    BackendRecord,
    BucketEntry,
    ClientKey,
    ClientValue,
    FlowCode,
    FlowRecord,
    InterfaceRecord,
    Owner,
    ServiceRecord,
)

U8, U16, U32 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32))
PORTS = st.integers(1, 65535)
IPV6_ADDRESSES = st.ip_addresses(v=6)
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


@given(MACS, U32, st.none() | PORTS, st.sampled_from(BackendCode), U16, U32)
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
        interface=weight >> 8,
        weight=weight,
        next_hop=IPv4Address(address),
        next_neighbour=weight,
        mac_is_fixed=bool(weight & 1),
        service=first & 0xFF,
        local=first >> 8 & 0xFF,
    )
    assert len(record.pack()) == 64
    assert BackendRecord.unpack(record.pack()) == record


@given(
    st.tuples(IPV6_ADDRESSES, IPV6_ADDRESSES),
    st.none() | PORTS,
    st.sampled_from(BackendCode),
    st.tuples(U8, U8),
    st.tuples(MACS, st.booleans(), U8),
    st.tuples(U8, U16, U16, U32, U32),
)
def test_an_ipv6_backend_record_survives_the_wire(
    addresses: tuple[IPv6Address, IPv6Address],
    port: int | None,
    state: BackendCode,
    known_by: tuple[int, int],
    neighbour: tuple[bytes | None, bool, int],
    numbers: tuple[int, int, int, int, int],
) -> None:
    interface, weight, after, first, count = numbers
    record = BackendRecord(
        mac=neighbour[0],
        address=addresses[0],
        port=port,
        state=state,
        generation=neighbour[2],
        slot_first=first,
        slot_count=count,
        interface=interface,
        weight=weight,
        next_hop=addresses[1],
        next_neighbour=after,
        mac_is_fixed=neighbour[1],
        service=known_by[0],
        local=known_by[1],
    )
    assert len(record.pack()) == wire.SIZES[IPV6]["backend"] == 64
    assert BackendRecord.unpack(record.pack(), IPV6) == record


@given(IPV6_ADDRESSES, PORTS, IPV6_ADDRESSES, U16, U8)
def test_an_ipv6_client_key_survives_the_wire(
    client: IPv6Address, port: int, service: IPv6Address, dport: int, number: int
) -> None:
    key = ClientKey(client, port, service, dport, number)
    assert len(key.pack()) == wire.SIZES[IPV6]["client_key"] == 40
    assert ClientKey.unpack(key.pack()) == key


@given(
    U32, U16, st.sampled_from(FlowCode), U8, IPV6_ADDRESSES, PORTS, PORTS, MACS, st.tuples(U8, U8)
)
def test_an_ipv6_flow_survives_the_wire(
    seen: int,
    number: int,
    state: FlowCode,
    generation: int,
    client: IPv6Address,
    port: int,
    dport: int,
    mac: bytes | None,
    numbers: tuple[int, int],
) -> None:
    owner = Owner(seen, number, state, generation)
    interface, service = numbers
    flow = FlowRecord(owner, client, port, dport, mac, interface, service=service)
    assert len(flow.pack()) == wire.SIZES[IPV6]["flow"] == 64
    assert FlowRecord.unpack(flow.pack()) == flow


@given(
    st.lists(
        st.builds(BucketEntry, IPV6_ADDRESSES, st.sampled_from(Protocol), U8, U32, U32),
        max_size=BUCKET_SIZE,
    ),
    st.booleans(),
)
def test_an_ipv6_bucket_has_its_addresses_in_front_and_then_their_slots(
    entries: list[BucketEntry],
    continues: bool,  # noqa: FBT001 - drawn
) -> None:
    packed = AddressBucket(tuple(entries), continues, IPV6).pack()
    assert len(packed) == wire.SIZES[IPV6]["address_bucket"] == 128
    for place, item in enumerate(entries):
        assert packed[16 * place :][:16] == item.address.packed
        slots = wire.U32.pack(item.first) + wire.U32.pack(item.records)
        assert packed[64 + 8 * place :][:8] == slots
        assert packed[96 + place] == item.protocol.number
        assert packed[100 + place] == item.local
    free = BUCKET_SIZE - len(entries)
    assert packed[64 - 16 * free : 64] == bytes(16 * free)
    assert packed[96 + len(entries) : 100] == bytes(free)
    assert packed[100 + len(entries) : 104] == bytes(free)
    assert packed[104:] == wire.U32.pack(continues) + bytes(20)


@given(U32, U8, st.sampled_from([0, 1, 2]), st.tuples(U32, U32, U32, U32))
def test_a_service_record_survives_the_wire(
    table: int, local: int, kind: int, timeouts: tuple[int, int, int, int]
) -> None:
    record = ServiceRecord(table, local, kind, timeouts)
    assert {len(record.pack())} == {sizes["service"] for sizes in wire.SIZES.values()} == {24}
    assert ServiceRecord.unpack(record.pack()) == record


@given(U8)
def test_a_services_number_says_its_protocol(number: int) -> None:
    assert wire.protocol_of(number) is (Protocol.TCP if number % 2 else Protocol.UDP)
    address = IPv4Address("192.0.2.1")
    packed = ClientKey(address, 5, address, 53, number).pack()
    assert tuple(packed[12:14]) == (17 if number % 2 == 0 else 6, number)


@given(MACS, U32, st.booleans(), U32)
def test_an_interface_record_ends_with_its_mtu(
    mac: bytes | None,
    ifindex: int,
    redirect: bool,  # noqa: FBT001 - drawn
    mtu: int,
) -> None:
    packed = InterfaceRecord(mac, ifindex, redirect, mtu).pack()
    assert {len(packed)} == {sizes["interface"] for sizes in wire.SIZES.values()} == {24}
    assert packed[:8] == wire.U64.pack(wire.mac_to_word(mac))
    numbers = [value for (value,) in wire.U32.iter_unpack(packed[8:20])]
    assert numbers == [ifindex, redirect, mtu]


def test_both_ip_versions_have_the_same_records() -> None:
    assert list(wire.SIZES[IPV4]) == list(wire.SIZES[IPV6])
    longer = {name for name, size in wire.SIZES[IPV6].items() if size != wire.SIZES[IPV4][name]}
    assert longer == {"client_key", "flow", "address_bucket"}


@pytest.mark.parametrize("weight", [-1, 65536])
def test_a_weight_that_no_record_can_hold_is_refused(weight: int) -> None:
    with pytest.raises(InvalidValueError):
        Backend(IPv4Address("192.0.2.10"), weight=weight)
