"""Makes README's relative links absolute in the package's metadata, so that they work outside the repository.

They are derived from `Source` in ``[project.urls]`` of ``pyproject.toml``.
"""

from __future__ import annotations

import pathlib
import re
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

# An image or a link to a path in the repository.
RELATIVE_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<path>(?![a-z]+:|#)[^)\s]+)\)")


class Readme(MetadataHookInterface):
    """Adds `readme`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds it to `metadata`, which has all that ``[project]`` says."""
        base = f"{metadata['urls']['Source']}/{{view}}/v{metadata['version']}"
        readme = pathlib.Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(readme, base)}


def absolute(readme: str, base: str) -> str:
    """Returns `readme` with absolute links: `base` with the view, and the path. Images link to the bare file."""

    def link(match: re.Match[str]) -> str:
        image, text, path = match.group("image", "text", "path")
        return f"{image}[{text}]({base.format(view='raw' if image else 'blob')}/{path})"

    return RELATIVE_LINK.sub(link, readme)
