"""``save``, ``restore`` and ``up --restore`` over a machine in memory."""

from __future__ import annotations

import json
from collections import Counter
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from fake_machine import NEW_ID, FakeMachine, request

from xdplb import saved
from xdplb.balancer import Balancer
from xdplb.cli import carry, commands
from xdplb.errors import AttachError, LoadError, PrivilegeError, TableError, XdplbError
from xdplb.facts import Attached
from xdplb.model import IPV4, IPV6, Mode, Protocol
from xdplb.saved import FLOW, Lane, Part, Restored, Saved, Skip

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

UP = ("up", "--iface", "eth0", "--backend", "192.0.2.10")
OWN, BACKEND = ip_address("192.0.2.1"), ip_address("192.0.2.10")
LANE = Lane(OWN, Protocol.UDP, BACKEND, None, OWN)


def flows(version: int = IPV4, count: int = 3) -> Saved:
    part = Part(version, (LANE,), memoryview(bytes(count * FLOW[version].size)))
    return Saved(5.0, ("eth0", ""), ("answered",), (part,))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    """A machine with one balancer, and three flows."""
    made = FakeMachine()
    Balancer(made).up(request())
    made.run_on()
    made.saved = flows()
    monkeypatch.setattr("xdplb.kernel.compiler.Compiler", lambda _: None)
    monkeypatch.setattr("xdplb.kernel.machine.Machine", lambda *_: made)
    return made


@pytest.fixture
def file(tmp_path: Path) -> str:
    """A file with three flows."""
    path = tmp_path / "flows"
    path.write_bytes(b"".join(flows().pieces()))
    return f"{path}"


def run(*words: str, data: bytes = b"") -> Result:
    return CliRunner().invoke(commands, words, input=data)


def test_flows_go_into_a_file_and_come_back(machine: FakeMachine, tmp_path: Path) -> None:
    path = tmp_path / "flows"
    done = run("save", f"{path}")
    assert (done.exit_code, done.output) == (0, f"saved: 3 flows, {path.stat().st_size:,} bytes\n")
    done = run("restore", f"{path}")
    assert done.output == "restored: 2 of 3 flows (1 skipped: 1 timed out)\n"
    ((running, names, found, _),) = machine.given
    assert (running.program_id, names, found) == (NEW_ID, ("eth0",), machine.saved)


def test_flows_go_through_the_standard_streams(machine: FakeMachine) -> None:
    done = run("save", "-")
    assert saved.read(done.stdout_bytes, "-") == machine.saved
    assert "saved: 3 flows" in done.stderr
    assert run("restore", "-", data=done.stdout_bytes).output.startswith("restored: 2 of 3")
    failed = run("restore", "-", data=done.stdout_bytes[:-1])
    assert (failed.exit_code, "the standard input is damaged" in failed.stderr) == (2, True)


def test_programs_get_json(file: str, machine: FakeMachine) -> None:
    assert json.loads(run("restore", "--json", file).output) == {
        "version": 1,
        "flows": 3,
        "restored": 2,
        "skipped": {"timed_out": 1},
    }
    assert machine.given


def test_the_reasons_are_told_the_most_frequent_first() -> None:
    skipped = Counter({Skip.BACKEND_GONE: 77, Skip.TIMED_OUT: 1800, Skip.NO_ROOM: 0})
    assert carry.to_text(Restored(1_000_000, skipped)) == (
        "restored: 998,123 of 1,000,000 flows (1,877 skipped: 1,800 timed out, 77 backend gone)"
    )
    assert carry.to_text(Restored(5)) == "restored: 5 of 5 flows"


@pytest.mark.parametrize("command", ["save", "restore"])
def test_it_has_to_be_clear_which_balancer_is_meant(
    machine: FakeMachine, file: str, command: str
) -> None:
    machine.balancers *= 2
    done = run(command, file)
    assert (done.exit_code, "--iface NAME" in done.stderr) == (3, True)
    machine.balancers.clear()
    done = run(command, file)
    assert (done.exit_code, "no balancer is up" in done.stderr) == (3, True)


def test_an_interface_says_which_balancer_is_meant(machine: FakeMachine, file: str) -> None:
    assert run("save", "--iface", "eth0", file).exit_code == 0
    done = run("restore", "--iface", "eth1", file)
    assert (done.exit_code, "no balancer on eth1" in done.stderr) == (3, True)
    assert machine.given == []


