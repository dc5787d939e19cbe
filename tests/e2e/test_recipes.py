"""The tutorial and the recipes of the page for users: every command, and what it prints."""

from __future__ import annotations

import json
import re
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from recipes import PAGE, Section, prepare, rows, sections

if TYPE_CHECKING:
    from collections.abc import Iterator

SECTIONS = sections(PAGE.read_text())
AT_A_TIME = 3
"""Most of a recipe's time is waiting, for a server to answer or a neighbour to be missed."""


def differences(title: str) -> list[str]:
    """What the commands of a section do that the page does not say."""
    found = []
    with Section() as section:
        for step in SECTIONS[title]:
            done, as_said = section.perform(step)
            if not as_said:
                said = "".join(step.output)
                found.append(f"{step.command}\nsays:\n{said}does ({done.code}):\n{done.output}")
    return found


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[list[str]]]]:
    """The differences of the sections that are tested, the longest first."""
    names = {item.name for item in request.session.items}
    wanted = [
        title
        for title in SECTIONS
        if f"{test_the_page_says_what_happens.__name__}[{title}]" in names
    ]
    prepare()
    with ThreadPoolExecutor(AT_A_TIME) as pool:
        yield {
            title: pool.submit(differences, title)
            for title in sorted(wanted, key=lambda title: -len(SECTIONS[title]))
        }


@pytest.mark.timeout(300)  # with what runs beside it
@pytest.mark.parametrize("title", SECTIONS)
def test_the_page_says_what_happens(title: str, found: dict[str, Future[list[str]]]) -> None:
    assert not (differences := found[title].result()), "\n".join(differences)


@pytest.fixture(scope="module")
def pair() -> Iterator[Section]:
    """Two balancers; nothing is up yet."""
    with Section() as section:
        yield section


# JSON

DESCRIBED = PAGE.read_text()
OF_BACKENDS = "balancers[].services[].backends[]"
JSON = {
    "status --json": "`status --json`",
    "top --json --interval 0.1": "`top --json`",
    "backend list --json": "`backend list --json`",
    "explain 198.51.100.7:5555 192.0.2.100:53 --json": "`explain --json`",
    (
        "trace --json --reason all --count 1 2>/dev/null & "
        "while jobs %1 2>&1 | grep -q Running; do dig @192.0.2.10 server; done >/dev/null"
    ): "`trace --json`",
    "doctor --json": "`doctor --json`",
    "flows --json": "`flows --json`, `whois --json`",
    "whois 192.0.2.100:$(xdplb flows --json | jq .flows[0].nat.port) --json": (
        "`flows --json`, `whois --json`"
    ),
    "apply --dry-run --json /etc/xdplb/changed.toml": "`apply --json`",
    "restore --json /run/flows": "`restore --json`",
    "capacity --rate 20000 --backends 4 --nat-addresses 1 --json": "`capacity --json`",
    "health --json": "`health --json`",
    "down --drain --idle 0.1 --json": "`down --json`",  # the last: nothing is up afterwards
}
"""Commands, and the headings below which the page has their keys."""


def described(heading: str) -> dict[str, str]:
    """The keys that the page names, with what it says of them."""
    found: dict[str, str] = {}
    if heading == "`top --json`":
        found = {
            key: meaning.removeprefix("with `--watch`")
            for key, meaning in described("`status --json`").items()
        }
    for key, meaning in rows(DESCRIBED, heading):
        if meaning == "as `status --json` has them":
            found |= {
                name.removeprefix("balancers[].services[]."): more
                for name, more in described("`status --json`").items()
                if name.startswith(OF_BACKENDS)
            }
        else:
            found |= dict.fromkeys(re.findall(r"`([^`]+)`", key), meaning)
    return found


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The keys of a JSON value as the page writes them, each with its value."""
    if isinstance(value, list) and value:
        for one in value:
            yield from leaves(one, f"{path}[]")
    elif isinstance(value, dict) and value:
        for name, one in value.items():
            is_open = path.endswith(("verdicts", "skipped"))
            yield from leaves(one, f"{path}{'.' * bool(path)}{'*' if is_open else name}")
    else:
        yield path, value


@pytest.fixture(scope="module")
def busy(pair: Section) -> Section:
    """A balancer with a flow, a file that changes it, and one with its flows."""
    for machine, command in (
        ("balancer", "install -D -m 600 $SHARE/examples/pair.toml /etc/xdplb/changed.toml"),
        ("balancer", "sed -i '/^secret/d' /etc/xdplb/changed.toml"),
        ("balancer", "xdplb up --iface eth0 --service 192.0.2.100 --port 53 --backend 192.0.2.10"),
        ("balancer", "ip address replace 192.0.2.100/24 dev eth0"),
        ("client", "dig +short @192.0.2.100 server"),
        ("balancer", "xdplb save /run/flows"),
    ):
        done = pair.run(machine, command)
        assert done.code == 0, done.output
    return pair


@pytest.mark.parametrize("command", JSON)
def test_json_has_the_keys_that_the_page_names(busy: Section, command: str) -> None:
    """Where a value is missing, or a list is empty, so is what the page names inside of it."""
    done = busy.run("balancer", f"xdplb {command}")
    found = dict(leaves(json.loads(done.output)))
    said = described(JSON[command])
    missing = tuple(key for key, value in found.items() if value in (None, [], {}))
    assert not [key for key in found if key not in said and not key.startswith(missing)]
    assert not [key for key in missing if not any(name.startswith(key) for name in said)]
    assert not [
        key
        for key, meaning in said.items()
        if key not in found and not key.startswith(missing) and not meaning.startswith("with `")
    ]
