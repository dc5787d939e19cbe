"""The secret that balancers share: which files are one, and what comes of it."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from config_texts import BALANCER, SERVICE, write
from fake_machine import FakeMachine, request

from xdplb import applying
from xdplb.agent import reconciling
from xdplb.api import Balancer as Api
from xdplb.balancer import Balancer
from xdplb.cli import commands
from xdplb.config import dump
from xdplb.errors import InvalidValueError, NotReadyError
from xdplb.request import Request
from xdplb.secret import LONGEST, SHORTEST, hash_keys
from xdplb.state import State

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

STRANGER = 12345
TEXT = b"0123456789abcdef"


class NoCompiler:
    """Stands in for ``xdplb.kernel.compiler.Compiler``: starts no process."""

    def __init__(self, headers: Path) -> None:
        assert headers.is_dir()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    return made(tmp_path / "secret", TEXT)


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return made(tmp_path / "other", TEXT[::-1])


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> FakeMachine:
    found = FakeMachine()
    monkeypatch.setattr("xdplb.kernel.compiler.Compiler", NoCompiler)
    monkeypatch.setattr("xdplb.kernel.machine.Machine", lambda *_: found)
    monkeypatch.setattr("xdplb.api.Machine", lambda: found)
    return found


def made(path: Path, text: bytes) -> Path:
    path.write_bytes(text)
    path.chmod(0o600)
    return path


def up(machine: FakeMachine, **options: Any) -> State:
    """Start or change a balancer; what it knows of itself then."""
    Balancer(machine).up(request(**options))
    machine.run_on()
    return machine.loaded[-1][1]


def run(*words: str) -> Result:
    return CliRunner().invoke(commands, words)


# The file


def test_the_keys_are_the_same_on_every_machine_and_with_every_version(secret: Path) -> None:
    assert hash_keys(secret) == (0x128C0F62E20AF01F, 0xF06AAF64325882F8)


def test_every_byte_of_the_file_counts(tmp_path: Path) -> None:
    texts = (
        TEXT,
        TEXT + b"\n",
        TEXT + b"\0",
        b"\0" + TEXT,
        TEXT.upper(),
        bytes(16),
        bytes(LONGEST),
    )
    assert len({hash_keys(made(tmp_path / "secret", text)) for text in texts}) == len(texts)


@pytest.mark.parametrize("size", [0, SHORTEST - 1])
def test_what_is_too_short_is_no_secret(tmp_path: Path, size: int) -> None:
    path = made(tmp_path / "secret", bytes(size))
    with pytest.raises(InvalidValueError, match=f"{size} bytes are too few") as caught:
        hash_keys(path)
    assert f"openssl rand -out {path} -hex 32" in caught.value.hint
    assert hash_keys(made(path, bytes(SHORTEST)))


def test_what_is_far_too_long_is_another_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="4096 bytes or fewer"):
        hash_keys(made(tmp_path / "secret", bytes(LONGEST + 1)))


def test_a_secret_that_is_not_there_is_told_with_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="secret: there is no such file") as caught:
        hash_keys(tmp_path / "a b" / "secret")
    assert f"openssl rand -out '{tmp_path}/a b/secret' -hex 32" in caught.value.hint


def test_a_pipe_is_no_secret_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(NotReadyError, match="is no regular file"):
        hash_keys(tmp_path / "pipe")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o777])
def test_what_others_may_read_or_write_is_no_secret(secret: Path, mode: int) -> None:
    secret.chmod(mode)
    with pytest.raises(NotReadyError, match="others than its owner may read or write it") as caught:
        hash_keys(secret)
    assert f"chmod 600 {secret}" in caught.value.hint


def test_what_belongs_to_somebody_else_is_no_secret(
    secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() == 0:
        os.chown(secret, STRANGER, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    with pytest.raises(NotReadyError, match=r"belongs to user \d+, so it is no secret"):
        hash_keys(secret)


def test_what_others_may_replace_is_no_secret(secret: Path) -> None:
    secret.parent.chmod(0o777)
    with pytest.raises(NotReadyError, match="everybody may replace it in") as caught:
        hash_keys(secret)
    assert caught.value.hint == f"chmod o-w {secret.parent}"
    secret.parent.chmod(0o700)


# The balancer


def test_a_balancer_with_a_secret_has_its_keys_and_says_where_they_are_from(
    machine: FakeMachine, secret: Path
) -> None:
    state = up(machine, secret=secret)
    assert (state.hash_keys, state.secret) == (hash_keys(secret), secret)
    assert [item.secret for item in Balancer(machine).status()] == [secret]
    assert State.from_bytes(state.to_bytes()).request.secret == secret


def test_balancers_without_one_have_keys_of_their_own() -> None:
    states = [up(FakeMachine()) for _ in range(2)]
    assert len({state.hash_keys for state in states}) == 2
    assert [state.secret for state in states] == [None, None]


def test_a_balancer_keeps_its_secret_where_none_is_named(
    machine: FakeMachine, secret: Path
) -> None:
    before = up(machine, secret=secret)
    secret.unlink()
    after = up(machine)
    assert (after.hash_keys, after.secret) == (before.hash_keys, secret)


def test_a_secret_may_move_to_another_file(machine: FakeMachine, secret: Path) -> None:
    before = up(machine, secret=secret)
    there = made(secret.parent / "there", TEXT)
    asked = request(secret=there)
    found = applying.preview(machine, asked)
    assert found.way is applying.Way.REPLACE
    applying.apply(machine, asked, found)
    after = machine.loaded[-1][1]
    assert (after.hash_keys, after.secret) == (before.hash_keys, there)


def test_another_secret_is_refused_while_it_runs(
    machine: FakeMachine, secret: Path, other: Path
) -> None:
    up(machine, secret=secret)
    with pytest.raises(InvalidValueError, match=f"{other}.* runs with another secret.*{secret}"):
        up(machine, secret=other)
    secret.write_bytes(other.read_bytes())
    with pytest.raises(InvalidValueError, match="runs with another secret") as caught:
        applying.preview(machine, request(secret=secret))
    assert "--restore FILE" in caught.value.hint
    assert len(machine.loaded) == 1


def test_a_secret_is_refused_while_it_runs_with_keys_of_its_own(
    machine: FakeMachine, secret: Path
) -> None:
    up(machine)
    with pytest.raises(InvalidValueError, match=f"{secret}.* runs with keys of its own"):
        up(machine, secret=secret)


def test_a_file_that_is_no_secret_starts_nothing(machine: FakeMachine, secret: Path) -> None:
    secret.chmod(0o644)
    with pytest.raises(NotReadyError):
        up(machine, secret=secret)
    assert machine.loaded == []


def test_the_agent_follows_whatever_has_become_of_the_secret(
    machine: FakeMachine, secret: Path
) -> None:
    before = up(machine, secret=secret)
    machine.known = {}
    secret.unlink()
    machine.links["eth0"] = replace(machine.links["eth0"], mtu=9000)
    assert reconciling.follow(machine, ("eth0",))
    after = machine.loaded[-1][1]
    assert len(machine.loaded) == 2
    assert (after.hash_keys, after.secret) == (before.hash_keys, secret)


def test_what_is_started_anew_after_its_interface_was_lost_has_the_same_keys(
    machine: FakeMachine, secret: Path
) -> None:
    before = up(machine, secret=secret)
    lost = machine.balancers[0].state.request
    machine.balancers, machine.programs = [], {}
    reconciling.renew(machine, lost)
    assert machine.loaded[-1][1].hash_keys == before.hash_keys


# The commands


def test_up_takes_a_secret_by_a_path_from_here(
    machine: FakeMachine, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(secret.parent)
    done = run("up", "--iface", "eth0", "--backend", "192.0.2.10", "--secret", "secret")
    assert (done.exit_code, done.stderr) == (0, "")
    state = machine.loaded[-1][1]
    assert (state.hash_keys, state.secret) == (hash_keys(secret), secret)


def test_a_program_gives_a_secret_by_a_path_from_where_it_is(
    machine: FakeMachine, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(secret.parent)
    Api("eth0").up(["192.0.2.10"], secret="secret")
    assert machine.loaded[-1][1].secret == secret


def test_no_command_prints_the_secret_or_the_keys(
    machine: FakeMachine, secret: Path, other: Path
) -> None:
    words = ("--iface", "eth0", "--backend", "192.0.2.10", "--secret")
    told = [run("up", *words, f"{secret}")]
    machine.run_on()
    told += [
        run("status", "--json"),
        run("status"),
        run("export"),
        run("up", *words, f"{other}"),
    ]
    assert [done.exit_code for done in told] == [0, 0, 0, 0, 2]
    text = "".join(done.output for done in told)
    keys = hash_keys(secret) + hash_keys(other)
    hidden = {TEXT.decode(), other.read_text(), *map(str, keys), *map(hex, keys)}
    assert not [word for word in hidden if word in text]
    assert f'"secret": "{secret}"' in told[1].output
    assert f'secret = "{secret}"' in told[3].output


def test_check_looks_at_the_secret_that_a_file_names(tmp_path: Path, secret: Path) -> None:
    path = write(tmp_path, BALANCER + f'secret = "{secret}"\n' + SERVICE)
    assert run("check", f"{path}").exit_code == 0
    secret.chmod(0o644)
    done = run("check", f"{path}")
    assert done.exit_code == 3
    assert done.stdout == ""
    assert "others than its owner may read or write it" in done.stderr
    assert "hint: chmod 600" in done.stderr


def test_a_file_names_a_secret_and_is_written_with_it(
    machine: FakeMachine, tmp_path: Path, secret: Path
) -> None:
    path = write(tmp_path, BALANCER + f'secret = "{secret}"\n' + SERVICE)
    assert run("up", "--config", f"{path}").exit_code == 0
    machine.run_on()
    assert machine.loaded[-1][1].secret == secret
    asked = Request(("eth0",), request().services, secret=secret)
    assert f'secret = "{secret}"' in dump(asked)
    assert run("apply", f"{path}").stdout == "nothing to change\n"


def test_a_secret_stands_in_the_file_where_there_is_one(tmp_path: Path, secret: Path) -> None:
    path = write(tmp_path, BALANCER + SERVICE)
    done = run("up", "--config", f"{path}", "--secret", f"{secret}")
    assert done.exit_code == 2
    assert "--config and --secret exclude each other" in done.stderr
