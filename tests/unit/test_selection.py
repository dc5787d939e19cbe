"""The Maglev table and the hash, against other ways to compute the same."""

from __future__ import annotations

import socket
import struct
import sys
from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xdplb.model import Backend, Hash, Protocol
from xdplb.selection import MAGLEV_SIZE, NO_BACKEND, address_hash, build_table, select_slot

FIRST = int(IPv4Address("10.0.0.1"))
U64 = st.integers(0, 2**64 - 1)
ADDRESSES = st.builds(IPv4Address, st.integers(0, 2**32 - 1))
IPV6_ADDRESSES = st.ip_addresses(v=6)
KEYS = (0x0123456789ABCDEF, 0xFEDCBA9876543210)
CLIENT6, SERVICE6 = IPv6Address("2001:db8::22"), IPv6Address("2001:db8::1")
PORTS = st.integers(0, 65535)


def _servers(count: int) -> list[tuple[int, Backend]]:
    return [(number, Backend(IPv4Address(FIRST + number))) for number in range(count)]


def _loaded(data: bytes, kind: str) -> int:
    return int(struct.unpack(f"={kind}", data)[0])


def _hash_word_as_in_c(value: int, word: int, key_1: int) -> int:
    """``hash_word`` of bpf/hash.h."""
    value = ((value ^ word) * 0x9E3779B97F4A7C15) % 2**64
    value ^= value // 2**32
    value = (value * (key_1 | 1)) % 2**64
    return value ^ (value // 2**29)


def _slot_as_in_c(
    kind: Hash, key_0: int, key_1: int, source: str, sport: int, destination: str, dport: int
) -> int:
    """``select_backend`` of bpf/select.h, statement by statement, on 64-bit words."""

    def hash_word(value: int, word: int) -> int:
        return _hash_word_as_in_c(value, word, key_1)

    saddr = _loaded(socket.inet_aton(source), "I")
    daddr = 0 if kind is Hash.SRC else _loaded(socket.inet_aton(destination), "I")
    value = hash_word(key_0, saddr * 2**32 + daddr)
    if kind is Hash.FIVE_TUPLE:
        ports = [_loaded(struct.pack("!H", port), "H") for port in (sport, dport)]
        value = hash_word(value, ports[0] * 2**32 + ports[1] * 2**16 + socket.IPPROTO_UDP)
    return (value // 2**32) * 16381 // 2**32


@given(st.sampled_from(Hash), U64, U64, ADDRESSES, PORTS, ADDRESSES, PORTS)
def test_the_slot_is_the_one_that_the_program_computes(
    kind: Hash,
    key_0: int,
    key_1: int,
    client: IPv4Address,
    client_port: int,
    service: IPv4Address,
    service_port: int,
) -> None:
    slot = select_slot(kind, (key_0, key_1), (client, client_port), (service, service_port))
    assert 0 <= slot < MAGLEV_SIZE
    assert slot == _slot_as_in_c(
        kind, key_0, key_1, f"{client}", client_port, f"{service}", service_port
    )


def _slot6_as_in_c(
    kind: Hash,
    keys: tuple[int, int],
    client: tuple[str, int],
    service: tuple[str, int],
    number: int,
) -> int:
    """``hash_packet`` of bpf/select.h with bpf/ipv6.h; ``number`` is the protocol's."""
    value = keys[0]
    for address, _ in (client,) if kind is Hash.SRC else (client, service):
        packed = socket.inet_pton(socket.AF_INET6, address)
        for half in (packed[:8], packed[8:]):
            value = _hash_word_as_in_c(value, _loaded(half, "Q"), keys[1])
    if kind is Hash.FIVE_TUPLE:
        ports = [_loaded(struct.pack("!H", port), "H") for _, port in (client, service)]
        value = _hash_word_as_in_c(value, ports[0] * 2**32 + ports[1] * 2**16 + number, keys[1])
    return (value // 2**32) * 16381 // 2**32


@given(
    st.sampled_from(Hash),
    st.tuples(U64, U64),
    st.tuples(IPV6_ADDRESSES, PORTS),
    st.tuples(IPV6_ADDRESSES, PORTS),
    st.sampled_from(Protocol),
)
def test_the_slot_of_ipv6_is_the_one_that_the_program_computes(
    kind: Hash,
    keys: tuple[int, int],
    client: tuple[IPv6Address, int],
    service: tuple[IPv6Address, int],
    protocol: Protocol,
) -> None:
    slot = select_slot(kind, keys, client, service, protocol)
    assert 0 <= slot < MAGLEV_SIZE
    number = {Protocol.UDP: socket.IPPROTO_UDP, Protocol.TCP: socket.IPPROTO_TCP}[protocol]
    assert slot == _slot6_as_in_c(
        kind, keys, (f"{client[0]}", client[1]), (f"{service[0]}", service[1]), number
    )


@pytest.mark.parametrize(
    ("kind", "counting"),
    [
        (Hash.SRC, {"client"}),
        (Hash.SRC_DST, {"client", "service"}),
        (
            Hash.FIVE_TUPLE,
            {"client", "service", "client port", "service port", "protocol"},
        ),
    ],
)
def test_only_what_the_hash_is_named_after_counts_for_ipv6(kind: Hash, counting: set[str]) -> None:
    base = select_slot(kind, KEYS, (CLIENT6, 5555), (SERVICE6, 53))
    others = {
        "client": select_slot(kind, KEYS, (CLIENT6 + 1, 5555), (SERVICE6, 53)),
        "service": select_slot(kind, KEYS, (CLIENT6, 5555), (SERVICE6 + 1, 53)),
        "client port": select_slot(kind, KEYS, (CLIENT6, 5556), (SERVICE6, 53)),
        "service port": select_slot(kind, KEYS, (CLIENT6, 5555), (SERVICE6, 54)),
        "protocol": select_slot(kind, KEYS, (CLIENT6, 5555), (SERVICE6, 53), Protocol.TCP),
    }
    assert {name for name, slot in others.items() if slot != base} == counting


@pytest.mark.parametrize("kind", Hash)
@pytest.mark.parametrize("place", [0, 1], ids=["the first key", "the second key"])
def test_another_secret_moves_an_ipv6_client(kind: Hash, place: int) -> None:
    others = [KEYS[0] ^ 1 << 40, KEYS[1] ^ 1 << 40]
    keys = (others[0], KEYS[1]) if place == 0 else (KEYS[0], others[1])
    packet = ((CLIENT6, 5555), (SERVICE6, 53))
    assert select_slot(kind, keys, *packet) != select_slot(kind, KEYS, *packet)


def test_every_byte_of_an_ipv6_address_counts() -> None:
    near = [IPv6Address(int(CLIENT6) ^ 1 << 8 * place) for place in range(16)]
    slots = {select_slot(Hash.SRC_DST, KEYS, (item, 1), (SERVICE6, 1)) for item in (CLIENT6, *near)}
    assert len(slots) == 17
    slots = {select_slot(Hash.SRC_DST, KEYS, (CLIENT6, 1), (item, 1)) for item in (SERVICE6, *near)}
    assert len(slots) == 17
    assert len({address_hash(item) for item in (CLIENT6, *near)}) == 17


def test_the_two_halves_of_an_ipv6_address_do_not_change_places() -> None:
    one, other = IPv6Address("1:2:3:4:5:6:7:8"), IPv6Address("5:6:7:8:1:2:3:4")
    assert address_hash(one) != address_hash(other)
    slots = [select_slot(Hash.SRC, KEYS, (item, 1), (SERVICE6, 1)) for item in (one, other)]
    assert slots[0] != slots[1]


@given(IPV6_ADDRESSES)
def test_an_ipv6_backend_is_looked_up_where_the_program_does(address: IPv6Address) -> None:
    packed = socket.inet_pton(socket.AF_INET6, f"{address}")
    first, second = _loaded(packed[:8], "Q"), _loaded(packed[8:], "Q")
    word = (first * 0x9E3779B97F4A7C15) % 2**64 ^ second
    word ^= word // 2**32
    assert address_hash(address) == (word * 0x9E3779B97F4A7C15) % 2**64 // 2**48
    assert 0 <= address_hash(address) < 2**16


@pytest.mark.parametrize(
    ("kind", "changes"),
    [(Hash.SRC, 1), (Hash.SRC_DST, 2), (Hash.FIVE_TUPLE, 4)],
)
def test_only_what_the_hash_is_named_after_counts(kind: Hash, changes: int) -> None:
    base = (IPv4Address("10.0.0.9"), IPv4Address("10.0.0.1"), 5555, 53)
    others = (IPv4Address("10.0.0.8"), IPv4Address("10.0.0.2"), 5556, 54)

    def slot(*parts: object) -> int:
        client, service, client_port, service_port = parts
        assert isinstance(client, IPv4Address)
        assert isinstance(service, IPv4Address)
        assert isinstance(client_port, int)
        assert isinstance(service_port, int)
        return select_slot(kind, (11, 22), (client, client_port), (service, service_port))

    moved = [
        slot(*base) != slot(*base[:place], others[place], *base[place + 1 :]) for place in range(4)
    ]
    assert moved == [place < changes for place in range(4)]


@pytest.mark.skipif(sys.byteorder != "little", reason="the vectors are of a little-endian host")
@pytest.mark.parametrize(
    ("kind", "slot"),
    [
        (Hash.SRC_DST, 11732),
        (Hash.FIVE_TUPLE, 10529),
        (Hash.SRC, 5759),
    ],
)
def test_a_known_packet_has_a_known_slot(kind: Hash, slot: int) -> None:
    keys = (0x0123456789ABCDEF, 0xFEDCBA9876543210)
    client, service = IPv4Address("172.11.0.22"), IPv4Address("172.11.0.1")
    assert select_slot(kind, keys, (client, 5555), (service, 6666)) == slot


@pytest.mark.skipif(sys.byteorder != "little", reason="the vectors are of a little-endian host")
@pytest.mark.parametrize(
    ("kind", "slot"),
    [
        (Hash.SRC_DST, 5608),
        (Hash.FIVE_TUPLE, 4406),
        (Hash.SRC, 13415),
    ],
)
def test_a_known_ipv6_packet_has_a_known_slot(kind: Hash, slot: int) -> None:
    assert select_slot(kind, KEYS, (CLIENT6, 5555), (SERVICE6, 6666)) == slot


@pytest.mark.parametrize("step", [1, 1 << 64], ids=["hosts of one network", "networks"])
def test_ipv6_sources_spread_evenly_over_the_slots(step: int) -> None:
    slots = Counter(
        select_slot(Hash.SRC, (3, 5), (CLIENT6 + number * step, 1), (SERVICE6, 1)) // 1639
        for number in range(20000)
    )
    assert len(slots) == 10
    assert all(1800 < count < 2200 for count in slots.values())


@pytest.mark.parametrize("step", [1, 256, 1 << 64], ids=["hosts", "higher hosts", "networks"])
def test_ipv6_backends_side_by_side_spread_over_the_buckets(step: int) -> None:
    buckets = Counter(address_hash(SERVICE6 + number * step) % 256 for number in range(64))
    assert max(buckets.values()) <= 8


def test_sources_spread_evenly_over_the_slots() -> None:
    slots = Counter(
        select_slot(Hash.SRC, (3, 5), (IPv4Address(FIRST + number), 1), (IPv4Address(1), 1)) // 1639
        for number in range(20000)
    )
    assert len(slots) == 10
    assert all(1800 < count < 2200 for count in slots.values())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 10), min_size=2, max_size=30))
