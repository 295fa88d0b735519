"""Dose-response on a data set: what each dose fixes and breaks, and efficacy against side effects."""

from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.evaluations import Evaluation
from fulcrum_ui import charts, go
from fulcrum_ui.parts.words import number
from fulcrum_ui.visitor import SHORT_S, remembered

_SHOWN = 3


def doses_of_it(client: Client, found: Evaluation, report: dict[str, Any]) -> None:
    """The newest sweeps of the version that was validated."""
    record = found.record
    sweeps = [
        e
        for e in client.evaluations.list(kind="sweep", correction=record.correction_id)
        if e.number == record.number
    ]
    if not sweeps:
        st.info("No dose-response of this version yet: it shows what each gain fixes and breaks.")
        go.link("validation", "Ask for one", icon="show_chart", correction=record.correction_id)
        return
    for e in sweeps[:_SHOWN]:
        sweep(client, remembered(("evaluations", e.id), partial(client.evaluations.get, e), for_s=SHORT_S))


def sweep(client: Client, found: Evaluation) -> None:
    """The report of a dose-response."""
    report = found.report
    doses = pd.DataFrame([g["dose"] | {"on front": g["on_front"]} for g in report["gains"]])
    curve = report["curves"][0] if report.get("curves") else {}
    chosen = (curve.get("chosen") or {}).get("gain")
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**What each dose fixes and breaks**")
        names = {"fix_rate": "fixed", "nfr": "broken", "worst_group_accuracy": "worst group"}
        long = doses.melt(
            id_vars=["gain"], value_vars=[c for c in names if c in doses], var_name="what", value_name="share"
        )
        long["what"] = long["what"].map(names)
        charts.show(
            charts.dose_curve(long, "gain", "share", "what", at=chosen),
            long,
            f"doses-{found.record.id}",
            caption="Dashed: the chosen dose" if chosen is not None else None,
        )
        harm = curve.get("first_harm")
        st.caption(
            (
                f"Chosen gain {chosen:g}. "
                if chosen is not None
                else "No dose keeps within the margin of harm. "
            )
            + (
                f"The first dose that harms: {harm if not isinstance(harm, dict) else harm.get('gain')}."
                if harm is not None
                else "No dose harms beyond the margin."
            )
        )
    with right:
        st.markdown("**Efficacy against side effects**")
        points = [
            {
                "fixed": g["dose"]["fix_rate"],
                "broken": g["dose"]["nfr"],
                "what": "this correction",
                "gain": g["gain"],
            }
            for g in report["gains"]
        ]
        points += [
            {"fixed": c["fix_rate"], "broken": c["nfr"], "what": "controls", "gain": None}
            for c in report.get("controls", ())
        ]
        table = pd.DataFrame(points)
        charts.show(
            charts.pareto(table),
            table,
            f"pareto-{found.record.id}",
            caption="Up and left is better; grey are corrections of the same size made of others.",
        )
    st.caption(
        f"{number(report['n'])} images, {number(report['n_target'])} of the failure mode, split {found.record.split}."
    )
