"""What a part of the benchmarks tells: its figures, the tables that show them, and which of the sizes to keep it keeps."""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

Found = dict[str, Any]  # a part's figures, as JSON can hold them

_SHOWN = (
    "langchain-core",
    "langgraph",
    "langchain",
    "psycopg",
    "supabase",
    "langsmith",
    "langfuse",
    "openinference-instrumentation-langchain",
)


@dataclass(frozen=True)
class Table:
    """A table: its first column names the row, all others are figures."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """For a terminal: columns as wide as what stands in them."""
        lines = [self.columns, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.columns))]
        told = [self.title]
        for line in lines:
            cells = [
                line[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
            ]
            told.append("  " + "   ".join(cells).rstrip())
        return "\n".join(told)

    def markdown(self) -> str:
        """For a page."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        return "\n".join([f"{self.title}:", "", *(f"| {' | '.join(line)} |" for line in lines)])


@dataclass(frozen=True)
class Claim:
    """A size to keep."""

    what: str
    value: float
    bound: Literal["at most", "at least"]
    limit: float
    unit: str = ""

    @property
    def kept(self) -> bool:
        """Whether the figure is on the right side of its limit."""
        return self.value <= self.limit if self.bound == "at most" else self.value >= self.limit

    def cells(self) -> list[str]:
        """Its line in the table of all claims."""
        unit = f" {self.unit}" if self.unit else ""
        verdict = "yes" if self.kept else "**no**"
        return [self.what, f"{number(self.value)}{unit}", f"{self.bound} {number(self.limit)}{unit}", verdict]


def claims_table(claims: Iterable[Claim]) -> Table:
    """All claims."""
    return Table("Sizes to keep", ["", "measured", "to keep", "kept"], [claim.cells() for claim in claims])


@dataclass(frozen=True)
class Part:
    """One part of the benchmarks. `measure` has the options that `quick` and `full` give, by name."""

    name: str
    about: str
    measure: Callable[..., Found]
    tables: Callable[[Found], list[Table]]
    claims: Callable[[Found], list[Claim]] = field(default=lambda _: [])
    quick: dict[str, Any] = field(default_factory=dict)
    full: dict[str, Any] = field(default_factory=dict)

    def main(self) -> None:
        """The command of this part alone."""
        parser = argparse.ArgumentParser(description=self.about, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--full", action="store_true", help="longer, and at more sizes")
        parser.add_argument("--json", type=file_to_write, help="write the figures to this file too")
        for name, value in self.quick.items():
            longer = self.full.get(name, value)
            parser.add_argument(
                f"--{name.replace('_', '-')}",
                type=type(value),
                help=f"{value}" + f", {longer} in full" * (longer != value),
            )
        options = parser.parse_args()
        chosen = {name: value for name in self.quick if (value := getattr(options, name)) is not None}
        found = self.measure(**{**self.quick, **(self.full if options.full else {}), **chosen})
        for table in self.tables(found):
            print(table.text(), end="\n\n")
        if claims := self.claims(found):
            print(claims_table(claims).text())
        if options.json is not None:
            options.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def file_to_write(text: str) -> Path:
    """A file in a folder that is there: known before anything is measured, so that nothing is measured in vain."""
    file = Path(text)
    if not file.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"there is no folder {file.absolute().parent}")
    return file


# Figures


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median of the rounds, the least and the most, and the quartiles."""
    middle = statistics.median(values)
    quartiles = statistics.quantiles(values, n=4) if len(values) > 1 else [middle] * 3
    return {"median": middle, "least": min(values), "most": max(values), "low": quartiles[0], "high": quartiles[2]}


def ratios(values: Sequence[float], bases: Sequence[float]) -> dict[str, float]:
    """The spread of the rounds' own ratios: what disturbs a round disturbs both."""
    return spread([value / base for value, base in zip(values, bases, strict=True)])


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """How a figure grows with its size: 0 not at all, 1 linearly; the slope of the logarithms' least-squares line."""
    xs, ys = [math.log(size) for size in sizes], [math.log(max(value, 1e-12)) for value in values]
    return statistics.linear_regression(xs, ys).slope


def number(value: float) -> str:
    """A number with three digits that say something."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = 2 - math.floor(math.log10(abs(value)))
    return f"{value:,.{max(0, min(digits, 4))}f}"


def spanned(one: dict[str, float]) -> str:
    """A median with the middle half of its rounds."""
    return f"{number(one['median'])} ({number(one['low'])} to {number(one['high'])})"


# The machine


def machine() -> dict[str, Any]:
    """What the figures are of."""
    versions = {}
    for name in _SHOWN:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "load_at_start": os.getloadavg()[0],
        "versions": versions,
    }


def _processor() -> str:
    with contextlib.suppress(OSError), Path("/proc/cpuinfo").open(encoding="utf-8") as lines:  # of Linux
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def apart(module: str, options: Sequence[str]) -> Found:
    """Run a part in a process of its own, which shows its tables; its figures."""
    with tempfile.TemporaryDirectory(prefix="vital-bench-") as folder:
        file = Path(folder, "found.json")
        subprocess.run([sys.executable, "-m", module, *options, "--json", str(file)], check=True)
        found: Found = json.loads(file.read_text(encoding="utf-8"))
        return found
