"""Real sockets through a real balancer."""

from __future__ import annotations

import json
import select
import socket
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from lab import SERVICE, XDPLB, Lab, exchange, run, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

SO_NO_CHECK = 11
UDP_SEGMENT = 103
SIZES = (0, 1, 511, 512, 1472)


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as built:
        yield built


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("offload", ["default", "tx off", "no checksum"])
def test_every_payload_is_answered_with_good_checksums(lab: Lab, mode: str, offload: str) -> None:
    if offload == "tx off":
        run(*lab.inside("h", "ethtool", "-K", "outside", "tx", "off"))
    lab.up("--mode", mode, backends=("172.11.0.20",))
    server = lab.socket("172.11.0.20", 53)
    client = lab.socket("172.11.0.22")
    if offload == "no checksum":
        for sock in (server, client):
            sock.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
    peers = {exchange(client, server, bytes(size), 53) for size in SIZES}
    assert len(peers) == 1, "one flow, one NAT port"
    assert peers.pop()[0] == SERVICE
    assert lab.bad_checksums() == 0
    status = lab.status()
    assert status["interfaces"][0]["mode"] == mode
    assert status["verdicts"]["forward"] == status["verdicts"]["return"] == len(SIZES)


def test_a_segmented_super_packet_arrives_whole_in_generic_mode(lab: Lab) -> None:
    lab.up("--mode", "generic", backends=("172.11.0.20",))
    server = lab.socket("172.11.0.20", 53)
    client = lab.socket("172.11.0.22")
    client.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, 1000)
    client.sendto(b"x" * 20000, (SERVICE, 53))
    sizes = [len(server.recvfrom(65535)[0]) for _ in range(20)]
    assert sizes == [1000] * 20
    assert lab.bad_checksums() == 0


@pytest.mark.parametrize("count", [2, 16, 64])
def test_clients_spread_over_all_backends_and_stay(count: int) -> None:
    servers = {f"172.11.0.{20 + number}": 0 for number in range(count)}
    clients = [f"172.11.0.{number}" for number in range(100, 250)]
    with Lab(tuple(range(20, 20 + count)) + tuple(range(100, 250))) as lab:
        lab.up("--port", "53", backends=tuple(servers))
        sockets = {lab.socket(address, 53): address for address in servers}
        chosen: dict[str, set[str]] = {client: set() for client in clients}
        for client in clients:
            sender = lab.socket(client)
            for _ in range(2):
                sender.sendto(b"?", (SERVICE, 53))
                ready, _, _ = select.select(list(sockets), [], [], 3)
                _, peer = ready[0].recvfrom(100)
                ready[0].sendto(b"!", peer)
                assert sender.recvfrom(100) == (b"!", (SERVICE, 53))
                chosen[client].add(sockets[ready[0]])
        assert all(len(backends) == 1 for backends in chosen.values())
        load = Counter(next(iter(backends)) for backends in chosen.values())
        assert len(load) >= min(count, 150) * 0.7
        flows = {item["address"]: item["flows"] for item in lab.status()["services"][0]["backends"]}
        assert {address: flows[address] for address in load} == dict(load)


def test_the_example_comes_true_on_the_wire(lab: Lab) -> None:
    """Client 172.11.0.22:5555, NAT port 6666: four packets, as raw frames show them."""
    lab.up("--client", "172.11.0.22:5555=6666", backends=("172.11.0.20",))
    server = lab.socket("172.11.0.20", 7777)
    client = lab.socket("172.11.0.22", 5555)
    capture = lab.process_output("h", "tcpdump", "-nltqi", "outside", "-c", "4", "udp")
    peer = exchange(client, server, b"hello", 7777)
    assert peer == (SERVICE, 6666)
    seen = [line.split(" UDP")[0].rstrip(":") for line in capture()]
    assert [line.split(": ")[0] for line in seen] == [
        "IP 172.11.0.22.5555 > 172.11.0.1.7777",
        "IP 172.11.0.1.6666 > 172.11.0.20.7777",
        "IP 172.11.0.20.7777 > 172.11.0.1.6666",
        "IP 172.11.0.1.7777 > 172.11.0.22.5555",
    ]


def test_a_backend_port_and_a_service_port_may_differ(lab: Lab) -> None:
    lab.up("--port", "53", backends=("172.11.0.20:5353",))
    exchange(lab.socket("172.11.0.22"), lab.socket("172.11.0.20", 5353), b"q", 53)


def test_two_interfaces_share_one_balancer(lab: Lab) -> None:
    lab.ip("b", "link add second type veth peer name second-peer netns", lab.hosts)
    lab.ip("b", "address add 172.12.0.1/24 dev second")
    lab.ip("b", "link set second up")
    lab.ip("h", "address add 172.12.0.20/24 dev second-peer")
    lab.ip("h", "link set second-peer up")
    lab.up("--iface", "second", backends=("172.12.0.20",))
    exchange(lab.socket("172.11.0.22"), lab.socket("172.12.0.20", 53), b"across", 53)
    assert [item["name"] for item in lab.status()["interfaces"]] == ["balancer", "second"]
    assert lab.bad_checksums() == 0


def test_a_full_table_refuses_new_flows_and_keeps_the_old(lab: Lab) -> None:
    lab.up("--max-flows", "8", "--timeout-unreplied", "1", backends=("172.11.0.20",))
    server = lab.socket("172.11.0.20", 53)
    clients = [lab.socket("172.11.0.22") for _ in range(8)]
    peers = [exchange(client, server, b"q", 53) for client in clients]
    assert len(set(peers)) == 8
    late = lab.socket("172.11.0.23")
    late.sendto(b"late", (SERVICE, 53))
    wait_for(lambda: lab.status()["verdicts"]["drop_no_port"] == 1)
    assert [exchange(client, server, b"again", 53) for client in clients] == peers


