"""``trace``: programs exchanged and put back, events read, lines and files written."""

from __future__ import annotations

import io
import json
import os
import struct
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any, cast

import pytest
from click.testing import CliRunner
from fake_machine import NEW_ID, PLAIN_ID, FakeMachine, request
from scapy.utils import RawPcapNgReader

from xdplb import frames, tracing
from xdplb.balancer import Balancer
from xdplb.cli import commands
from xdplb.errors import AttachError, BusyError, LoadError, NotReadyError, XdplbError
from xdplb.facts import Attached
from xdplb.model import IPV4, IPV6, Endpoint, Mode, Protocol
from xdplb.pcapng import Writer
from xdplb.tracing import Event, Wanted, constants
from xdplb.verdicts import VERDICTS

if TYPE_CHECKING:
    from pathlib import Path

NAMES = tuple(VERDICTS)
TAP_ID = 500
CAME = frames.make(
    Endpoint(ip_address("198.51.100.7"), 5555),
    Endpoint(ip_address("192.0.2.1"), 53),
    Protocol.UDP,
    bytes(6),
)
LEFT = frames.make(
    Endpoint(ip_address("192.0.2.1"), 6666),
    Endpoint(ip_address("192.0.2.10"), 53),
    Protocol.UDP,
    bytes(6),
)
SENT = Event(1_700_000_000_123_456_789, "eth0", "forward", True, (42, 42), CAME, LEFT)  # noqa: FBT003
DROPPED = replace(SENT, verdict="drop_no_port", is_new=False, lengths=(42, 0), left=b"")


def told(verdict: str, *, left: bytes = b"", snap: int = tracing.DEFAULT_SNAP) -> bytes:
    """What the program writes: ``struct trace_event``."""
    head = struct.pack("=QIIIBB2x", 1000, 2, len(CAME), len(left), NAMES.index(verdict), 1)
    parts = (data[:snap].ljust(snap, b"\0") for data in (CAME, left) if data)
    return head + b"".join(parts)


class Tap:
    """A program that tells what it is told to."""

    def __init__(self, machine: FakeMachine, *batches: list[bytes]) -> None:
        self.program_fd = os.open("/dev/null", os.O_RDONLY)
        self.program_id = TAP_ID
        self.at_zero_ns = 10**18
        self.batches = list(batches)
        self.asked: list[float] = []
        self.on: list[int] = []
        """What hung on eth0 when it was asked for."""
        self.waited: list[float] = []
        self.how_many_lost = 0
        machine.ids[self.program_fd] = TAP_ID
        self.machine = machine

    def ask_for(self, seconds: float) -> None:
        self.asked.append(seconds)
        self.on.append(self.machine.programs[2].program_id)

    def wait(self, seconds: float) -> list[bytes]:
        self.waited.append(seconds)
        assert self.machine.programs[2].program_id == TAP_ID
        if not self.batches:
            raise KeyboardInterrupt
        return self.batches.pop(0)

    def lost(self) -> int:
        return self.how_many_lost


class Machine(FakeMachine):
    """Stands in for ``xdplb.kernel.machine.Machine``."""

    def program_id(self, program_fd: int) -> int:
        return self.ids[program_fd]


def up(*interfaces: str) -> Machine:
    made = Machine()
    Balancer(made).up(request(interfaces=interfaces or ("eth0",)))
    made.run_on()
    made.programs = {
        item.index: Attached(NEW_ID, Mode.NATIVE) for item in made.balancers[0].state.interfaces
    }
    return made


def ids(machine: Machine) -> list[int]:
    return [item.program_id for item in machine.programs.values()]


