"""Where the agent is spoken to: an address and a port, or a Unix socket.

Whoever comes is answered without a question. So it is this machine alone, unless that is wanted.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xdplb.errors import InvalidValueError
from xdplb.model import Endpoint
from xdplb.parsing import parse_endpoint

_LONGEST_PATH: Final = 107
"""Bytes of ``sun_path``, without the zero at its end (unix(7))."""
_HINT: Final = "write it like 127.0.0.1:9170, [::1]:9170 or /run/xdplb/agent.sock"


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the agent is spoken to.

    Attributes:
        place: An address and a port, or the path of a Unix socket.
        allow_remote: Others than this machine may be able to reach it.
    """

    place: Endpoint | Path
    allow_remote: bool = False

    def __post_init__(self) -> None:
        """Refuse what strangers could reach, unless that is wanted.

        Raises:
            InvalidValueError: They could.
        """
        if not self.allow_remote and not self._is_local:
            raise InvalidValueError(
                f"whoever reaches {self} could read everything: nobody is asked for a password",
                "listen on 127.0.0.1, [::1] or a Unix socket, perhaps behind a proxy that asks; "
                "--allow-remote does it all the same",
            )

    def __str__(self) -> str:
        """As it is written."""
        return f"{self.place}"

    @property
    def _is_local(self) -> bool:
        return isinstance(self.place, Path) or self.place.address.is_loopback


def parse_place(text: str) -> Endpoint | Path:
    """``ADDR:PORT``, or the absolute path of a Unix socket.

    Raises:
        InvalidValueError: It is neither.
    """
    if text.startswith("/"):
        if len(text.encode()) > _LONGEST_PATH or "\0" in text:
            raise InvalidValueError(
                f"{text!r} is no path of a Unix socket", f"it has up to {_LONGEST_PATH} bytes"
            )
        return Path(text)
    try:
        address, port = parse_endpoint(text)
    except InvalidValueError as error:
        raise InvalidValueError(f"{error}", _HINT) from None
    if port is None:
        raise InvalidValueError(f"{text!r} has no port", _HINT)
    return Endpoint(address, port)
