"""Ask a backend once, whatever the kind of the check."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from xdplb.checks import Check, DnsCheck, ExecCheck, HttpCheck, IcmpCheck, TcpCheck, UdpCheck
from xdplb.errors import XdplbError
from xdplb.health.probe_dns import probe_dns, require_dnspython
from xdplb.health.probe_exec import probe_exec
from xdplb.health.probe_http import probe_http, require_aiohttp
from xdplb.health.probe_icmp import open_icmp, probe_icmp
from xdplb.health.probe_tcp import probe_tcp
from xdplb.health.probe_udp import probe_udp
from xdplb.health.target import ProbeFailed, Target, os_reason, quoted

if TYPE_CHECKING:
    from xdplb.model import Address

__all__ = ["ProbeFailed", "Target", "probe", "require"]


async def probe(check: Check, target: Target, limit: float = 1.0) -> None:
    """Ask once; return if the answer is good.

    Nothing of it is left afterwards, no socket and no process, also when it is cancelled.

    Args:
        check: What is asked.
        target: Who is asked.
        limit: Seconds until no answer is a bad one.

    Raises:
        ProbeFailed: The answer is bad, or there is none. Apart from cancellation, nothing else
            is raised.
    """
    try:
        async with asyncio.timeout(limit):
            await _ask(check, target)
    except ProbeFailed:
        raise
    except TimeoutError as error:
        # The one of the clock above; ETIMEDOUT is the same class, and has a number.
        reason = os_reason(error) if error.errno else _too_late(check, limit)
        raise ProbeFailed(reason) from None
    except OSError as error:
        raise ProbeFailed(os_reason(error)) from None
    except XdplbError as error:
        raise ProbeFailed(f"{error}") from None
    except Exception as error:  # whatever it is, there was no good answer
        raise ProbeFailed(f"{type(error).__name__}: {quoted(f'{error}')}") from error


async def _ask(check: Check, target: Target) -> None:
    match check:
        case IcmpCheck():
            await probe_icmp(target)
        case TcpCheck():
            await probe_tcp(target)
        case HttpCheck():
            await probe_http(check, target)
        case UdpCheck():
            await probe_udp(check, target)
        case DnsCheck():
            await probe_dns(check, target)
        case ExecCheck():
            await probe_exec(check, target)


def _too_late(check: Check, limit: float) -> str:
    match check:
        case ExecCheck():
            return f"not finished within {limit:g} s"
        case TcpCheck():
            return f"no connection within {limit:g} s"
        case _:
            return f"no answer within {limit:g} s"


def require(check: Check | None, address: Address) -> None:
    """Find out, before it matters, whether this machine can ask ``address`` so.

    Raises:
        NotReadyError: A library is missing, or a privilege.
    """
    match check:
        case HttpCheck():
            require_aiohttp()
        case DnsCheck():
            require_dnspython()
        case IcmpCheck():
            open_icmp(address.version).close()
        case _:
            pass
