"""The C structures and their Python twins are the same bytes; the program stays in bounds."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from bpf_harness import Loaded, joined, make_request, reservation, verified
from lab import run, wait_for
from packets import CLIENT, CLIENT6, icmp_error, tcp, udp

from xdplb import source, wire
from xdplb.flags import flags
from xdplb.kernel import clock, libbpf
from xdplb.model import Hash, Mode, PortRange, Protocol
from xdplb.plan import BUCKET_STEPS, LOCAL_STRIDE, MAX_NEIGHBOURS, Port
from xdplb.selection import MAGLEV_SIZE
from xdplb.wire import BackendCode, FlowCode

if TYPE_CHECKING:
    from collections.abc import Callable

FIELDS = """
import ctypes, json, os, sys
os.environ["BCC_KERNEL_SOURCE"] = sys.argv[1]
from bcc import BPF

def fields(kind):
    if not hasattr(kind, "_fields_"):
        return []
    return [[f[0], getattr(kind, f[0]).offset, getattr(kind, f[0]).size] for f in kind._fields_]

module = BPF(text=sys.stdin.read())
names = sys.argv[2].split(",")
json.dump({name: {"key": [ctypes.sizeof(module[name].Key), fields(module[name].Key)],
                  "leaf": [ctypes.sizeof(module[name].Leaf), fields(module[name].Leaf)]}
           for name in names}, sys.stdout)
