"""Names that commands read by: one that nobody knows is an error that says which was meant, and not an empty answer."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from vital_tracking.core.closest import did_you_mean
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.providers import provider_id
from vital_tracking.errors import VitalError
from vital_tracking.queries.explore import DIMENSIONS, Period, explore
from vital_tracking.queries.organizations import unknown_organizations
from vital_tracking.stores import Store

_REACH = timedelta(days=366)
_MOST = 10_000


def known_organization(store: Store, organization: str | None) -> str | None:
    """The organization; VitalError where nothing is known of it, and it is called much like one that there is."""
    if organization is not None:
        for name, meant in unknown_organizations(store, [organization]).items():
            if meant:
                raise VitalError(f"Nothing is known of organization {name}{did_you_mean(name, meant)}")
    return organization


def check_called(store: Store, period: Period, wanted: Mapping[str, str | None], organization: str | None) -> None:
    """Refuse a name, by the dimension that it is of, that no call of a period bears."""
    filters = {} if organization is None else {"organization": [organization]}
    for dimension, name in wanted.items():
        if name is None:
            continue
        rows = explore(
            store, period, by=[dimension], filters=filters, measures=["calls"], order_by="calls", rows=_MOST
        ).rows
        known = [row[dimension] for row in rows if row[dimension] is not None]
        if name not in known:
            title = DIMENSIONS[dimension]
            raise VitalError(f"No call of {title} {name} was made in this time{did_you_mean(name, known)}")


def check_model(store: Store, prices: PriceBook, model: str, provider: str | None) -> None:
    """Refuse a model, or a provider, that has no price and to which no call of a year went."""
    now = datetime.now(UTC)
    called = explore(store, Period(now - _REACH, now), by=["provider", "model"], measures=["calls"], rows=_MOST).rows
    known = [*prices.models(), *((row["provider"], row["model"]) for row in called if row["model"] is not None)]
    if provider is not None:
        owners = sorted({owner for owner, _ in known if owner})
        if provider_id(provider) not in {provider_id(owner) for owner in owners}:
            raise VitalError(f"Nothing is known of provider {provider}{did_you_mean(provider, owners)}")
    if model.lower() not in {name.lower() for _, name in known}:
        said = did_you_mean(model, sorted({name for _, name in known}))
        raise VitalError(f"Nothing is known of model {model}{said} If it is a new one, say so: --new")
