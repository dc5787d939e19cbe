"""A flood of forged sources, faster than any network brings it, and who lives through it."""

from __future__ import annotations

import pytest
from bench.frames import Template, mac_bytes, requests
from bench.programs import Source
from bpf_harness import Loaded, make_request
from lab import wait_for
from packets import CLIENT_MAC, OUR_MAC, udp

from xdplb.kernel import clock
from xdplb.model import Timeouts
from xdplb.wire import TICKS_PER_S

FLOOD = 2_000_000
SOURCES = 400_000
UNREPLIED_S = 2


@pytest.mark.timeout(120)
def test_a_flood_of_forged_sources_breaks_no_answered_flow() -> None:
    request = make_request(max_flows=100_000, timeouts=Timeouts(unreplied=UNREPLIED_S))
    clients = [(f"10.1.{number // 250}.{number % 250 + 1}", 4000) for number in range(1000)]
    with Loaded(request) as balancer, Source("drive") as source:
        opened = {client: balancer.open(*client) for client in clients}
        for value in opened.values():
            assert balancer.run(balancer.answer(value)).verdict == "return"
        source.aim(balancer.fd)
        source.give(Template(mac_bytes(CLIENT_MAC), mac_bytes(OUR_MAC)), requests(0, SOURCES))
        source.drive(FLOOD)
        counts = balancer.verdicts()
        assert counts["drop_no_port"] > FLOOD // 2, "the table is full"
        assert balancer.run(udp(src="10.9.9.9")).verdict == "drop_no_port"
        for client, value in opened.items():
            assert balancer.open(*client) == value
            assert balancer.run(balancer.answer(value)).verdict == "return"
        ended = clock.ticks()
        wait_for(lambda: clock.ticks() - ended > (UNREPLIED_S + 1) * TICKS_PER_S)
        assert balancer.run(udp(src="10.9.9.9")).verdict == "forward", "new clients are served"
        assert {client: balancer.index(*client) for client in clients} == opened
