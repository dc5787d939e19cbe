"""How it is found out whether a backend is healthy: what is asked, and when it counts.

Plain data with the rules it keeps by itself; ``xdplb.health`` does the asking.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

from xdplb.errors import InvalidValueError

MAX_PORT: Final = 65535
DEFAULT_STATUS: Final = "200-399"


class BelowMinimum(StrEnum):
    """What happens when fewer backends are healthy than a service needs.

    FAIL_OPEN keeps the last set that was enough; FAIL_CLOSED takes them out all the same.
    """

    FAIL_OPEN = "fail-open"
    FAIL_CLOSED = "fail-closed"


@dataclass(frozen=True, slots=True)
class IcmpCheck:
    """An echo request, and the reply to it (RFC 792, RFC 4443)."""


@dataclass(frozen=True, slots=True)
class TcpCheck:
    """A connection that is made, and closed again."""


@dataclass(frozen=True, slots=True)
class HttpCheck:
    """A GET request (RFC 9110).

    Attributes:
        tls: By HTTPS.
        path: What is asked for.
        host: The Host header, and the name in TLS; empty for the backend's address.
        status: The codes that are good: ``200``, ``200-399``, or several with commas.
        body: What the answer has to contain; empty for anything.
        verify: The certificate must be good for ``host``.
    """

    tls: bool = False
    path: str = "/"
    host: str = ""
    status: str = DEFAULT_STATUS
    body: str = ""
    verify: bool = True


@dataclass(frozen=True, slots=True)
class UdpCheck:
    """A datagram, and an answer to it that contains ``expect``; empty for any answer."""

    send: bytes
    expect: bytes = b""


@dataclass(frozen=True, slots=True)
class DnsCheck:
    """A question over UDP, which must be answered with NOERROR and at least one record."""

    name: str
    type: str = "A"


@dataclass(frozen=True, slots=True)
class ExecCheck:
    """A command that ends with 0.

    It finds ``XDPLB_ADDRESS``, ``XDPLB_PORT`` and ``XDPLB_PROTOCOL`` in its environment.
    """

    command: tuple[str, ...]


Check: TypeAlias = IcmpCheck | TcpCheck | HttpCheck | UdpCheck | DnsCheck | ExecCheck


@dataclass(frozen=True, slots=True)
class Health:
    """How the backends of a service are watched.

    Attributes:
        check: What is asked; None to judge by the traffic alone.
        port: Where; None for the port that the backend serves.
        interval: Seconds from one check of a backend to the next.
        timeout: Seconds until no answer is a bad one.
        rise: Good answers in a row after which a backend takes traffic again.
        fall: Bad ones after which it takes none.
        jitter: By what part of it an interval may be shorter or longer.
        passive: A backend that is asked and stays silent while others answer is checked at once.
        min_healthy: How many backends the service needs.
        below: What happens when it has fewer.
    """

    check: Check | None = None
    port: int | None = None
    interval: float = 2.0
    timeout: float = 1.0
    rise: int = 2
    fall: int = 3
    jitter: float = 0.1
    passive: bool = True
    min_healthy: int = 1
    below: BelowMinimum = BelowMinimum.FAIL_OPEN

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            InvalidValueError: With the value, the reason and what to do.
        """
        for name, value, least, most in (
            ("interval", self.interval, 0.1, 3600),
            ("timeout", self.timeout, 0.01, 3600),
            ("rise", self.rise, 1, 1000),
            ("fall", self.fall, 1, 1000),
            ("jitter", self.jitter, 0, 0.9),
            ("min-healthy", self.min_healthy, 0, 65535),
        ):
            if not least <= value <= most:
                raise InvalidValueError(
                    f"health {name} {value} is out of range", f"it is {least} to {most}"
                )
        if self.port is not None and not 1 <= self.port <= MAX_PORT:
            raise InvalidValueError(
                f"health port {self.port} is out of range", f"ports are 1 to {MAX_PORT}"
            )