"""

RECORDS: dict[tuple[str, str], tuple[bytes, dict[str, bytes]]] = {
    ("backends", "leaf"): (
        wire.BackendRecord(
            mac=bytes.fromhex("010203040506"),
            address=IPv4Address("7.8.9.10"),
            port=0x0B0C,
            state=BackendCode.DOWN,
            generation=0x0D,
            slot_first=0x11121314,
            slot_count=0x21222324,
            interface=0x41,
            weight=0x5152,
            next_hop=IPv4Address("97.98.99.100"),
            next_neighbour=0x6162,
            mac_is_fixed=True,
            service=0x43,
            local=0x44,
            tag=wire.vlan_tag(0x8100, 0x0A0B),
        ).pack(),
        {
            "mac": bytes.fromhex("0102030405060000"),
            "address": bytes((7, 8, 9, 10)),
            "port": b"\x0b\x0c",
            "state": b"\x03",
            "generation": b"\x0d",
            "slot_first": (0x11121314).to_bytes(4, sys.byteorder),
            "slot_count": (0x21222324).to_bytes(4, sys.byteorder),
            "interface": b"\x41",
            "weight": (0x5152).to_bytes(2, sys.byteorder),
            "next_hop": bytes((97, 98, 99, 100)),
            "next_neighbour": (0x6162).to_bytes(2, sys.byteorder),
            "mac_is_fixed": b"\x01",
            "service": b"\x43",
            "local": b"\x44",
            "tag": bytes.fromhex("81000a0b"),
            "reserved": bytes(24),
        },
    ),
    ("client_port", "key"): (
        wire.ClientKey(
            IPv4Address("1.2.3.4"), 0x0506, IPv4Address("7.8.9.10"), 0x0B0C, 0x0E
        ).pack(),
        {
            "client": bytes((1, 2, 3, 4)),
            "service": bytes((7, 8, 9, 10)),
            "client_port": b"\x05\x06",
            "service_port": b"\x0b\x0c",
            "protocol": b"\x11",
            "number": b"\x0e",
            "reserved": bytes(2),
        },
    ),
    ("client_port", "leaf"): (
        wire.ClientValue(0x0102, 0x0304).pack(),
        {
            "nat_port": b"\x01\x02",
            "backend": (0x0304).to_bytes(2, sys.byteorder),
            "reserved": bytes(4),
        },
    ),
    ("reverse_lookup", "leaf"): (
        wire.FlowRecord(
            wire.Owner(0x01020304, 0x0506, FlowCode.ANSWERED, 0x08),
            IPv4Address("9.10.11.12"),
            0x0D0E,
            0x0F10,
            bytes.fromhex("111213141516"),
            0x17,
            bytes(range(8)),
            0x18,
        ).pack(),
        {
            "owner": (0x08_03_0506_01020304).to_bytes(8, sys.byteorder),
            "client": bytes((9, 10, 11, 12)),
            "client_port": b"\x0d\x0e",
            "service_port": b"\x0f\x10",
            "client_mac": bytes.fromhex("111213141516"),
            "interface": b"\x17",
            "service": b"\x18",
            "tags": bytes(range(8)),
            "reserved": b"",
        },
    ),
    ("backend_ports", "leaf"): (
        wire.AddressBucket(
            (
                wire.BucketEntry(
                    IPv4Address("1.2.3.4"), Protocol.UDP, 0x21, 0x05060708, 0x090A0B0C
                ),
                wire.BucketEntry(
                    IPv4Address("17.18.19.20"), Protocol.TCP, 0x22, 0x15161718, 0x191A1B1C
                ),
            ),
            continues=True,
        ).pack(),
        {
            "address": bytes((1, 2, 3, 4, 17, 18, 19, 20)) + bytes(8),
            "slots": b"".join(
                number.to_bytes(4, sys.byteorder)
                for number in (0x05060708, 0x090A0B0C, 0x15161718, 0x191A1B1C)
            )
            + bytes(16),
            "protocol": b"\x11\x06\0\0",
            "local": b"\x21\x22\0\0",
            "continues": (1).to_bytes(4, sys.byteorder),
            "reserved": bytes(4),
        },
    ),
    ("services", "leaf"): (
        wire.ServiceRecord(0x01020304, 5, 6, (0x11121314, 0x21222324, 3, 4)).pack(),
        {
            "table": (0x01020304).to_bytes(4, sys.byteorder),
            "local": b"\x05",
            "hash": b"\x06",
            "timeouts": b"".join(
                ticks.to_bytes(4, sys.byteorder) for ticks in (0x11121314, 0x21222324, 3, 4)
            ),
            "reserved": bytes(2),
        },
    ),
    ("interfaces", "leaf"): (
        wire.InterfaceRecord(
            bytes.fromhex("010203040506"), 0x0708090A, redirect=True, mtu=0x11121314
        ).pack(),
        {
            "mac": bytes.fromhex("0102030405060000"),
            "ifindex": (0x0708090A).to_bytes(4, sys.byteorder),
            "redirect": (1).to_bytes(4, sys.byteorder),
            "mtu": (0x11121314).to_bytes(4, sys.byteorder),
            "reserved": bytes(4),
        },
    ),
}


SIX = (IPv6Address(bytes(range(16))), IPv6Address(bytes(range(16, 32))))
RECORDS6: dict[tuple[str, str], tuple[bytes, dict[str, bytes]]] = {
    ("backends", "leaf"): (
        wire.BackendRecord(
            mac=bytes.fromhex("010203040506"),
            address=SIX[0],
            port=0x0B0C,
            state=BackendCode.DOWN,
            generation=0x0D,
            slot_first=0x11121314,
            slot_count=0x21222324,
            interface=0x41,
            weight=0x5152,
            next_hop=SIX[1],
            next_neighbour=0x6162,
            mac_is_fixed=True,
            service=0x43,
            local=0x44,
            tag=wire.vlan_tag(0x8100, 0x0A0B),
        ).pack(),
        {
            **RECORDS["backends", "leaf"][1],
            "address": SIX[0].packed,
            "next_hop": SIX[1].packed,
            "reserved": b"",
        },
    ),
    ("client_port", "key"): (
        wire.ClientKey(SIX[0], 0x0506, SIX[1], 0x0B0C, 0x0E).pack(),
        {
            **RECORDS["client_port", "key"][1],
            "client": SIX[0].packed,
            "service": SIX[1].packed,
        },
    ),
    ("reverse_lookup", "leaf"): (
        wire.FlowRecord(
            wire.Owner(0x01020304, 0x0506, FlowCode.ANSWERED, 0x08),
            SIX[0],
            0x0D0E,
            0x0F10,
            bytes.fromhex("111213141516"),
            0x17,
            bytes(range(8)),
            0x18,
        ).pack(),
        {
            **RECORDS["reverse_lookup", "leaf"][1],
            "client": SIX[0].packed,
            "reserved": bytes(20),
        },
    ),
    ("backend_ports", "leaf"): (
        wire.AddressBucket(
            (
                wire.BucketEntry(SIX[0], Protocol.UDP, 0x21, 0x05060708, 0x090A0B0C),
                wire.BucketEntry(SIX[1], Protocol.TCP, 0x22, 0x15161718, 0x191A1B1C),
            ),
            continues=True,
            version=6,
        ).pack(),
        {
            **RECORDS["backend_ports", "leaf"][1],
            "address": SIX[0].packed + SIX[1].packed + bytes(32),
            "reserved": bytes(20),
        },
    ),
}


@pytest.fixture(scope="module")
def compiled() -> dict[int, dict[str, dict[str, Any]]]:
    """Sizes and fields as BCC reads them from the C text, for each IP version."""
    found = {}
    for version, records in ((4, RECORDS), (6, RECORDS6)):
        names = ",".join(sorted({name for name, _ in records}))
        done = subprocess.run(
            [sys.executable, "-c", FIELDS, f"{source.headers()}", names],
            input=source.text(version),
            capture_output=True,
            text=True,
            check=True,
        )
        found[version] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    ("version", "which"),
    [*((4, which) for which in RECORDS), *((6, which) for which in RECORDS6)],
    ids=lambda item: ".".join(item) if isinstance(item, tuple) else f"ipv{item}",
)
def test_a_record_is_the_same_in_c_and_in_python(
    compiled: dict[int, dict[str, dict[str, Any]]], version: int, which: tuple[str, str]
) -> None:
    packed, expected = (RECORDS if version == 4 else RECORDS6)[which]
    size, fields = compiled[version][which[0]][which[1]]
    assert len(packed) == size
    assert {name: packed[at : at + length] for name, at, length in fields} == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BUCKET_STEPS", BUCKET_STEPS),
        ("LOCAL_STRIDE", LOCAL_STRIDE),
        ("MAX_NEIGHBOURS", MAX_NEIGHBOURS),
        ("MAGLEV_SIZE", MAGLEV_SIZE),
    ],
)
def test_a_constant_is_the_same_in_c_and_in_python(name: str, value: int) -> None:
    text = (source.directory() / "config.h").read_text()
    assert f"#define {name} {value}\n" in text


def test_tools_know_the_fields_of_a_record() -> None:
    with Loaded() as balancer:
        number = libbpf.map_info(balancer.maps["backends"]).id
        key = ("key", "0", "0", "0", "0")
        shown = json.loads(run("bpftool", "-j", "map", "lookup", "id", f"{number}", *key).stdout)
    assert {"address", "mac", "slot_first"} < shown["formatted"]["value"].keys()


def test_a_tick_is_as_long_as_it_says() -> None:
    ticks, started = clock.ticks(), time.monotonic()
    wait_for(lambda: clock.ticks() - ticks >= 8)
    assert abs((time.monotonic() - started) * wire.TICKS_PER_S - 8) < 3


def test_the_clock_is_the_programs_own() -> None:
    with Loaded() as balancer:
        before = clock.ticks()
        seen = balancer.flow(balancer.open()).owner.seen
        assert before <= seen <= clock.ticks()


REACHED: dict[str, Callable[[Loaded], bytes]] = {
    "forward": lambda _: udp(),
    "return": lambda balancer: balancer.answer(balancer.open()),
    "forward_error": lambda balancer: icmp_error(
        balancer.run(balancer.answer(balancer.open())).packet
    ),
    "return_error": lambda balancer: icmp_error(balancer.run(udp()).packet),
    "reply_ttl": lambda _: udp(ip={"ttl": 1}),
    "pass_not_ours": lambda _: udp(dst="172.11.0.9"),
    "pass_no_flow": lambda _: tcp("A"),
    "pass_fragment": lambda _: udp(ip={"frag": 5}),
    "drop_malformed": lambda _: udp(header={"len": 7}),
    "drop_fragment": lambda _: udp(ip={"flags": "MF"}),
    "drop_checksum": lambda balancer: icmp_error(balancer.run(udp()).packet, chksum=1),
    "drop_ttl": lambda _: udp(src="127.0.0.1", ip={"ttl": 1}),
    "drop_martian": lambda _: udp(src="127.0.0.1"),
    "drop_no_backend": lambda balancer: _with_backend(balancer, state=BackendCode.DOWN),
    "drop_unresolved": lambda balancer: _with_backend(balancer, mac=None),
    "drop_no_port": lambda balancer: _with_backend(balancer, slot_count=0),
}
ELSEWHERE = {
    "pass_socket": "test_pass.py",
    "drop_table_full": "test_flow_table.py",
    "drop_client_limit": "test_client_limit.py",
    "reply_too_big": "test_mtu.py",
    "drop_too_big": "test_mtu.py",
}


def _with_backend(balancer: Loaded, **fields: object) -> bytes:
    for number in (0, 1):
        balancer.change_backend(number, **fields)
    return udp()


@pytest.mark.parametrize("verdict", REACHED)
def test_the_verdict_is_reached(verdict: str) -> None:
    with Loaded(make_request(protocols=tuple(Protocol), ports=(PortRange(53, 53),))) as balancer:
        packet = REACHED[verdict](balancer)
        assert balancer.run(packet).verdict == verdict


def test_every_verdict_has_a_test() -> None:
    assert {*REACHED, *ELSEWHERE} == set(source.verdicts())
    for verdict, name in ELSEWHERE.items():
        assert f'"{verdict}"' in (Path(__file__).parent / name).read_text()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mode": Mode.GENERIC},
        {"hash": Hash.FIVE_TUPLE},
        {"reservations": (reservation(CLIENT, 5555, 6666),)},
        {"mode": Mode.GENERIC, "reservations": (reservation(CLIENT, 5555, 6666),)},
        {"protocols": (Protocol.TCP,), "ports": (PortRange(53, 53),)},
        {
            "protocols": tuple(Protocol),
            "ports": (PortRange(53, 53),),
            "mode": Mode.GENERIC,
            "reservations": (reservation(CLIENT, 5555, 6666),),
        },
        {
            "protocols": tuple(Protocol),
            "ports": (PortRange(53, 53),),
            "mode": Mode.GENERIC,
            "reservations": (reservation(CLIENT, 5555, 6666),),
            "max_client_flows": 100,
        },
    ],
    ids=[
        *("default", "generic", "5-tuple", "reservation", "generic and reservation", "tcp"),
        *("all", "all and a low limit"),
    ],
)
@pytest.mark.parametrize("version", [4, 6])
def test_the_verifier_has_room_to_spare(options: dict[str, Any], version: int) -> None:
    """It gives up at a million instructions for both IP versions together."""
    mine = {4: ("172.11.0.20", CLIENT), 6: ("2001:db8::20", CLIENT6)}[version]
    if "reservations" in options:
        options = {**options, "reservations": (reservation(mine[1], 5555, 6666),)}
    interfaces = (
        Port("one", 1, bytes(6), options.get("mode", Mode.NATIVE), redirect=True),
        Port("two", 2, bytes(6), options.get("mode", Mode.NATIVE), redirect=True),
    )
    request = make_request(mine[0], **options)
    with Loaded(request, shares_ports=True, ports=interfaces) as balancer:
        assert verified(balancer.fd) < 500_000


def test_the_compiler_shows_its_llvm() -> None:
    """By which it is told what suits it: see ``toolchain.flags``."""
    text = "import bcc; from xdplb.kernel.toolchain import llvm; print(llvm())"
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert 10 < int(done.stdout) < 100


def deepest(code: bytes) -> int:
    """How many bytes of stack the loads and stores of a program reach down to."""
    frame, memory = 10, {1: 4, 2: 0, 3: 0}  # class of the instruction: place of the base register
    lowest = 0
    for at in range(0, len(code), 8):
        opcode, registers, offset, _ = struct.unpack_from("=BBhi", code, at)
        shift = memory.get(opcode & 7)
        if shift is not None and registers >> shift & 15 == frame:
            lowest = min(lowest, offset)
    return -lowest


def test_the_usual_program_needs_little_stack() -> None:
    """From 256 bytes on, every packet takes about 4 ns longer (measured on 6.18).

    Later compilers than Debian 12's need 8 or 16 bytes more.
    """
    with Loaded() as balancer:
        most = 256 if balancer.code.compiler.startswith("0.26.") else 272
        assert 100 < deepest(balancer.code.instructions) < most


def test_both_ip_versions_with_everything_on_are_one_program() -> None:
    options: dict[str, Any] = {"protocols": tuple(Protocol), "ports": (PortRange(53, 53),)}
    mode = Mode.GENERIC
    interfaces = tuple(Port(f"if{n}", n, bytes(6), mode, redirect=True) for n in range(1, 9))
    reserved = (reservation(CLIENT, 5555, 6666), reservation(CLIENT6, 5555, 6666))
    more: dict[str, Any] = {"shares_ports": True, "ports": interfaces}
    with (
        Loaded(make_request("172.11.0.20", reservations=reserved[:1], **options), **more) as four,
        Loaded(make_request("2001:db8::20", reservations=reserved[1:], **options), **more) as six,
    ):
        fd = joined(four, six)
        assert verified(fd) < 900_000
        os.close(fd)


def test_flags_are_numbers_only() -> None:
    with Loaded(make_request("172.11.0.20", reservations=())) as balancer:
        for flag in flags(balancer.plan, shares_ports=True):
            value = flag.split("=", 1)[1]
            allowed = set("0123456789ULRANGE(), ")
            assert set(value) <= allowed, flag
