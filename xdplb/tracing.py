"""``trace``: watch packets and what becomes of them.

A program that tells what it does costs more than one that does not. So the running one is
exchanged for its twin that tells, with the same maps, and comes back afterwards: as long as nobody
traces, nothing is paid. The twin tells only what was asked for, and only as long as it is asked.
"""

from __future__ import annotations

import struct
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from os import close
from typing import TYPE_CHECKING, Any, Final

from xdplb import frames
from xdplb.errors import BusyError, NotReadyError
from xdplb.flags import words
from xdplb.verdicts import DROPPED, PASSED, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from xdplb.facts import Running
    from xdplb.machine import Machine, Tap
    from xdplb.state import AttachedTo, State

NEW: Final = "new"
ALL: Final = "all"
GROUPS: Final = (ALL, NEW, "drop", "pass", "icmp")
_ICMP: Final = frozenset({"forward_error", "return_error", "reply_ttl", "reply_too_big"})
USUAL: Final = (NEW, "drop", "icmp")

DEFAULT_SNAP: Final = 128
MAX_SNAP: Final = 1500
MAX_SAMPLE: Final = (1 << 32) - 1
_ASKED_FOR_S: Final = 3.0
_EVENT: Final = struct.Struct("=QIIIBB2x")
"""The head of ``struct trace_event``."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which packets.

    Attributes:
        reasons: Verdicts, and groups of them.
        clients: The network of the client, one address long or more; None for all.
        client_port: None for any.
        sample: Of so many packets, one.
        snap: How many bytes of each frame.
    """

    reasons: frozenset[str] = frozenset({ALL})
    clients: IPv4Network | IPv6Network | None = None
    client_port: int | None = None
    sample: int = 1
    snap: int = DEFAULT_SNAP

    def verdicts(self, names: Sequence[str]) -> frozenset[str]:
        """The verdicts that are meant, of those that a program has."""
        return frozenset(name for name in names if self._is_meant(name))

    def _is_meant(self, name: str) -> bool:
        return (
            ALL in self.reasons
            or name in self.reasons
            or ("drop" in self.reasons and name.startswith(DROPPED))
            or ("pass" in self.reasons and name.startswith(PASSED))
            or ("icmp" in self.reasons and name in _ICMP)
        )


@dataclass(frozen=True, slots=True)
class Event:
    """A packet.

    Attributes:
        at_ns: When it came, in nanoseconds since 1970.
        interface: By which it came; empty for one that has gone.
        is_new: It has opened a flow.
        lengths: Bytes of the whole frame as it came, and as it left; 0 where it did not.
        came: The head of the frame as it came.
        left: As it left; empty where it did not.
    """

    at_ns: int
    interface: str
    verdict: str
    is_new: bool
    lengths: tuple[int, int]
    came: bytes
    left: bytes

    def __str__(self) -> str:
        """What it was, what became of it, and as what it left."""
        new = " (new flow)" if self.is_new else ""
        line = f"{self.verdict + new:<19} {frames.read(self.came)}"
        if self.left:
            return f"{line} => {frames.read(self.left)}"
        known = VERDICTS.get(self.verdict)
        return f"{line}: {known.meaning}" if known is not None else line


def constants(wanted: Wanted, names: Sequence[str], version: int) -> list[str]:
    """What the program of one IP version is compiled with beside its own constants.

    Args:
        wanted: Which packets it tells of.
        names: Its verdicts, in their order.
        version: Of IP.
    """
    is_other = wanted.clients is not None and wanted.clients.version != version
    mine = frozenset() if is_other else wanted.verdicts(names)
    mask = sum(1 << place for place, name in enumerate(names) if name in mine)
    values: dict[str, str | int] = {
        "HAVE_TRACE": 1,
        "TRACE_SNAP": wanted.snap,
        "TRACE_VERDICTS": f"{mask}ULL",
        "TRACE_NEW": int(NEW in wanted.reasons and not is_other),
        "TRACE_PORT": wanted.client_port or 0,
        "TRACE_SAMPLE": wanted.sample,
    }
    if wanted.clients is not None and not is_other:
        values["TRACE_OF_CLIENT"] = 1
        for name, address in (
            ("CLIENT", wanted.clients.network_address),
            ("MASK", wanted.clients.netmask),
        ):
            first, second = (*words(address), "0ULL")[:2]
            values |= {f"TRACE_{name}_0": first, f"TRACE_{name}_1": second}
    return [f"-D{name}={value}" for name, value in values.items()]


def read(
    data: bytes, names: Sequence[str], interfaces: Mapping[int, str], at_zero_ns: int, snap: int
) -> Event:
    """An event as the program has written it.

    Args:
        data: ``struct trace_event``, with or without the frame that left. Behind the end of a
            frame, it has what is left of an earlier one.
        names: The program's verdicts, in their order.
        interfaces: By their indexes.
        at_zero_ns: When the kernel's monotonic clock was zero, in nanoseconds since 1970.
        snap: How many bytes there are for each frame.
    """
    time, ifindex, came, left, verdict, is_new = _EVENT.unpack_from(data)
    rest = data[_EVENT.size :]
    return Event(
        at_ns=at_zero_ns + time,
        interface=interfaces.get(ifindex, ""),
        verdict=names[verdict],
        is_new=bool(is_new),
        lengths=(came, left),
        came=rest[: min(came, snap)],
        left=rest[snap : snap + min(left, snap)],
    )