def test_each_share_is_within_a_few_percent_of_the_weight(weights: list[int]) -> None:
    servers = [
        (number, replace(backend, weight=weight))
        for (number, backend), weight in zip(_servers(len(weights)), weights, strict=True)
    ]
    shares = Counter(build_table(servers))
    for number, weight in enumerate(weights):
        wanted = MAGLEV_SIZE * weight / sum(weights)
        assert abs(shares[number] - wanted) <= 0.03 * wanted + 2


@pytest.mark.parametrize("count", [3, 10, 50])
def test_removing_one_of_n_moves_its_share_and_a_few_percent(count: int) -> None:
    """NSDI 2016, section 5.3: with 1 % of a thousand backends gone, 2 % or so of the rest move."""
    servers = _servers(count)
    before = build_table(servers)
    after = build_table(servers[:-1])
    pairs = list(zip(before, after, strict=True))
    extra = sum(old not in (count - 1, new) for old, new in pairs)
    assert extra / MAGLEV_SIZE < 0.05
    assert all(new != count - 1 for _, new in pairs)


def test_numbers_do_not_matter() -> None:
    servers = _servers(7)
    names = dict(servers)
    other = [(number * 31 + 5, backend) for number, backend in servers]
    other_names = dict(other)
    first = [names[number] for number in build_table(servers)]
    assert first == [other_names[number] for number in build_table(other)]


