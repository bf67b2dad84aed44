"""Parquet: rows as text become typed columns, written a row group at a time, compressed with zstd. Needs the extra `parquet`.

Amounts are decimals of 38 digits, 26 of them behind the point, in every file alike: a reader that takes many files at once takes
the type of the first. Where that is too little for an amount, its column has the digits it needs, and past 38 digits it is
text; `odd` tells which. Nothing is ever rounded.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from pathlib import Path
from typing import IO, Any, Final

from vital_tracking.errors import MissingExtra, VitalError
from vital_tracking.stores.relations import ColumnKind, Relation, Values

_ROWS_A_GROUP: Final = 100_000
_DIGITS: Final = 38
_BEHIND: Final = 26
_EXACT: Final = Context(prec=200)

Digits = Mapping[str, Sequence[int]]
"""By amount column: how many digits stand before the point, and how many behind it."""


class ParquetWriter:
    """Writes rows of a relation. In memory is one row group, as columns; a file of that name is there once all is written."""

    def __init__(self, target: Path | IO[bytes], relation: Relation, digits: Digits | None = None) -> None:
        self._arrow = _pyarrow()
        self._parquet = _pyarrow("pyarrow.parquet")
        self._relation = relation
        self._types = [self._type(kind, (digits or {}).get(name)) for name, kind in relation.columns.items()]
        self._schema = self._arrow.schema(list(zip(relation.columns, self._types, strict=True)))
        self._waiting: list[Any] = []
        self._rows_waiting = 0
        self._path = target if isinstance(target, Path) else None
        self._partial = part_of(target) if isinstance(target, Path) else None
        self._sink: Any = target if self._partial is None else self._partial.open("wb")
        self._writer = self._parquet.ParquetWriter(self._sink, self._schema, compression="zstd")
        self.rows = 0
        self.odd = [
            f"{name} ({type_})"
            for (name, kind), type_ in zip(relation.columns.items(), self._types, strict=True)
            if kind is ColumnKind.decimal and type_ != self._arrow.decimal128(_DIGITS, _BEHIND)
        ]

    def __enter__(self) -> ParquetWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        try:
            if kind is None:
                self._write_group()
            self._writer.close()
            if self._path is not None and self._partial is not None:
                self._sink.flush()
                os.fsync(self._sink.fileno())
        except OSError:
            self._discard()
            raise
        if kind is not None:
            self._discard()
        elif self._path is not None and self._partial is not None:
            self._sink.close()
            self._partial.replace(self._path)

    def write(self, rows: Sequence[Values]) -> None:
        """Add rows."""
        columns = zip(*rows, strict=True)
        try:
            arrays = [
                self._array(values, kind, type_)
                for values, kind, type_ in zip(columns, self._relation.columns.values(), self._types, strict=True)
            ]
        except self._arrow.ArrowInvalid:
            raise VitalError(
                "An amount has more digits than those that were there at the start. Run it again."
            ) from None
        self._waiting.append(self._arrow.record_batch(arrays, schema=self._schema))
        self._rows_waiting += len(rows)
        self.rows += len(rows)
        if self._rows_waiting >= _ROWS_A_GROUP:
            self._write_group()

    def _write_group(self) -> None:
        if self._waiting:
            table = self._arrow.Table.from_batches(self._waiting)
            self._writer.write_table(table, row_group_size=self._rows_waiting)
        self._waiting, self._rows_waiting = [], 0

    def _discard(self) -> None:
        if self._partial is not None:
            with contextlib.suppress(OSError):
                self._sink.close()
            self._partial.unlink(missing_ok=True)

    def _array(self, values: Sequence[str | None], kind: ColumnKind, type_: Any) -> Any:
        if kind is ColumnKind.list:
            return self._arrow.array([_list(value) for value in values], type_)
        texts = self._arrow.array(values, self._arrow.string())
        return texts if type_ == self._arrow.string() else texts.cast(type_)

    def _type(self, kind: ColumnKind, digits: Sequence[int] | None) -> Any:
        arrow = self._arrow
        if kind is ColumnKind.decimal:
            before, behind = digits or (1, _BEHIND)
            # The usual scale wherever it fits, so that files of one kind have the same types.
            scale = max(behind, min(_BEHIND, _DIGITS - before))
            return arrow.decimal128(_DIGITS, scale) if before + scale <= _DIGITS else arrow.string()
        return {
            ColumnKind.text: arrow.string(),
            ColumnKind.json: arrow.string(),
            ColumnKind.integer: arrow.int64(),
            ColumnKind.real: arrow.float64(),
            ColumnKind.truth: arrow.bool_(),
            ColumnKind.time: arrow.timestamp("us", "UTC"),
            ColumnKind.day: arrow.date32(),
            ColumnKind.list: arrow.list_(arrow.string()),
        }[kind]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a month or a file holds: its rows, the sum of their amounts, and that of what their ids' last twelve digits say."""

    rows: int
    amount: Decimal
    ids: Decimal


def read_back(path: Path, amount: str = "total_cost") -> Contents:
    """What a file of rows holds, whose amounts are in that column, from reading all of it, a row group at a time."""
    arrow, parquet = _pyarrow(), _pyarrow("pyarrow.parquet")
    rows, ids, total = 0, 0, Decimal(0)
    try:
        with parquet.ParquetFile(path) as file:
            for number in range(file.num_row_groups):
                group = file.read_row_group(number)  # all of it: a column that cannot be read is no archive
                rows += group.num_rows
                ids += sum(int(text[-12:], 16) for text in group.column("id").to_pylist())
                for value in group.column(amount).drop_null().to_pylist():
                    total = _EXACT.add(total, Decimal(value))
    except (arrow.ArrowException, OSError, KeyError) as error:
        raise VitalError(f"{path} cannot be read as a file of such rows ({type(error).__name__}).") from None
    return Contents(rows, total, Decimal(ids))


def _list(text: str | None) -> list[str] | None:
    if text is None or text == "[]":
        return None if text is None else []
    found: list[str] = json.loads(text)
    return found


def part_of(path: Path) -> Path:
    """The name under which a file is written until it is whole."""
    return path.with_name(f".{path.name}.part")


def _pyarrow(name: str = "pyarrow") -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise MissingExtra("parquet", "Parquet") from None
