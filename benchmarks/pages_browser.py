"""What a browser makes of the overview, beside plain pages of the same tables and charts by NiceGUI and Streamlit.

`vital-tracking dashboard` over the history of `vital-tracking demo --history`, and two programs that are given the same cards,
tables and charts ready made, so that they ask no database: what they tell is the stack alone. Each is served on loopback by a
process of its own, and opened in turns in Chromium, in a profile of its own: once with an empty cache, once again.

  painted  first contentful paint, since the address was opened
  drawn    all charts are there, since then

Milliseconds, medians of the rounds; a chart is drawn anew from its table, its layout included. NiceGUI and Streamlit are in the
dependency group `pages`, which nothing else needs; where they are missing the others are measured.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.database import a_folder
from benchmarks.figures import Claim, Found, Part, Table, number, ratios, spanned, spread
from benchmarks.pages_content import DAYS, content
from benchmarks.pages_site import a_dashboard, free_port, operator_session
from vital_tracking.settings import Settings
from vital_tracking.stores import direct_store

PAINTED_MS, DRAWN_MS, CHART_MS = 500, 1500, 80
HOW = "{} is not here: pip install --group pages"
_BEGINS_S = 60
_GIVES_UP_MS = 30_000

# When as many charts are there as the page has, by the browser's own clock; asked before each frame.
_WATCH = """
(([selector, count]) => {
  window.drawnAt = null;
  const look = () => {
    if (document.querySelectorAll(selector).length >= count) window.drawnAt = performance.now();
    else requestAnimationFrame(look);
  };
  look();
})(%s)
"""
# Each chart of ours once more from nothing: its table is read, and it is laid out.
_REDRAW = """
() => [...document.querySelectorAll('[data-chart]')].map((box) => {
  const started = performance.now();
  drawn.get(box).dispose();
  drawn.delete(box);
  draw(box);
  box.getBoundingClientRect();
  return performance.now() - started;
})
"""
_PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null"


@dataclass(frozen=True)
class Served:
    """A page that is served: its address, which element each drawn chart has, and what the browser needs to be let in."""

    address: str
    chart: str
    cookie: str = ""


@contextlib.contextmanager
def _program(arguments: list[str], port: int) -> Iterator[None]:
    """A program that serves a page at a port, from when it answers."""
    here = str(Path(__file__).parents[1])
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen([sys.executable, *arguments], env={**os.environ, "PYTHONPATH": here}, **quiet)  # type: ignore[call-overload]
    try:
        until = time.monotonic() + _BEGINS_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
                break
            except OSError:
                if time.monotonic() > until or process.poll() is not None:
                    raise RuntimeError(f"{arguments} did not begin") from None
                time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait(_BEGINS_S)


@contextlib.contextmanager
def nicegui(file: str) -> Iterator[Served]:
    """A plain NiceGUI page."""
    port = free_port()
    with _program(["-m", "benchmarks.pages_nicegui", file, str(port)], port):
        yield Served(f"http://127.0.0.1:{port}/", ".nicegui-echart canvas, .nicegui-echart svg")


@contextlib.contextmanager
def streamlit(file: str) -> Iterator[Served]:
    """A plain Streamlit page."""
    port = free_port()
    program = str(Path(__file__).with_name("pages_streamlit.py"))
    asked = ["--server.port", str(port), "--server.address", "127.0.0.1", "--server.headless", "true"]
    quiet = ["--browser.gatherUsageStats", "false", "--server.fileWatcherType", "none"]
    with _program(["-m", "streamlit", "run", program, *asked, *quiet, "--", file], port):
        yield Served(
            f"http://127.0.0.1:{port}/", "[data-testid=stVegaLiteChart] canvas, [data-testid=stVegaLiteChart] svg"
        )


PEERS: dict[str, Callable[[str], contextlib.AbstractContextManager[Served]]] = {
    "nicegui": nicegui,
    "streamlit": streamlit,
}


def visit(browser: Any, served: Served, charts: int) -> dict[str, Any]:
    """Open a page with an empty cache and once more."""
    context = browser.new_context(viewport={"width": 1440, "height": 1000})
    if served.cookie:
        name, _, value = served.cookie.partition("=")
        context.add_cookies([{"name": name, "value": value, "url": served.address}])
    page = context.new_page()
    page.add_init_script(_WATCH % json.dumps([served.chart, charts]))
    client = context.new_cdp_session(page)
    client.send("Network.enable")
    count = {"requests": 0, "bytes": 0}

    def asked(_: Any) -> None:
        count["requests"] += 1

    def loaded(event: Any) -> None:
        count["bytes"] += event["encodedDataLength"]

    def told(event: Any) -> None:
        count["bytes"] += len(event["response"]["payloadData"])

    client.on("Network.requestWillBeSent", asked)
    client.on("Network.webSocketCreated", asked)
    client.on("Network.loadingFinished", loaded)
    client.on("Network.webSocketFrameReceived", told)
    found: dict[str, Any] = {}
    for when in ("first", "again"):
        count.update(requests=0, bytes=0)
        page.goto(served.address, wait_until="commit")
        page.wait_for_function("() => window.drawnAt", timeout=_GIVES_UP_MS)
        page.wait_for_load_state("load")
        found[when] = {"drawn": page.evaluate("() => window.drawnAt"), "painted": page.evaluate(_PAINTED), **count}
    if served.cookie:
        found["charts"] = page.evaluate(_REDRAW)
    context.close()
    return found


def chromium(playwright: Any) -> Any:
    """Debian's Chromium, or Chrome."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        raise SystemExit("no Chromium here: apt-get install chromium")
    quiet = ["--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update"]
    return playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-sync", *quiet])


