"""Who is asked, and how a bad answer is told."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xdplb.model import IPV4

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdplb.model import Address, Protocol

MAX_QUOTE: Final = 120


class ProbeFailed(Exception):  # noqa: N818 - an answer that is bad, not a fault of the program
    """The answer was bad, or there was none.

    Attributes:
        reason: Why, in a few words for a person.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Target:
    """A backend as it is asked.

    Attributes:
        address: Its address.
        port: The port to ask at; None where there is none, which suits ICMP and commands only.
        protocol: What it is balanced for.
        service: The name of the service, for messages.
    """

    address: Address
    port: int | None
    protocol: Protocol
    service: str = ""

    @property
    def family(self) -> socket.AddressFamily:
        """The family of sockets that reach it."""
        return socket.AF_INET if self.address.version == IPV4 else socket.AF_INET6

    @property
    def endpoint(self) -> tuple[str, int]:
        """Address and port, as a socket takes them.

        Raises:
            ProbeFailed: There is no port.
        """
        if self.port is None:
            raise ProbeFailed("no port is known to ask at")
        return f"{self.address}", self.port


def os_reason(error: OSError) -> str:
    """What the system says about an error, as a phrase: "connection refused"."""
    if error.errno is None:
        return quoted(f"{error}") or type(error).__name__
    return os.strerror(error.errno).lower()


def quoted(text: str) -> str:
    """Text from outside, as one short line that no terminal takes for more than text."""
    line = "".join(letter if letter.isprintable() else "?" for letter in text.strip())
    return line if len(line) <= MAX_QUOTE else f"{line[: MAX_QUOTE - 3]}..."


def shown(data: bytes) -> str:
    """Bytes as a person can read them."""
    return quoted(repr(data).removeprefix("b"))


@contextmanager
def datagram_socket(target: Target) -> Iterator[socket.socket]:
    """A UDP socket that is connected to the target.

    Connected, for then only the target's datagrams are read, and its ICMP port unreachables
    are reported to the socket (RFC 1122 4.1.3.3).

    Raises:
        ProbeFailed: The port is unreachable, also when that is found out by what the caller
            does with the socket.
    """
    with socket.socket(target.family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(target.endpoint)
            yield sock
        except ConnectionRefusedError:
            raise ProbeFailed("port unreachable") from None
