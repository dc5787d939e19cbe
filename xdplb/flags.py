"""A plan as the compiler's ``-D`` flags: only numbers, and ranges of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from xdplb.model import ALL_PORTS, IPV4, Mode, Protocol
from xdplb.plan import HASH_NUMBERS, timeout_ticks
from xdplb.selection import MAGLEV_SIZE
from xdplb.wire import mac_to_word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.model import Address, PortRange
    from xdplb.plan import Plan
    from xdplb.request import Service

_REFRESH_TICKS: Final = 16


def flags(plan: Plan, *, shares_ports: bool) -> list[str]:
    """What the program of a plan is compiled with.

    Args:
        plan: What is to run.
        shares_ports: Some of the services' ports may be the host's own.
    """
    request, ports = plan.request, plan.facts.ports
    services = [item.service for item in plan.services]
    protocols = {service.protocol for service in services}
    shortest = min(tick for service in services for tick in timeout_ticks(service.timeouts))
    values = {
        "MODE_GENERIC": int(ports[0].mode is Mode.GENERIC),
        "TRANSMIT_REDIRECT": int(ports[0].redirect),
        "INTERFACE_COUNT": len(ports),
        "HAVE_UDP": int(Protocol.UDP in protocols),
        "HAVE_TCP": int(Protocol.TCP in protocols),
        **(_many(plan.addresses) if plan.has_many else _one(services[0])),
        "SERVICE_SHARES_PORTS": int(shares_ports),
        "HASH_KEY_0": f"{plan.facts.hash_keys[0]}ULL",
        "HASH_KEY_1": f"{plan.facts.hash_keys[1]}ULL",
        "MAGLEV_SIZE": MAGLEV_SIZE,
        "NAT_PORTS(RANGE)": _pool(plan),
        "HAVE_VLAN": int(request.vlan),
        **_virtual_macs(request.virtual_mac),
        "HAVE_RESERVATIONS": int(bool(plan.reserved)),
        "MAX_BACKENDS": plan.room,
        "CLIENT_LIMIT": plan.client_limit,
        "CLIENT_COUNTERS": plan.client_counters,
        "CLIENT_WINDOW": plan.client_window,
        "REFRESH_TICKS": max(min(_REFRESH_TICKS, shortest // 4), 1),
    }
    return [f"-D{name}={value}" for name, value in values.items()]


def _one(service: Service) -> dict[str, str | int]:
    """All that there is to know of the only service, or of both where they differ by protocol."""
    unreplied, answered, transitory, established = timeout_ticks(service.timeouts)
    ports = " ".join(f"RANGE({item.first}, {item.last})" for item in service.ports)
    dialled = {f"SERVICE_WORD_{at}": word for at, word in enumerate(words(service.dialled))}
    return {
        **dialled,
        "SERVICE_PORTS(RANGE)": "RANGE(0, 65535)" if service.ports == ALL_PORTS else ports,
        "SERVICE_HASH": HASH_NUMBERS[service.hash],
        "UNREPLIED_TICKS": unreplied,
        "ANSWERED_TICKS": answered,
        "TRANSITORY_TICKS": transitory,
        "ESTABLISHED_TICKS": established,
    }


def _many(addresses: Sequence[Address]) -> dict[str, str | int]:
    """What the program cannot look up: its own addresses."""
    entries = " ".join(
        f"ADDRESS({number}, {', '.join((*words(address), '0')[:2])})"
        for number, address in enumerate(addresses)
    )
    return {"MANY_SERVICES": 1, "ADDRESSES(ADDRESS)": entries}


def _pool(plan: Plan) -> str:
    ranges = []
    start = 0
    for item in plan.pool.ranges:
        ranges.append(f"RANGE({item.first}, {item.last}, {start})")
        start += item.count
    return " ".join(ranges)


def _virtual_macs(macs: Sequence[str]) -> dict[str, str]:
    """What frames may be for beside the interface; without any, the program is as ever."""
    words = (mac_to_word(bytes.fromhex(mac.replace(":", ""))) for mac in macs)
    return {"VIRTUAL_MACS(MAC)": " ".join(f"MAC({word}ULL)" for word in words)} if macs else {}


def words(address: Address) -> list[str]:
    """An address as the program loads it: one word of 32 bits, or two of 64."""
    size = 4 if address.version == IPV4 else 8
    packed = address.packed
    return [
        f"{int.from_bytes(packed[at : at + size], 'little')}ULL"
        for at in range(0, len(packed), size)
    ]


def shares_ports(services: Sequence[Service], ephemeral: PortRange) -> bool:
    """Whether the host's own connections may have one of the services' ports."""
    return any(
        item.first <= ephemeral.last and ephemeral.first <= item.last
        for service in services
        for item in service.ports
    )
