"""IPv6, alone and beside IPv4, with real sockets, servers and kernels."""

from __future__ import annotations

import errno
import hashlib
import json
import socket
from typing import TYPE_CHECKING

import pytest
from lab import SERVICE, SERVICE6, Lab, exchange, run, wait_for
from nginx import start_nginx

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SO_IPV6_MTU_DISCOVER = 23
IPV6_RECVERR = 25
BACKENDS = ("2001:db8::20", "2001:db8::21")
CLIENT = "2001:db8::22"
BOTH = ("--service", SERVICE, "--service", SERVICE6)
SIZES = (0, 1, 511, 512, 1452)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("offload", ["default", "tx off"])
def test_every_payload_is_answered_with_good_checksums(lab: Lab, mode: str, offload: str) -> None:
    if offload == "tx off":
        run(*lab.inside("h", "ethtool", "-K", "outside", "tx", "off"))
    lab.up("--mode", mode, backends=BACKENDS[:1])
    server = lab.socket(BACKENDS[0], 53)
    client = lab.socket(CLIENT)
    peers = {exchange(client, server, bytes(size), 53) for size in SIZES}
    assert len(peers) == 1, "one flow, one NAT port"
    assert peers.pop()[0] == SERVICE6
    assert lab.counter6("Udp6InCsumErrors") == 0
    status = lab.status()
    assert status["verdicts"]["forward"] == status["verdicts"]["return"] == len(SIZES)
    (service,) = status["services"]
    assert (service["address"], service["backends"][0]["flows"]) == (SERVICE6, 1)


def test_both_ip_versions_are_balanced_on_one_interface(lab: Lab) -> None:
    lab.up(*BOTH, backends=("172.11.0.20", BACKENDS[0]))
    servers = lab.socket("172.11.0.20", 53), lab.socket(BACKENDS[0], 53)
    for _ in range(3):
        assert exchange(lab.socket("172.11.0.22"), servers[0], b"four", 53)[0] == SERVICE
        assert exchange(lab.socket(CLIENT), servers[1], b"six", 53)[0] == SERVICE6
    status = lab.status()
    assert [item["address"] for item in status["services"]] == [SERVICE, SERVICE6]
    assert [item["backends"][0]["flows"] for item in status["services"]] == [3, 3]
    assert status["flows"].items() >= {"active": 6, "capacity": 2 * 262144}.items()
    text = lab.xdplb("status").stdout
    assert f"{SERVICE} udp" in text
    assert f"{SERVICE6} udp" in text


def test_a_second_up_adds_an_ip_version_and_keeps_the_flows_of_the_other(lab: Lab) -> None:
    lab.up(backends=("172.11.0.20",))
    server, client = lab.socket("172.11.0.20", 53), lab.socket("172.11.0.22")
    before = exchange(client, server, b"before", 53)
    lab.up(*BOTH, backends=("172.11.0.20", BACKENDS[0]))
    assert exchange(client, server, b"after", 53) == before
    six, client6 = lab.socket(BACKENDS[0], 53), lab.socket(CLIENT)
    before6 = exchange(client6, six, b"six", 53)
    lab.up(backends=(BACKENDS[0],))
    assert exchange(client6, six, b"alone", 53) == before6
    assert [item["address"] for item in lab.status()["services"]] == [SERVICE6]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--backend", "172.11.0.20", "--backend", BACKENDS[0]), "two services"),
        (("--service", SERVICE, "--backend", BACKENDS[0]), "is IPv6"),
        (("--service", SERVICE6, "--backend", "172.11.0.20"), "is IPv4"),
        ((*BOTH, "--backend", "172.11.0.20"), "has no IPv6 backend"),
        (("--backend", "fe80::1"), "link-local"),
        (("--backend", "ff02::1"), "multicast"),
        (("--backend", "::ffff:172.11.0.20"), "no host's address"),
        (("--backend", SERVICE6), "the service itself"),
    ],
)
def test_what_cannot_be_balanced_is_refused(lab: Lab, words: tuple[str, ...], reason: str) -> None:
    done = lab.xdplb("up", "--iface", "balancer", *words, check=False)
    assert done.returncode == 2
    assert reason in done.stderr
    assert "hint:" in done.stderr
    assert "no balancer" in lab.xdplb("status").stdout


