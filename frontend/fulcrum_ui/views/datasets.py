"""Data sets: import with checks, browse and filter, and open any image on the bench."""

import shutil
import tempfile
from html import escape
from itertools import islice
from pathlib import Path

import pandas as pd
import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from fulcrum.client import Client
from fulcrum.domain.datasets import DatasetImage, EmbeddingLink, Facet, ImportReport, LeakedImages
from fulcrum.domain.errors import FulcrumError, NotFound
from fulcrum.domain.jobs import JobRecord
from fulcrum.domain.records import DatasetRecord, ModelRecord
from fulcrum_ui import charts, go, troubles
from fulcrum_ui.parts import image_sets, looking
from fulcrum_ui.parts.choosing import open_sample
from fulcrum_ui.parts.columns import facets_of
from fulcrum_ui.parts.gallery import ticked_gallery
from fulcrum_ui.parts.image_set_list import image_set_list
from fulcrum_ui.parts.words import ago, badge, number, plain
from fulcrum_ui.parts.writing import refusal, write_button
from fulcrum_ui.pictures import sample_url
from fulcrum_ui.settings import settings
from fulcrum_ui.visitor import forget, remembered, visitor

_PER_PAGE = 60
_SET, _SET_KEY = "set", "facet-image-set"  # in the address, and in the state of the visit
_STATES = {"ready": "good", "failed": "bad", "importing": "info", "empty": "plain"}


def page() -> None:
    """The page."""
    client = visitor().client
    chosen = st.query_params.get("dataset")
    if chosen:
        _one(client, client.datasets.get(chosen))
        return
    st.title("Data sets", anchor=False)
    found = list(client.datasets.list())
    for record in found:
        with st.container(border=True):
            row = st.columns([4, 4, 1], vertical_alignment="center")
            more = (
                f"<br><span class='fu-quiet'>{escape(record.description[:160])}</span>"
                if record.description
                else ""
            )
            row[0].html(f"<b>{escape(record.name)}</b> {badge(record.state, _STATES[record.state])}{more}")
            splits = ", ".join(f"{k} {number(v)}" for k, v in record.n_by_split.items())
            row[1].caption(
                f"{number(record.n_images)} images · {len(record.class_names)} classes"
                + (f" · {splits}" if splits else "")
                + f" · {ago(record.created_at)}"
            )
            if row[2].button("Open", key=f"open-{record.id}", width="stretch"):
                st.query_params["dataset"] = record.id
                st.rerun()
    if not found:
        st.info(
            "A data set is what a correction is proven on: images with labels, divided into discover, select and confirm."
        )
    with st.expander("Import a data set", expanded=not found, icon=":material/add:"):
        _import(client)


def _import(client: Client) -> None:
    name = st.text_input("Name", max_chars=120, key="import-name")
    description = st.text_input("What it shows", max_chars=500, key="import-description")
    how = st.segmented_control(
        "From", ["An archive", "A folder of the lab"], default="An archive", key="import-how"
    )
    anew = st.toggle(
        "Divide anew",
        key="import-anew",
        help="Into discover, select and confirm, whatever splits the images have; duplicates stay together",
    )
    models = [m for m in client.models.list() if m.state == "ready"]
    by = st.selectbox(
        "Near-duplicates also by embedding of",
        [None, *models],
        format_func=lambda m: "none: by hash alone" if m is None else m.name,
        key="import-model",
        help="Hashes find copies in another size, quality or brightness. A model also finds mirrored, cropped or recoloured "
        "ones (cosine of .95 or more); it may take different images for one, which the report then says.",
    )
    archive = source = None
    if how == "A folder of the lab":
        source = st.text_input(
            "Folder",
            placeholder="folder:lab/signs",
            key="import-folder",
            help="Below a folder that the administrator named in FULCRUM_WORKER_FOLDERS",
        )
    else:
        archive = st.file_uploader(
            "Archive",
            type=["zip", "tar", "gz", "tgz"],
            key="import-archive",
            label_visibility="collapsed",
            disabled=refusal() is not None,
        )
        st.caption(
            f"Class folders, a manifest (CSV, Parquet, JSON lines), COCO or a FiftyOne export inside. Above "
            f"{settings().max_upload_mb} MB: `fulcrum import ARCHIVE`."
        )
    if write_button(
        "Import", type="primary", key="import-go", disabled=not name.strip() or not (source or archive)
    ):
        try:
            record = client.datasets.create(name.strip(), description=description.strip())
            if archive is not None:
                job = _upload(client, record, archive, anew, by)
            else:
                job = client.datasets.import_images(record, (source or "").strip(), new_splits=anew, model=by)
        except FulcrumError as error:
            troubles.show(error, "import")
            return
        forget("datasets")
        go.switch("jobs", job=job.id)


