"""One turn of a service in the made-up history: its runs and its calls, one after another."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from vital_tracking.core.context import CallContext
from vital_tracking.core.record import CallRecord, RunRecord, RunStatus
from vital_tracking.core.usage import TokenUsage
from vital_tracking.demo.cast import EMBEDDING, HAIKU, OPUS, Model, Organization, Panel, Role, Workflow

_ERRORS: Final = ("RateLimitError", "APITimeoutError", "APIConnectionError", "InternalServerError")
_TRIES: Final = 3
_TRIED: Final = 0.2
"""The share of an agent's conversations that the model on trial has."""


def id_at(chance: random.Random, moment: datetime) -> str:
    """A UUIDv7 of a moment, which is the same wherever the chance is."""
    number = int(moment.timestamp() * 1000) << 80 | 7 << 76 | chance.getrandbits(12) << 64 | 2 << 62
    return str(UUID(int=number | chance.getrandbits(62)))


@dataclass(slots=True)
class Turn:
    """What a user asks for at a moment; `troubled` is a provider that fails then, `mark` stands in the metadata of all of it.

    `blocked_by` is what the row of a stopped call says of the budget, None where no budget stops calls. Answers are `streamed`
    where somebody waits for them.
    """

    chance: random.Random
    organization: Organization
    user: str
    at: datetime
    mark: Mapping[str, Any]
    troubled: str | None = None
    blocked_by: Mapping[str, object] | None = None
    streamed: bool = True
    calls: list[CallRecord] = field(default_factory=list)
    runs: list[RunRecord] = field(default_factory=list)

    def conversation(self, role: Role) -> None:
        """A question and its answer; some agents look things up or call a tool first."""
        if role.trial is not None and self.chance.random() < _TRIED:
            role = replace(role, model=role.trial)
        session = f"{self.user}-{self.at:%m%d}-{self.chance.randint(1, 2)}"
        context = self._context(
            service_type="1:1_conversation", service_id=session, session_id=session, service_name=role.agent.name
        )
        with _Run(self, context) as run:
            if self.chance.random() < 0.25:
                self._embed(run.context, role, 1)
            if self.chance.random() < 0.2:
                self._ask(run.context, role, message_type="tool_execution", share=0.6)
            preset = self.chance.random() < role.presets
            self._ask(run.context, role, message_type="preset_action" if preset else "chat", preset=preset)

    def panel(self, panel: Panel, parents: Sequence[str] = ()) -> None:
        """Each seat speaks, and some speak again."""
        context = self._context(
            service_type="virtual_panel", service_id=panel.id, service_name=panel.name, panel_id=panel.id,
            panel_size=len(panel.seats),
        )  # fmt: skip
        with _Run(self, context, parents) as run:
            for turn in range(1 if self.chance.random() < 0.6 else 2):
                for position, role in enumerate(panel.seats, 1):
                    self._ask(run.context.replace({"panel_position": position}), role, share=1 + turn * 0.5)

    def workflow(self, workflow: Workflow, parents: Sequence[str] = ()) -> None:
        """The steps one after another; where one fails it is tried again, and the run ends where it fails each time."""
        context = self._context(
            service_type="workflow", service_id=workflow.id, service_name=workflow.name, workflow_id=workflow.id
        )
        with _Run(self, context, parents) as run:
            for step in workflow.steps:
                inside = run.context.replace({"workflow_step": step.id}).replace({"workflow_step_name": step.name})
                for attempt in range(1, _TRIES + 1):
                    if step.embeds:
                        self._embed(inside, step.role, step.embeds, attempt)
                    if self._ask(inside, step.role, attempt=attempt, fails=step.fails):
                        break
                    self.at += timedelta(milliseconds=500 * 2**attempt)
                else:
                    run.status = "error"
                    return

    def solution(self) -> None:
        """A plan, a panel about it, a workflow that carries it out, and a closing word."""
        organization = self.organization
        id_, name = organization.solution
        context = self._context(
            service_type="solution_builder", service_id=id_, service_name=name, solution_id=id_
        )  # fmt: skip
        with _Run(self, context) as run:
            self._ask(run.context, organization.talkers[-1], share=1.4)
            inside = (run.id,)
            self.panel(self.chance.choice(organization.panels), inside)
            self.workflow(self.chance.choice(organization.workflows), inside)
            self._ask(run.context, organization.talkers[0], share=0.8)

    def loop(self, role: Role, times: int) -> None:
        """A program that has gone wrong: it asks the same again and again, and pays for each answer."""
        context = self._context(service_type="1:1_conversation", service_name=role.agent.name)
        asked = hashlib.sha256(f"{self.organization.id}/loop".encode()).hexdigest()
        with _Run(self, context) as run:
            for _ in range(times):
                usage = TokenUsage(role.reads, role.writes)
                took = role.model.first_ms + role.model.token_ms * role.writes
                self._add(run.context, role, role.model, usage, took, request_hash=asked)

    def _context(self, **fields: Any) -> CallContext:
        return CallContext(organization_id=self.organization.id, user_id=self.user).replace(fields)

    def _embed(self, context: CallContext, role: Role, texts: int, attempt: int | None = None) -> None:
        for _ in range(texts):
            tokens = self.chance.randint(40, 900)
            took = EMBEDDING.first_ms * self.chance.uniform(0.7, 1.8)
            self._add(context, role, EMBEDDING, TokenUsage(tokens), took, attempt=attempt, call_type="embedding")

    def _ask(
        self,
        context: CallContext,
        role: Role,
        *,
        message_type: str = "chat",
        share: float = 1.0,
        fails: float = 0.015,
        attempt: int | None = None,
        preset: bool = False,
    ) -> bool:
        """Make a call of an agent; whether it succeeded."""
        chance, model = self.chance, role.model
        if self.blocked_by is not None and chance.random() < 0.3:
            self._add(
                context, role, model, TokenUsage(), None, message_type=message_type, attempt=attempt, status="blocked",
                error_type="BudgetExceeded", budget_action="block", billed=False,
                blocked_by={**self.blocked_by, "entity_id": self.user},
            )  # fmt: skip
            return False
        more: dict[str, Any] = {}
        if model is OPUS and chance.random() < 0.12:
            more = {"requested_model": model.name, "budget_action": "downgrade"}
            model = HAIKU
        elif chance.random() < 0.008:
            more = {"budget_action": "throttle", "throttled_ms": float(chance.randint(2, 10) * 1000)}
        prompt = max(20, int(role.reads * share * chance.lognormvariate(0, 0.35)))
        answer = max(5, int(role.writes * chance.lognormvariate(0, 0.4)))
        if preset:
            # The same button is pressed again and again: the same request each time.
            number = chance.randint(1, role.buttons)
            prompt, answer = role.reads + 17 * number, role.writes + 5 * number
            more["request_hash"] = hashlib.sha256(
                f"{self.organization.id}/{role.agent.id}/{number}".encode()
            ).hexdigest()
        failing = chance.random() < (0.55 if model.provider == self.troubled else fails)
        took = (model.first_ms + model.token_ms * answer) * chance.lognormvariate(0, 0.3)
        if failing:
            late = chance.random() < 0.3
            took = 60_000.0 if late else took * 0.2
            error = _ERRORS[1] if late else chance.choice(_ERRORS if self.troubled is None else _ERRORS[:1])
            self._add(
                context, role, model, TokenUsage(), took, message_type=message_type, attempt=attempt, status="error",
                error_type=error, billed=False, **more,
            )  # fmt: skip
            return False
        usage = self._usage(model, prompt, answer)
        if preset and chance.random() < 0.25:
            more["cache_hit"] = True
            took = chance.uniform(1, 4)
        elif self.streamed:
            more["ttft_ms"] = min(took * 0.9, model.first_ms * chance.lognormvariate(0, 0.35))
        self._add(context, role, model, usage, took, message_type=message_type, attempt=attempt, **more)
        return True

    def _usage(self, model: Model, prompt: int, answer: int) -> TokenUsage:
        if self.chance.random() < 0.012:
            return TokenUsage(prompt, answer, estimated=True)
        usage = TokenUsage(prompt, answer)
        if prompt > 1500 and model.provider in ("openai", "anthropic") and self.chance.random() < 0.55:
            usage = usage._replace(cache_read_tokens=int(prompt * self.chance.uniform(0.3, 0.7)) // 128 * 128)
        elif prompt > 1500 and model.provider == "anthropic":
            usage = usage._replace(cache_write_tokens=prompt // 2)
        if model.name.startswith("gpt-5"):
            usage = usage._replace(reasoning_tokens=int(answer * self.chance.uniform(0.2, 0.6)))
        if model.provider == "perplexity":
            usage = usage.with_units({"web_searches": 1})
        return usage

    def _add(
        self,
        context: CallContext,
        role: Role,
        model: Model,
        usage: TokenUsage,
        took: float | None,
        *,
        message_type: str = "chat",
        attempt: int | None = None,
        **more: Any,
    ) -> None:
        framework = "langgraph" if context.workflow_step and model.framework == "langchain" else model.framework
        about = {**role.agent.fields(), "framework": framework, "message_type": message_type}
        tried = {} if attempt is None else {"attempt": attempt}
        self.calls.append(
            CallRecord(
                id=id_at(self.chance, self.at),
                created_at=self.at,
                clocked=False,
                context=context.replace(about),
                provider=model.provider,
                model=model.name,
                usage=usage,
                latency_ms=took,
                metadata={**self.mark, **tried},
                **more,
            )
        )
        self.at += timedelta(milliseconds=(took or 0) + self.chance.uniform(5, 60))


class _Run:
    """A service run around what is done in it."""

    def __init__(self, turn: Turn, context: CallContext, parents: Sequence[str] = ()) -> None:
        self.turn = turn
        self.id = id_at(turn.chance, turn.at)
        self.context = context.replace({"service_run_id": self.id})
        self.parents = tuple(parents)
        self.began = turn.at
        self.status: RunStatus = "ok"
        turn.at += timedelta(milliseconds=turn.chance.uniform(5, 40))

    def __enter__(self) -> _Run:
        return self

    def __exit__(self, *_: object) -> None:
        turn = self.turn
        own = [call for call in turn.calls if call.context.service_run_id == self.id]
        if self.context.service_type == "1:1_conversation" and own[-1].status != "ok":
            self.status = "error"
        turn.runs.append(
            RunRecord(
                self.id,
                self.context,
                self.began,
                self.status,
                ended_at=turn.at,
                error_type=own[-1].error_type if self.status == "error" else None,
                parent_run_id=self.parents[-1] if self.parents else None,
                ancestor_run_ids=self.parents,
                metadata=dict(turn.mark),
            )
        )
