"""Models & SAEs: register, train with live curves, upload, and how good each SAE is."""

import shutil
import tempfile
from html import escape
from pathlib import Path
from typing import get_args

import streamlit as st

from fulcrum.client import Client, ModelRef
from fulcrum.domain.errors import FulcrumError
from fulcrum.domain.models import Variant
from fulcrum.domain.records import ModelRecord, SaeRecord
from fulcrum_ui import go, troubles
from fulcrum_ui.parts.words import ago, badge, number, plain
from fulcrum_ui.parts.writing import refusal, write_button, write_submit
from fulcrum_ui.settings import settings
from fulcrum_ui.visitor import forget, visitor

_STATES = {"ready": "good", "failed": "bad", "loading": "info", "registered": "plain"}
# What each figure of a quality card says, and whether more is better.
_QUALITY = {
    "fvu": ("unexplained variance", False),
    "l0": ("latents on a token", None),
    "dead_share": ("dead latents", False),
    "ce_recovered": ("cross entropy recovered", True),
    "agreement": ("same answer with the reconstruction", True),
    "cosine": ("cosine with the original", True),
}


def page() -> None:
    """The page."""
    client = visitor().client
    st.title("Models & SAEs", anchor=False)
    models, saes = list(client.models.list()), list(client.saes.list())
    tabs = st.tabs(["Here", "Add a model", "Train an SAE", "Upload an SAE", "Units of a layer"])
    with tabs[0]:
        _here(client, models, saes)
    with tabs[1]:
        _add_model(client)
    with tabs[2]:
        _train(client, [m for m in models if m.state == "ready"])
    with tabs[3]:
        _upload(client, [m for m in models if m.state == "ready"])
    with tabs[4]:
        _units(client, [m for m in models if m.state == "ready"])


def _here(client: Client, models: list[ModelRecord], saes: list[SaeRecord]) -> None:
    if not models:
        st.info(
            "No model yet. Add one by its OpenCLIP name; weights come from this platform's own cache or folder, never from a stranger's path."
        )
        return
    for model in models:
        with st.container(border=True):
            _model(client, model)
            own = [s for s in saes if s.model_id == model.id]
            for sae in own:
                st.divider()
                _sae(client, sae)
            if not own:
                st.caption("No SAE yet: train one, or upload one.")


def _model(client: Client, model: ModelRecord) -> None:
    row = st.columns([5, 3, 1.4], vertical_alignment="center")
    ref = f"{model.ref.model_name}" + (f" / {model.ref.pretrained}" if model.ref.pretrained else "")
    row[0].html(
        f"<b>{escape(model.name)}</b> {badge(model.state, _STATES[model.state])}<br><span class='fu-quiet'>{escape(ref)}{' with random weights' if model.ref.random_weights else ''}</span>"
    )
    info = model.info
    if info is not None:
        row[1].caption(
            f"{info.n_parameters / 1e6:.1f} M weights · {info.n_blocks} blocks of {info.d_model} · {info.grid[0]} × {info.grid[1]} patches of {info.image_size} px · {info.device}, {info.dtype}"
        )
    # Whether it is open is kept for each: else that of the next one would open where one was deleted.
    with row[2].popover("More", width="stretch", key=f"more-{model.id}", on_change="rerun"):
        _record(client.models, model, f"model-{model.id}")
    if model.error:
        st.error(plain(model.error))
    if model.state in ("registered", "loading"):
        st.fragment(_loading, run_every=1.0)(client, model)


def _loading(client: Client, model: ModelRecord) -> None:
    st.progress(0.5, text="Loading …")
    if client.models.get(model).state not in ("registered", "loading"):
        st.rerun()


