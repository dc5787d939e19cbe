"""What a person sees who looks: of things that were broken on purpose, and on a terminal."""

from __future__ import annotations

import json
import re
import signal
import time
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lab import PATIENCE, SERVICE, SERVICE6, XDPLB, Lab, exchange, wait_for
from teletype import Teletype

from xdplb.kernel import libbpf, netns, presence
from xdplb.kernel.claims import Claims, is_claimed
from xdplb.model import Mode

if TYPE_CHECKING:
    from collections.abc import Iterator

PORT = 53
BACKEND, LOST = "172.11.0.20", "172.11.0.99"
FOREIGN = b"\xb7\x00\x00\x00\x02\x00\x00\x00\x95" + bytes(7)  # r0 = XDP_PASS; exit


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


def warned(lab: Lab) -> list[str]:
    return [item["what"] for item in lab.status()["warnings"]]


def on_terminal(lab: Lab, *words: str, **more: object) -> Teletype:
    """A command in the balancer's namespace, on a terminal."""
    return Teletype([f"{XDPLB}", "--netns", lab.balancer, *words], **more)  # type: ignore[arg-type]


def fill(lab: Lab, flows: int) -> None:
    """Open flows, of one client after the other, and let each be answered."""
    server = lab.socket(BACKEND, PORT)
    for number in range(flows):
        exchange(lab.socket(f"172.11.0.{22 + number % 4}"), server, b"?", PORT)


# Broken on purpose


def test_a_backend_that_is_not_there_is_told_and_then_that_nobody_answers(lab: Lab) -> None:
    lab.up("--port", f"{PORT}", backends=(BACKEND, LOST))
    of = f"{SERVICE} port {PORT} udp"
    assert warned(lab) == [
        f"backend {LOST} of {of} is not resolved: nobody answers for {LOST} on balancer"
    ]
    text = lab.xdplb("status").stdout
    assert f"  warning: backend {LOST} of {of} is not resolved: " in text
    assert f"    hint: see that it is on, and on this network: 'ip neighbour show {LOST}'" in text
    lab.xdplb("backend", "remove", LOST)
    assert warned(lab) == []
    lab.xdplb("backend", "drain", BACKEND)
    assert warned(lab) == [
        f"nobody answers {of}: no backend takes new flows",
        f"backend {BACKEND} of {of} is drained, with 0 flows left",
    ]
    assert lab.status()["services"][0]["backends"][0]["expected_share"] == 0


def test_nat_ports_that_are_used_up_are_told_with_what_was_dropped(lab: Lab) -> None:
    lab.up("--port", f"{PORT}", "--nat-ports", "2000-2009", backends=(BACKEND,))
    fill(lab, 10)
    lab.socket("172.11.0.23").sendto(b"one too many", (SERVICE, PORT))
    wait_for(lambda: lab.status()["verdicts"]["drop_no_port"])
    status = lab.status()
    (found,) = status["warnings"]
    assert found["what"] == f"NAT ports toward backend {BACKEND} are 100 % used"
    assert status["nat_ports"]["fill"] == status["nat_ports"]["fullest"]["fill"] == 1.0
    (dropped,) = status["drops"]
    assert (dropped["reason"], dropped["packets"]) == ("drop_no_port", 1)
    text = lab.xdplb("status").stdout
    assert "  drop_no_port 1: no free NAT port toward the backend was found\n    hint: " in text
    assert "NAT ports 10 of 10 (100 % used)" in text


