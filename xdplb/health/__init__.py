"""Whether backends are healthy: asking them, counting their answers, watching their traffic.

``probes`` asks once, ``verdict`` counts, ``passive`` reads the counters, and ``monitor`` does the
asking at the right times. What is asked, and how often, are the plain data of ``xdplb.checks``.
"""
