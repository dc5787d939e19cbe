"""Checks by ICMP, TCP, UDP and DNS, against peers on loopback."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from health_peers import (
    bound,
    closed_udp_port,
    nothing_left_open,
    reason,
    target,
    udp_peer,
)

from xdplb.checks import DnsCheck, ExecCheck, HttpCheck, IcmpCheck, TcpCheck, UdpCheck
from xdplb.errors import NotReadyError, PrivilegeError
from xdplb.health import probe_icmp, probes
from xdplb.health.probes import probe, require
from xdplb.health.target import ProbeFailed, os_reason, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xdplb.checks import Check
    from xdplb.health.target import Target

BOTH = pytest.mark.parametrize("version", [4, 6])
QUESTION = DnsCheck("health.example", "A")


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    with nothing_left_open():
        yield


def echo(data: bytes) -> list[bytes]:
    return [data]


# TCP


@BOTH
def test_tcp_is_good_where_somebody_listens(version: int) -> None:
    with bound(socket.SOCK_STREAM, version) as (sock, port):
        sock.listen()
        asyncio.run(probe(TcpCheck(), target(port, version)))
        peer, _ = sock.accept()
        with peer:
            assert peer.recv(1) == b""


@BOTH
def test_tcp_is_refused_where_nobody_listens(version: int) -> None:
    with bound(socket.SOCK_STREAM, version) as (_, port):
        assert asyncio.run(reason(TcpCheck(), target(port, version))) == "connection refused"


def test_tcp_does_not_wait_for_longer_than_its_limit() -> None:
    with bound(socket.SOCK_STREAM) as (sock, port), socket.socket() as first:
        sock.listen(0)
        first.connect(("127.0.0.1", port))  # and the queue is full
        found = asyncio.run(reason(TcpCheck(), target(port), 0.02))
    assert found == "no connection within 0.02 s"


def test_a_probe_without_a_port_says_so() -> None:
    assert asyncio.run(reason(TcpCheck(), target(None))) == "no port is known to ask at"


# UDP


@BOTH
@pytest.mark.parametrize("expect", [b"", b"pin", b"ping"])
def test_udp_is_good_with_an_answer_that_has_what_is_expected(version: int, expect: bytes) -> None:
    async def main() -> None:
        async with udp_peer(echo, version) as (port, _):
            await probe(UdpCheck(b"ping", expect), target(port, version))

    asyncio.run(main())


def test_udp_takes_an_empty_datagram_for_an_answer() -> None:
    async def main() -> None:
        async with udp_peer(echo) as (port, _):
            await probe(UdpCheck(b""), target(port))

    asyncio.run(main())


def test_udp_is_bad_with_another_answer() -> None:
    async def main() -> str:
        async with udp_peer(echo) as (port, _):
            return await reason(UdpCheck(b"ping", b"\x00pong"), target(port))

    assert asyncio.run(main()) == r"answer does not contain '\x00pong'"


@BOTH
def test_udp_is_bad_at_once_where_the_port_is_unreachable(version: int) -> None:
    port = closed_udp_port(version)
    assert asyncio.run(reason(UdpCheck(b"ping"), target(port, version))) == "port unreachable"


def test_udp_does_not_wait_for_longer_than_its_limit() -> None:
    with bound(socket.SOCK_DGRAM) as (_, port):
        found = asyncio.run(reason(UdpCheck(b"ping"), target(port), 0.02))
    assert found == "no answer within 0.02 s"


def test_a_cancelled_probe_is_cancelled_and_leaves_nothing_open() -> None:
    async def main() -> None:
        async with udp_peer(lambda _: []) as (port, asked):
            task = asyncio.create_task(probe(UdpCheck(b"ping"), target(port), 60))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())


# DNS


def responder(change: Callable[[dns.message.Message], None]) -> Callable[[bytes], list[bytes]]:
    """A server that gives the record of QUESTION, after a change."""

    def answers(data: bytes) -> list[bytes]:
        response = dns.message.make_response(dns.message.from_wire(data))
        response.answer.append(dns.rrset.from_text("health.example.", 5, "IN", "A", "192.0.2.1"))
        change(response)
        return [response.to_wire()]

    return answers


async def asked_for(answers: Callable[[bytes], list[bytes]], limit: float = 5.0) -> str:
    async with udp_peer(answers) as (port, _):
        return await reason(QUESTION, target(port), limit)


def nothing(_: dns.message.Message) -> None:
    pass


@BOTH
def test_dns_is_good_with_a_record(version: int) -> None:
    async def main() -> None:
        async with udp_peer(responder(nothing), version) as (port, _):
            await probe(QUESTION, target(port, version))

    asyncio.run(main())


@pytest.mark.parametrize("code", [dns.rcode.NXDOMAIN, dns.rcode.SERVFAIL, dns.rcode.REFUSED])
def test_dns_is_bad_with_an_error(code: dns.rcode.Rcode) -> None:
    found = asyncio.run(asked_for(responder(lambda response: response.set_rcode(code))))
    assert found == dns.rcode.to_text(code)


def test_dns_is_bad_without_a_record() -> None:
    found = asyncio.run(asked_for(responder(lambda response: response.answer.clear())))
    assert found == "answer has no record"


def test_dns_is_bad_with_an_answer_that_is_cut_off_before_its_records() -> None:
    def cut(response: dns.message.Message) -> None:
        response.answer.clear()
        response.flags |= dns.flags.TC

    assert asyncio.run(asked_for(responder(cut))) == "answer is truncated"


def test_dns_is_bad_with_what_is_no_message() -> None:
    assert asyncio.run(asked_for(lambda _: [b"hello"])) == "answer is no DNS message"


def test_dns_passes_over_answers_to_other_questions() -> None:
    def other(response: dns.message.Message) -> None:
        response.id ^= 1

    def both(data: bytes) -> list[bytes]:
        return [*responder(other)(data), *responder(nothing)(data)]

    async def main() -> None:
        async with udp_peer(both) as (port, _):
            await probe(QUESTION, target(port))

    asyncio.run(main())
    assert asyncio.run(asked_for(responder(other), 0.02)) == "no answer within 0.02 s"


def test_dns_is_bad_at_once_where_the_port_is_unreachable() -> None:
    assert asyncio.run(reason(QUESTION, target(closed_udp_port()))) == "port unreachable"


# ICMP


def may_ping() -> bool:
    try:
        probe_icmp.open_icmp(4).close()
    except PrivilegeError:
        return False
    return True


@BOTH
@pytest.mark.skipif(not may_ping(), reason="echo requests need a privilege here")
def test_icmp_is_good_with_a_reply(version: int) -> None:
    asyncio.run(probe(IcmpCheck(), target(None, version)))


@pytest.mark.skipif(not may_ping(), reason="echo requests need a privilege here")
def test_icmp_at_the_same_time_gets_each_its_own_reply() -> None:
    async def main() -> None:
        await asyncio.gather(*(probe(IcmpCheck(), target(None), 5) for _ in range(20)))

    asyncio.run(main())


IN_A_NAMESPACE = """
import asyncio, socket
from ipaddress import ip_address
from pathlib import Path
from xdplb.checks import IcmpCheck
from xdplb.health.probe_icmp import open_icmp
from xdplb.health.probes import ProbeFailed, Target, probe
from xdplb.model import Protocol

