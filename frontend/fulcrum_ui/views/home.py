"""Home: what happened in the project, what to do next, and a guided tour."""

from html import escape
from itertools import islice

import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.records import SaeRecord
from fulcrum_ui import go
from fulcrum_ui.parts import job_progress, label_review, people
from fulcrum_ui.parts.evidence_badges import verdict_badge
from fulcrum_ui.parts.gallery import gallery
from fulcrum_ui.parts.words import ago, badge, plain
from fulcrum_ui.pictures import image_url
from fulcrum_ui.visitor import Visitor, account_url, visitor

_TOUR = (
    (
        "See what went wrong",
        "Open an image on which the model is wrong. Its prediction stands beside the latents that carried it.",
        "debug",
        "To the bench",
    ),
    (
        "Look where it looks",
        "The eye on a card shows where in the image that latent carries the answer; its four examples show where else it fires.",
        "debug",
        "To the bench",
    ),
    (
        "Change its mind",
        "Suppress the latent that fires on the wrong thing, and watch the answer. *Evidence* compares the change with random pushes of the same size.",
        "debug",
        "To the bench",
    ),
    (
        "Keep it",
        "Save the edit as a correction, with the reason why it should help.",
        "corrections",
        "To the corrections",
    ),
    (
        "Prove it",
        "Validate it on images that nobody looked at: what it fixes, what it breaks, and whether that is more than chance and controls.",
        "validation",
        "To the validation",
    ),
)


_LOOK = (
    ("concepts", "Concepts", "hub", "What the latents of the model stand for, with the images that show it."),
    (
        "corrections",
        "Corrections",
        "healing",
        "What colleagues changed, and what is known about each change.",
    ),
    ("validation", "Evaluations", "fact_check", "What each correction fixed and broke, image by image."),
    ("datasets", "Data sets", "photo_library", "The images on which all of it is proven."),
)


def page() -> None:
    """The page."""
    who = visitor()
    line = st.columns([6, 1.5], vertical_alignment="center")
    line[0].title(f"Welcome, {plain(who.user.name)}", anchor=False)
    line[1].link_button(
        "Account",
        account_url(),
        icon=":material/account_circle:",
        width="stretch",
        help="Password, API tokens, log out",
    )
    left, right = st.columns([5, 4], gap="large")
    with left:
        _next(who)
        if people.may_write(who):
            _tour()
        else:
            _look_around()
    with right:
        _happened(who.client)


def _next(who: Visitor) -> None:
    client, writes = who.client, people.may_write(who)
    saes = [s for s in client.saes.list() if s.state == "ready"]
    datasets = list(client.datasets.list())
    images = list(islice(client.images.list(), 8))
    st.subheader("Next", anchor=False)
    _to_review(saes)
    if not saes and writes:
        st.write("Add the model that you want to understand, and an SAE of it.")
        go.link("models", "Add a model and an SAE", icon="deployed_code")
        return
    if not any(d.n_images for d in datasets) and writes:
        st.write("Import a data set: examples for each latent, and what corrections are proven on.")
        go.link("datasets", "Import a data set", icon="photo_library")
    if images:
        st.caption("Go on with a recent image" if writes else "What colleagues asked the model about")
        taken = gallery("home-images", [(i.id, image_url(i.id, 192), i.filename) for i in images], height=300)
        if taken is not None:
            go.switch("debug", image=taken)
    if writes:
        go.link("debug", "Debug another image", icon="science")
    elif not images:
        st.caption("Nobody has asked the model about an image yet.")


def _to_review(saes: list[SaeRecord]) -> None:
    who = visitor()
    found = [(sae, len(label_review.waiting_for(who, sae))) for sae in saes]
    waiting = [(sae, n) for sae, n in found if n]
    for sae, n in waiting:
        label = "1 label waits for your review" if n == 1 else f"{n} labels wait for your review"
        of = f", of {plain(sae.name)}" if len(waiting) > 1 else ""
        go.link("concepts", label + of, icon="rate_review", sae=sae.id, waiting="1")


def _look_around() -> None:
    """In place of the tour, for those who read: it leads through what only others may do."""
    st.subheader("Look around", anchor=False)
    for name, label, icon, words in _LOOK:
        with st.container(border=True):
            row = st.columns([2, 4.4], vertical_alignment="center")
            with row[0]:
                go.link(name, label, icon=icon)
            row[1].caption(words)


def _tour() -> None:
    st.subheader("Five steps, five minutes", anchor=False)
    done = st.session_state.setdefault("tour", 0)
    for number, (title, words, name, label) in enumerate(_TOUR):
        if number != done:
            mark = (
                ":green[:material/check_circle:]"
                if number < done
                else ":gray[:material/radio_button_unchecked:]"
            )
            st.markdown(f"{mark} {title}")
            continue
        with st.container(border=True):
            st.markdown(f"**{number + 1}. {title}**  \n{words}")
            row = st.columns([2, 1.4, 3], vertical_alignment="center")
            with row[0]:
                go.link(name, label, icon="arrow_forward")
            if row[1].button("Done", key="tour-done", width="stretch"):
                st.session_state["tour"] = done + 1
                st.rerun()
    if done >= len(_TOUR):
        st.success("That is the whole way from attribution to action.")
        if st.button("Again", key="tour-again"):
            st.session_state["tour"] = 0
            st.rerun()


def _happened(client: Client) -> None:
    st.subheader("What happened", anchor=False)
    corrections = {c.id: c for c in client.corrections.list()}
    lines: list[tuple[object, str, str, dict[str, str]]] = []
    for e in islice(client.evaluations.list(), 8):
        name = corrections[e.correction_id].name if e.correction_id in corrections else "a deleted correction"
        what = verdict_badge(e) if e.kind == "validation" else badge("dose-response", "info")
        lines.append(
            (
                e.created_at,
                f"<b>{escape(name)}</b> on {escape(e.split)} {what}",
                "validation",
                {"evaluation": e.id},
            )
        )
    for c in list(corrections.values())[:6]:
        lines.append(
            (c.created_at, f"Correction <b>{escape(c.name)}</b> saved", "corrections", {"correction": c.id})
        )
    for job in islice(client.jobs.list(), 10):
        if job.state in ("running", "queued", "failed"):
            lines.append(
                (
                    job.created_at,
                    f"{escape(job_progress.kind_words(job.kind))} {badge(job.state, job_progress.STATES[job.state])}",
                    "jobs",
                    {"job": job.id},
                )
            )
    if not lines:
        st.caption("Nothing yet.")
    for at, words, name, query in sorted(lines, key=lambda x: str(x[0]), reverse=True)[:12]:
        row = st.columns([5, 1.1], vertical_alignment="center")
        row[0].html(f"{words}<br><span class='fu-quiet'>{ago(at)}</span>")  # type: ignore[arg-type]  # all are times
        with row[1]:
            go.link(name, "Open", **query)
