"""A plain NiceGUI page of the overview's content: python -m benchmarks.pages_nicegui FILE PORT."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.pages_content import read

KINDS = {"bars": "bar", "lines": "line", "area": "line"}


def options(chart: dict[str, Any]) -> dict[str, Any]:
    """The chart as ECharts draws it, with its defaults."""
    if chart["kind"] == "doughnut":
        data = [{"name": x, "value": value} for x, value in zip(chart["x"], chart["y"][0]["values"], strict=True)]
        return {"tooltip": {}, "legend": {}, "series": [{"type": "pie", "radius": ["50%", "80%"], "data": data}]}
    if chart["kind"] == "heatmap":
        xs, ys = list(dict.fromkeys(chart["x"])), list(dict.fromkeys(chart["series"]))
        values = chart["y"][0]["values"]
        cells = [[xs.index(x), ys.index(y), v] for x, y, v in zip(chart["x"], chart["series"], values, strict=True)]
        return {
            "tooltip": {},
            "xAxis": {"type": "category", "data": xs},
            "yAxis": {"type": "category", "data": ys},
            "visualMap": {"show": False, "max": max(value or 0 for value in values)},
            "series": [{"type": "heatmap", "data": cells}],
        }
    category, value = {"type": "category", "data": chart["x"]}, {"type": "value"}
    area = {"areaStyle": {}} if chart["kind"] == "area" else {}
    return {
        "tooltip": {"trigger": "axis"},
        "legend": {},
        "xAxis": value if chart["horizontal"] else category,
        "yAxis": category if chart["horizontal"] else value,
        "series": [
            {"type": KINDS[chart["kind"]], "name": one["name"], "data": one["values"], **area} for one in chart["y"]
        ],
    }


def main(file: str, port: str) -> None:
    """Serve it."""
    from nicegui import ui

    shown = read(file)

    @ui.page("/")
    def page() -> None:
        ui.label(shown["title"]).classes("text-h4")
        ui.label(shown["lead"])
        with ui.row():
            for card in shown["cards"]:
                with ui.card():
                    ui.label(card["label"])
                    ui.label(card["value"]).classes("text-h5")
                    ui.label(card["note"])
        for part in shown["parts"]:
            ui.label(part["title"]).classes("text-h6")
            if part["chart"] and part["rows"]:
                ui.echart(options(part["chart"]))
            columns = [{"name": one["name"], "label": one["label"], "field": one["name"]} for one in part["columns"]]
            ui.table(columns=columns, rows=part["rows"])

    ui.run(host="127.0.0.1", port=int(port), reload=False, show=False, title="overview")


if __name__ in {"__main__", "__mp_main__"}:
    main(*sys.argv[1:3])
