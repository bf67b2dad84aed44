"""A plain Streamlit page of the overview's content: streamlit run benchmarks/pages_streamlit.py -- FILE."""

from __future__ import annotations

import sys
from typing import Any

from benchmarks.pages_content import read


def main(file: str) -> None:
    """Draw it."""
    import pandas
    import streamlit

    shown = read(file)
    streamlit.set_page_config(layout="wide")
    streamlit.title(shown["title"])
    streamlit.write(shown["lead"].replace("$", r"\$"))
    for place, column in enumerate(streamlit.columns(len(shown["cards"]))):
        column.metric(shown["cards"][place]["label"], shown["cards"][place]["value"], shown["cards"][place]["note"])
    for part in shown["parts"]:
        streamlit.subheader(part["title"])
        if part["chart"] and part["rows"]:
            draw(streamlit, pandas, part["chart"])
        streamlit.dataframe(pandas.DataFrame(part["rows"]))


def draw(streamlit: Any, pandas: Any, chart: dict[str, Any]) -> None:
    """The chart with what Streamlit has of its own: it knows no doughnuts and heat maps, for which bars stand."""
    table = pandas.DataFrame({one["name"]: one["values"] for one in chart["y"]}, index=chart["x"])
    kinds = {"lines": streamlit.line_chart, "area": streamlit.area_chart}
    kinds.get(chart["kind"], streamlit.bar_chart)(table)


if __name__ == "__main__":
    main(sys.argv[1])
