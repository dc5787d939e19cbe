"""``doctor`` on the command line: text, JSON, colours, exit codes; the machine is in memory."""

from __future__ import annotations

import json
from contextlib import contextmanager
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Self

import pytest
from click.testing import CliRunner
from fake_examiner import STRANGER, FakeExaminer, running, veth

from xdplb.cli import commands
from xdplb.doctor.evidence import Leftover, Trial
from xdplb.doctor.findings import ANYWHERE, HERE
from xdplb.doctor.report import command
from xdplb.facts import Neighbour

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from click.testing import Result

LEFT = Leftover(2, "eth0", ip_address("192.0.2.77"))


class NoMachine:
    """Stands in for ``xdplb.kernel.machine.Machine``: there is nothing to ask it."""

    def __init__(self, *_: object) -> None:
        self.is_locked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is open."""

    @contextmanager
    def lock(self) -> Iterator[None]:
        self.is_locked = True
        yield
        self.is_locked = False


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run ``doctor`` on a machine."""

    def work(seen: FakeExaminer, *words: str, **options: Any) -> Result:
        @contextmanager
        def examiner(machine: NoMachine, status: object) -> Iterator[FakeExaminer]:
            del status
            seen.is_locked = lambda: machine.is_locked
            yield seen

        monkeypatch.setattr("xdplb.kernel.examiner.Examiner", examiner)
        monkeypatch.setattr("xdplb.kernel.machine.Machine", NoMachine)
        monkeypatch.setattr("xdplb.kernel.compiler.Compiler", lambda _: None)
        return CliRunner().invoke(commands, ["doctor", *words], **options)

    return work


def _foreign() -> FakeExaminer:
    examiner = FakeExaminer()
    examiner.hanging[2] = STRANGER
    return examiner


def test_help_shows_an_example() -> None:
    assert "Example:\n" in CliRunner().invoke(commands, ["doctor", "--help"]).output


def test_a_healthy_machine_ends_with_0(run: Callable[..., Result]) -> None:
    done = run(FakeExaminer(running("192.0.2.10")))
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[0] == "machine"
    assert {"interface eth0", "balancer eth0", "backend 192.0.2.10"} < set(lines)
    assert all(line.startswith("  ok    ") for line in lines if line.startswith("  "))
    assert lines[-1] == "35 checks: 0 failed, 0 warned"


def test_warnings_end_with_0_and_a_failure_with_3(run: Callable[..., Result]) -> None:
    warned = FakeExaminer()
    warned.said["leftovers"] = (LEFT,)
    done = run(warned)
    assert done.exit_code == 0
    assert "  warn  leftovers" in done.output
    done = run(_foreign(), "--iface", "eth0")
    assert done.exit_code == 3
    assert "  FAIL  program" in done.output


def test_a_finding_has_its_command_and_its_hint_below_it(run: Callable[..., Result]) -> None:
    lines = run(_foreign(), "--iface", "eth0").output.splitlines()
    at = next(place for place, line in enumerate(lines) if "FAIL" in line)
    assert [line.strip() for line in lines[at + 1 : at + 3]] == [
        "run:  ip link set dev eth0 xdp off",
        "hint: only if nobody needs it",
    ]


def test_a_reason_of_several_lines_stays_in_its_column(run: Callable[..., Result]) -> None:
    examiner = FakeExaminer()
    examiner.said["trial"] = Trial(problem="the kernel says no:\nR1 invalid")
    lines = run(examiner).output.splitlines()
    at = next(place for place, line in enumerate(lines) if "the kernel says no:" in line)
    assert lines[at + 1].index("R1") == lines[at].index("the kernel")


def test_the_text_has_colours_only_on_a_terminal_that_wants_them(
    run: Callable[..., Result],
) -> None:
    assert "\x1b[" not in run(FakeExaminer()).output
    assert "\x1b[32mok\x1b[0m" in run(FakeExaminer(), color=True).output
    assert "\x1b[" not in run(FakeExaminer(), color=True, env={"NO_COLOR": "1"}).output


