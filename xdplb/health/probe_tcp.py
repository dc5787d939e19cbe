"""A connection that is made, and closed again."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xdplb.health.target import Target


async def probe_tcp(target: Target) -> None:
    """Connect, and close without a byte.

    Raises:
        OSError: There is no connection.
    """
    with socket.socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        await asyncio.get_running_loop().sock_connect(sock, target.endpoint)
