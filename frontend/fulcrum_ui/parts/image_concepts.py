"""Concepts of images as a table: which values of a data set's columns are searched, and under what name."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.jobs import FindExperts, ImageConcept, Where
from fulcrum.domain.records import DatasetRecord
from fulcrum_ui.parts.columns import facets_of

_FEWEST = 2  # images of either kind


@dataclass(frozen=True)
class Candidate:
    """A value that may be a concept, and how many images have it and do not (None: several conditions, not counted)."""

    concept: ImageConcept
    n: int | None
    n_others: int | None

    def fault(self) -> str:
        """What keeps it from being searched, "" where nothing does."""
        if self.n is None or self.n_others is None:
            return ""
        if self.n < _FEWEST or self.n_others < _FEWEST:
            return "only one class" if not (self.n and self.n_others) else "needs two images of each"
        return ""


def candidates(client: Client, dataset: DatasetRecord, columns: Sequence[str]) -> list[Candidate]:
    """A concept for each value of each column."""
    facets = facets_of(client, dataset)
    by_name = {f.column.removeprefix("group_"): f for f in (*facets.groups, facets.label)}
    found = []
    for column in columns:
        facet = by_name.get(column)
        if facet is None:
            continue
        for value in facet.values:
            if value.value:
                name = value.value if column == "label" else f"{column}={value.value}"
                concept = ImageConcept(name, (Where(column, value.value),), (), column)
                found.append(Candidate(concept, value.n, dataset.n_images - value.n))
    return found


def of_search(client: Client, dataset: DatasetRecord, spec: FindExperts) -> list[Candidate]:
    """What an earlier search was asked with."""
    return candidates(client, dataset, spec.columns) + [Candidate(c, None, None) for c in spec.concepts]


def table(found: Sequence[Candidate], key: str) -> tuple[list[ImageConcept], str]:
    """The concepts that are ticked, as they are named, and why they cannot be searched yet ("" when they can)."""
    shown = pd.DataFrame(
        [
            {
                "search": not c.fault(),
                "name": c.concept.name,
                "domain": c.concept.domain,
                "images": c.n,
                "others": c.n_others,
                "of": " and ".join(f"{w.column}={w.value}" for w in c.concept.where),
            }
            for c in found
        ]
    )
    # What is wrong depends on what is ticked and written: found in the run before, shown beside the row now. The table
    # has a fixed number of rows, and keeps what was edited when another column changes.
    checks: list[str] = st.session_state.get(f"{key}-checks", [])
    shown["check"] = checks if len(checks) == len(found) else [c.fault() for c in found]
    edited = st.data_editor(
        shown,
        hide_index=True,
        width="stretch",
        height=min(430, 38 + 35 * (len(shown) + 1)),
        disabled=["images", "others", "of", "check"],
        column_order=["search", "name", "images", "others", "check", "domain", "of"],
        column_config={
            "search": st.column_config.CheckboxColumn(width="small"),
            "name": st.column_config.TextColumn("concept", max_chars=120),
            "domain": st.column_config.TextColumn(max_chars=120),
            "images": st.column_config.NumberColumn(width="small"),
            "others": st.column_config.NumberColumn(width="small"),
            "check": st.column_config.TextColumn(width="medium"),
        },
        key=key,
    )
    rows = [
        (bool(on), str(name or ""), str(domain or ""))
        for on, name, domain in edited[["search", "name", "domain"]].itertuples(index=False)
    ]
    now = faults([name if on else None for on, name, _ in rows], found)
    if now != list(shown["check"]):
        st.session_state[f"{key}-checks"] = now
        st.rerun()
    chosen = [
        ImageConcept(name.strip(), c.concept.where, c.concept.against, domain.strip())
        for (on, name, domain), c in zip(rows, found, strict=True)
        if on
    ]
    wrong = sum(1 for (on, *_), words in zip(rows, now, strict=True) if on and words)
    if not chosen:
        return chosen, "No concept is ticked."
    return chosen, f"{wrong} of the ticked concepts are not right yet." if wrong else ""


def faults(names: Sequence[str | None], found: Sequence[Candidate]) -> list[str]:
    """What is wrong with each; a name of None is not searched."""
    ticked = [name.strip() for name in names if name is not None]
    words = []
    for name, candidate in zip(names, found, strict=True):
        said = candidate.fault()
        if name is not None and not said:
            said = (
                "needs a name"
                if not name.strip()
                else "name taken twice"
                if ticked.count(name.strip()) > 1
                else ""
            )
        words.append(said)
    return words
