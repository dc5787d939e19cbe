"""Frames to the MAC address of a virtual router, which VRRP moves from machine to machine."""

from __future__ import annotations

import pytest
from bpf_harness import Loaded, make_request
from packets import CLIENT6, OUR_MAC, SERVICE6, backend_mac, udp
from scapy.layers.l2 import Ether

MINE, OTHER = "00:00:5e:00:01:35", "00:00:5e:00:02:35"
STRANGER = "00:00:5e:00:01:36"
BACKEND = {4: "172.11.0.20", 6: "2001:db8::20"}


def to(mac: str, version: int = 4) -> bytes:
    """A question in a frame for this address."""
    if version == 6:
        return udp(src=CLIENT6, dst=SERVICE6, ether={"dst": mac})
    return udp(ether={"dst": mac})


@pytest.mark.parametrize("version", [4, 6])
def test_they_are_the_balancers_like_those_to_its_interface(version: int) -> None:
    request = make_request(BACKEND[version], virtual_mac=(MINE, OTHER))
    with Loaded(request) as balancer:
        for mac in (MINE, OTHER, OUR_MAC):
            result = balancer.run(to(mac, version))
            assert result.verdict == "forward"
            assert Ether(result.packet).src == mac, "and leave with the address that they had"
        (value,) = balancer.entries().values()
        for mac in (MINE, OUR_MAC):
            back = balancer.run(balancer.answer(value, ether={"dst": mac, "src": backend_mac(0)}))
            assert (back.verdict, Ether(back.packet).src) == ("return", mac)


def test_those_to_another_one_pass_untouched() -> None:
    with Loaded(make_request(virtual_mac=(MINE,))) as balancer:
        packet = to(STRANGER)
        result = balancer.run(packet)
        assert (result.verdict, result.packet) == ("pass_not_ours", packet)


def test_without_the_option_they_pass_untouched() -> None:
    with Loaded() as balancer:
        assert balancer.run(to(MINE)).verdict == "pass_not_ours"
