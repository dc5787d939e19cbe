"""Warnings: what is told, of whom, and what is not worth a word."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from fake_machine import MAC, OWN
from fake_machine import service as asked
from statuses import backend, balancer, service

from xdplb.advice import Around, expected_shares, warnings
from xdplb.checks import Health, IcmpCheck
from xdplb.facts import Presence
from xdplb.model import IPV4, Backend, BackendState, BalancerStatus, Mode, PortRange, ServiceStatus
from xdplb.state import AttachedTo, Installed, Side, State

UP = Presence("eth0", 31, is_up=True, has_carrier=True, mac=MAC, mtu=1500, has_agent=False)
AROUND = Around({2: UP}, {})
DOWN = BackendState.DOWN


def state(**service_options: Any) -> State:
    """What the balancer of ``statuses`` knows of itself."""
    item = asked("192.0.2.1", "192.0.2.10", **service_options)
    return State(
        netns=1,
        interfaces=(AttachedTo("eth0", 2, Mode.NATIVE, MAC.hex(":"), 1500),),
        sides=(Side(IPV4, 64, (OWN[IPV4],), (Installed(0, item),)),),
        hash_keys=(1, 2),
        capacity=1000,
        nat_ports=(PortRange(2000, 2999),),
        vlan=True,
        max_client_flows=None,
        verdicts=(),
        restore=(),
    )


def told(status: BalancerStatus, around: Around = AROUND, known: State | None = None) -> list[str]:
    """What is told, without the hints."""
    return [item.what for item in warnings(status, known or state(), around)]


def with_backends(*backends: Any, **more: Any) -> BalancerStatus:
    return balancer(service(*backends, **more))


def test_nothing_is_told_where_all_is_well() -> None:
    assert told(with_backends(backend("192.0.2.10"))) == []


def test_every_warning_has_a_hint() -> None:
    lost = backend("192.0.2.10", mac=None)
    bad = replace(with_backends(lost, replace(lost, state=DOWN)), version="0.0.9", flows=9999)
    around = Around({2: None}, {}, (ip_address("192.0.2.1"),))
    found = warnings(bad, state(health=Health(IcmpCheck())), around)
    assert len(found) == 8
    assert all(item.what and item.hint and not item.hint.endswith(".") for item in found)


class TestInterface:
    """What is wrong with an interface."""

    @pytest.mark.parametrize(
        ("presence", "what"),
        [
            (None, "eth0 is not in this network namespace any more"),
            (replace(UP, name="lan0"), "eth0 is called lan0 now"),
            (replace(UP, is_up=False), "eth0 is down"),
            (replace(UP, has_carrier=False), "eth0 has no carrier"),
            (replace(UP, program_id=None), "eth0 does not carry the balancer's program any more"),
            (replace(UP, mtu=9000), "the MTU of eth0 is 9000, and the program was made for 1500"),
            (
                replace(UP, mac=bytes(6)),
                "eth0 has another MAC address than the program was made for",
            ),
        ],
    )
    def test_it_is_told(self, presence: Presence | None, what: str) -> None:
        around = Around({2: presence}, {})
        assert told(with_backends(backend("192.0.2.10")), around) == [what]

    def test_another_program_is_named(self) -> None:
        around = Around({2: replace(UP, program_id=77)}, {2: "program 77 (filter, tag 00)"})
        (found,) = warnings(with_backends(backend("192.0.2.10")), state(), around)
        assert found.what == (
            "eth0 carries program 77 (filter, tag 00) in place of the balancer's program"
        )
        assert "'ip link set dev eth0 xdp off'" in found.hint

    def test_an_interface_of_which_nothing_was_written_down_has_not_changed(self) -> None:
        known = replace(state(), interfaces=(AttachedTo("eth0", 2, Mode.NATIVE),))
        assert told(with_backends(backend("192.0.2.10")), known=known) == []


def test_that_it_drains_is_told_first() -> None:
    draining = replace(state(), draining=True)
    what, other = told(with_backends(backend("192.0.2.10")), Around({2: None}, {}), draining)
    assert what == (
        "it is draining: 'xdplb health' says unhealthy, so that clients are sent elsewhere"
    )
    assert other == "eth0 is not in this network namespace any more"


def test_an_address_that_the_host_has_lost_is_told() -> None:
    around = Around({2: UP}, {}, (ip_address("192.0.2.1"), ip_address("192.0.2.2")))
    assert told(with_backends(backend("192.0.2.10")), around) == [
        "192.0.2.1 is not an address of this host",
        "192.0.2.2 is not an address of this host",
    ]


class TestBackends:
    """What is wrong with backends."""

    def test_one_that_nobody_answers_for(self) -> None:
        there, lost = backend("192.0.2.10"), backend("192.0.2.11", 53, mac=None)
        found = warnings(with_backends(there, lost, name="dns"), state(), AROUND)
        assert [item.what for item in found] == [
            "backend 192.0.2.11:53 of dns udp is not resolved: nobody answers for 192.0.2.11 on "
            "eth0"
        ]
        assert "'ip neighbour show 192.0.2.11'" in found[0].hint

    def test_the_next_hop_is_named_and_not_the_backend_behind_it(self) -> None:
        hop = ip_address("192.0.2.254")
        lost = [backend(f"198.51.100.{last}", mac=None, next_hop=hop) for last in (1, 2)]
        assert told(with_backends(*lost, backend("192.0.2.10"))) == [
            "backends 198.51.100.1 and 198.51.100.2 of 192.0.2.1 udp are not resolved: nobody "
            "answers for 192.0.2.254 on eth0"
        ]

    def test_many_are_counted(self) -> None:
        down = [backend(f"192.0.2.{last}", state=DOWN, share=0.0) for last in range(10, 60)]
        assert told(with_backends(backend("192.0.2.1"), *down, port=53)) == [
            "backends 192.0.2.10, 192.0.2.11, 192.0.2.12 and 47 more of 192.0.2.1 port 53 udp are "
            "down"
        ]

    def test_four_are_named(self) -> None:
        down = [backend(f"192.0.2.{last}", state=DOWN, share=0.0) for last in range(10, 14)]
        (what,) = told(with_backends(backend("192.0.2.1"), *down))
        assert "192.0.2.12 and 192.0.2.13 of" in what

    def test_one_that_is_down_is_not_told_to_be_unresolved(self) -> None:
        gone = backend("192.0.2.11", mac=None, state=DOWN, share=0.0)
        assert told(with_backends(backend("192.0.2.10"), gone)) == [
            "backend 192.0.2.11 of 192.0.2.1 udp is down"
        ]

    def test_who_lets_one_back_is_the_agent_where_it_checks(self) -> None:
        status = with_backends(backend("192.0.2.10"), backend("192.0.2.11", state=DOWN, share=0.0))
        watched = Around({2: replace(UP, has_agent=True)}, {})
        (alone,) = warnings(status, state(), watched)
        assert "'xdplb backend undrain 192.0.2.11'" in alone.hint
        (checked,) = warnings(status, state(health=Health(IcmpCheck())), watched)
        assert "the agent lets it back" in checked.hint

    def test_one_that_is_drained_with_its_flows(self) -> None:
        drained = backend("192.0.2.11", state=BackendState.DRAIN, share=0.0, flows=1200)
        assert told(with_backends(backend("192.0.2.10"), drained)) == [
            "backend 192.0.2.11 of 192.0.2.1 udp is drained, with 1,200 flows left"
        ]

    @pytest.mark.parametrize(
        "bad",
        [
            backend("192.0.2.10", state=DOWN, share=0.0),
            backend("192.0.2.10", state=BackendState.DRAIN, share=0.0),
            backend("192.0.2.10", mac=None),
            backend("192.0.2.10", weight=0, share=0.0),
        ],
    )
    def test_a_service_that_nobody_answers(self, bad: Any) -> None:
        assert told(with_backends(bad))[0] == (
            "nobody answers 192.0.2.1 udp: no backend takes new flows"
        )


def test_services_with_the_same_bad_backends_are_told_together() -> None:
    drained = backend("192.0.2.11", state=BackendState.DRAIN, share=0.0, flows=5)
    lost = backend("192.0.2.12", mac=None)
    found = [
        service(backend("192.0.2.10"), drained, name=f"s{number}", port=number)
        for number in range(1, 129)
    ]
    mute = service(lost, name="mute")
    assert told(balancer(*found, mute, service(lost, name="other"))) == [
        "nobody answers mute udp and other udp: no backend takes new flows",
        "backend 192.0.2.12 of mute udp and other udp is not resolved: nobody answers for "
        "192.0.2.12 on eth0",
        "backend 192.0.2.11 of s1 udp, s2 udp, s3 udp and 125 more is drained, with 640 flows left",
    ]


class TestShares:
    """How flows are spread."""

    def test_the_expected_share_is_that_of_the_weight_among_those_that_are_up(self) -> None:
        up, drain = BackendState.UP, BackendState.DRAIN
        assert expected_shares([(up, 1), (up, 3), (drain, 9), (DOWN, 9)]) == [0.25, 0.75, 0, 0]
        assert expected_shares([(DOWN, 1)]) == [0]
        assert expected_shares([]) == []

    def test_a_table_that_does_not_fit_the_weights_is_told(self) -> None:
        wrong = [
            backend("192.0.2.10", share=0.75, expected_share=0.5),
            backend("192.0.2.11", share=0.25, expected_share=0.5),
        ]
        assert told(with_backends(*wrong)) == [
            "new flows of 192.0.2.1 udp are not spread by the weights of the backends"
        ]

    @pytest.mark.parametrize(
        ("flows", "is_told"),
        [
            ((50, 50), False),
            ((70, 30), False),
            ((95, 15), True),
            ((60, 10), False),  # too few to mean anything
            ((0, 120), True),
        ],
    )
    def test_flows_that_are_spread_unequally_are_told(
        self, flows: tuple[int, int], *, is_told: bool
    ) -> None:
        found = [
            backend(f"192.0.2.{last}", share=0.5, flows=count)
            for last, count in enumerate(flows, 10)
        ]
        assert len(told(with_backends(*found))) == is_told

    def test_only_the_worst_of_all_services_is_told(self) -> None:
        found = [
            service(backend("192.0.2.10", share=0.5, flows=flows), backend("192.0.2.11", share=0.5))
            for flows in (100, 200, 300)
        ]
        assert len(told(balancer(*found))) == 1

    def test_the_backend_that_is_farthest_off_is_named(self) -> None:
        shares = (0.1, 0.3, 0.6)
        found = [
            backend(f"192.0.2.{last}", share=share, flows=count)
            for last, (share, count) in enumerate(zip(shares, (700, 200, 100), strict=True), 10)
        ]
        assert told(with_backends(*found)) == [
            "backend 192.0.2.10 of 192.0.2.1 udp has 70 % of the flows, its share is 10 %"
        ]

    def test_a_backend_with_a_small_share_and_no_flow_is_not_told(self) -> None:
        found = [backend("192.0.2.10", share=0.95, flows=500), backend("192.0.2.11", share=0.05)]
        assert told(with_backends(*found)) == []


class TestRoom:
    """Flows and NAT ports that come to an end."""

    def test_a_flow_table_that_is_nearly_full(self) -> None:
        status = with_backends(backend("192.0.2.10"))
        assert told(replace(status, flows=7999)) == []
        assert told(replace(status, flows=9300)) == ["the flow table is 93 % full"]

    def test_nat_ports_toward_backends_that_are_nearly_used_up(self) -> None:
        used = (799, 800, 970)
        found = [
            backend(f"192.0.2.{last}", share=1 / 3, nat_ports_used=count)
            for last, count in enumerate(used, 10)
        ]
        assert told(with_backends(*found)) == [
            "NAT ports toward backends 192.0.2.11 and 192.0.2.12 are 97 % used"
        ]

    def test_a_backend_of_two_services_is_named_once(self) -> None:
        full = backend("192.0.2.10", nat_ports_used=900)
        one: ServiceStatus = service(full, port=53)
        assert told(balancer(one, service(full, port=54))) == [
            "NAT ports toward backend 192.0.2.10 are 90 % used"
        ]


def test_backends_that_have_never_answered_are_told() -> None:
    silent = backend("192.0.2.10", packets_in=3)
    quiet = replace(silent, packets_in=2)
    assert told(with_backends(quiet, replace(silent, packets_out=1))) == []
    down = with_backends(replace(silent, state=DOWN), backend("192.0.2.11"))
    assert told(down) == ["backend 192.0.2.10 of 192.0.2.1 udp is down"]
    status = with_backends(silent, port=53)
    said = "backend 192.0.2.10 of 192.0.2.1 port 53 udp has answered nothing so far"
    assert told(status) == [said]
    assert told(status, known=state(one_way=True)) == []


def test_checks_that_nobody_does_are_told() -> None:
    status = with_backends(backend("192.0.2.10"))
    known = state(health=Health(IcmpCheck()))
    assert told(status, known=known) == [
        "nobody checks the health of backends: the agent is not running"
    ]
    assert told(status, Around({2: replace(UP, has_agent=True)}, {}), known) == []


@pytest.mark.parametrize(("left", "count"), [(None, 0), (2.5, 0), (0.0, 1), (-60.0, 1)])
def test_a_trace_that_nobody_reads_is_told(left: float | None, count: int) -> None:
    found = told(with_backends(backend("192.0.2.10")), replace(AROUND, traced_for=left))
    assert found == ["a trace is on that nobody reads, and makes each packet slower"][:count]


def test_another_version_is_told() -> None:
    status = replace(with_backends(backend("192.0.2.10")), version="0.0.9")
    (what,) = told(status)
    assert what.startswith("xdplb 0.0.9 has started it, and this is ")


def test_a_backend_without_any_room_is_not_full() -> None:
    nobody = Backend(ip_address("192.0.2.10"))
    status = with_backends(backend("192.0.2.10", nat_ports_total=0))
    assert status.backends[0].backend == nobody
    assert told(replace(status, capacity=0)) == []
