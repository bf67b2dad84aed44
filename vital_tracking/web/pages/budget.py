"""One budget: made, previewed, changed, raised for a while and removed. The database decides who may, and audits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Final

from fastapi import Depends, Form, Path
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from vital_tracking.alerts.wording import sentence
from vital_tracking.errors import StoreRejected
from vital_tracking.queries import budgets as queries
from vital_tracking.queries.audit import changes_of
from vital_tracking.queries.budgets import BUDGET_KEY, BudgetLimit, find_budget, key_of
from vital_tracking.queries.organizations import organizations_named
from vital_tracking.queries.preview import UNKNOWN, preview_budget
from vital_tracking.stores.protocol import Store
from vital_tracking.web.access import Asker, Reader, reads
from vital_tracking.web.api.budgets import Raise, found_budget
from vital_tracking.web.asked import Asked, AskedParameters
from vital_tracking.web.identity import Identity
from vital_tracking.web.page import Card, Page, Part
from vital_tracking.web.pages.audit import lines_part
from vital_tracking.web.pages.budget_form import CHOICES, BudgetForm, filled, of_budget, usual, wanted
from vital_tracking.web.pages.budget_preview import preview_shown
from vital_tracking.web.pages.budgets import windows_part
from vital_tracking.web.pages.common import administered, mistyped_organization
from vital_tracking.web.pages.frame import answer
from vital_tracking.web.rendering import home
from vital_tracking.web.route import page_router
from vital_tracking.web.view import View

routes = page_router(dependencies=[Depends(reads("budgets"))])

Id = Annotated[int, Path(ge=1, le=2**63 - 1)]
Text = Annotated[str, Form(max_length=300)]

_ONLY_ADMINS: Final = "Only an admin of that organization changes its budgets."
_NOT_TAKEN: Final = "The database does not take it: see whether the names, the times and the time zone exist."


class Sent(dict[str, Any]):
    """The fields of a form, as they were sent."""


async def sent(request: Request) -> Sent:
    """The fields of the form of a budget."""
    form = await request.form()
    return Sent({name: value for name, value in form.items() if isinstance(value, str)})


@routes.get("/budgets/new", name="vital-new-budget")
def new(request: Request, who: Asker, store: Reader, asked: AskedParameters) -> Response:
    """An empty form; with `preview` what its budget would have done."""
    given = request.query_params
    return _form(request, who, store, asked, BudgetForm(filled(given, usual())), preview="preview" in given)


@routes.post("/budgets/new")
def make(
    request: Request, who: Asker, store: Reader, asked: AskedParameters, given: Annotated[Sent, Depends(sent)]
) -> Response:
    """Make the budget, and go to its page."""
    form = BudgetForm(filled(given, usual()))
    columns, errors = wanted(form.values)
    if not errors and (there := find_budget(queries.all_budgets(store)["budgets"], columns)):
        errors["entity_id"] = f"There is such a budget already, number {there['id']}: change that one."
    if not errors and "new" not in given:
        for field, name in organizations_named(columns).items():
            if wrong := mistyped_organization(store, who, name):
                errors[field] = f"{wrong} If it is new, mark that."
                form = replace(form, new=True)
    return _saved(request, who, store, asked, replace(form, errors=errors), columns)


@routes.get("/budgets/{budget_id}", name="vital-budget")
def one(request: Request, who: Asker, store: Reader, asked: AskedParameters, budget_id: Id) -> Response:
    """A budget with its windows and its history; with `preview` what it would have done as the form has it."""
    budget = _found(store, budget_id)
    given = request.query_params
    form = BudgetForm(_of(budget, given if "preview" in given else {}), fixed=True)
    return _form(request, who, store, asked, form, budget, preview="preview" in given)


@routes.post("/budgets/{budget_id}")
def change(
    request: Request,
    who: Asker,
    store: Reader,
    asked: AskedParameters,
    budget_id: Id,
    given: Annotated[Sent, Depends(sent)],
) -> Response:
    """Change what the form holds, but for the key."""
    budget = _found(store, budget_id)
    form = BudgetForm(_of(budget, given), fixed=True)
    columns, errors = wanted(form.values)
    return _saved(request, who, store, asked, replace(form, errors=errors), columns, budget)


@routes.post("/budgets/{budget_id}/raise", name="vital-raise-budget")
def raise_until(
    request: Request,
    who: Asker,
    store: Reader,
    asked: AskedParameters,
    budget_id: Id,
    raise_by: Text = "",
    until: Text = "",
    whose: Text = "",
) -> Response:
    """Add to every limit of one entity until a moment."""
    budget = _found(store, budget_id)
    given = {"raise_by": raise_by.strip().removeprefix("+"), "until": until.strip()}
    entity_id = whose.strip() if budget["entity_id"] == "*" else budget["entity_id"]
    errors = {}
    try:
        more = Raise(**given)  # type: ignore[arg-type]
    except ValidationError as wrong:
        errors = {str(one["loc"][0]): _RAISE[str(one["loc"][0])] for one in wrong.errors()}
    if not entity_id:
        errors["whose"] = "Say whose limits are raised: this budget gives each its own."
    message, status = "", 422
    if not errors:
        key: dict[str, Any] = dict(budget)
        columns = {**{name: key[name] for name in BUDGET_KEY}, **more.columns, "entity_id": entity_id}
        try:
            queries.raise_budget(store, columns)
            return RedirectResponse(f"{home(request)}budgets/{budget_id}", 303)
        except StoreRejected as refused:
            message, status = _refused(refused, "It must end later than now, on a day that there is.")
    form = BudgetForm(of_budget(budget), errors, message, fixed=True)
    raised = {**given, "whose": whose}
    return _form(request, who, store, asked, form, budget, status=status, raised=raised)


_RAISE: Final = {
    "raise_by": "Give an amount such as 5 or 0.50.",
    "until": "Give a day such as 2026-12-24, or tomorrow.",
}


@routes.get("/budgets/{budget_id}/remove", name="vital-remove-budget")
def ask_to_remove(request: Request, who: Asker, store: Reader, asked: AskedParameters, budget_id: Id) -> Response:
    """Ask before a budget is removed."""
    return _removal(request, who, store, asked, _found(store, budget_id))


@routes.post("/budgets/{budget_id}/remove")
def remove(request: Request, who: Asker, store: Reader, asked: AskedParameters, budget_id: Id) -> Response:
    """Remove a budget, and go to those that are left."""
    budget = _found(store, budget_id)
    try:
        queries.remove_budget(store, budget_id)
    except StoreRejected as refused:
        message, status = _refused(refused)
        return _removal(request, who, store, asked, budget, message, status)
    return RedirectResponse(f"{home(request)}budgets", 303)


def _found(store: Store, number: int) -> BudgetLimit:
    return found_budget(store, number, "Find it among the budgets.")


def _of(budget: BudgetLimit, given: Mapping[str, Any]) -> dict[str, str]:
    """The fields of a budget as they were sent, but for its key."""
    stored = of_budget(budget)
    return filled({name: value for name, value in given.items() if name not in BUDGET_KEY}, stored)


def _refused(error: StoreRejected, otherwise: str = _NOT_TAKEN) -> tuple[str, int]:
    if error.sqlstate == "42501":
        return _ONLY_ADMINS, 403
    return (str(error) if error.problem is not None else otherwise), 422


def _saved(
    request: Request,
    who: Identity,
    store: Store,
    asked: Asked,
    form: BudgetForm,
    columns: Mapping[str, Any],
    budget: BudgetLimit | None = None,
) -> Response:
    status = 422
    if not form.errors:
        try:
            stored = queries.set_budget(store, columns if budget is None else {**columns, **key_of(budget)})
            return RedirectResponse(f"{home(request)}budgets/{stored['id']}", 303)
        except StoreRejected as refused:
            message, status = _refused(refused)
            form = replace(form, message=message)
    return _form(request, who, store, asked, form, budget, status=status)


def _form(
    request: Request,
    who: Identity,
    store: Store,
    asked: Asked,
    form: BudgetForm,
    budget: BudgetLimit | None = None,
    *,
    preview: bool = False,
    status: int = 200,
    raised: Mapping[str, str] | None = None,
) -> Response:
    """The page with the form, its errors, and the preview that was asked for."""
    cards: list[Card] = []
    previewed: list[Part] = []
    if preview:
        columns, errors = wanted(form.values)
        form, status = replace(form, errors=errors), 422 if errors else 200
        asked = replace(asked, own={"preview": "1", **form.values})
        if not errors:
            try:
                found = preview_budget(store, columns)
            except StoreRejected as refused:
                message, status = _refused(refused)
                form = replace(form, message=message)
            else:
                cards, previewed = preview_shown(found, form.values["metric"], form.values["action"])
    organizations = administered(store, who)
    if budget is None:
        may = organizations is None or bool(organizations)
    else:
        whose = budget["entity_id"] if budget["entity_type"] == "organization" else budget["organization_id"]
        may = organizations is None or whose in organizations

    def build(view: View) -> Page:
        return Page(
            "budgets",
            f"Budget {budget['id']}" if budget else "New budget",
            sentence(budget) if budget else "Who may spend how much, and what happens at the limit.",
            cards=cards,
            parts=[*previewed, *(_about(view, budget) if budget else ())],
            crumbs=[("Budgets", view.path("budgets"))],
            template="budget.html",
            of_time=False,
            extra={
                "form": replace(form, organizations=organizations),
                "choices": CHOICES,
                "may": may,
                "budget": budget,
                "unknown": UNKNOWN if cards else "",
                "raised": raised or {"raise_by": "", "until": "tomorrow", "whose": ""},
            },
        )

    response = answer(request, who, store, replace(asked, filters={}), build)
    if response.status_code == 200:
        response.status_code = status
    return response


def _about(view: View, budget: BudgetLimit) -> list[Part]:
    now = queries.all_budgets(view.store)["now"]
    windows = [
        row for row in queries.windows(view.store, limit=queries.MOST_WINDOWS) if row["budget_id"] == budget["id"]
    ]
    history = replace(
        lines_part(changes_of(view.store, budget)),
        id="history",
        title="History of changes",
        empty="No change that you may see. Admins and auditors see those of their organization.",
    )
    return [windows_part(view, windows[:200], now), history]


def _removal(
    request: Request,
    who: Identity,
    store: Store,
    asked: Asked,
    budget: BudgetLimit,
    message: str = "",
    status: int = 200,
) -> Response:
    def build(view: View) -> Page:
        return Page(
            "budgets",
            f"Remove budget {budget['id']}?",
            f"{sentence(budget)} From then on nothing of this is checked; its windows go, its alerts and the calls stay.",
            crumbs=[
                ("Budgets", view.path("budgets")),
                (f"Budget {budget['id']}", view.path(f"budgets/{budget['id']}")),
            ],
            template="budget_remove.html",
            of_time=False,
            extra={"budget": budget, "message": message},
        )

    response = answer(request, who, store, asked, build)
    response.status_code = status
    return response
