"""The runs around calls: chains, graphs, tools and retrievers are followed for parentage, and for calls they leave behind."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

from vital_tracking.calls.attribution import note_entrypoint
from vital_tracking.calls.in_flight import InFlightRegistry
from vital_tracking.core.frames import current_frame, locate
from vital_tracking.core.record import HUNG_UP
from vital_tracking.core.sanitize import clean_text
from vital_tracking.delivery import Recorder


class RunFollower(BaseCallbackHandler):
    """The part of the handler that is told of runs; no fault of it gets out."""

    _recorder: Recorder
    _calls: InFlightRegistry

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Note a run and its place in the tree, and the thread that a graph serves."""
        try:
            self._calls.start_run(run_id, parent_run_id)
            if metadata is None:
                return
            if "langgraph_triggers" in metadata:
                note_entrypoint(metadata)
            if "thread_id" in metadata:
                frame, _ = locate(current_frame.get(), metadata)
                if frame is not None and frame.context.session_id is None:
                    self._recorder.serves_thread(frame.context.service_run_id, clean_text(metadata["thread_id"]))
        except Exception as error:  # noqa: BLE001
            self._recorder.fault(error)

    def on_retriever_start(
        self, serialized: Any, query: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Note a retriever's run."""
        self.on_chain_start(serialized, None, run_id=run_id, parent_run_id=parent_run_id)

    def on_tool_start(
        self, serialized: Any, input_str: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any
    ) -> None:
        """Note a tool's run and name: calls inside it are its own."""
        try:
            name = kwargs.get("name") or (serialized or {}).get("name")
            self._calls.start_run(run_id, parent_run_id, tool=str(name) if name else "tool")
        except Exception as error:  # noqa: BLE001
            self._recorder.fault(error)

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a run; calls that it leaves open are given a little time."""
        try:
            self._calls.end_run(run_id, "abandoned")
        except Exception as error:  # noqa: BLE001
            self._recorder.fault(error)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """Forget a run that failed; a cancelled one has cancelled the calls in it."""
        try:
            self._calls.end_run(run_id, "cancelled" if type(error).__name__ in HUNG_UP else "abandoned")
        except Exception as fault:  # noqa: BLE001
            self._recorder.fault(fault)

    on_tool_end = on_retriever_end = on_chain_end  # type: ignore[assignment]
    on_tool_error = on_retriever_error = on_chain_error
