"""``capacity`` on the command line: lines for a person, JSON for a program, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from recipes import rows

from xdplb.cli import commands
from xdplb.kernel import netns
from xdplb.model import PortRange

if TYPE_CHECKING:
    from click.testing import Result

README = Path(__file__).parents[2] / "README.md"
PROGRAM = README.parent / "bpf" / "README.md"
USUAL = PortRange(32768, 60999)


@pytest.fixture(autouse=True)
def _usual_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes for itself what Linux takes if nobody says otherwise."""
    monkeypatch.setattr(netns, "ephemeral_ports", lambda: USUAL)


def invoke(*words: str) -> Result:
    return CliRunner().invoke(commands, ["capacity", *words])


def lines(words: str) -> dict[str, list[str]]:
    """What is printed, by what it is about."""
    result = invoke(*words.split())
    assert result.exit_code == 0, result.output
    found: dict[str, list[str]] = {}
    for line in result.output.splitlines():
        found.setdefault(line[:11].strip(), []).append(line[11:])
    return found


def as_json(words: str) -> dict[str, Any]:
    result = invoke(*words.split(), "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.output)
    return found


def test_the_readme_shows_what_it_prints() -> None:
    text = README.read_text()
    shown = text.split("\n$ xdplb capacity ")[1:]
    assert len(shown) == 2
    for block in shown:
        command, _, output = block.split("\n```")[0].partition("\n")
        assert invoke(*command.split()).output == output + "\n"


def test_the_examples_of_the_programs_page_are_right() -> None:
    table = rows(PROGRAM.read_text(), "Capacity", 1)
    assert len(table) == 7
    for _, command, flows, places in table:
        found = as_json(command.strip("`"))
        assert f"{found['flows']['alive']:,}" == flows
        on = f" on each of {found['balancers']} balancers" if found["balancers"] > 1 else ""
        assert f"{found['backends']} x {found['nat_addresses']}{on}" == places


def test_it_says_in_a_few_lines_what_a_load_needs_and_why() -> None:
    assert lines("--rate 2000 --backends 4") == {
        "load": ["2,000 new flows/s, udp"],
        "flows": [
            "240,000 alive at once: 2,000/s x 120 s "
            "(--timeout keeps the port after the last packet)"
        ],
        "NAT ports": [
            "36,280 toward a backend from one NAT address, safe up to 80 % "
            "(1024-32767, 61000-65535)"
        ],
        "places": [
            "4 backends x 3 NAT addresses: 20,827 flows at the fullest, 57 % of the ports"
        ],
        "flow table": ["--max-flows 435360: 55.8 MB of memory, all at the start"],
        "packets": [
            "<1 % of 1 processor, 2.64 M/s with so many flows "
            "(virtual machine, 2 cores, AMD EPYC, Linux 6.18)"
        ],
        "failure": ["one backend fewer: 76 % of the ports at the fullest"],
        "result": ["fits"],
        "note": ["a port lies idle for 98 s before another client has it; RFC 6888 asks for 120 s"],
        "do": [
            "3 nat-addresses in the [[service]]; --max-flows 435360 on the command line, or as keys"
        ],
        "or": ["--timeout 44, with one NAT address"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "flows"),
    [
        (
            "--rate 1000 --duration 30 --protocol tcp",
            "270,000 alive at once: 1,000/s x 30 s and 240 s "
            "(--timeout-tcp-transitory keeps the port after the last packet)",
        ),
        (
            "--rate 0.5 --unanswered 100",
            "15 alive at once: 0.5/s x 30 s "
            "(--timeout-unreplied keeps the port after the last packet)",
        ),
        (
            "--rate 10 --unclosed 10 --protocol tcp --timeout-tcp 600",
            "2,760 alive at once: 10/s x 276 s (--timeout-tcp-transitory, for 10 % "
            "--timeout-tcp, keeps the port after the last packet)",
        ),
        (
            "--clients 50 --rate 1 --timeout 5",
            "55 alive at once: 50 + 1/s x 5 s (--timeout keeps the port after the last packet)",
        ),
        (
            "--clients 50",
            "50 alive at once; --rate counts those that went, and keep a port for their timeout",
        ),
        (
            "--rate 20000 --client-addresses 2",
            "131,070 alive at once: 65,535 ports of each client address",
        ),
    ],
)
def test_flows_alive_come_with_their_reason(words: str, flows: str) -> None:
    assert lines(words)["flows"] == [flows]


def test_balancers_are_told_with_what_each_has_when_one_has_failed() -> None:
    found = lines("--clients 60000 --packets 5000000 --spare 1")
    assert found["balancers"] == ["3, each with 30,000 flows when 1 has failed"]
    assert found["failure"][1] == (
        "one balancer fewer, and all flows moved: 72 % of the ports until the old ones time out"
    )
    without = lines("--clients 60000 --packets 5000000 --balancers 3")
    assert without["balancers"] == ["3, each with 20,000 flows"]
    assert without["failure"][1] == "one balancer fewer: 43 % of the ports at the fullest"
    assert lines("--clients 9 --spare 2 --balancers 4")["balancers"] == [
        "4, each with 5 flows when 2 have failed"
    ]


@pytest.mark.parametrize(
    ("words", "start"),
    [
        ("--clients 9", "xdplb up --iface NAME --backend ADDR --backend ADDR"),
        ("--clients 9 --nat-addresses 1", "xdplb up --iface NAME --backend ADDR"),
        ("--clients 9 --backends 3", "xdplb up --iface NAME --backend ADDR --backend ADDR ..."),
        (
            "--clients 9 --protocol tcp --nat-addresses 1 --timeout-tcp 60",
            "xdplb up --iface NAME --protocol tcp --port PORT --backend ADDR --timeout-tcp 60",
        ),
        (
            "--clients 9 --nat-addresses 1 --nat-ports 5000-5999 --nat-ports 2000",
            "xdplb up --iface NAME --backend ADDR --nat-ports 2000 --nat-ports 5000-5999",
        ),
        (
            "--clients 20000 --client-addresses 1 --nat-addresses 1",
            "xdplb up --iface NAME --backend ADDR --max-client-flows 0",
        ),
        ("--clients 80000 --backends 1", "4 nat-addresses in the [[service]]"),
        (
            "--clients 160000 --backends 1 --balancers 2",
            "4 nat-addresses of each balancer's own in the [[service]]",
        ),
    ],
)
def test_what_fits_can_be_typed(words: str, start: str) -> None:
    found = lines(words)
    assert found["result"] == ["fits"]
    assert found["do"] == [start]


@pytest.mark.parametrize(
    ("words", "result", "ways"),
    [
        (
            "--rate 20000 --backends 4 --nat-addresses 1",
            "the first new flow is refused after 6 s to 7 s, then at least 94 % of them "
            "(drop_no_port)",
            ["27 NAT addresses toward each backend", "108 backends", "--timeout 4", "27 balancers"],
        ),
        (
            "--clients 100000 --backends 2 --nat-addresses 1",
            "at least 27 % of the clients get no NAT port",
            [
                "3 NAT addresses toward each backend",
                "5 backends",
                "--nat-ports 1024-65535, and net.ipv4.ip_local_reserved_ports for the host",
                "3 balancers",
            ],
        ),
        (
            "--rate 100 --max-flows 9000",
            "the first new flow is refused after 66 s to 90 s, then at least 25 % of them "
            "(drop_no_port)",
            [
                "--max-flows 72560, so that each place has all ports",
                "--timeout 52",
                "3 balancers",
            ],
        ),
        (
            "--clients 32000 --backends 1 --nat-addresses 1",
            "at busy moments a few new flows may be refused (drop_no_port)",
            [
                "2 NAT addresses toward each backend",
                "2 backends",
                "--nat-ports 1024-65535, and net.ipv4.ip_local_reserved_ports for the host",
                "2 balancers",
            ],
        ),
        (
            "--clients 10 --packets 10000000 --balancers 1",
            "more packets than the processors take, some are lost",
            ["3 balancers"],
        ),
        (
            "--rate 2000 --client-addresses 6 --backends 4 --nat-addresses 1",
            "the first new flow is refused after 14 s to 73 s, then at least 40 % of them "
            "(drop_no_port)",
            [
                "--hash 5-tuple, so that one client's flows go to several backends",
                "--timeout 11",
                "11 balancers",
            ],
        ),
    ],
)
def test_what_does_not_fit_is_told_with_what_would_help(
    words: str, result: str, ways: list[str]
) -> None:
    found = lines(words)
    assert found["result"] == [f"does not fit: {result}"]
    assert [*found["do"], *found.get("or", [])] == ways
    assert "RFC" not in "".join(found.get("note", []))


def test_what_fits_without_the_headroom_is_told_with_what_would_leave_it() -> None:
    found = lines("--clients 50000 --backends 2 --nat-addresses 1")
    assert found["result"] == ["fits, but for the 20 % that should stay free"]
    assert found["do"] == ["xdplb up --iface NAME --backend ADDR --backend ADDR"]
    assert found["or"] == [
        "2 NAT addresses toward each backend",
        "3 backends",
        "2 balancers",
    ]


def test_a_client_that_has_more_flows_than_it_may_is_noted() -> None:
    found = lines("--rate 200 --client-addresses 1 --backends 1 --nat-addresses 1")
    assert found["note"][1] == (
        "a client address has 24,000 flows, and without --max-client-flows may have 18,140"
    )


@pytest.mark.parametrize(
    ("words", "packets"),
    [
        (
            "--processors 4 --mpps 12.5 --packet-ns 45",
            "62 % of 4 processors, 8.00 M/s each with so many flows (--mpps, --packet-ns)",
        ),
        (
            "--processors 8 --packet-ns 0",
            "54 % of 8 processors, 4.60 M/s each with so many flows (--packet-ns)",
        ),
        (
            "--processors 4 --mpps 10",
            "61 % of 4 processors, 8.26 M/s each with so many flows (--mpps; the program's on "
            "virtual machine, 2 cores, AMD EPYC, Linux 6.18)",
        ),
    ],
)
def test_one_s_own_machine_is_reckoned_with(words: str, packets: str) -> None:
    assert lines(f"--clients 9 --packets 20e6 {words}")["packets"] == [packets]


def test_programs_get_the_figures() -> None:
    found = as_json("--rate 2000 --backends 4 --packets 100000")
    assert found["flows"]["alive"] == 240_000
    assert (found["backends"], found["nat_addresses"], found["balancers"]) == (4, 3, 1)
    assert found["nat_ports"]["total"] == 36_280
    assert found["fits"] is True
    assert found["refused"] is None
    assert found["advice"][1] == "--timeout 44, with one NAT address"
    refused = as_json("--rate 100 --max-flows 9000")
    assert refused["fits"] is False
    assert refused["refused"] == {"first": 65.724, "last": 90.0, "part": 0.25}


def test_flows_of_ipv6_take_more_memory() -> None:
    four, six = (as_json(f"--clients 9 {more}")["memory"] for more in ("", "--ipv6"))
    assert (four, six) == (32_505_856, 47_185_920)


def test_a_machine_that_is_no_linux_reckons_with_what_linux_takes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing() -> PortRange:
        raise FileNotFoundError

    monkeypatch.setattr(netns, "ephemeral_ports", missing)
    assert as_json("--clients 9")["nat_ports"]["total"] == 36_280


def test_the_host_s_own_range_is_left_out_as_up_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netns, "ephemeral_ports", lambda: PortRange(2000, 65535))
    assert as_json("--clients 9")["nat_ports"]["total"] == 976


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "there is no load"),
        ("--rate 0", "there is no load"),
        ("--clients 0", "'--clients'"),
        ("--clients 1 --rate nan", "is no number"),
        ("--rate -1", "'--rate'"),
        ("--rate inf", "'--rate'"),
        ("--rate x", "'--rate'"),
        ("--rate 1 --duration nan", "is no time"),
        ("--clients 1 --duration 3", "--duration needs --rate"),
        ("--rate 1 --unclosed 3", "--unclosed is not for udp"),
        ("--rate 1 --unanswered 3 --protocol tcp", "--unanswered is not for tcp"),
        ("--rate 1 --spare 1 --balancers 1", "none would be left"),
        ("--rate 1 --backends 1000 --nat-addresses 60", "too many"),
        ("--rate 1 --nat-addresses 64", "'--nat-addresses'"),
        ("--rate 1 --headroom 100", "'--headroom'"),
        ("--rate 1 --nat-ports 9-1", "port range 9-1 is empty"),
        ("--rate 1 --nat-ports 5-9 --nat-ports 9", "overlap"),
        ("--rate 1 --packets 1e9 --mpps 0.001", "not quick enough"),
    ],
)
def test_what_cannot_be_meant_is_refused(words: str, said: str) -> None:
    result = invoke(*words.split())
    assert result.exit_code == 2
    assert said in result.output
