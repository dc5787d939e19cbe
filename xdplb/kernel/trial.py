"""Whether the program compiles and loads: it is made and loaded for real, and attached nowhere."""

from __future__ import annotations

import os
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from xdplb.doctor.evidence import Trial
from xdplb.errors import BccMissingError, KernelError, surroundings
from xdplb.flags import flags
from xdplb.kernel import libbpf, program, tables
from xdplb.model import Backend, Mode, PortRange, Protocol
from xdplb.plan import Facts, Hop, Port, make_plan
from xdplb.request import simple_request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.kernel.machine import Machine
    from xdplb.plan import Plan

_FLOWS: Final = 1024
_SERVICES: Final = {ip_address("192.0.2.1"): "192.0.2.2", ip_address("2001:db8::1"): "2001:db8::2"}
"""Addresses for documentation (RFC 5737, RFC 3849); no packet ever meets them."""


def load_once(machine: Machine) -> Trial:
    """Compile the program of a small balancer, for both IP versions, and load it.

    Raises:
        PrivilegeError: The process may not load programs.
    """
    machine.require_privileges()
    request = simple_request(
        ("none",),
        tuple(Backend(ip_address(item)) for item in _SERVICES.values()),
        tuple(_SERVICES),
        protocols=tuple(Protocol),
        ports=(PortRange(53, 53),),
        max_flows=_FLOWS,
    )
    plans = [
        make_plan(
            request,
            Facts(
                version=version,
                ports=(Port("none", 0, bytes(6), Mode.NATIVE, redirect=True),),
                hops={item.address: Hop(item.address, 0) for item in request.backends},
                ephemeral=PortRange(32768, 60999),
                hash_keys=(1, 2),
            ),
        )
        for version in request.versions
    ]
    try:
        fd = _load(machine, plans)
    except BccMissingError:
        return Trial(problem="not tried: there is no compiler")
    except KernelError as error:
        return Trial(problem=f"{error}", hint=error.hint)
    except OSError as error:
        if surroundings(error):
            raise
        return Trial(
            problem=f"the kernel does not make the program's maps: {error.strerror}",
            hint="a container's seccomp profile may forbid it, or the kernel's lockdown",
        )
    try:
        return Trial(is_compiled=libbpf.program_info(fd)[0].jited_prog_len > 0)
    finally:
        os.close(fd)


def _load(machine: Machine, plans: Sequence[Plan]) -> int:
    """Compile and load, but without what makes a balancer of it."""
    code = machine.compile({plan.version: flags(plan, shares_ports=True) for plan in plans})
    maps = tables.create(plans, code, None)
    try:
        for plan in plans:
            tables.fill(maps.of(plan.version), plan)
        return program.load(code, maps)
    finally:
        maps.close()