def test_the_program_is_exchanged_meanwhile_and_comes_back() -> None:
    machine = up("eth0", "eth1")
    machine.taps.append(tap := Tap(machine, [told("forward", left=LEFT)]))
    with Balancer(machine).trace(Wanted()) as tracer:
        assert ids(machine) == [TAP_ID, TAP_ID]
        assert tracer.is_on()
        assert tracer.interfaces == ("eth0", "eth1")
        (event,) = tracer.wait(0.5)
        assert (event.verdict, event.is_new, event.interface) == ("forward", True, "eth0")
        assert (event.came, event.left, event.at_ns) == (CAME, LEFT, 10**18 + 1000)
        assert tap.asked == [3.0, 3.0]
        assert tap.on == [NEW_ID, TAP_ID]  # nobody finds one that is not asked for
        assert not machine.locked
    assert ids(machine) == [NEW_ID, NEW_ID]
    assert all(flag in machine.flags[IPV4] for flag in machine.balancers[0].state.flags[IPV4])
    assert "-DHAVE_TRACE=1" in machine.flags[IPV4]


def test_it_comes_back_also_after_a_fault() -> None:
    machine = up()
    machine.taps.append(Tap(machine))
    with pytest.raises(KeyboardInterrupt), Balancer(machine).trace(Wanted()) as tracer:
        tracer.wait(0)
    assert ids(machine) == [NEW_ID]


def test_who_changes_the_balancer_meanwhile_is_not_undone() -> None:
    machine = up("eth0", "eth1")
    machine.taps.append(Tap(machine))
    with Balancer(machine).trace(Wanted()) as tracer:
        machine.programs[2] = Attached(777, Mode.NATIVE)
        assert tracer.is_on()
        del machine.programs[3]
        assert not tracer.is_on()
    assert machine.programs == {2: Attached(777, Mode.NATIVE)}


def test_it_comes_back_even_where_the_lock_is_held_for_long() -> None:
    machine = up()
    machine.taps.append(Tap(machine))
    with Balancer(machine).trace(Wanted()):
        machine.fail["lock"] = [BusyError("held")]
    assert ids(machine) == [NEW_ID]


def test_where_one_interface_refuses_all_is_as_it_was() -> None:
    machine = up("eth0", "eth1")
    machine.taps.append(Tap(machine))
    machine.fail["attach"] = [None, AttachError("no")]
    with pytest.raises(AttachError), Balancer(machine).trace(Wanted()):
        pass
    assert ids(machine) == [NEW_ID, NEW_ID]


@pytest.mark.parametrize("kind", [BusyError, AttachError])
def test_where_one_does_not_come_back_the_other_does(kind: type[XdplbError]) -> None:
    for refusals in ([kind("no")], [None, kind("no")]):
        machine = up("eth0", "eth1")
        machine.taps.append(Tap(machine))
        with suppress(AttachError), Balancer(machine).trace(Wanted()):
            machine.fail["attach"] = list(refusals)
        assert sorted(ids(machine)) == [NEW_ID, TAP_ID]


def test_what_the_kernel_does_not_take_changes_nothing() -> None:
    machine = up()
    machine.fail["tap"] = [LoadError("no")]
    with pytest.raises(LoadError), Balancer(machine).trace(Wanted()):
        pass
    assert ids(machine) == [NEW_ID]


def test_two_at_a_time_are_one_too_many() -> None:
    machine = up()
    machine.left_of_trace = 2.0
    with pytest.raises(NotReadyError, match="another 'xdplb trace'"):
        Balancer(machine).trace(Wanted()).__enter__()


def test_what_a_killed_one_has_left_is_made_plain() -> None:
    machine = up()
    machine.left_of_trace = -5.0
    machine.taps.append(Tap(machine))
    with Balancer(machine).trace(Wanted()):
        pass
    assert ids(machine) == [PLAIN_ID]


def test_a_balancer_that_goes_at_that_moment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = up()
    machine.taps.append(Tap(machine))
    monkeypatch.setattr(machine, "hold", lambda _: None)
    with pytest.raises(BusyError), Balancer(machine).trace(Wanted()):
        pass


def _constants(wanted: Wanted, version: int = IPV4) -> dict[str, str]:
    return dict(item[2:].split("=", 1) for item in constants(wanted, NAMES, version))


def _mask(*names: str) -> str:
    return f"{sum(1 << NAMES.index(name) for name in names)}ULL"


