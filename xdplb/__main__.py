"""Run the command line as ``python -m xdplb``."""

from xdplb.cli import main

if __name__ == "__main__":
    main()
