"""The program made of that of IPv4 and that of IPv6: where each packet begins."""

from __future__ import annotations

import re
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xdplb import source
from xdplb.kernel.joining import join
from xdplb.kernel.program import SHARED, map_name
from xdplb.model import IPV4, IPV6

FRONT = 26
EXIT = struct.pack("=BBhi", 0x95, 0, 0, 0)
LONGEST = (1 << 15) - 26
NAME_LENGTH = 15  # BPF_OBJ_NAME_LEN without the final 0


def _entered_at(program: bytes, frame: bytes) -> int:
    """Run what stands in front, on ``frame``; returns the instruction that comes after it."""
    registers = {1: 0}
    at = 0
    while at < FRONT:
        opcode, both, offset, immediate = struct.unpack_from("=BBhi", program, 8 * at)
        target, source_ = both & 15, both >> 4
        at += 1
        match opcode:
            case 0x61:  # from the context: where the packet begins, or ends
                assert source_ == 1
                registers[target] = {0: 0, 4: len(frame)}[offset]
            case 0x69:
                place = registers[source_] + offset
                assert 0 <= place <= len(frame) - 2
                registers[target] = int.from_bytes(frame[place : place + 2], "little")
            case 0xBF:
                registers[target] = registers[source_]
            case 0x07:
                registers[target] += immediate
            case 0x2D:
                at += offset if registers[target] > registers[source_] else 0
            case 0x05:
                at += offset
            case 0x15:
                at += offset if registers[target] == immediate else 0
            case _:
                raise AssertionError(opcode)
    assert registers[1] == 0
    return at


def _frame(ether_type: int, payload: int = 46) -> bytes:
    return bytes(12) + ether_type.to_bytes(2, "big") + bytes(payload)


def _tagged(ether_type: int, tags: int) -> bytes:
    return bytes(12) + bytes.fromhex("88a80005") * tags + _frame(ether_type)[12:]


@given(st.integers(1, LONGEST), st.integers(1, 50))
def test_the_joined_program_is_both_behind_the_look_at_the_packet(first: int, second: int) -> None:
    ipv4, ipv6 = b"4" * 8 * first, b"6" * 8 * second
    joined = join(ipv4, ipv6)
    assert len(joined) == 8 * (FRONT + first + second)
    assert joined[8 * FRONT :] == ipv4 + ipv6


@pytest.mark.parametrize("length", [1, 1000, LONGEST])
def test_an_ipv6_packet_begins_at_the_first_instruction_of_ipv6(length: int) -> None:
    joined = join(EXIT * length, b"6" * 8)
    at = _entered_at(joined, _frame(0x86DD))
    assert joined[8 * at :] == b"6" * 8


@pytest.mark.parametrize("tag", ["81000007", "88a80007"])
@pytest.mark.parametrize("tags", [1, 2])
def test_vlan_tags_are_looked_past(tag: str, tags: int) -> None:
    frame = bytes(12) + bytes.fromhex(tag) * tags + bytes.fromhex("86dd")
    assert _entered_at(join(EXIT * 5, EXIT), frame) == FRONT + 5


@pytest.mark.parametrize(
    "frame",
    [
        _frame(0x0800),
        _frame(0x0806),
        _frame(0xDD86),
        _frame(0x8100),
        _tagged(0x0800, 1),
        _tagged(0x86DD, 3),
        _tagged(0x86DD, 1)[:17],
        _frame(0x86DD)[:13],
        b"",
    ],
    ids=[
        *("IPv4", "ARP", "swapped", "a tag and zeros", "IPv4 in a VLAN", "three tags"),
        *("cut off in the type behind a tag", "cut off in the type", "empty"),
    ],
)
def test_everything_else_begins_at_the_first_instruction_of_ipv4(frame: bytes) -> None:
    assert _entered_at(join(EXIT * 5, b"6" * 8), frame) == FRONT


def test_a_frame_that_ends_behind_its_type_is_looked_at() -> None:
    assert _entered_at(join(EXIT * 5, EXIT), _frame(0x86DD, 0)) == FRONT + 5


def test_a_program_too_long_to_be_jumped_over_is_refused() -> None:
    with pytest.raises(ValueError, match=f"{1 << 15}"):
        join(EXIT * (1 << 15), EXIT)


def test_every_map_has_a_name_that_the_kernel_keeps_whole() -> None:
    declared = r"^BPF_(?:TABLE\([^,]+, [^,]+, [^,]+, |RINGBUF_OUTPUT\()(\w+),"
    names = re.findall(declared, source.text(IPV6), re.MULTILINE)
    assert {"reverse_lookup", *SHARED} <= set(names)
    own = {map_name(name, IPV6) for name in names} - SHARED
    assert all(len(name) <= NAME_LENGTH for name in own)
    assert own.isdisjoint(map_name(name, IPV4) for name in names)
    assert len(own | SHARED) == len(names)
