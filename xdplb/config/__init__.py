"""The configuration file: TOML in, a request out, and back.

::

    tables    what stands in the file, as types
    reading   file -> tables -> request; every error says where
    writing   request -> tables -> file
    schema    the tables as a JSON Schema, for editors
"""

from xdplb.config.reading import load, parse, problems, services_from
from xdplb.config.writing import dump, services_to

__all__ = ["dump", "load", "parse", "problems", "services_from", "services_to"]
