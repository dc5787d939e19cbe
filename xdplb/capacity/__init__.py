"""``capacity``: how many ports, backends and balancers a load needs.

Arithmetic alone: nothing here asks a kernel, or wants a balancer that runs. What was measured once,
and on which machine, stands in ``measured``.
"""