def _upload(
    client: Client, record: DatasetRecord, archive: UploadedFile, anew: bool, by: ModelRecord | None
) -> JobRecord:
    """A browser's name decides nothing but how the archive is unpacked."""
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / ("archive.zip" if archive.name.lower().endswith(".zip") else "archive.tar")
        with kept.open("wb") as file:
            shutil.copyfileobj(archive, file)
        return client.datasets.upload(record, kept, new_splits=anew, model=by)


def _one(client: Client, record: DatasetRecord) -> None:
    if st.button("All data sets", icon=":material/arrow_back:", type="tertiary"):
        go.write({})
        st.rerun()
    line = st.columns([6, 1.4], vertical_alignment="center")
    line[0].title(plain(record.name), anchor=False)
    with line[1].popover("More", width="stretch"):
        _more(client, record)
    st.caption(
        (f"{plain(record.description)} · " if record.description else "")
        + f"{number(record.n_images)} images · "
        + (f"content `{record.digest[:12]}` · " if record.digest else "")
        + ago(record.created_at)
    )
    if not record.n_images:
        st.info("It is empty: its import runs, failed, or was never started.")
        go.link("jobs", "Look at the jobs", icon="pending_actions")
        return
    tabs = st.tabs(["Images", "Image sets", "What the import found"], key="dataset-tab", on_change="rerun")
    with tabs[0]:
        left, right = st.columns([1.5, 4], gap="large")
        with left:
            chosen = _filters(client, record)
        with right:
            _images(client, record, chosen)
    with tabs[1]:
        if tabs[1].open:
            image_set_list(client, record, _show_set)
    with tabs[2]:
        if tabs[2].open:
            _report(client, record)


def _filters(client: Client, record: DatasetRecord) -> dict[str, str]:
    whole = facets_of(client, record)
    chosen: dict[str, str] = {}
    for facet in (whole.split, whole.label, *whole.groups):
        if facet.n_values < 2:
            continue
        value = _choice(facet)
        if value:
            chosen[facet.column] = value
    chosen_set = _set_choice(client, record)
    if chosen_set:
        chosen[_SET] = chosen_set
    go.write({"dataset": record.id, **chosen})
    return chosen


def _choice(facet: Facet) -> str:
    counts = {v.value: v.n for v in facet.values if v.value}
    values = ["", *counts]
    now = st.query_params.get(facet.column, "")
    return str(
        st.selectbox(
            facet.column.removeprefix("group_").replace("_", " ").capitalize(),
            values,
            values.index(now) if now in values else 0,
            format_func=lambda v: f"{v} ({counts[v]})" if v else "all",
            key=f"facet-{facet.column}",
        )
    )


def _set_choice(client: Client, record: DatasetRecord) -> str:
    found = {s.id: s for s in image_sets.sets_of(client, record.id)}
    if not found:
        return ""
    ids, now = ["", *found], st.query_params.get(_SET, "")
    return str(
        st.selectbox(
            "Image set",
            ids,
            ids.index(now) if now in found else 0,
            # Without the number of images: a choice is kept by its words, and would be lost with every image taken out.
            format_func=lambda i: found[i].name if i in found else "all",
            key=_SET_KEY,
        )
    )


def _content(client: Client, record: DatasetRecord, chosen: dict[str, str]) -> str:
    """Of the set that is shown: its images change under one id."""
    return next((s.sha256 for s in image_sets.sets_of(client, record.id) if s.id == chosen.get(_SET)), "")


@st.fragment  # a tick runs nothing but this
def _images(client: Client, record: DatasetRecord, chosen: dict[str, str]) -> None:
    n = st.session_state.get("images-shown", _PER_PAGE)
    rest = {k: v for k, v in chosen.items() if k not in ("split", "label", _SET)}
    try:
        found: list[DatasetImage] = remembered(
            ("samples", record.id, record.digest, tuple(chosen.items()), _content(client, record, chosen), n),
            lambda: list(
                islice(
                    client.datasets.images(
                        record,
                        split=chosen.get("split"),
                        label=chosen.get("label"),
                        where=rest or None,
                        image_set=chosen.get(_SET),
                    ),
                    n + 1,
                )
            ),
        )
    except FulcrumError as error:
        troubles.show(error, "images")
        return
    if not found:
        st.info("No image has all of these.")
        return
    bar = st.container()
    allowed = refusal() is None
    st.caption("Click an image to debug it." if allowed else "Click an image to look at it closer.")
    items = [
        (i.id, sample_url(record.id, i.id, record.digest), f"{i.label or 'no label'} · {i.split or ''}")
        for i in found[:n]
    ]
    key = f"dataset-images-{record.id}"
    taken = ticked_gallery(key, items, height=620)
    with bar:
        within = next((s for s in image_sets.sets_of(client, record.id) if s.id == chosen.get(_SET)), None)
        image_sets.keep_bar(client, record.id, key, [i[0] for i in items], within=within)
    line = st.columns([1, 1, 4])
    if len(found) > n:
        line[0].button("More images", on_click=_show, args=(n + _PER_PAGE,))
    with line[1].popover("Table", icon=":material/download:"):
        table = pd.DataFrame(
            [{"id": i.id, "label": i.label, "split": i.split, **i.groups, **i.covariates} for i in found[:n]]
        )
        charts.downloads(table, "images")
    if taken is None:
        return
    if allowed:
        open_sample(client, record, taken, elsewhere=True)
        return
    caption = next(words for id, _, words in items if id == taken)
    looking.look(sample_url(record.id, taken, record.digest, 512), caption, taken)


