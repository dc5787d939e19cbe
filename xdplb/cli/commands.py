"""``up`` and ``metrics``."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import click

from xdplb import source
from xdplb.balancer import Balancer
from xdplb.cli import carry, completion
from xdplb.cli.files import FILE, load
from xdplb.cli.params import ADDRESS, BACKEND, MAC, PORTS, RESERVATION
from xdplb.cli.starting import say_up
from xdplb.errors import InvalidValueError, NotReadyError
from xdplb.model import (
    ALL_PORTS,
    DEFAULT_ANSWERED_S,
    DEFAULT_ESTABLISHED_S,
    DEFAULT_MAX_FLOWS,
    DEFAULT_TRANSITORY_S,
    DEFAULT_UNREPLIED_S,
    Hash,
    Mode,
    OnDown,
    Protocol,
    Timeouts,
)
from xdplb.request import simple_request

if TYPE_CHECKING:
    from pathlib import Path

    from xdplb.model import Address, Backend, PortRange, Reservation

_Value = TypeVar("_Value")

SECONDS = click.IntRange(1, 86400)


@click.command()
@click.option(
    "--config", type=FILE, metavar="FILE",
    help="Take everything from this file, and nothing else from the command line.",
)  # fmt: skip
@click.option(
    "--iface", "ifaces", metavar="NAME", multiple=True, shell_complete=completion.interfaces,
    help="Interface to balance on. Repeat it for several.",
)  # fmt: skip
@click.option(
    "--backend", "backends", type=BACKEND, multiple=True,
    help="Server that answers, with its port if it is not the one dialled. Repeat it.",
)  # fmt: skip
@click.option(
    "--service", "services", type=ADDRESS, multiple=True,
    help="Address that clients dial; one of IPv4 and one of IPv6 for both.  "
    "[default: the interface's own]",
)  # fmt: skip
@click.option(
    "--port", "ports", type=PORTS, multiple=True,
    help="Port that clients dial, or a range. Repeat it.  [default: all]",
)  # fmt: skip
@click.option(
    "--protocol", "protocols", multiple=True,
    type=click.Choice([item.value for item in Protocol]),
    default=[Protocol.UDP.value], show_default=True,
    help="Protocol to balance; tcp needs --port. Repeat it for both.",
)  # fmt: skip
@click.option(
    "--hash", "hash_kind", type=click.Choice([item.value for item in Hash]),
    default=Hash.SRC_DST.value, show_default=True,
    help="What of a packet chooses the backend.",
)  # fmt: skip
@click.option(
    "--mode", type=click.Choice([item.value for item in Mode]),
    default=Mode.AUTO.value, show_default=True,
    help="How the program hangs on the interface; auto is native where that works.",
)  # fmt: skip
@click.option(
    "--client", "clients", type=RESERVATION, multiple=True,
    help="Give this client endpoint always this NAT port. Repeat it.",
)  # fmt: skip
@click.option(
    "--max-flows", type=int,
    help="Flows of an IP version to make room for; each takes about 120 bytes, of IPv6 180.  "
    f"[default: {DEFAULT_MAX_FLOWS}, or what runs]",
)  # fmt: skip
@click.option(
    "--max-client-flows", type=int,
    help="Flows that one client may have, an IPv4 address or an IPv6 /64; more are refused, 0 is "
    "no limit.  [default: half of a backend's NAT ports]",
)  # fmt: skip
@click.option(
    "--nat-ports", type=PORTS, multiple=True,
    help="Ports that flows may get, a range. Repeat it.  "
    "[default: 1024 and up, without the host's own range]",
)  # fmt: skip
@click.option(
    "--timeout", "answered_s", type=SECONDS, metavar="SECONDS",
    default=DEFAULT_ANSWERED_S, show_default=True,
    help="Idle time after which a UDP flow may lose its port.",
)  # fmt: skip
@click.option(
    "--timeout-unreplied", "unreplied_s", type=SECONDS, metavar="SECONDS",
    default=DEFAULT_UNREPLIED_S, show_default=True,
    help="The same for a UDP flow that no backend has answered.",
)  # fmt: skip
@click.option(
    "--timeout-tcp", "established_s", type=SECONDS, metavar="SECONDS",
    default=DEFAULT_ESTABLISHED_S, show_default=True,
    help="The same for a TCP connection.",
)  # fmt: skip
@click.option(
    "--timeout-tcp-transitory", "transitory_s", type=SECONDS, metavar="SECONDS",
    default=DEFAULT_TRANSITORY_S, show_default=True,
    help="The same for one that is not yet, or no longer, established.",
)  # fmt: skip
@click.option(
    "--on-down", type=click.Choice([item.value for item in OnDown]),
    default=OnDown.REHASH.value, show_default=True,
    help="What becomes of the flows of a backend that is down: another one takes them, or their "
    "packets are dropped until it is back.",
)  # fmt: skip
@click.option(
    "--vlan/--no-vlan", default=True, show_default=True,
    help="Balance frames with VLAN tags, too; without, they are left to the kernel.",
)  # fmt: skip
@click.option(
    "--secret", type=FILE, metavar="FILE",
    help="Take the keys of the hash from this file: balancers that have it in common choose the "
    "same backends and NAT ports.  [default: what runs, or keys of its own]",
)  # fmt: skip
@click.option(
    "--virtual-mac", type=MAC, multiple=True,
    help="MAC address that frames may have, too, beside the interface's own: that of VRRP "
    "(keepalived: use_vmac). Repeat it.",
)  # fmt: skip
@click.option(
    "--restore", "restore", metavar="FILE", shell_complete=completion.files,
    help="Go on with the flows that 'xdplb save FILE' wrote, from the first packet on; - is the "
    "standard input.",
)  # fmt: skip
@click.pass_context
def up(  # noqa: PLR0913 - one argument for each option
    context: click.Context,
    *,
    config: Path | None,
    ifaces: tuple[str, ...],
    backends: tuple[Backend, ...],
    services: tuple[Address, ...],
    ports: tuple[PortRange, ...],
    protocols: tuple[str, ...],
    hash_kind: str,
    mode: str,
    clients: tuple[Reservation, ...],
    max_flows: int | None,
    max_client_flows: int | None,
    nat_ports: tuple[PortRange, ...],
    answered_s: int,
    unreplied_s: int,
    established_s: int,
    transitory_s: int,
    on_down: str,
    vlan: bool,
    secret: Path | None,
    virtual_mac: tuple[str, ...],
    restore: str | None,
) -> None:
    """Start balancing, or change a balancer that runs and keep its flows.

    Nothing stays behind but the program on the interface: no process, no file.

    \b
    Example:
        xdplb up --iface eth0 --backend 192.0.2.10 --backend 192.0.2.11
        xdplb up --iface eth0 --port 53 --backend 192.0.2.10:5353
        xdplb up --iface eth0 --protocol tcp --port 443 --backend 192.0.2.10
        xdplb up --iface eth0 --backend 2001:db8::10 --backend [2001:db8::11]:5353
        xdplb up --config /etc/xdplb/xdplb.toml
    """
    if config is not None:
        _refuse_beside(context, "config")
        request = load(config)
    else:
        request = simple_request(
            _needed(ifaces, "--iface"),
            _needed(backends, "--backend"),
            services,
            protocols=tuple(Protocol(item) for item in protocols),
            ports=ports or ALL_PORTS,
            hash=Hash(hash_kind),
            mode=Mode(mode),
            reservations=clients,
            max_flows=max_flows,
            nat_ports=nat_ports,
            timeouts=Timeouts(unreplied_s, answered_s, transitory_s, established_s),
            on_down=OnDown(on_down),
            vlan=vlan,
            max_client_flows=max_client_flows,
            secret=secret.absolute() if secret is not None else None,
            virtual_mac=virtual_mac,
        )
    saved = carry.read(restore) if restore is not None else None
    from xdplb.kernel.compiler import Compiler  # noqa: PLC0415 - not for --help

    compiler = Compiler(source.headers())
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - while the compiler warms up

    with Machine(compiler) as machine:
        say_up(Balancer(machine).up(request, saved))


def _needed(values: tuple[_Value, ...], option: str) -> tuple[_Value, ...]:
    """What cannot be left out where there is no file.

    Raises:
        InvalidValueError: It was.
    """
    if not values:
        raise InvalidValueError(
            f"{option} is missing", "name it, or a file that says everything, with --config"
        )
    return values


def _refuse_beside(context: click.Context, alone: str) -> None:
    """Let an option stand alone.

    Raises:
        InvalidValueError: Another one was given.
    """
    for parameter in context.command.params:
        name = parameter.name or ""
        source_of = context.get_parameter_source(name)
        if name not in {alone, "restore"} and (source_of is click.core.ParameterSource.COMMANDLINE):
            raise InvalidValueError(
                f"--{alone} and {parameter.opts[0]} exclude each other",
                "write it into the file",
            )


@click.command()
def metrics() -> None:
    """Print what 'status' knows for Prometheus.

    \b
    Example:
        xdplb metrics > /var/lib/prometheus/node-exporter/xdplb.prom
    """
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    try:
        from xdplb.metrics import text  # noqa: PLC0415 - only here
    except ImportError:
        raise NotReadyError(
            "metrics need the library prometheus-client",
            "install it with 'pip install prometheus-client', or xdplb with 'xdplb[agent]'",
        ) from None
    with Machine() as machine:
        click.echo(text(Balancer(machine).status()), nl=False)
