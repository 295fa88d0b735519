"""What a job found, where it is not a page of its own: a searched correction, and interactions of corrections."""

from typing import Any

import pandas as pd
import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import AlreadyExists, FulcrumError
from fulcrum.domain.jobs import JobRecord
from fulcrum_ui import charts, go, troubles
from fulcrum_ui.parts.words import number, percent, plain, signed
from fulcrum_ui.parts.writing import write_button

_KEPT = "saved-suggestion"


def show(client: Client, job: JobRecord) -> None:
    """Nothing for jobs whose result is looked at elsewhere."""
    if job.state != "succeeded" or job.result is None:
        return
    if job.kind == "suggest_correction":
        _suggestion(client, job, job.result)
    elif job.kind == "interact_corrections":
        _interactions(job.result)


def _suggestion(client: Client, job: JobRecord, found: dict[str, Any]) -> None:
    st.markdown(
        f"**{found['n_edits']} edits** bring the failure group from {percent(found['group_accuracy_before'])} to "
        f"**{percent(found['group_accuracy_after'])}**, and the others from {percent(found['clean_accuracy_before'])} to "
        f"**{percent(found['clean_accuracy_after'])}**. {number(found['n_evaluated'])} candidates were run on "
        f"{number(found['n_group'])} and {number(found['n_clean'])} images."
    )
    steps = [
        {"step": i, "group": s["group_accuracy"], "others": s["clean_accuracy"]}
        for i, s in enumerate(found.get("path") or ())
        if "group_accuracy" in s and "clean_accuracy" in s
    ]
    if len(steps) > 1:
        table = pd.DataFrame(steps).melt(id_vars=["step"], var_name="images", value_name="accuracy")
        charts.show(
            charts.lines(table, "step", "accuracy", "images"),
            table,
            f"search-{job.id}",
            caption="Step by step",
        )
    st.caption("Found on these images, so it proves nothing about others yet: save it, then validate it.")
    saved = st.session_state.get(_KEPT, {}).get(job.id)
    if saved is not None:
        st.success(f"Saved **{plain(saved.name)}**.")
        go.link("validation", "Validate it", icon="fact_check", correction=saved.id)
        return
    line = st.columns([3, 1], vertical_alignment="bottom")
    name = line[0].text_input(
        "Name", max_chars=120, key=f"suggest-name-{job.id}", placeholder="no written words"
    )
    if write_button(
        "Save",
        place=line[1],
        type="primary",
        key=f"suggest-save-{job.id}",
        width="stretch",
        disabled=not name.strip(),
    ):
        try:
            record = client.corrections.save_suggested(job, name.strip())
        except AlreadyExists:
            st.error(f"There is a correction named {plain(repr(name.strip()))} already: take another name.")
        except FulcrumError as error:
            troubles.show(error, "suggest-save")
        else:
            st.session_state.setdefault(_KEPT, {})[job.id] = record
            st.rerun()


def _interactions(found: dict[str, Any]) -> None:
    st.caption(
        f"{number(found['n'])} images of {found['split']}. Above 0, a pair breaks more than both alone would add up to."
    )
    rows = [
        {
            "first": p["first"],
            "second": p["second"],
            "broken, first": p["nfr_first"],
            "broken, second": p["nfr_second"],
            "broken, both": p["nfr_both"],
            "interaction": 100 * p["interaction"],
            "low": 100 * p["interval"]["low"],
            "high": 100 * p["interval"]["high"],
            "net interaction": 100 * p["net_interaction"],
        }
        for p in found["interactions"]
    ]
    if rows:
        table = pd.DataFrame(rows)
        mirrored = pd.concat([table, table.rename(columns={"first": "second", "second": "first"})])
        left, right = st.columns([2, 3], gap="large")
        with left:
            charts.show(charts.interactions(mirrored), table, "interactions")
        with right:
            st.dataframe(
                table,
                hide_index=True,
                width="stretch",
                column_config={
                    **{
                        c: st.column_config.NumberColumn(format="percent")
                        for c in table.columns
                        if c.startswith("broken")
                    },
                    **{
                        c: st.column_config.NumberColumn(format="%+.2f")
                        for c in ("interaction", "low", "high", "net interaction")
                    },
                },
            )
    alone = pd.DataFrame(
        [
            {
                "correction": a["name"],
                "fixed": a.get("fixed"),
                "broken": a.get("broken"),
                "net, points": signed(100 * a["net"], 1) if "net" in a else "",
            }
            for a in [*found["corrections"], *found["together"]]
        ]
    )
    if not alone.empty:
        st.dataframe(alone, hide_index=True, width="stretch")
    for pair in found.get("refused") or ():
        st.warning(f"{pair['first']} with {pair['second']}: {pair['reason']}")
