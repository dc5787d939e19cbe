"""The configuration file as a request, and all that can be wrong with one."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from config_texts import BACKEND, BAD, BALANCER, GOOD, HEALTH, LEAST, write

from xdplb.checks import DnsCheck, ExecCheck, Health, HttpCheck, UdpCheck
from xdplb.config import load, load_listen, problems
from xdplb.config.files import EXAMPLE
from xdplb.errors import InvalidValueError
from xdplb.listen import Listen
from xdplb.model import Backend, BackendState, Endpoint, PortRange, Protocol, Reservation
from xdplb.request import Request, Service

if TYPE_CHECKING:
    from xdplb.checks import Check

TEN, TEN6 = ip_address("192.0.2.10"), ip_address("2001:db8::10")


def test_what_a_file_does_not_say_is_the_default(tmp_path: Path) -> None:
    assert load(write(tmp_path, LEAST)) == Request(("eth0",), (Service((Backend(TEN),)),))


@pytest.mark.parametrize("text", GOOD)
def test_a_good_file_has_no_problem(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    assert problems(path) == []
    assert load(path).interfaces == ("eth0",)


def test_a_service_is_made_for_each_address_and_protocol(tmp_path: Path) -> None:
    text = """
    [[service]]
    name = "dns"
    address = ["2001:db8::1", "192.0.2.1"]
    protocol = ["tcp", "udp"]
    ports = [53, "8000-8010"]
    nat-addresses = ["192.0.2.2", "2001:db8::2"]
    clients = ["[2001:db8::7]:5555=6666", "198.51.100.7:5555=6666"]
    backend = [{ address = "192.0.2.10", weight = 3 }, { address = "2001:db8::10", port = 5353 }]
    """
    six, four = ip_address("2001:db8::1"), ip_address("192.0.2.1")
    made = load(write(tmp_path, BALANCER + text)).services
    assert [(item.address, item.protocol) for item in made] == [
        (six, Protocol.TCP),
        (six, Protocol.UDP),
        (four, Protocol.TCP),
        (four, Protocol.UDP),
    ]
    assert made[3] == Service(
        backends=(Backend(TEN, weight=3),),
        address=four,
        ports=(PortRange(53, 53), PortRange(8000, 8010)),
        name="dns",
        nat_addresses=(ip_address("192.0.2.2"),),
        reservations=(Reservation(Endpoint(ip_address("198.51.100.7"), 5555), 6666),),
    )
    assert made[0].backends == (Backend(TEN6, 5353),)
    assert made[0].nat_addresses == (ip_address("2001:db8::2"),)


def test_without_an_address_each_version_of_the_backends_makes_a_service(tmp_path: Path) -> None:
    backends = 'backend = [{ address = "2001:db8::10" }, { address = "192.0.2.10" }]\n'
    made = load(write(tmp_path, f"{BALANCER}[[service]]\n{backends}")).services
    assert made == (Service((Backend(TEN6),)), Service((Backend(TEN),)))


def test_a_backend_may_be_asked_to_drain(tmp_path: Path) -> None:
    text = LEAST.replace('.10" }', '.10", state = "drain" }')
    assert load(write(tmp_path, text)).backends[0].state is BackendState.DRAIN


@pytest.mark.parametrize(
    ("text", "check"),
    [
        ("", None),
        ('check = "http"', HttpCheck()),
        ('check = "https"\nhost = "www.example.org"', HttpCheck(tls=True, host="www.example.org")),
        ('check = "http"\nstatus = 200', HttpCheck(status="200")),
        ('check = "udp"\nsend = "PING\\r\\n"', UdpCheck(b"PING\r\n")),
        ('check = "udp"\nsend = "0x00 ff"', UdpCheck(b"\x00\xff")),
        ("check = \"udp\"\nsend = '\\0x00'", UdpCheck(b"0x00")),
        ("check = \"udp\"\nsend = '\\\\0x00'", UdpCheck(b"\\0x00")),
        ('check = "udp"\nsend = "a"\nexpect = "ä"', UdpCheck(b"a", "ä".encode())),
        ('check = "dns"\nquery = "example.org"', DnsCheck("example.org")),
        ('check = "exec"\ncommand = ["/bin/true"]', ExecCheck(("/bin/true",))),
    ],
)
def test_health_has_the_check_that_it_names(tmp_path: Path, text: str, check: Check | None) -> None:
    assert load(write(tmp_path, HEALTH + text)).services[0].health == Health(check)


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("", None),
        ("[agent]", None),
        ('[agent]\nlisten = "[::1]:9170"', Listen(Endpoint(ip_address("::1"), 9170))),
        ('[agent]\nlisten = "/run/agent.sock"', Listen(Path("/run/agent.sock"))),
        (
            '[agent]\nlisten = "192.0.2.1:80"\nallow-remote = true',
            Listen(Endpoint(ip_address("192.0.2.1"), 80), allow_remote=True),
        ),
    ],
)
def test_a_file_may_say_where_the_agent_is_spoken_to(
    tmp_path: Path, text: str, listen: Listen | None
) -> None:
    path = write(tmp_path, LEAST + text)
    assert load_listen(path) == listen
    assert load(path) == load(write(tmp_path, LEAST))  # and the balancer is the same


@pytest.mark.parametrize(("text", "key", "reason", "hint"), BAD)
def test_a_mistake_is_told_with_file_key_reason_and_hint(
    tmp_path: Path, text: str, key: str, reason: str, hint: str
) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InvalidValueError) as caught:
        load(path)
    assert f"{caught.value}".startswith(f"{path}: {key}: ")
    assert reason in f"{caught.value}"
    assert hint in caught.value.hint
    assert f"{problems(path)[0]}" == f"{caught.value}"


@pytest.mark.parametrize("text", [text for text, *_ in BAD])
def test_no_mistake_is_told_twice(tmp_path: Path, text: str) -> None:
    found = [f"{error}" for error in problems(write(tmp_path, text))]
    assert len(found) == len(set(found))


def test_mistakes_do_not_hide_each_other(tmp_path: Path) -> None:
    text = f"""
    [balancer]
    interfaces = ["eth0"]
    max-flows = 0
    [[service]]
    name = "dns"
    adress = "192.0.2.1"
    ports = [0, "9-3"]
    {BACKEND}
    [service.health]
    check = "dns"
    path = "/"
    [[service]]
    protocol = "tcp"
    {BACKEND}
    [[service]]
    name = "one"
    {BACKEND}
    [[service]]
    name = "two"
    {BACKEND}
    """
    path = write(tmp_path, text)
    assert [f"{error}".removeprefix(f"{path}: ").split(": ")[0] for error in problems(path)] == [
        "balancer.max-flows",
        "service[0].adress (dns)",
        "service[0].ports[0] (dns)",
        "service[0].ports[1] (dns)",
        "service[0].health.path (dns)",
        "service[0].health.query (dns)",
        "service[1]",
        "service[3] (two)",
    ]


def test_a_name_that_cannot_be_printed_is_not_in_a_message(tmp_path: Path) -> None:
    path = write(tmp_path, LEAST + 'name = "a\\u001b[2J"\none-way = 5\n')
    name, one_way = problems(path)
    assert f"{name}".startswith(f"{path}: service[0].name: 'a\\x1b[2J' has ")
    assert f"{one_way}".startswith(f"{path}: service[0].one-way: ")


def test_the_example_is_good_and_has_every_key() -> None:
    assert problems(EXAMPLE) == []
    made = load(EXAMPLE).services
    assert [f"{item}" for item in made if item.name == "dns"] == ["dns udp", "dns tcp"] * 2
    assert {type(item.health.check) for item in made if item.health} == {
        DnsCheck,
        HttpCheck,
        UdpCheck,
        ExecCheck,
    }
