"""xdplb: a load balancer for UDP and TCP at the speed of XDP, started by one command."""

__version__ = "0.1.0"
