"""All figures: one look, and each can be taken home as PNG, SVG, CSV or Parquet."""

import io
from collections.abc import Callable
from typing import Any, cast

import altair as alt
import pandas as pd
import streamlit as st
from plotly import graph_objects

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


def curve(table: pd.DataFrame, x: str, y: str) -> Any:
    """One line, such as a loss over tokens."""
    return cast(
        Any,
        alt.Chart(table)
        .mark_line(color=theme.AFTER, strokeWidth=2)
        .encode(
            x=alt.X(f"{x}:Q", title=x),
            y=alt.Y(f"{y}:Q", title=y.replace("_", " "), scale=alt.Scale(zero=False)),
            tooltip=[x, alt.Tooltip(f"{y}:Q", format=".4g")],
        ),
    ).properties(height=190)


def latent_map(table: pd.DataFrame) -> Any:
    """Latents on a plane; a lasso or a box selects, the wheel zooms."""
    largest = float(table["share of images"].max() or 1.0)
    figure = graph_objects.Figure(
        graph_objects.Scattergl(
            x=table.x,
            y=table.y,
            mode="markers",
            customdata=table[["latent", "label", "share of images"]],
            hovertemplate="%{customdata[1]} (%{customdata[0]})<br>fires on %{customdata[2]:.1%}<extra></extra>",
            marker={
                "size": 5 + 17 * (table["share of images"] / largest) ** 0.5,
                "color": theme.AFTER,
                "opacity": 0.65,
                "line": {"width": 0.5, "color": "white"},
            },
            unselected={"marker": {"opacity": 0.15}},
        )
    )
    axis = {"visible": False}
    figure.update_layout(
        height=600,
        margin={"l": 0, "r": 0, "t": 0, "b": 0},
        xaxis=axis,
        yaxis=axis,
        dragmode="lasso",
        showlegend=False,
    )
    return figure


def show_map(figure: Any, table: pd.DataFrame, name: str, caption: str) -> list[int]:
    """The map with its downloads; the rows of `table` in the lasso or box."""
    event = st.plotly_chart(
        figure,
        key=f"chart-{name}",
        on_select="rerun",
        selection_mode=("lasso", "box"),
        config={
            "scrollZoom": True,
            "displaylogo": False,
            "toImageButtonOptions": {"format": "svg", "filename": name},
        },
    )
    line = st.columns([5, 1], vertical_alignment="center")
    line[0].caption(caption)
    with line[1].popover("", icon=":material/download:", type="tertiary", help="Download the numbers"):
        downloads(table, name)
    return [int(p["point_index"]) for p in event.selection.points] if event else []


def histogram(table: pd.DataFrame) -> Any:
    """Counts between edges, on a logarithmic axis."""
    shown = table[table.tokens > 0]
    return cast(
        Any,
        alt.Chart(shown)
        .mark_bar(color=theme.AFTER)
        .encode(
            x=alt.X("from:Q", title="activation"),
            x2="to:Q",
            y=alt.Y("tokens:Q", scale=alt.Scale(type="symlog"), title="tokens"),
            tooltip=[alt.Tooltip("from:Q", format=".2f"), alt.Tooltip("to:Q", format=".2f"), "tokens"],
        ),
    ).properties(height=150)


def shares(table: pd.DataFrame) -> Any:
    """Bars of shares by class."""
    return cast(
        Any,
        alt.Chart(table)
        .mark_bar(color=theme.AFTER)
        .encode(
            x=alt.X("share:Q", axis=alt.Axis(format="%"), title=None),
            y=alt.Y("class:N", sort="-x", title=None),
            tooltip=[
                "class",
                alt.Tooltip("share:Q", format=".1%"),
                alt.Tooltip("lift:Q", format=".2f"),
                "images",
            ],
        ),
    ).properties(height={"step": 22})


def slices(table: pd.DataFrame) -> Any:
    """Net change of each slice with its interval."""
    base = alt.Chart(table).encode(
        y=alt.Y("slice:N", sort=None, title=None, axis=alt.Axis(labelLimit=320, labelOverlap=False))
    )
    rule = base.mark_rule(strokeWidth=2, color=theme.CONTROL).encode(
        x=alt.X("low:Q", title="net change, points"), x2="high:Q"
    )
    dots = base.mark_circle(size=70, opacity=1).encode(
        x="net:Q",
        color=alt.condition("datum.net < 0", alt.value(theme.AGAINST), alt.value(theme.AFTER)),
        tooltip=[
            "slice",
            "images",
            alt.Tooltip("net:Q", format="+.1f"),
            "broken",
            "fixed",
            alt.Tooltip("q:Q", format=".2g"),
        ],
    )
    zero = alt.Chart(pd.DataFrame({"net": [0.0]})).mark_rule(strokeDash=[4, 4]).encode(x="net:Q")
    return cast(Any, alt.layer(zero, rule, dots)).properties(height={"step": 19})


