"""What several searches found in their order, such as one for each checkpoint of a training."""

from collections.abc import Sequence
from itertools import pairwise

import pandas as pd
import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import InvalidInput
from fulcrum.domain.experts import Experts
from fulcrum.domain.records import ExpertsRecord
from fulcrum_ui import charts
from fulcrum_ui.parts.expert_question import search_words
from fulcrum_ui.visitor import SHORT_S, remembered

MOST_SEARCHES = 24


def checkpoints(client: Client, found: Experts, others: Sequence[ExpertsRecord]) -> None:
    """Chooses the searches and draws how their concepts come to be known. The one that is open is among them."""
    names = {r.id: search_words(r) for r in (found.record, *others)}
    st.subheader("Over checkpoints", anchor=False)
    chosen = st.multiselect(
        "Searches, in their order",
        sorted(names, key=lambda id: _when(id, found, others)),
        [found.record.id],
        format_func=names.__getitem__,
        max_selections=MOST_SEARCHES,
        help="One search for each checkpoint (or layer, or SAE), of concepts with the same names. The oldest stands first in the list.",
        key="experts-checkpoints",
    )
    if len(chosen) < 2:
        st.caption("Choose a second search to see how the concepts come to be known from one to the next.")
        return
    searches = [found if id == found.record.id else _search(client, id) for id in chosen]
    table = curve_table(searches)
    if table.empty:
        st.info("These searches share no concept.")
        return
    charts.show(
        charts.checkpoint_curve(table),
        table,
        "checkpoints",
        caption="Best AP of each concept that all of them asked for; thick: their mean, dashed: random weights.",
    )
    agreement = [_agreement(client, before, after) for before, after in pairwise(searches)]
    st.dataframe(
        pd.DataFrame(
            [
                {
                    "from": names[a],
                    "to": names[b],
                    "shared experts": _told(overlap),
                    "rho of similarities": _told(rho),
                }
                for (a, b), (overlap, rho) in zip(pairwise(chosen), agreement, strict=True)
            ]
        ),
        hide_index=True,
        width="stretch",
    )


def _told(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def curve_table(searches: Sequence[Experts]) -> pd.DataFrame:
    """`step, search, concept, ap, of`: best AP of the concepts that all searches have, their mean, and the mean of the
    random weights where every concept has one. Steps count from 1.
    """
    by_name = [{c.name: c for c in s.concepts} for s in searches]
    shared = [c.name for c in searches[0].concepts if all(c.name in concepts for concepts in by_name)]
    rows = []
    for step, (search, concepts) in enumerate(zip(searches, by_name, strict=True), start=1):
        label = search.record.name or search.record.id
        best = [concepts[name].best_ap for name in shared]
        control = [c for name in shared if (c := concepts[name].control_best_ap) is not None]
        rows += [(step, label, name, ap, "concept") for name, ap in zip(shared, best, strict=True)]
        if best:
            rows.append((step, label, "mean", sum(best) / len(best), "mean"))
        if best and len(control) == len(best):
            rows.append((step, label, "random weights", sum(control) / len(control), "random weights"))
    return pd.DataFrame(rows, columns=["step", "search", "concept", "ap", "of"])


def _search(client: Client, search: str) -> Experts:
    return remembered(("experts", search), lambda: client.experts.get(search), for_s=SHORT_S)


def _agreement(client: Client, before: Experts, after: Experts) -> tuple[float | None, float | None]:
    try:
        answer = remembered(
            ("stability", before.record.id, after.record.id),
            lambda: client.experts.stability(after.record, before.record),
            for_s=SHORT_S,
        )
    except InvalidInput:  # other units or other concepts: nothing to compare
        return None, None
    return answer.mean_overlap, answer.rho


def _when(id: str, found: Experts, others: Sequence[ExpertsRecord]) -> float:
    return {r.id: r.created_at.timestamp() for r in (found.record, *others)}[id]
