"""The echo request and its reply (RFC 792, RFC 4443 4.1 and 4.2)."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from xdplb.errors import PrivilegeError
from xdplb.model import IPV4

if TYPE_CHECKING:
    from xdplb.health.target import Target

MAX_PACKET: Final = 2048

_HEADER: Final = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
_REQUEST: Final = {4: 8, 6: 128}
_REPLY: Final = {4: 0, 6: 129}
_PROTOCOL: Final = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_SOL_RAW: Final = 255
_FILTER: Final = 1
"""The option of raw sockets, of both versions, that names the types to leave out."""

_PAYLOAD: Final = 16
_SEQUENCE: Final = 1


async def probe_icmp(target: Target) -> None:
    """Send an echo request, and wait for the reply to it.

    Raises:
        OSError: The system says that there is no way to the target.
        PrivilegeError: The process may not send one.
    """
    loop = asyncio.get_running_loop()
    version = target.address.version
    with open_icmp(version) as sock:
        sock.connect((f"{target.address}", 0))
        # A ping socket has got its identifier by now, and the kernel writes it (icmp(7)).
        raw = sock.type == socket.SOCK_RAW
        identifier = secrets.randbits(16) if raw else sock.getsockname()[1]
        payload = secrets.token_bytes(_PAYLOAD)
        await loop.sock_sendall(sock, echo_request(version, identifier, payload))
        while True:
            packet = await loop.sock_recv(sock, MAX_PACKET)
            if raw and version == IPV4:
                packet = without_ip_header(packet)
            if is_reply(version, packet, identifier, payload):
                return


def open_icmp(version: int) -> socket.socket:
    """A socket for echo requests: the one that needs no privilege where it is allowed.

    Raises:
        PrivilegeError: Neither that one nor a raw one is allowed.
    """
    family = socket.AF_INET if version == IPV4 else socket.AF_INET6
    for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW):
        with suppress(PermissionError):
            sock = socket.socket(family, kind | socket.SOCK_NONBLOCK, _PROTOCOL[version])
            if kind == socket.SOCK_RAW:
                _read_replies_only(sock, version)
            return sock
    raise PrivilegeError("send echo requests")


def _read_replies_only(sock: socket.socket, version: int) -> None:
    """Leave out all but replies, which a raw socket would see all of the host's ICMP of."""
    if version == IPV4:
        mask = ~(1 << _REPLY[4]) & 0xFFFFFFFF
        sock.setsockopt(_SOL_RAW, _FILTER, struct.pack("=I", mask))
        return
    words = [0xFFFFFFFF] * 8
    words[_REPLY[6] // 32] &= ~(1 << _REPLY[6] % 32)
    sock.setsockopt(socket.IPPROTO_ICMPV6, _FILTER, struct.pack("=8I", *words))


def echo_request(version: int, identifier: int, payload: bytes) -> bytes:
    """The message; the checksum of ICMPv6 is left to the kernel (RFC 3542 3.1)."""
    fields = (identifier, _SEQUENCE)
    blank = _HEADER.pack(_REQUEST[version], 0, 0, *fields) + payload
    checksum = internet_checksum(blank) if version == IPV4 else 0
    return _HEADER.pack(_REQUEST[version], 0, checksum, *fields) + payload


def internet_checksum(data: bytes) -> int:
    """The checksum of an even number of bytes (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


def without_ip_header(packet: bytes) -> bytes:
    """What an IPv4 packet carries; nothing if there is no packet."""
    return packet[(packet[0] & 0xF) * 4 :] if packet else b""


def is_reply(version: int, message: bytes, identifier: int, payload: bytes) -> bool:
    """Whether this is the reply to the request with that identifier and payload."""
    if len(message) < _HEADER.size:
        return False
    kind, code, _, its_identifier, sequence = _HEADER.unpack_from(message)
    return (kind, code, its_identifier, sequence, message[_HEADER.size :]) == (
        *(_REPLY[version], 0, identifier, _SEQUENCE),
        payload,
    )