def ask(address):
    try:
        asyncio.run(probe(IcmpCheck(), Target(ip_address(address), None, Protocol.UDP), 0.05))
        return "good"
    except ProbeFailed as error:
        return error.reason

ipv4 = Path("/proc/sys/net/ipv4")
for groups in ("0 0", "1 0"):
    (ipv4 / "ping_group_range").write_text(groups)
    for version in (4, 6):
        with open_icmp(version) as sock:
            print(socket.SocketKind(sock.type).name)
    print(ask("127.0.0.1"))
    print(ask("::1"))
    print(ask("192.0.2.1"))
    (ipv4 / "icmp_echo_ignore_all").write_text("1")
    print(ask("127.0.0.1"))
    (ipv4 / "icmp_echo_ignore_all").write_text("0")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="makes a network namespace")
def test_icmp_uses_the_socket_that_is_allowed() -> None:
    done = subprocess.run(
        [
            *("unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"),
            *(sys.executable, "-c", IN_A_NAMESPACE),
        ],
        env=os.environ | {"PYTHONPATH": f"{Path(probes.__file__).parents[2]}"},
        capture_output=True,
        text=True,
        check=True,
    )
    answers = ["good", "good", "network is unreachable", "no answer within 0.05 s"]
    expected = [*["SOCK_DGRAM"] * 2, *answers, *["SOCK_RAW"] * 2, *answers]
    assert done.stdout.splitlines() == expected


