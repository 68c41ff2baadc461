"""Completes the package's metadata: its links, and a README whose relative links work outside the repository.

Both are derived from the addresses in ``[tool.hatch.metadata.hooks.custom]`` of ``pyproject.toml``.
"""

from __future__ import annotations

import pathlib
import re

from hatchling.metadata.plugin.interface import MetadataHookInterface

# An image or a link to a path in the repository.
RELATIVE_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?P<path>(?![a-z]+:|#)[^)\s]+)\)")


class Links(MetadataHookInterface):
    """Adds `urls` and `readme`."""

    def update(self, metadata: dict[str, object]) -> None:
        """Adds them to `metadata`, which has the version already."""
        repository: str = self.config["repository"]
        tag = f"v{metadata['version']}"
        metadata["urls"] = {
            "Documentation": self.config["documentation"],
            "Source": repository,
            "Changelog": f"{repository}/blob/main/CHANGELOG.md",
            "Issues": f"{repository}/issues",
        }
        readme = pathlib.Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(readme, f"{repository}/{{view}}/{tag}")}


def absolute(readme: str, base: str) -> str:
    """Returns `readme` with absolute links: `base` with the view, and the path. Images link to the bare file."""

    def link(match: re.Match[str]) -> str:
        image, text, path = match.group("image", "text", "path")
        return f"{image}[{text}]({base.format(view='raw' if image else 'blob')}/{path})"

    return RELATIVE_LINK.sub(link, readme)
