"""Network namespaces: enter one, find others, and what this one says of itself."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from xdplb.errors import BusyError, InvalidValueError, PrivilegeError
from xdplb.model import PortRange

if TYPE_CHECKING:
    from collections.abc import Iterator

CLONE_NEWNET: Final = 0x40000000
_NAMED: Final = Path("/run/netns")
_OWN: Final = Path("/proc/thread-self/ns/net")
"""Of the thread: the process has the one of its first thread, which another may have left."""
_LOCK: Final = "\0xdplb"
_LOCKED_WITHIN_S: Final = 5.0
_LOCK_POLL_S: Final = 0.02
_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def _setns(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def enter(name_or_path: str) -> None:
    """Move this process into a network namespace, for good. Mounts stay as they are.

    Args:
        name_or_path: A name that ``ip netns`` knows, or a path such as /proc/PID/ns/net.

    Raises:
        InvalidValueError: There is no such namespace.
        PrivilegeError: The process may not enter it.
    """
    path = Path(name_or_path) if "/" in name_or_path else _NAMED / name_or_path
    try:
        fd = os.open(path, os.O_RDONLY)
    except PermissionError:
        raise PrivilegeError(f"open the network namespace {name_or_path}") from None
    except OSError as error:
        raise InvalidValueError(
            f"no network namespace {name_or_path!r}: {error.strerror}",
            "'ip netns' lists the names; a path has a slash in it",
        ) from error
    try:
        _setns(fd)
    except PermissionError:
        raise PrivilegeError(f"enter the network namespace {name_or_path}") from None
    except OSError as error:
        raise InvalidValueError(
            f"{name_or_path!r} is no network namespace: {error.strerror}",
            "give a name that 'ip netns' lists, or a path such as /proc/PID/ns/net",
        ) from error
    finally:
        os.close(fd)


@contextmanager
def inside(path: Path | None) -> Iterator[None]:
    """Be in the namespace at ``path`` for a while; None stays where it is."""
    if path is None:
        yield
        return
    home = os.open(_OWN, os.O_RDONLY)
    try:
        there = os.open(path, os.O_RDONLY)
        try:
            _setns(there)
        finally:
            os.close(there)
        yield
    finally:
        _setns(home)
        os.close(home)


@contextmanager
def visit(name_or_path: str | None) -> Iterator[None]:
    """Be in a namespace for a while, as ``enter`` names it; None stays where it is.

    Raises:
        XdplbError: As ``enter``.
    """
    if name_or_path is None:
        yield
        return
    home = os.open(_OWN, os.O_RDONLY)
    try:
        enter(name_or_path)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(home)


def names() -> list[str]:
    """What ``ip netns`` calls the namespaces that it knows."""
    return sorted(path.name for path in _NAMED.glob("*"))


@contextmanager
def lock() -> Iterator[None]:
    """Be the only one who changes balancers in this namespace; wait for another one, but not long.

    The lock is an abstract socket name: each namespace has its own, there is no file, and
    the kernel frees it however the process ends (unix(7)).

    Raises:
        BusyError: Another process has it.
    """
    deadline = time.monotonic() + _LOCKED_WITHIN_S
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as holder:
        while not is_bound(holder, _LOCK):
            if time.monotonic() > deadline:
                raise BusyError(
                    "another xdplb is changing a balancer in this network namespace",
                    "run this again when it is done; 'xdplb status' shows what it did",
                )
            time.sleep(_LOCK_POLL_S)
        yield


def is_bound(sock: socket.socket, name: str) -> bool:
    """Give a socket an abstract name (unix(7)), unless another one has it."""
    try:
        sock.bind(name)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return False
    return True


def identity() -> int:
    """A number that no other network namespace of this machine has now: its inode."""
    return _OWN.stat().st_ino


def interface_name(index: int) -> str | None:
    """What the interface with that index is called here; None if it is not here."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return None


def interface_index(name: str) -> int | None:
    """The index of the interface with that name; None if it is not here."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def interface_names() -> list[str]:
    """What the interfaces here are called."""
    return [name for _, name in socket.if_nameindex()]


def ephemeral_ports() -> PortRange:
    """The ports that the host takes for its own connections, in this namespace."""
    first, last = _EPHEMERAL.read_text().split()
    return PortRange(int(first), int(last))


def candidates() -> Iterator[Path]:
    """Paths of every other namespace in reach, each once: the named ones, then processes'."""
    seen = {identity()}
    processes = sorted(Path("/proc").glob("[0-9]*/ns/net"))
    for path in [*sorted(_NAMED.glob("*")), *processes]:
        try:
            number = path.stat().st_ino
        except OSError:
            continue
        if number not in seen:
            seen.add(number)
            yield path
