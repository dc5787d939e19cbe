"""Plain values: the model, the port pool, the table, the records, the plan."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any

import pytest
from fake_machine import MAC, FakeMachine, request
from hypothesis import given
from hypothesis import strategies as st
from plans import EPHEMERAL, plan_of

from xdplb import errors, source, wire
from xdplb.balancer import Balancer
from xdplb.errors import InvalidValueError, XdplbError
from xdplb.model import IPV4, IPV6, MAX_BACKENDS, Backend, Endpoint, PortRange, Reservation
from xdplb.ports import NatPool, SlotRange, assign_groups, cut_groups, make_pool
from xdplb.render import to_json, to_text
from xdplb.selection import MAGLEV_SIZE, NO_BACKEND, build_table
from xdplb.wire import BackendCode, FlowCode

if TYPE_CHECKING:
    from xdplb.plan import Plan

addresses = st.integers(0, 2**32 - 1).map(IPv4Address)
ports = st.integers(1, 65535)


def backends(count: int) -> list[tuple[int, Backend]]:
    """Numbered backends."""
    return [(number, Backend(IPv4Address("10.0.0.0") + number)) for number in range(count)]


def plan_for(*names: str, last: Plan | None = None, **options: Any) -> Plan:
    """A plan with the default ports, where every backend is behind one router."""
    return plan_of(request(*names, **options), last, hop=IPv4Address("192.0.2.254"), pool=())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"interfaces": ("a", "a")}, "interface a is given twice"),
        ({"max_flows": 0}, "--max-flows 0 is out of range"),
        ({"max_client_flows": -1}, "--max-client-flows -1 is out of range"),
        ({"max_client_flows": 1 << 29}, "--max-client-flows 536870912 is out of range"),
        ({"ports": (PortRange(1, 9), PortRange(5, 12))}, "--port 1-9 and 5-12 overlap"),
        ({"nat_ports": (PortRange(5, 5), PortRange(5, 5))}, "--nat-ports 5 and 5 overlap"),
        ({"services": (IPv4Address("192.0.2.10"),)}, "is the service itself"),
        ({"services": (IPv4Address("127.0.0.1"),)}, "a loopback address"),
        ({"services": (IPv4Address("255.255.255.255"),)}, "no host's address"),
    ],
)
def test_a_request_refuses_what_cannot_be_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message) as caught:
        request(**options)
    assert caught.value.hint


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_port_is_1_to_65535(port: int) -> None:
    with pytest.raises(InvalidValueError):
        PortRange(port, port)


def test_every_error_has_the_exit_code_of_its_kind() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    codes = {kind.__name__: kind.exit_code for kind in kinds if issubclass(kind, XdplbError)}
    assert codes["InvalidValueError"] == 2
    assert codes["UnreachableError"] == codes["BccMissingError"] == codes["PrivilegeError"] == 3
    assert codes["BusyError"] == codes["CompileError"] == codes["TableError"] == 4
    assert all(name in (errors.__doc__ or "") for name in codes)


def test_the_default_pool_leaves_out_what_the_host_uses() -> None:
    pool = make_pool((), EPHEMERAL)
    assert f"{pool}" == "1024-32767, 61000-65535"
    assert pool.size == 36280
    assert [pool.offset(port) for port in (1023, 1024, 32768, 61000, 65535)] == [
        None, 0, None, 31744, 36279,
    ]  # fmt: skip


def test_a_host_that_uses_every_port_must_say_which_to_take() -> None:
    with pytest.raises(InvalidValueError):
        make_pool((), PortRange(1024, 65535))


@given(st.lists(st.integers(1, 65535), min_size=2, max_size=8, unique=True))
def test_offsets_number_the_ports_of_a_pool(ends: list[int]) -> None:
    ends = sorted(ends)[: len(ends) // 2 * 2]
    pool = NatPool(tuple(PortRange(*pair) for pair in zip(ends[::2], ends[1::2], strict=True)))
    listed = [port for item in pool.ranges for port in (item.first, item.last)]
    assert pool.offset(listed[0]) == 0
    assert pool.offset(listed[-1]) == pool.size - 1


@given(st.integers(1, 10**6), st.integers(1000, 65535))
def test_groups_are_the_whole_table(capacity: int, size: int) -> None:
    groups = cut_groups(capacity, size)
    assert sum(group.count for group in groups) == capacity
    assert [group.first for group in groups] == [size * number for number in range(len(groups))]


@given(st.integers(1, 40))
def test_backends_share_ports_only_when_there_are_not_enough_groups(count: int) -> None:
    groups = cut_groups(262144, 36280)
    names = [IPv4Address(number) for number in range(count)]
    users = Counter(assign_groups(names, groups, {}).values())
    assert max(users.values()) <= -(-count // 7)
    if count <= 7:
        assert set(users.values()) == {1}


def test_a_backend_with_flows_stays_in_its_group() -> None:
    groups = cut_groups(1000, 100)
    kept = {IPv4Address(5): SlotRange(700, 100)}
    assigned = assign_groups([IPv4Address(4), IPv4Address(5)], groups, kept)
    assert assigned[IPv4Address(5)] == SlotRange(700, 100)
    assert assigned[IPv4Address(4)] != SlotRange(700, 100)


@pytest.mark.parametrize("count", [1, 2, 7, 64, 256])
def test_backends_share_the_table_evenly(count: int) -> None:
    shares = Counter(build_table(backends(count)))
    assert max(shares.values()) - min(shares.values()) <= 1
    assert sum(shares.values()) == MAGLEV_SIZE


def test_weights_are_shares() -> None:
    items = [(0, Backend(IPv4Address(1), None, 1)), (1, Backend(IPv4Address(2), None, 3))]
    shares = Counter(build_table(items))
    assert shares[1] / shares[0] == pytest.approx(3, rel=0.01)


def test_the_order_of_backends_does_not_matter() -> None:
    items = backends(10)
    assert build_table(items) == build_table(items[::-1])


@pytest.mark.parametrize("count", [2, 10, 50])
def test_one_more_backend_moves_little_more_than_its_share(count: int) -> None:
    before, after = build_table(backends(count)), build_table(backends(count + 1))
    moved = sum(old != new for old, new in zip(before, after, strict=True)) / MAGLEV_SIZE
    assert 1 / (count + 1) <= moved + 0.001 < 1.7 / (count + 1)


def test_no_backend_is_a_table_of_none() -> None:
    assert set(build_table([])) == {NO_BACKEND}


@given(addresses, ports, addresses, st.integers(0, 65535), st.integers(0, 254))
def test_a_client_key_survives_the_wire(
    client: IPv4Address, port: int, service: IPv4Address, dport: int, number: int
) -> None:
    key = wire.ClientKey(client, port, service, dport, number)
    assert wire.ClientKey.unpack(key.pack()) == key


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 65535), st.sampled_from(FlowCode),
    st.integers(0, 255), addresses, ports, ports, st.binary(min_size=6, max_size=6),
    st.integers(0, 254),
)  # fmt: skip
def test_a_flow_survives_the_wire(
    seen: int, number: int, state: FlowCode, generation: int, client: IPv4Address,
    port: int, dport: int, mac: bytes, service: int,
) -> None:  # fmt: skip
    owner = wire.Owner(seen, number, state, generation)
    hardware = mac if any(mac) else None
    flow = wire.FlowRecord(owner, client, port, dport, hardware, 3, service=service)
    assert wire.FlowRecord.unpack(flow.pack()) == flow


def test_a_backend_survives_the_wire() -> None:
    record = plan_for().records[0]._replace(mac=MAC, port=53, mac_is_fixed=True, service=7, local=5)
    assert wire.BackendRecord.unpack(record.pack()) == record


def test_verdict_names_come_from_the_program() -> None:
    names = source.verdicts()
    assert names[:2] == ("forward", "return")
    assert len(set(names)) == len(names) == 21
    readme = (source.directory() / "README.md").read_text()
    assert all(f"| `{name}` |" in readme for name in names)


def test_every_file_of_the_program_is_joined() -> None:
    there = {path.name for path in source.directory().iterdir() if path.suffix in {".h", ".c"}}
    assert there == {*source.files(IPV4), *source.files(IPV6)}
    text = source.text(IPV4) + source.text(IPV6)
    assert all(f'#line 1 "bpf/{name}"' in text for name in there)


def test_backends_behind_one_next_hop_are_one_chain() -> None:
    plan = plan_for("192.0.2.10", "192.0.2.11", "192.0.2.12")
    (head,) = plan.next_hops.values()
    visited = []
    while head != wire.NO_INDEX:
        visited.append(head)
        head = plan.records[head].next_neighbour
    assert sorted(visited) == [0, 1, 2]


def test_a_backend_that_stays_keeps_its_number_and_one_that_left_is_unused() -> None:
    old = plan_for("192.0.2.10", "192.0.2.11")
    new = plan_for("192.0.2.11", last=old)
    assert new.records[1] == old.records[1]._replace(next_neighbour=wire.NO_INDEX)
    assert new.records[0].state is BackendCode.UNUSED
    again = plan_for("192.0.2.11", "192.0.2.12", last=new)
    assert again.records[0].generation == 1


def test_a_reservation_agrees_with_table_and_pool() -> None:
    item = Reservation(Endpoint(IPv4Address("198.51.100.7"), 5555), 6666)
    plan = plan_for(reservations=(item,))
    (flow,) = plan.reserved
    record = plan.records[flow.value.backend]
    assert flow.index == record.slot_first + 6666 - 1024
    assert flow.value.nat_port == 6666
    assert flow.key.service_port == 0


@pytest.mark.parametrize(
    ("nat_port", "flows", "message"),
    [(40000, 262144, "not one of the NAT ports"), (6666, 100, "too few for port 6666")],
)
def test_a_reservation_that_cannot_be_is_refused(nat_port: int, flows: int, message: str) -> None:
    item = Reservation(Endpoint(IPv4Address("198.51.100.7"), 5555), nat_port)
    with pytest.raises(InvalidValueError, match=message):
        plan_for(reservations=(item,), max_flows=flows)


def test_the_json_has_the_promised_keys() -> None:
    machine = FakeMachine()
    Balancer(machine).up(request())
    machine.run_on()
    status = Balancer(machine).status()
    document = json.loads(to_json(status))
    (balancer,) = document["balancers"]
    assert document["version"] == 1
    assert set(balancer) == {
        "interfaces", "program", "secret", "draining", "services", "flows", "nat_ports",
        "verdicts", "drops", "warnings",
    }  # fmt: skip
    assert set(balancer["services"][0]["backends"][0]) >= {
        "address", "port", "weight", "state", "mac", "flows",
        "packets_in", "bytes_in", "packets_out", "bytes_out",
    }  # fmt: skip
    assert balancer["flows"].items() >= {"active": 4, "capacity": 262144}.items()
    service = replace(status[0].services[0], ports=(PortRange(53, 53), PortRange(5, 9)))
    some = replace(status[0], services=(service,))
    assert json.loads(to_json([some]))["balancers"][0]["services"][0]["ports"] == "53,5-9"
    assert "unresolved" in to_text(status)
    assert to_text([]).splitlines() == [
        "no balancer is up in this network namespace",
        "  hint: 'xdplb up --iface NAME --backend ADDR' starts one",
    ]


def test_one_address_with_and_without_a_port_is_two_backends() -> None:
    address = IPv4Address("192.0.2.10")
    shares = Counter(build_table([(0, Backend(address)), (1, Backend(address, 53))]))
    assert shares[0] == pytest.approx(shares[1], abs=1)


def test_there_are_no_more_groups_than_there_can_be_backends() -> None:
    assert len(cut_groups(10**6, 1)) == MAX_BACKENDS