def _show(n: int) -> None:
    st.session_state["images-shown"] = n


def _show_set(image_set_id: str) -> None:
    """All images of a set, whatever filters were chosen before."""
    for name in [k for k in st.session_state if str(k).startswith("facet-")]:
        st.session_state[name] = ""
    st.session_state[_SET_KEY] = image_set_id
    st.session_state["dataset-tab"] = "Images"


def _report(client: Client, record: DatasetRecord) -> None:
    try:
        found = client.datasets.report(record)
    except NotFound:
        st.info("This content has no report: it was imported before reports were kept.")
        return
    columns = st.columns(5)
    numbers = (
        ("Images", found.n_images),
        ("Left out", found.n_left_out),
        ("Duplicate clusters", found.n_duplicate_clusters),
        ("Leaks between splits", found.n_leaks),
        ("Masks", found.n_masks),
    )
    for column, (name, value) in zip(columns, numbers, strict=True):
        column.metric(name, number(value))
    st.caption(
        f"From {'an uploaded archive' if found.source.startswith('artifact:') else found.source} as "
        f"{found.format.replace('_', ' ')}; splits {'as given' if found.splits == 'given' else 'divided anew'}; "
        f"{number(found.n_rotated)} turned upright, {number(found.n_converted)} converted to RGB."
    )
    for words in (*found.warnings, *found.mask_problems[:5]):
        st.warning(words)
    if found.n_leaks:
        where = ", ".join(f"{n} in {split}" for split, n in found.n_leaking.items())
        st.error(
            f"Images with a counterpart in another split prove nothing and are left out of judgement: {where}."
        )
        st.dataframe(
            pd.DataFrame(
                [
                    {"kind": _kind(found, leak), **{k: ", ".join(v[:3]) for k, v in leak.ids.items()}}
                    for leak in found.leaks
                ]
            ),
            hide_index=True,
            width="stretch",
        )
    if found.left_out:
        st.markdown("**Left out**")
        st.dataframe(
            pd.DataFrame([{"image": x.id, "why": x.message} for x in found.left_out]),
            hide_index=True,
            width="stretch",
        )
    if found.duplicates:
        with st.expander(f"{found.n_duplicate_clusters} clusters of duplicates"):
            st.dataframe(
                pd.DataFrame({"images": [", ".join(c[:8]) for c in found.duplicates]}),
                hide_index=True,
                width="stretch",
            )
    if found.embeddings is not None:
        compared = found.embeddings
        st.caption(
            f"{number(compared.n_links)} near-duplicates by the embedding of {plain(compared.model_name)} "
            f"(weights `{compared.model_sha256[:12]}`, cosine of {compared.min_cosine:g} or more) that hashes did not find."
        )
        if compared.links:
            with st.expander("Joined by embedding"):
                st.dataframe(_links(compared.links), hide_index=True, width="stretch")


def _kind(found: ImportReport, leak: LeakedImages) -> str:
    """With the model and the cosine, where embeddings made it."""
    if leak.link is None or found.embeddings is None:
        return leak.kind
    one, other = leak.link.ids
    return f"{leak.kind} of {found.embeddings.model_name}: {one} and {other}, cosine {leak.link.cosine:.3f}"


def _links(links: tuple[EmbeddingLink, ...]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {"image": link.ids[0], "most similar": link.ids[1], "cosine": round(link.cosine, 4)}
            for link in links
        ]
    )


def _more(client: Client, record: DatasetRecord) -> None:
    name = st.text_input("Name", record.name, max_chars=120, key="dataset-name")
    words = st.text_area("What it shows", record.description, max_chars=500, key="dataset-words")
    try:
        if write_button("Save", key="dataset-save", width="stretch"):
            client.datasets.update(record, name=name.strip(), description=words.strip())
            forget("datasets")
            st.rerun()
        if write_button("Delete", key="dataset-delete", width="stretch", icon=":material/delete:"):
            client.datasets.delete(record)
            forget("datasets", "samples")
            go.write({})
            st.rerun()
    except FulcrumError as error:
        troubles.show(error, "dataset")