def test_verdicts_become_bits() -> None:
    assert _constants(Wanted())["TRACE_VERDICTS"] == _mask(*NAMES)
    one = _constants(Wanted(frozenset({"drop_ttl", "new"})))
    assert (one["TRACE_VERDICTS"], one["TRACE_NEW"]) == (_mask("drop_ttl"), "1")
    icmp = ("forward_error", "return_error", "reply_ttl", "reply_too_big")
    assert _constants(Wanted(frozenset({"icmp"})))["TRACE_VERDICTS"] == _mask(*icmp)
    for group in ("drop", "pass"):
        mine = [name for name in NAMES if name.startswith(f"{group}_")]
        assert _constants(Wanted(frozenset({group})))["TRACE_VERDICTS"] == _mask(*mine)


def test_a_client_is_a_network_in_the_words_of_the_program() -> None:
    wanted = Wanted(clients=ip_network("198.51.100.0/24"), client_port=5555, sample=7, snap=99)
    values = _constants(wanted)
    assert values["TRACE_CLIENT_0"] == f"{int.from_bytes(bytes((198, 51, 100, 0)), 'little')}ULL"
    assert values["TRACE_MASK_0"] == f"{0xFFFFFF}ULL"
    assert (values["TRACE_CLIENT_1"], values["TRACE_MASK_1"]) == ("0ULL", "0ULL")
    assert [values[f"TRACE_{name}"] for name in ("PORT", "SAMPLE", "SNAP", "OF_CLIENT")] == [
        *("5555", "7", "99", "1")
    ]
    wanted = Wanted(clients=ip_network("2001:db8::/32"))
    assert _constants(wanted, IPV6)["TRACE_MASK_1"] == "0ULL"
    other = _constants(wanted, IPV4)
    assert other["TRACE_VERDICTS"] == "0ULL"
    assert "TRACE_OF_CLIENT" not in other


def test_an_event_is_a_line() -> None:
    assert f"{SENT}" == (
        "forward (new flow)  198.51.100.7:5555 > 192.0.2.1:53 udp"
        " => 192.0.2.1:6666 > 192.0.2.10:53 udp"
    )
    assert f"{DROPPED}".endswith(
        "> 192.0.2.1:53 udp: no free NAT port toward the backend was found"
    )
    assert f"{replace(DROPPED, verdict='drop_magic')}".endswith("192.0.2.1:53 udp")


def test_an_event_of_which_only_a_part_was_taken_is_read() -> None:
    data = told("forward", left=LEFT, snap=30)
    event = tracing.read(data, NAMES, {}, 0, 30)
    assert (event.came, event.left, event.interface) == (CAME[:30], LEFT[:30], "")


def test_a_file_is_what_scapy_reads(tmp_path: Path) -> None:
    name = tmp_path / "packets"
    with name.open("wb") as file:
        writer = Writer(file, ("eth0", "eth1"), 128)
        writer.write(replace(SENT, lengths=(420, 42)))
        writer.write(replace(DROPPED, interface="eth1"))
        writer.flush()
    with RawPcapNgReader(str(name)) as reader:
        packets: list[Any] = list(reader)
    assert [data for data, _ in packets] == [CAME, LEFT, CAME]
    times = [(about.tshigh << 32 | about.tslow) for _, about in packets]
    assert set(times) == {SENT.at_ns}
    assert {about.tsresol for _, about in packets} == {10**9}
    assert [about.wirelen for _, about in packets] == [420, 42, 42]
    assert [about.ifname for _, about in packets] == [b"eth0", b"eth0", b"eth1"]
    assert [about.direction for _, about in packets] == [1, 2, 1]
    comments = [b"".join(about.comments) for _, about in packets]
    assert comments == [b"forward (new flow)", b"forward (new flow)", b"drop_no_port"]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = up()
    made.taps.append(
        Tap(made, [], [told("forward", left=LEFT), told("drop_no_port")], [told("return")])
    )
    monkeypatch.setattr("xdplb.kernel.compiler.Compiler", lambda _: None)
    monkeypatch.setattr("xdplb.kernel.machine.Machine", lambda *_: made)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    return made


