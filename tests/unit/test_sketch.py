"""Where the counters of a client are."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdplb.model import IPV4, IPV6
from xdplb.sketch import counter_places, is_counted

U64 = st.integers(0, 2**64 - 1)


def _as_in_c(key_0: int, key_1: int, word: int, counters: int) -> tuple[int, int]:
    """``limit_counter`` of bpf/limit.h for both rows, of ``hash_word`` of bpf/hash.h."""
    value = ((key_0 ^ word) * 0x9E3779B97F4A7C15) % 2**64
    value ^= value // 2**32
    value = (value * (key_1 | 1)) % 2**64
    value ^= value // 2**29
    return value % counters, counters + (value // 2**32) % counters


@given(U64, U64, st.lists(st.binary(min_size=4, max_size=4)), st.sampled_from([1024, 65536]))
def test_an_ipv4_client_is_counted_by_its_address(
    key_0: int, key_1: int, clients: list[bytes], counters: int
) -> None:
    expected = [
        _as_in_c(key_0, key_1, struct.unpack("=I", client)[0] << 32, counters) for client in clients
    ]
    assert list(counter_places(IPV4, (key_0, key_1), counters, clients)) == expected


@given(U64, U64, st.lists(st.binary(min_size=16, max_size=16)))
def test_an_ipv6_client_is_counted_by_its_network(
    key_0: int, key_1: int, clients: list[bytes]
) -> None:
    expected = [
        _as_in_c(key_0, key_1, struct.unpack("=Q", client[:8])[0], 1024) for client in clients
    ]
    assert list(counter_places(IPV6, (key_0, key_1), 1024, clients)) == expected


@pytest.mark.parametrize(
    ("limit", "ports", "expected"),
    [(0, 100, False), (5, 1, True), (None, 100, True), (None, 2, True), (None, 1, False)],
)
def test_without_a_limit_nothing_is_counted(
    limit: int | None, ports: int, *, expected: bool
) -> None:
    assert is_counted(limit, ports) is expected
