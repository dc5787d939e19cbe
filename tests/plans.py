"""Plans: what the machine would say, and what is decided upon it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fake_machine import OWN

from xdplb.model import Mode, PortRange
from xdplb.plan import Facts, Hop, Plan, Port, make_plan
from xdplb.request import Request, Service

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.model import Address

POOL = (PortRange(2000, 2099),)
"""A hundred ports: a few hundred flows make several groups."""

EPHEMERAL = PortRange(32768, 60999)


def facts_for(
    version: int,
    addresses: Sequence[Address],
    last: Plan | None = None,
    hop: Address | None = None,
    pool: tuple[PortRange, ...] = POOL,
) -> Facts:
    """What the machine says where ``last`` runs; every backend is behind ``hop``, or beside us."""
    return Facts(
        version=version,
        ports=(Port("eth0", 2, bytes(6), Mode.NATIVE, redirect=False),),
        hops={address: Hop(hop or address, 0) for address in addresses},
        ephemeral=EPHEMERAL,
        hash_keys=(1, 2),
        side=last.side if last else None,
        records=last.records if last else (),
        nat_ports=last.pool.ranges if last else pool,
    )


def plan_of(
    request: Request,
    last: Plan | None = None,
    *,
    version: int | None = None,
    hop: Address | None = None,
    pool: tuple[PortRange, ...] = POOL,
) -> Plan:
    """The plan that replaces ``last``, for the first IP version that is asked for."""
    asked = request.with_addresses(OWN)
    addresses = [backend.address for backend in asked.backends]
    return make_plan(
        asked, facts_for(version or asked.versions[0], addresses, last, hop=hop, pool=pool)
    )


def plan_for(*services: Service, last: Plan | None = None, max_flows: int = 400) -> Plan:
    """The plan for some services that replaces ``last``."""
    return plan_of(Request(("eth0",), services, max_flows=max_flows), last)
