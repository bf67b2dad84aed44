"""How good the team finds a model: tier 1 is best, 3 is good enough for simple things. No scores are shipped.

All functions raise StoreError where the database cannot answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.core.providers import provider_id
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.stores import Store

_DATE: Final = re.compile(r"-(\d{8}|\d{4}-\d{2}-\d{2})$")

TIERS: Final = (1, 2, 3)
"""The tiers, the best first."""


@answer_type
class ModelTier(TypedDict):
    """The tier of a model, with who set it and when; `provider` None is for any, unless its provider has an entry of its own."""

    provider: str | None
    model: str
    tier: int
    set_by: str
    set_at: datetime
    note: str | None


MODEL_TIER_COLUMNS: Final = tuple(ModelTier.__annotations__)


@answer_type
class ModelTierSet(ModelTier):
    """A tier as it was set, and the one that the model had `before`; None where it had none."""

    before: int | None


def model_tiers(store: Store) -> list[ModelTier]:
    """The tiers that the asker may see, the best first."""
    return typed(list[ModelTier], store.call("model_tiers_v1"))


def set_model_tier(
    store: Store, model: str, tier: int, *, provider: str | None = None, note: str | None = None
) -> ModelTierSet:
    """Set the tier of a model, of a provider or of any; operators alone may. Raises StoreRejected for what is no tier."""
    return typed(ModelTierSet, store.call("set_model_tier_v1", model=model, tier=tier, provider=provider, note=note))


def remove_model_tier(store: Store, model: str, *, provider: str | None = None) -> bool:
    """Take the tier of a model away, that for a provider or else that for any; whether there was one."""
    return bool(store.call("remove_model_tier_v1", model=model, provider=provider)["removed"])


def tier_of(tiers: Iterable[ModelTier], provider: str | None, model: str | None) -> int | None:
    """The tier of a model, by the name that calls carry: the entry for its provider, else that for any; None: nobody said.

    A name with a date (`gpt-4o-2024-08-06`) that has no entry of its own has that of the name without it.
    """
    if model is None:
        return None
    wanted, named = provider_id(provider), model.strip().lower()
    entries = {(provider_id(entry["provider"]), entry["model"].lower()): entry["tier"] for entry in tiers}
    names = dict.fromkeys((named, _DATE.sub("", named)))
    places = ((owner, name) for name in names for owner in (wanted, None))
    return next((entries[place] for place in places if place in entries), None)
