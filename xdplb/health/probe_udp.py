"""A datagram, and an answer to it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from xdplb.health.target import ProbeFailed, datagram_socket, shown

if TYPE_CHECKING:
    from xdplb.checks import UdpCheck
    from xdplb.health.target import Target

MAX_ANSWER: Final = 65535


async def probe_udp(check: UdpCheck, target: Target) -> None:
    """Send, and look at the first answer.

    Raises:
        ProbeFailed: The port is unreachable, or the answer is another one.
        OSError: It cannot be sent.
    """
    loop = asyncio.get_running_loop()
    with datagram_socket(target) as sock:
        await loop.sock_sendall(sock, check.send)
        answer = await loop.sock_recv(sock, MAX_ANSWER)
    if check.expect not in answer:
        raise ProbeFailed(f"answer does not contain {shown(check.expect)}")
