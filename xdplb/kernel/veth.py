"""The other end of a veth pair: it takes what XDP sends only when it is prepared.

A frame that XDP redirects into a veth waits in the peer's ring until NAPI fetches it, and
the peer runs NAPI only with GRO on or an XDP program of its own (drivers/net/veth.c).
XDP_TX even insists on the program. So the peer's GRO is switched on, wherever it lives.
"""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from pyroute2 import Ethtool

from xdplb.facts import Prepared
from xdplb.kernel import netns, program
from xdplb.model import Mode
from xdplb.state import Restore

if TYPE_CHECKING:
    from pathlib import Path

    from xdplb.facts import Link
    from xdplb.kernel.links import Network

_GRO: Final = "generic-receive-offload"


def prepare(link: Link, network: Network) -> Prepared:
    """Make the peer of ``link`` take what a native program sends."""
    if link.peer_index is None:
        return Prepared(redirect=False)
    path, is_found = _peer_namespace(link, network)
    if not is_found:
        return Prepared(
            redirect=True,
            warning=f"the peer of {link.name} is in a network namespace out of reach: run "
            f"'ethtool -K NAME gro on' there, for the interface with index {link.peer_index}",
        )
    with netns.inside(path):
        name = netns.interface_name(link.peer_index)
        if name is None:
            return Prepared(redirect=True, warning=f"the peer of {link.name} has gone")
        attached = program.attached(link.peer_index)
        if attached is not None and attached.mode is Mode.NATIVE:
            return Prepared(redirect=False)
        try:
            was_on = _switch_gro(name, on=True)
        except OSError as error:
            return Prepared(
                redirect=True,
                warning=f"GRO of {name}, the peer of {link.name}, stays off "
                f"({error.strerror}): run 'ethtool -K {name} gro on' in its namespace",
            )
        restore = None if was_on else Restore("gro", netns.identity(), link.peer_index)
        return Prepared(redirect=True, restore=restore)


def restore(item: Restore, network: Network) -> None:
    """Put back what ``up`` changed, if it is still to be found."""
    if item.what == "neighbour":
        network.unmanage(item.ifindex, ip_address(item.address), existed=item.existed)
        return
    path = None
    if item.netns != netns.identity():
        path = next((path for path in netns.candidates() if _inode(path) == item.netns), None)
        if path is None:
            return  # the namespace has gone, and the interface with it
    with netns.inside(path):
        name = netns.interface_name(item.ifindex)
        if name is not None:
            with suppress(OSError):
                _switch_gro(name, on=False)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def _switch_gro(name: str, *, on: bool) -> bool:
    """Set GRO of an interface in the current namespace; returns what it was."""
    with Ethtool() as tool:
        was_on = bool(tool.get_offload_flags(name)[_GRO])
        if was_on != on:
            tool.set_offload_flag(name, _GRO, on)
        return was_on


def _peer_namespace(link: Link, network: Network) -> tuple[Path | None, bool]:
    """Where the peer lives: a path, or None for here; and whether that is known."""
    if link.peer_nsid is None:
        return None, True
    for path in netns.candidates():
        try:
            fd = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        try:
            if network.namespace_number(fd) == link.peer_nsid:
                return path, True
        finally:
            os.close(fd)
    return None, False
