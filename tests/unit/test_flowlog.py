"""Who stood behind a port, asked of a log of new flows."""

from __future__ import annotations

import json
from datetime import datetime
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from xdplb import flowlog, frames, tracing
from xdplb.cli import commands
from xdplb.errors import InvalidValueError
from xdplb.model import Endpoint, Protocol
from xdplb.tracing import Event

if TYPE_CHECKING:
    from pathlib import Path

NAT = Endpoint(ip_address("192.0.2.1"), 6666)
SERVICE = Endpoint(ip_address("192.0.2.1"), 53)
NIGHT = datetime(2026, 11, 24, 23, 15).astimezone().timestamp()


def line(client: str, at: float, backend: str = "192.0.2.10", **more: Any) -> str:
    """What ``trace`` writes of a flow that was opened."""
    came = frames.make(Endpoint(ip_address(client), 5555), SERVICE, Protocol.UDP, bytes(6))
    left = frames.make(
        more.pop("nat", NAT), Endpoint(ip_address(backend), 53), Protocol.UDP, bytes(6)
    )
    fields = {"verdict": "forward", "is_new": True, "came": came, "left": left, **more}
    event = Event(at_ns=int(at * 1e9), interface="eth0", lengths=(42, 42), **fields)
    return json.dumps(tracing.to_json(event)) + "\n"


LOG = [
    line("198.51.100.1", NIGHT - 100),
    line("198.51.100.2", NIGHT - 10),
    line("198.51.100.3", NIGHT - 50, backend="192.0.2.11"),
    line("198.51.100.4", NIGHT + 10),
    line("198.51.100.5", NIGHT - 1, is_new=False),
    line("198.51.100.6", NIGHT - 1, nat=Endpoint(NAT.address, 6667)),
    line("198.51.100.7", NIGHT - 1, left=b"", verdict="drop_no_port"),
    line("198.51.100.8", NIGHT - 1, nat=Endpoint(ip_address("192.0.2.2"), 6666)),
]


def clients(found: list[flowlog.Opened]) -> list[str]:
    return [f"{item.client.address}" for item in found]


def test_everybody_who_stood_there_is_found() -> None:
    found = flowlog.find(LOG, NAT)
    assert clients(found) == [f"198.51.100.{number}" for number in (1, 2, 3, 4)]
    assert (found[0].service, found[0].nat, found[0].protocol) == (SERVICE, NAT, Protocol.UDP)


def test_at_a_time_it_was_the_last_one_at_each_backend() -> None:
    assert clients(flowlog.find(LOG, NAT, before=NIGHT)) == ["198.51.100.2", "198.51.100.3"]
    assert clients(flowlog.find(LOG, NAT, ip_address("192.0.2.11"), NIGHT)) == ["198.51.100.3"]


def test_a_client_that_sent_from_port_0_is_found_like_others() -> None:
    text = line("198.51.100.9", NIGHT).replace('"source_port": 5555', '"source_port": 0')
    assert f"{flowlog.find([text], NAT)[0].client}" == "198.51.100.9:0"


@pytest.mark.parametrize(
    "text",
    [
        '{"source_port": 6666, ',
        '{"source_port": 6666, "in": 5}',
        '["source_port": 6666,',
        '"source_port": 6666,'.rjust(100_000, "["),
        *(
            line("198.51.100.1", NIGHT).replace(f"{NIGHT}", time)
            for time in ("NaN", "1e30", "-1", "Infinity")
        ),
    ],
    ids=range(8),
)
def test_what_is_no_log_is_refused(text: str) -> None:
    with pytest.raises(InvalidValueError, match="line 2 is not one of a log"):
        flowlog.find(["\n", text], NAT)


@pytest.fixture
def file(tmp_path: Path) -> str:
    name = tmp_path / "flows.json"
    name.write_text("".join(LOG))
    return str(name)


def test_the_command_tells_who_it_was(file: str) -> None:
    words = ("whois", "192.0.2.1:6666", "--log", file, "--at", "2026-11-24 23:15")
    done = CliRunner().invoke(commands, (*words, "--backend", "192.0.2.10"))
    assert done.output == (
        "198.51.100.2:5555 stood behind 192.0.2.1:6666 toward 192.0.2.10:53 udp "
        "from 2026-11-24 23:14:50 on; it dialled 192.0.2.1:53\n"
    )
    answer = json.loads(CliRunner().invoke(commands, (*words, "--json")).output)
    assert [item["client"]["address"] for item in answer["flows"]] == [
        *("198.51.100.2", "198.51.100.3")
    ]
    nobody = CliRunner().invoke(commands, ("whois", "192.0.2.1:1", "--log", file))
    assert nobody.output == "the log has nobody behind that port\n"


def test_a_log_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    words = ("whois", "192.0.2.1:1", "--log", str(tmp_path / "nothing"))
    done = CliRunner().invoke(commands, words)
    assert done.exit_code == 2
    assert "nothing: No such file" in done.stderr


def test_a_log_comes_by_the_standard_input() -> None:
    done = CliRunner().invoke(commands, ("whois", f"{NAT}", "--log", "-"), input="".join(LOG))
    assert len(done.output.splitlines()) == 4


def test_a_time_without_a_log_is_refused() -> None:
    done = CliRunner().invoke(commands, ("whois", "192.0.2.1:1", "--at", "2026-11-24 23:15"))
    assert done.exit_code == 2
    assert "--at needs --log" in done.stderr


def test_a_time_that_no_clock_has_is_refused(file: str) -> None:
    words = ("whois", f"{NAT}", "--log", file, "--at", "0001-01-01 00:00")
    done = CliRunner().invoke(commands, words)
    assert done.exit_code == 2
    assert "0001-01-01 00:00:00 is no time of a log" in done.stderr
