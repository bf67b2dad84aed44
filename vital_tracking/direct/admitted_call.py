"""A call that code makes by itself, after its budgets have let it go: what `tracker.admit()` gives."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any

from vital_tracking.core.admission import Admission


class AdmittedCall:
    """One admitted call: make it with `model`, then `record(...)` what it used.

    `model` is the one to use, a cheaper one where the budgets asked for that; `max_tokens` what its answer must be limited to,
    None where nothing new limits it; `action` the strictest action of a budget that was applied; `waited` the seconds that a
    throttle took. Leaving the `with` block without a record gives back what was set aside; leaving it with an error records the
    call as failed.
    """

    def __init__(
        self,
        admission: Admission,
        record: Callable[..., str],
        release: Callable[[Admission], None],
        *,
        model: str | None,
        max_tokens: int | None,
    ) -> None:
        self.model = model
        self.max_tokens = admission.max_tokens if admission.max_tokens is not None else max_tokens
        self.action = admission.action
        self.waited = (admission.throttled_ms or 0.0) / 1000
        self._admission: Admission | None = admission
        self._record = record
        self._release = release

    def record(self, **usage: Any) -> str:
        """Record the call; returns its id. `usage` are the arguments of `tracker.record` but those that `admit` was given.

        A second record of the same admission is one more call, for which nothing was set aside.
        """
        admission, self._admission = self._admission, None
        try:
            return self._record(admission=admission, **{"model": self.model, **usage})
        except BaseException:  # an argument that there is not: nothing was recorded
            self._admission = admission
            raise

    def release(self) -> None:
        """The call is not made: give back what was set aside for it."""
        admission, self._admission = self._admission, None
        if admission is not None:
            self._release(admission)

    def __del__(self) -> None:
        self.release()  # dropped without a record; releasing takes no lock

    def __enter__(self) -> AdmittedCall:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is not None and self._admission is not None:
            self.record(error=error)
        self.release()

    async def __aenter__(self) -> AdmittedCall:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)
