"""The other end of a veth pair, which XDP cannot do without.

Native mode: a frame that XDP redirects into a veth waits in the peer's ring until NAPI fetches
it, and the peer runs NAPI only with GRO on or an XDP program of its own (drivers/net/veth.c).
XDP_TX even insists on the program. So the peer's GRO is switched on, wherever it lives.

Generic mode: a veth hands on what its peer's stack has not cut, TCP segments and UDP datagrams
of up to 64 KB in one piece, and the kernel redirects none of them by another interface
(xdp_ok_fwd_dev). So the peer's stack is told to cut them, as the kernel itself does for a native
program (veth_xdp_set). GRO of the interface itself does not matter: the kernel puts nothing
together before a generic program (netif_elide_gro).
"""

from __future__ import annotations

import os
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING

from xdplb.facts import Prepared, Split
from xdplb.kernel import netns, offloads, program
from xdplb.model import Mode
from xdplb.state import Restore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from xdplb.facts import Link
    from xdplb.kernel.links import Network


def prepare(link: Link, network: Network) -> Prepared:
    """What makes the peer of ``link`` take what a native program sends."""
    if link.peer_index is None:
        return Prepared(redirect=False)
    path, is_found = peer_namespace(link, network)
    if not is_found:
        return Prepared(
            redirect=True,
            warning=_out_of_reach(link, "ethtool -K NAME gro on"),
        )
    with netns.inside(path):
        name = netns.interface_name(link.peer_index)
        if name is None:
            return Prepared(redirect=True, warning=f"the peer of {link.name} has gone")
        attached = program.attached(link.peer_index)
        if attached is not None and attached.mode is Mode.NATIVE:
            return Prepared(redirect=False)
        with suppress(OSError):
            if offloads.has_gro(name):
                return Prepared(redirect=True)
        return Prepared(redirect=True, restore=Restore("gro", netns.identity(), link.peer_index))


def switch_gro(item: Restore) -> str:
    """Switch GRO on where ``item`` switches it off; returns what a person has to do, or nothing."""
    path = _path_of(item.netns)
    with netns.inside(path):
        name = netns.interface_name(item.ifindex)
        if name is None:
            return ""
        try:
            offloads.switch_gro(name, on=True)
        except OSError as error:
            return (
                f"GRO of {name}, the peer of the balancer, stays off "
                f"({error.strerror}): run 'ethtool -K {name} gro on' in its namespace"
            )
    return ""


def cut(number: int, ifindex: int, features: Sequence[str]) -> str:
    """Let an interface's stack cut what it sends; returns what a person has to do, or nothing.

    Args:
        number: Inode of its network namespace.
        ifindex: The interface there.
        features: The kernel's names of what is to be switched off.
    """
    with netns.inside(_path_of(number)):
        name = netns.interface_name(ifindex)
        return "" if name is None else "".join(_switch_off(name, ifindex, features).warnings)


def split(link: Link, network: Network) -> Split:
    """Make sure that no super-packet meets a generic program on ``link``."""
    parts = [_switch_off(link.name, link.index, offloads.RECEIVE)]
    if link.peer_index is not None:
        parts.append(_split_peer(link, link.peer_index, network))
    elif link.is_stacked:
        warning = (
            f"packets may be put together before they come to {link.name}, and those would not "
            "pass: run 'ethtool -K NAME gro off' for the interfaces below it"
        )
        parts.append(Split(warnings=(warning,)))
    return Split(
        off=frozenset().union(*(part.off for part in parts)),
        changed=tuple(item for part in parts for item in part.changed),
        warnings=tuple(item for part in parts for item in part.warnings),
    )


def _split_peer(link: Link, peer_index: int, network: Network) -> Split:
    """Let the stack at the other end of ``link`` cut what it sends."""
    path, is_found = peer_namespace(link, network)
    if not is_found:
        words = offloads.command("NAME", offloads.SEGMENTATION)
        return Split(warnings=(_out_of_reach(link, words),))
    with netns.inside(path):
        name = netns.interface_name(peer_index)
        if name is None:
            return Split(warnings=(f"the peer of {link.name} has gone",))
        return _switch_off(name, peer_index, offloads.SEGMENTATION)


def _switch_off(name: str, index: int, features: Sequence[str]) -> Split:
    """Switch offloads of an interface in the current namespace off."""
    changed, stuck = offloads.switch(name, features, on=False)
    place = netns.identity()
    items = {item: Restore("offload", place, index, feature=item) for item in features}
    warning = (
        f"{', '.join(stuck)} of {name} cannot be switched off, and packets larger than the MTU "
        f"will not pass: try '{offloads.command(name, stuck)}' in its namespace"
    )
    return Split(
        off=frozenset(items.values()),
        changed=tuple(items[item] for item in changed),
        warnings=(warning,) if stuck else (),
    )


def _out_of_reach(link: Link, command: str) -> str:
    return (
        f"the peer of {link.name} is in a network namespace out of reach: run '{command}' "
        f"there, for the interface with index {link.peer_index}"
    )


def restore(item: Restore, network: Network) -> None:
    """Put back what ``up`` changed, if it is still to be found."""
    if item.what == "neighbour":
        network.unmanage(item.ifindex, ip_address(item.address), existed=item.existed)
        return
    path = _path_of(item.netns)
    if path is None and item.netns != netns.identity():
        return  # the namespace has gone, and the interface with it
    with netns.inside(path):
        name = netns.interface_name(item.ifindex)
        if name is None:
            return
        if item.what == "offload":
            offloads.switch(name, (item.feature,), on=True)
            return
        with suppress(OSError):
            offloads.switch_gro(name, on=False)


def _path_of(number: int) -> Path | None:
    """Where the namespace with that inode is; None for the current one, or if it has gone."""
    if number == netns.identity():
        return None
    return next((path for path in netns.candidates() if _inode(path) == number), None)


def _inode(path: Path) -> int:
    try:
        return path.stat().st_ino
    except OSError:
        return 0


def peer_namespace(link: Link, network: Network) -> tuple[Path | None, bool]:
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
