"""Sets of flows on their way to another balancer, and what ends them."""

from __future__ import annotations

import io
from ipaddress import ip_address

import pytest

from xdplb import stream
from xdplb.errors import InvalidValueError, NotReadyError
from xdplb.model import IPV4, IPV6, Protocol
from xdplb.saved import FLOW, Lane, Part, Saved

OWN = {IPV4: ip_address("192.0.2.1"), IPV6: ip_address("2001:db8::1")}


def flows(version: int = IPV4, count: int = 3) -> Saved:
    lane = Lane(OWN[version], Protocol.UDP, OWN[version] + 9, None, OWN[version])
    part = Part(version, (lane,), memoryview(bytes(count * FLOW[version].size)))
    return Saved(5.0, ("eth0", ""), ("answered", stream.ENDED), (part,))


NOTHING = Saved(6.0, (), (), ())
SETS = [(flows(), True), (flows(IPV6, 70_000), True), (NOTHING, False), (flows(count=1), True)]
PIECES = [stream.head(), *(stream.to_bytes(item, has_more=more) for item, more in SETS)]
WHOLE = b"".join(PIECES)


def read(data: bytes) -> list[tuple[Saved, bool]]:
    return list(stream.sets(io.BytesIO(data), "the stream"))


def test_what_is_sent_is_what_comes() -> None:
    assert read(WHOLE) == SETS
    assert read(stream.head()) == []


@pytest.mark.parametrize("data", [b"", b"xdplbst", b"xdplbflw" + bytes(100), WHOLE[4:]])
def test_what_is_no_stream_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidValueError, match="the stream is no stream of flows") as caught:
        read(data)
    assert "save --follow -" in caught.value.hint


def test_a_stream_of_another_format_is_refused() -> None:
    data = WHOLE[:8] + b"\x07" + WHOLE[9:]
    with pytest.raises(InvalidValueError, match="has format 7, and this xdplb reads 1") as caught:
        read(data)
    assert caught.value.hint


def test_nothing_of_a_set_that_breaks_off_is_taken() -> None:
    start, end = len(PIECES[0]), len(PIECES[0]) + len(PIECES[1])
    for size in (start + 1, start + 7, start + 8, start + 9, end - 1, end + 3):
        taken = []
        with pytest.raises(NotReadyError, match="broke off within a set") as caught:
            taken += [found for found, _ in stream.sets(io.BytesIO(WHOLE[:size]), "the stream")]
        assert taken == []
        assert "start both ends again" in caught.value.hint


def test_nothing_of_a_set_that_is_damaged_is_taken() -> None:
    at = len(PIECES[0]) + len(PIECES[1]) - 20
    data = bytearray(WHOLE)
    data[at] ^= 1
    with pytest.raises(InvalidValueError, match="its checksum is wrong"):
        read(bytes(data))


def test_a_length_that_cannot_be_is_not_waited_for() -> None:
    data = stream.head() + b"\xff\xff\xff\xff" + bytes(4)
    with pytest.raises(InvalidValueError, match="a set of 4,294,967,295 bytes"):
        read(data)
