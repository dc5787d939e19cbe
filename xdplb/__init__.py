"""xdplb: a load balancer for UDP at the speed of XDP, started by one command."""

__version__ = "0.1.0"
