"""Draws docs/reports.svg: reports of `vital-tracking report` on a month of made-up calls, from a real run.

Run it: python docs/make_reports_svg.py
"""

from __future__ import annotations

import random
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from make_demo_svg import FORMAT

from vital_tracking import Agent, Settings
from vital_tracking.cli.render.console import console
from vital_tracking.cli.report.forecast import forecast_text
from vital_tracking.cli.report.overview import totals
from vital_tracking.cli.report.tables import usage_table
from vital_tracking.core.context import CallContext
from vital_tracking.core.pricing import PriceBook
from vital_tracking.core.record import CallRecord
from vital_tracking.core.usage import TokenUsage
from vital_tracking.delivery.recorder import Recorder
from vital_tracking.ids import new_id
from vital_tracking.queries.catalogue import GROUPINGS
from vital_tracking.queries.filters import Filters
from vital_tracking.queries.forecast import cost_forecast
from vital_tracking.queries.usage import usage_report
from vital_tracking.stores.embedded import EmbeddedStore

NOW = datetime(2026, 10, 19, 14, tzinfo=UTC)
DAYS = 56
STEPS = (
    ("triage", "Triage", "gpt-4o-mini", 900, 120, 0.7),
    ("research", "Research", "claude-sonnet-4-5", 9000, 900, 9.0),
    ("write", "Write", "gpt-4o", 4000, 1200, 6.0),
)
AGENTS = (Agent("cardio", name="Cardiologist", tier="tier_1"), Agent("legal", name="Counsel", tier="tier_2"))


def of(agent: Agent) -> dict[str, str | None]:
    """The agent, as a call names it."""
    return {"agent_id": agent.id, "agent_name": agent.name, "agent_tier": agent.tier}


def make_calls(recorder: Recorder) -> None:
    """Record eight weeks of a team's work: quiet weekends, and a little more every week."""
    chance = random.Random(7)  # noqa: S311 - the same picture every time
    for day in range(DAYS + 1):
        date = (NOW - timedelta(days=DAYS - day)).replace(hour=0)
        busy = (0.35 if date.weekday() > 4 else 1.0) * (1 + day / 150)
        for _ in range(int(22 * busy * chance.uniform(0.85, 1.15))):
            started = date + timedelta(hours=chance.gauss(13, 3))
            if started >= NOW:
                continue
            user = f"u-{min(int(chance.expovariate(0.25)), 30) + 1}"
            kind = chance.random()
            agent = chance.choice(AGENTS)
            if kind < 0.5:
                models = ("gpt-4o-mini", "claude-sonnet-4-5")
                fields = {"service_type": "1:1_conversation", **of(agent)}
                asked = [(models[chance.random() < 0.4], 1500, 300, 2.5, fields)]
            elif kind < 0.7:
                asked = [
                    (
                        model,
                        2500,
                        450,
                        4.0,
                        {"service_type": "virtual_panel", "panel_id": "launch-board", **of(member)},
                    )
                    for member, model in zip(AGENTS, ("claude-sonnet-4-5", "gpt-4o"), strict=True)
                ]
            else:
                asked = [
                    (
                        model,
                        tokens_in,
                        tokens_out,
                        seconds,
                        {
                            "service_type": "workflow",
                            "workflow_id": "intake",
                            "workflow_step": step,
                            "workflow_step_name": name,
                        },
                    )
                    for step, name, model, tokens_in, tokens_out, seconds in STEPS
                ]
            for model, tokens_in, tokens_out, seconds, fields in asked:
                scale = chance.uniform(0.6, 1.6)
                prompt = int(tokens_in * scale)
                usage = TokenUsage.reported(
                    input_tokens=prompt,
                    output_tokens=int(tokens_out * scale),
                    cache_read=prompt // 2 if chance.random() < 0.4 else 0,
                )
                record = CallRecord(
                    id=new_id(),
                    created_at=started,
                    context=CallContext(organization_id="acme", user_id=user, **fields),
                    provider="anthropic" if model.startswith("claude") else "openai",
                    model=model,
                    usage=usage or TokenUsage(),
                    latency_ms=1000 * seconds * chance.lognormvariate(0, 0.4),
                    clocked=False,
                )
                recorder.put(record)


def main() -> None:
    """Record the calls in a database of its own, and keep what is shown of them."""
    with tempfile.TemporaryDirectory(prefix="vital-demo-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        store = EmbeddedStore(Path(folder))
        recorder = Recorder(store, PriceBook(), Settings(spool=False))
        make_calls(recorder)
        recorder.close(60)
        console.record, console.width = True, 138
        since = NOW - timedelta(days=29)
        for name in ("services", "workflows", "models"):
            report = usage_report(store, name, Filters(since=since, until=NOW, organization="acme"), rows=5)
            if name == "services":
                for line in totals(report, "30 days", exact=False):
                    console.print(line, highlight=False)
                console.print()
            console.print(usage_table(report, title=GROUPINGS[name].title, exact=False, organization="acme"))
            console.print()
        for part in forecast_text(cost_forecast(store, organization="acme", moment=NOW), exact=False):
            console.print(part, highlight=False)
        store.stop()
    console.save_svg(str(Path(__file__).with_name("reports.svg")), title="vital-tracking report", code_format=FORMAT)


if __name__ == "__main__":
    main()
