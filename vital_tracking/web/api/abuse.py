"""What looks like abuse, at `/api/v1/abuse`: findings, what is decided about them, marks of false alarms, rules."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Any, Final, Literal

from fastapi import Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from vital_tracking.queries import abuse as queries
from vital_tracking.queries.abuse import FINDING_COLUMNS, MOST_FINDINGS, AbuseFinding, AbuseSettings
from vital_tracking.web.access import Reader, reads
from vital_tracking.web.api.pages import page_of
from vital_tracking.web.csv import csv_lines, csv_response
from vital_tracking.web.described import answering, csv_answering, described
from vital_tracking.web.problems import Problem
from vital_tracking.web.responses import ExactJSON
from vital_tracking.web.route import api_router

routes = api_router(prefix="/api/v1/abuse", tags=["watch"])

_Id = Annotated[int, Path(ge=1, le=2**63 - 1)]
_Organization = Annotated[str | None, Query(max_length=255, pattern=r"^[^\x00]*$", description="Only this one's.")]
_State = Annotated[Literal["open", "acted_on", "false_alarm"] | None, Query(description="Only those in this state.")]
_Limit = Annotated[int, Query(ge=1, le=MOST_FINDINGS, description="How many, the newest first.")]
_Before = Annotated[int | None, Query(ge=1, le=2**63 - 1, description="Older than the finding of this id.")]
_Text = Annotated[str, Field(max_length=500, pattern=r"^[^\x00]*$")]
_Seconds = Annotated[int, Field(ge=60, le=31 * 86_400)]
_Name = Annotated[str | None, Field(min_length=1, max_length=255, pattern=r"^[^\x00]*$")]

_MAX_AGE_S: Final = 10
_FINDING: Final = {
    "id": 12,
    "pattern": "user_calls",
    "about": "A user makes far more calls to models than ever",
    "organization_id": "acme",
    "subject_kind": "user",
    "subject": "u-1",
    "entity_type": "user",
    "entity_id": "u-1",
    "severity": "high",
    "state": "open",
    "first_seen": "2026-11-30T12:02:00+00:00",
    "last_seen": "2026-11-30T12:07:00+00:00",
    "rows_since": "2026-11-30T11:57:00+00:00",
    "measure": "calls",
    "minutes": 5,
    "value": 412,
    "usual": 12,
    "threshold": 60,
    "known_days": 27,
    "action": None,
    "action_until": None,
    "acting": False,
    "with_finding": None,
    "beside": {"finding": 11, "action": "block", "until": "2026-11-30T13:00:00+00:00"},
    "decided_at": None,
    "decided_by": None,
    "reason": None,
    "query": "...",
}
_SETTINGS: Final = {
    "patterns": [
        {
            "pattern": "user_calls",
            "about": "A user makes far more calls to models than ever",
            "kind": "user",
            "measure": "calls",
            "short_floor": 60,
            "long_floor": 300,
            "times": 4,
            "alone": 2,
            "reason": "...",
        }
    ],
    "marks": [],
    "rules": [],
}
_MISSING: Final[dict[int | str, dict[str, Any]]] = {
    404: described(
        Problem(404, "not-found", "There is none", detail="Nothing has this id.", hint="See what there is: GET /abuse"),
        "There is no such finding or mark that you may see.",
    )
}


class Decision(BaseModel):
    """What is decided about a finding; an action ends by itself after `lasts_s` seconds."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"decision": "block", "lasts_s": 3600, "why": "stolen key"}}
    )

    decision: Literal["watch", "throttle", "block", "false_alarm", "open"]
    lasts_s: _Seconds = 3600
    why: _Text = ""


