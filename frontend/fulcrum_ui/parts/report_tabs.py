"""An evaluation, part by part: verdict and gates, flip board, slices, confusion, ripple, doses, provenance."""

from html import escape
from typing import Any

import pandas as pd
import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import FulcrumError, NotFound
from fulcrum.domain.evaluations import Evaluation
from fulcrum_ui import charts, troubles
from fulcrum_ui.parts import keeping
from fulcrum_ui.parts.bars import banner
from fulcrum_ui.parts.dose_report import doses_of_it
from fulcrum_ui.parts.evidence_badges import verdict_meaning
from fulcrum_ui.parts.flip_board import changed_of_set, flip_board, images_of_cell
from fulcrum_ui.parts.latent_cards import known
from fulcrum_ui.parts.printing import printable
from fulcrum_ui.parts.words import Noun, number, p_value, percent, plain, signed
from fulcrum_ui.visitor import remembered

Report = dict[str, Any]
_STATE_ICONS = {
    "pass": ("✓", "fu-good"),
    "fail": ("✗", "fu-bad"),
    "undecided": ("?", "fu-plain"),
}


def validation(client: Client, found: Evaluation, name: str, dataset: str) -> None:
    """The report of a validation."""
    report = found.report
    tabs = keeping.tabs(
        ("Verdict", "Flip board", "Slices", "Confusion", "Ripple", "Doses", "Details"), "part"
    )
    parts = (_verdict, flip_board, _slices, _confusion, _ripple, doses_of_it, _details)
    for tab, part in zip(tabs, parts, strict=True):
        with tab:
            if tab.open:
                try:
                    part(client, found, report)
                except FulcrumError as error:
                    troubles.show(error, part.__name__)
    st.divider()
    st.download_button(
        "Printable report",
        lambda: printable(found, name, dataset),
        file_name="validation.html",
        mime="text/html",
        icon=":material/print:",
        on_click="ignore",
    )


def _verdict(client: Client, found: Evaluation, report: Report) -> None:
    verdict = report["verdict"]
    name = str(verdict["name"])
    kind = "good" if name == "generalises" else ("bad" if "harm" in name else "plain")
    words = found.record.badge or name
    banner(words[:1].upper() + words[1:], kind)
    if (meaning := verdict_meaning(name)) is not None:
        st.caption(meaning)
    if (provisional := verdict.get("provisional")) and provisional != name:
        st.caption(f"The gates alone say: {provisional}. Only the confirm split can prove that.")
    needs = found.record.numbers.get("needs_n")
    if needs:
        st.caption(f"About {number(needs)} images of the failure mode would decide.")
    left, right = st.columns([4, 5], gap="large")
    with left:
        target = report.get("target")
        if target:
            _two_by_two("Images of the failure mode", target)
        _two_by_two("All images", report["overall"])
    with right:
        st.subheader("Gates", anchor=False)
        _gates(report)
        _to_changed(found, report)
        for line in report.get("gates_left_out") or ():
            st.caption(f"Not asked: {line}")
        _controls(client, found, report)


def _two_by_two(title: str, part: Report) -> None:
    st.markdown(
        f"**{title}**: {percent(part['accuracy_before'])} → **{percent(part['accuracy_after'])}** of {number(part['n'])}"
    )
    cells = (
        f"<tr><th></th><th class='r'>right after</th><th class='r'>wrong after</th></tr>"
        f"<tr><th>right before</th><td class='r'>{part['still_right']}</td><td class='r'><b class='fu-bad'>{part['broken']} broken</b></td></tr>"
        f"<tr><th>wrong before</th><td class='r'><b class='fu-good'>{part['fixed']} fixed</b></td><td class='r'>{part['still_wrong']}</td></tr>"
    )
    st.html(f'<table class="fu-table">{cells}</table>')
    interval, bound = part.get("interval") or {}, part.get("nfr_bound") or {}
    mde = part.get("mde")
    st.caption(
        f"Net {signed(100 * part['net'], 1)} points, {100 * interval.get('level', 0.95):.0f} % interval {signed(100 * interval.get('low', 0), 1)} to "
        f"{signed(100 * interval.get('high', 0), 1)}; {p_value(part.get('p'))}. Of those that were right, at most {percent(bound.get('upper'), 2)} break. "
        + ("" if mde is None else f"Smaller changes than {100 * mde:.1f} points would go unseen.")
    )


def _gates(report: Report) -> None:
    rows = []
    for gate in report["gates"]:
        icon, css = _STATE_ICONS[str(gate["state"])]
        words, colon, name = str(gate["name"]).partition(
            ": "
        )  # after it stands what people or manifests named
        title = escape(words.replace("_", " ") + colon + name)
        rows.append(
            f"<tr><td class='{css}'><b title='{escape(str(gate['state']))}'>{icon}</b></td><td><b>{title}</b></td>"
            f"<td>{escape(str(gate['reason']))}</td></tr>"
        )
    st.html(f'<table class="fu-table">{"".join(rows)}</table>')


