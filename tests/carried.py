"""Flows in two programs: whether they are the same, byte by byte, and whether all is consistent."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

from packets import tcp, udp

from xdplb import wire
from xdplb.facts import Running
from xdplb.kernel import libbpf, tables
from xdplb.model import PortRange, Protocol
from xdplb.startup import describe
from xdplb.wire import FlowCode

if TYPE_CHECKING:
    from bpf_harness import Loaded

OTHER_KEYS = (0xA5A5A5A5DEADBEEF, 0x1122334455667789)
BACKENDS = {4: ("172.11.0.20", "172.11.0.21"), 6: ("2001:db8::20", "2001:db8::21")}
OTHER_ORDER = {
    4: ("172.11.0.23", "172.11.0.21", "172.11.0.20"),
    6: ("2001:db8::23", "2001:db8::21", "2001:db8::20"),
}
CLIENTS = {4: "10.0.{}.7", 6: "2001:db8:{}::7"}
DNS = (PortRange(53, 53),)
BOTH = {"protocols": tuple(Protocol), "ports": DNS}


def running(balancer: Loaded) -> Running:
    """What a balancer that is up would know of itself."""
    plan = balancer.plan
    return Running(0, "", describe([plan], 0, (), {}), {plan.version: plan.records})


def same_macs(*balancers: Loaded) -> None:
    """Let each backend address have one MAC address, whatever the backend's numbers are."""
    for balancer in balancers:
        for number, record in enumerate(balancer.plan.records):
            mac = bytes((2, 0, 0, 0, 1, record.address.packed[-1]))
            balancer.change_backend(number, mac=mac)


def question(key: wire.ClientKey, **more: Any) -> bytes:
    """A packet of a flow's client."""
    fields = {
        "src": f"{key.client}",
        "sport": key.client_port,
        "dst": f"{key.service}",
        "dport": key.service_port,
        **more,
    }
    return tcp("A", **fields) if key.protocol is Protocol.TCP else udp(**fields)


def answer(balancer: Loaded, key: wire.ClientKey) -> bytes:
    """A packet of a flow's backend."""
    value = balancer.entries()[key]
    record = balancer.backend(value.backend)
    fields: dict[str, Any] = {
        "src": f"{record.address}",
        "sport": record.port or key.service_port,
        "dst": f"{balancer.plan.addresses[record.local]}",
        "dport": value.nat_port,
    }
    return tcp("A", **fields) if key.protocol is Protocol.TCP else udp(**fields)


def assert_same_ways(old: Loaded, new: Loaded) -> None:
    """Packets of all flows of ``old``, in both directions, leave both balancers alike."""
    same_macs(old, new)
    for key in old.entries():
        packets = (question(key), answer(old, key))
        here, there = ([one.run(packet) for packet in packets] for one in (old, new))
        assert [result.verdict for result in there] == ["forward", "return"]
        assert here == there


def assert_consistent(balancer: Loaded) -> None:
    """Every index entry leads to a record that is its own, and no record is without."""
    entries = balancer.entries()
    for key, value in entries.items():
        flow = balancer.flow(value)
        assert (flow.client, flow.client_port) == (key.client, key.client_port)
        assert flow.owner.backend == value.backend
    used = {at for at, code in enumerate(states(balancer)) if code is not FlowCode.FREE}
    assert used == {balancer.flow_place(value) for value in entries.values()}


def states(balancer: Loaded) -> list[FlowCode]:
    """Those of all records."""
    capacity = balancer.plan.capacity
    return [tables.read_flow(balancer.maps, at).owner.state for at in range(capacity)]


def counts(balancer: Loaded) -> tuple[int, ...]:
    """The counters of clients."""
    size = 2 * balancer.plan.client_counters
    _, values = libbpf.lookup_all(balancer.maps["client_flows"], 4, 4, size)
    return struct.unpack(f"={size}i", values)


def open_many(balancer: Loaded, count: int = 40) -> None:
    """Flows of many clients, of which some have several."""
    for number in range(count):
        client = CLIENTS[balancer.version].format(number // 3)
        balancer.open(client, port=4000 + number)


def set_owner(balancer: Loaded, key: wire.ClientKey, **fields: Any) -> None:
    """Write some fields of a flow's owner word."""
    value = balancer.entries()[key]
    flow = balancer.flow(value)
    record = flow._replace(owner=flow.owner._replace(**fields)).pack()
    place = wire.U32.pack(balancer.flow_place(value))
    libbpf.update(balancer.maps["reverse_lookup"], place, record)