def test_an_interface_with_no_address_but_its_own_is_not_ready(lab: Lab) -> None:
    lab.ip("b", f"address del {SERVICE6}/64 dev balancer")
    lab.ip("b", "route add 2001:db8::/64 dev balancer")
    done = lab.xdplb("up", "--iface", "balancer", "--backend", BACKENDS[0], check=False)
    assert done.returncode == 3
    assert "no IPv6 address" in done.stderr


def test_up_waits_while_the_kernel_checks_its_addresses_for_duplicates(lab: Lab) -> None:
    for name in ("all", "balancer"):
        setting = f"net.ipv6.conf.{name}.accept_dad=1"
        run(*lab.inside("b", "sysctl", "-qw", setting))
    lab.ip("b", "link set balancer down")
    lab.ip("b", "link set balancer up")
    lab.ip("b", f"address replace {SERVICE6}/64 dev balancer")
    assert "tentative" in lab.ip("b", "address show dev balancer")
    lab.up(backends=BACKENDS[:1])
    exchange(lab.socket(CLIENT), lab.socket(BACKENDS[0], 53), b"at once", 53)


def test_a_backend_that_comes_late_is_found_by_neighbour_discovery(lab: Lab) -> None:
    late = "2001:db8::77"
    done = lab.xdplb("up", "--iface", "balancer", "--backend", late)
    assert "no answer to neighbour discovery yet" in done.stdout
    lab.ip("h", f"address add {late}/64 dev outside nodad")
    wait_for(lambda: lab.status()["services"][0]["backends"][0]["mac"])
    exchange(lab.socket(CLIENT), lab.socket(late, 53), b"at last", 53)


def test_a_backend_with_another_mac_heals(lab: Lab) -> None:
    for name, value in (("base_reachable_time_ms", 500), ("delay_first_probe_time", 0)):
        setting = f"net.ipv6.neigh.balancer.{name}={value}"
        run(*lab.inside("b", "sysctl", "-qw", setting))
    lab.up(backends=BACKENDS[:1])
    client, server = lab.socket(CLIENT), lab.socket(BACKENDS[0], 53)
    before = exchange(client, server, b"before", 53)
    mac = "02:00:00:00:66:66"
    lab.ip("h", f"link set outside address {mac}")
    wait_for(lambda: lab.status()["services"][0]["backends"][0]["mac"] == mac, timeout=60)
    assert exchange(client, server, b"after", 53) == before


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("reverse", [False, True], ids=["upload", "download"])
def test_iperf3_moves_its_bytes_with_default_offloads(
    lab: Lab, mode: str, *, reverse: bool
) -> None:
    words = ("--protocol", "tcp", "--port", "5201", "--mode", mode)
    lab.up(*words, backends=BACKENDS[:1])
    lab.process("h", "iperf3", "--server", "--one-off", "--bind", BACKENDS[0])
    wait_for(lambda: ":1451 " in run(*lab.inside("h", "cat", "/proc/net/tcp6")).stdout)
    more = ("--client", SERVICE6, "--bind", CLIENT, "--bytes", "150M", "--json")
    done = run(*lab.inside("h", "iperf3", *more, *(("--reverse",) if reverse else ())))
    assert json.loads(done.stdout)["end"]["sum_received"]["bytes"] >= 99 << 20
    assert lab.counter("Tcp", "InCsumErrors") == 0
    verdicts = lab.status()["verdicts"]
    assert not any(count for name, count in verdicts.items() if name.startswith("drop"))


def test_nginx_serves_curl_over_both_ip_versions(lab: Lab, tmp_path: Path) -> None:
    content = hashlib.sha256(b"xdplb").digest() * 100_000
    (tmp_path / "file").write_bytes(content)
    words = ("--protocol", "tcp", "--port", "8080")
    lab.up(*BOTH, *words, backends=("172.11.0.20", BACKENDS[0]))
    start_nginx(lab, "172.11.0.20", 8080, tmp_path)
    start_nginx(lab, f"[{BACKENDS[0]}]", 8080, tmp_path)
    for client, service in (("172.11.0.22", SERVICE), (CLIENT, f"[{SERVICE6}]")):
        copy = tmp_path / "copy"
        options = ("--silent", "--fail", "--interface", client, "--output", f"{copy}")
        run(*lab.inside("h", "curl", *options, f"http://{service}:8080/file"))
        assert copy.read_bytes() == content


