"""``capacity``: how many NAT addresses, backends and balancers a load needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from xdplb.capacity.limits import DEFAULT_BACKENDS, MOST, MOST_BALANCERS, MOST_NAT_ADDRESSES
from xdplb.capacity.measured import LIMIT_MPPS
from xdplb.cli.commands import SECONDS
from xdplb.cli.params import PORTS, Number, Seconds, json_option
from xdplb.errors import InvalidValueError
from xdplb.model import (
    DEFAULT_ANSWERED_S,
    DEFAULT_ESTABLISHED_S,
    DEFAULT_MAX_FLOWS,
    DEFAULT_TRANSITORY_S,
    DEFAULT_UNREPLIED_S,
    IPV4,
    IPV6,
    MAX_FLOWS_LIMIT,
    PortRange,
    Protocol,
    Timeouts,
)
from xdplb.request import refuse_overlap
from xdplb.selection import MAGLEV_SIZE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.capacity.load import Load
    from xdplb.capacity.stock import Stock
    from xdplb.ports import NatPool

_LINUX_EPHEMERAL: Final = PortRange(32768, 60999)
"""What Linux takes for its own connections, where nobody has said otherwise."""

_WHOLE_PERCENT: Final = 100
_ALMOST_ALL: Final = 99
_MANY: Final = int(MOST)
_MOST_PROCESSORS: Final = 1024
_MOST_NS: Final = 1e6

_LOAD: Final = (
    click.option(
        "--clients", type=click.IntRange(1, _MANY), metavar="N",
        help="Client endpoints, addresses with a port, that speak at the same time.",
    ),
    click.option("--rate", type=Number(0, MOST), metavar="N", help="New flows a second."),
    click.option(
        "--duration", type=Seconds(0, MOST), metavar="SECONDS",
        help="From the first packet of a flow to its last.  [default: 0, one question]",
    ),
    click.option(
        "--protocol", type=click.Choice([item.value for item in Protocol]),
        default=Protocol.UDP.value, show_default=True, help="Of the service.",
    ),
    click.option(
        "--client-addresses", type=click.IntRange(1, _MANY), metavar="N",
        help="Client addresses that all of that comes from; leave it out with --hash 5-tuple.  "
        "[default: one for each flow]",
    ),
    click.option(
        "--unanswered", type=Number(0, _WHOLE_PERCENT), metavar="PERCENT",
        help="Flows that no backend answers: 100 for syslog.  [default: 0]",
    ),
    click.option(
        "--unclosed", type=Number(0, _WHOLE_PERCENT), metavar="PERCENT",
        help="TCP connections whose ends go away without a FIN or RST.  [default: 0]",
    ),
    click.option(
        "--packets", type=Number(0, MOST), metavar="N",
        help="Packets a second, both directions together.",
    ),
)  # fmt: skip
"""What clients bring."""

_TIMEOUTS: Final = (
    click.option(
        "--timeout", "answered_s", type=SECONDS, metavar="SECONDS",
        default=DEFAULT_ANSWERED_S, show_default=True, help="As of 'up'.",
    ),
    click.option(
        "--timeout-unreplied", "unreplied_s", type=SECONDS, metavar="SECONDS",
        default=DEFAULT_UNREPLIED_S, show_default=True, help="As of 'up'.",
    ),
    click.option(
        "--timeout-tcp", "established_s", type=SECONDS, metavar="SECONDS",
        default=DEFAULT_ESTABLISHED_S, show_default=True, help="As of 'up'.",
    ),
    click.option(
        "--timeout-tcp-transitory", "transitory_s", type=SECONDS, metavar="SECONDS",
        default=DEFAULT_TRANSITORY_S, show_default=True, help="As of 'up'.",
    ),
)  # fmt: skip

_STOCK: Final = (
    click.option(
        "--backends", type=click.IntRange(1, MAGLEV_SIZE), metavar="N",
        help=f"Backends that are there.  [default: {DEFAULT_BACKENDS}, or as many as are needed]",
    ),
    click.option(
        "--nat-addresses", type=click.IntRange(1, MOST_NAT_ADDRESSES), metavar="N",
        help="Addresses that a balancer speaks from toward each.  [default: as many as are needed]",
    ),
    click.option(
        "--balancers", type=click.IntRange(1, MOST_BALANCERS), metavar="N",
        help="Balancers that share the load.  [default: as many as the packets need]",
    ),
    click.option(
        "--spare", type=click.IntRange(0, MOST_BALANCERS), default=0, show_default=True,
        metavar="N", help="Balancers that may fail, and the others carry all.",
    ),
    click.option(
        "--headroom", type=Number(0, _ALMOST_ALL), default=20, show_default=True,
        metavar="PERCENT", help="Part of the ports and of the processors that is to stay free.",
    ),
    click.option(
        "--nat-ports", type=PORTS, multiple=True,
        help="Ports that flows may get, a range. Repeat it.  "
        "[default: 1024 and up, without this host's own range]",
    ),
    click.option(
        "--max-flows", type=click.IntRange(1, MAX_FLOWS_LIMIT), metavar="N",
        help="Flows of an IP version that a balancer has room for.  "
        f"[default: {DEFAULT_MAX_FLOWS}, or as many as are needed]",
    ),
    click.option("--ipv6", is_flag=True, help="Flows of IPv6, whose records are longer."),
)  # fmt: skip
"""What is there to carry it."""

_SPEED: Final = (
    click.option(
        "--processors", type=click.IntRange(1, _MOST_PROCESSORS), default=1, show_default=True,
        metavar="N", help="Processors of a balancer that its interface spreads packets over.",
    ),
    click.option(
        "--mpps", type=Number(0.001, _MOST_NS), default=LIMIT_MPPS, show_default=True,
        metavar="N",
        help="Millions of packets a second that one of yours sends back with XDP_TX and nothing "
        "else.",
    ),
    click.option(
        "--packet-ns", type=Number(0, _MOST_NS), metavar="N",
        help="Nanoseconds that the program takes a packet on yours: 'make bench' tells.  "
        "[default: those of the benchmark, by the flows]",
    ),
)  # fmt: skip
"""How quick it is."""


def _choices(command: Any) -> Any:  # noqa: ANN401 - what click decorates
    """The options, in the order of the help."""
    for option in reversed((*_LOAD, *_TIMEOUTS, *_STOCK, *_SPEED)):
        command = option(command)
    return command


@click.command()
@_choices
@json_option
def capacity(*, as_json: bool, **given: Any) -> None:  # noqa: ANN401 - one for each option
    """Say how many NAT addresses, backends and balancers a load needs.

    It only reckons, as any user and on any machine; nothing has to be up. Of what is not named it
    finds the fewest that suffice; what is named it takes as it is, and says whether the load fits,
    and what happens if not. Backends are taken to have the same weight.

    \b
    Example:
        xdplb capacity --rate 2000 --backends 4
        xdplb capacity --clients 50000 --rate 100 --packets 3000000 --spare 1
        xdplb capacity --rate 500 --unanswered 100 --backends 2 --nat-addresses 1
        xdplb capacity --protocol tcp --rate 1000 --duration 30 --backends 8 --json
    """
    from xdplb.capacity.report import to_json, to_text  # noqa: PLC0415 - not for --help
    from xdplb.capacity.sizing import size  # noqa: PLC0415 - the same

    load, stock = _load(given), _stock(given)
    found = size(load, stock)
    click.echo(to_json(found) if as_json else to_text(found))


def _load(given: dict[str, Any]) -> Load:
    """What clients bring.

    Raises:
        InvalidValueError: It says nothing, or two things that cannot be.
    """
    from xdplb.capacity.load import Load  # noqa: PLC0415 - not for --help

    protocol = Protocol(given["protocol"])
    odd, other, why = ("unanswered", "unclosed", "UDP has no end that a client could leave out")
    if protocol is Protocol.TCP:
        odd, other, why = (
            "unclosed",
            "unanswered",
            "TCP that nobody answers is kept like what was closed",
        )
    if given[other]:
        raise InvalidValueError(f"--{other} is not for {protocol}: {why}", f"--{odd} is")
    return Load(
        protocol=protocol,
        clients=given["clients"],
        rate=given["rate"] or 0.0,
        duration=given["duration"] or 0.0,
        timeouts=Timeouts(
            *(
                given[name]
                for name in ("unreplied_s", "answered_s", "transitory_s", "established_s")
            )
        ),
        odd=(given[odd] or 0.0) / _WHOLE_PERCENT,
        addresses=given["client_addresses"],
    )


def _stock(given: dict[str, Any]) -> Stock:
    """What is there to carry it.

    Raises:
        InvalidValueError: No balancer can be so.
    """
    from xdplb.capacity.speed import Speed  # noqa: PLC0415 - not for --help
    from xdplb.capacity.stock import Stock  # noqa: PLC0415 - the same

    return Stock(
        pool=_pool(given["nat_ports"]),
        version=IPV6 if given["ipv6"] else IPV4,
        backends=given["backends"],
        nat_addresses=given["nat_addresses"],
        balancers=given["balancers"],
        spare=given["spare"],
        max_flows=given["max_flows"],
        headroom=given["headroom"] / _WHOLE_PERCENT,
        packets=given["packets"] or 0.0,
        speed=Speed(given["processors"], given["mpps"], given["packet_ns"]),
        is_own_pool=bool(given["nat_ports"]),
    )


def _pool(wanted: Sequence[PortRange]) -> NatPool:
    """The ports that ``up`` would take here; on a machine that is no Linux, that it usually takes.

    Raises:
        InvalidValueError: Two ranges overlap, or none is left.
    """
    refuse_overlap("--nat-ports", tuple(wanted))
    from xdplb.kernel.netns import ephemeral_ports  # noqa: PLC0415 - not for --help
    from xdplb.ports import make_pool  # noqa: PLC0415 - the same

    try:
        own = ephemeral_ports()
    except OSError:
        own = _LINUX_EPHEMERAL
    return make_pool(wanted, own)
