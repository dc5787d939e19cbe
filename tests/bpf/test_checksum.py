"""Checksums: whole, partial, absent and wrong, compared with scapy's."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from bpf_harness import Loaded, make_request
from packets import (
    CLIENT,
    CLIENT_MAC,
    OUR_MAC,
    SERVICE,
    pseudo_sum,
    readdressed,
    udp,
    udp_checksum,
)

from xdplb.model import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

LENGTHS = [*range(70), 127, 128, 129, 511, 512, 513, 1023, 1471, 1472, 3400, 3464]


def load(mode: Mode) -> Loaded:
    """One backend, in that mode."""
    return Loaded(make_request("172.11.0.20", mode=mode))


@pytest.fixture(params=[Mode.NATIVE, Mode.GENERIC])
def either(request: pytest.FixtureRequest) -> Iterator[Loaded]:
    with load(request.param) as loaded:
        yield loaded


@pytest.fixture
def native() -> Iterator[Loaded]:
    with load(Mode.NATIVE) as loaded:
        yield loaded


@pytest.fixture
def generic() -> Iterator[Loaded]:
    with load(Mode.GENERIC) as loaded:
        yield loaded


def partial(packet: bytes) -> bytes:
    """The packet as a sender with checksum offload leaves it."""
    return packet[:40] + pseudo_sum(packet).to_bytes(2, "big") + packet[42:]


def test_a_whole_checksum_is_right_for_every_length(either: Loaded) -> None:
    source = random.Random(3)
    either.open()
    for length in LENGTHS:
        packet = udp(source.randbytes(length))
        assert either.run(packet).packet == either.forwarded(packet), length


def test_a_partial_checksum_is_finished_in_native_mode(native: Loaded) -> None:
    source = random.Random(4)
    native.open()
    for length in LENGTHS:
        packet = udp(source.randbytes(length))
        assert native.run(partial(packet)).packet == native.forwarded(packet), length


def test_padding_is_no_part_of_a_partial_checksum(native: Loaded) -> None:
    native.open()
    packet = udp(b"odd")
    result = native.run(partial(packet) + b"\xff" * 15)
    assert result.packet == native.forwarded(packet) + b"\xff" * 15


def test_a_partial_checksum_stays_partial_in_generic_mode(generic: Loaded) -> None:
    generic.open()
    for length in LENGTHS:
        packet = udp(b"\x5a" * length)
        expected = generic.forwarded(packet)
        assert generic.run(partial(packet)).packet == partial(expected), length


def test_an_answer_with_a_partial_checksum_is_finished_too(native: Loaded) -> None:
    packet = native.answer(native.open(), b"an odd answer")
    expected = readdressed(
        packet, src=SERVICE, dst=CLIENT, dport=5555, smac=OUR_MAC, dmac=CLIENT_MAC
    )
    assert native.run(partial(packet)).packet == expected


def test_no_checksum_stays_none(either: Loaded) -> None:
    either.open()
    packet = udp(header={"chksum": 0})
    assert either.run(packet).packet == either.forwarded(packet, keep_checksum=0)


def test_a_checksum_that_comes_to_zero_is_sent_as_all_ones(either: Loaded) -> None:
    either.open()
    word = udp_checksum(either.forwarded(udp(b"\0\0")))
    packet = udp(word.to_bytes(2, "big"))  # the sum comes to 0xffff, its complement to 0
    result = either.run(packet).packet
    assert result == either.forwarded(packet)
    assert udp_checksum(result) == 0xFFFF


def test_a_partial_checksum_that_comes_to_zero_is_sent_as_all_ones(native: Loaded) -> None:
    native.open()
    word = udp_checksum(native.forwarded(udp(b"\0\0")))
    packet = udp(word.to_bytes(2, "big"))
    assert udp_checksum(native.run(partial(packet)).packet) == 0xFFFF


@pytest.mark.parametrize("wrong_by", [1, 0x100, 0x7FFF])
def test_a_wrong_checksum_stays_wrong_by_as_much(either: Loaded, wrong_by: int) -> None:
    either.open()
    packet = udp(b"payload")
    right = udp_checksum(packet)
    spoilt = packet[:40] + ((right + wrong_by) % 0xFFFF).to_bytes(2, "big") + packet[42:]
    result = udp_checksum(either.run(spoilt).packet)
    expected = udp_checksum(either.forwarded(packet))
    assert (result - expected) % 0xFFFF == wrong_by


def test_a_whole_checksum_that_looks_partial_is_not_broken(either: Loaded) -> None:
    """One packet in 65,536 has the pseudo-header's sum as its right checksum."""
    either.open()
    probe = udp(b"\0\0")
    # Adding w to the payload takes w from the checksum; both must meet at the pseudo-header's sum.
    word = (udp_checksum(probe) - pseudo_sum(probe)) % 0xFFFF
    packet = udp(word.to_bytes(2, "big"))
    assert udp_checksum(packet) == pseudo_sum(packet)
    assert either.run(packet).packet == either.forwarded(packet)


def test_random_payloads_never_get_a_wrong_checksum(either: Loaded) -> None:
    source = random.Random(5)
    either.open()
    for _ in range(1500):
        packet = udp(source.randbytes(source.randint(0, 64)))
        assert either.run(packet).packet == either.forwarded(packet)


def test_ip_header_checksums_never_go_wrong(either: Loaded) -> None:
    source = random.Random(6)
    either.open()
    for number in range(1500):
        packet = udp(ip={"id": source.randrange(65536), "ttl": source.randint(2, 255)})
        assert either.run(packet).packet == either.forwarded(packet), number
