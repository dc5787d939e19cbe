"""What a shell offers while a command line is typed: what is really there, or nothing at all."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, ClassVar, Final

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    split_arg_string,
)

from xdplb.machine import interface_names
from xdplb.model import Backend
from xdplb.plan import backend_state
from xdplb.wire import BackendCode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import click

    from xdplb.facts import Running
    from xdplb.state import Side

_Words = dict[str, str]
"""What is offered, each with a word on it."""
_LOOPBACK: Final = "lo"
_STDERR: Final = 2


def _offered(
    find: Callable[[click.Context], _Words],
) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem[str]]]:
    """Offer what ``find`` finds in the namespace that the line names, silently."""

    @wraps(find)
    def complete(
        context: click.Context, parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem[str]]:
        del parameter
        try:
            with _silence(), _namespace_of(context):
                words = find(context)
        except Exception:  # noqa: BLE001 - whatever it is, who types has not asked for it
            return []
        return [
            CompletionItem(word, help=said or None)
            for word, said in words.items()
            if word.startswith(incomplete)
        ]

    return complete


@contextmanager
def _silence() -> Iterator[None]:
    """Let nothing be written into the line, not by the libraries that Python calls either."""
    kept = os.dup(_STDERR)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, _STDERR)
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(nowhere)
        os.close(kept)


@contextmanager
def _namespace_of(context: click.Context) -> Iterator[None]:
    """Be where the command would work."""
    from xdplb.kernel import netns  # noqa: PLC0415 - not for --help

    with netns.visit(context.find_root().params.get("netns")):
        yield


@_offered
def _named_namespaces(context: click.Context) -> _Words:
    del context
    from xdplb.kernel import netns  # noqa: PLC0415 - not for --help

    return dict.fromkeys(netns.names(), "")


def namespaces(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The network namespaces of ``ip netns``, or files where a path is being typed."""
    find = files if "/" in incomplete else _named_namespaces
    return find(context, parameter, incomplete)


@_offered
def interfaces(context: click.Context) -> _Words:
    """The interfaces that a balancer could sit on."""
    del context
    from xdplb.kernel import netns  # noqa: PLC0415 - not for --help

    return dict.fromkeys((name for name in netns.interface_names() if name != _LOOPBACK), "")


@_offered
def balanced(context: click.Context) -> _Words:
    """The interfaces that a balancer sits on."""
    del context
    return {name: "" for _, names in _running() for name in names}


@_offered
def services(context: click.Context) -> _Words:
    """The services that run, by the name or the address that a person would say."""
    return {
        item.name or f"{item.dialled}": f"{item.dialled} {item.protocol}"
        for running in _meant(context)
        for item in running.state.services
    }


@_offered
def backends(context: click.Context) -> _Words:
    """The backends that run, each with its state."""
    wanted = context.params.get("service")
    return {
        f"{Backend(record.address, record.port)}": backend_state(record.state)
        for running in _meant(context)
        for side in running.state.sides
        for record in running.records[side.version]
        if record.state is not BackendCode.UNUSED
        and (wanted is None or record.service in _numbers(side, wanted))
    }


def _numbers(side: Side, name: str) -> set[int]:
    """Those of the services that a person calls so."""
    return {item.number for item in side.services if item.service.is_called(name)}


def _running() -> list[tuple[Running, tuple[str, ...]]]:
    """What runs here, and on which interfaces."""
    from xdplb.kernel.machine import Machine  # noqa: PLC0415 - not for --help

    with Machine() as machine:
        return [(item, interface_names(machine, item.state)) for item in machine.running()]


def _meant(context: click.Context) -> list[Running]:
    """The balancers that the line is about as far as it is typed."""
    iface = context.params.get("iface")
    return [item for item, names in _running() if iface is None or iface in names]


def files(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """Files; the shell itself knows them best."""
    del context, parameter
    return [CompletionItem(incomplete, type="file")]


class Bash(BashComplete):
    """Completion for bash, also of words with a colon in them.

    Readline breaks words at the characters of COMP_WORDBREAKS, and replaces only what stands
    behind the last of them. So the line itself is read, and what stands before is left out.
    """

    source_template: ClassVar[str] = """\
%(complete_func)s() {
    local kind word
    COMPREPLY=()
    while IFS=, read -r kind word; do
        case $kind in
        dir) compopt -o dirnames ;;
        file) compopt -o default ;;
        plain) COMPREPLY+=("$word") ;;
        esac
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_WORDBREAKS="$COMP_WORDBREAKS" \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""
    _typed = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words that are complete, and the one that is not."""
        line = os.environ["COMP_LINE"]
        words = split_arg_string(line)
        self._typed = "" if line[-1:].isspace() else words.pop()
        return words[1:], self._typed

    def format_completion(self, item: CompletionItem[str]) -> str:
        """What readline has to put where it broke the word."""
        typed = self._typed
        if typed.startswith("-"):
            typed = typed.partition("=")[2]
        broken = max(map(typed.rfind, os.environ["COMP_WORDBREAKS"]), default=-1) + 1
        return f"{item.type},{item.value.removeprefix(typed[:broken])}"


add_completion_class(Bash)