def test_unreplied_flows_give_way_after_their_timeout(lab: Lab) -> None:
    lab.up("--max-flows", "8", "--timeout-unreplied", "1", backends=("172.11.0.20",))
    server = lab.socket("172.11.0.20", 53)
    for _ in range(8):
        lab.socket("172.11.0.22").sendto(b"no answer", (SERVICE, 53))
        server.recvfrom(100)
    wait_for(lambda: lab.status()["flows"]["active"] == 0)
    exchange(lab.socket("172.11.0.23"), server, b"new", 53)


class TestHost:
    """The balancer's own host goes on working while all ports are balanced."""

    @pytest.mark.parametrize("resolver", ["172.11.0.24", "172.11.0.20"])
    def test_its_own_questions_are_answered(self, lab: Lab, resolver: str) -> None:
        lab.up()
        server = lab.socket(resolver, 53)
        own = lab.socket("0.0.0.0", where="b")
        own.connect((resolver, 53))
        own.send(b"question")
        question, peer = server.recvfrom(100)
        server.sendto(b"answer", peer)
        assert own.recv(100) == b"answer"
        assert question == b"question"
        assert lab.status()["verdicts"]["pass_socket"] == 1

    def test_ping_and_tcp_reach_it(self, lab: Lab) -> None:
        lab.up()
        run(*lab.inside("h", "ping", "-c1", "-W2", SERVICE))
        lab.process("b", "socat", "-u", "TCP-LISTEN:8080,fork", "OPEN:/dev/null")
        wait_for(
            lambda: (
                run(
                    *lab.inside("h", "socat", "-u", "/dev/null", f"TCP:{SERVICE}:8080"),
                    check=False,
                ).returncode
                == 0
            )
        )


class TestNeighbours:
    """Backends that come late or change their MAC address heal by themselves."""

    def test_a_late_backend_is_shown_counted_and_found(self) -> None:
        with Lab((22,)) as lab:
            lab.up(backends=("172.11.0.20",))
            (backend,) = lab.status()["services"][0]["backends"]
            assert backend["mac"] is None
            client = lab.socket("172.11.0.22")
            client.sendto(b"early", (SERVICE, 53))
            wait_for(lambda: lab.status()["verdicts"]["drop_unresolved"] == 1)
            lab.add_host(20)
            wait_for(lambda: lab.status()["services"][0]["backends"][0]["mac"] is not None, 40)
            exchange(client, lab.socket("172.11.0.20", 53), b"late", 53)

    def test_a_new_mac_address_is_followed(self, lab: Lab) -> None:
        lab.up(backends=("172.11.0.20",))
        lab.ip("h", "link set outside address 02:00:00:00:77:01")
        run(*lab.inside("h", "arping", "-U", "-c1", "-I", "outside", "172.11.0.20"))
        wait_for(lambda: lab.status()["services"][0]["backends"][0]["mac"] == "02:00:00:00:77:01")
        exchange(lab.socket("172.11.0.22"), lab.socket("172.11.0.20", 53), b"moved", 53)


def test_dns_is_answered_thousands_of_times_and_never_by_another(lab: Lab) -> None:
    lab.up("--port", "53")
    for server in ("172.11.0.20", "172.11.0.21"):
        lab.process(
            "h", "dnsmasq", "--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
            "--bind-interfaces", f"--listen-address={server}", "--user=root", "--cache-size=0",
            f"--address=/who.example/{server}", "--address=/name.example/192.0.2.1",
        )  # fmt: skip
    dig = ("dig", "+short", "+tries=1", "+time=2", f"@{SERVICE}")
    for client in ("172.11.0.22", "172.11.0.23", "172.11.0.24", "172.11.0.25"):
        wait_for(
            lambda client=client: (  # type: ignore[misc]
                run(*lab.inside("h", *dig, "-b", client, "who.example"), check=False).stdout.strip()
                in {"172.11.0.20", "172.11.0.21"}
            )
        )
        questions = ["name.example"] * 700
        done = run(*lab.inside("h", *dig, "-b", client, *questions))
        assert done.stdout.split() == ["192.0.2.1"] * 700
    verdicts = lab.status()["verdicts"]
    assert verdicts["forward"] == verdicts["return"] >= 2800
    assert lab.bad_checksums() == 0


def test_the_json_of_status_is_as_promised(lab: Lab) -> None:
    lab.up()
    document = json.loads(
        run(str(XDPLB), "--netns", f"/run/netns/{lab.balancer}", "status", "--json").stdout
    )
    assert document["version"] == 1
    (balancer,) = document["balancers"]
    assert balancer["nat_ports"].items() >= {"used": 0, "total": 72560}.items()
    assert balancer["flows"].items() >= {"active": 0, "capacity": 262144}.items()
    assert balancer["services"][0]["ports"] == "all"


@pytest.mark.parametrize("mode", ["native", "generic"])
@pytest.mark.parametrize("size", [8000, 60000])
def test_a_datagram_larger_than_the_mtu_is_answered(lab: Lab, mode: str, size: int) -> None:
    lab.up("--mode", mode, backends=("172.11.0.20",))
    server = lab.socket("172.11.0.20", 53)
    client = lab.socket("172.11.0.22")
    for sock in (server, client):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    payload = bytes(number % 253 for number in range(size))
    for _ in range(3):
        exchange(client, server, payload, 53)
    assert lab.bad_checksums() == 0
    assert lab.counter("Ip", "ReasmFails") == 0
    verdicts = lab.status()["verdicts"]
    assert verdicts["forward"] == verdicts["return"] >= 3 * (size // 1500)
    assert verdicts["pass_fragment"] == verdicts["drop_fragment"] == 0