def _to_changed(found: Evaluation, report: Report) -> None:
    """From each list that did not keep its answers to the images that changed theirs."""
    for judged in report.get("image_sets") or ():
        if judged["purpose"] == "invariant" and judged["changed"]:
            n = int(judged["changed"])
            images = "image that changed its answer" if n == 1 else "images that changed their answer"
            st.button(
                f"{plain(judged['name'])}: {number(n)} {images}",
                icon=":material/view_module:",
                type="tertiary",
                help="On the flip board",
                key=f"changed-of-{judged['name']}",
                on_click=keeping.follow,
                args=(changed_of_set(found.record, judged["name"]),),
            )


def _noun(client: Client, found: Evaluation) -> Noun:
    """Of what the correction is made."""

    def ask() -> Noun:
        try:
            sae_id = client.corrections.get(found.record.correction_id).sae_id
            return known(client, sae_id, ()).noun if sae_id else "latent"
        except NotFound:  # the correction or its SAE is gone, its evaluation stays
            return "latent"

    return remembered(("evaluations", found.record.id, "noun"), ask)


def _controls(client: Client, found: Evaluation, report: Report) -> None:
    kinds = {"matched_latents": f"other {_noun(client, found)}s", "random_directions": "random directions"}
    draws = [
        {"kind": kinds.get(c["kind"], c["kind"]), "change": 100 * g}
        for c in report.get("controls") or ()
        for g in c.get("gains") or ()
    ]
    if not draws:
        return
    target = report.get("target") or report["overall"]
    table = pd.DataFrame(draws)
    st.subheader("Against controls of the same size", anchor=False)
    charts.show(charts.controls_strip(table, 100 * target["net"]), table, "dataset-controls")
    for c in report["controls"]:
        st.caption(
            f"{c['n_controls']} corrections of {kinds.get(c['kind'], c['kind'])}: 95 % gain at most {signed(100 * c['p95'], 1)} points, "
            f"this one {signed(100 * c['gain'], 1)}; {p_value(c['p'])}."
        )


def _slices(client: Client, found: Evaluation, report: Report) -> None:
    answer = remembered(
        ("evaluations", found.record.id, "slices"), lambda: client.evaluations.slices(found.record)
    )
    rows = pd.DataFrame(
        [
            {
                "slice": s["group"]["name"],
                "images": s["n"],
                "before": s["accuracy_before"],
                "after": s["accuracy_after"],
                "net": 100 * s["net"],
                "low": 100 * s["interval"]["low"] if s.get("interval") else None,
                "high": 100 * s["interval"]["high"] if s.get("interval") else None,
                "broken": s["broken"],
                "fixed": s["fixed"],
                "p": s["p"],
                "q": s["q"],
                "MDE": None if s.get("mde") is None else 100 * s["mde"],
                "verdict": s["verdict"],
            }
            for s in answer.slices
        ]
    )
    if rows.empty:
        st.info("The images carry no groups.")
    else:
        rows = rows.sort_values("net")
        judged = rows[rows["low"].notna()]  # small image sets have no interval, and would stretch the axis
        charts.show(
            charts.slices((rows if judged.empty else judged).head(20)),
            rows,
            "slices",
            caption="Net change in points with simultaneous intervals; the 20 worst. q corrects for looking at all of them.",
        )
        if report.get("image_sets"):
            st.caption(
                "A set (*set=...*) that was chosen by what this correction does proves nothing about it here: "
                "judge it on other images, or another correction by it."
            )
        st.dataframe(
            rows,
            hide_index=True,
            width="stretch",
            height=340,
            column_config={
                "before": st.column_config.NumberColumn(format="percent"),
                "after": st.column_config.NumberColumn(format="percent"),
                **{c: st.column_config.NumberColumn(format="%+.1f") for c in ("net", "low", "high")},
                "MDE": st.column_config.NumberColumn(
                    format="%.1f", help="Points that so many images would show; none where they are too few."
                ),
                **{c: st.column_config.NumberColumn(format="%.2g") for c in ("p", "q")},
            },
        )
    st.subheader("Where flips gather", anchor=False)
    columns = st.columns(3, gap="medium")
    for column, (title, part) in zip(
        columns, (("Broken", answer.broken), ("Fixed", answer.fixed), ("Moved", answer.moved)), strict=True
    ):
        with column:
            st.markdown(f"**{title}**")
            shown = [
                {
                    "slice": f["group"]["name"],
                    "images": f["n"],
                    "events": f["n_events"],
                    "rate": f["rate"],
                    "outside": f["rate_outside"],
                    "q": f["q"],
                }
                for f in part[:12]
            ]
            if shown:
                st.dataframe(
                    pd.DataFrame(shown),
                    hide_index=True,
                    width="stretch",
                    column_config={
                        "rate": st.column_config.NumberColumn(format="percent"),
                        "outside": st.column_config.NumberColumn(format="percent"),
                        "q": st.column_config.NumberColumn(format="%.2g"),
                    },
                )
            else:
                st.caption("None stand out.")