def confusion(table: pd.DataFrame) -> Any:
    """Change of each cell: blue more, orange fewer; one can be picked."""
    most = max(1.0, float(table.change.abs().max()))
    cell = alt.selection_point(name="cell", fields=["label", "answer"])
    return cast(
        Any,
        alt.Chart(table)
        .mark_rect()
        .encode(
            x=alt.X("answer:N", sort=None, title="answer"),
            y=alt.Y("label:N", sort=None, title="label"),
            color=alt.Color(
                "change:Q",
                scale=alt.Scale(
                    domain=[-most, 0, most], range=[theme.AGAINST, "#f1f3f7", theme.AFTER], interpolate="rgb"
                ),
                legend=None,
            ),
            opacity=alt.condition(cell, alt.value(1.0), alt.value(0.45)),
            tooltip=["label", "answer", "change"],
        )
        .add_params(cell),
    ).properties(height=430)


def pareto(table: pd.DataFrame) -> Any:
    """Share fixed against share broken."""
    return cast(
        Any,
        alt.Chart(table)
        .mark_circle(size=90, opacity=0.85)
        .encode(
            x=alt.X("broken:Q", axis=alt.Axis(format="%"), title="broken"),
            y=alt.Y("fixed:Q", axis=alt.Axis(format="%"), title="fixed"),
            color=alt.Color(
                "what:N",
                scale=alt.Scale(domain=["this correction", "controls"], range=[theme.AFTER, theme.CONTROL]),
                title=None,
            ),
            tooltip=[
                "what",
                "gain",
                alt.Tooltip("fixed:Q", format=".1%"),
                alt.Tooltip("broken:Q", format=".2%"),
            ],
        ),
    ).properties(height=_HEIGHT)


