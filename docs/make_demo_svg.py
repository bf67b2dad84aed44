"""Draws docs/demo.svg: the tables of `vital-tracking demo`, from a real run with fake models.

Run it: python docs/make_demo_svg.py
"""

from __future__ import annotations

import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT

from vital_tracking import VitalTracker
from vital_tracking.cli.demo import ORGANIZATION, show_costs
from vital_tracking.cli.render.console import console
from vital_tracking.langchain.demo import fake_models, run_demo
from vital_tracking.stores.embedded import EmbeddedStore

# Without the fonts that rich would have the reader's browser fetch.
FORMAT = re.sub(r"@font-face \{\{.*?\}\}\s*", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


def main() -> None:
    """Run the four services once on a database of its own, and keep what is shown."""
    with tempfile.TemporaryDirectory(prefix="vital-demo-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        store = EmbeddedStore(Path(folder))
        started = datetime.now(UTC)
        with VitalTracker(store, organization_id=ORGANIZATION) as tracker:
            run_demo(tracker, fake_models(), lambda _: None)
            tracker.flush(30)
            console.record, console.width = True, 96
            show_costs(store, since=started)
        store.stop()
    console.save_svg(str(Path(__file__).with_name("demo.svg")), title="vital-tracking demo", code_format=FORMAT)


if __name__ == "__main__":
    main()
