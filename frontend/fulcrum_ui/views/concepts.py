"""Concepts: what the latents of an SAE stand for. Search, a map, one latent whole, two side by side."""

from collections.abc import Sequence
from functools import partial
from html import escape
from itertools import islice

import pandas as pd
import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.concepts import DescribedLatent, LatentDetail, LatentHit, LatentMap, LatentSort
from fulcrum.domain.errors import FulcrumError, NotFound, StaleVersion
from fulcrum.domain.records import SaeRecord
from fulcrum_ui import charts, go, troubles
from fulcrum_ui.parts import label_review
from fulcrum_ui.parts.choosing import described_saes
from fulcrum_ui.parts.latent_cards import crops, known, view_of
from fulcrum_ui.parts.words import latent_name, number, p_value, percent, plain
from fulcrum_ui.parts.writing import refusal, write_button, write_submit
from fulcrum_ui.pictures import example_url, image_url
from fulcrum_ui.visitor import SHORT_S, remembered, visitor

_PER_PAGE = 24
_SORTS: dict[str, tuple[LatentSort, bool]] = {
    "Clearest": ("clarity", True),
    "Most frequent": ("image_rate", True),
    "Rarest": ("image_rate", False),
    "Best label": ("label_score", True),
    "Purest class": ("purity", True),
    "Most meanings": ("polysemanticity", True),
    "Strongest": ("max", True),
}


def page() -> None:
    """The page."""
    client = visitor().client
    saes = described_saes(client)
    if not saes:
        st.title("Concepts", anchor=False)
        st.info("There is no SAE in this project yet.")
        go.link("models", "Add a model and an SAE", icon="deployed_code")
        return
    query = st.query_params
    sae = next((s for s in saes if s.id == query.get("sae")), saes[0])
    latents = [int(n) for n in query.get("latent", "").split(",") if n.isdecimal() and len(n) < 9][:2]
    if latents:
        _details(client, sae, latents)
        return
    _overview(client, sae, saes)


def _overview(client: Client, sae: SaeRecord, saes: list[SaeRecord]) -> None:
    line = st.columns([2.2, 4, 1.3, 2.2, 2.2], vertical_alignment="bottom")
    line[0].title("Concepts", anchor=False)
    words = line[1].text_input(
        "Search",
        st.query_params.get("q", ""),
        placeholder="Search by words: a red sticker",
        key="concept-words",
        label_visibility="collapsed",
    )
    sort = line[3].selectbox("Sort", list(_SORTS), key="concept-sort", label_visibility="collapsed")
    chosen = line[4].selectbox(
        "SAE", saes, saes.index(sae), format_func=lambda s: s.name, label_visibility="collapsed"
    )
    with line[2].popover("", icon=":material/image_search:", width="stretch", help="Search by an image"):
        by_image = _image_search(client)
    waiting = "1" if st.query_params.get("waiting") and not words and not by_image else ""
    query = {
        k: v for k, v in {"sae": chosen.id, "q": words, "image": by_image, "waiting": waiting}.items() if v
    }
    go.write(query)
    if chosen.id != sae.id:
        st.rerun()
    try:
        drawn: LatentMap = remembered(("map", sae.id), lambda: client.latents.map(sae), for_s=SHORT_S)
    except NotFound:
        _undescribed(client, sae)
        return
    left, right = st.columns([5, 4], gap="large")
    with right:
        near = _map(drawn)
    with left:
        if _wants_waiting(client, sae):
            _waiting(client, sae)
        else:
            _grid(client, sae, words.strip(), by_image, sort, near)


def _wants_waiting(client: Client, sae: SaeRecord) -> bool:
    """Whether names that wait for a review are listed; a button leads there and back."""
    here = bool(st.query_params.get("waiting"))
    n = len(label_review.waiting(client, sae.id))
    if here:
        st.button(
            "All concepts", icon=":material/arrow_back:", type="tertiary", on_click=_show_waiting, args=("",)
        )
    elif n:
        words = "1 name waits for review" if n == 1 else f"{n} names wait for review"
        st.button(words, icon=":material/rate_review:", type="tertiary", on_click=_show_waiting, args=("1",))
    return here


def _show_waiting(value: str) -> None:
    st.session_state.pop("concept-words", None)  # a search would come before the list
    for name in ("q", "image", "waiting"):
        st.query_params.pop(name, None)
    if value:
        st.query_params["waiting"] = value