def test_dns_is_asked_over_udp_and_tcp(lab: Lab) -> None:
    both = ("--protocol", "udp", "--protocol", "tcp", "--port", "53")
    lab.up(*both, backends=BACKENDS[:1])
    options = ("--no-daemon", "--no-resolv", "--no-hosts", f"--listen-address={BACKENDS[0]}")
    lab.process("h", "dnsmasq", *options, "--bind-interfaces", "--address=/name.test/2001:db8::80")
    wait_for(lambda: ":0035 " in run(*lab.inside("h", "cat", "/proc/net/udp6")).stdout)
    for transport in ("+notcp", "+tcp"):
        words = ("+short", "+tries=1", transport, "-b", CLIENT, f"@{SERVICE6}")
        done = run(*lab.inside("h", "dig", *words, "name.test", "AAAA"))
        assert done.stdout.strip() == "2001:db8::80"


@pytest.mark.parametrize("size", [8000, 60000])
def test_datagrams_larger_than_the_mtu_pass_in_both_directions(lab: Lab, size: int) -> None:
    lab.up(backends=BACKENDS[:1])
    payload = bytes(number % 251 for number in range(size))
    exchange(lab.socket(CLIENT), lab.socket(BACKENDS[0], 53), payload, 53)
    assert lab.counter6("Udp6InCsumErrors") == 0


def test_a_client_hears_that_a_port_is_closed(lab: Lab) -> None:
    lab.up(backends=BACKENDS[:1])
    client = lab.socket(CLIENT)
    client.connect((SERVICE6, 9))
    client.send(b"anybody?")
    with pytest.raises(ConnectionRefusedError):
        client.recv(10)
    assert lab.status()["verdicts"]["return_error"] == 1


def test_a_sender_hears_of_a_narrow_place_behind_the_balancer(lab: Lab) -> None:
    with lab.far_network6(mtu=1300):
        lab.up(backends=("2001:db8:9::2",))
        server = lab.socket("2001:db8:9::2", 53, where="f")
        client = lab.socket(CLIENT)
        client.setsockopt(socket.IPPROTO_IPV6, SO_IPV6_MTU_DISCOVER, 2)
        client.connect((SERVICE6, 53))
        client.send(bytes(1400))
        wait_for(lambda: lab.status()["verdicts"]["return_error"])
        assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.EMSGSIZE
        with pytest.raises(OSError, match="Message too long"):
            client.send(bytes(1400))
        client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        client.send(bytes(1200))
        assert server.recv(2000) == bytes(1200)


def test_a_transfer_finds_the_narrow_place_on_its_way(lab: Lab) -> None:
    with lab.far_network6(mtu=1300):
        lab.up("--protocol", "tcp", "--port", "9000", backends=("2001:db8:9::2",))
        server = lab.socket("2001:db8:9::2", 9000, where="f", kind=socket.SOCK_STREAM)
        server.listen()
        client = lab.socket(CLIENT, kind=socket.SOCK_STREAM)
        client.connect((SERVICE6, 9000))
        connection, _ = server.accept()
        lab.keep(connection)
        client.sendall(bytes(200_000))
        heard = 0
        while heard < 200_000:
            heard += len(connection.recv(1 << 16))
        assert lab.status()["verdicts"]["return_error"] > 0


def test_the_service_answers_ping(lab: Lab) -> None:
    lab.up(backends=BACKENDS)
    run(*lab.inside("h", "ping", "-6", "-c", "1", "-W", "3", SERVICE6))


def test_traceroute_shows_the_balancer_and_then_the_end(lab: Lab) -> None:
    lab.up(backends=BACKENDS[:1])
    client = lab.socket(CLIENT)
    client.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 1)
    client.connect((SERVICE6, 33434))
    client.send(b"hop 1")
    wait_for(lambda: lab.status()["verdicts"]["reply_ttl"] == 1)
    _, ancillary, _, source = client.recvmsg(100, 500, socket.MSG_ERRQUEUE)
    assert source[0] == SERVICE6
    assert ancillary


def test_down_forgets_what_up_asked_the_kernel_for(lab: Lab) -> None:
    before = lab.ip("b", "-6 neighbour show dev balancer nud all")
    lab.up(backends=("2001:db8::77",))
    assert "managed" in lab.ip("b", "-6 neighbour show dev balancer nud all")
    lab.xdplb("down")
    after = lab.ip("b", "-6 neighbour show dev balancer nud all")
    assert "managed" not in after
    assert ("2001:db8::77" in after) == ("2001:db8::77" in before)