class Rule(BaseModel):
    """What is done by itself with findings of a pattern (null: any), from a severity on; without an action the rule goes."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"organization_id": "acme", "severity": "high", "action": "throttle"}},
    )

    organization_id: _Name = None
    pattern: _Name = None
    severity: Literal["low", "medium", "high"] = "high"
    action: Literal["watch", "throttle", "block"] | None = None
    lasts_s: _Seconds = 3600


@routes.get(
    "",
    name="vital-api-abuse",
    summary="What looks like abuse, the newest first",
    responses=answering(list[AbuseFinding], "The findings; `Link` leads to the next ones.", [_FINDING]),
    dependencies=[Depends(reads("abuse"))],
)
def show_findings(
    request: Request,
    store: Reader,
    organization: _Organization = None,
    state: _State = None,
    limit: _Limit = 100,
    before: _Before = None,
) -> Response:
    """Findings with the figures that made them one, and the query that shows their rows; for admins and auditors."""
    found = queries.abuse_findings(store, organization=organization or None, state=state, limit=limit, before=before)
    return page_of(request, found, limit, lambda row: str(row["id"]), parameter="before", max_age=_MAX_AGE_S)


@routes.get(
    ".csv",
    name="vital-api-abuse-csv",
    summary="What looks like abuse, as CSV",
    response_class=Response,
    responses=csv_answering("id,pattern\r\n12,user_calls\r\n"),
    dependencies=[Depends(reads("abuse"))],
)
def findings_as_csv(store: Reader, organization: _Organization = None, state: _State = None) -> Response:
    """The newest thousand; no spreadsheet runs a cell as a formula."""
    found = queries.abuse_findings(store, organization=organization or None, state=state, limit=MOST_FINDINGS)
    rows = ([row[name] for name in FINDING_COLUMNS] for row in found)  # type: ignore[literal-required]
    return csv_response(csv_lines(FINDING_COLUMNS, rows), "abuse.csv")


@routes.get(
    "/settings",
    name="vital-api-abuse-settings",
    summary="By what abuse is found, and what is done about it",
    responses=answering(AbuseSettings, "Patterns, marks of false alarms, and rules.", _SETTINGS),
    dependencies=[Depends(reads("abuse"))],
)
def show_settings(store: Reader, organization: _Organization = None) -> Response:
    """Patterns with their thresholds and why they are so, marks with how often each has silenced its like, and rules."""
    return ExactJSON(queries.abuse_settings(store, organization=organization or None), max_age=_MAX_AGE_S)


@routes.put(
    "/rules", summary="Set what is done by itself", responses=answering(Rule, "The rule.", {"action": "throttle"})
)
def set_rule(store: Reader, rule: Rule) -> Response:
    """Only admins of that organization set rules of it, and operators those of all."""
    queries.set_rule(
        store,
        organization=rule.organization_id,
        pattern=rule.pattern,
        action=rule.action,
        severity=rule.severity,
        lasts=timedelta(seconds=rule.lasts_s),
    )
    return ExactJSON(rule.model_dump())


@routes.delete("/marks/{mark_id}", summary="Take a mark back", status_code=204, responses=_MISSING)
def remove_mark(store: Reader, mark_id: _Id) -> Response:
    """Its like is told of again."""
    queries.remove_mark(store, mark_id)
    return Response(status_code=204)


@routes.get(
    "/{finding_id}",
    name="vital-api-abuse-finding",
    summary="One finding",
    responses={**answering(AbuseFinding, "The finding.", _FINDING), **_MISSING},
    dependencies=[Depends(reads("abuse"))],
)
def show_finding(store: Reader, finding_id: _Id) -> Response:
    """A finding with its figures."""
    return ExactJSON(queries.abuse_finding(store, finding_id), max_age=_MAX_AGE_S)


@routes.post(
    "/{finding_id}/decision",
    summary="Decide about a finding",
    responses={**answering(AbuseFinding, "The finding as it then is.", _FINDING), **_MISSING},
)
def decide(store: Reader, finding_id: _Id, decision: Decision) -> Response:
    """`watch`, `throttle` and `block` end by themselves; `false_alarm` silences its like; `open` takes back what was decided."""
    if decision.decision == "false_alarm":
        found = queries.mark_false_alarm(store, finding_id, why=decision.why)
    elif decision.decision == "open":
        found = queries.reopen(store, finding_id)
    else:
        lasts = timedelta(seconds=decision.lasts_s)
        found = queries.act_on(store, finding_id, decision.decision, lasts=lasts, why=decision.why)
    return ExactJSON(found)
