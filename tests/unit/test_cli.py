"""The command line without a kernel: help, refusals, exit codes."""

from __future__ import annotations

import subprocess
import sys

import pytest
from click.testing import CliRunner

from xdplb.cli import commands

GOOD = ["up", "--iface", "eth0", "--backend", "192.0.2.10"]


def test_help_loads_nothing_that_takes_long() -> None:
    code = (
        "import sys; from xdplb.cli import commands;"
        "commands(['--help'], standalone_mode=False);"
        "names = {'bcc', 'pyroute2', 'rich', 'aiohttp', 'asyncio'};"
        "sys.exit(bool(names & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--backend", "nonsense"], "is not an IP address"),
        (["--backend", "192.0.2.10:x"], "is not a port"),
        (["--port", "1-2-3"], "is not a port"),
        (["--port", "0"], "out of range"),
        (["--client", "192.0.2.7:5"], "is not a reservation"),
        (["--client", "192.0.2.7=5"], "is not a reservation"),
        (["--backend", "[2001:db8::10]:x"], "is not a port"),
        (["--backend", "2001:db8::10"], "belong to two services"),
        (["--backend", "2001:db8::10", "--service", "192.0.2.1"], "the service 192.0.2.1 is not"),
        (["--service", "2001:db8::1"], "the service 2001:db8::1 is not"),
        (["--service", "192.0.2.1", "--service", "2001:db8::1"], "has no IPv6 backend"),
        (["--service", "192.0.2.1", "--service", "192.0.2.2"], "is given twice"),
        (["--service", "[2001:db8::1]"], "is not an IP address"),
        (["--client", "[2001:db8::7]:5=6"], "no service is"),
        (["--backend", "192.0.2.10"], "is given twice"),
        (["--hash", "random"], "Invalid value"),
        (["--protocol", "sctp"], "Invalid value"),
        (["--protocol", "tcp"], "tcp needs ports"),
        (["--protocol", "tcp", "--protocol", "tcp", "--port", "5"], "protocol tcp is given twice"),
        (["--timeout", "0"], "Invalid value"),
        (["--max-flows", "0"], "out of range"),
        (["--max-client-flows", "-1"], "out of range"),
        (["--max-client-flows", "few"], "Invalid value"),
        (["--virtual-mac", "eth0"], "'eth0' is not the MAC address of a host"),
        (["--virtual-mac", "01:00:5e:00:00:12"], "is not the MAC address of a host"),
        (["--virtual-mac", "00:00:00:00:00:00"], "is not the MAC address of a host"),
        (["--virtual-mac", "02:00:00:00:00:1"], "is not the MAC address of a host"),
        (["--virtual-mac", "02:0:0:0:0:1", "--virtual-mac", "x"], "write it like 00:00:5e:00:01:"),
        (
            ["--virtual-mac", "02:00:00:00:00:0A", "--virtual-mac", "02:00:00:00:00:0a"],
            "--virtual-mac 02:00:00:00:00:0a is given twice",
        ),
    ],
)
def test_a_bad_value_ends_with_2_and_a_reason(words: list[str], message: str) -> None:
    result = CliRunner().invoke(commands, [*GOOD, *words])
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_a_full_disk_is_named_where_the_help_goes() -> None:
    command = [sys.executable, "-m", "xdplb", "--help"]
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 3
    assert "the output cannot be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_namespace_is_named() -> None:
    result = CliRunner().invoke(commands, ["--netns", "no-such-namespace", "status"])
    assert result.exit_code == 2
    assert "no network namespace 'no-such-namespace'" in result.stderr
    assert "hint:" in result.stderr
