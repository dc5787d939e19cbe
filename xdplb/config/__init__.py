"""The configuration file: TOML in, a request out, and back.

One ``[balancer]`` table says what all services have in common; each ``[[service]]`` makes one
service for each of its addresses and protocols; ``[agent]`` is for ``xdplb run``. ``xdplb/share``
has an example with every key, and the JSON Schema for editors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xdplb.config.files import parse_toml, read_file
from xdplb.config.plain import services_from, services_to
from xdplb.config.problems import Problems
from xdplb.config.reading import read
from xdplb.config.writing import dump
from xdplb.errors import XdplbError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from xdplb.config.reading import Contents
    from xdplb.listen import Listen
    from xdplb.request import Request

__all__ = ["dump", "load", "load_listen", "problems", "services_from", "services_to"]


def load(path: Path) -> Request:
    """The request that a file makes.

    Raises:
        InvalidValueError: Something in it is wrong; the message begins with the file and the key.
        NotReadyError: It cannot be read, or others could have written it.
    """
    return _load(path).request


def load_listen(path: Path) -> Listen | None:
    """Where a file wants the agent to be spoken to; None for nowhere.

    Raises:
        XdplbError: As ``load``.
    """
    return _load(path).listen


def _load(path: Path) -> Contents:
    contents, errors = _read(path)
    if contents is None or errors:
        raise errors[0]
    return contents


def problems(path: Path) -> list[XdplbError]:
    """All that ``load`` would refuse, as far as one thing does not hide the next."""
    try:
        return _read(path)[1]
    except XdplbError as error:
        return [error]


def _read(path: Path) -> tuple[Contents | None, list[XdplbError]]:
    """What it says, and what is wrong; the first is None only if the second is not empty.

    Raises:
        XdplbError: The file cannot be read, or is no TOML.
    """
    data, distrusted = read_file(path)
    errors: list[XdplbError] = [*distrusted]
    try:
        raw = parse_toml(path, data)
    except XdplbError as error:
        return None, [*errors, error]
    found = Problems()
    contents = read(raw, found)
    names = _names(raw.get("service"))
    return contents, [*errors, *(problem.error(path, names) for problem in found.found)]


def _names(services: object) -> Mapping[int, str]:
    """What the services are called, where it can be printed."""
    if not isinstance(services, list):
        return {}
    named = (one.get("name") if isinstance(one, dict) else None for one in services)
    return {
        number: name
        for number, name in enumerate(named)
        if isinstance(name, str) and name.isprintable()
    }
