"""A dated price of a model: the team's own, or one that genai-prices lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final

from vital_tracking.core.cost import MONEY
from vital_tracking.core.rates import Rate, amount, per_million
from vital_tracking.core.units import UNITS

# The fields of a price of tokens, and the units they are for.
TOKEN_PRICES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "input": "input_tokens",
        "output": "output_tokens",
        "cache_read": "cache_read_tokens",
        "cache_write": "cache_write_tokens",
        "cache_write_1h": "cache_write_1h_tokens",
        "reasoning": "output_reasoning_tokens",
        "audio_input": "input_audio_tokens",
        "audio_output": "output_audio_tokens",
    }
)


@dataclass(frozen=True, slots=True)
class Price:
    """A price of the team's own, in US dollars, from an instant on.

    `model` and `provider` name what it is for; without a provider it is for the model wherever it runs. `valid_from` is the
    instant from which it holds (a naive one is UTC; None: always), `version` what rows say of it, by default these three.

    `input` and `output` are the rates of plain tokens, for a million. `cache_read`, `cache_write`, `cache_write_1h` (kept an
    hour) and `audio_input` are by default those of `input`, `reasoning` and `audio_output` those of `output`, as providers bill
    them. `per_request` is for a call. `units` are prices of other units by their names in UNITS, such as
    `{"web_searches": "0.01"}`: for a million tokens (`output_image_tokens`), or for one of anything else. Units that are not
    named keep their listed price; without an `input` the tokens do, too.

    All amounts are Decimal, int or text such as "0.15"; a float is refused with a ValueError, since it is not the number that
    was written.
    """

    model: str
    input: Decimal | int | str | None = None
    output: Decimal | int | str | None = None
    provider: str | None = None
    valid_from: datetime | None = None
    cache_read: Decimal | int | str | None = None
    cache_write: Decimal | int | str | None = None
    cache_write_1h: Decimal | int | str | None = None
    reasoning: Decimal | int | str | None = None
    audio_input: Decimal | int | str | None = None
    audio_output: Decimal | int | str | None = None
    per_request: Decimal | int | str | None = None
    units: Mapping[str, Decimal | int | str] = field(default_factory=dict)
    version: str | None = None

    def __post_init__(self) -> None:
        for name in (*TOKEN_PRICES, "per_request"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, amount(value, f"{name} of {self.model}"))
        units = {name: amount(value, f"{name} of {self.model}") for name, value in self.units.items()}
        object.__setattr__(self, "units", MappingProxyType(units))
        if self.input is None and not units:
            raise ValueError(f"a price of {self.model} needs `input`, or prices of other `units`")
        if self.input is None and any(getattr(self, name) is not None for name in TOKEN_PRICES):
            raise ValueError(f"a price of {self.model} for tokens needs `input`")
        if self.input is not None and self.output is None:
            object.__setattr__(self, "output", Decimal(0))

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Price:
        """A price from a row of `model_prices` as JSON (amounts as text)."""
        start = row.get("valid_from")
        return cls(
            model=row["model"],
            provider=row.get("provider"),
            valid_from=datetime.fromisoformat(start) if start else None,
            version=f"model_prices {row['id']}",
            per_request=row.get("request_usd"),
            units={name: Decimal(str(value)) for name, value in (row.get("unit_prices") or {}).items()},
            **{name: row.get(f"{name}_usd_per_mtok") for name in TOKEN_PRICES},
        )

    def label(self) -> str:
        """What rows say of the price that they were priced by."""
        start = f" from {aware(self.valid_from).date().isoformat()}" if self.valid_from else ""
        return self.version or f"own price {self.provider or '*'}/{self.model}{start}"

    def rates(self) -> dict[str, Rate]:
        """The rates that it states, by unit."""
        found: dict[str, Rate] = {
            unit: per_million(value)
            for name, unit in TOKEN_PRICES.items()
            if (value := getattr(self, name)) is not None and isinstance(value, Decimal)
        }
        for name, value in self.units.items():
            unit = UNITS.get(name)
            found[name] = MONEY.divide(Decimal(value), Decimal(unit.scale if unit is not None else 1))
        if isinstance(self.per_request, Decimal):
            found["requests"] = self.per_request
        return found


def aware(moment: datetime) -> datetime:
    """A naive instant is taken as UTC."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
