"""The socket that is listened on; a port that another one has is found out before anything else."""

from __future__ import annotations

import errno
import os
import socket
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xdplb.errors import InvalidValueError, NotReadyError, PrivilegeError
from xdplb.model import IPV6

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdplb.listen import Listen
    from xdplb.model import Endpoint

BACKLOG: Final = 16
_MODE: Final = 0o660
"""Of a Unix socket: who may write to it may ask."""


@contextmanager
def listening(listen: Listen) -> Iterator[socket.socket]:
    """A socket that listens; a file that it made goes with it.

    Raises:
        XdplbError: It cannot be had.
    """
    place = listen.place
    if isinstance(place, Path):
        sock = _at_path(place)
        mine = place.stat()
    else:
        sock, mine = _at_port(place), None
    try:
        with sock:
            sock.listen(BACKLOG)
            yield sock
    finally:
        if isinstance(place, Path) and mine is not None:
            with suppress(OSError):
                if os.path.samestat(place.stat(), mine):
                    place.unlink()


def _at_port(place: Endpoint) -> socket.socket:
    family = socket.AF_INET6 if place.address.version == IPV6 else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((f"{place.address}", place.port))
    except OSError as error:
        sock.close()
        raise _refusal(f"{place}", error) from error
    return sock


def _refusal(place: str, error: OSError) -> NotReadyError:
    """Why a port cannot be had, and what helps."""
    if error.errno == errno.EADDRINUSE:
        return NotReadyError(
            f"another process listens on {place}", "'ss -ltnp' shows which; or take another port"
        )
    if error.errno == errno.EADDRNOTAVAIL:
        return NotReadyError(
            f"{place} is no address of this network namespace",
            "'ip address' lists them; the interface lo has to be up",
        )
    if error.errno == errno.EACCES:
        return PrivilegeError(f"listen on {place}")
    return NotReadyError(f"cannot listen on {place}: {error.strerror}", "take another address")


def _at_path(path: Path) -> socket.socket:
    """A Unix socket, in the place of one whose process has ended."""
    _clear(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o777 & ~_MODE)
        try:
            sock.bind(f"{path}")
        finally:
            os.umask(before)
    except OSError as error:
        sock.close()
        raise NotReadyError(
            f"cannot listen on {path}: {error.strerror}", "its directory has to be there"
        ) from error
    return sock


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on.

    Raises:
        InvalidValueError: Something else is there.
        NotReadyError: Somebody listens on it.
    """
    if not path.exists():
        return
    if not path.is_socket():
        raise InvalidValueError(f"{path} is there, and no socket", "name another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(f"{path}") != errno.ECONNREFUSED:
            raise NotReadyError(
                f"another process listens on {path}", "'ss -lxp' shows which; or take another path"
            )
    path.unlink(missing_ok=True)
