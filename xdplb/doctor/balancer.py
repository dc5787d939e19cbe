"""What is to be thought of a balancer that runs, as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xdplb import __version__
from xdplb.advice import ALMOST_FULL, short_of_ports, unanswered
from xdplb.doctor.findings import Fix, Opinion, bad, good, poor
from xdplb.doctor.native import TAKES_REDIRECTED
from xdplb.errors import XdplbError
from xdplb.secret import hash_keys
from xdplb.verdicts import DROPPED, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from xdplb.doctor.evidence import Case
    from xdplb.facts import Link
    from xdplb.model import BalancerStatus

_MANY: Final = 1000
_OF_SENDERS: Final = frozenset(
    {"drop_malformed", "drop_fragment", "drop_checksum", "drop_martian", "drop_ttl"}
)
"""What senders bring about: the network always has a few of these."""


def interfaces(case: Case, namespace: int) -> Opinion:
    """Whether all interfaces are there, and where they were."""
    if case.running.state.netns != namespace:
        return bad(
            f"{', '.join(case.names)} was moved here from another network namespace, but not what "
            "the balancer knew of the ways to its backends",
            Fix(f"xdplb down --iface {case.names[0]}"),
            hint="then 'xdplb up' here; live flows end with it",
        )
    every = list(zip(case.running.state.interfaces, case.names, strict=True))
    gone = [item.name for item, name in every if not name]
    if gone:
        return bad(
            f"{', '.join(gone)} is not in this network namespace any more",
            hint="'xdplb run' balances on it again when it is back; or 'xdplb up' without it",
        )
    renamed = [f"{name}, once {item.name}" for item, name in every if name != item.name]
    if renamed:
        return good(f"all are there, one under another name: {', '.join(renamed)}")
    return good(f"{', '.join(case.names)}: all are there")


def version(case: Case) -> Opinion:
    """Whether this xdplb is the one that started it."""
    started = case.running.state.version
    if started != __version__:
        return poor(
            f"it was started by xdplb {started}, this is {__version__}",
            hint="the same 'xdplb up' again brings the new program; flows stay",
        )
    return good(f"xdplb {started}")


def secret(case: Case) -> list[Opinion]:
    """Whether the balancer would have the same keys if it was started now; nothing without one."""
    state = case.running.state
    if state.secret is None:
        return []
    try:
        keys = hash_keys(state.secret)
    except XdplbError as error:
        return [poor(f"{error}, and the balancer could not be started anew", hint=error.hint)]
    if keys != state.hash_keys:
        return [
            poor(
                f"{state.secret} is another secret than the one that the balancer was started with",
                hint="bring that one back; or 'xdplb save FILE', 'xdplb down', and 'up' again with "
                "--restore FILE",
            )
        ]
    return [good(f"{state.secret} is the one that the balancer was started with")]


def widths(links: Sequence[Link]) -> Opinion:
    """Whether packets of any length find a way as wide as the one they came by."""
    found = {link.mtu for link in links}
    if len(found) < 2:  # noqa: PLR2004 - two differ
        return good("the interfaces are of one width")
    narrow = min(links, key=lambda link: link.mtu)
    wide = max(links, key=lambda link: link.mtu)
    return poor(
        f"{wide.name} has an MTU of {wide.mtu}, {narrow.name} one of {narrow.mtu}: longer packets "
        "do not get through, and only senders that discover the path's MTU learn that",
        Fix(
            f"ip link set dev {wide.name} mtu {narrow.mtu}",
            f"ip link set dev {wide.name} mtu {wide.mtu}",
        ),
    )


def sends(link: Link, features: int | None) -> Opinion:
    """Whether other interfaces of the balancer can send by this one."""
    if features is not None and not features & TAKES_REDIRECTED:
        return bad(
            f"the driver of {link.name} does not take what XDP redirects to it",
            hint="balance on one interface, or with --mode generic",
        )
    return good(f"{link.name} takes what XDP redirects to it")


def services(status: BalancerStatus) -> Opinion:
    """Whether each service has somebody to answer it."""
    empty = [f"{item.name or item.address} {item.protocol}" for item in unanswered(status)]
    if empty:
        return bad(
            f"no backend takes traffic of {', '.join(empty)}",
            hint=VERDICTS["drop_no_backend"].hint,
        )
    return good("each has a backend that takes traffic")


def room(status: BalancerStatus) -> Opinion:
    """Whether there is room for more flows."""
    if status.flows_fill >= ALMOST_FULL:
        return poor(
            f"{status.flows} of {status.capacity} flows are in use",
            hint=VERDICTS["drop_table_full"].hint,
        )
    short = max(short_of_ports(status), key=lambda item: item.nat_ports_fill, default=None)
    if short is not None:
        return poor(
            f"{short.nat_ports_used} of {short.nat_ports_total} NAT ports toward {short.backend} "
            "are in use",
            hint=VERDICTS["drop_no_port"].hint,
        )
    return good(f"{status.flows} of {status.nat_ports_total} NAT ports are in use")


def drops(verdicts: Mapping[str, int]) -> list[Opinion]:
    """What the packets that were dropped tell of the machine."""
    total = sum(verdicts.values())
    found = [
        poor(f"{count} times {name}: {known.meaning}", hint=known.hint)
        for name, count in verdicts.items()
        if count and name.startswith(DROPPED) and (known := VERDICTS.get(name)) is not None
        if name not in _OF_SENDERS or count * _MANY > total
    ]
    return found or [good("no packet was dropped that should not be")]


def agent(case: Case, agents: Collection[str], problems: Sequence[str]) -> Opinion:
    """Whether somebody does the checks that are asked for."""
    if set(agents) & set(case.names):
        return good("'xdplb run' looks after it")
    if problems:
        return bad(problems[0], hint="'xdplb run' refuses to start without")
    if not any(service.health is not None for service in case.running.state.services):
        return good("no 'xdplb run', and no service asks for checks")
    return poor(
        "its services ask for checks of their backends, but no 'xdplb run' does them: a backend "
        "that dies is not noticed",
        Fix(f"xdplb run --iface {case.names[0]}"),
    )


def trace(case: Case) -> Opinion:
    """Whether each packet pays for a trace, and nobody reads it."""
    if case.traced_for is None:
        return good("the program tells nothing, and nobody pays for that")
    if case.traced_for > 0:
        return good("an 'xdplb trace' is on, and ends by itself")
    return poor(
        "a trace is on that nobody reads, and makes each packet slower: its command was killed, "
        "or stopped",
        Fix(f"xdplb trace --iface {case.names[0]} --seconds 1"),
    )


def macs(status: BalancerStatus) -> Opinion:
    """Whether backends that look like two are one."""
    by_mac: dict[str, list[str]] = {}
    for service in status.services:
        for item in service.backends:
            is_beside_us = item.next_hop == item.backend.address
            if item.mac is not None and is_beside_us:
                mine = by_mac.setdefault(item.mac, [])
                if f"{item.backend.address}" not in mine:
                    mine.append(f"{item.backend.address}")
    for mac, addresses in by_mac.items():
        v4, v6 = ([it for it in addresses if (":" in it) is is_v6] for is_v6 in (False, True))
        for mine in (v4, v6):
            if len(mine) > 1:
                return poor(
                    f"backends {', '.join(mine)} have one MAC address, {mac}: they are one "
                    "machine, or somebody answers for them",
                    hint="if they are meant to be several, look for proxy ARP or a cloned MAC "
                    "address",
                )
    return good("each backend has a MAC address of its own")
