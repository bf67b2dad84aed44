"""Takes the pictures of docs/dashboard.md: the dashboard over the made-up history, light and dark, in Chromium.

Each run makes a throw-away database, writes the history into it and serves it on loopback.
Run it from the repository's folder: python -m docs.make_screenshots
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any, Final, Literal

import uvicorn
from playwright.sync_api import Browser, sync_playwright

from tests.support.postgres import PostgresServer
from vital_tracking.advice.life import renew_advice
from vital_tracking.core.pricing import PriceBook
from vital_tracking.delivery.costs import Costs
from vital_tracking.demo import writing
from vital_tracking.migrate import find_migrations
from vital_tracking.queries.abuse import find_abuse
from vital_tracking.queries.runs import service_runs
from vital_tracking.stores.postgres import PostgresStore
from vital_tracking.web.app import application
from vital_tracking.web.operator import OperatorLink
from vital_tracking.web.parts import Parts
from vital_tracking.web.serving import listen
from vital_tracking.web.settings import WebSettings

IMAGES: Final = Path(__file__).parent / "images"
SCHEMES: Final[tuple[Literal["light", "dark"], ...]] = ("light", "dark")
WIDE: Final = (1280, 900)
PHONE: Final = (390, 844)


def take(url: str, operator: OperatorLink, pages: dict[str, tuple[str, tuple[int, int]]]) -> None:
    """Take each page, by its picture's name, in both themes."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"), args=["--no-sandbox"]
        )
        first = browser.new_context()
        first.new_page().goto(f"{url}open?token={operator.token}")
        session = first.storage_state()
        for name, (path, size) in pages.items():
            for scheme in SCHEMES:
                _shoot(browser, session, f"{url}{path}", size, scheme, IMAGES / f"{name}-{scheme}.png")
        browser.close()


def _shoot(
    browser: Browser, session: Any, url: str, size: tuple[int, int], scheme: Literal["light", "dark"], path: Path
) -> None:
    context = browser.new_context(
        viewport={"width": size[0], "height": size[1]},
        color_scheme=scheme,
        storage_state=session,
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(url, wait_until="networkidle")
    page.screenshot(path=path)
    context.close()


def main() -> None:
    """Write the history, serve it, and take the pictures."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="vital-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        with PostgresServer(folder / "data") as server:
            server.create_database("history")
            store = PostgresStore(server.url("history"))
            store.migrate(find_migrations())
            writing.write(store, writing.history_of(writing.found(store)), Costs(PriceBook(), "15/75"))
            find_abuse(store)
            renew_advice(store, store)
            operator = OperatorLink()
            listening = listen("127.0.0.1", 0)
            app = application(Parts(store, WebSettings(), operator))
            serving = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
            thread = threading.Thread(target=serving.run, kwargs={"sockets": [listening]})
            thread.start()
            try:
                newest = service_runs(store, limit=1000)
                solution = next(run["id"] for run in newest if run["service_type"] == "solution_builder")
                take(
                    f"http://127.0.0.1:{listening.getsockname()[1]}/",
                    operator,
                    {
                        "overview": ("?days=30", WIDE),
                        "advice": ("advice", WIDE),
                        "run": (f"runs/{solution}", WIDE),
                        "workflows": ("workflows?days=30", WIDE),
                        "budgets": ("budgets", WIDE),
                        "quotas": ("quotas", WIDE),
                        "phone": ("?days=30", PHONE),
                    },
                )
            finally:
                serving.should_exit = True
                thread.join()
                store.close()


if __name__ == "__main__":
    main()
