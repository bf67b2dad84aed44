"""Draws docs/budgets.svg: `vital-tracking budgets windows` after the demonstration, from a real run with fake models.

Run it: python docs/make_budgets_svg.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from make_demo_svg import FORMAT

from vital_tracking import VitalTracker
from vital_tracking.cli.budgets.tables import windows_table
from vital_tracking.cli.demo import ORGANIZATION
from vital_tracking.cli.render.console import console
from vital_tracking.langchain.demo import fake_models, run_demo
from vital_tracking.queries.budgets import all_budgets, set_budget, windows
from vital_tracking.stores.embedded import EmbeddedStore

BUDGETS = (
    {"entity_type": "organization", "entity_id": ORGANIZATION, "monthly_limit": "0.50", "action": "alert"},
    {"entity_type": "service", "entity_id": "1:1_conversation", "daily_limit": "0.05", "action": "block"},
    {
        "entity_type": "service",
        "entity_id": "virtual_panel",
        "daily_limit": "0.10",
        "action": "block",
        "enforce": False,
    },
    {"entity_type": "tier", "entity_id": "tier_1", "daily_limit": "0.045", "action": "throttle"},
    {"entity_type": "user", "entity_id": "*", "daily_limit": "0.10", "action": "downgrade"},
    {"entity_type": "user", "entity_id": "*", "daily_limit": "0.20", "action": "block"},
    {"entity_type": "user", "entity_id": "*", "metric": "calls", "minute_limit": "30", "action": "throttle"},
)


def main() -> None:
    """Run the four services once on a database of its own, set budgets, and keep what is shown."""
    with tempfile.TemporaryDirectory(prefix="vital-demo-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        store = EmbeddedStore(Path(folder))
        with VitalTracker(store, organization_id=ORGANIZATION) as tracker:
            run_demo(tracker, fake_models(), lambda _: None)
            tracker.flush(30)
            for budget in BUDGETS:  # their running windows are filled from the calls that were recorded
                set_budget(store, budget)
            console.record, console.width = True, 96
            console.print(windows_table(windows(store), all_budgets(store)["now"], console.width))
        store.stop()
    title = "vital-tracking budgets windows"
    console.save_svg(str(Path(__file__).with_name("budgets.svg")), title=title, code_format=FORMAT)


if __name__ == "__main__":
    main()
