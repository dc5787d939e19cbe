"""``explain``: what would become of a packet, and why."""

from __future__ import annotations

import json

import click

from xdplb import source
from xdplb.balancer import Balancer
from xdplb.cli import completion
from xdplb.cli.params import ENDPOINT, iface_option, json_option
from xdplb.explaining import sentences, to_json
from xdplb.model import Endpoint, Protocol


@click.command()
@click.argument("client", metavar="CLIENT:PORT", type=ENDPOINT)
@click.argument(
    "service", metavar="[SERVICE[:PORT]]", required=False, shell_complete=completion.services
)
@click.option(
    "--protocol", type=click.Choice([item.value for item in Protocol]),
    help="Of the packet.  [default: that of the service]",
)  # fmt: skip
@click.option(
    "--in", "came_by", metavar="NAME", shell_complete=completion.balanced,
    help="The interface that it comes in by.",
)  # fmt: skip
@iface_option
@json_option
def explain(  # noqa: PLR0913 - one argument for each option
    *,
    client: Endpoint,
    service: str | None,
    protocol: str | None,
    came_by: str | None,
    iface: str | None,
    as_json: bool,
) -> None:
    """Tell what would become of a client's packet, and why.

    The packet is given to the program that runs, on copies of its flows and counters: nothing
    is sent, and nothing changes. SERVICE is an address or a name.

    \b
    Example:
        xdplb explain 198.51.100.7:5555
        xdplb explain 198.51.100.7:5555 192.0.2.1:53 --protocol tcp
        xdplb explain 198.51.100.7:5555 dns:53 --json
    """
    from xdplb.kernel.compiler import Compiler  # noqa: PLC0415 - not for --help

    compiler = Compiler(source.headers())
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - while the compiler warms up

    wanted = Protocol(protocol) if protocol else None
    with Machine(compiler) as machine:
        found = Balancer(machine).explain(client, service, wanted, iface or came_by, came_by)
    if as_json:
        click.echo(json.dumps(to_json(found), indent=2))
        return
    for about, line in sentences(found):
        click.echo(f"{about:<9}{line}")
