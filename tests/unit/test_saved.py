"""The file of saved flows: what goes in comes out, and nothing else is taken for one."""

from __future__ import annotations

import json
import struct
from dataclasses import replace
from hashlib import blake2b
from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdplb.errors import InvalidValueError
from xdplb.model import IPV4, IPV6, Protocol
from xdplb.saved import FLOW, FORMAT, Lane, Part, Saved, read

NAMES = ("eth0", "eth1", "")
STATES = ("unreplied", "answered", "tcp_established")
VERSIONS = st.sampled_from([IPV4, IPV6])
PORTS = st.integers(1, 65535)


def _bytes(count: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=count, max_size=count)


def _flows(version: int) -> st.SearchStrategy[bytes]:
    fields = st.tuples(
        _bytes(4 if version == IPV4 else 16),
        *(_bytes(2) for _ in range(3)),
        st.integers(0, 2**16 - 1),
        st.integers(0, 2**32 - 1),
        st.integers(0, len(STATES) - 1),
        st.integers(0, len(NAMES) - 1),
        _bytes(6),
        _bytes(8),
    )
    return st.lists(fields.map(lambda values: FLOW[version].pack(*values))).map(b"".join)


def _parts(version: int) -> st.SearchStrategy[Part]:
    address = st.ip_addresses(v=4 if version == IPV4 else 6)
    lane = st.builds(Lane, address, st.sampled_from(Protocol), address, st.none() | PORTS, address)
    lanes = st.lists(lane).map(tuple)
    return st.builds(
        lambda lanes, flows: Part(version, lanes, memoryview(flows)), lanes, _flows(version)
    )


SAVED = st.builds(
    Saved,
    st.floats(0, 2**33),
    st.just(NAMES),
    st.just(STATES),
    st.lists(VERSIONS, unique=True).flatmap(
        lambda versions: st.tuples(*(_parts(version) for version in versions))
    ),
)
PART = Part(
    IPV4,
    (
        Lane(
            ip_address("192.0.2.1"),
            Protocol.UDP,
            ip_address("192.0.2.10"),
            None,
            ip_address("192.0.2.1"),
        ),
    ),
    memoryview(FLOW[IPV4].pack(b"abcd", b"po", b"rt", b"na", 0, 5, 1, 2, b"machin", bytes(8))),
)
ONE = Saved(12.5, NAMES, STATES, (PART,))


def _written(saved: Saved) -> bytes:
    return b"".join(saved.pieces())


def _signed(data: bytes) -> bytes:
    return data + blake2b(data, digest_size=16).digest()


def _with_description(**changes: Any) -> bytes:
    """A file whose checksum is right and whose description is not that of its flows."""
    data = _written(ONE)
    (length,) = struct.unpack_from("<I", data, 12)
    text = json.dumps({**json.loads(data[16 : 16 + length]), **changes}).encode()
    return _signed(data[:12] + struct.pack("<I", len(text)) + text + data[16 + length : -16])


@given(SAVED)
def test_what_is_written_is_read(saved: Saved) -> None:
    assert read(_written(saved), "FILE") == saved


def test_a_flow_takes_32_bytes_and_of_ipv6_44() -> None:
    assert (FLOW[IPV4].size, FLOW[IPV6].size) == (32, 44)


def test_damage_at_every_byte_is_refused() -> None:
    data = _written(ONE)
    for place in range(len(data)):
        for flip in (1, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[place] ^= flip
            with pytest.raises(InvalidValueError, match=r"^FILE ") as caught:
                read(bytes(damaged), "FILE")
            assert caught.value.exit_code == 2
            assert caught.value.hint


def test_a_file_of_any_other_length_is_refused() -> None:
    data = _written(ONE)
    for length in range(len(data)):
        with pytest.raises(InvalidValueError, match=r"^FILE "):
            read(data[:length], "FILE")
    with pytest.raises(InvalidValueError, match="checksum"):
        read(data + b"\0", "FILE")


@pytest.mark.parametrize("data", [b"", b"nonsense", b"\x7fELF" + bytes(100)])
def test_another_file_is_named_as_such(data: bytes) -> None:
    with pytest.raises(InvalidValueError, match="FILE is no file of saved flows"):
        read(data, "FILE")


def test_another_format_is_named() -> None:
    data = bytearray(_written(ONE)[:-16])
    struct.pack_into("<H", data, 8, FORMAT + 1)
    with pytest.raises(InvalidValueError, match=f"has format {FORMAT + 1}"):
        read(_signed(bytes(data)), "FILE")


@pytest.mark.parametrize(
    "changes",
    [
        {"parts": [{"version": 4, "flows": 0, "lanes": []}]},
        {"parts": [{"version": 4, "flows": 2, "lanes": []}]},
        {"parts": [{"version": 4, "flows": -1, "lanes": []}]},
        {"parts": [{"version": 5, "flows": 1, "lanes": []}]},
        {"parts": [{"version": 4, "flows": 1}]},
        {"parts": [{"version": 4, "flows": 1, "lanes": [["192.0.2.1", "udp"]]}]},
        {"parts": [{"version": 4, "flows": 1, "lanes": [["nobody", "udp", "x", None, "y"]]}]},
        {"parts": 5},
        {"states": STATES[:1]},
        {"interfaces": NAMES[:2]},
        {"at": None},
        {"at": "today"},
    ],
)
def test_a_description_that_does_not_fit_the_flows_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidValueError, match="FILE cannot be understood"):
        read(_with_description(**changes), "FILE")
    assert read(_with_description(), "FILE") == ONE


def test_flows_of_another_ip_version_alone_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="of IPv4, which the balancer does not"):
        ONE.refuse_others((IPV6,))
    ONE.refuse_others((IPV4, IPV6))
    replace(ONE, parts=()).refuse_others((IPV6,))
    replace(ONE, parts=(replace(PART, flows=memoryview(b"")),)).refuse_others((IPV6,))
