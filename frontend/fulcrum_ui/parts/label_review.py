"""Names of latents and what colleagues think of them: a badge, a history, and the buttons of a reviewer."""

from html import escape
from itertools import islice
from typing import get_args

import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import FulcrumError, NothingToReview, StaleVersion
from fulcrum.domain.labels import EarlierLabel, LabelReview, ReviewDecision, label_before
from fulcrum.domain.records import ConceptRecord, SaeRecord
from fulcrum_ui.parts import people
from fulcrum_ui.parts.words import ago, badge, plain
from fulcrum_ui.visitor import SHORT_S, Visitor, forget, remembered, visitor

_MOST = 100  # waiting labels that are listed
_SHOWN = 6  # of the history, at once
_KINDS = {"proposed": "info", "confirmed": "good", "rejected": "bad"}
_NO_LABEL = "no name"


def mark(review: LabelReview | None) -> str:
    """A quiet sign behind a name that a reviewer confirmed, as HTML."""
    return (
        '<span class="fu-mark" role="img" aria-label="confirmed name" title="A reviewer confirmed this name">✓</span>'
        if review == "confirmed"
        else ""
    )


def standing(client: Client, label: ConceptRecord | EarlierLabel) -> str:
    """Who says so, as HTML: "proposed by Ada", "confirmed by Rae"."""
    if label.label_source == "auto":
        return badge("found by a program") if label.label else badge("not named")
    author = people.name(client, label.created_by)
    match label.review:
        case "confirmed" | "rejected":
            return badge(f"{label.review} by {people.name(client, label.reviewed_by)}", _KINDS[label.review])
        case "proposed":
            return badge(f"proposed by {author}", "info")
        case None:
            return badge(f"written by {author}")


def about(client: Client, label: ConceptRecord | EarlierLabel) -> str:
    """Who wrote it when, who decided when, and their notes, as HTML."""
    if label.label_source == "auto":
        return f"<div class='fu-quiet'>{escape(ago(label.created_at))}</div>"
    lines = [
        f"{escape(people.name(client, label.created_by))}, {escape(ago(label.created_at))}{_quoted(label.note)}"
    ]
    if label.reviewed_by is not None:
        who, when = people.name(client, label.reviewed_by), ago(label.reviewed_at)
        lines.append(f"{label.review} by {escape(who)}, {escape(when)}{_quoted(label.review_note)}")
    return "".join(f"<div class='fu-quiet'>{line}</div>" for line in lines)


def history(client: Client, concept: ConceptRecord) -> None:
    """All names that the latent had, with who, when, why and what was decided."""
    if not concept.history:
        return
    st.subheader("Earlier names", anchor=False)
    entries = [
        f"<div class='fu-entry'><b>{escape(e.label or _NO_LABEL)}</b> {standing(client, e)}{about(client, e)}</div>"
        for e in concept.history
    ]
    st.html("".join(entries[:_SHOWN]))
    if len(entries) > _SHOWN:
        with st.expander(f"{len(entries) - _SHOWN} more"):
            st.html("".join(entries[_SHOWN:]))


def waiting(client: Client, sae_id: str) -> list[ConceptRecord]:
    """Names that wait for a review, newest first."""
    return remembered(
        ("waiting", sae_id),
        lambda: list(islice(client.concepts.list(sae_id, review="proposed"), _MOST)),
        for_s=SHORT_S,
    )


def waiting_for(who: Visitor, sae: SaeRecord) -> list[ConceptRecord]:
    """Those that the visitor may decide."""
    if not people.may_review(who, sae.project_id):
        return []
    return [c for c in waiting(who.client, sae.id) if c.created_by != who.user.id]


def decide(client: Client, sae: SaeRecord, concept: ConceptRecord) -> None:
    """Confirm and Reject, for those who may; what the others wait for."""
    if concept.review != "proposed":
        return
    who = visitor()
    if concept.created_by == who.user.id:
        alone = not people.others_may_review(who, sae.project_id)
        st.caption(
            "Your name waits for a colleague's review. "
            + (
                "Nobody else in this project may review: an administrator can invite a colleague, or give a member the role *reviewer*."
                if alone
                else "Until then it is shown as proposed."
            )
        )
        return
    if not people.may_review(who, sae.project_id):
        st.caption("This name waits for a reviewer of the project.")
        return
    key = f"{concept.latent}-{concept.version}"
    note = st.text_input(
        "Why", key=f"review-note-{key}", placeholder="Why (kept with the name)", label_visibility="collapsed"
    )
    for column, decision in zip(st.columns(2), get_args(ReviewDecision), strict=True):
        if column.button(
            decision.capitalize(),
            key=f"{decision}-{key}",
            icon=":material/check:" if decision == "confirm" else ":material/close:",
            help=_consequence(concept, decision),
            width="stretch",
        ):
            _send(client, sae, concept, decision, note.strip())


def _consequence(concept: ConceptRecord, decision: ReviewDecision) -> str:
    if decision == "confirm":
        return "The name stands as confirmed by you"
    place = label_before(concept.history, concept.created_by)
    label = "" if place is None else concept.history[place].label
    return f"It is called {plain(label)} again" if label else "It has no name again"


def _send(
    client: Client, sae: SaeRecord, concept: ConceptRecord, decision: ReviewDecision, note: str
) -> None:
    try:
        client.concepts.review(sae, concept.latent, decision, note=note, expected=concept)
    except (StaleVersion, NothingToReview):
        forget_labels()
        st.warning("A colleague was faster: look at what they did first.")
    except FulcrumError as error:
        st.error(plain(str(error)))
    else:
        forget_labels()
        st.rerun()


def forget_labels() -> None:
    """After a name changed: everything that shows one is asked again."""
    forget("latents", "known", "map", "waiting")


def _quoted(note: str) -> str:
    return f": <q>{escape(note)}</q>" if note else ""
