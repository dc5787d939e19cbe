"""Interfaces, addresses, routes and neighbours, over netlink. Nothing of BPF."""

from __future__ import annotations

import errno
import socket
import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from xdplb.errors import (
    InterfaceNotFoundError,
    InvalidValueError,
    NotReadyError,
    PrivilegeError,
    UnreachableError,
)
from xdplb.facts import Link, Neighbour, Way
from xdplb.kernel.closing import Closing
from xdplb.model import IPV4
from xdplb.wire import NO_TAG, vlan_tag

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from xdplb.model import Address

_ETHERTYPE_VLAN: Final = 0x8100
_ROUTE_UNICAST: Final = 1
_ROUTE_LOCAL: Final = 2
_SECONDARY: Final = 0x01  # of IPv6: temporary (RFC 8981)
_DUPLICATE: Final = 0x08
_DEPRECATED: Final = 0x20
_TENTATIVE: Final = 0x40
_SETTLED_WITHIN_S: Final = 3.0
_SETTLED_POLL_S: Final = 0.02
_SCOPE_UNIVERSE: Final = 0
_NUD_VALID: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x80 | 0x40
_NUD_STALE: Final = 0x04
_NUD_PERMANENT: Final = 0x80
_NUD_NOARP: Final = 0x40
_STATES: Final = {
    0x01: "INCOMPLETE",
    0x02: "REACHABLE",
    _NUD_STALE: "STALE",
    0x08: "DELAY",
    0x10: "PROBE",
    0x20: "FAILED",
    _NUD_NOARP: "NOARP",
    _NUD_PERMANENT: "PERMANENT",
}
_GROUP: Final = 0x01  # of a MAC address's first byte: not that of one host
_PROTOCOL: Final = 0x78
"""What a managed neighbour is marked with, so that one that a killed command left is known again
(NDA_PROTOCOL, kernel 4.20; the number is nobody else's in /etc/iproute2/rt_protos)."""
_EXT_MANAGED: Final = 1
_MAC_LENGTH: Final = 6


def _family(version: int) -> int:
    return socket.AF_INET if version == IPV4 else socket.AF_INET6


def _mac(message: Any) -> bytes | None:  # noqa: ANN401 - netlink attributes
    """The MAC address of a neighbour; None while it is not known.

    The kernel takes every address for a broadcast where a namespace has no address yet.
    """
    text = message.get_attr("NDA_LLADDR")
    if not text or not message["state"] & _NUD_VALID:
        return None
    mac = bytes.fromhex(text.replace(":", ""))
    return None if message["state"] & _NUD_NOARP and mac[0] & _GROUP else mac


def _tag(vlan: Any) -> bytes:  # noqa: ANN401 - netlink attributes
    """The tag of a VLAN interface."""
    protocol = vlan.get_attr("IFLA_VLAN_PROTOCOL") or _ETHERTYPE_VLAN
    return vlan_tag(protocol, vlan.get_attr("IFLA_VLAN_ID"))


