"""All figures: one look, and each can be taken home as PNG, SVG, CSV or Parquet."""

import io
from collections.abc import Callable
from typing import Any, cast

import altair as alt
import pandas as pd
import streamlit as st

from fulcrum_ui import theme

_HEIGHT = 240


def show(
    chart: Any,
    table: pd.DataFrame,
    name: str,
    *,
    caption: str | None = None,
    key: str | None = None,
    **select: Any,
) -> Any:
    """The figure with its downloads; `name` is that of the files. Returns what was selected in it."""
    event = st.altair_chart(chart, width="stretch", key=key or f"chart-{name}", **select)
    line = st.columns([5, 1], vertical_alignment="center")
    if caption:
        line[0].caption(caption)
    with line[1].popover("", icon=":material/download:", type="tertiary", help="Download figure and numbers"):
        downloads(table, name, chart)
    return event


def downloads(table: pd.DataFrame, name: str, chart: Any | None = None) -> None:
    """Buttons; files are made when somebody clicks."""
    made: list[tuple[str, str, Callable[[], Any]]] = [
        ("csv", "text/csv", lambda: table.to_csv(index=False)),
        ("parquet", "application/vnd.apache.parquet", lambda: _parquet(table)),
    ]
    if chart is not None:
        made = [
            ("png", "image/png", lambda: _rendered(chart, "png")),
            ("svg", "image/svg+xml", lambda: _rendered(chart, "svg")),
            *made,
        ]
    for suffix, kind, make in made:
        st.download_button(
            suffix.upper() if len(suffix) < 5 else "Parquet",
            make,
            file_name=f"{name}.{suffix}",
            mime=kind,
            key=f"download-{name}-{suffix}",
            on_click="ignore",
            width="stretch",
        )


def _rendered(chart: Any, form: str) -> bytes:
    out = io.BytesIO()
    chart.properties(background="white").save(out, format=form, **({"ppi": 200} if form == "png" else {}))
    return out.getvalue()


def _parquet(table: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    table.to_parquet(out, index=False)
    return out.getvalue()


def dose_curve(
    table: pd.DataFrame,
    x: str,
    y: str,
    by: str,
    *,
    at: float | None = None,
    flips: tuple[float, float] | None = None,
) -> Any:
    """Lines over gains; `at` marks the present one, `flips` the gains between which the answer changes."""
    lines = (
        alt.Chart(table)
        .mark_line(point=True, strokeWidth=2)
        .encode(
            x=alt.X(f"{x}:Q", title="gain of the edited latents (1 = untouched)"),
            y=alt.Y(f"{y}:Q", title=y.replace("_", " ")),
            color=alt.Color(f"{by}:N", title=None, scale=alt.Scale(range=list(theme.CATEGORIES))),
            tooltip=[x, by, alt.Tooltip(f"{y}:Q", format=".3f")],
        )
    )
    layers = [lines]
    if flips is not None:
        band = pd.DataFrame({"from": [min(flips)], "to": [max(flips)]})
        layers.insert(
            0, alt.Chart(band).mark_rect(opacity=0.15, color=theme.AGAINST).encode(x="from:Q", x2="to:Q")
        )
    if at is not None:
        layers.append(alt.Chart(pd.DataFrame({x: [at]})).mark_rule(strokeDash=[5, 4]).encode(x=f"{x}:Q"))
    return cast(Any, alt.layer(*layers)).properties(height=_HEIGHT)


def controls_strip(draws: pd.DataFrame, effect: float) -> Any:
    """What pushes of the same size do, and what ours does."""
    ticks = (
        alt.Chart(draws)
        .mark_tick(thickness=2, size=22, opacity=0.6, color=theme.BEFORE)
        .encode(
            x=alt.X("change:Q", title="change of the target"),
            y=alt.Y("kind:N", title=None),
            tooltip=["kind", alt.Tooltip("change:Q", format=".3f")],
        )
    )
    rule = (
        alt.Chart(pd.DataFrame({"change": [effect], "what": ["this edit"]}))
        .mark_rule(size=3, color=theme.AFTER)
        .encode(x="change:Q", tooltip=["what", alt.Tooltip("change:Q", format=".3f")])
    )
    return cast(Any, alt.layer(ticks, rule)).properties(height={"step": 34})
