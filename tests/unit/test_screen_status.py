"""The status on a terminal: what stands where, at which width."""

# ruff: noqa: E501 - a screen is as wide as it is

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from rich.text import Text
from screens import drawn, lines
from statuses import backend, balancer, service

from xdplb.model import Advice, BackendState, Hash, Mode
from xdplb.rates import Rates, Traffic, place_of
from xdplb.screen.glyphs import ASCII, UNICODE
from xdplb.screen.status import MANY, StatusScreen, bar_of, watched

A = backend(
    "172.11.0.20",
    share=0.25,
    flows=1200,
    packets_in=12_345_678,
    bytes_in=9_876_543_210,
    packets_out=12_000_000,
    bytes_out=8_765_432_100,
    nat_ports_used=780,
)
B = backend("172.11.0.21", 5353, weight=3, share=0.75, mac=None)
C = backend("172.11.0.22", state=BackendState.DRAIN, share=0.0, flows=7)
DNS = service(A, B, C, name="dns", address="172.11.0.1", port=53)
LOG = service(
    backend("2001:db8:aaaa:bbbb:cccc:dddd:eeee:10", 5514), address="2001:db8::1", hash=Hash.SRC
)
STATUS = balancer(
    DNS,
    LOG,
    interfaces=("eth0", "eth1"),
    verdicts={"forward": 12_345_678, "return": 12_000_000, "pass_not_ours": 41, "drop_no_port": 12},
    warnings=(
        Advice("backend 172.11.0.21:5353 of dns udp is not resolved", "see that it is on"),
        Advice("NAT ports toward 172.11.0.20 are 78 % used", "add backends"),
    ),
)
RATES = {
    2: Rates(
        over_s=2.0,
        traffic={place_of(DNS, A): Traffic(1_240_000.0, 623e6, 1_220_000.0, 611e6)},
        nat_ports_full_s=240.0,
    )
}
HEAD = "● eth0 (native), eth1 (native)  2 warnings  program 31, xdplb 0.1.0"
AT_80 = """\
● eth0 (native), eth1 (native)  2 warnings  program 31, xdplb 0.1.0

  backend                 state          flows      in    bytes     out    bytes
dns: 172.11.0.1 udp, port 53, by src-dst
  172.11.0.20             ● up          1.20 k  12.3 M  9.88 GB  12.0 M  8.77 GB
  172.11.0.21:5353        ● unresolved       0       0      0 B       0      0 B
  172.11.0.22             ● drain            7       0      0 B       0      0 B
2001:db8::1 udp, all ports, by src
  [2001:db8:aaaa:bbbb:cccc:dddd:eeee:10]:5514
                          ● up               0       0      0 B       0      0 B

  flows      ━━──────────────────  1,207 of 10,000
  NAT ports  ━━━━━━━━━━━━━━━━────  1,207 of 5,000  78 % used toward 172.11.0.20
  packets    24,345,678 sent on, 41 left to the host, 12 dropped

  dropped    12 drop_no_port: no free NAT port toward the backend was found
             → add backends or nat-addresses, widen --nat-ports, or shorten
               --timeout; 'xdplb capacity' says how much

▲ backend 172.11.0.21:5353 of dns udp is not resolved
  → see that it is on
▲ NAT ports toward 172.11.0.20 are 78 % used
  → add backends
"""
TABLE_AT_120 = """\
  backend                              state         weight    share  expected   flows      in    bytes     out    bytes
dns: 172.11.0.1 udp, port 53, by src-dst
  172.11.0.20                          ● up               1   25.0 %    25.0 %  1.20 k  12.3 M  9.88 GB  12.0 M  8.77 GB
  172.11.0.21:5353                     ● unresolved       3   75.0 %    75.0 %       0       0      0 B       0      0 B
  172.11.0.22                          ● drain            1    0.0 %     0.0 %       7       0      0 B       0      0 B
2001:db8::1 udp, all ports, by src
  [2001:db8:aaaa:bbbb:cccc:dddd:eeee:10]:5514
                                       ● up               1  100.0 %   100.0 %       0       0      0 B       0      0 B
"""
MANY_AT_100 = """\
  backend             state         weight   share   flows      in    bytes     out    bytes
  s0 udp              ● 2 of 2 up                   2.40 k  24.7 M  19.8 GB  24.0 M  17.5 GB
"""


def text(screen: StatusScreen, width: int) -> str:
    return "\n".join(lines(screen, width)) + "\n"


def test_the_screen_at_80_columns() -> None:
    assert text(StatusScreen([STATUS]), 80) == AT_80


def test_the_screen_at_120_columns_has_more_of_them() -> None:
    assert text(StatusScreen([STATUS]), 120).split("\n\n")[1] + "\n" == TABLE_AT_120


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120, 200])
def test_every_width_shows_states_warnings_and_hints(width: int) -> None:
    shown = " ".join(" ".join(lines(StatusScreen([STATUS], RATES, has_rates=True), width)).split())
    assert all(f"● {word}" in shown for word in ("up", "unresolved", "drain"))
    assert "▲ NAT ports toward 172.11.0.20 are 78 % used → add backends" in shown


def test_a_wide_screen_has_the_mac_addresses() -> None:
    assert "02:00:00:00:00:14" in text(StatusScreen([STATUS]), 140)


def test_rates_come_before_totals() -> None:
    narrow = text(StatusScreen([STATUS], RATES, has_rates=True), 80)
    assert (
        "  172.11.0.20                 ● up          1.20 k  1.24 M  623 M  1.22 M  611 M" in narrow
    )
    assert "GB" not in narrow
    assert "GB" in text(StatusScreen([STATUS], RATES, has_rates=True), 120)


