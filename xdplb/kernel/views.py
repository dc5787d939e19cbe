"""Interfaces and addresses as ``doctor`` looks at them. Nothing is changed."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from pyroute2 import Ethtool, IPRoute
from pyroute2.ethtool.ioctl import EthtoolError
from pyroute2.netlink.exceptions import NetlinkError

from xdplb.doctor.evidence import Interface, Peer
from xdplb.errors import InterfaceNotFoundError
from xdplb.kernel import netns, offloads, program, veth
from xdplb.kernel.closing import Closing
from xdplb.kernel.links import Network
from xdplb.model import IPV4, Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdplb.facts import Link
    from xdplb.model import Address

_UP: Final = 0x1
_TEMPORARY: Final = 0x01
_DUPLICATE: Final = 0x08
_NOT_READY: Final = 0x20 | 0x40
_SCOPE_UNIVERSE: Final = 0


@dataclass(frozen=True, slots=True)
class Held:
    """An address of this host.

    Attributes:
        ifindex: Where.
        length: Of its network's prefix.
        is_duplicate: The kernel does not use it, since another host had it first.
        is_usable: A service could have it.
    """

    address: Address
    ifindex: int
    length: int
    is_duplicate: bool
    is_usable: bool

    def is_beside(self, other: Address) -> bool:
        """Whether ``other`` is of the same network."""
        shift = self.address.max_prefixlen - self.length
        return self.address.version == other.version and int(self.address) >> shift == (
            int(other) >> shift
        )


class Views(Closing):
    """A netlink socket into the current network namespace."""

    def __init__(self) -> None:
        """Open the socket."""
        self._netlink = IPRoute()

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def interface(self, link: Link) -> Interface:
        """An interface and what it has to do with others.

        Raises:
            InterfaceNotFoundError: It has just gone.
        """
        every = {item["index"]: item for item in self._netlink.get_links()}
        mine = every.get(link.index)
        if mine is None:
            raise InterfaceNotFoundError(link.name)
        master = every.get(mine.get_attr("IFLA_MASTER"))
        return Interface(
            link,
            is_up=bool(mine["flags"] & _UP),
            has_carrier=bool(mine.get_attr("IFLA_CARRIER")),
            master=master.get_attr("IFLA_IFNAME") if master else "",
            vlans=tuple(
                item.get_attr("IFLA_IFNAME")
                for item in every.values()
                if item.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") == "vlan"
                and item.get_attr("IFLA_LINK") == link.index
            ),
        )

    def macs(self) -> dict[int, bytes]:
        """The MAC address of each interface, by its index."""
        return {
            item["index"]: bytes.fromhex((item.get_attr("IFLA_ADDRESS") or "").replace(":", ""))
            for item in self._netlink.get_links()
        }

    def held(self) -> Iterator[Held]:
        """Every address of this host."""
        for item in self._netlink.get_addr():
            text = item.get_attr("IFA_LOCAL") or item.get_attr("IFA_ADDRESS")
            address = ip_address(text)
            flags = item.get_attr("IFA_FLAGS") or item["flags"]
            is_temporary = address.version != IPV4 and flags & _TEMPORARY
            yield Held(
                address,
                item["index"],
                item["prefixlen"],
                is_duplicate=bool(flags & _DUPLICATE),
                is_usable=item["scope"] == _SCOPE_UNIVERSE
                and not is_temporary
                and not flags & (_DUPLICATE | _NOT_READY),
            )


def peer(link: Link, network: Network) -> Peer | None:
    """The other end of a veth pair; None where it is out of reach."""
    path, is_found = veth.peer_namespace(link, network)
    index = link.peer_index
    if not is_found or index is None:
        return None
    with netns.inside(path):
        name = netns.interface_name(index)
        if name is None:
            return None
        with Network() as there, Views() as seen:
            found = seen.interface(there.link(name))
        attached = program.attached(index)
        on = offloads.all_on(name)
        return Peer(
            name=name,
            index=index,
            netns=netns.identity(),
            path=f"{path or ''}",
            mtu=found.link.mtu,
            gro=on[offloads.GRO],
            is_up=found.is_up,
            is_native=attached is not None and attached.mode is Mode.NATIVE,
            tx_queues=queues(name, "tx"),
            segmentation=tuple(item for item in offloads.SEGMENTATION if on.get(item)),
        )


def queues(name: str, direction: str) -> int | None:
    """How many queues an interface has for ``rx`` or ``tx``; None where it does not say."""
    channels: Any = None
    with Ethtool() as tool, suppress(OSError, EthtoolError, NetlinkError):
        channels = tool.get_channels(name)
    if channels is None:
        return None
    count: int = getattr(channels, f"{direction}_count") + channels.combined_count
    return count