def test_json_says_the_same(run: Callable[..., Result]) -> None:
    examiner = veth(running("192.0.2.10"), gro=False)
    done = run(examiner, "--json")
    assert done.exit_code == 3
    answer = json.loads(done.output)
    assert (answer["version"], answer["fixed"]) == (1, [])
    (peer,) = (item for item in answer["checks"] if item["name"] == "peer")
    inside = "nsenter --net=/run/netns/far"
    assert peer == {
        "name": "peer",
        "scope": "interface eth0",
        "result": "fail",
        "reason": "GRO of far, the peer of eth0, is off: all that is sent to it is lost",
        "hint": None,
        "fix": {
            "command": f"{inside} ethtool -K far gro on",
            "undo": f"{inside} ethtool -K far gro off",
            "safe": True,
        },
    }
    assert {item["result"] for item in answer["checks"]} == {"pass", "fail"}
    assert all(item["fix"] is None for item in answer["checks"] if item["result"] == "pass")


def test_nothing_is_changed_without_fix(run: Callable[..., Result]) -> None:
    examiner = veth(running("192.0.2.10"), gro=False)
    done = run(examiner)
    assert examiner.repaired == []
    assert "ethtool -K far gro on  (--fix does it)" in done.output


def test_fix_mends_says_how_to_undo_it_and_looks_again(run: Callable[..., Result]) -> None:
    examiner = veth(running("192.0.2.10"), gro=False)
    done = run(examiner, "--fix")
    assert done.exit_code == 0
    assert [item.what for item in examiner.repaired] == ["gro"]
    assert "GRO of far is on" in done.output
    assert done.output.splitlines()[:2] == [
        "fixed: nsenter --net=/run/netns/far ethtool -K far gro on",
        "  undo: nsenter --net=/run/netns/far ethtool -K far gro off",
    ]


def test_fix_with_nothing_to_mend_mends_nothing(run: Callable[..., Result]) -> None:
    done = run(FakeExaminer(), "--fix", "--json")
    assert json.loads(done.output)["fixed"] == []


def test_what_could_not_be_mended_is_said(run: Callable[..., Result]) -> None:
    examiner = veth(running("192.0.2.10"), gro=False)
    examiner.said["repair"] = "Operation not supported"
    done = run(examiner, "--fix")
    assert done.exit_code == 3
    assert "ethtool -K far gro on: Operation not supported" in done.output.splitlines()[0]
    (fixed,) = json.loads(run(examiner, "--fix", "--json").output)["fixed"]
    assert (fixed["name"], fixed["problem"]) == ("peer", "Operation not supported")


def test_of_many_backends_only_those_that_have_something_are_printed(
    run: Callable[..., Result],
) -> None:
    def many() -> FakeExaminer:
        examiner = FakeExaminer(running(*(f"192.0.2.{number}" for number in range(10, 30))))
        examiner.hops[ip_address("192.0.2.15")] = Neighbour(None, state="FAILED")
        return examiner

    text = run(many()).output
    assert [line for line in text.splitlines() if line.startswith("backend")] == [
        "backend 192.0.2.15"
    ]
    assert "19 more backends: nothing is wrong with them" in text
    scopes = {item["scope"] for item in json.loads(run(many(), "--json").output)["checks"]}
    assert len([scope for scope in scopes if scope.startswith("backend")]) == 20


@pytest.mark.parametrize(
    ("text", "place", "netns", "typed"),
    [
        ("ip link", HERE, "", "ip link"),
        ("ip link", HERE, "lab", "nsenter --net=/run/netns/lab ip link"),
        ("ip link", HERE, "/proc/7/ns/net", "nsenter --net=/proc/7/ns/net ip link"),
        ("ip link", "/run/netns/far", "lab", "nsenter --net=/run/netns/far ip link"),
        ("xdplb run", HERE, "lab", "xdplb --netns lab run"),
        ("xdplb run", HERE, "", "xdplb run"),
        ("sysctl -w a=1", ANYWHERE, "lab", "sysctl -w a=1"),
        ("", HERE, "lab", ""),
    ],
)
def test_a_command_is_typed_where_xdplb_was_started(
    text: str, place: str, netns: str, typed: str
) -> None:
    assert command(text, place, netns) == typed
