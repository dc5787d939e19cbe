"""Who else has an address: ARP probes (RFC 5227), which teach nobody anything."""

from __future__ import annotations

import select
import socket
import struct
import time
from contextlib import ExitStack
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from xdplb.model import Address

_ETH_P_ARP: Final = 0x0806
_BROADCAST: Final = b"\xff" * 6
_HEAD: Final = struct.Struct("!6s6sH")
_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_ETHERNET: Final = 1
_IPV4: Final = 0x0800
_REQUEST: Final = 1
_NOBODY: Final = bytes(4)
_WITHIN_S: Final = 0.3
_MOST: Final = 2048


def others(
    interfaces: Mapping[str, bytes], addresses: Collection[IPv4Address], own: Collection[bytes]
) -> dict[Address, bytes]:
    """Ask on some interfaces for addresses.

    Args:
        interfaces: Names, and the MAC address of each.
        addresses: What is asked for.
        own: MAC addresses of this host, whose answers do not count.

    Returns:
        The MAC address of another host for each address that one has.

    Raises:
        OSError: An interface is down, or the process may not.
    """
    found: dict[Address, bytes] = {}
    with ExitStack() as opened:
        asking = []
        for name, mac in interfaces.items():
            sock = opened.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW))
            sock.bind((name, _ETH_P_ARP))
            asking.append(sock)
            for address in addresses:
                sock.send(_probe(mac, address))
        deadline = time.monotonic() + _WITHIN_S
        while len(found) < len(addresses) and (left := deadline - time.monotonic()) > 0:
            for sock in select.select(asking, (), (), left)[0]:
                said = _sender(sock.recv(_MOST))
                if said is not None and said[0] in addresses and said[1] not in own:
                    found[said[0]] = said[1]
    return found


def _probe(mac: bytes, address: IPv4Address) -> bytes:
    return _HEAD.pack(_BROADCAST, mac, _ETH_P_ARP) + _ARP.pack(
        _ETHERNET, _IPV4, 6, 4, _REQUEST, mac, _NOBODY, bytes(6), address.packed
    )


def _sender(frame: bytes) -> tuple[IPv4Address, bytes] | None:
    """Who sent an ARP message, and as whom."""
    if len(frame) < _HEAD.size + _ARP.size:
        return None
    message = _ARP.unpack_from(frame, _HEAD.size)
    if message[:4] != (_ETHERNET, _IPV4, 6, 4) or message[6] == _NOBODY:
        return None
    return IPv4Address(message[6]), message[5]
