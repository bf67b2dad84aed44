"""Where the figures of a benchmark go."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any


def with_json(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser, with the option `--json FILE`."""
    parser.add_argument(
        "--json", type=Path, help="write the figures to this file, else they are printed after the tables"
    )
    return parser


def write(found: dict[str, Any], file: Path | None) -> None:
    """Write the figures as JSON to a file, or print them."""
    text = json.dumps(found, indent=2)
    if file is None:
        print(f"\n{text}")
    else:
        file.write_text(text + "\n", encoding="utf-8")
