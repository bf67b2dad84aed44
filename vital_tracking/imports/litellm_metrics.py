"""What LiteLLM counts, by model: differences of its counters from one reading to the next, each reading once.

Counters say what was spent and how much was used, not by whom: no calls can be made of them. So a reading becomes events, and
costs only where told to, for whoever has neither our handler nor LiteLLM's spend log.
"""

from __future__ import annotations

import json
from collections import defaultdict
from decimal import Decimal
from typing import Final

from typing_extensions import TypedDict

from vital_tracking.core.sanitize import clean_text, money
from vital_tracking.errors import VitalError
from vital_tracking.imports.prometheus_text import TIMEOUT_S, fetch, samples, source_of
from vital_tracking.queries.answers import answer_type, typed
from vital_tracking.stores import Store

MEASURES: Final = {
    # litellm/integrations/prometheus.py; its client library ends counters with _total. The names before them are older ones.
    "cost_usd": ("litellm_total_cost", "litellm_spend_metric_total"),
    "requests": ("litellm_requests_total", "litellm_proxy_total_requests_metric_total"),
    "errors": ("litellm_errors_total", "litellm_proxy_failed_requests_metric_total"),
    "input_tokens": ("litellm_input_tokens_total", "litellm_input_tokens_metric_total"),
    "output_tokens": ("litellm_output_tokens_total", "litellm_output_tokens_metric_total"),
    "latency_s": ("litellm_latency_seconds_sum", "litellm_llm_api_latency_metric_sum"),
}
"""Names under which LiteLLM exports each measure; of several that are there the last counts."""

_MODEL: Final = ("model", "requested_model", "litellm_model_name", "model_name")


@answer_type
class ModelUsed(TypedDict, total=False):
    """What was used of a model since the last reading, as far as it is exported."""

    model: str
    cost_usd: Decimal
    requests: Decimal
    errors: Decimal
    input_tokens: Decimal
    output_tokens: Decimal
    latency_s: Decimal


@answer_type
class CountersRead(TypedDict):
    """A reading: whether it was the `first` of its source, which only says where it stands; how many counters had begun anew."""

    first: bool
    resets: int
    used: list[ModelUsed]


def read_counters(text: str) -> dict[str, dict[str, Decimal]]:
    """The measures by model that a page of metrics holds, all labels but the model's added up."""
    of_name = {name: (measure, rank) for measure, names in MEASURES.items() for rank, name in enumerate(names)}
    found: dict[tuple[str, int], dict[str, Decimal]] = defaultdict(lambda: defaultdict(Decimal))
    for sample in samples(text):
        place = of_name.get(sample.name)
        if place is not None and sample.value >= 0:
            model = next((sample.labels[label] for label in _MODEL if sample.labels.get(label)), "unknown")
            found[place][clean_text(model) or "unknown"] += sample.value
    read: dict[str, dict[str, Decimal]] = defaultdict(dict)
    for measure, rank in sorted(found):
        if rank == max(other for name, other in found if name == measure):
            for model, value in found[measure, rank].items():
                read[model][measure] = value
    return dict(read)


def import_metrics(
    store: Store,
    url: str,
    *,
    token: str | None = None,
    organization: str | None = None,
    costs: bool = False,
    timeout_s: float = TIMEOUT_S,
) -> CountersRead:
    """Read LiteLLM's counters at a `url` and record what was used since the last reading, by model, as events.

    With `costs` what was spent is recorded as costs of the kind llm, too: only where these requests are recorded in no other way.
    Raises VitalError where there is no answer within `timeout_s`, or none of its counters is in it, StoreError where the database
    cannot answer.
    """
    series = read_counters(fetch(url, token=token, timeout_s=timeout_s))
    if not series:
        raise VitalError(
            f"{source_of(url)} holds none of LiteLLM's counters. In its settings: callbacks: [prometheus]; a proxy that was just "
            "started has none before its first request."
        )
    reading = {
        "source": source_of(url),
        "organization_id": organization,
        "costs": costs,
        "series": {model: {name: money(value) for name, value in counted.items()} for model, counted in series.items()},
    }
    return typed(CountersRead, store.call("record_counters_v1", reading=json.dumps(reading)))
