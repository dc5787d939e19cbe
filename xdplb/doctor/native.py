"""Whether the program can hang in the driver, and whether what it sends arrives."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Final

from xdplb.doctor.findings import Fix, Opinion, Repair, bad, ethtool, good, poor
from xdplb.model import Mode

if TYPE_CHECKING:
    from xdplb.doctor.evidence import Peer
    from xdplb.doctor.interface import Use
    from xdplb.facts import Link

_BASIC: Final = 1 << 0
TAKES_REDIRECTED: Final = 1 << 2
"""Of the kernel's NETDEV_XDP_ACT flags; on veth the latter says that the peer runs NAPI."""

_WIDEST: Final = mmap.PAGESIZE - 590
"""The MTU that a veth peer may have: a page, without headroom, Ethernet and skb_shared_info."""


def mode(
    link: Link, features: int | None, peer: Peer | None, queues: int | None, use: Use
) -> Opinion:
    """In which mode the program hangs there, or would, and why."""
    hindrance = _hindrance(link, features, peer, queues)
    if use.mode is Mode.NATIVE:
        return good("native")
    if hindrance is not None:
        return poor(f"generic, which is slower: {hindrance.reason}", hindrance.fix, hindrance.hint)
    if use.mode is Mode.GENERIC:
        return poor(
            f"generic, which is slower, though nothing is to be seen that keeps {link.name} "
            "from native mode",
            hint="'xdplb down', then 'xdplb up' without --mode; live flows end with it",
        )
    return good("native mode is possible" if features is not None else "'up' tries native mode")


def _hindrance(
    link: Link, features: int | None, peer: Peer | None, queues: int | None
) -> Opinion | None:
    """What keeps an interface from native mode."""
    if link.is_generic_only:
        of_vlan = f"balance on the interface below {link.name}, which knows its VLANs"
        return poor(
            f"interfaces of the kind {link.kind or link.name} have no native XDP",
            hint=of_vlan if link.lower else "",
        )
    if peer is not None and peer.mtu > _WIDEST:
        return poor(
            f"the peer {peer.name} has an MTU of {peer.mtu}, more than {_WIDEST}",
            Fix(
                f"ip link set dev {peer.name} mtu {_WIDEST}",
                f"ip link set dev {peer.name} mtu {peer.mtu}",
                place=peer.path,
            ),
            hint=f"and the same for {link.name}",
        )
    if peer is not None and queues is not None and (peer.tx_queues or 0) > queues:
        return poor(
            f"the peer {peer.name} sends by {peer.tx_queues} queues, {link.name} receives by "
            f"{queues}",
            Fix(
                f"ethtool -L {link.name} rx {peer.tx_queues}",
                f"ethtool -L {link.name} rx {queues}",
            ),
        )
    if features is not None and not features & _BASIC:
        return poor(f"the driver of {link.name} has no native XDP, or not as it is set up")
    if not link.kind and link.mtu > _WIDEST:
        return poor(
            f"an MTU of {link.mtu} is more than most drivers take in native mode",
            Fix(
                f"ip link set dev {link.name} mtu {_WIDEST}",
                f"ip link set dev {link.name} mtu {link.mtu}",
            ),
        )
    return None


def peer(link: Link, found: Peer | None, features: int | None, use: Use) -> Opinion:
    """Whether the other end of a veth pair does its part."""
    if use.mode is Mode.GENERIC:
        return _cut(link, found, several=use.several)
    if found is None:
        return _out_of_reach(link, features)
    return _takes(link, found, use)


def _out_of_reach(link: Link, features: int | None) -> Opinion:
    """Whether a peer that nobody can look at takes what XDP sends."""
    if features is not None and features & TAKES_REDIRECTED:
        return good("out of reach, but takes what is sent to it")
    return poor(
        f"the peer of {link.name} is in a network namespace out of reach, and "
        + ("its GRO is off" if features is not None else "nobody knows its GRO"),
        hint=f"run 'ethtool -K NAME gro on' there, for the interface with index "
        f"{link.peer_index}, or nothing that is sent will arrive",
    )


def _takes(link: Link, found: Peer, use: Use) -> Opinion:
    """Whether a peer takes what XDP sends."""
    if found.is_native:
        return good(f"{found.name} has an XDP program of its own, and takes what is sent to it")
    if found.gro:
        return good(f"GRO of {found.name} is on, so it takes what is sent to it")
    if use.mode is None:
        return good(f"GRO of {found.name} is off; 'up' switches it on")
    return bad(
        f"GRO of {found.name}, the peer of {link.name}, is off: all that is sent to it is lost",
        Fix(
            f"ethtool -K {found.name} gro on",
            f"ethtool -K {found.name} gro off",
            Repair("gro", found.netns, found.index),
            found.path,
        ),
    )


def _cut(link: Link, found: Peer | None, *, several: bool) -> Opinion:
    """Whether a generic program meets packets that the kernel takes for another interface."""
    if not several:
        return good("generic mode asks nothing of it")
    if found is None:
        return poor(
            f"the peer of {link.name} is in a network namespace out of reach, and may send "
            "packets larger than the MTU, which are lost",
            hint="run 'ethtool -K NAME tx-tcp-segmentation off tx-tcp6-segmentation off "
            f"tx-udp-segmentation off' there, for the interface with index {link.peer_index}",
        )
    if not found.segmentation:
        return good(f"{found.name} cuts what it sends to the MTU")
    return bad(
        f"{found.name}, the peer of {link.name}, sends packets larger than the MTU, which are lost",
        Fix(
            ethtool(found.name, found.segmentation, "off"),
            ethtool(found.name, found.segmentation, "on"),
            Repair("segmentation", found.netns, found.index, features=found.segmentation),
            found.path,
        ),
    )