def test_an_interface_that_is_not_what_it_was_is_told(lab: Lab) -> None:
    lab.second_network()
    lab.up("--iface", "second", "--port", f"{PORT}", backends=(BACKEND,))
    wait_for(lambda: not warned(lab))  # the kernel sees the new link's carrier a little later
    index, _ = lab.link("b", "second")
    with netns.inside(lab.path("b")):
        libbpf.xdp_attach(index, -1, libbpf.XDP_DRV_MODE)
    assert warned(lab) == ["second does not carry the balancer's program any more"]
    with netns.inside(lab.path("b")):
        fd, _ = libbpf.load_program("stranger", FOREIGN)
        libbpf.xdp_attach(index, fd, libbpf.XDP_DRV_MODE)
    (what,) = warned(lab)
    assert re.fullmatch(
        r"second carries program \d+ \(stranger, tag \w+\) in place of the balancer's program",
        what,
    )
    lab.ip("b", "link delete second")
    assert warned(lab) == ["second is not in this network namespace any more"]
    lab.ip("b", f"address delete {SERVICE}/24 dev balancer")
    lab.ip("b", "link set balancer mtu 1400")
    assert warned(lab) == [
        "the MTU of balancer is 1400, and the program was made for 1500",
        "second is not in this network namespace any more",
        f"{SERVICE} is not an address of this host",
    ]
    lab.ip("b", "link set balancer down")
    assert "balancer is down" in warned(lab)
    lab.ip("b", "link set balancer name lan")
    lab.ip("b", "link set lan up")
    assert "balancer is called lan now" in warned(lab)
    lab.ip("h", "link set outside down")
    wait_for(lambda: "lan has no carrier" in warned(lab))


def test_an_agent_is_seen_by_its_claim_and_an_address_without_a_port(lab: Lab) -> None:
    with netns.inside(lab.path("b")), Claims() as claims:
        index, mac = lab.link("b", "balancer")
        claims.take(["balancer"])
        assert [is_claimed(name) for name in ("balancer", "other")] == [True, False]
        seen = presence.presence(index)
        assert seen is not None
        assert (seen.name, seen.mac.hex(":"), seen.mtu) == ("balancer", mac, 1500)
        assert (seen.is_up, seen.has_carrier, seen.has_agent) == (True, True, True)
        claims.take([])
        assert not is_claimed("balancer")
        assert presence.presence(9999) is None
        own = [presence.has_address(ip_address(item)) for item in (SERVICE, SERVICE6)]
        others = [presence.has_address(ip_address(item)) for item in (BACKEND, "2001:db8::20")]
        assert (own, others) == ([True, True], [False, False])


# On a terminal


def test_status_on_a_terminal_is_a_screen_that_anybody_can_turn_off(lab: Lab) -> None:
    lab.up("--port", f"{PORT}", "--nat-ports", "2000-2009", backends=(BACKEND,))
    fill(lab, 6)
    with on_terminal(lab, "status") as terminal:
        assert terminal.ended() == 0
        shown = terminal.display.splitlines()
        assert shown[0].startswith(f"● balancer ({Mode.NATIVE})  program ")
        assert shown[4].split()[:3] == [BACKEND, "●", "up"]
        assert "  NAT ports  ━━━━━━━━━━━━────────  6 of 10  60 % used" in shown
        assert b"\x1b[32m" in terminal.sent
    with on_terminal(lab, "status", NO_COLOR="1") as terminal:
        assert terminal.ended() == 0
        assert "● balancer" in terminal.display
        assert not re.search(rb"\x1b\[[0-9;]*3[0-7]m", terminal.sent)
    with on_terminal(lab, "status", columns=200, TERM="dumb") as terminal:
        assert terminal.ended() == 0
        plain = lab.xdplb("status").stdout
        assert terminal.sent.decode().split("packets:")[0] == (
            plain.split("packets:")[0].replace("\n", "\r\n")
        )


def test_status_says_when_nat_ports_will_be_used_up(lab: Lab) -> None:
    lab.up("--port", f"{PORT}", "--nat-ports", "2000-2399", backends=(BACKEND,))
    fill(lab, 220)
    with on_terminal(lab, "status", columns=120) as terminal:
        while terminal.child.poll() is None:
            lab.socket("172.11.0.25").sendto(b"?", (SERVICE, PORT))
            time.sleep(0.03 * PATIENCE)  # so that it does not fill them all meanwhile
        assert terminal.ended() == 0
        assert re.search(
            r"NAT ports  .* of 400  \d\d % used, full in about \d+ s at this rate", terminal.display
        )


