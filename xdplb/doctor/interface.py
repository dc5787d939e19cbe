"""What is to be thought of an interface, used by a balancer or not yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from xdplb.doctor.findings import Fix, Opinion, bad, ethtool, good, poor
from xdplb.model import Mode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xdplb.doctor.evidence import Hanging, Interface, Peer
    from xdplb.facts import Link
    from xdplb.model import Address
    from xdplb.state import AttachedTo

_TOGETHER: Final = ("rx-lro", "rx-gro-hw")
_SHORT: Final = {"rx-lro": "lro", "rx-gro-hw": "rx-gro-hw"}
_VLAN: Final = "rx-vlan-hw-parse"


@dataclass(frozen=True, slots=True)
class Use:
    """What a balancer makes of an interface.

    Attributes:
        mode: How its program hangs there; None where there is no balancer yet.
        before: The interface as it was when the program was compiled.
        program_id: That of the balancer.
        several: It is not the balancer's only one.
        has_tags: A backend is behind a VLAN.
    """

    mode: Mode | None = None
    before: AttachedTo | None = None
    program_id: int | None = None
    several: bool = False
    has_tags: bool = False


UNUSED: Final = Use()


def link(found: Interface, peer: Peer | None) -> Opinion:
    """Whether packets can come and go."""
    name = found.link.name
    if not found.is_up:
        up, down = f"ip link set dev {name} up", f"ip link set dev {name} down"
        return bad(f"{name} is down", Fix(up, down))
    if peer is not None and not peer.is_up:
        up, down = f"ip link set dev {peer.name} up", f"ip link set dev {peer.name} down"
        return bad(f"{peer.name}, the peer of {name}, is down", Fix(up, down, place=peer.path))
    if not found.has_carrier:
        return bad(f"{name} has no carrier", hint="the other end is down, or the cable unplugged")
    if found.master:
        return poor(
            f"{name} is a part of {found.master}, which has the addresses and the routes",
            Fix(
                f"ip link set dev {name} nomaster", f"ip link set dev {name} master {found.master}"
            ),
            hint=f"balance on {found.master} instead, or take {name} out of it",
        )
    return good(f"{name} is up")


def program(name: str, hanging: Hanging | None, use: Use) -> Opinion:
    """Whether what hangs there is what should."""
    if use.program_id is not None:
        if hanging is None:
            return bad(
                f"the balancer's program {use.program_id} is no longer on {name}",
                hint="the same 'xdplb up' again attaches it",
            )
        if hanging.program_id != use.program_id:
            return bad(
                f"{name} carries {hanging.words} instead of the balancer's program "
                f"{use.program_id}",
                Fix(f"ip link set dev {name} xdp off"),
                hint="then the same 'xdplb up' again",
            )
        return good(f"the balancer's program {use.program_id}")
    if hanging is None:
        return good(f"no XDP program is on {name}")
    if hanging.is_ours:
        return good(f"{hanging.words}, a balancer's")
    return bad(
        f"{name} carries XDP {hanging.words}, which is not xdplb's",
        Fix(f"ip link set dev {name} xdp off"),
        hint="only if nobody needs it",
    )


def width(link: Link, found: Peer | None, use: Use) -> Opinion:
    """Whether both ends, and the program, take packets of the same length."""
    if found is not None and found.mtu != link.mtu:
        narrow = min(found.mtu, link.mtu)
        here = link.mtu > found.mtu
        fix = Fix(
            f"ip link set dev {link.name if here else found.name} mtu {narrow}",
            f"ip link set dev {link.name if here else found.name} "
            f"mtu {link.mtu if here else found.mtu}",
            place="" if here else found.path,
        )
        return bad(
            f"{link.name} has an MTU of {link.mtu}, its peer {found.name} one of {found.mtu}: "
            f"what is longer than {narrow} is lost",
            fix,
        )
    if use.several and use.before is not None and use.before.mtu not in {0, link.mtu}:
        return poor(
            f"the MTU of {link.name} is {link.mtu}, and was {use.before.mtu} when the balancer "
            "was started, which still goes by that",
            hint="the same 'xdplb up' again, or 'xdplb run', which follows such changes",
        )
    return good(f"{link.mtu} bytes")


def mac(link: Link, use: Use) -> Opinion:
    """Whether the program knows the interface's MAC address."""
    now = link.mac.hex(":")
    if use.before is not None and use.before.mac not in {"", now}:
        return bad(
            f"the MAC address of {link.name} is {now}, but was {use.before.mac} when the balancer "
            "was started: it takes no packet for its own any more",
            Fix(
                f"ip link set dev {link.name} address {use.before.mac}",
                f"ip link set dev {link.name} address {now}",
            ),
            hint="or the same 'xdplb up' again, or 'xdplb run', which follows such changes",
        )
    return good(now)


def offloads(link: Link, on: Mapping[str, bool], use: Use) -> Opinion:
    """Whether the device puts packets together before XDP sees them."""
    wrong = [item for item in _TOGETHER if on.get(item)]
    if wrong and (use.mode is not Mode.GENERIC or use.several):
        words = [_SHORT[item] for item in wrong]
        return poor(
            f"{' and '.join(words)} of {link.name} is on: the device puts packets together, and "
            "what is longer than the MTU may be refused or lost",
            Fix(ethtool(link.name, words, "off"), ethtool(link.name, words, "on")),
            hint="some devices lose their link for a moment when this is switched",
        )
    if use.mode is Mode.GENERIC and use.several and link.is_stacked:
        return poor(
            f"packets may be put together before they come to {link.name}, and those are lost",
            hint="run 'ethtool -K NAME gro off' for each interface below it",
        )
    return good("packets come one by one")


def vlan(found: Interface, on: Mapping[str, bool], use: Use) -> Opinion:
    """Whether the device hides VLAN tags from XDP."""
    link = found.link
    is_used = bool(found.vlans) or use.has_tags
    if is_used and not link.kind and on.get(_VLAN):
        return poor(
            f"rxvlan of {link.name} is on: the device takes VLAN tags off before XDP sees them",
            Fix(f"ethtool -K {link.name} rxvlan off", f"ethtool -K {link.name} rxvlan on"),
        )
    if is_used:
        return good("VLAN tags are left in their frames")
    return good(f"no VLAN interface is on {link.name}")


def address(name: str, found: Sequence[Address]) -> Opinion:
    """Whether a service could have the interface's own address."""
    if not found:
        return poor(
            f"{name} has no address that a service could have",
            Fix(f"ip address add ADDR/LEN dev {name}"),
            hint="or say --service ADDR",
        )
    return good(", ".join(f"{item}" for item in found))
