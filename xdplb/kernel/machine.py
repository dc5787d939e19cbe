"""The machine under the balancer: what ``up``, ``status`` and ``down`` ask of the kernel.

The steps are here; their order, and what to undo when one fails, is in ``xdplb.balancer``.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from xdplb import source
from xdplb.errors import BusyError, PrivilegeError, TableError, surroundings
from xdplb.facts import Found, Running, Usage
from xdplb.kernel import (
    carry,
    clock,
    counting,
    flows,
    libbpf,
    netns,
    presence,
    program,
    reservations,
    tables,
    tap,
    twin,
)
from xdplb.kernel.closing import Closing
from xdplb.kernel.compiler import Compiler, ObjectCode
from xdplb.kernel.following import Follower
from xdplb.kernel.tap import Tap
from xdplb.listing import FlowName
from xdplb.model import Clients, Endpoint
from xdplb.ports import NatPool
from xdplb.restoring import Destination, Moment
from xdplb.saved import Restored, Saved, Skip
from xdplb.saving import LISTED, STATES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from xdplb.facts import (
        Attached,
        Link,
        Neighbour,
        Prepared,
        Presence,
        Question,
        Rehearsal,
        Split,
        Way,
    )
    from xdplb.kernel.links import Network
    from xdplb.kernel.program import Descriptors, Maps
    from xdplb.model import Address, Mode, PortRange
    from xdplb.plan import Plan
    from xdplb.state import Restore, State
    from xdplb.wire import BackendRecord, ClientKey, FlowCode, StatsRecord

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_SYS_ADMIN": 21}


@contextmanager
def _refusal(what: str) -> Iterator[None]:
    """Say what could not be done where the kernel only says no."""
    try:
        yield
    except PermissionError:
        raise PrivilegeError(what) from None
    except OSError as error:
        if surroundings(error):
            raise
        raise TableError(f"cannot {what}: {error.strerror}", "run the command again") from error


def _traffic(maps: Maps, running: Running) -> dict[int, StatsRecord]:
    return {
        number: tables.read_stats(maps, number)
        for number in range(len(running.records[maps.version]))
    }


def _backends(state: State, version: int) -> set[tuple[int, Address, int | None]]:
    side = state.side(version)
    return {
        (item.number, *backend.place)
        for item in (side.services if side else ())
        for backend in item.service.backends
    }


class Machine(Closing):
    """This host, seen from the current network namespace."""

    def __init__(self, compiler: Compiler | None = None) -> None:
        """Take over a compiler that is warming up, if there is one."""
        self._compiler = compiler
        self._opened: Network | None = None

    def close(self) -> None:
        """Let go of sockets and of the compiler."""
        if self._opened is not None:
            self._opened.close()
        if self._compiler is not None:
            self._compiler.close()

    @property
    def _network(self) -> Network:
        if self._opened is None:
            from xdplb.kernel.links import Network  # noqa: PLC0415 - a tenth of a second

            self._opened = Network()
        return self._opened

    def require_privileges(self) -> None:
        """Refuse to start what cannot be finished.

        CAP_BPF does not do in place of CAP_SYS_ADMIN: opening programs and maps by their
        number, which is how a running balancer is found, takes the latter (bpf(2)).

        Raises:
            PrivilegeError: CAP_SYS_ADMIN or CAP_NET_ADMIN is missing.
        """
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                effective = int(line.split()[1], 16)
                missing = [name for name, bit in _CAPABILITIES.items() if not effective >> bit & 1]
                if missing:
                    raise PrivilegeError(
                        f"use BPF and change interfaces without {' and '.join(missing)}"
                    )

    def lock(self) -> AbstractContextManager[None]:
        """Be the only one who changes balancers in this namespace."""
        return netns.lock()

    # Interfaces and ways

    def link(self, name: str) -> Link:
        """The interface called ``name``."""
        return self._network.link(name)

    def interface_name(self, index: int) -> str | None:
        """What the interface is called now; None if it is not in this namespace."""
        return netns.interface_name(index)

    def interface_index(self, name: str) -> int | None:
        """The index of an interface; None if it is not in this namespace."""
        return netns.interface_index(name)

    def presence(self, index: int) -> Presence | None:
        """What an interface is now; None if it is not here."""
        return presence.presence(index)

    def has_address(self, address: Address) -> bool:
        """Whether an address is one of this host's own."""
        return presence.has_address(address)

    def address(self, link: Link, version: int) -> Address:
        """Its first address of an IP version."""
        return self._network.primary_address(link, version)

    def settle(self, link: Link) -> None:
        """Wait while the interface's IPv6 addresses are checked for duplicates."""
        self._network.settle(link)

    def ephemeral_ports(self) -> PortRange:
        """The ports that the host takes for its own connections."""
        return netns.ephemeral_ports()

    def namespace(self) -> int:
        """The inode of the network namespace."""
        return netns.identity()

    def way(self, address: Address) -> Way:
        """The route to ``address``."""
        return self._network.way(address)

    def neighbours(self, indexes: Sequence[int]) -> Mapping[tuple[int, Address], Neighbour]:
        """The neighbours on some interfaces, by interface and address."""
        return self._network.neighbours(indexes)

    def manage(self, ifindex: int, address: Address) -> None:
        """Let the kernel keep asking for a next hop."""
        self._network.manage(ifindex, address)

    def unmanage_all(self) -> None:
        """Let the kernel ask no more for any next hop that xdplb made it ask for."""
        self._network.unmanage_all()

    def prepare(self, link: Link) -> Prepared:
        """What makes sure that what a native program sends by ``link`` arrives."""
        from xdplb.kernel import veth  # noqa: PLC0415 - pyroute2, see above

        return veth.prepare(link, self._network)

    def switch_gro(self, item: Restore) -> str:
        """Switch GRO on where ``item`` switches it off; returns a warning or nothing."""
        from xdplb.kernel import veth  # noqa: PLC0415 - pyroute2, see above

        return veth.switch_gro(item)

    def split(self, link: Link) -> Split:
        """Make sure that no super-packet meets a generic program on ``link``."""
        from xdplb.kernel import veth  # noqa: PLC0415 - pyroute2, see above

        return veth.split(link, self._network)

    def restore(self, item: Restore) -> None:
        """Put back one thing that ``up`` changed."""
        from xdplb.kernel import veth  # noqa: PLC0415 - pyroute2, see above

        veth.restore(item, self._network)

    # Programs

    def attached(self, ifindex: int) -> Attached | None:
        """What hangs on an interface."""
        return program.attached(ifindex)

    def describe(self, program_id: int) -> str:
        """Words for a program that is not ours."""
        return program.describe(program_id)

    def found(self) -> list[Found]:
        """Every balancer that is attached in this network namespace, of any version."""
        return [found for found, _ in self._attached_here()]

    def _attached_here(self) -> Iterator[tuple[Found, Descriptors]]:
        """Every balancer here with its maps, which stay open until the next one is asked for."""
        for number in program.ours():
            with suppress(BusyError), self._maps(number) as maps:
                on = {index: program.attached(index) for index in tables.read_interfaces(maps)}
                modes = {
                    index: item.mode
                    for index, item in on.items()
                    if item is not None and item.program_id == number
                }
                if modes:  # else in another namespace, on its way up or down, or not ours
                    yield Found(number, modes, tables.read_restore(maps)), maps

    def running(self) -> list[Running]:
        """The same, with all that is known of them.

        Raises:
            TableError: One is of another version.
        """
        running = []
        for found, maps in self._attached_here():
            state = tables.read_meta(maps)
            records = {
                version: tuple(tables.read_backends(maps.of(version), state))
                for version in state.versions
            }
            tag = program.tag(found.program_id)
            running.append(Running(found.program_id, tag, state, records))
        return running

    @contextmanager
    def _maps(self, program_id: int) -> Iterator[Descriptors]:
        with _refusal("read the balancer's maps"):
            maps = program.open_maps(program_id)
            try:
                yield maps
            finally:
                maps.close()

    def compile(self, flags: Mapping[int, Sequence[str]]) -> dict[int, ObjectCode]:
        """Compile the program, for each IP version with its ``-D`` flags, all at once."""
        from concurrent.futures import ThreadPoolExecutor  # noqa: PLC0415 - 0.02 s

        warm, self._compiler = self._compiler, None
        compilers = [warm or Compiler(source.headers())]
        compilers += [Compiler(source.headers()) for _ in range(len(flags) - 1)]

        def one(compiler: Compiler, version: int) -> ObjectCode:
            every = [*flags[version], clock.flag()]
            with compiler:
                return compiler.compile(source.text(version), every, source.FUNCTION)

        with ThreadPoolExecutor(len(compilers)) as pool:
            return dict(zip(flags, pool.map(one, compilers, flags), strict=True))

    def load(
        self,
        code: Mapping[int, ObjectCode],
        plans: Sequence[Plan],
        state: State,
        old: Running | None,
    ) -> int:
        """Create and fill the maps, load the program; returns its descriptor.

        Args:
            code: From ``compile``.
            plans: What goes into the maps, one plan for each IP version.
            state: The balancer's description.
            old: The balancer that is being replaced; its flows and counters are kept.
        """
        kept = program.open_maps(old.program_id) if old else None
        with _refusal("fill the maps"):
            maps = tables.create(plans, code, kept)
            try:
                for plan in plans:
                    tables.fill(maps.of(plan.version), plan)
                fd = program.load(code, maps)
                try:
                    tables.add_meta(maps, state, fd)
                    reservations.reserve(maps, plans, old)
                except BaseException:
                    os.close(fd)
                    raise
                return fd
            finally:
                maps.close()
                if kept is not None:
                    kept.close()

    def attach(
        self, ifindex: int, name: str, program_fd: int, mode: Mode, old_id: int | None
    ) -> None:
        """Attach the program to one interface."""
        program.attach(ifindex, name, program_fd, mode, old_id)

    def detach(self, ifindex: int, name: str, program_id: int, mode: Mode) -> None:
        """Take the program off one interface."""
        # What putting back needs is made ready before, so that nothing slow lies between the two.
        from xdplb.kernel import veth  # noqa: F401, PLC0415

        _ = self._network
        program.detach(ifindex, name, program_id, mode)

    def hold(self, program_id: int) -> int | None:
        """A descriptor that keeps a program alive; None if it has gone."""
        return libbpf.program_fd(program_id)

    def map_ids(self, program_id: int) -> list[int]:
        """The kernel's numbers for the maps that a program holds."""
        return program.map_ids(program_id)

    def await_freed(self, map_ids: Sequence[int]) -> None:
        """Return when the kernel has freed these maps, or after a second."""
        program.await_freed(map_ids)

    def program_id(self, program_fd: int) -> int:
        """The kernel's number for a program."""
        return int(libbpf.program_info(program_fd)[0].id)

    def set_backend(self, program_id: int, number: int, record: BackendRecord) -> None:
        """Write one record of a running balancer's ``backends`` map."""
        with self._maps(program_id) as maps:
            tables.write_backend(maps.of(record.address.version), number, record)

    def change(self, running: Running, plans: Sequence[Plan], state: State) -> None:
        """Write what of some plans differs from what runs, and then the new description.

        New backends are there before the table names them, and those that are gone are named
        by no table when they go. The description comes last: where this is killed, the same
        command finds the old one and does the rest.
        """
        with self._maps(running.program_id) as every:
            text = tables.meta_text(every, state)
            for plan in plans:
                version = plan.version
                tables.change(every.of(version), plan, running.records[version])
                if _backends(running.state, version) - _backends(state, version):
                    # else reserved flows stay where they are, like all others
                    reservations.reserve(every, [plan], running)
            tables.write_meta(every, text)

    def end_services(self, program_id: int, plan: Plan) -> None:
        """End the flows of the services that a plan has removed."""
        gone = {(item.service.dialled, item.number): item.service.ports for item in plan.removed}
        with self._maps(program_id) as every:
            flows.end(
                every.of(plan.version),
                plan.pool,
                plan.facts.records,
                clock.ticks(),
                lambda key: any(
                    key.service_port in ports for ports in gone.get((key.service, key.number), ())
                ),
            )

    def end_flows(self, running: Running, names: Collection[FlowName]) -> int:
        """End some flows; how many there still were.

        Reservations are none: they are found by no port that was dialled.
        """
        pool = NatPool(running.state.nat_ports)

        def is_meant(key: ClientKey) -> bool:
            return key.service_port != 0 and (
                FlowName(
                    Endpoint(key.client, key.client_port),
                    Endpoint(key.service, key.service_port),
                    key.protocol,
                )
                in names
            )

        with self._maps(running.program_id) as every:
            return sum(
                flows.end(
                    every.of(version), pool, running.records[version], clock.ticks(), is_meant
                )
                for version in running.state.versions
            )

    def rehearse(self, running: Running, question: Question) -> Rehearsal:
        """Find out what a balancer would do with a packet; see ``xdplb.kernel.twin``."""
        code = self.compile(running.state.flags)
        with self._maps(running.program_id) as every:
            return twin.rehearse(every, running, code, question)

    def tap(self, running: Running, flags: Mapping[int, Sequence[str]]) -> Tap:
        """A balancer's program once more, compiled with other flags to tell what it does."""
        code = self.compile(flags)
        with self._maps(running.program_id) as every:
            return Tap(every, code)

    def load_again(self, running: Running) -> int:
        """A balancer's program once more, as it was compiled; returns its descriptor."""
        code = self.compile(running.state.flags)
        with self._maps(running.program_id) as every:
            return twin.load_again(every, code)

    def traced_for(self, running: Running) -> float | None:
        """For how many seconds a balancer tells what it does; None for one that does not."""
        with self._maps(running.program_id) as every:
            return tap.left(every)

    def usage(self, running: Running, version: int) -> Usage:
        """The counters of a running balancer for one IP version."""
        with self._maps(running.program_id) as every:
            maps = every.of(version)
            owners = counting.owners(maps, running)
            return Usage(
                flows=dict(counting.flows_by_backend(owners, version, running, clock.ticks())),
                traffic=_traffic(maps, running),
                shares=dict(tables.read_shares(maps, running.state)),
                records=counting.records_in_use(owners),
            )

    def clients(self, running: Running, limit: int) -> Clients:
        """The clients with the most flows, so many of each IP version."""
        with self._maps(running.program_id) as every:
            found = [
                counting.flows_by_client(every.of(version), running, clock.ticks(), limit)
                for version in running.state.versions
            ]
        return Clients(
            sum(item.total for item in found), tuple(one for item in found for one in item.first)
        )

    def traffic(self, running: Running) -> Mapping[int, Mapping[int, StatsRecord]]:
        """What has gone to and come from each backend, by IP version and number."""
        with self._maps(running.program_id) as every:
            return {
                version: _traffic(every.of(version), running) for version in running.state.versions
            }

    def verdicts(self, running: Running) -> dict[str, int]:
        """Packets by verdict."""
        with self._maps(running.program_id) as maps:
            return tables.read_verdicts(maps, running.state.verdicts)

    # Flows in a file

    def save_flows(self, running: Running, interfaces: Sequence[str]) -> Saved:
        """The flows of a balancer that have not timed out, but no reservations.

        Args:
            running: The balancer.
            interfaces: What its interfaces are called now.
        """
        return self._flows(running, interfaces, STATES)

    def list_flows(self, running: Running, interfaces: Sequence[str]) -> Saved:
        """The same, and reservations that have had a packet: to be shown, not for a file."""
        return self._flows(running, interfaces, LISTED)

    def _flows(
        self, running: Running, interfaces: Sequence[str], codes: Sequence[FlowCode]
    ) -> Saved:
        at, now = time.time(), clock.ticks()
        with self._maps(running.program_id) as every:
            parts = [
                carry.read(every.of(version), running, now, codes)
                for version in running.state.versions
            ]
        names = tuple(code.name.lower() for code in codes)
        return Saved(at, (*interfaces, ""), names, tuple(parts))

    def follow_flows(self, running: Running) -> Follower:
        """The flows of a balancer as they change; see ``xdplb.kernel.following``."""
        with self._maps(running.program_id) as every:
            return Follower(every, running)

    def restore_flows(
        self, running: Running, interfaces: Sequence[str], saved: Saved, *, rules: bool = False
    ) -> Restored:
        """Give saved flows to a balancer, attached or not; see ``xdplb.kernel.carry``.

        Args:
            running: The balancer.
            interfaces: What its interfaces are called now.
            saved: What was saved.
            rules: It was right now, by another one whose word counts.
        """
        moment = Moment(clock.ticks(), 0.0 if rules else time.time() - saved.at)
        restored = Restored(saved.count)
        with self._maps(running.program_id) as every:
            for part in saved.parts:
                if part.version not in running.records:
                    restored.skipped[Skip.VERSION] += part.count
                    continue
                destination = Destination(running, interfaces, saved, part, moment, rules=rules)
                carry.write(
                    every.of(part.version),
                    running,
                    destination,
                    part.count,
                    is_attached=self._is_attached(running),
                    rules=rules,
                )
                restored.skipped.update(destination.skipped)
        return restored

    def _is_attached(self, running: Running) -> bool:
        """Whether packets may meet a balancer."""
        on = [self.attached(item.index) for item in running.state.interfaces]
        return any(item is not None and item.program_id == running.program_id for item in on)
