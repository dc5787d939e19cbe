"""Which of the services that are wanted is which of those that run."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.request import Service


def match_services(old: Sequence[Service], new: Sequence[Service]) -> dict[int, int]:
    """Find for new services the old ones that they continue.

    That is the one with the same address and protocol that has the most ports in common.

    Args:
        old: What runs.
        new: What is wanted.

    Returns:
        Places in ``new``, each with a place in ``old``; no place occurs twice.
    """
    common = sorted(
        (-_ports_in_common(one, two), here, there)
        for here, one in enumerate(new)
        for there, two in enumerate(old)
        if (one.address, one.protocol) == (two.address, two.protocol) and one.has_port_of(two)
    )
    found: dict[int, int] = {}
    for _, here, there in common:
        if here not in found and there not in found.values():
            found[here] = there
    return found


def _ports_in_common(one: Service, two: Service) -> int:
    return sum(
        max(0, min(a.last, b.last) - max(a.first, b.first) + 1)
        for a in one.ports
        for b in two.ports
    )
