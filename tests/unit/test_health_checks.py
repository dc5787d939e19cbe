"""What a health check refuses to be."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from xdplb.checks import DnsCheck, ExecCheck, Health, HttpCheck, IcmpCheck, TcpCheck, UdpCheck
from xdplb.errors import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: HttpCheck(path="status"), "does not begin with a slash"),
        (lambda: HttpCheck(path=""), "does not begin with a slash"),
        (lambda: HttpCheck(path="/a b"), "has a character that no path has"),
        (lambda: HttpCheck(path="/a\r\nX: y"), "has a character that no path has"),
        (lambda: HttpCheck(path="/a#b"), "has a character that no path has"),
        (lambda: HttpCheck(host="example.org\r\nX: y"), "has a character that no host has"),
        (lambda: HttpCheck(host="a/b"), "has a character that no host has"),
        (lambda: HttpCheck(host="käse.example"), "has a character that no host has"),
        (lambda: HttpCheck(status=""), "is no list of codes"),
        (lambda: HttpCheck(status="2xx"), "is no list of codes"),
        (lambda: HttpCheck(status="200,"), "is no list of codes"),
        (lambda: HttpCheck(status="200-"), "is no list of codes"),
        (lambda: HttpCheck(status="٢٠٠"), "is no list of codes"),
        (lambda: HttpCheck(status="600"), "HTTP status 600 is out of range"),
        (lambda: HttpCheck(status="099-200"), "HTTP status 99 is out of range"),
        (lambda: HttpCheck(status="399-200"), "HTTP status 399-200 is empty"),
        (lambda: UdpCheck(bytes(65508)), "65508 bytes to send do not fit"),
        (lambda: DnsCheck(""), "is no name"),
        (lambda: DnsCheck("a b"), "is no name"),
        (lambda: DnsCheck("a..b"), "is empty or too long"),
        (lambda: DnsCheck(".."), "is empty or too long"),
        (lambda: DnsCheck("a" * 64), "is empty or too long"),
        (lambda: DnsCheck(".".join(["a" * 63] * 4)), "of 255 characters is too long"),
        (lambda: DnsCheck("example.org", "B"), "DNS type 'B' is not known"),
        (lambda: DnsCheck("example.org", "TYPE0"), "DNS type 'TYPE0' is not known"),
        (lambda: DnsCheck("example.org", "TYPE65536"), "DNS type 'TYPE65536' is not known"),
        (lambda: ExecCheck(()), "is empty"),
        (lambda: ExecCheck(("",)), "is empty"),
        (lambda: ExecCheck(("a", "b\0c")), "has a zero byte"),
        (lambda: Health(interval=0), "health interval 0 is out of range"),
        (lambda: Health(rise=0), "health rise 0 is out of range"),
        (lambda: Health(jitter=1), "health jitter 1 is out of range"),
        (lambda: Health(port=0), "health port 0 is out of range"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_next_step(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(InvalidValueError, match=message) as caught:
        make()
    assert caught.value.hint


@pytest.mark.parametrize(
    ("status", "good", "bad"),
    [
        ("200", [200], [199, 201]),
        ("200-399", [200, 399], [199, 400]),
        ("200,301-302", [200, 301, 302], [201, 300, 303]),
        ("200, 404", [200, 404], [403]),
        ("100-599", [100, 599], [600]),
    ],
)
def test_a_status_is_a_list_of_codes_and_ranges(
    status: str, good: list[int], bad: list[int]
) -> None:
    check = HttpCheck(status=status)
    assert all(check.accepts(code) for code in good)
    assert not any(check.accepts(code) for code in bad)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("", ""),
        ("example.org", "example.org"),
        ("example.org:8443", "example.org"),
        ("192.0.2.1:8443", "192.0.2.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        ("[2001:db8::1]:8443", "2001:db8::1"),
    ],
)
def test_the_name_of_a_certificate_has_no_port(host: str, name: str) -> None:
    assert HttpCheck(host=host).name == name


@pytest.mark.parametrize(
    "check",
    [
        DnsCheck("."),
        DnsCheck("example.org.", "aaaa"),
        DnsCheck("_sip._udp.example.org", "SRV"),
        DnsCheck("example.org", "TYPE65"),
        HttpCheck(path="/a?b=c&d=%20"),
        UdpCheck(b""),
        UdpCheck(bytes(65507)),
        ExecCheck(("true", "")),
    ],
)
def test_what_can_be_asked_is_taken(check: object) -> None:
    assert check


def test_only_icmp_a_command_and_the_traffic_need_no_port() -> None:
    without = (None, IcmpCheck(), ExecCheck(("true",)))
    assert not any(Health(check=check).needs_port for check in without)
    need = (TcpCheck(), HttpCheck(), UdpCheck(b""), DnsCheck("example.org"))
    assert all(Health(check=check).needs_port for check in need)
