"""What ``doctor`` thinks of the machine: each check can fail."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from fake_examiner import FakeExaminer, one

from xdplb.doctor import Result
from xdplb.doctor.evidence import (
    Bcc,
    Chain,
    Leftover,
    Trial,
)

WARN, FAIL = Result.WARN, Result.FAIL
SERVICE = ip_address("192.0.2.1")
BACKEND = ip_address("192.0.2.10")
ENDS = ("192.0.2.10",)


@pytest.mark.parametrize(
    ("answer", "name", "result", "says"),
    [
        ({"lacking": "no privilege to use BPF"}, "privileges", FAIL, "no privilege"),
        ({"too_old": "compare-and-swap"}, "kernel", FAIL, "too old: it has no compare-and-swap"),
        ({"kernel": "5.15.0-23"}, "kernel", WARN, "does not keep next hops fresh"),
        ({"bcc": Bcc(problem="the module bcc is another package")}, "bcc", FAIL, "another"),
        ({"bcc": Bcc("0.18.0", "/bcc")}, "bcc", WARN, "BCC 0.18.0 is old: xdplb is tested with"),
        ({"bcc": Bcc("1.2.0", "/bcc")}, "bcc", WARN, "BCC 1.2.0 is new: xdplb is tested with"),
        ({"bcc": Bcc("", "/bcc")}, "bcc", WARN, "does not say which version it is"),
        ({"libbpf": ("bpf_xdp_attach",)}, "libbpf", FAIL, "no bpf_xdp_attach"),
        ({"libbpf": ("a", "b", "c", "d", "e")}, "libbpf", FAIL, "no a, b, c and 2 more"),
        ({"trial": Trial(problem="EPERM\nline")}, "program", FAIL, "EPERM\nline"),
        ({"trial": Trial(problem="EPERM")}, "jit", WARN, "not known"),
        ({"trial": Trial(is_compiled=False)}, "jit", WARN, "interprets"),
        ({"lockdown": "confidentiality"}, "lockdown", WARN, "locked down"),
        ({"kernel": "5.10.0", "memlock": 65536}, "memlock", FAIL, "lock 64 KiB"),
        ({"chains": (Chain("inet", "t", "in"),)}, "firewall", WARN, "inet t in"),
        ({"leftovers": (Leftover(2, "eth0", BACKEND),)}, "leftovers", WARN, "keeps asking for"),
    ],
)
def test_what_is_wrong_with_the_machine_is_found(
    answer: dict[str, Any], name: str, result: Result, says: str
) -> None:
    examiner = FakeExaminer()
    examiner.said |= answer
    item = one(examiner, name)
    assert item.result is result
    assert says in item.opinion.reason


@pytest.mark.parametrize(
    ("setting", "value", "name"),
    [
        ("net/core/bpf_jit_harden", "2", "jit-hardening"),
        ("net/core/bpf_jit_harden", None, "jit-hardening"),
        ("kernel/bpf_stats_enabled", "1", "statistics"),
        ("kernel/unprivileged_bpf_disabled", "0", "unprivileged-bpf"),
    ],
)
def test_what_is_wrong_with_the_settings_is_found(
    setting: str, value: str | None, name: str
) -> None:
    examiner = FakeExaminer()
    examiner.settings |= {setting: value}  # type: ignore[dict-item]
    assert one(examiner, name).result is WARN


def test_a_limit_on_locked_memory_says_nothing_about_maps_of_newer_kernels() -> None:
    examiner = FakeExaminer()
    examiner.said["memlock"] = 0
    assert one(examiner, "memlock").result is Result.PASS