def _sae(client: Client, sae: SaeRecord) -> None:
    row = st.columns([4, 4, 1.6, 1.4], vertical_alignment="center")
    info = sae.info
    units = sae.is_units
    shape = ""
    if info is not None:
        shape = f"{info.d_sae} units of the layer" if units else f"{info.variant}, {info.d_sae} latents"
        shape += f" at {info.hook_point}"
    row[0].html(
        f"<b>{escape(sae.name)}</b> {badge(sae.state, _STATES[sae.state])}<br><span class='fu-quiet'>{escape(shape)}</span>"
    )
    if info is not None and info.quality:
        row[1].html(_quality(info.quality))
    with row[2]:
        if units:
            go.link("debug", "To the bench", icon="science", sae=sae.id)
        else:
            go.link("concepts", "Concepts", icon="hub", sae=sae.id)
    with row[3].popover("More", width="stretch", key=f"more-{sae.id}", on_change="rerun"):
        datasets = [d for d in client.datasets.list() if d.n_images]
        if datasets and not units:
            dataset = st.selectbox("Describe on", datasets, format_func=lambda d: d.name, key=f"on-{sae.id}")
            words = st.text_area(
                "With these words",
                placeholder="Empty takes the built-in ones; else one in a line",
                key=f"words-{sae.id}",
                height=90,
            )
            if write_button("Describe", key=f"describe-{sae.id}", width="stretch"):
                _describe(client, sae, dataset.id, words)
        _record(client.saes, sae, f"sae-{sae.id}")
    if sae.error:
        st.error(plain(sae.error))


def _quality(quality: dict[str, float]) -> str:
    cells = []
    for name, (words, _) in _QUALITY.items():
        if name in quality:
            twin = quality.get(f"untrained_{name}")
            beside = "" if twin is None else f" <span class='fu-quiet'>({number(twin)} untrained)</span>"
            cells.append(
                f"<span title='{escape(words)}'>{escape(name.replace('_', ' '))} <b>{number(quality[name])}</b>{beside}</span>"
            )
    if not cells:
        cells = [
            f"<span>{escape(k.replace('_', ' '))} <b>{number(v)}</b></span>"
            for k, v in list(quality.items())[:6]
        ]
    return f'<div class="fu-scores fu-num">{"".join(cells)}</div>'


def _describe(client: Client, sae: SaeRecord, dataset_id: str, words: str) -> None:
    try:
        vocabulary = [w.strip() for w in words.splitlines() if w.strip()]
        job = client.latents.describe(sae, dataset_id, vocabulary=vocabulary)
    except FulcrumError as error:
        troubles.show(error, "describe")
        return
    go.switch("jobs", job=job.id)


def _record(resource: object, record: ModelRecord | SaeRecord, key: str) -> None:
    name = st.text_input("Name", record.name, max_chars=120, key=f"name-{key}")
    line = st.columns(2)
    try:
        if write_button("Rename", place=line[0], needed="admin", key=f"rename-{key}", width="stretch"):
            resource.rename(record, name.strip())  # type: ignore[attr-defined]  # both have it
            st.rerun()
        if write_button("Delete", place=line[1], needed="admin", key=f"delete-{key}", width="stretch"):
            resource.delete(record)  # type: ignore[attr-defined]  # both have it
            st.rerun()
    except FulcrumError as error:
        troubles.show(error, key)
    st.caption(f"Added {ago(record.created_at)} · `{record.id}`")


def _add_model(client: Client) -> None:
    with st.form("add-model"):
        line = st.columns(3)
        architecture = line[0].text_input(
            "Architecture or reference", placeholder="ViT-B-32, hf-hub:owner/name, folder:lab/clip"
        )
        tag = line[1].text_input(
            "Pretrained tag",
            placeholder="laion2b_s34b_b79k",
            help="Empty for references that bring their weights",
        )
        name = line[2].text_input("Name", placeholder="our ViT-B/32", max_chars=120)
        random = st.checkbox("Random weights", help="For controls: never taken silently")
        if write_submit("Add", needed="admin", type="primary"):
            try:
                ref = ModelRef(architecture.strip(), tag.strip() or None, random_weights=random)
                client.models.create(name.strip() or architecture.strip(), ref)
            except FulcrumError as error:
                troubles.show(error, "add-model")
            else:
                st.rerun()
    st.caption(
        "`folder:NAME/sub` is below a folder that the administrator named in FULCRUM_INFERENCE_FOLDERS."
    )


