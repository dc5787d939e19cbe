"""Changes of a program that runs: each packet in between is served."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from bpf_harness import Loaded, make_request

from xdplb import wire
from xdplb.kernel import clock, flows, libbpf, tables
from xdplb.live import drain, undrain
from xdplb.plan import make_plan, with_macs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdplb.model import Backend
    from xdplb.plan import Plan


@pytest.fixture
def balancer() -> Iterator[Loaded]:
    with Loaded(make_request("172.11.0.20", "172.11.0.21")) as loaded:
        yield loaded


def plan_after(plan: Plan, how: Callable[[Backend], Backend]) -> Plan:
    """What follows ``plan`` when the first backend is changed."""
    (service,) = plan.request.services
    first, *others = service.backends
    changed = replace(service, backends=(how(first), *others))
    facts = replace(plan.facts, side=plan.side, records=plan.records)
    return with_macs(make_plan(replace(plan.request, services=(changed,)), facts), {})


def test_new_flows_are_served_between_any_two_steps_of_a_drain_and_an_undrain(
    balancer: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = iter(range(2000, 65536))
    write = libbpf.update

    def write_and_look(fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
        write(fd, key, value, flags)
        for number in range(30):
            balancer.open(f"172.11.3.{number}", next(ports))

    monkeypatch.setattr(libbpf, "update", write_and_look)
    drained = plan_after(balancer.plan, drain)
    tables.change(balancer.maps, drained, balancer.plan.records)
    assert {balancer.open(f"172.11.3.{n}", 1999).backend for n in range(30)} == {1}
    tables.change(balancer.maps, plan_after(drained, undrain), drained.records)
    assert {balancer.open(f"172.11.3.{n}", 1998).backend for n in range(30)} == {0, 1}


def test_ending_a_flow_leaves_the_one_that_has_its_place(balancer: Loaded) -> None:
    """The index entry of the flow that ends leads to a record that is another client's."""
    value = balancer.open("172.11.0.22", 5555)
    flow = balancer.flow(value)
    key = wire.ClientKey(flow.client, 6666, *balancer.dialled(53))
    libbpf.update(balancer.maps["client_port"], key.pack(), value.pack())
    plan = balancer.plan
    ended = flows.end(balancer.maps, plan.pool, plan.records, clock.ticks(), key.__eq__)
    assert ended == 1
    assert balancer.flow(value) == flow
    assert len(balancer.entries()) == 1
