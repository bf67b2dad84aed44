"""What is not a call to a model, on its way to the database: events, other costs, executions of agents.

Their rows are made in the caller's thread, and the log holds them as they will be sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from vital_tracking.spool.log_record import RecordKind


class PlatformRecord(NamedTuple):
    """An event, a cost or an execution: what it is, the 16 bytes of its id, and its row as JSON."""

    kind: RecordKind
    id: bytes
    payload: bytes


RECORDING: Final[Mapping[int, tuple[str, str]]] = {
    RecordKind.EVENT: ("record_events_v1", "events"),
    RecordKind.COST: ("record_costs_v1", "costs"),
    RecordKind.EXECUTION: ("record_executions_v1", "executions"),
}
"""The function of the database that takes each kind, and the name of its argument."""