def _confusion(client: Client, found: Evaluation, report: Report) -> None:
    answer = remembered(
        ("evaluations", found.record.id, "confusion"), lambda: client.evaluations.confusion(found.record)
    )
    cell: tuple[str, str] | None = None
    left, right = st.columns([3, 2], gap="large")
    with left:
        if answer.delta:
            table = pd.DataFrame(
                [
                    {"label": answer.class_names[i], "answer": answer.class_names[j], "change": v}
                    for i, row in enumerate(answer.delta)
                    for j, v in enumerate(row)
                ]
            )
            event = charts.show(
                charts.confusion(table),
                table,
                "confusion",
                caption="After minus before: rows are labels, columns answers. Blue is more, orange fewer. Click a cell for its images.",
                on_select="rerun",
                selection_mode="cell",
            )
            cells = event.selection.get("cell", []) if event else []
            cell = (str(cells[0]["label"]), str(cells[0]["answer"])) if cells else None
        else:
            st.info("Too many classes for a matrix: see the pairs that changed most.")
    with right:
        st.markdown("**Answers that changed most**")
        pairs = pd.DataFrame(answer.pairs)
        if pairs.empty:
            st.caption("No answer changed.")
        else:
            st.dataframe(
                pairs[["before", "after", "n", "fixed", "broken"]],
                hide_index=True,
                width="stretch",
                height=420,
            )
    if cell is not None:
        images_of_cell(client, found, *cell)


def _ripple(client: Client, found: Evaluation, report: Report) -> None:
    ripple = report.get("ripple")
    if not ripple:
        st.info("No images outside the failure mode: the ripple cannot be seen here.")
        return
    interval = ripple.get("kl_p95_interval") or {}
    st.caption(
        f"Over {number(ripple['n'])} {ripple['population']}: how far answers moved though they should not. 95 % of images moved by at most "
        f"{ripple['kl']['p95']:.3g} nats (interval {interval.get('low', 0):.2g} to {interval.get('high', 0):.2g}), the most by {ripple['kl']['max']:.3g}."
    )
    classes = pd.DataFrame(ripple["classes"])
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Classes that gained or lost answers**")
        if not classes.empty:
            classes["net"] = classes["n_after"] - classes["n_before"]
            st.dataframe(
                classes[["class_name", "n_before", "n_after", "net", "p", "q"]],
                hide_index=True,
                width="stretch",
                column_config=_science(),
            )
    with right:
        st.markdown(f"**{_noun(client, found).capitalize()}s that moved though nobody edited them**")
        moved = pd.DataFrame(ripple.get("concepts") or ripple.get("latents") or [])
        if moved.empty:
            st.caption("None.")
        else:
            st.dataframe(
                moved[["name", "mean_change", "n_up", "n_down", "p", "q"]].head(30),
                hide_index=True,
                width="stretch",
                height=380,
                column_config=_science(),
            )


def _science() -> dict[str, Any]:
    return {c: st.column_config.NumberColumn(format="%.2g") for c in ("p", "q")}


def _sets(report: Report) -> None:
    sets = report.get("image_sets")
    if not sets:
        return
    st.markdown("**Image sets, as they were**")
    shown = ("name", "purpose", "n", "evaluated", "changed", "left_out", "other_splits", "gone")
    st.dataframe(
        pd.DataFrame([{k.replace("_", " "): s[k] for k in shown} for s in sets]),
        hide_index=True,
        width="stretch",
    )


def _details(client: Client, found: Evaluation, report: Report) -> None:
    record = found.record
    left, right = st.columns(2, gap="large")
    with left:
        counted = report["counted"]
        st.markdown("**Which images were judged**")
        st.dataframe(
            pd.DataFrame([{"what": k.replace("_", " "), "images": v} for k, v in counted.items()]),
            hide_index=True,
            width="stretch",
        )
        _sets(report)
        calibration = report.get("calibration") or {}
        scores = [calibration[k] for k in ("brier", "ece", "log_loss") if calibration.get(k)]
        if scores:
            st.markdown("**Calibration**")
            st.dataframe(
                pd.DataFrame([{k: s[k] for k in ("name", "before", "after", "difference")} for s in scores]),
                hide_index=True,
                width="stretch",
            )
        st.markdown("**Per image, from which every number can be recomputed**")
        line = st.columns(2)
        for column, form, mime in (
            (line[0], "parquet", "application/vnd.apache.parquet"),
            (line[1], "csv", "text/csv"),
        ):
            column.download_button(
                form.upper() if form == "csv" else "Parquet",
                lambda form=form: client.evaluations.table(record, format=form),  # type: ignore[misc]  # a default binds it
                file_name=f"{record.id}.{form}",
                mime=mime,
                width="stretch",
                on_click="ignore",
                key=f"table-{form}",
            )
    with right:
        st.markdown("**Provenance**")
        st.json(
            {k: v for k, v in report["provenance"].items() if k not in ("class_names", "templates")},
            expanded=1,
        )
        with st.expander("Specification"):
            st.json(report["specification"])
