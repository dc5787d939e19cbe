"""Configuration files that are good, and such that are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BALANCER = '[balancer]\ninterfaces = ["eth0"]\n'
BACKEND = 'backend = [{ address = "192.0.2.10" }]\n'
SERVICE = f"[[service]]\n{BACKEND}"
LEAST = BALANCER + SERVICE
HEALTH = LEAST + "[service.health]\n"

GOOD = [
    LEAST,
    HEALTH,
    HEALTH + 'check = "none"\npassive = false\n',
    HEALTH + 'check = "icmp"\ninterval = 0.5\njitter = 0\n',
    HEALTH + 'check = "http"\nstatus = 204\nverify = false\n',
    HEALTH + 'check = "https"\nstatus = "200-299,304"\npath = "/a?b=c"\n',
    HEALTH + 'check = "udp"\nsend = ""\n',
    HEALTH + 'check = "udp"\nsend = "0x00 ff"\nexpect = \'\\0x00\'\n',
    HEALTH + 'check = "dns"\nquery = "."\ntype = "NS"\n',
    HEALTH + 'check = "exec"\ncommand = ["/bin/true", ""]\n',
    LEAST + 'protocol = ["udp", "tcp"]\nports = [53, "54", "55-56"]\n',
    LEAST + "nat-addresses = []\nclients = []\n",
    BALANCER + "nat-ports = [2000]\nmax-client-flows = 0\n" + SERVICE,
    BALANCER + 'secret = "/etc/xdplb/secret"\n' + SERVICE,
    BALANCER + 'virtual-mac = "00:00:5E:00:01:35"\n' + SERVICE,
    BALANCER + 'virtual-mac = ["00:00:5e:00:01:35", "00:00:5e:00:02:35"]\n' + SERVICE,
    LEAST + "[agent]\n",
    LEAST + '[agent]\nlisten = "127.0.0.1:9170"\n',
    LEAST + '[agent]\nlisten = "[2001:db8::1]:9170"\nallow-remote = true\n',
    LEAST + '[agent]\nlisten = "/run/xdplb/agent.sock"\n',
]
"""Files without a mistake."""

BAD_FOR_BOTH = [
    (LEAST + "wieght = 1\n", "service[0].wieght", "is no key", "known are name, address"),
    (LEAST + "one_way = true\n", "service[0].one_way", "is no key", "did you mean one-way?"),
    (LEAST + '"a b" = 1\n', 'service[0]."a b"', "is no key", "known are"),
    (LEAST + "[limits]\n", "limits", "is no key that is known here", "known are balancer, service"),
    (LEAST + "[agent]\nport = 9170\n", "agent.port", "is no key", "known are listen"),
    (LEAST + "[agent]\nlisten = 9170\n", "agent.listen", "9170 is not text", "127.0.0.1:9170"),
    (LEAST + '[agent]\nlisten = "9170"\n', "agent.listen", "is not an IP address", "127.0.0.1"),
    (LEAST + '[agent]\nlisten = "127.0.0.1"\n', "agent.listen", "has no port", "127.0.0.1:9170"),
    (SERVICE, "balancer", "is missing", "begin it with [balancer]"),
    (BALANCER, "service", "is missing", "begin each with [[service]]"),
    ("[balancer]\n" + SERVICE, "balancer.interfaces", "is missing", 'interfaces = ["eth0"]'),
    (BALANCER + "[[service]]\n", "service[0].backend", "is missing", "[[service.backend]]"),
    ("service = []\n" + BALANCER, "service", "has nothing in it", "[[service]]"),
    ("balancer = 5\n" + SERVICE, "balancer", "5 is not a table", "[balancer]"),
    ("service = 5\n" + BALANCER, "service", "5 is not a list", "[[service]]"),
    (BALANCER + "[[service]]\nbackend = [5]\n", "service[0].backend[0]", "5 is not a table", "[["),
    ("[balancer]\ninterfaces = []\n" + SERVICE, "balancer.interfaces", "something in it", "eth0"),
    (BALANCER + "vlan = 1\n" + SERVICE, "balancer.vlan", "1 is not true or false", "vlan = true"),
    (BALANCER + 'mode = "nativ"\n' + SERVICE, "balancer.mode", "is not one of", '"native"?'),
    (BALANCER + "mode = 5\n" + SERVICE, "balancer.mode", "5 is not one of", 'it is one of "auto"'),
    (BALANCER + "max-flows = 0\n" + SERVICE, "balancer.max-flows", "0 is not", "262144"),
    (
        BALANCER + "max-client-flows = -1\n" + SERVICE,
        "balancer.max-client-flows",
        "-1 is not a whole number of at least 0",
        "write it like",
    ),
    (BALANCER + "virtual-mac = []\n" + SERVICE, "balancer.virtual-mac", "something in it", "5e"),
    (
        BALANCER + 'virtual-mac = "00:00:5e:00:01"\n' + SERVICE,
        "balancer.virtual-mac",
        "'00:00:5e:00:01' is not the MAC address of a host",
        "write it like 00:00:5e:00:01:35",
    ),
    (BALANCER + "secret = 7\n" + SERVICE, "balancer.secret", "7 is not text", "/etc/xdplb/secret"),
    (
        BALANCER + 'secret = "pair"\n' + SERVICE,
        "balancer.secret",
        "'pair' is not an absolute path",
        "write it like /etc/xdplb/secret",
    ),
    (BALANCER + "nat-ports = [0]\n" + SERVICE, "balancer.nat-ports[0]", "0 is not", "like 53"),
    (LEAST + 'ports = ["all"]\n', "service[0].ports[0]", "'all' is not a port", "1 to 65535"),
    (LEAST + "ports = [2.5]\n", "service[0].ports[0]", "2.5 is not a whole number or text", "53"),
    (LEAST + "ports = []\n", "service[0].ports", "with something in it", "ports = 53"),
    (LEAST + "ports = 1979-05-27\n", "service[0].ports", "or a list", "ports ="),
    (LEAST + 'address = "eth0"\n', "service[0].address", "is not an IP address", "192.0.2.10"),
    (LEAST + 'protocol = "TCP"\n', "service[0].protocol", '"TCP" is not one of', '"tcp"?'),
    (LEAST + 'protocol = ["sctp"]\n', "service[0].protocol[0]", "is not one of", "it is one of"),
    (LEAST + "name = 5\n", "service[0].name", "5 is not text", 'name = "dns"'),
    (LEAST + "timeouts = 5\n", "service[0].timeouts", "5 is not a table", "[service.timeouts]"),
    (
        LEAST + "timeouts = { answered = 0 }\n",
        "service[0].timeouts.answered",
        "0 is not a whole number of at least 1",
        "answered = 120",
    ),
    (
        LEAST + 'clients = ["198.51.100.7:5555"]\n',
        "service[0].clients[0]",
        "is not a reservation",
        "write it like",
    ),
    (LEAST + "health = true\n", "service[0].health", "true is not a table", "[service.health]"),
    (HEALTH + 'check = "htp"\n', "service[0].health.check", '"htp" is not one of', '"http"?'),
    (HEALTH + "check = 5\n", "service[0].health.check", "5 is not one of", "it is one of"),
    (
        HEALTH + 'check = "dns"\n',
        "service[0].health.query",
        "is missing",
        'query = "example.org"',
    ),
    (
        HEALTH + 'check = "dns"\nquery = "example.org"\npath = "/"\n',
        "service[0].health.path",
        "is a key of check http and https, not of dns",
        'check = "http"',
    ),
    (
        HEALTH + 'query = "example.org"\n',
        "service[0].health.query",
        "is a key of check dns, and no check is named",
        'check = "dns"',
    ),
    (HEALTH + "interval = 0\n", "service[0].health.interval", "0 is not a number of at", "= 2"),
    (HEALTH + "port = 70000\n", "service[0].health.port", "of at most 65535", "port = 53"),
    (
        HEALTH + 'check = "http"\npath = "a b"\n',
        "service[0].health.path",
        "'a b' is not a path that begins with /",
        'path = "/health"',
    ),
    (
        HEALTH + 'check = "http"\nstatus = "2xx"\n',
        "service[0].health.status",
        "'2xx' is not a status",
        "200-399",
    ),
    (
        HEALTH + 'check = "exec"\ncommand = "/bin/true"\n',
        "service[0].health.command",
        '"/bin/true" is not a list',
        'command = ["/usr',
    ),
]
"""Files with a mistake that the schema knows, too: the key, the reason, the hint."""

_BOTH = 'backend = [{ address = "192.0.2.10" }, { address = "2001:db8::10" }]\n'
_WEB = '[[service]]\nname = "web"\naddress = "192.0.2.1"\nports = [80]\n' + BACKEND

BAD = [
    *BAD_FOR_BOTH,
    (LEAST + 'name = "a\\u001b[2Jb"\n', "service[0].name", "cannot be printed", 'name = "dns"'),
    (LEAST + 'name = "a\\nb"\n', "service[0].name", "cannot be printed", 'name = "dns"'),
    (
        LEAST + '[agent]\nlisten = "0.0.0.0:9170"\n',
        "agent.listen",
        "nobody is asked for a password",
        "allow-remote = true does it",
    ),
    (
        LEAST + "[agent]\nallow-remote = true\n",
        "agent.allow-remote",
        "is said, and not where",
        "listen",
    ),
    (LEAST + '[agent]\nlisten = "[::1]:0"\n', "agent.listen", "0 is out of range", "127.0.0.1"),
    (LEAST + 'address = "192.0.2.300"\n', "service[0].address", "is not an IP address", "192.0"),
    (LEAST + 'address = "::1"\n', "service[0].address", "is a loopback address", "one host"),
    (LEAST + 'address = ["fe80::1%eth0"]\n', "service[0].address[0]", "it has a zone", "one host"),
    (LEAST + 'address = "::ffff:192.0.2.1"\n', "service[0].address", "IPv6 one", "write 192.0.2.1"),
    (LEAST + 'ports = ["9-3"]\n', "service[0].ports[0]", "9-3 is empty", "3-9"),
    (LEAST + 'ports = ["70000"]\n', "service[0].ports[0]", "70000 is out of range", "65535"),
    (LEAST + 'ports = [5, "1-9"]\n', "service[0]", "ports 1-9 and 5 overlap", "one range only"),
    (LEAST + 'protocol = "tcp"\n', "service[0]", "tcp needs ports", "name them with ports"),
    (LEAST + 'protocol = ["udp", "udp"]\n', "service[0].protocol[1]", "is given twice", "once"),
    (
        LEAST + 'address = ["192.0.2.1", "192.0.2.1"]\n',
        "service[0].address[1]",
        "192.0.2.1 is given twice",
        "give it once",
    ),
    (
        LEAST + 'address = ["192.0.2.1", "2001:db8::1"]\n',
        "service[0].address[1]",
        "2001:db8::1 has no IPv6 backend",
        "give it one",
    ),
    (
        BALANCER + '[[service]]\naddress = "192.0.2.1"\n' + _BOTH,
        "service[0].backend[1].address",
        "2001:db8::10 is IPv6",
        "give the service an IPv6 address",
    ),
    (
        LEAST + 'nat-addresses = ["2001:db8::2"]\n',
        "service[0].nat-addresses[0]",
        "2001:db8::2 is IPv6",
        "IPv6 address",
    ),
    (
        LEAST + 'clients = ["[2001:db8::7]:5=6"]\n',
        "service[0].clients[0]",
        "2001:db8::7 is IPv6",
        "IPv6 address",
    ),
    (
        LEAST + 'clients = ["127.0.0.1:5=6"]\n',
        "service[0].clients[0]",
        "client 127.0.0.1 is a loopback address",
        "one host",
    ),
    (
        LEAST + 'clients = ["192.0.2.7:5=6", "192.0.2.8:5=6"]\n',
        "service[0]",
        "reserved NAT port 6 is given twice",
        "once",
    ),
    (
        BALANCER
        + '[[service]]\nname = "dns"\n'
        + 'backend = [{ address = "192.0.2.10" }, { address = "192.0.2.10" }]\n',
        "service[0] (dns)",
        "backend 192.0.2.10 is given twice",
        "once",
    ),
    (
        BALANCER + '[[service]]\nname = "dns"\nbackend = [{ address = "192.0.2.10", port = 0 }]\n',
        "service[0].backend[0].port (dns)",
        "0 is not a whole number of at least 1",
        "port = 53",
    ),
    (LEAST + 'address = "192.0.2.10"\n', "service[0]", "is the service itself", "behind"),
    (
        BALANCER + "nat-ports = [5, 5]\n" + SERVICE,
        "balancer",
        "nat-ports 5 and 5 overlap",
        "one range only",
    ),
    (
        '[balancer]\ninterfaces = ["eth0", "eth0"]\n' + SERVICE,
        "balancer",
        "interface eth0 is given twice",
        "once",
    ),
    (
        LEAST + SERVICE,
        "service[1]",
        "with service[0]: service udp and service udp have a port in common",
        "one service only",
    ),
    (
        BALANCER + _WEB + _WEB.replace("80", "81"),
        "service[1] (web)",
        "service[0] has the same name, address and protocol",
        "a name of its own",
    ),
    (
        BALANCER + _WEB + '[[service]]\nports = [5]\nbackend = [{ address = "192.0.2.1" }]\n',
        "service[1]",
        "with service[0]: backend 192.0.2.1 is the service itself",
        "behind the balancer",
    ),
    (HEALTH + "interval = nan\n", "service[0].health.interval", "NaN is not", "interval = 2"),
    (HEALTH + "rise = 0x" + "f" * 5000 + "\n", "service[0].health.rise", "the number is", "rise"),
    (
        HEALTH + 'check = "udp"\nsend = "0x0"\n',
        "service[0].health.send",
        "'0x0' begins with 0x and is not hexadecimal",
        "two digits",
    ),
    (
        HEALTH + 'check = "http"\nstatus = "299-200"\n',
        "service[0].health.status",
        "'299-200' is not a status",
        "200-399",
    ),
]
"""Files with a mistake: the key, the reason, the hint."""


def write(directory: Path, text: str | bytes) -> Path:
    """A file that only its owner may write."""
    path = directory / "xdplb.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.chmod(0o600)
    return path