def _waiting(client: Client, sae: SaeRecord) -> None:
    found = label_review.waiting(client, sae.id)
    if not found:
        st.info("No name waits for a review.")
        return
    shown = found[: st.session_state.get("concepts-shown", _PER_PAGE)]
    about = known(client, sae.id, [c.latent for c in shown][:100])
    for start in range(0, len(shown), 2):
        for column, concept in zip(st.columns(2), shown[start : start + 2], strict=False):
            card = about.cards.get(concept.latent)
            with column, st.container(border=True):
                name = escape(latent_name(concept.latent, concept.label or "taken back"))
                st.html(
                    f'<div class="fu-card-head"><b title="{name}">{name}</b></div>'
                    + label_review.about(client, concept)
                    + (crops(sae.id, card, about.view) if card else "")
                )
                label_review.decide(client, sae, concept)
                if st.button("Open", key=f"open-{concept.latent}", width="stretch"):
                    go.write({"sae": sae.id, "latent": str(concept.latent)})
                    st.rerun()
    if len(found) > len(shown) and st.button("More"):
        st.session_state["concepts-shown"] = len(shown) + _PER_PAGE
        st.rerun()


def _undescribed(client: Client, sae: SaeRecord) -> None:
    st.info(
        f"**{sae.name}** has not been described yet. Describing finds the images on which each latent fires, words for it, and its neighbours."
    )
    datasets = [d for d in client.datasets.list() if d.n_images]
    if not datasets:
        go.link("datasets", "Import a data set first", icon="photo_library")
        return
    line = st.columns([3, 1.3, 4], vertical_alignment="bottom")
    dataset = line[0].selectbox(
        "On the images of", datasets, format_func=lambda d: f"{d.name} ({d.n_images} images)"
    )
    if write_button("Describe", place=line[1], type="primary", width="stretch"):
        try:
            job = client.latents.describe(sae, dataset)
        except FulcrumError as error:
            troubles.show(error, "describe")
            return
        go.switch("jobs", job=job.id)


def _map(drawn: LatentMap) -> list[int]:
    """The map; latents that you drew around that was drawn in it."""
    table = pd.DataFrame(
        {
            "latent": drawn.latents,
            "x": drawn.x,
            "y": drawn.y,
            "share of images": drawn.image_rate,
            "label": [text or "no label" for text in drawn.labels],
        }
    )
    picked = charts.show_map(
        charts.latent_map(table),
        table,
        "concept-map",
        "Each dot is a latent; like meanings lie together. Draw around some to list them, double-click to clear; the wheel zooms.",
    )
    return [int(table.latent[i]) for i in picked]


def _image_search(client: Client) -> str | None:
    """The id of the image that is searched by: those latents are found that fire most strongly in it."""
    now = st.query_params.get("image")
    no = refusal()
    dropped = st.file_uploader(
        "Drop an image",
        type=["png", "jpg", "jpeg", "webp"],
        key="concept-image",
        disabled=no is not None,
        help=no,
    )
    if dropped is not None and st.session_state.get("concept-dropped") != dropped.file_id:
        st.session_state["concept-dropped"] = dropped.file_id
        return client.images.upload(dropped.getvalue(), filename=dropped.name).id
    if now and not st.button("Forget the image", key="concept-forget", width="stretch"):
        st.html(f'<img src="{escape(image_url(now, 192))}" alt="the image that is searched by" width="128">')
        return now
    return None