def measure(rounds: int, days: int) -> Found:
    """All figures."""
    from playwright.sync_api import sync_playwright

    with a_folder() as folder, contextlib.ExitStack() as opened:
        environment = {"VITAL_DATA_DIR": str(folder), "VITAL_STORE": "embedded"}
        history = ["-c", "from vital_tracking.cli import main; main()", "demo", "--history", "--days", str(days)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("VITAL_", "SUPABASE_"))}
        here = str(Path(__file__).parents[1])
        subprocess.run(
            [sys.executable, *history], env={**clean, "PYTHONPATH": here, **environment}, cwd=folder, check=True
        )
        store = direct_store(Settings(data_dir=folder, store="embedded"), RuntimeError())  # type: ignore[arg-type]
        opened.callback(store.stop)  # type: ignore[attr-defined]
        shown = content(store.conninfo)
        file = folder / "content.json"
        file.write_text(json.dumps(shown), encoding="utf-8")
        charts = sum(bool(part["chart"] and part["rows"]) for part in shown["parts"])
        site = opened.enter_context(a_dashboard(environment))
        ours = Served(
            f"http://127.0.0.1:{site.port}/?days={DAYS}", ".part.drawn [data-chart] svg", operator_session(site)
        )
        pages = {"ours": ours}
        for name, peer in PEERS.items():
            if importlib.util.find_spec(name) is None:
                print(HOW.format(name), flush=True)
                continue
            pages[name] = opened.enter_context(peer(str(file)))
        visits: dict[str, list[dict[str, Any]]] = {name: [] for name in pages}
        with sync_playwright() as playwright:
            browser = chromium(playwright)
            for turn in range(rounds + 1):
                for name, served in pages.items():
                    seen = visit(browser, served, charts)
                    if turn:
                        visits[name].append(seen)
            browser.close()
    return {
        "rounds": rounds,
        "charts": charts,
        "tables": len(shown["parts"]),
        "pages": {name: _in_short(seen) for name, seen in visits.items()},
        "drawn_ratio": {
            name: ratios([one["first"]["drawn"] for one in seen], [one["first"]["drawn"] for one in visits["ours"]])
            for name, seen in visits.items()
        },
        "chart_ms": spread(
            [statistics.median(of_one) for of_one in zip(*(one["charts"] for one in visits["ours"]), strict=True)]
        ),
    }


def _in_short(visits: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        when: {
            "painted": spread([one[when]["painted"] or one[when]["drawn"] for one in visits]),
            "drawn": spread([one[when]["drawn"] for one in visits]),
            "requests": max(one[when]["requests"] for one in visits),
            "kb": max(one[when]["bytes"] for one in visits) / 1000,
        }
        for when in ("first", "again")
    }


# Telling


def tables(found: Found) -> list[Table]:
    """The figures as tables."""
    about = f"{found['tables']} tables, {found['charts']} charts, {found['rounds']} rounds"
    titles = {"first": "With an empty cache", "again": "Once again"}
    return [
        *(
            Table(
                f"{title}, ms ({about})",
                ["", "requests", "kB", "painted", "drawn"],
                [
                    [
                        name,
                        str(one[when]["requests"]),
                        number(one[when]["kb"]),
                        spanned(one[when]["painted"]),
                        spanned(one[when]["drawn"]),
                    ]
                    for name, one in found["pages"].items()
                ],
            )
            for when, title in titles.items()
        ),
        Table(
            "A chart of ours, ms",
            ["", "drawn", "the slowest"],
            [["one chart", spanned(found["chart_ms"]), number(found["chart_ms"]["most"])]],
        ),
    ]


def claims(found: Found) -> list[Claim]:
    """What was promised, for a machine at rest."""
    ours = found["pages"]["ours"]["first"]
    told = [
        Claim("first contentful paint", ours["painted"]["median"], "at most", PAINTED_MS, "ms"),
        Claim("all charts drawn", ours["drawn"]["median"], "at most", DRAWN_MS, "ms"),
        Claim("a chart drawn, the slowest", found["chart_ms"]["most"], "at most", CHART_MS, "ms"),
    ]
    told += [
        Claim(f"drawn: {name} / ours", ratio["median"], "at least", 1, "times")
        for name, ratio in found["drawn_ratio"].items()
        if name != "ours"
    ]
    return told


PART = Part(
    "pages_browser",
    __doc__,
    measure,
    tables,
    claims,
    quick={"rounds": 7, "days": 60},
    full={"rounds": 21},
)

if __name__ == "__main__":
    PART.main()
