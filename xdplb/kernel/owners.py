"""Who has the balancer's addresses: this host, where, or another one."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

from xdplb.doctor.evidence import Owner
from xdplb.errors import XdplbError
from xdplb.kernel import arp, netns

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from xdplb.kernel.links import Network
    from xdplb.kernel.views import Held, Views
    from xdplb.model import Address


def owners(
    addresses: Collection[Address], indexes: Sequence[int], views: Views, network: Network
) -> dict[Address, Owner]:
    """Who has these addresses, here and on the networks of these interfaces.

    Args:
        addresses: Those of the balancer.
        indexes: Its interfaces.
        views: What this host has.
        network: Its routes.
    """
    held = list(views.held())
    others = _others(addresses, indexes, views)
    return {item: _owner(item, held, others, indexes, network) for item in addresses}


def _owner(
    address: Address,
    held: Sequence[Held],
    others: Mapping[Address, bytes],
    indexes: Sequence[int],
    network: Network,
) -> Owner:
    mine = next((item for item in held if item.address == address), None)
    other = others[address].hex(":") if address in others else ""
    if mine is not None:
        name = netns.interface_name(mine.ifindex) or f"interface {mine.ifindex}"
        return Owner(name, mine.ifindex, is_duplicate=mine.is_duplicate, other=other)
    beside = (item for item in held if item.ifindex in indexes and item.is_beside(address))
    return Owner(
        other=other,
        has_route=_has_router(address, network),
        length=next((item.length for item in beside), None),
    )


def _others(
    addresses: Collection[Address], indexes: Sequence[int], views: Views
) -> Mapping[Address, bytes]:
    """Other hosts that have one, by ARP; of IPv6 the kernel finds that out by itself."""
    macs = views.macs()
    names = {name: macs[index] for index in indexes if (name := netns.interface_name(index))}
    wanted = [item for item in addresses if isinstance(item, IPv4Address)]
    with suppress(OSError):  # an interface is down, as another check says
        return arp.others(names, wanted, set(macs.values()))
    return {}


def _has_router(address: Address, network: Network) -> bool:
    """Whether packets to an address leave by a router."""
    with suppress(XdplbError):
        return network.way(address).next_hop != address
    return False
