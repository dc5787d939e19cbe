"""The screen of ``top``: what stands where, at which size."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from screens import drawn, lines
from statuses import backend, balancer, service

from xdplb.model import Advice, Clients, ClientStatus
from xdplb.rates import History, Look, Measured
from xdplb.screen.top import TopScreen, page_of, panel_lines
from xdplb.screen.view import View, rows

A = backend("172.11.0.20", share=0.5, flows=1200, nat_ports_used=780)
B = backend("172.11.0.21", 5353, share=0.5, flows=900)
LOST = backend("172.11.0.9", mac=None)
DNS = service(A, B, name="dns", address="172.11.0.1", port=53)
LOG = service(LOST, name="syslog", address="172.11.0.1", port=514)
STATUS = balancer(
    DNS,
    LOG,
    interfaces=("eth0",),
    verdicts={"forward": 0, "drop_no_port": 12, "drop_ttl": 3},
    warnings=(Advice("backend 172.11.0.9 of syslog udp is not resolved", "see that it is on"),),
)
CLIENTS = Clients(
    120,
    (
        ClientStatus(ip_address("198.51.100.7"), 1050),
        ClientStatus(ip_address("2001:db8:aaaa:bbbb::"), 21),
        ClientStatus(ip_address("198.51.100.8"), 42),
    ),
)


def busy(step: int) -> Any:
    """The balancer after so many steps, of which each has more packets."""
    packets = 500 * step * (step + 1)
    more = replace(A, packets_in=packets, bytes_in=100 * packets, packets_out=packets)
    dns = replace(DNS, backends=(more, replace(B, packets_in=packets // 2)))
    counts = {"forward": packets, "drop_no_port": 12 + 30 * step, "drop_ttl": 3}
    return replace(STATUS, services=(dns, LOG), verdicts=counts)


def screen(view: View | None = None, **more: Any) -> TopScreen:
    """The screen after eight seconds."""
    history, found = History(60), Measured()
    for step in range(9):
        found = history.add(Look(float(step), (busy(step),)))
    view = view or View()
    status = [busy(8)]
    given: dict[str, Any] = {
        "balancers": status,
        "measured": found,
        "rows": rows(status, found, history, view),
        "history": history,
        "clients": [CLIENTS],
        "view": view,
        "said": "10:00:00, every 1 s",
    }
    return TopScreen(**{**given, **more})


AT_80 = """\
xdplb top  eth0 (native)  10:00:00, every 1 s, by rate
  in 12.0 k/s 6.40 Mbit/s   out 8.00 k/s 0 bit/s   dropped 30/s         ▂▃▄▅▆▇██
  flows      ━━━━────────────────  2,100 of 10,000
  NAT ports  ━━━━━━━━━━━━━━━━────  2,100 of 5,000  78 % used toward 172.11.0.20
