"""Choosing an image: dropped, uploaded before, or from a data set. And the SAEs that can be asked."""

from dataclasses import replace
from itertools import islice

import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import FulcrumError
from fulcrum.domain.records import DatasetRecord, SaeRecord
from fulcrum_ui import bench_state as state
from fulcrum_ui import go, troubles
from fulcrum_ui.parts.card_grid import PATCH
from fulcrum_ui.parts.gallery import gallery
from fulcrum_ui.parts.writing import refusal
from fulcrum_ui.pictures import image_url, sample_url
from fulcrum_ui.visitor import forget, remembered

_TYPES = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"]
_PER_PAGE = 24


def usable_saes(client: Client) -> list[SaeRecord]:
    """SAEs that answer now, newest first; after them the layers whose units stand beside them."""
    ready = [s for s in client.saes.list() if s.state == "ready"]
    return sorted(ready, key=lambda s: s.is_units)


def described_saes(client: Client) -> list[SaeRecord]:
    """Those whose latents can be described and searched: units of a layer are looked for by experts alone."""
    return [s for s in usable_saes(client) if not s.is_units]


def choose_image(client: Client, key: str) -> None:
    """Puts an image on the bench. Who may not add one chooses among those that are there."""
    allowed = refusal() is None
    dropped = (
        st.file_uploader("Drop an image", type=_TYPES, key=f"drop-{key}", label_visibility="collapsed")
        if allowed
        else None
    )
    if dropped is not None and st.session_state.get(f"dropped-{key}") != dropped.file_id:
        st.session_state[f"dropped-{key}"] = dropped.file_id
        try:
            record = client.images.upload(dropped.getvalue(), filename=dropped.name)
        except FulcrumError as error:
            troubles.show(error, "upload")
            return
        forget("recent")
        _put(record.id)
    recent = list(islice(client.images.list(), 12))
    datasets = [d for d in client.datasets.list() if d.n_images] if allowed else []
    if not recent and datasets:
        _from_dataset(client, datasets, key)
        return
    tabs = st.tabs(["Recent", "From a data set"]) if datasets else [st.container()]
    with tabs[0]:
        if recent:
            picked = gallery(
                f"recent-{key}",
                [(i.id, image_url(i.id, 192), i.filename) for i in recent],
                height=320,
            )
            if picked is not None:
                _put(picked)
        elif not datasets:
            st.caption("Images that you or your colleagues open appear here.")
    if datasets:
        with tabs[1]:
            _from_dataset(client, datasets, key)


def _from_dataset(client: Client, datasets: list[DatasetRecord], key: str) -> None:
    line = st.columns([2, 1, 1], vertical_alignment="bottom")
    dataset = line[0].selectbox("Data set", datasets, format_func=lambda d: d.name, key=f"set-{key}")
    splits = ["all", *dataset.n_by_split]
    split = line[1].selectbox("Split", splits, key=f"split-{key}")
    label = line[2].selectbox("Class", ["all", *dataset.class_names], key=f"label-{key}")
    try:
        found = remembered(
            ("samples", dataset.id, dataset.digest, split, label),
            lambda: list(
                islice(
                    client.datasets.images(
                        dataset,
                        split=None if split == "all" else split,
                        label=None if label == "all" else label,
                    ),
                    _PER_PAGE,
                )
            ),
        )
    except FulcrumError as error:
        troubles.show(error, "samples")
        return
    items = [(s.id, sample_url(dataset.id, s.id, dataset.digest), s.label or s.id) for s in found]
    picked = gallery(f"samples-{key}", items, height=340)
    if picked is not None:
        open_sample(client, dataset, picked)


def open_sample(client: Client, dataset: DatasetRecord, sample: str, *, elsewhere: bool = False) -> None:
    """An image of a data set onto the bench, with the classes of the data set; `elsewhere`: from another page."""
    record = client.datasets.open_image(dataset, sample, digest=dataset.digest)
    forget("recent")
    _put(record.id, tuple(dataset.class_names), elsewhere)


def _put(image_id: str, classes: tuple[str, ...] = (), elsewhere: bool = False) -> None:
    state.change(lambda b: replace(b, image=image_id, classes=classes or b.classes, gains=(), region=()))
    st.session_state.pop(PATCH, None)
    if elsewhere:
        go.switch("debug", **state.current().to_query())
    st.rerun()
