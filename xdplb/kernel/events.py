"""That something has changed: links, addresses, routes, neighbours (rtnetlink(7)).

What has changed is not read from the messages: some may be lost when many come at once, and
then only a look at the whole is right. So a message only says that it is time for one.
"""

from __future__ import annotations

import errno
import socket
from typing import Final

from xdplb.kernel.closing import Closing

_LINK: Final = 0x1
_NEIGHBOUR: Final = 0x4
_IPV4_ADDRESS: Final = 0x10
_IPV4_ROUTE: Final = 0x40
_IPV6_ADDRESS: Final = 0x100
_IPV6_ROUTE: Final = 0x400
OF_INTERFACES: Final = _LINK | _IPV4_ADDRESS | _IPV6_ADDRESS
"""Also that a program has been attached or taken off."""

ALL: Final = OF_INTERFACES | _NEIGHBOUR | _IPV4_ROUTE | _IPV6_ROUTE
_MOST: Final = 1 << 16


class Events(Closing):
    """A socket that becomes readable when something has changed in this network namespace."""

    def __init__(self, groups: int = ALL) -> None:
        """Begin to listen to all, or only to ``OF_INTERFACES``."""
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
        )
        self._socket.bind((0, groups))

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()

    def fileno(self) -> int:
        """The descriptor, for an event loop."""
        return self._socket.fileno()

    def clear(self) -> None:
        """Throw away what has come: it is not readable until something else changes."""
        while True:
            try:
                self._socket.recv(_MOST)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:  # some were lost, which does not matter
                    raise