def test_watching_shows_rates_in_place_until_ctrl_c(lab: Lab) -> None:
    lab.up("--port", f"{PORT}", backends=(BACKEND,))
    client, server = lab.socket("172.11.0.22"), lab.socket(BACKEND, PORT)
    with on_terminal(lab, "status", "--watch", "0.3") as terminal:
        terminal.shows("every 0.3 s, q ends")

        def is_busy(display: str) -> bool:
            exchange(client, server, b"?", PORT)
            found = re.search(rf"{BACKEND} +● up +1 +([0-9.]+) ", display)
            return "in/s" in display and found is not None and float(found[1]) > 0

        terminal.until(is_busy, "a rate")
        lab.xdplb("down")
        terminal.shows("no balancer is up in this network namespace")
        lab.up("--port", f"{PORT}", backends=(BACKEND,))
        terminal.shows("● balancer (native)")
        terminal.press("\x03")
        assert terminal.ended() == 0
        assert terminal.is_as_before()
        assert "balancer (native)" in terminal.left_behind(), "the last of it stays"


def test_top_does_what_its_keys_say_and_gives_the_terminal_back(lab: Lab) -> None:
    lab.up("--port", f"{PORT}", backends=(BACKEND,))
    fill(lab, 5)
    with on_terminal(lab, "top", "--interval", "0.3") as terminal:
        shown = terminal.until(lambda display: "4 clients" in display and "q quit" in display)
        assert shown.splitlines()[0].startswith("xdplb top  balancer (native)  ")
        assert re.search(r"172\.11\.0\.22 +2 +40 %", shown)
        assert len(shown.splitlines()) == 24
        terminal.press("s")
        terminal.shows(", by flows")
        terminal.press("b")
        terminal.until(lambda display: BACKEND not in display)
        terminal.press("h")
        terminal.shows("sort the other way round")
        terminal.press("x")
        terminal.until(lambda display: "sort the other way" not in display)
        terminal.press("p")
        paused = terminal.shows("paused").splitlines()[0]
        terminal.resize(120, 30)
        shown = terminal.until(lambda display: len(display.splitlines()) == 30)
        assert "bit/s" in shown
        assert shown.splitlines()[0] == paused, "time stands still"
        terminal.press("q")
        assert terminal.ended() == 0
        assert terminal.is_as_before()


def test_top_can_be_stopped_and_goes_on(lab: Lab) -> None:
    with on_terminal(lab, "top") as terminal:
        terminal.shows("no balancer is up in this network namespace")
        terminal.child.send_signal(signal.SIGTSTP)
        stat = Path(f"/proc/{terminal.child.pid}/stat")
        terminal.until(lambda _: stat.read_text().rpartition(")")[2].split()[0] == "T")
        terminal.until(lambda _: terminal.is_as_before())
        terminal.child.send_signal(signal.SIGCONT)
        terminal.until(lambda _: not terminal.is_as_before())
        terminal.press("q")
        assert terminal.ended() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_top_and_gives_the_terminal_back(lab: Lab, number: signal.Signals) -> None:
    with on_terminal(lab, "top") as terminal:
        terminal.shows("no balancer is up in this network namespace")
        terminal.child.send_signal(number)
        assert terminal.ended() == (0 if number is signal.SIGINT else 128 + number)
        assert terminal.is_as_before()


def test_a_fault_of_top_gives_the_terminal_back(lab: Lab) -> None:
    fault = "import xdplb.screen.view; xdplb.screen.view.rows = None"
    python = f"{XDPLB.parent / 'python'}"
    start = f"{fault}; from xdplb.cli import main; main()"
    with Teletype([python, "-c", start, "--netns", lab.balancer, "top"]) as terminal:
        assert terminal.ended() == 1
        assert "TypeError: 'NoneType' object is not callable" in terminal.display
        assert terminal.is_as_before()


def test_top_measures_once_without_a_terminal(lab: Lab) -> None:
    lab.up("--port", f"{PORT}", backends=(BACKEND,))
    fill(lab, 1)
    document = json.loads(lab.xdplb("top", "--json", "--interval", "0.2").stdout)
    (balancer,) = document["balancers"]
    assert balancer["clients"] == {
        "total": 1, "first": [{"client": "172.11.0.22", "flows": 1}],
    }  # fmt: skip
    assert balancer["rates"]["over"] == pytest.approx(0.2, abs=0.2 * PATIENCE)
    refused = lab.xdplb("top", check=False)
    assert (refused.returncode, "'xdplb top --once'" in refused.stderr) == (3, True)