class Tracer:
    """A balancer that tells what it does."""

    def __init__(self, machine: Machine, running: Running, tap: Tap, snap: int) -> None:
        """Begin to ask for so many bytes of each frame."""
        self._machine = machine
        self._running = running
        self._tap = tap
        self._snap = snap
        self._interfaces = {
            item.index: machine.interface_name(item.index) or item.name
            for item in running.state.interfaces
        }
        tap.ask_for(_ASKED_FOR_S)

    @property
    def interfaces(self) -> tuple[str, ...]:
        """What the balancer's interfaces are called."""
        return tuple(self._interfaces.values())

    @property
    def lost(self) -> int:
        """Packets that there was no room for."""
        return self._tap.lost()

    def wait(self, seconds: float) -> list[Event]:
        """Wait for packets, but not longer than so many seconds (at most one)."""
        self._tap.ask_for(_ASKED_FOR_S)
        names = self._running.state.verdicts
        zero = self._tap.at_zero_ns
        return [
            read(data, names, self._interfaces, zero, self._snap)
            for data in self._tap.wait(seconds)
        ]

    def is_on(self) -> bool:
        """Whether the twin still hangs on an interface: 'up' and 'down' end a trace."""
        on = (self._machine.attached(index) for index in self._interfaces)
        return any(item is not None and item.program_id == self._tap.program_id for item in on)


@contextmanager
def trace(machine: Machine, find: Callable[[], Running], wanted: Wanted) -> Iterator[Tracer]:
    """Let a balancer tell what it does, for as long as this lasts.

    Args:
        machine: Where.
        find: Finds the balancer.
        wanted: What it is to tell.

    Raises:
        NotReadyError: Somebody else traces it.
        KernelError: The kernel does not take the twin; it needs Linux 5.18.
    """
    with ExitStack() as held:
        with machine.lock():
            running = find()
            left = machine.traced_for(running)
            if left is not None and left > 0:
                raise NotReadyError("another 'xdplb trace' is on", "end that one first")
            tap = held.enter_context(machine.tap(running, _flags(running.state, wanted)))
            plain = _plain(machine, running, is_left_over=left is not None)
            held.callback(close, plain)
            held.callback(_put_back, machine, running, tap, plain)
            tracer = Tracer(machine, running, tap, wanted.snap)
            for item in running.state.interfaces:
                _exchange(machine, item, running.program_id, tap.program_fd)
        yield tracer


def _flags(state: State, wanted: Wanted) -> dict[int, list[str]]:
    """What the twin is compiled with."""
    return {
        version: [*flags, *constants(wanted, state.verdicts, version)]
        for version, flags in state.flags.items()
    }


def _plain(machine: Machine, running: Running, *, is_left_over: bool) -> int:
    """The program that tells nothing; made anew where a trace that was killed has left its twin.

    Raises:
        BusyError: The balancer has just gone.
    """
    if is_left_over:
        return machine.load_again(running)
    plain = machine.hold(running.program_id)
    if plain is None:
        raise BusyError(
            "the balancer was taken down or replaced at the same time",
            "run this again; 'xdplb status' shows what is up now",
        )
    return plain


def _exchange(machine: Machine, item: AttachedTo, old_id: int, program_fd: int) -> None:
    """Put a program in the place of another one on an interface, if that still is there."""
    there = machine.attached(item.index)
    if there is not None and there.program_id == old_id:
        name = machine.interface_name(item.index) or item.name
        machine.attach(item.index, name, program_fd, item.mode, old_id)


def _put_back(machine: Machine, running: Running, tap: Tap, plain: int) -> None:
    """The plain program takes its place again; a command that is changing it goes first."""
    with ExitStack() as each:
        with suppress(BusyError):
            each.enter_context(machine.lock())
        for item in running.state.interfaces:
            each.callback(_put_back_on, machine, item, tap, plain)


def _put_back_on(machine: Machine, item: AttachedTo, tap: Tap, plain: int) -> None:
    """The same on one interface, whatever has become of the others."""
    with suppress(BusyError):  # somebody has put another one there: that one stays
        _exchange(machine, item, tap.program_id, plain)


def to_json(event: Event) -> dict[str, Any]:
    """An event for a program."""
    return {
        "time": event.at_ns / 1e9,
        "interface": event.interface or None,
        "verdict": event.verdict,
        "new": event.is_new,
        "in": _frame(event.came, event.lengths[0]),
        "out": _frame(event.left, event.lengths[1]) if event.left else None,
    }


def _frame(data: bytes, length: int) -> dict[str, Any]:
    frame = frames.read(data)
    return {
        "source": None if frame.source is None else f"{frame.source}",
        "source_port": frame.source_port,
        "destination": None if frame.destination is None else f"{frame.destination}",
        "destination_port": frame.destination_port,
        "protocol": frame.protocol,
        "vlans": list(frame.vlans),
        "length": length,
    }
