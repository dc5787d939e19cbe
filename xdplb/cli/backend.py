"""``backend list``, ``add``, ``remove``, ``drain``, ``undrain``, ``weight``."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click

from xdplb import live
from xdplb.balancer import Balancer
from xdplb.cli import completion
from xdplb.cli.params import BACKEND, iface_option, json_option
from xdplb.errors import NotReadyError
from xdplb.model import MAX_WEIGHT, names
from xdplb.render import backends_to_json, backends_to_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from xdplb.model import Backend, BalancerStatus

_LOOK_EVERY_S: Final = 0.5

_service = click.option(
    "--service", metavar="NAME", shell_complete=completion.services,
    help="Only for this service, by its name or address.",
)  # fmt: skip
_which = click.argument(
    "which", metavar="ADDR[:PORT]", type=BACKEND, shell_complete=completion.backends
)


@click.group()
def backend() -> None:
    """Change the backends of a running balancer; flows stay where they are.

    \b
    Example:
        xdplb backend drain 192.0.2.10
        xdplb backend list
    """


def _with_balancer(use: Callable[[Balancer], Any]) -> Any:  # noqa: ANN401 - what it returns
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    with Machine() as machine:
        return use(Balancer(machine))


def _matching(balancers: list[BalancerStatus], iface: str | None) -> list[BalancerStatus]:
    found = [
        item
        for item in balancers
        if iface is None or any(iface == on.name for on in item.interfaces)
    ]
    if iface is not None and not found:
        raise NotReadyError(f"no balancer on {iface}", "'xdplb status' shows where one is")
    return found


@backend.command("list")
@iface_option
@json_option
def list_(*, iface: str | None, as_json: bool) -> None:
    """List the backends.

    \b
    Example:
        xdplb backend list
        xdplb backend list --json
    """
    found = _matching(_with_balancer(lambda balancer: balancer.status()), iface)
    click.echo(backends_to_json(found) if as_json else backends_to_text(found))


@backend.command()
@click.argument("which", metavar="ADDR[:PORT]", type=BACKEND)
@click.option(
    "--weight", type=click.IntRange(0, MAX_WEIGHT), default=1, show_default=True,
    help="Its share of new flows, relative to the others'.",
)  # fmt: skip
@iface_option
@_service
def add(*, which: Backend, weight: int, iface: str | None, service: str | None) -> None:
    """Add a backend: its share of new flows goes there at once.

    \b
    Example:
        xdplb backend add 192.0.2.12
        xdplb backend add 192.0.2.12:5353 --weight 2
    """
    new = replace(which, weight=weight)
    change = _with_balancer(lambda balancer: balancer.add_backend(new, iface, service))
    late = "" if change.resolved else "  (nobody has answered for it yet)"
    click.echo(f"added: {new}{late}")


@backend.command()
@_which
@iface_option
@_service
def remove(*, which: Backend, iface: str | None, service: str | None) -> None:
    """Remove a backend: its flows go to another one with their next packet.

    \b
    Example:
        xdplb backend remove 192.0.2.12
    """
    _with_balancer(lambda balancer: balancer.remove_backend(which, iface, service))
    click.echo(f"removed: {which}")


@backend.command()
@_which
@click.option("--wait", is_flag=True, help="Wait until its last flow has gone.")
@iface_option
@_service
def drain(*, which: Backend, wait: bool, iface: str | None, service: str | None) -> None:
    """Give a backend no new flows; those it has go on.

    \b
    Example:
        xdplb backend drain 192.0.2.12 --wait
    """
    _with_balancer(lambda balancer: balancer.edit_backend(which, live.drain, iface, service))
    click.echo(f"drains: {which}")
    if wait:
        _with_balancer(lambda balancer: _wait(balancer, which, iface, service))
        click.echo(f"drained: {which}")


def _wait(balancer: Balancer, which: Backend, iface: str | None, service: str | None) -> None:
    """Return when the backend has no flow left; show how many have gone meanwhile."""
    first = _flows(balancer, which, iface, service)
    with click.progressbar(length=first, label=f"{which}", show_pos=True) as bar:
        left = first
        while left:
            time.sleep(_LOOK_EVERY_S)
            now = _flows(balancer, which, iface, service)
            bar.update(max(left - now, 0))
            left = now


def _flows(balancer: Balancer, which: Backend, iface: str | None, service: str | None) -> int:
    return sum(
        item.flows
        for status in _matching(balancer.status(), iface)
        for one in status.services
        if service is None or names(service, one.name, one.address)
        for item in one.backends
        if item.backend.place == which.place
    )


@backend.command()
@_which
@iface_option
@_service
def undrain(*, which: Backend, iface: str | None, service: str | None) -> None:
    """Give a backend new flows again.

    \b
    Example:
        xdplb backend undrain 192.0.2.12
    """
    _with_balancer(lambda balancer: balancer.edit_backend(which, live.undrain, iface, service))
    click.echo(f"takes new flows: {which}")


@backend.command()
@_which
@click.argument("value", metavar="N", type=click.IntRange(0, MAX_WEIGHT))
@iface_option
@_service
def weight(*, which: Backend, value: int, iface: str | None, service: str | None) -> None:
    """Set a backend's share of new flows, relative to the others' weights.

    \b
    Example:
        xdplb backend weight 192.0.2.12 3
    """
    _with_balancer(
        lambda balancer: balancer.edit_backend(
            which, lambda it: replace(it, weight=value), iface, service
        )
    )
    click.echo(f"weight {value}: {which}")
