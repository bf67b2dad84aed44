"""All benchmarks, one after the other, each in a process of its own.

    python -m benchmarks [--full] [--json FILE] [--docs] [PART ...]

Every part compares its variants in one run, in turns, and takes medians; machines are noisy: read the ratios. `--docs` writes the
figures to docs/performance.json and their tables into docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.figures import Claim, Found, Part, Table, apart, claims_table, file_to_write, machine

PARTS = ("imports", "overhead", "memory", "delivery", "admission", "spool", "reports", "growth")
# Those that take an hour, or a database of millions of calls, or what not everybody has installed.
ON_DEMAND = (
    "instructions",
    "imports_logs",
    "reports_large",
    "reports_readers",
    "platform",
    "what_if",
    "copies",
    "clickhouse_copy",
    "pages_server",
    "pages_load",
    "pages_browser",
)
DOCS = Path(__file__).parents[1] / "docs"


def part_of(name: str) -> Part:
    """A part by its name."""
    part: Part = import_module(f"benchmarks.{name}").PART
    return part


def all_claims(found: Found) -> list[Claim]:
    """The claims of all parts that were measured."""
    return [claim for name, figures in found["parts"].items() for claim in part_of(name).claims(figures)]


def tell(found: Found) -> Table:
    """The machine."""
    about = found["machine"]
    rows = [
        [name.replace("_", " "), str(about[name])] for name in ("processor", "cores", "memory_gib", "system", "python")
    ]
    rows += [[name, version] for name, version in about["versions"].items()]
    return Table(f"Measured on {found['measured_at'][:10]}", ["", ""], rows)


def blocks(found: Found) -> dict[str, str]:
    """The text of each marked block of the page."""
    texts = {"machine": tell(found).markdown(), "claims": claims_table(all_claims(found)).markdown()}
    for name, figures in found["parts"].items():
        texts[name] = "\n\n".join(table.markdown() for table in part_of(name).tables(figures))
    return texts


def filled(page: str, texts: dict[str, str]) -> str:
    """The page with its blocks, each between `<!-- name -->` and `<!-- /name -->`, as they are now."""
    for name, text in texts.items():
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, found, rest = page.partition(start)
        if not found or end not in rest:
            raise SystemExit(f"docs/performance.md has no block {start} ... {end}")
        page = f"{before}{start}\n\n{text}\n\n{end}{rest.partition(end)[2]}"
    return page


def write_docs(found: Found) -> None:
    """Figures and tables into docs/; parts that were not measured keep theirs."""
    file = DOCS / "performance.json"
    if file.exists():
        known: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        found = {**found, "parts": {**known["parts"], **found["parts"]}}
    file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    page = DOCS / "performance.md"
    page.write_text(filled(page.read_text(encoding="utf-8"), blocks(found)), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "part",
        nargs="*",
        choices=[[], *PARTS, *ON_DEMAND],
        help=f"of {', '.join(PARTS)}; all of these, if none is named; only if named: {', '.join(ON_DEMAND)}",
    )
    parser.add_argument("--full", action="store_true", help="longer, at more sizes, and with all peers")
    parser.add_argument("--json", type=file_to_write, help="write all figures to this file")
    parser.add_argument("--docs", action="store_true", help="write them into docs/")
    options = parser.parse_args()
    found: Found = {
        "measured_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "full": options.full,
        "parts": {},
    }
    print(tell(found).text(), end="\n\n")
    for name in options.part or PARTS:
        started = time.perf_counter()
        print(f"--- {name}: {part_of(name).about.splitlines()[0]}", flush=True)
        found["parts"][name] = apart(f"benchmarks.{name}", ["--full"] if options.full else [])
        print(f"({time.perf_counter() - started:.0f} s)\n", flush=True)
        if options.json is not None:  # after each part: what is measured is kept if a later one fails
            options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    print(claims_table(all_claims(found)).text())
    if options.docs:
        write_docs(found)


if __name__ == "__main__":
    main()
