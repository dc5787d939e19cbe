"""up as a transaction: what stands after each failure, and what a replacement keeps."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
from fake_machine import MAC, NEW_ID, OWN, FakeMachine, request

from xdplb.balancer import Balancer
from xdplb.errors import AttachError, BusyError, InvalidValueError, TableError
from xdplb.facts import Attached, Neighbour, Prepared, Running, Split, Way
from xdplb.model import Mode, PortRange
from xdplb.state import Restore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xdplb.model import Address
    from xdplb.plan import Plan
    from xdplb.state import State
    from xdplb.wire import BackendRecord

BOTH = ("eth0", "eth1")
OLD_ID = 50
HOP, HOP6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")
GRO = Restore("gro", 1, 9)
TSO = tuple(Restore("offload", 1, index, feature="tx-tcp-segmentation") for index in (8, 9))
SPLITS = {
    "eth0": Split(frozenset(TSO[:1]), TSO[:1]),
    "eth1": Split(frozenset(TSO[1:]), TSO[1:], ("look at eth1",)),
}


class Machine(FakeMachine):
    """Neighbours may answer late, and taking a program off may fail."""

    def __init__(self) -> None:
        """Answer for nobody."""
        super().__init__()
        self.late: dict[tuple[int, Address], Neighbour] = {}
        self.written: list[tuple[int, BackendRecord]] = []
        self.attaches: list[int] = []
        self.behind = 2

    def way(self, address: Address) -> Way:
        """All backends are behind one interface."""
        return Way(self.behind, address)

    def attach(
        self, ifindex: int, name: str, program_fd: int, mode: Mode, old_id: int | None
    ) -> None:
        self.attaches.append(ifindex)
        super().attach(ifindex, name, program_fd, mode, old_id)

    def load(self, code: str, plans: Sequence[Plan], state: State, old: Running | None) -> int:
        self.known = {**self.known, **self.late}
        return super().load(code, plans, state, old)

    def detach(self, ifindex: int, name: str, program_id: int, mode: Mode) -> None:
        self._step("detach")
        super().detach(ifindex, name, program_id, mode)

    def set_backend(self, program_id: int, number: int, record: BackendRecord) -> None:
        self._step("set_backend")
        assert program_id == NEW_ID
        self.written.append((number, record))


@pytest.fixture
def machine() -> Machine:
    return Machine()


def _settle(machine: Machine) -> None:
    """Let what runs now be older than what the next ``up`` loads."""
    machine.run_on()
    machine.balancers = [replace(item, program_id=OLD_ID) for item in machine.balancers]
    machine.programs = {
        index: Attached(OLD_ID, item.mode) for index, item in machine.programs.items()
    }
    machine.managed.clear()
    machine.restored.clear()


def test_a_next_hop_that_answers_while_loading_is_written_afterwards(machine: Machine) -> None:
    machine.late[2, HOP] = Neighbour(MAC)
    report = Balancer(machine).up(request())
    assert [(number, record.mac) for number, record in machine.written] == [(0, MAC)]
    assert [f"{item}" for item in report.unresolved] == ["192.0.2.11"]


def test_an_ipv6_next_hop_that_answers_while_loading_is_written_too(machine: Machine) -> None:
    machine.late[2, HOP] = machine.late[2, HOP6] = Neighbour(MAC)
    report = Balancer(machine).up(
        request("192.0.2.10", "2001:db8::9", f"{HOP6}", services=tuple(OWN.values()))
    )
    assert [(number, record.address, record.mac) for number, record in machine.written] == [
        (0, HOP, MAC),
        (1, HOP6, MAC),
    ]
    assert [f"{item}" for item in report.unresolved] == ["2001:db8::9"]


def test_busy_never_falls_back_to_generic(machine: Machine) -> None:
    machine.fail["attach"] = [BusyError("someone was quicker")]
    with pytest.raises(BusyError):
        Balancer(machine).up(request())
    assert len(machine.loaded) == 1
    assert machine.programs == {}


def test_a_failure_after_attaching_takes_a_new_balancer_off_again(machine: Machine) -> None:
    machine.late[2, HOP] = Neighbour(MAC)
    machine.fail["set_backend"] = [TableError("no")]
    with pytest.raises(TableError):
        Balancer(machine).up(request())
    assert machine.programs == {}
    assert len(machine.restored) == 2


def test_generic_mode_prepares_no_peer(machine: Machine) -> None:
    machine.prepared = Prepared(redirect=True, restore=GRO)
    Balancer(machine).up(request(mode=Mode.GENERIC))
    assert GRO not in machine.loaded[0][1].restore


def test_a_bond_beside_another_interface_is_generic(machine: Machine) -> None:
    """Natively, the program is told the member that a packet came by."""
    machine.links["eth1"] = replace(machine.links["eth1"], kind="bond")
    with pytest.raises(InvalidValueError, match="eth1 is a bond"):
        Balancer(machine).up(request(interfaces=BOTH, mode=Mode.NATIVE))
    assert machine.programs == {}
    report = Balancer(machine).up(request(interfaces=BOTH))
    assert {item.mode for item in report.interfaces} == {Mode.GENERIC}


def test_a_bond_alone_is_native(machine: Machine) -> None:
    machine.links["eth0"] = replace(machine.links["eth0"], kind="bond")
    report = Balancer(machine).up(request())
    assert {item.mode for item in report.interfaces} == {Mode.NATIVE}


def test_what_was_done_for_native_mode_is_undone_before_generic(machine: Machine) -> None:
    machine.prepared = Prepared(redirect=True, restore=GRO)
    machine.fail["attach"] = [AttachError("no native XDP")]
    Balancer(machine).up(request())
    assert machine.restored == [GRO]
    assert GRO not in machine.loaded[-1][1].restore


class TestSplit:
    """Generic mode over several interfaces: offloads that are switched off, and on again."""

    def test_one_interface_splits_nothing(self, machine: Machine) -> None:
        machine.splits = SPLITS
        Balancer(machine).up(request(mode=Mode.GENERIC))
        assert TSO[0] not in machine.loaded[0][1].restore

    def test_native_mode_splits_nothing(self, machine: Machine) -> None:
        machine.splits = SPLITS
        Balancer(machine).up(request(interfaces=BOTH))
        assert TSO[0] not in machine.loaded[0][1].restore

    def test_what_was_switched_off_is_put_back_by_down(self, machine: Machine) -> None:
        machine.splits = SPLITS
        report = Balancer(machine).up(request(interfaces=BOTH, mode=Mode.GENERIC))
        assert report.notes == ("look at eth1",)
        machine.run_on()
        Balancer(machine).down()
        assert [item for item in machine.restored if item.what == "offload"] == [*TSO]

    def test_what_was_switched_off_is_put_back_when_a_later_step_fails(
        self, machine: Machine
    ) -> None:
        machine.splits = SPLITS
        machine.fail["load"] = [TableError("no")]
        with pytest.raises(TableError):
            Balancer(machine).up(request(interfaces=BOTH, mode=Mode.GENERIC))
        assert [item for item in machine.restored if item.what == "offload"] == [*TSO[::-1]]

    def test_a_second_up_remembers_what_the_first_one_changed(self, machine: Machine) -> None:
        machine.splits = SPLITS
        Balancer(machine).up(request(interfaces=BOTH, mode=Mode.GENERIC))
        _settle(machine)
        machine.splits = {"eth0": Split(frozenset(TSO[:1])), "eth1": SPLITS["eth1"]}
        Balancer(machine).up(request(interfaces=BOTH))
        assert [item for item in machine.loaded[-1][1].restore if item in TSO] == [*TSO]
        assert machine.restored == []

    def test_a_second_up_with_one_interface_puts_everything_back(self, machine: Machine) -> None:
        machine.splits = SPLITS
        Balancer(machine).up(request(interfaces=BOTH, mode=Mode.GENERIC))
        _settle(machine)
        Balancer(machine).up(request())
        assert machine.restored == [*TSO]


def test_a_next_hop_that_is_no_longer_used_is_let_go(machine: Machine) -> None:
    Balancer(machine).up(request())
    _settle(machine)
    Balancer(machine).up(request("192.0.2.10"))
    assert [item.address for item in machine.restored] == ["192.0.2.11"]


def test_a_second_up_keeps_the_gro_that_the_first_one_switched_on(machine: Machine) -> None:
    machine.prepared = Prepared(redirect=True, restore=GRO)
    Balancer(machine).up(request())
    _settle(machine)
    machine.prepared = Prepared(redirect=True)
    Balancer(machine).up(request())
    assert machine.loaded[-1][1].restore.count(GRO) == 1
    assert machine.restored == []


def test_gro_that_somebody_switched_off_meanwhile_is_remembered_once(machine: Machine) -> None:
    machine.prepared = Prepared(redirect=True, restore=GRO)
    Balancer(machine).up(request())
    _settle(machine)
    Balancer(machine).up(request())
    assert machine.loaded[-1][1].restore.count(GRO) == 1


def test_two_balancers_are_not_joined(machine: Machine) -> None:
    Balancer(machine).up(request())
    _settle(machine)
    other = replace(machine.balancers[0], program_id=51)
    machine.balancers.append(other)
    machine.programs[3] = Attached(51, Mode.NATIVE)
    with pytest.raises(InvalidValueError, match="different balancers"):
        Balancer(machine).up(request(interfaces=BOTH))


def test_the_same_nat_ports_in_another_order_are_no_change(machine: Machine) -> None:
    wanted = (PortRange(5000, 5999), PortRange(2000, 2999))
    Balancer(machine).up(request(nat_ports=wanted))
    _settle(machine)
    assert Balancer(machine).up(request(nat_ports=wanted)).replaced


def test_a_replacement_that_fails_on_the_second_interface_leaves_the_old_program(
    machine: Machine,
) -> None:
    Balancer(machine).up(request(interfaces=BOTH))
    _settle(machine)
    machine.fail["attach"] = [None, BusyError("someone was quicker")]
    with pytest.raises(BusyError):
        Balancer(machine).up(request(interfaces=BOTH))
    assert {item.program_id for item in machine.programs.values()} == {OLD_ID}


def test_a_replacement_that_fails_after_attaching_leaves_the_old_program(machine: Machine) -> None:
    Balancer(machine).up(request())
    _settle(machine)
    machine.late[2, HOP] = Neighbour(MAC)
    machine.fail["set_backend"] = [TableError("no")]
    with pytest.raises(TableError):
        Balancer(machine).up(request())
    assert machine.programs[2].program_id == OLD_ID


def test_letting_an_interface_go_that_refuses_does_not_unwatch_what_runs(machine: Machine) -> None:
    """The new program runs by then: what it needs must stay as its state says."""
    Balancer(machine).up(request("192.0.2.10", interfaces=BOTH))
    _settle(machine)
    machine.fail["detach"] = [AttachError("it stays")]
    with pytest.raises(AttachError):
        Balancer(machine).up(request("192.0.2.10", "192.0.2.11"))
    runs_new = machine.programs[2].program_id == NEW_ID
    assert runs_new == (not machine.restored)


def test_interfaces_keep_their_numbers_when_they_are_named_in_another_order(
    machine: Machine,
) -> None:
    Balancer(machine).up(request(interfaces=BOTH))
    _settle(machine)
    report = Balancer(machine).up(request(interfaces=BOTH[::-1]))
    assert tuple(item.name for item in report.interfaces) == BOTH


def test_the_interfaces_of_backends_get_the_new_program_first(machine: Machine) -> None:
    Balancer(machine).up(request(interfaces=BOTH))
    _settle(machine)
    machine.behind = 3
    machine.fail["attach"] = [None, BusyError("someone was quicker")]
    machine.attaches.clear()
    with pytest.raises(BusyError):
        Balancer(machine).up(request(interfaces=BOTH))
    assert machine.attaches[0] == 3