def test_icmp_without_a_privilege_is_found_out_before_it_matters(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(PrivilegeError, match="send echo requests"):
        require(IcmpCheck(), target(None).address)
    monkeypatch.undo()
    monkeypatch.setattr(probe_icmp, "open_icmp", refuse_privilege)
    found = asyncio.run(reason(IcmpCheck(), target(None)))
    assert found == "no privilege to send echo requests"


def refuse_privilege(_: int) -> None:
    raise PrivilegeError("send echo requests")


@BOTH
def test_only_the_reply_to_the_request_is_a_reply(version: int) -> None:
    kind = {4: 0, 6: 129}[version]
    good = bytes([kind, 0, 0, 0, 0x12, 0x34, 0, 1]) + b"payload!"
    assert probe_icmp.is_reply(version, good, 0x1234, b"payload!")
    assert not probe_icmp.is_reply(version, good, 0x1235, b"payload!")
    assert not probe_icmp.is_reply(version, good, 0x1234, b"payload?")
    assert not probe_icmp.is_reply(version, good[:7], 0x1234, b"payload!")
    assert not probe_icmp.is_reply(version, b"\x03" + good[1:], 0x1234, b"payload!")
    assert not probe_icmp.is_reply(version, good[:7] + b"\x02" + good[8:], 0x1234, b"payload!")


def test_an_ip_header_is_as_long_as_it_says() -> None:
    assert probe_icmp.without_ip_header(b"\x46" + bytes(23) + b"rest") == b"rest"
    assert probe_icmp.without_ip_header(b"") == b""


def test_the_checksum_is_that_of_rfc_1071() -> None:
    assert probe_icmp.internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D
    request = probe_icmp.echo_request(4, 0xABCD, b"\xff" * 16)
    assert probe_icmp.internet_checksum(request) == 0


# What all have in common


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (TimeoutError(errno.ETIMEDOUT, "x"), "connection timed out"),
        (OSError(errno.EHOSTUNREACH, "x"), "no route to host"),
        (OSError("broken\n"), "broken"),
        (OSError(), "OSError"),
        (ValueError("a\x1b[31mb"), "ValueError: a?[31mb"),
        (NotReadyError("not here"), "not here"),
    ],
)
def test_whatever_goes_wrong_is_a_bad_answer(
    monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str
) -> None:
    async def fail(_: Target) -> None:
        raise error

    monkeypatch.setattr(probes, "probe_tcp", fail)
    assert asyncio.run(reason(TcpCheck(), target(1))) == expected


@pytest.mark.parametrize(
    ("check", "module", "name"),
    [
        (HttpCheck(), "aiohttp", "health checks by HTTP need aiohttp"),
        (DnsCheck("health.example"), "dns.message", "health checks by DNS need dnspython"),
    ],
)
def test_a_missing_library_is_named_before_it_matters(
    monkeypatch: pytest.MonkeyPatch, check: Check, module: str, name: str
) -> None:
    require(check, target(1).address)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(NotReadyError, match=name) as caught:
        require(check, target(1).address)
    assert caught.value.hint == "pip install 'xdplb[agent]'"
    assert asyncio.run(reason(check, target(1))) == name


def test_what_needs_nothing_is_always_ready() -> None:
    for check in (None, TcpCheck(), UdpCheck(b""), ExecCheck(("true",))):
        require(check, target(1).address)


def test_text_from_outside_is_one_short_line() -> None:
    assert quoted("  a\tb\n") == "a?b"
    assert quoted("x" * 121) == "x" * 117 + "..."
    assert os_reason(ConnectionRefusedError(errno.ECONNREFUSED, "x")) == "connection refused"
    assert f"{ProbeFailed('why')}" == "why"
