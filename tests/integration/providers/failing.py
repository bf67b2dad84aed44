"""Calls that fail in the client: refused by the provider, or paid and then refused by the integration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.integration.providers.corpus import Case, row_of
from tests.support.wire_server import WireAnswer


@dataclass(frozen=True, kw_only=True)
class Failure:
    """What the server sends, the error that the user gets of it, and the `case` that says what the row must hold."""

    case: Case
    reply: WireAnswer
    error: type[BaseException]

    @property
    def name(self) -> str:
        """The case's."""
        return self.case.name


class _Failing:
    """A model each of whose calls must fail with an error."""

    def __init__(self, model: Any, error: type[BaseException]) -> None:
        self._model = model
        self._error = error

    def invoke(self, *arguments: Any, **named: Any) -> None:
        with pytest.raises(self._error):
            self._model.invoke(*arguments, **named)

    def stream(self, *arguments: Any, **named: Any) -> Iterator[Any]:
        with pytest.raises(self._error):
            yield from self._model.stream(*arguments, **named)


def failed_row(failure: Failure, build: Callable[[str, Case], Any], *, streamed: bool) -> dict[str, Any]:
    """The row of a call that fails so."""
    return row_of(
        failure.case,
        lambda url, case: _Failing(build(url, case), failure.error),
        lambda _case, _request: failure.reply,
        streamed=streamed,
    )