def test_the_table_is_the_same_on_every_machine() -> None:
    assert list(build_table(_servers(4))[:12]) == [2, 2, 2, 3, 2, 2, 0, 2, 2, 2, 2, 2]


def test_a_backend_without_weight_has_no_share() -> None:
    servers = [*_servers(2), (9, Backend(IPv4Address("10.0.0.99"), weight=0))]
    assert set(build_table(servers)) == {0, 1}


def test_only_weightless_backends_make_a_table_of_none() -> None:
    assert set(build_table([(0, Backend(IPv4Address(FIRST), weight=0))])) == {NO_BACKEND}


def test_one_backend_has_every_slot() -> None:
    assert set(build_table([(7, Backend(IPv4Address(FIRST)))])) == {7}


def test_backends_of_one_address_with_and_without_a_port_have_a_table() -> None:
    address = IPv4Address(FIRST)
    assert set(build_table([(0, Backend(address)), (1, Backend(address, 53))])) == {0, 1}


def test_the_first_address_of_a_backend_has_its_old_place_in_the_table() -> None:
    servers = _servers(5)
    assert build_table(servers, lanes=dict.fromkeys(range(5), 0)) == build_table(servers)


def test_each_address_that_a_backend_is_spoken_to_from_has_a_share_of_its_own() -> None:
    servers = [(2 * number + lane, item) for number, item in _servers(3) for lane in range(2)]
    shares = Counter(build_table(servers, lanes={number: number % 2 for number, _ in servers}))
    assert set(shares) == set(range(6))
    assert max(shares.values()) - min(shares.values()) <= 1


def test_the_numbers_of_addresses_do_not_matter() -> None:
    backend = _servers(1)[0][1]
    one = build_table([(7, backend), (3, backend)], lanes={7: 0, 3: 1})
    other = build_table([(0, backend), (1, backend)], lanes={0: 0, 1: 1})
    assert [{7: 0, 3: 1}[number] for number in one] == list(other)
