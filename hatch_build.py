"""Gives the package the README as it is shown away from the repository: every link and picture with its full address."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

_LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!https?://|#)([^)]+)\)")


class ReadmeHook(MetadataHookInterface):
    """Hatchling's hook for the field `readme`."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Set the field from README.md and the address of the repository."""
        root = Path(self.root)
        text = (root / "README.md").read_text(encoding="utf-8")
        urls = metadata.get("urls") or self.config["urls"]
        metadata["readme"] = {"content-type": "text/markdown", "text": absolute(text, urls["Repository"], root)}


def absolute(text: str, repository: str, root: Path) -> str:
    """A page of Markdown with addresses in the repository in place of paths."""

    def address(match: re.Match[str]) -> str:
        picture, label, path = match.groups()
        kind = "raw" if picture else "tree" if (root / path.partition("#")[0]).is_dir() else "blob"
        return f"{picture}{label}({repository}/{kind}/main/{path})"

    return _LINK.sub(address, text)
