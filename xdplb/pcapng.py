"""Packets for Wireshark: a pcapng file, with what became of each as its comment.

Source: draft-ietf-opsawg-pcapng, "PCAP Now Generic (pcapng) Capture File Format".
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Final

from xdplb import __version__

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import BinaryIO

    from xdplb.tracing import Event

_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_PACKET: Final = 6
_MAGIC: Final = 0x1A2B3C4D
_ETHERNET: Final = 1
_END: Final = 0
_COMMENT: Final = 1
_APPLICATION: Final = 4
_NAME: Final = 2
_RESOLUTION: Final = 9
_FLAGS: Final = 2
_INBOUND: Final = 1
_OUTBOUND: Final = 2
_NANOSECONDS: Final = 9


class Writer:
    """Writes a section: the interfaces first, and then each packet as it came and as it left."""

    def __init__(self, file: BinaryIO, interfaces: Sequence[str], snap: int) -> None:
        """Begin the section.

        Args:
            file: Where it goes.
            interfaces: The names of all that packets may come by.
            snap: The most bytes that are kept of a packet.
        """
        self._file = file
        self._places = {name: place for place, name in enumerate(interfaces)}
        head = struct.pack("=IHHq", _MAGIC, 1, 0, -1)
        self._block(_SECTION, head, [(_APPLICATION, f"xdplb {__version__}".encode())])
        for name in interfaces:
            options = [(_NAME, name.encode()), (_RESOLUTION, bytes((_NANOSECONDS,)))]
            self._block(_INTERFACE, struct.pack("=HxxI", _ETHERNET, snap), options)

    def write(self, event: Event) -> None:
        """Write a packet, as it came and, if it did, as it left."""
        came, left = event.lengths
        comment = event.verdict + (" (new flow)" if event.is_new else "")
        self._packet(event, event.came, came, _INBOUND, comment)
        if event.left:
            self._packet(event, event.left, left, _OUTBOUND, comment)

    def flush(self) -> None:
        """Let whoever reads the file see what there is."""
        self._file.flush()

    def _packet(self, event: Event, data: bytes, length: int, flags: int, comment: str) -> None:
        place = self._places.get(event.interface, 0)
        at = event.at_ns
        head = struct.pack("=IIIII", place, at >> 32, at & 0xFFFFFFFF, len(data), length)
        options = [(_COMMENT, comment.encode()), (_FLAGS, struct.pack("=I", flags))]
        self._block(_PACKET, head + _padded(data), options)

    def _block(self, kind: int, body: bytes, options: Sequence[tuple[int, bytes]]) -> None:
        for code, value in options:
            body += struct.pack("=HH", code, len(value)) + _padded(value)
        body += struct.pack("=HH", _END, 0)
        length = struct.pack("=I", len(body) + 12)
        self._file.write(struct.pack("=I", kind) + length + body + length)


def _padded(data: bytes) -> bytes:
    """``data``, filled up to whole words of 32 bits."""
    return data + bytes(-len(data) % 4)
