"""Outcomes by agent and model: what recorded executions of agents say about how well a model did its work."""

from __future__ import annotations

from datetime import datetime

from typing_extensions import TypedDict

from vital_tracking.queries.answers import Amount, answer_type, typed
from vital_tracking.stores import Store


@answer_type
class Outcome(TypedDict):
    """How executions of an agent went whose calls all used one model.

    `success_rate` is in percent. `rating` (1 to 5), `faithfulness` and `answer_relevancy` (0 to 1) are means of as many as were
    recorded, None where none was.
    """

    organization_id: str | None
    agent: str
    provider: str | None
    model: str
    executions: int
    succeeded: int
    success_rate: Amount
    ratings: int
    rating: Amount | None
    faithfulness_scores: int
    faithfulness: Amount | None
    answer_relevancy_scores: int
    answer_relevancy: Amount | None


OUTCOME_COLUMNS = tuple(Outcome.__annotations__)


@answer_type
class Outcomes(TypedDict):
    """The outcomes, most executions first; of all `executions`, those that say nothing about a model.

    `several_models` are executions whose calls used more than one: they count for none. `no_calls` are those without a service
    run, or of whose run no call of the agent was answered.
    """

    executions: int
    several_models: int
    no_calls: int
    rows: list[Outcome]


def outcomes_by_model(store: Store, since: datetime, until: datetime, organization: str | None = None) -> Outcomes:
    """How executions that started between two moments went, by organization, agent and model, of what the asker may see.

    The calls of an execution are those of its service run by its agent; embeddings, calls that failed and answers of a cache do
    not count. Raises StoreError.
    """
    return typed(Outcomes, store.call("outcomes_v1", since=since, until=until, organization=organization))