@pytest.mark.parametrize("words", [("restore",), (*UP, "--restore")])
def test_a_damaged_file_is_refused_before_anything_is_done(
    machine: FakeMachine, tmp_path: Path, words: tuple[str, ...]
) -> None:
    path = tmp_path / "flows"
    loaded = len(machine.loaded)
    for data, reason in ((b"text", "is no file of saved flows"), (None, "there is no file")):
        path.unlink(missing_ok=True)
        if data is not None:
            path.write_bytes(data)
        done = run(*words, f"{path}")
        assert (done.exit_code, reason in done.stderr, f"{path}" in done.stderr) == (2, True, True)
    assert (machine.given, len(machine.loaded)) == ([], loaded)


@pytest.mark.parametrize("words", [("restore",), (*UP, "--restore")])
def test_flows_of_another_ip_version_are_refused_before_anything_is_done(
    machine: FakeMachine, tmp_path: Path, words: tuple[str, ...]
) -> None:
    path = tmp_path / "flows"
    path.write_bytes(b"".join(flows(IPV6).pieces()))
    loaded = len(machine.loaded)
    done = run(*words, f"{path}")
    assert (done.exit_code, "of IPv6" in done.stderr) == (2, True)
    assert (machine.given, len(machine.loaded)) == ([], loaded)


def test_a_place_that_is_no_file_is_refused_before_flows_are_read(
    machine: FakeMachine, tmp_path: Path
) -> None:
    machine.fail["save_flows"] = [TableError("never asked")]
    done = run("save", f"{tmp_path}")
    assert (done.exit_code, "is a directory" in done.stderr) == (2, True)


@pytest.mark.parametrize(
    ("step", "error", "code"),
    [
        ("require_privileges", PrivilegeError("load BPF programs"), 3),
        ("save_flows", TableError("cannot read the balancer's maps"), 4),
    ],
)
def test_a_failed_save_leaves_the_old_file(
    machine: FakeMachine, file: str, step: str, error: XdplbError, code: int
) -> None:
    machine.fail[step] = [error]
    before = carry.read(file)
    done = run("save", file)
    assert (done.exit_code, f"{error}" in done.stderr) == (code, True)
    assert carry.read(file) == before


def test_up_restores_before_a_packet_can_come(machine: FakeMachine, file: str) -> None:
    machine.balancers.clear()
    machine.programs.clear()
    done = run(*UP, "--restore", file)
    assert done.exit_code == 0
    assert done.output.endswith("restored: 2 of 3 flows (1 skipped: 1 timed out)\n")
    ((running, names, found, attached),) = machine.given
    assert (running.program_id, names, attached, found) == (NEW_ID, ("eth0",), {}, flows())
    assert running.records[IPV4][0].address == ip_address("192.0.2.10")


def test_up_restores_into_a_replaced_balancer_when_the_new_program_is_there(
    machine: FakeMachine, file: str
) -> None:
    assert run(*UP, "--restore", file).exit_code == 0
    ((_, _, _, attached),) = machine.given
    assert attached == {2: Attached(NEW_ID, Mode.NATIVE)}


def test_up_restores_anew_when_the_first_mode_does_not_work(
    machine: FakeMachine, file: str
) -> None:
    machine.balancers.clear()
    machine.programs.clear()
    machine.fail["attach"] = [AttachError("no native mode")]
    done = run(*UP, "--restore", file)
    assert (done.exit_code, done.stdout.count("restored:")) == (0, 1)
    assert len(machine.given) == 2


@pytest.mark.parametrize("is_replaced", [False, True])
def test_up_leaves_everything_as_it_was_when_flows_cannot_be_restored(
    machine: FakeMachine, file: str, *, is_replaced: bool
) -> None:
    if not is_replaced:
        machine.balancers.clear()
        machine.programs.clear()
    before = dict(machine.programs)
    machine.fail["restore_flows"] = [LoadError("the kernel says no")]
    done = run(*UP, "--restore", file)
    assert (done.exit_code, "the kernel says no" in done.stderr) == (4, True)
    assert machine.programs == before