@pytest.mark.usefixtures("machine")
def test_the_command_prints_a_line_for_each_until_it_is_ended() -> None:
    done = CliRunner().invoke(commands, ("trace",))
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["forward", "drop_no_port", "return"]
    assert done.stderr == "tracing eth0; Ctrl-C ends it\n3 packets\n"


@pytest.mark.parametrize(
    ("words", "reasons"),
    [
        ((), {"new", "drop", "icmp"}),
        (("--client", "198.51.100.7"), {"all"}),
        (("--reason", "return", "--reason", "drop"), {"return", "drop"}),
    ],
)
def test_what_is_not_routine_is_shown_unless_one_asks(
    machine: Machine, words: tuple[str, ...], reasons: set[str]
) -> None:
    CliRunner().invoke(commands, ("trace", *words))
    flags = machine.flags[IPV4]
    wanted = Wanted(frozenset(reasons))
    mask = f"-DTRACE_VERDICTS={_constants(wanted)['TRACE_VERDICTS']}"
    assert mask in flags
    assert f"-DTRACE_NEW={int('new' in reasons)}" in flags


def test_json_is_a_line_for_each(machine: Machine) -> None:
    done = CliRunner().invoke(commands, ("trace", "--json", "--count", "2"))
    first, second = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["verdict"], first["new"], first["interface"]) == ("forward", True, "eth0")
    assert first["out"]["source_port"] == 6666
    assert first["in"] == {
        "source": "198.51.100.7",
        "source_port": 5555,
        "destination": "192.0.2.1",
        "destination_port": 53,
        "protocol": "udp",
        "vlans": [],
        "length": 42,
    }
    assert second["out"] is None
    assert ids(machine) == [NEW_ID]


@pytest.mark.usefixtures("machine")
def test_packets_go_into_a_file(tmp_path: Path) -> None:
    name = tmp_path / "packets"
    done = CliRunner().invoke(commands, ("trace", "--pcap", str(name)))
    assert len(done.stdout.splitlines()) == 3
    with RawPcapNgReader(str(name)) as reader:
        assert len(list(reader)) == 4


@pytest.mark.usefixtures("machine")
def test_packets_alone_go_to_the_standard_output() -> None:
    done = CliRunner().invoke(commands, ("trace", "--pcap", "-"))
    with RawPcapNgReader(cast("Any", io.BytesIO(done.stdout_bytes))) as reader:
        assert len(list(reader)) == 4


def test_what_was_lost_is_told(machine: Machine) -> None:
    tap = machine.taps[0]
    assert isinstance(tap, Tap)
    tap.how_many_lost = 12
    done = CliRunner().invoke(commands, ("trace",))
    assert "3 packets, 12 more were lost" in done.stderr
    assert "hint: ask for less" in done.stderr


def test_a_time_is_kept(machine: Machine) -> None:
    tap = machine.taps[0]
    assert isinstance(tap, Tap)
    tap.batches = [[]] * 1000
    assert CliRunner().invoke(commands, ("trace", "--seconds", "0.1")).exit_code == 0
    assert all(0 < seconds <= 0.1 for seconds in tap.waited)


def test_who_takes_the_balancer_down_ends_it(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    tap = machine.taps[0]
    assert isinstance(tap, Tap)

    def wait(seconds: float) -> list[bytes]:
        del seconds
        machine.programs.clear()
        return []

    monkeypatch.setattr(tap, "wait", wait)
    done = CliRunner().invoke(commands, ("trace",))
    assert done.exit_code == 0
    assert "the trace has ended" in done.stderr


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--client", "nonsense"), "is not an IP address"),
        (("--reason", "drop_magic"), "drop_magic"),
        (("--pcap", "/nowhere/x"), "is no directory"),
        (("--snap", "1"), "64<=x<=1500"),
        (("--seconds", "nan"), "'nan' is no time"),
        (("--sample", "4294967296"), "1<=x<=4294967295"),
    ],
)
def test_a_wrong_word_is_refused(machine: Machine, words: tuple[str, ...], reason: str) -> None:
    done = CliRunner().invoke(commands, ("trace", *words))
    assert done.exit_code == 2
    assert reason in done.stderr
    assert ids(machine) == [NEW_ID]