class Network(Closing):
    """A netlink socket into the current network namespace."""

    def __init__(self) -> None:
        """Open the socket."""
        self._netlink = IPRoute(ext_ack=True)

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def link(self, name: str) -> Link:
        """The interface called ``name``.

        Raises:
            InterfaceNotFoundError: There is none.
            NotReadyError: It is not an Ethernet interface.
        """
        try:
            (message,) = self._netlink.get_links(ifname=name)
        except (NetlinkError, ValueError):
            raise InterfaceNotFoundError(name) from None
        mac = bytes.fromhex((message.get_attr("IFLA_ADDRESS") or "").replace(":", ""))
        if len(mac) != _MAC_LENGTH:
            raise NotReadyError(
                f"{name} is not an Ethernet interface", "the balancer needs MAC addresses"
            )
        kind = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_KIND") or ""
        is_veth = kind == "veth"
        vlan = message.get_nested("IFLA_LINKINFO", "IFLA_INFO_DATA") if kind == "vlan" else None
        return Link(
            name=name,
            index=message["index"],
            mac=mac,
            mtu=int(message.get_attr("IFLA_MTU") or 0),
            kind=kind,
            peer_index=message.get_attr("IFLA_LINK") if is_veth else None,
            peer_nsid=message.get_attr("IFLA_LINK_NETNSID") if is_veth else None,
            lower=message.get_attr("IFLA_LINK") if vlan else None,
            tag=_tag(vlan) if vlan else NO_TAG,
        )

    def namespace_number(self, fd: int) -> int | None:
        """The number by which this namespace knows the one that ``fd`` is open on."""
        try:
            answer = self._netlink.get_netnsid(fd=fd)
        except NetlinkError:
            return None
        number = answer["nsid"] if answer else None
        return None if number is None or number < 0 else int(number)

    def primary_address(self, link: Link, version: int) -> Address:
        """The interface's first address of an IP version; of IPv6, one that routers know.

        Raises:
            NotReadyError: It has none.
        """
        family = _family(version)
        for message in self._netlink.get_addr(index=link.index, family=family):
            address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            flags = message.get_attr("IFA_FLAGS") or message["flags"]
            if not address or flags & _SECONDARY:
                continue
            if flags & (_DUPLICATE | _DEPRECATED | _TENTATIVE):
                continue
            if family == socket.AF_INET6 and message["scope"] != _SCOPE_UNIVERSE:
                continue
            return ip_address(address)
        raise NotReadyError(
            f"{link.name} has no IPv{version} address"
            + ("" if version == IPV4 else " but a link's own, or one that is not ready"),
            f"give it one ('ip addr add ADDR/LEN dev {link.name}'), or say --service ADDR",
        )

    def settle(self, link: Link) -> None:
        """Wait while the interface's IPv6 addresses are checked for duplicates (RFC 4862 5.4).

        That is for a second or two after it was set up. Before, the kernel does not ask for
        its neighbours. Gives up after three seconds: the check may never end on a link that
        is down.
        """
        deadline = time.monotonic() + _SETTLED_WITHIN_S
        while self._is_tentative(link) and time.monotonic() < deadline:
            time.sleep(_SETTLED_POLL_S)

    def _is_tentative(self, link: Link) -> bool:
        for message in self._netlink.get_addr(index=link.index, family=socket.AF_INET6):
            flags = message.get_attr("IFA_FLAGS") or message["flags"]
            if flags & _TENTATIVE and not flags & _DUPLICATE:
                return True
        return False

    def way(self, address: Address) -> Way:
        """The route to ``address``.

        Raises:
            InvalidValueError: The address is this host's own.
            UnreachableError: There is no route, or none to one host.
        """
        try:
            answers = list(
                self._netlink.route("get", dst=f"{address}", family=_family(address.version))
            )
        except NetlinkError as error:
            raise UnreachableError(
                f"there is no route to backend {address}",
                f"'ip route get {address}' shows what the kernel thinks",
            ) from error
        message = answers[0]
        if message["type"] == _ROUTE_LOCAL:
            raise InvalidValueError(
                f"backend {address} is an address of this host",
                "a backend is another machine, container or namespace",
            )
        if message["type"] != _ROUTE_UNICAST:
            raise UnreachableError(
                f"backend {address} is not the address of one host",
                f"'ip route get {address}' shows what the kernel thinks",
            )
        gateway = message.get_attr("RTA_GATEWAY")
        return Way(
            message.get_attr("RTA_OIF"),
            ip_address(gateway) if gateway else address,
            message.get_nested("RTA_METRICS", "RTAX_MTU"),
        )

    def neighbours(self, indexes: Sequence[int]) -> Mapping[tuple[int, Address], Neighbour]:
        """The neighbours on some interfaces, by interface and address."""
        known: dict[tuple[int, Address], Neighbour] = {}
        for index in dict.fromkeys(indexes):
            known.update(self._neighbours(ifindex=index))
        return known

    def _neighbours(self, **match: int) -> Iterator[tuple[tuple[int, Address], Neighbour]]:
        for family in (socket.AF_INET, socket.AF_INET6):
            for message in self._netlink.get_neighbours(family=family, **match):
                is_managed = bool((message.get_attr("NDA_FLAGS_EXT") or 0) & _EXT_MANAGED)
                key = message["ifindex"], ip_address(message.get_attr("NDA_DST"))
                yield (
                    key,
                    Neighbour(
                        _mac(message),
                        bool(message["state"] & _NUD_PERMANENT),
                        is_managed,
                        is_managed and message.get_attr("NDA_PROTOCOL") == _PROTOCOL,
                        _STATES.get(message["state"], "NONE"),
                    ),
                )

    def unmanage_all(self) -> None:
        """Forget every next hop that ``manage`` has made the kernel ask for."""
        for index, address in self.managed():
            self.unmanage(index, address, existed=False)

    def managed(self) -> list[tuple[int, Address]]:
        """Every next hop that ``manage`` has made the kernel ask for, with its interface."""
        return [key for key, neighbour in self._neighbours() if neighbour.is_ours]

    def manage(self, index: int, address: Address) -> None:
        """Let the kernel ask for ``address`` now, and for as long as the entry is there.

        A kernel before 5.16 ignores the flag: it asks once, and the next packet of its
        own to that address makes it ask again.

        Raises:
            PrivilegeError: The process may not.
        """
        self._neighbour(
            "replace", index, address, flags_ext=_EXT_MANAGED, state=0, protocol=_PROTOCOL
        )

    def unmanage(self, index: int, address: Address, *, existed: bool) -> None:
        """Undo ``manage``: forget the entry, or leave it as an ordinary one."""
        known = self.neighbours([index]).get((index, address))
        if known is None or not known.is_managed:
            return
        self._neighbour("del", index, address)  # which alone takes the mark off
        if existed and known.mac:
            mac = known.mac.hex(":")
            self._neighbour("replace", index, address, state=_NUD_STALE, lladdr=mac)

    def _neighbour(self, command: str, index: int, address: Address, **more: Any) -> None:  # noqa: ANN401 - netlink attributes
        try:
            self._netlink.neigh(
                command,
                dst=f"{address}",
                ifindex=index,
                family=_family(address.version),
                **more,
            )
        except NetlinkError as error:
            if error.code == errno.EPERM:
                raise PrivilegeError("change the kernel's neighbour table") from None
            if command != "del":
                raise NotReadyError(
                    f"the kernel takes no neighbour {address}: {error.args[-1]}",
                    "'ip link' shows whether the interface is up",
                ) from error
