"""Which requests of an access log cost something, by rules such as `search=/api/search*`."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fnmatch import translate
from functools import lru_cache
from typing import Any, Final, get_args

from vital_tracking.core.closest import did_you_mean
from vital_tracking.core.platform import CostType
from vital_tracking.core.sanitize import clean_text, money
from vital_tracking.errors import VitalError
from vital_tracking.imports.access_log import Request

COST_TYPES: Final = tuple(kind for kind in get_args(CostType) if kind not in ("llm", "embedding", "storage", "compute"))
"""What a request can be a cost of: what is billed by the call, and bandwidth by its bytes."""

_GB: Final = Decimal(10) ** 9
_FAILED: Final = 400


@dataclass(frozen=True, slots=True)
class CostRule:
    """Requests whose path matches `pattern`, with * and ? as in a shell, cost a `cost_type`, of a `resource` where one is named.

    Of bandwidth every answer costs its bytes, in gigabytes of 10^9; of all else each request that was answered without an
    error (a status below 400) is one call.
    """

    cost_type: str
    pattern: str
    resource: str | None = None

    @classmethod
    def parse(cls, text: str) -> CostRule:
        """From `search=/api/search*`, or `search:brave=/api/search*` with a resource. Raises VitalError."""
        what, equals, pattern = text.partition("=")
        cost_type, _, resource = what.partition(":")
        if not equals or not pattern.strip():
            raise VitalError(f"A rule names a kind of cost and paths, such as search=/api/search*, not {text!r}.")
        if cost_type.strip() not in COST_TYPES:
            near = did_you_mean(cost_type, COST_TYPES)
            raise VitalError(f"{cost_type.strip()!r} is no cost of a request{near} One of: {', '.join(COST_TYPES)}")
        return cls(cost_type.strip(), pattern.strip(), clean_text(resource.strip()) or None)

    @property
    def service(self) -> str:
        """What the cost is for: the path without its wildcards, which mean `any` where one filters; `requests` of all."""
        return clean_text(self.pattern.replace("*", "").rstrip("/")) or "requests"

    def quantity(self, request: Request) -> Decimal | None:
        """How much of it a request that matches costs; None where nothing."""
        if self.cost_type == "bandwidth":
            return Decimal(request.size) / _GB if request.size else None
        return Decimal(1) if request.status is None or request.status < _FAILED else None

    def row(self, request: Request, line_id: str, organization: str | None) -> dict[str, Any] | None:
        """The cost of a request that matches; None where there is none."""
        quantity = self.quantity(request)
        if quantity is None:
            return None
        row = {
            "id": line_id,
            "occurred_at": request.time,
            "organization_id": organization,
            "user_id": request.user_id,
            "cost_type": self.cost_type,
            "service": self.service,
            "resource": self.resource,
            "quantity": money(quantity),
            "unit": "gb" if self.cost_type == "bandwidth" else "call",
        }
        return {name: value for name, value in row.items() if value is not None}


def matching(rules: Sequence[CostRule]) -> Callable[[str], tuple[int, ...]]:
    """What says which rules, by their numbers, a path matches. Of several rules of one kind the first that matches counts."""
    patterns = [(number, rule.cost_type, re.compile(translate(rule.pattern))) for number, rule in enumerate(rules)]

    @lru_cache(65_536)
    def find(path: str) -> tuple[int, ...]:
        found: dict[str, int] = {}
        for number, kind, pattern in patterns:
            if kind not in found and pattern.match(path):
                found[kind] = number
        return tuple(found.values())

    return find
