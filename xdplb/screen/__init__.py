"""What ``status`` and ``top`` show on a terminal. Text for anything else is ``xdplb.render``'s."""
