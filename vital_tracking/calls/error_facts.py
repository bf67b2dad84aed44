"""What an error says about a call: how it ended, whether its answer was paid, and what is known of the answer.

An answer that came is paid, whatever became of it in the client: a schema that it does not fit, a body that the SDK refuses. Such
an error carries the answer with it, as an attribute or in the variables of the code that raised it. Only counts are taken.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Final

from vital_tracking.calls.quirks import COUNTS_IN
from vital_tracking.core.record import HUNG_UP, PRICE_FACTS
from vital_tracking.core.sanitize import fields_of

# Errors that leave open whether the provider has billed: it may have been working when we stopped listening, or its answer was
# cut on the way.
_PERHAPS_BILLED: Final = frozenset(
    {
        "APITimeoutError",
        "CancelledError",
        "ChunkedEncodingError",
        "EventStreamError",
        "GeneratorExit",
        "IncompleteRead",
        "KeyboardInterrupt",
        "ReadError",
        "ReadTimeout",
        "ReadTimeoutError",
        "RemoteProtocolError",
        "Timeout",
        "TimeoutError",
    }
)

# Errors that are made of an answer that could not be read.
_OF_AN_ANSWER: Final = frozenset({"APIResponseValidationError", "JSONDecodeError", "UnknownApiResponseError"})

# Codes of errors that may be stored: fixed words, which quote no request.
ERROR_CODES: Final = frozenset(
    {
        "authentication_error",
        "content_filter",
        "context_length_exceeded",
        "insufficient_quota",
        "invalid_api_key",
        "invalid_request_error",
        "model_not_found",
        "not_found_error",
        "overloaded_error",
        "permission_error",
        "rate_limit_error",
        "rate_limit_exceeded",
        "server_error",
        "api_error",
    }
)

# Codes by which providers refuse a call in a stream, whose status is 200 by then. What came before them was billed.
_REFUSALS: Final = frozenset(
    {
        "overloaded_error",
        "rate_limit_error",
        "serviceUnavailableException",  # Bedrock's, as https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_ConverseStream.html
        "throttlingException",
        "validationException",
    }
)

# Where errors carry the answer, and what the code that reads answers calls it.
_ATTRIBUTES: Final = ("completion", "response", "raw_event", "body", "doc")
_VARIABLES: Final = ("response", "raw_response", "completion", "chunk", "_response")

# What of an answer is kept beside its counts: which model gave it, and what else decides the price.
_WORDS: Final = ("model", *PRICE_FACTS)

_REFUSED: Final = 400
_STATUSES: Final = range(100, 600)
_LONGEST_BODY: Final = 8 << 20
_MOST_CAUSES: Final = 4
_DEEPEST: Final = 4


class ErrorFacts:
    """How a call failed.

    `refused`: the provider answered with an error. `answered`: an answer came, or a part of one. `perhaps_billed`: nobody knows
    whether one was made. `usage` is what the answer says of it, in the words of its provider; None where nothing is known.
    """

    __slots__ = ("answered", "code", "hung_up", "name", "perhaps_billed", "refused", "status", "usage")

    def __init__(self, error: BaseException, partial: Any = None) -> None:
        """Read an `error`; `partial` is the part of a result that LangChain hands over with it."""
        causes = list(_causes(error))
        names = {cls.__name__ for cause in causes for cls in type(cause).__mro__}
        self.name = type(error).__name__
        self.hung_up = bool({cls.__name__ for cls in type(error).__mro__} & HUNG_UP)
        self.status = next((status for status in map(_http_status, causes) if status is not None), None)
        codes = {code for cause in causes for code in _codes(cause)}
        self.refused = (self.status is not None and self.status >= _REFUSED) or not codes.isdisjoint(_REFUSALS)
        self.perhaps_billed = bool(names & _PERHAPS_BILLED)
        code = getattr(error, "code", None) or getattr(error, "type", None)
        self.code = code if isinstance(code, str) and code in ERROR_CODES else None
        self.usage: Mapping[str, Any] | None = None
        self.answered = False
        if self.hung_up:
            return
        answers = [] if self.refused else [answer for cause in causes for answer in _answers(cause)]
        self.answered = bool(answers) or (not self.refused and (bool(names & _OF_AN_ANSWER) or self.status is not None))
        bodies = _bodies(partial)
        for answer in (*answers, *bodies):
            if (counts := counts_in(answer)) is not None:
                self.usage, self.answered = counts, True
                break


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if seen is None:
            return
        yield seen
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)


def _answers(error: BaseException) -> Iterator[Any]:
    """What may be the answer that an error was made of: its attributes, then the variables of the code that raised it."""
    for name in _ATTRIBUTES:
        value = getattr(error, name, None)
        if value is not None:
            yield value
    frames = []
    traceback: TracebackType | None = error.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame)
        traceback = traceback.tb_next
    for frame in reversed(frames):
        if frame.f_globals.get("__name__", "").startswith("langchain_core."):
            continue  # what is in hand there is not the provider's
        variables = frame.f_locals
        for name in _VARIABLES:
            if variables.get(name) is not None:
                yield variables[name]


def _bodies(partial: Any) -> Iterator[Any]:
    """The bodies of answers that LangChain hands over with an error, where the provider did not refuse."""
    for generations in getattr(partial, "generations", None) or ():
        for generation in generations:
            fields = getattr(getattr(generation, "message", None), "response_metadata", None)
            if isinstance(fields, Mapping) and "body" in fields:
                status = fields.get("status_code")
                if not isinstance(status, int) or status < _REFUSED:
                    yield fields["body"]


def counts_in(answer: Any, depth: int = _DEEPEST) -> Mapping[str, Any] | None:
    """The counts in an answer: a parsed one, its JSON, or a response of an HTTP client; None where there are none."""
    if depth == 0 or answer is None:
        return None
    if isinstance(answer, (str, bytes, bytearray)):
        if len(answer) > _LONGEST_BODY:
            return None
        try:
            answer = json.loads(answer)
        except ValueError:
            return None
    if isinstance(answer, Mapping):
        for name in COUNTS_IN:
            if (found := _dumped(answer.get(name))) is not None:
                return {**found, **{word: text for word in _WORDS if isinstance(text := answer.get(word), str)}}
        return counts_in(answer.get("response"), depth - 1) if isinstance(answer.get("response"), Mapping) else None
    for name in COUNTS_IN:
        if (found := _dumped(getattr(answer, name, None))) is not None:
            return {**found, **{word: text for word in _WORDS if isinstance(text := getattr(answer, word, None), str)}}
    for name in ("response", "http_response", "content", "body"):
        inner = None
        with suppress(Exception):  # the body of a response that was not read yet
            inner = getattr(answer, name, None)
        if inner is not None and not callable(inner) and (found := counts_in(inner, depth - 1)) is not None:
            return found
    return None


def _dumped(counts: Any) -> Mapping[str, Any] | None:
    """Counts as a mapping, whatever object holds them; None where there are none."""
    return fields_of(counts) or None


def _codes(error: BaseException) -> Iterator[str]:
    """By what codes an error names its kind."""
    response = getattr(error, "response", None)
    inner = response.get("Error") if isinstance(response, Mapping) else None  # botocore
    named = (getattr(error, "type", None), inner.get("Code") if isinstance(inner, Mapping) else None)
    return (code for code in named if isinstance(code, str))


def _http_status(error: BaseException) -> int | None:
    """The status of the HTTP answer that an error was made of, by whatever name; None where it names none."""
    response = getattr(error, "response", None)
    candidates = [getattr(error, "status_code", None), getattr(response, "status_code", None)]
    if isinstance(response, Mapping):  # botocore
        metadata = response.get("ResponseMetadata")
        candidates.append(metadata.get("HTTPStatusCode") if isinstance(metadata, Mapping) else None)
    candidates.append(getattr(error, "code", None))  # google-genai
    return next((value for value in candidates if type(value) is int and value in _STATUSES), None)