def test_before_anything_is_measured_there_is_a_dash() -> None:
    row = lines(StatusScreen([STATUS], has_rates=True), 80)[4]
    assert row.split()[-4:] == ["-"] * 4


def test_a_forecast_stands_behind_what_is_used() -> None:
    shown = text(StatusScreen([STATUS], RATES), 120)
    assert "78 % used toward 172.11.0.20, full in about 4 min at this rate\n" in shown


def test_balancers_stand_one_after_the_other() -> None:
    other = balancer(DNS, interfaces=("lan",))
    shown = text(StatusScreen([STATUS, other]), 80)
    assert shown.startswith(AT_80 + "\n● lan (native)  program 31, xdplb 0.1.0\n")


def test_a_mode_stands_behind_its_interface() -> None:
    (one, other) = STATUS.interfaces
    mixed = replace(STATUS, interfaces=(one, replace(other, mode=Mode.GENERIC)))
    assert lines(StatusScreen([mixed]), 80)[0].startswith("● eth0 (native), eth1 (generic)  ")


def test_with_nothing_up_it_says_how_to_start() -> None:
    assert text(StatusScreen([]), 80) == (
        "no balancer is up in this network namespace\n"
        "  → 'xdplb up --iface NAME --backend ADDR' starts one\n"
    )


class TestManyServices:
    """More services than one looks through at a glance."""

    MANY = tuple(
        service(A, B if number == 5 else replace(A, number=1), name=f"s{number}")
        for number in range(MANY + 1)
    )

    def test_those_that_are_well_take_a_line_each(self) -> None:
        shown = lines(StatusScreen([balancer(*self.MANY)]), 100)
        names = [line.split("●")[0].strip() for line in shown[3:]]
        assert names[:9] == [
            *("s0 udp", "s1 udp", "s2 udp", "s3 udp", "s4 udp"),
            *("s5 udp", "172.11.0.20", "172.11.0.21:5353"),
            "s6 udp",
        ]
        assert "\n".join(shown[2:4]) + "\n" == MANY_AT_100
        assert shown[8].startswith("  s5 udp              ● 1 of 2 up ")
        assert "  8 services with all backends up: one line each, more with --full" in shown

    def test_all_of_them_are_shown_when_asked_for(self) -> None:
        shown = lines(StatusScreen([balancer(*self.MANY)], full=True), 100)
        assert sum("172.11.0.2" in line for line in shown) == 2 * (MANY + 1)
        assert not any("--full" in line for line in shown)

    def test_a_few_services_are_shown_with_all_their_backends(self) -> None:
        shown = lines(StatusScreen([balancer(*self.MANY[:MANY])]), 100)
        assert sum("172.11.0.2" in line for line in shown) == 2 * MANY

    def test_128_services_of_which_all_are_well_fit_into_140_lines(self) -> None:
        well = [service(replace(A, flows=1), name=f"s{number}") for number in range(128)]
        assert len(lines(StatusScreen([balancer(*well)]), 80)) < 140


class TestBar:
    """How full something is."""

    @pytest.mark.parametrize(
        ("fill", "pieces"), [(0, 0), (0.001, 1), (0.5, 10), (0.999, 19), (1, 20), (1.3, 20)]
    )
    def test_it_is_empty_or_full_only_where_it_is(self, fill: float, pieces: int) -> None:
        assert bar_of(fill, UNICODE).plain == "━" * pieces + "─" * (20 - pieces)

    @pytest.mark.parametrize(
        ("fill", "style"), [(0.79, "green"), (0.8, "yellow"), (0.95, "red"), (1, "red")]
    )
    def test_its_colour_tells_how_bad_it_is(self, fill: float, style: str) -> None:
        assert bar_of(fill, UNICODE).spans[0].style == style

    def test_ascii_will_do(self) -> None:
        assert bar_of(0.5, ASCII, 4).plain == "##.."


def test_colours_are_only_added() -> None:
    coloured = drawn(StatusScreen([STATUS]), 80, is_colourful=True)
    assert "\x1b[32m●" in coloured
    assert Text.from_ansi(coloured).plain.rstrip("\n") == AT_80.rstrip("\n")


class TestWatched:
    """The status as the whole screen."""

    def test_one_line_stands_above_it(self) -> None:
        shown = lines(watched("10:00:00, every 2 s, q ends", StatusScreen([STATUS])), 80, 40)
        assert shown[:2] == ["10:00:00, every 2 s, q ends", HEAD]

    def test_what_does_not_fit_is_counted(self) -> None:
        shown = lines(watched("10:00:00", StatusScreen([STATUS])), 80, 10)
        assert len(shown) == 10
        assert shown[-1] == "and 15 lines more: make the window higher"
        assert shown[:-1] == ["10:00:00", *AT_80.splitlines()[:8]]

    def test_what_just_fits_is_shown(self) -> None:
        height = len(AT_80.splitlines()) + 1
        shown = lines(watched("10:00:00", StatusScreen([STATUS])), 80, height)
        assert shown[1:] == AT_80.splitlines()

    def test_before_the_first_look_there_is_the_line_alone(self) -> None:
        assert lines(watched("it is of another version", None), 80) == ["it is of another version"]


def test_an_address_without_a_name_is_the_name_of_its_service() -> None:
    many = [service(A, address=f"192.0.2.{last}", port=53) for last in range(1, MANY + 2)]
    shown = lines(StatusScreen([balancer(*many)]), 80)
    assert shown[3].startswith("  192.0.2.1 port 53 udp  ● 1 of 1 up ")


def test_a_share_that_is_not_the_expected_one_stands_out() -> None:
    off = replace(A, share=0.5, backend=replace(A.backend, address=ip_address("172.11.0.9")))
    shown = drawn(StatusScreen([balancer(service(off))]), 120, is_colourful=True)
    assert "\x1b[33m50.0 %" in shown