def _grid(
    client: Client, sae: SaeRecord, words: str, by_image: str | None, sort: str, near: list[int]
) -> None:
    shown = st.session_state.get("concepts-shown", _PER_PAGE)
    try:
        found, more = _found(client, sae, words, by_image, sort, near, shown)
    except FulcrumError as error:
        troubles.show(error, "search")
        return
    if near:
        st.caption(f"{len(near)} latents that you drew around")
    elif by_image:
        st.caption("Latents that fire most strongly in the image")
    if not found:
        st.info(f"No latent found for “{words}”." if words else "No latent fires on this data set.")
        return
    about = known(client, sae.id, found[:100])
    compare: list[int] = []
    for start in range(0, len(found), 3):
        for column, latent in zip(st.columns(3), found[start : start + 3], strict=False):
            card = about.cards.get(latent)
            with column, st.container(border=True):
                name = escape(about.name(latent))
                rate = f"fires on {percent(card.summary.image_rate)}" if card else ""
                st.html(
                    f'<div class="fu-card-head"><b title="{name}">{name}</b>{about.mark(latent)}</div>'
                    f'<div class="fu-scores fu-quiet">{rate}</div>'
                    + (crops(sae.id, card, about.view) if card else "")
                )
                row = st.columns([2, 1], vertical_alignment="center")
                if row[0].button("Open", key=f"open-{latent}", width="stretch"):
                    go.write({"sae": sae.id, "latent": str(latent)})
                    st.rerun()
                if row[1].checkbox(
                    "Compare",
                    key=f"compare-{latent}",
                    label_visibility="collapsed",
                    help="Choose two to compare them",
                ):
                    compare.append(latent)
    if len(compare) >= 2 and st.button(f"Compare {compare[0]} and {compare[1]}", type="primary"):
        go.write({"sae": sae.id, "latent": f"{compare[0]},{compare[1]}"})
        st.rerun()
    if more and st.button("More"):
        st.session_state["concepts-shown"] = shown + _PER_PAGE
        st.rerun()


def _found(
    client: Client, sae: SaeRecord, words: str, by_image: str | None, sort: str, near: list[int], n: int
) -> tuple[list[int], bool]:
    if near:
        return near[:n], len(near) > n
    if by_image:
        image = by_image
        in_it: Sequence[LatentHit] = remembered(
            ("latents", "search", sae.id, image),
            lambda: client.latents.search(sae, client.images.get(image), n=50),
            for_s=SHORT_S,
        )
        return [h.latent for h in in_it][:n], len(in_it) > n
    if words:
        by_meaning: Sequence[LatentHit] = remembered(
            ("latents", "search", sae.id, words),
            lambda: client.latents.search(sae, words, n=50),
            for_s=SHORT_S,
        )
        return [h.latent for h in by_meaning][:n], len(by_meaning) > n
    key, descending = _SORTS[sort]
    listed: list[DescribedLatent] = remembered(
        ("latents", sae.id, key, descending, n),
        lambda: list(islice(client.latents.list(sae, sort=key, descending=descending), n + 1)),
        for_s=SHORT_S,
    )
    return [d.latent for d in listed[:n]], len(listed) > n


def _details(client: Client, sae: SaeRecord, latents: list[int]) -> None:
    if st.button("All concepts", icon=":material/arrow_back:", type="tertiary"):
        go.write({"sae": sae.id})
        st.rerun()
    for column, latent in zip(st.columns(len(latents), gap="large"), latents, strict=True):
        with column:
            try:
                detail: LatentDetail = remembered(
                    ("latents", "one", sae.id, latent),
                    partial(client.latents.get, sae, latent),
                    for_s=SHORT_S,
                )
            except NotFound as error:
                st.warning(plain(str(error)))
                continue
            _detail(client, sae, detail, wide=len(latents) == 1)


def _detail(client: Client, sae: SaeRecord, detail: LatentDetail, *, wide: bool) -> None:
    one = detail.summary
    label = detail.concept.label if detail.concept and detail.concept.label else one.label
    head = st.columns([5, 1.6, 1.6] if wide else [3, 2, 2], vertical_alignment="center")
    head[0].title(plain(latent_name(one.latent, label)), anchor=False)
    with head[1].popover("Rename", icon=":material/edit:", width="stretch"):
        _rename(client, sae, detail)
    with head[2]:
        go.link(
            "debug",
            "Try it",
            icon="science",
            help="On the bench, suppressed",
            sae=sae.id,
            edits=f"{one.latent}:0",
        )
    if detail.concept is not None:
        st.html(label_review.standing(client, detail.concept) + label_review.about(client, detail.concept))
        with st.columns([1, 1])[0] if wide else st.container():
            label_review.decide(client, sae, detail.concept)
    left, right = st.columns([3, 2], gap="large") if wide else (st.container(), st.container())
    with left:
        _top_images(client, sae, one.latent)
        if detail.histogram.counts:
            edges, counts = detail.histogram.edges, detail.histogram.counts
            table = pd.DataFrame({"from": edges[:-1], "to": edges[1:], "tokens": counts})
            charts.show(
                charts.histogram(table),
                table,
                f"activations-{one.latent}",
                caption="How strongly it fires, over tokens where it does (logarithmic).",
            )
        if detail.concept is not None:
            label_review.history(client, detail.concept)
    with right:
        _numbers(detail)
        _classes(detail)
        _neighbours(sae, detail)


