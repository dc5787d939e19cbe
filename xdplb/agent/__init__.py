"""``xdplb run``: what needs a process. It may die at any time; forwarding goes on without it."""
