"""Draws docs/house.svg: the rooms of the package on their floors, what each is for, its modules, and the rooms it imports.

It reads the package itself (tests/support/house.py), so the picture cannot lie; a test holds the file against it.
Run it from the repository's folder: python -m docs.make_house_svg
"""

from __future__ import annotations

import ast
import textwrap
from html import escape
from pathlib import Path
from typing import Final

from tests.support.house import FLOORS, arrows, modules, room_of

WIDTH: Final = 1080
GAP: Final = 12
LINE: Final = 18
PADDING: Final = 14
MARGIN: Final = 16
LETTER: Final = 7.0  # the mean width of one, in pixels

STYLE: Final = """
  text { font: 13px ui-sans-serif, system-ui, sans-serif; fill: #1f2937 }
  .name { font-weight: 650; font-size: 15px }
  .modules { fill: #475569 }
  .imports { fill: #1d4ed8 }
  rect { fill: #f8fafc; stroke: #94a3b8 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e5e7eb } .modules { fill: #a3b1c6 } .imports { fill: #93c5fd } rect { fill: #111827; stroke: #475569 }
  }
"""


def house() -> str:
    """The picture as SVG."""
    parts: list[str] = []
    y = float(MARGIN)
    for floor in reversed(FLOORS):
        width = (WIDTH - 2 * MARGIN - GAP * (len(floor) - 1)) / len(floor)
        texts = [_texts(room, int((width - 2 * PADDING) / LETTER)) for room in floor]
        height = 2 * PADDING + LINE * max(map(len, texts)) - 4
        for place, lines in enumerate(texts):
            x = MARGIN + place * (width + GAP)
            parts.append(f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="8"/>')
            for number, (kind, line) in enumerate(lines, start=1):
                baseline = y + PADDING + LINE * number - 6
                parts.append(f'<text class="{kind}" x="{x + PADDING:.0f}" y="{baseline:.0f}">{escape(line)}</text>')
        y += height + GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + MARGIN - GAP:.0f}" role="img" '
        'aria-labelledby="house-title">\n'
        '<title id="house-title">The rooms of vital_tracking; each imports only from rooms on floors below it</title>\n'
        f"<style>{STYLE}</style>\n"
    )
    return head + "\n".join(parts) + "\n</svg>\n"


def _texts(room: str, letters: int) -> list[tuple[str, str]]:
    """The lines in a room's box, each with its class."""
    inside = [name for name in modules() if room_of(name) == room]
    names = dict.fromkeys(_shown(name) for name in inside if "." in name)
    rooms = {room_of(other) for name in inside for other in arrows()[name]} - {room}
    below = [other for floor in reversed(FLOORS) for other in floor if other in rooms]
    lines = [("name", "vital_tracking" if room == "__init__" else room)]
    lines += [("purpose", line) for line in textwrap.wrap(_purpose(room), letters)]
    lines += [("modules", line) for line in textwrap.wrap(" · ".join(names), letters)]
    lines += [("imports", line) for line in textwrap.wrap("→ " + " · ".join(below), letters) if below]
    return lines


def _shown(module: str) -> str:
    """A module by its name in its room; a folder in a room by its own name alone."""
    _, name, *rest = module.split(".")
    return f"{name}/" if rest or modules()[module].name == "__init__.py" else name


def _purpose(room: str) -> str:
    """What a room is for: the first sentence of its own documentation."""
    text = ast.get_docstring(ast.parse(modules()[room].read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).partition(". ")[0].rstrip(".") + "."


def main() -> None:
    """Write the picture."""
    Path(__file__).with_name("house.svg").write_text(house(), encoding="utf-8")


if __name__ == "__main__":
    main()