▲ backend 172.11.0.9 of syslog udp is not resolved
  service             state          flows    in/s   out/s
  dns udp             ● 2 of 2      2.10 k  12.0 k  8.00 k              ▂▃▄▅▆▇██
    172.11.0.20       ● up          1.20 k  8.00 k  8.00 k              ▂▃▄▅▆▇██
    172.11.0.21:5353  ● up             900  4.00 k       0              ▂▃▄▅▆▇██
  syslog udp          ● 0 of 1           0       0       0              ▁▁▁▁▁▁▁▁
    172.11.0.9        ● unresolved       0       0       0              ▁▁▁▁▁▁▁▁






  most flows, of 120 clients            dropped, and why
  198.51.100.7           1.05 k   50 %  no port            30/s      252 in all
  198.51.100.8               42    2 %  ttl                 0/s        3 in all
  2001:db8:aaaa:bbbb::/64    21    1 %


  q quit   p pause   s sort   r reverse   b backends   h help   ↑↓ scroll"""


def test_the_screen_of_80_by_24() -> None:
    assert "\n".join(lines(screen(), 80)) == AT_80


def test_a_wider_screen_has_bits() -> None:
    shown = lines(screen(), 120, 30)
    assert shown[5].split() == ["service", "state", "flows", "in/s", "bit/s", "out/s", "bit/s"]
    assert shown[7].split()[:11] == [
        *("172.11.0.20", "●", "up", "1.20", "k"),
        *("8.00", "k", "6.40", "M", "8.00", "k"),
    ]


@pytest.mark.parametrize("width", [40, 60, 80, 132, 250])
@pytest.mark.parametrize("height", [1, 2, 5, 9, 12, 24, 50])
def test_every_size_is_filled_and_no_more(width: int, height: int) -> None:
    shown = lines(screen(), width, height)
    assert len(shown) == height
    assert shown[-1].startswith("  q quit")


def test_a_help_and_keys_take_the_place_of_the_rows() -> None:
    shown = lines(screen(View(has_help=True)), 80)
    assert len(shown) == 24
    assert any(line.startswith("  s           sort by another thing: ") for line in shown)
    assert not any("dns udp" in line for line in shown[5:])


def test_the_title_says_what_was_asked_for() -> None:
    (title, *_) = lines(screen(View(is_paused=True, is_reversed=True)), 80)
    assert title == "xdplb top  eth0 (native)  10:00:00, every 1 s, by rate reversed  paused"


def test_services_alone() -> None:
    shown = lines(screen(View(has_backends=False)), 80)
    assert [line.split()[0] for line in shown[6:8]] == ["dns", "syslog"]
    assert shown[8] == ""


class TestManyRows:
    """More rows than there is room for."""

    PAGE = page_of(24)

    def many(self, first: int) -> list[str]:
        found = [service(backend("192.0.2.10"), name=f"s{number:02}") for number in range(20)]
        item = balancer(*found)
        shown = rows([item], {}, History(1), View())
        return lines(
            screen(View(first=first), balancers=[item], measured={}, rows=shown, clients=[]), 80
        )

    def test_the_first_ones_are_shown_and_how_many_others_there_are(self) -> None:
        shown = self.many(0)
        assert shown[6].startswith("  s00 udp ")
        assert shown[6 + self.PAGE] == "  30 below"

    def test_further_down(self) -> None:
        shown = self.many(2)
        assert shown[6].startswith("  s01 udp ")
        assert shown[6 + self.PAGE] == "  2 above, 28 below"

    def test_what_is_further_down_than_the_last_one_is_the_last_one(self) -> None:
        shown = self.many(1000)
        assert shown[6 + self.PAGE - 2].startswith("  s19 udp ")
        assert shown[6 + self.PAGE] == "  30 above"


@pytest.mark.parametrize(
    ("height", "clients", "page"), [(24, 5, 10), (40, 10, 21), (12, 1, 2), (5, 0, 1)]
)
def test_rows_and_clients_share_the_room(height: int, clients: int, page: int) -> None:
    assert (panel_lines(height), page_of(height)) == (clients, page)


def test_several_warnings_are_counted() -> None:
    two = replace(STATUS, warnings=STATUS.warnings * 2)
    assert lines(screen(balancers=[two]), 80)[4] == (
        "▲ 2 warnings: backend 172.11.0.9 of syslog udp is not resolved"
    )
    assert lines(screen(balancers=[replace(STATUS, warnings=())]), 80)[4] == ""


def test_nothing_dropped_and_no_client_counted_yet() -> None:
    quiet = replace(STATUS, verdicts={"forward": 1, "drop_ttl": 0})
    shown = lines(screen(balancers=[quiet], clients=[]), 80)
    assert shown[17].strip() == "nothing was dropped"
    assert "dropped 0/s" in shown[1]


def test_with_nothing_up_it_says_so() -> None:
    shown = lines(screen(balancers=[], measured={}, rows=[], history=History(1)), 80)
    assert shown[2:4] == [
        "no balancer is up in this network namespace",
        "  → 'xdplb up --iface NAME --backend ADDR' starts one",
    ]
    assert shown[-1].startswith("  q quit")


def test_trouble_stands_above_what_was_known_before() -> None:
    shown = lines(screen(trouble="the balancer was replaced"), 80)
    assert shown[1] == "the balancer was replaced"
    assert any(line.startswith("  dns udp") for line in shown)
    assert len(shown) == 24


def test_several_balancers_are_summed_up() -> None:
    other = balancer(service(backend("192.0.2.99"), name="web"), interfaces=("lan",))
    status = [busy(8), other]
    shown = lines(screen(balancers=status, rows=rows(status, {}, History(1), View())), 80)
    assert shown[0].startswith("xdplb top  eth0 (native), lan (native)  ")
    assert {"dns", "syslog", "web"} <= {line.split()[0] for line in shown[6:14] if line}


def test_colours_are_for_what_matters() -> None:
    shown = drawn(screen(), 80, is_colourful=True)
    assert "\x1b[31m30/s" in shown
    assert "\x1b[31m● \x1b[0munresolved" in shown
