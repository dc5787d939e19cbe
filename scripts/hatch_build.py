"""What a wheel has beside the package: the manual and the shells' completion, as hatchling asks."""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Pages(BuildHookInterface):  # type: ignore[type-arg] # of a configuration that is not read
    """Makes them from the commands of the tree that is built."""

    _place: TemporaryDirectory[str]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write them to where they are taken from."""
        self._place = TemporaryDirectory()
        if version == "editable":
            return
        sys.dont_write_bytecode = True
        sys.path[:0] = [self.root, f"{self.root}/scripts"]
        import manual  # noqa: PLC0415 - of this tree

        made = manual.write(Path(self._place.name))
        build_data["shared_data"] |= {f"{path}": f"share/{place}" for path, place in made.items()}

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """They are in the wheel now."""
        del version, build_data, artifact_path
        self._place.cleanup()
