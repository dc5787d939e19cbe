"""Everything at random, with traffic: no flow notices, and nothing is left in the end.

``XDPLB_SOAK_S`` says for how many seconds; ``XDPLB_SOAK_SEED`` repeats a run.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from lab import SERVICE, XDPLB, Lab, process, run
from steady import BACKENDS, Traffic

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECONDS = float(os.environ.get("XDPLB_SOAK_S", "6"))
SEED = int(os.environ.get("XDPLB_SOAK_SEED", "0")) or random.randrange(1 << 32)
SPARE = ("172.11.0.24", "172.11.0.25")
USUAL = "172.11.0.20", "172.11.0.21"
PORTS = ("53", "[53, 54]", '[53, "100-200"]')


class Operator:
    """Somebody who tries everything that must not harm the flows of the usual backends."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        """Begin with a file that is applied."""
        self._lab = lab
        self._file = directory / "xdplb.toml"
        self._saved = directory / "flows"
        self._chance = random.Random(SEED)
        self._agent: subprocess.Popen[bytes] | None = None
        self.done: list[str] = []
        self.write()
        self.command("up", "--config", f"{self._file}")

    def write(self) -> None:
        """Another file: the usual service, with something else about it; and sometimes others."""
        chance = self._chance
        backends = [*USUAL, *chance.sample(SPARE, chance.randrange(3))]
        chance.shuffle(backends)
        states = {item: "up" if item in USUAL else chance.choice(("up", "drain")) for item in SPARE}
        tables = ", ".join(
            f'{{ address = "{item}", weight = {1 if item in USUAL else 0},'
            f' state = "{states.get(item, "up")}" }}'
            for item in backends
        )
        lines = [
            "[balancer]",
            'interfaces = ["balancer"]',
            f"vlan = {chance.choice(('true', 'false'))}",
            f"max-client-flows = {chance.choice((0, 100, 5000))}",
            "[[service]]",
            'name = "echo"',
            f'address = "{SERVICE}"',
            f"ports = {chance.choice(PORTS)}",
            f'hash = "{chance.choice(("src-dst", "src", "5-tuple"))}"',
            f'on-down = "{chance.choice(("rehash", "drop"))}"',
            f"timeouts = {{ answered = {chance.choice((60, 120, 300))} }}",
            f"backend = [{tables}]",
        ]
        if chance.random() < 0.5:
            lines += [
                "[[service]]",
                'name = "web"',
                f'address = "{SERVICE}"',
                'protocol = "tcp"',
                "ports = 80",
                f'backend = [{{ address = "{SPARE[0]}" }}]',
            ]
        if chance.random() < 0.5:
            lines += [
                "[[service]]",
                'name = "six"',
                'address = "2001:db8::1"',
                "ports = 53",
                'backend = [{ address = "2001:db8::20" }]',
                "[service.health]",
                'check = "icmp"',
            ]
        self._file.write_text("\n".join(lines))
        self._file.chmod(0o600)

    def command(self, *words: str) -> None:
        """A command, to its end; what it says does not matter, but it must not be a bug."""
        done = self._lab.xdplb(*words, check=False)
        self.done.append(f"{done.returncode}: {' '.join(words)}")
        assert done.returncode in {0, 2, 3, 4}, (SEED, self.done, done.stderr)
        assert "Traceback" not in done.stderr, (SEED, done.stderr)

    def kill(self, *words: str) -> None:
        """A command that does not come to its end."""
        child = subprocess.Popen(
            [XDPLB, "--netns", self._lab.balancer, *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(self._chance.random())
        child.kill()
        child.wait()
        self.done.append(f"killed: {' '.join(words)}")

    def step(self, cleanup: ExitStack) -> None:
        """One thing at random."""
        chance, file = self._chance, f"{self._file}"
        spare = chance.choice(SPARE)
        things: list[Callable[[], object]] = [
            lambda: self._with_another_file(self.command),
            lambda: self._with_another_file(self.command),
            lambda: self._with_another_file(self.kill),
            lambda: self.command("apply", file, "--dry-run"),
            lambda: self.command("up", "--config", file),
            lambda: self.kill("up", "--config", file),
            lambda: self.command("backend", "add", spare, "--weight", "0", "--service", "echo"),
            lambda: self.command("backend", "remove", spare, "--service", "echo"),
            lambda: self.kill("backend", "remove", spare, "--service", "echo"),
            lambda: self.command("backend", "drain", chance.choice(USUAL)),
            lambda: self.command("backend", "undrain", chance.choice(USUAL)),
            lambda: self.command("save", f"{self._saved}"),
            lambda: self.command("restore", f"{self._saved}"),
            lambda: self.command(chance.choice(("status", "flows", "export", "metrics"))),
            lambda: self.command("explain", "172.11.0.22:5555", f"{SERVICE}:53"),
            lambda: self.command("trace", "--seconds", f"{chance.random() + 0.1:.1f}"),
            lambda: self.kill("trace", "--reason", "all"),
            lambda: self._toggle_agent(cleanup),
            self._hang_up,
        ]
        chance.choice(things)()

    def _with_another_file(self, how: Callable[..., None]) -> None:
        self.write()
        how("apply", f"{self._file}")

    def _toggle_agent(self, cleanup: ExitStack) -> None:
        """Start the agent, or end it without a warning."""
        if self._agent is None:
            words = [f"{XDPLB}", "--netns", self._lab.balancer, "run", "--config", f"{self._file}"]
            self._agent = process(cleanup, *words)
            self.done.append("agent")
            return
        self._agent.kill()
        self._agent.wait()
        self._agent = None
        self.done.append("agent killed")

    def _hang_up(self) -> None:
        if self._agent is not None and self._agent.poll() is None:
            self.write()
            self._agent.send_signal(signal.SIGHUP)
            self.done.append("hup")


@pytest.mark.alone
@pytest.mark.timeout(SECONDS + 120)
def test_no_flow_notices_what_is_done_to_its_balancer(tmp_path: Path) -> None:
    assert BACKENDS == USUAL
    with Lab() as lab, ExitStack() as cleanup:
        operator = Operator(lab, tmp_path)
        traffic = cleanup.enter_context(Traffic(lab))
        traffic.flows()
        since = traffic.mark()
        ends = time.monotonic() + SECONDS
        while time.monotonic() < ends:
            operator.step(cleanup)
        traffic.flows()
        count = traffic.count(since)
        assert count.is_unharmed, (SEED, count, operator.done)
        assert count.sent > 500 * SECONDS
        cleanup.close()
        lab.xdplb("down")
        left = run(*lab.inside("b", "bpftool", "net", "show", "dev", "balancer")).stdout
        assert "xdplb" not in left