def lines(table: pd.DataFrame, x: str, y: str, by: str) -> Any:
    """Shares over steps."""
    return cast(
        Any,
        alt.Chart(table)
        .mark_line(point=True, strokeWidth=2)
        .encode(
            x=alt.X(f"{x}:Q", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y(f"{y}:Q", axis=alt.Axis(format="%"), scale=alt.Scale(zero=False)),
            color=alt.Color(f"{by}:N", title=None, scale=alt.Scale(range=list(theme.CATEGORIES))),
            tooltip=[x, by, alt.Tooltip(f"{y}:Q", format=".1%")],
        ),
    ).properties(height=_HEIGHT)


def interactions(table: pd.DataFrame) -> Any:
    """Pairs of corrections: orange breaks more together than alone."""
    most = max(0.1, float(table.interaction.abs().max()))
    return cast(
        Any,
        alt.Chart(table)
        .mark_rect(stroke="white")
        .encode(
            x=alt.X("first:N", title=None),
            y=alt.Y("second:N", title=None),
            color=alt.Color(
                "interaction:Q",
                scale=alt.Scale(
                    domain=[-most, 0, most], range=[theme.AFTER, "#f1f3f7", theme.AGAINST], interpolate="rgb"
                ),
                legend=None,
            ),
            tooltip=["first", "second", alt.Tooltip("interaction:Q", format="+.2f")],
        ),
    ).properties(height=280)


def similarity(table: pd.DataFrame, order: list[str]) -> Any:
    """Concepts against concepts, in the order of the dendrogram."""
    return cast(
        Any,
        alt.Chart(table)
        .mark_rect()
        .encode(
            x=alt.X("a:N", sort=order, title=None, axis=alt.Axis(labelOverlap=False)),
            y=alt.Y("b:N", sort=order, title=None, axis=alt.Axis(labelOverlap=False)),
            color=alt.Color("similarity:Q", scale=alt.Scale(scheme="viridis")),
            tooltip=["a", "b", alt.Tooltip("similarity:Q", format=".3f")],
        ),
    ).properties(height=max(430, 110 + 15 * len(order)))  # a line for each name


def concept_map(table: pd.DataFrame) -> Any:
    """Concepts on a plane, named, coloured by their domain."""
    base = alt.Chart(table).encode(
        x=alt.X("x:Q", axis=None, scale=alt.Scale(zero=False, padding=30)),
        y=alt.Y("y:Q", axis=None, scale=alt.Scale(zero=False, padding=20)),
        color=alt.Color("domain:N", title=None, scale=alt.Scale(range=list(theme.CATEGORIES))),
    )
    dots = base.mark_circle(size=90, opacity=0.9).encode(tooltip=["concept", "domain"])
    return cast(
        Any, alt.layer(dots, base.mark_text(dy=-10, fontSize=11).encode(text="concept:N"))
    ).properties(height=430)


def against_control(table: pd.DataFrame, x: str, y: str, *, bars: bool = True) -> Any:
    """Trained weights beside random ones: columns `x`, `y`, `weights`."""
    mark = alt.Chart(table).mark_bar() if bars else alt.Chart(table).mark_line(point=True)
    return cast(
        Any,
        mark.encode(
            x=alt.X(f"{x}:N" if bars else f"{x}:Q", sort=None, title=x, axis=alt.Axis(labelLimit=240)),
            y=alt.Y(f"{y}:Q", title=y),
            xOffset=alt.XOffset("weights:N", sort=["trained", "random"]) if bars else alt.XOffset(),
            color=alt.Color(
                "weights:N",
                title=None,
                scale=alt.Scale(domain=["trained", "random"], range=[theme.AFTER, theme.CONTROL]),
            ),
            tooltip=[x, "weights", alt.Tooltip(f"{y}:Q", format=".3g")],
        ),
    ).properties(
        height=220 + (4 * max(map(len, table[x])) if bars and len(table) else 0)
    )  # names stand upright


def checkpoint_curve(table: pd.DataFrame) -> Any:
    """Columns `step, search, concept, ap, of` (concept, mean or random weights): what is known from one to the next."""
    base = alt.Chart(table).encode(
        x=alt.X("step:Q", title=None, axis=alt.Axis(tickMinStep=1, format="d")),
        y=alt.Y("ap:Q", title="best AP", scale=alt.Scale(zero=False)),
        detail="concept:N",
        tooltip=["search", "concept", alt.Tooltip("ap:Q", format=".3f")],
    )
    single = base.transform_filter("datum.of == 'concept'").mark_line(
        color=theme.BEFORE, opacity=0.45, strokeWidth=1, point={"size": 18, "color": theme.BEFORE}
    )
    mean = base.transform_filter("datum.of == 'mean'").mark_line(color=theme.AFTER, strokeWidth=3, point=True)
    random = base.transform_filter("datum.of == 'random weights'").mark_line(
        color=theme.CONTROL, strokeWidth=2, strokeDash=[5, 4]
    )
    return cast(Any, alt.layer(single, random, mean)).properties(height=_HEIGHT)


def dendrogram(table: pd.DataFrame, leaves: pd.DataFrame) -> Any:
    """Links of a dendrogram as steps (`x, y, link, step`), with the names of the leaves under them."""
    links = (
        alt.Chart(table)
        .mark_line(color=theme.BEFORE, strokeWidth=1.5)
        .encode(x=alt.X("x:Q", axis=None), y=alt.Y("y:Q", title="distance"), detail="link:N", order="step:Q")
    )
    names = (
        alt.Chart(leaves)
        .mark_text(angle=270, align="right", dy=4, fontSize=11)
        .encode(x="x:Q", y=alt.value(262), text="concept:N")
    )
    return cast(Any, alt.layer(links, names)).properties(
        height=260, padding={"bottom": 90, "left": 5, "right": 5, "top": 5}
    )


def ap_distribution(table: pd.DataFrame, base_rate: float) -> Any:
    """Units by AP on a logarithmic axis, trained beside random weights."""
    lines_ = (
        alt.Chart(table)
        .mark_line(interpolate="step", strokeWidth=2)
        .encode(
            x=alt.X("AP:Q"),
            y=alt.Y("units:Q", scale=alt.Scale(type="symlog")),
            color=alt.Color(
                "weights:N",
                title=None,
                scale=alt.Scale(domain=["trained", "random"], range=[theme.AFTER, theme.CONTROL]),
            ),
            tooltip=[alt.Tooltip("AP:Q", format=".2f"), "weights", "units"],
        )
    )
    rule = alt.Chart(pd.DataFrame({"AP": [base_rate]})).mark_rule(strokeDash=[5, 4]).encode(x="AP:Q")
    return cast(Any, alt.layer(lines_, rule)).properties(height=200)


def overlaps(table: pd.DataFrame) -> Any:
    """Overlap of each concept."""
    return cast(
        Any,
        alt.Chart(table)
        .mark_bar(color=theme.AFTER)
        .encode(
            x=alt.X("overlap:Q", scale=alt.Scale(domain=[0, 1])),
            y=alt.Y("concept:N", sort="-x", title=None),
            tooltip=["concept", alt.Tooltip("overlap:Q", format=".3f")],
        ),
    ).properties(height={"step": 20})


def downloads_popover(table: pd.DataFrame, name: str) -> None:
    """Downloads of a table without a figure."""
    with st.popover("Download", icon=":material/download:"):
        downloads(table, name)
