"""A sizing as a few lines for a person, each with its reason, and as JSON for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from xdplb.capacity.limits import DEFAULT_BACKENDS, MOST_NAT_ADDRESSES
from xdplb.capacity.measured import LIMIT_MPPS, MACHINE, SAFE_FILL
from xdplb.capacity.stock import safe
from xdplb.model import DEFAULT_MAX_FLOWS, DEFAULT_TIMEOUTS, MAX_FLOWS_LIMIT, Protocol
from xdplb.quantities import count, percent, short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xdplb.capacity.load import Load
    from xdplb.capacity.sizing import Refusal, Sizing
    from xdplb.capacity.speed import Speed

JSON_VERSION: Final = 1
_REST_S: Final = 120
"""For how long a port should lie idle before another client has it (RFC 6888 REQ-8)."""

_TWICE: Final = 2
_WIDTH: Final = 11
_OPTIONS: Final = {
    "unreplied": "--timeout-unreplied",
    "answered": "--timeout",
    "transitory": "--timeout-tcp-transitory",
    "established": "--timeout-tcp",
}


def to_text(item: Sizing) -> str:
    """The sizing for a person: a word on what each line is about, and the line."""
    lines = [
        *_of_load(item.load),
        *_of_balancers(item),
        *_of_ports(item),
        *_of_room(item),
        *_of_packets(item),
        *_of_failures(item),
        *_of_result(item),
        *_of_advice(item),
    ]
    return "\n".join(f"{about_what:<{_WIDTH}}{line}" for about_what, line in lines)


_Line = tuple[str, str]


def _of_load(load: Load) -> Iterator[_Line]:
    parts = []
    if load.clients is not None:
        parts.append(f"{load.clients:,} clients that speak")
    if load.rate:
        parts.append(f"{_rate(load.rate)} new flows/s")
    yield "load", f"{' and '.join(parts)}, {load.protocol}"
    yield "flows", f"{_whole(load.alive)} alive at once{_reason(load)}"


def _reason(load: Load) -> str:
    """How the flows that are alive come about."""
    if load.alive == load.bound:
        return ": 65,535 ports of each client address"
    if not load.rate:
        return "; --rate counts those that went, and keep a port for their timeout"
    spoken = f"{_seconds(load.duration)} and " if load.duration else ""
    there = f"{_whole(load.speaking)} + " if load.clients is not None else ""
    return (
        f": {there}{_rate(load.rate)}/s x {spoken}{_seconds(load.idle_s)} "
        f"({_held(load)} keeps the port after the last packet)"
    )


def _held(load: Load) -> str:
    """The options that say for how long."""
    usual, odd = "--timeout", "--timeout-unreplied"
    if load.protocol is Protocol.TCP:
        usual, odd = "--timeout-tcp-transitory", "--timeout-tcp"
    if load.odd in {0, 1}:
        return odd if load.odd else usual
    return f"{usual}, for {percent(load.odd)} {odd},"


def _of_balancers(item: Sizing) -> Iterator[_Line]:
    spare = item.stock.spare
    if item.balancers > 1:
        failed = f" when {spare} {'has' if spare == 1 else 'have'} failed" if spare else ""
        yield "balancers", f"{item.balancers:,}, each with {_whole(item.each.alive)} flows{failed}"


def _of_ports(item: Sizing) -> Iterator[_Line]:
    pool = item.stock.pool
    usable = f", safe up to {percent(SAFE_FILL)}" if safe(pool.size) < pool.size else ""
    yield (
        "NAT ports",
        f"{pool.size:,} toward a backend from one NAT address{usable} ({pool})",
    )
    each = " on each balancer" if item.balancers > 1 else ""
    yield (
        "places",
        f"{count(item.backends, 'backend')} x {_addresses(item.nat_addresses)}{each}: "
        f"{_whole(item.most)} flows at the fullest, {_filled(item.fill)}",
    )


def _addresses(number: int) -> str:
    return f"{number:,} NAT address" if number == 1 else f"{number:,} NAT addresses"


def _of_room(item: Sizing) -> Iterator[_Line]:
    line = f"--max-flows {item.max_flows}"
    if item.max_flows == DEFAULT_MAX_FLOWS and not item.stock.max_flows:
        line = f"{item.max_flows:,} flows, the default"
    line += f": {short(item.memory, 'B')} of memory, all at the start"
    if item.ports < item.stock.pool.size:
        line += f"; toward a backend {_whole(item.ports)} ports"
    yield "flow table", line


def _of_packets(item: Sizing) -> Iterator[_Line]:
    stock, number = item.stock, item.stock.speed.processors
    used = f"{percent(item.busy)} of " if stock.packets or item.each.rate else ""
    each = short(stock.speed.most_packets(item.there) / number)
    yield (
        "packets",
        f"{used}{count(number, 'processor')}, {each}/s {'each ' if number > 1 else ''}"
        f"with so many flows ({_measured(stock.speed)})",
    )


def _measured(speed: Speed) -> str:
    """Where the figures are from."""
    if speed.packet_ns is None:
        return MACHINE if speed.limit_mpps == LIMIT_MPPS else f"--mpps; the program's on {MACHINE}"
    return "--packet-ns" if speed.limit_mpps == LIMIT_MPPS else "--mpps, --packet-ns"


def _of_failures(item: Sizing) -> Iterator[_Line]:
    if item.without_backend is not None:
        yield "failure", f"one backend fewer: {_filled(item.without_backend)} at the fullest"
    if item.without_balancer is not None and not item.stock.spare:
        yield "failure", f"one balancer fewer: {_filled(item.without_balancer)} at the fullest"
    if item.rehashed is not None:
        yield (
            "failure",
            f"one balancer fewer, and all flows moved: {_filled(item.rehashed)} until the old "
            "ones time out",
        )


def _filled(part: float) -> str:
    """How full the ports of a place are."""
    return f"{percent(part)} of the ports" if part < _TWICE else f"{part:.1f} times the ports"


def _of_result(item: Sizing) -> Iterator[_Line]:
    refusal, free = item.refusal, item.stock.headroom
    if item.busy > 1:
        yield "result", "does not fit: more packets than the processors take, some are lost"
    if refusal is not None:
        yield "result", _refused(item, refusal)
    elif item.busy <= 1:
        left = "" if item.has_headroom else f", but for the {percent(free)} that should stay free"
        yield "result", f"fits{left}"
    if item.rest_s is not None and refusal is None and round(item.rest_s) < _REST_S:
        yield (
            "note",
            f"a port lies idle for {_seconds(item.rest_s)} before another client has it; "
            f"RFC 6888 asks for {_REST_S} s",
        )
    if item.is_over_limit:
        yield (
            "note",
            f"a client address has {_whole(item.per_client)} flows, and without "
            f"--max-client-flows may have {item.stock.pool.size // 2:,}",
        )


def _refused(item: Sizing, refusal: Refusal) -> str:
    if not refusal.part:
        return "does not fit: at busy moments a few new flows may be refused (drop_no_port)"
    if not item.each.rate:
        return f"does not fit: at least {percent(refusal.part)} of the clients get no NAT port"
    last = "" if refusal.last_s is None else f" to {_seconds(refusal.last_s)}"
    return (
        f"does not fit: the first new flow is refused after {_seconds(refusal.first_s)}{last}, "
        f"then at least {percent(refusal.part)} of them (drop_no_port)"
    )


def _of_advice(item: Sizing) -> Iterator[_Line]:
    for number, line in enumerate(advice(item)):
        yield "or" if number else "do", line


def advice(item: Sizing) -> list[str]:
    """Ways to go on, one line each: what to start, or what to change before."""
    lines = [_start(item)] if item.carries else []
    if item.is_spread_by_port:
        lines.append("--hash 5-tuple, so that one client's flows go to several backends")
    lines += _more_ports(item)
    main = _OPTIONS[item.each.main_timeout]
    if not item.fits and item.longest_timeout is not None:
        lines.append(f"{main} {item.longest_timeout}")
    elif item.nat_addresses > 1 and item.timeout_without_addresses is not None:
        lines.append(f"{main} {item.timeout_without_addresses}, with one NAT address")
    if not item.has_headroom and item.enough_balancers is not None:
        lines.append(count(item.enough_balancers, "balancer"))
    return lines


def _more_ports(item: Sizing) -> Iterator[str]:
    """What gives the fullest place fewer flows, or more ports."""
    if item.wanted is not None and item.wanted > item.places:
        addresses, backends = (
            -(-item.wanted // item.backends),
            -(-item.wanted // item.nat_addresses),
        )
        if addresses <= MOST_NAT_ADDRESSES:
            yield f"{_addresses(addresses)} toward each backend"
        yield f"{backends:,} backends"
    if not item.fits and item.ports < min(item.stock.pool.size, MAX_FLOWS_LIMIT / item.places):
        yield f"--max-flows {item.wanted_max_flows}, so that each place has all ports"
    if item.fits_with_all_ports:
        yield "--nat-ports 1024-65535, and net.ipv4.ip_local_reserved_ports for the host"


def _start(item: Sizing) -> str:
    """What starts a balancer that carries the load."""
    options = _options(item)
    if item.nat_addresses > 1:
        each = " of each balancer's own" if item.balancers > 1 else ""
        more = f";{options} on the command line, or as keys" if options else ""
        return f"{item.nat_addresses} nat-addresses{each} in the [[service]]{more}"
    shown = min(item.backends, DEFAULT_BACKENDS)
    more = " ..." if item.backends > shown else ""
    tcp = " --protocol tcp --port PORT" if item.load.protocol is Protocol.TCP else ""
    return f"xdplb up --iface NAME{tcp}{' --backend ADDR' * shown}{more}{options}"


def _options(item: Sizing) -> str:
    """What ``up`` would not do by itself, as it is typed."""
    words = [f"--nat-ports {part}" for part in item.stock.pool.ranges if item.stock.is_own_pool]
    if item.max_flows != DEFAULT_MAX_FLOWS:
        words.append(f"--max-flows {item.max_flows}")
    if item.is_over_limit:
        words.append("--max-client-flows 0")
    for name, option in _OPTIONS.items():
        seconds = getattr(item.load.timeouts, name)
        if seconds != getattr(DEFAULT_TIMEOUTS, name):
            words.append(f"{option} {seconds}")
    return "".join(f" {word}" for word in words)


def _whole(number: float) -> str:
    return f"{number:,.0f}"


def _rate(number: float) -> str:
    return f"{number:,.6g}" if number < 1 else f"{number:,.0f}"


def _seconds(number: float) -> str:
    return f"{number:,.0f} s" if number >= 1 or not number else f"{number:.2g} s"


def _sizing(item: Sizing) -> dict[str, Any]:
    load, stock, refusal = item.load, item.stock, item.refusal
    return {
        "load": {
            "protocol": load.protocol,
            "clients": load.clients,
            "rate": load.rate,
            "duration": load.duration,
            "client_addresses": load.addresses,
            "packets": stock.packets or None,
        },
        "flows": {
            "held": round(load.idle_s, 3),
            "alive": round(load.alive),
            "each_balancer": round(item.each.alive),
            "fullest": round(item.most),
            "fill": round(item.fill, 6),
        },
        "balancers": item.balancers,
        "spare": stock.spare,
        "backends": item.backends,
        "nat_addresses": item.nat_addresses,
        "nat_ports": {
            "ranges": f"{stock.pool}",
            "total": stock.pool.size,
            "safe": int(safe(stock.pool.size)),
        },
        "wanted_places": item.wanted,
        "max_flows": item.max_flows,
        "memory": item.memory,
        "packets": {
            "most": round(stock.speed.most_packets(item.there)),
            "busy": round(item.busy, 6),
        },
        "fits": item.carries,
        "refused": refusal
        and {
            "first": round(refusal.first_s, 3),
            "last": refusal.last_s and round(refusal.last_s, 3),
            "part": round(refusal.part, 6),
        },
        "longest_timeout": item.longest_timeout,
        "rest": item.rest_s and round(item.rest_s, 3),
        "failure": {
            "backend": _rounded(item.without_backend),
            "balancer": _rounded(item.without_balancer),
            "rehash": _rounded(item.rehashed),
        },
        "advice": advice(item),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def to_json(item: Sizing) -> str:
    """The sizing as one JSON object. Keys may be added to it, but never renamed."""
    return json.dumps({"version": JSON_VERSION, **_sizing(item)}, indent=2)