def _top_images(client: Client, sae: SaeRecord, latent: int) -> None:
    by = st.segmented_control(
        "By",
        ["Strongest token", "Whole image"],
        default="Strongest token",
        key=f"top-by-{latent}",
        label_visibility="collapsed",
    )
    if by == "Whole image":
        st.caption("Images where its mean over tokens is largest.")
    found = remembered(
        ("latents", "top", sae.id, latent, by),
        lambda: client.latents.top_images(sae, latent, by="mean" if by == "Whole image" else "max", n=16),
        for_s=SHORT_S,
    )
    view = view_of(client, sae.id)
    mode = "&by=mean" if by == "Whole image" else ""
    tiles = "".join(
        f'<figure><img loading="lazy" src="{escape(example_url(sae.id, latent, rank, t, view, size=192))}{mode}" alt="example {rank + 1}">'
        f"<figcaption class='fu-num'>{number(t.value)}{' (CLS)' if t.peak_patch is None else ''}</figcaption></figure>"
        for rank, t in enumerate(found)
    )
    st.html(f'<div class="fu-tiles">{tiles}</div>')


def _numbers(detail: LatentDetail) -> None:
    one = detail.summary
    rows = [
        ("fires on images", f"{percent(one.image_rate)} ({one.n_images_active})"),
        ("fires on tokens", percent(one.token_rate, 2)),
        ("mean where it fires", number(one.mean_active)),
        ("99th percentile, largest", f"{number(one.p99)}, {number(one.max)}"),
        ("clarity", number(one.clarity)),
        ("polysemanticity", number(one.polysemanticity)),
        (
            "redundancy",
            number(one.redundancy)
            + (f", closest to {detail.redundant_with}" if detail.redundant_with is not None else ""),
        ),
        ("label score", number(one.label_score)),
    ]
    body = "".join(f"<tr><td>{escape(k)}</td><td class='r'>{escape(v)}</td></tr>" for k, v in rows)
    st.html(f'<table class="fu-table">{body}</table>')
    if detail.candidates:
        st.caption(
            "Words that fit: " + ", ".join(f"{c.text} ({number(c.score)})" for c in detail.candidates[:5])
        )


def _classes(detail: LatentDetail) -> None:
    if not detail.classes:
        return
    st.subheader("Classes of its top images", anchor=False)
    table = pd.DataFrame(
        [
            {"class": c.class_name, "share": c.share, "lift": c.lift, "images": c.count}
            for c in detail.classes[:8]
        ]
    )
    charts.show(charts.shares(table), table, f"classes-{detail.summary.latent}")
    if detail.dominant_p is not None:
        st.caption(
            f"Dominant class {detail.summary.dominant_class}: {p_value(detail.dominant_p)} (corrected for choosing it)"
        )


def _neighbours(sae: SaeRecord, detail: LatentDetail) -> None:
    for title, found in (
        ("Fires together with", detail.cofiring),
        ("Writes in the same direction as", detail.decoder),
    ):
        if found:
            st.subheader(title, anchor=False)
            for other in found[:5]:
                go.link(
                    "concepts",
                    f"{latent_name(other.latent, other.label)}  ·  {number(other.score)}",
                    place=title,
                    sae=sae.id,
                    latent=str(other.latent),
                )


def _rename(client: Client, sae: SaeRecord, detail: LatentDetail) -> None:
    latent, concept = detail.summary.latent, detail.concept
    with st.form(f"rename-{latent}", border=False):
        label = st.text_input("Name", concept.label if concept else detail.summary.label or "", max_chars=120)
        note = st.text_area("Why this name", concept.note if concept else "", max_chars=2000, height=80)
        if write_submit("Save", type="primary", width="stretch"):
            if concept is not None and (label.strip(), note.strip()) == (concept.label, concept.note):
                st.info("Nothing was changed.")
                return
            try:
                client.concepts.put(sae, latent, label.strip(), note=note.strip(), expected=concept)
            except StaleVersion:
                st.error("A colleague renamed it meanwhile: look at their name first.")
                label_review.forget_labels()
            except FulcrumError as error:
                st.error(plain(str(error)))
            else:
                label_review.forget_labels()
                st.rerun()
    st.caption(
        "A changed name or reason stands as proposed by you until a reviewer confirms it, also where the one before was confirmed; if they reject it, the name before comes back."
    )