def _train(client: Client, models: list[ModelRecord]) -> None:
    datasets = [d for d in client.datasets.list() if d.n_images]
    if not models or not datasets:
        st.info("Training needs a model that is ready, and a data set with images.")
        return
    line = st.columns(3)
    model = line[0].selectbox("Model", models, format_func=lambda m: m.name, key="train-model")
    dataset = line[1].selectbox(
        "Images", datasets, format_func=lambda d: f"{d.name} ({d.n_images})", key="train-data"
    )
    name = line[2].text_input("Name", f"{model.name} SAE", max_chars=120, key="train-name")
    points = list(model.info.hook_points) if model.info else []
    more = st.columns(4)
    middle = len(points) // 2
    hook_point = more[0].selectbox("Where", points, middle, key="train-hook") if points else None
    variant: Variant = more[1].selectbox(
        "Variant", get_args(Variant), get_args(Variant).index("topk"), key="train-variant"
    )
    d_sae = int(more[2].number_input("Latents", 8, 1_000_000, 2048, 256, key="train-width"))
    k = int(more[3].number_input("On per token (k)", 1, 4096, 16, key="train-k"))
    last = st.columns(4)
    n_tokens = int(
        last[0].number_input("Tokens", 1000, 2_000_000_000, 1_000_000, 100_000, key="train-tokens")
    )
    rate = float(last[1].number_input("Learning rate", 1e-6, 1.0, 2e-3, format="%.5f", key="train-rate"))
    batch = int(last[2].number_input("Batch", 16, 65536, 2048, 256, key="train-batch"))
    early = last[3].toggle(
        "Stop early", True, key="train-early", help="End when the loss has stopped falling"
    )
    if write_button("Train", type="primary", key="train-go"):
        try:
            job = client.saes.train(
                name.strip(),
                model,
                dataset,
                hook_point=hook_point,
                variant=variant,
                d_sae=d_sae,
                k=k,
                n_tokens=n_tokens,
                learning_rate=rate,
                batch_size=batch,
                early_stop=early,
            )
        except FulcrumError as error:
            troubles.show(error, "train")
            return
        go.switch("jobs", job=job.id)
    st.caption(
        "Curves are live under Jobs. At the end the SAE is judged on images it never saw, beside an untrained twin, and appears here."
    )


def _units(client: Client, models: list[ModelRecord]) -> None:
    """A layer as it is, in the place of an SAE."""
    if not models:
        st.info("A layer belongs to a model: add that first.")
        return
    line = st.columns([2, 3, 1.2], vertical_alignment="bottom")
    model = line[0].selectbox("Model", models, format_func=lambda m: m.name, key="units-model")
    points = [] if model.info is None else [p for p in model.info.hook_points if p.startswith("visual.")]
    point = line[1].selectbox("Layer", points, len(points) // 2, key="units-hook") if points else None
    if write_button(
        "Add",
        place=line[2],
        needed="admin",
        type="primary",
        key="units-go",
        disabled=point is None,
        width="stretch",
    ):
        try:
            client.saes.create(f"units of {point}, {model.name}", model, f"units:{point}")
        except FulcrumError as error:
            troubles.show(error, "units")
        else:
            st.rerun()
    st.caption(
        "Every unit of the layer can then be explained, suppressed and set on the bench, beside the latents of SAEs. Which units know a concept is found under **Experts**."
    )


def _upload(client: Client, models: list[ModelRecord]) -> None:
    if not models:
        st.info("An SAE belongs to a model: add that first.")
        return
    with st.form("upload-sae"):
        line = st.columns(2)
        model = line[0].selectbox("Model", models, format_func=lambda m: m.name)
        name = line[1].text_input("Name", max_chars=120)
        no = refusal("admin") is not None
        config = st.file_uploader("cfg.json", type=["json"], disabled=no)
        weights = st.file_uploader("sae_weights.safetensors", type=["safetensors"], disabled=no)
        if write_submit("Upload", needed="admin", type="primary") and config and weights:
            with tempfile.TemporaryDirectory() as folder:
                for kept_as, sent in (("cfg.json", config), ("sae_weights.safetensors", weights)):
                    with (Path(folder) / kept_as).open("wb") as file:
                        shutil.copyfileobj(sent, file)
                try:
                    client.saes.upload(name.strip() or "uploaded SAE", model, folder)
                except FulcrumError as error:
                    troubles.show(error, "upload-sae")
                    return
            forget("known")
            st.rerun()
    st.caption(
        f"The layout of SAELens, up to {settings().max_upload_mb} MB; larger ones by `client.saes.upload`. Only safetensors are read: nothing that could run code."
    )
