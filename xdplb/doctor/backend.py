"""What is to be thought of a backend, and of the way to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdplb.advice import SILENT
from xdplb.doctor.findings import Fix, Opinion, Repair, bad, good, poor
from xdplb.model import BackendState

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from xdplb.doctor.evidence import Route
    from xdplb.facts import Neighbour
    from xdplb.model import BackendStatus


def route(item: BackendStatus, found: Route, indexes: Collection[int]) -> Opinion:
    """Whether the way is still the one that the balancer goes.

    Args:
        item: The backend, and the next hop that the balancer goes by.
        found: The kernel's route.
        indexes: The balancer's interfaces.
    """
    address = item.backend.address
    if found.way is None:
        return bad(found.problem, hint=found.hint)
    if found.way.ifindex not in indexes and found.lower not in indexes:
        return bad(
            f"{address} is reached through {found.interface}, which is not the balancer's",
            hint=f"add --iface {found.interface}, or correct the route: 'ip route get {address}'",
        )
    if found.way.next_hop != item.next_hop:
        return poor(
            f"the kernel goes by {found.way.next_hop}, the balancer still by {item.next_hop}",
            hint="the same 'xdplb up' again, or 'xdplb run', which follows such changes",
        )
    if found.way.mtu is not None and found.way.mtu < found.mtu:
        return poor(
            f"the path to {address} takes {found.way.mtu} bytes, {found.interface} {found.mtu}: "
            "longer packets are lost, unless their senders discover that",
            hint=f"'ip route get {address}' shows it; give the path the same MTU everywhere",
        )
    by = "" if found.way.next_hop == address else f" by {found.way.next_hop}"
    return good(f"on {found.interface}{by}")


def next_hop(
    item: BackendStatus, found: Neighbour | None, interface: str, ifindex: int, *, is_kept: bool
) -> Opinion:
    """Whether somebody answers at the next hop, and the balancer knows who.

    Args:
        item: The backend, and the MAC address that the balancer sends to.
        found: What the kernel knows of the next hop.
        interface: Where the kernel asks for it.
        ifindex: That interface's index.
        is_kept: The kernel can keep next hops fresh by itself.
    """
    hop = item.next_hop
    manage = Fix(
        f"ip neighbour replace {hop} dev {interface} managed protocol 120",
        f"ip neighbour del {hop} dev {interface}",
        Repair("manage", ifindex=ifindex, address=f"{hop}"),
    )
    is_managed = found is not None and (found.is_managed or found.is_permanent)
    fix = manage if is_kept and not is_managed else None
    if found is None or found.mac is None:
        how = "is not asked for" if found is None else f"does not answer ({found.state})"
        return bad(
            f"the next hop {hop} {how}"
            + ("" if item.mac else ", and its MAC address is not known"),
            fix,
            hint="see that it is on and on this network: 'ip neighbour'",
        )
    mac = found.mac.hex(":")
    if item.mac is None:
        return bad(
            f"the balancer does not know the MAC address of {hop}, though the kernel does: {mac}",
            fix,
            hint="the same 'xdplb up' again tells it",
        )
    if item.mac != mac:
        return bad(
            f"the balancer sends to {item.mac}, but {hop} is at {mac}",
            fix,
            hint="the same 'xdplb up' again, or 'xdplb run', which follows such changes",
        )
    if fix is not None:
        return poor(f"the kernel does not keep asking for {hop}, so that it may grow old", fix)
    return good(f"{hop} is at {mac}")


def answers(items: Sequence[BackendStatus], *, one_way: bool) -> Opinion:
    """Whether it serves.

    Args:
        items: The backend, once for each service that it answers.
        one_way: All of these ask for no answer.
    """
    states = {item.state for item in items}
    packets_in, packets_out, refused = (
        sum(numbers)
        for numbers in zip(
            *((item.packets_in, item.packets_out, item.refused) for item in items), strict=True
        )
    )
    address = items[0].backend.address
    if BackendState.DOWN in states:
        return poor(
            "it is down, and takes no traffic",
            Fix(f"xdplb backend undrain {items[0].backend}"),
            hint="if a check took it down, 'xdplb run' lets it back when it answers",
        )
    if refused:
        return poor(
            f"{refused} of {packets_in} packets were refused: it said that nobody is at its port",
            hint="start the server there, or correct the backend's port; where it runs, it has to "
            "answer from the address and port where it was asked",
        )
    if not one_way and packets_in >= SILENT and not packets_out:
        return poor(
            f"{packets_in} packets went there, and none came back",
            hint="see that the server runs, and that its answers come back through the balancer, "
            f"from the address and port where it was asked: 'ping {address}', and tcpdump there",
        )
    if BackendState.DRAIN in states:
        return good("it drains: no new flows, as somebody asked for")
    return good(f"{packets_in} packets went there, {packets_out} came back")
