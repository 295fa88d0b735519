"""What is searched: among which units, over which images or sentences, and how the concepts are called."""

from collections.abc import Sequence

import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import FulcrumError
from fulcrum.domain.jobs import FindExperts, ImageConcept
from fulcrum.domain.records import DatasetRecord, ExpertsRecord, ModelRecord, SaeRecord
from fulcrum_ui import go, troubles
from fulcrum_ui.concept_draft import Draft
from fulcrum_ui.parts import concept_editor, image_concepts
from fulcrum_ui.parts.choosing import described_saes
from fulcrum_ui.parts.columns import columns_of
from fulcrum_ui.parts.language_aim import LanguageAim, shortest_context
from fulcrum_ui.parts.words import ago, moment, plain
from fulcrum_ui.parts.writing import write_button

UNITS = {
    "latents": "SAE latents",
    "vision": "vision tower",
    "text": "text tower",
    "language": "language model",
}
_KINDS = {
    "latents": "SAE latents",
    "vision": "Units of the vision tower",
    "text": "Units of the text tower",
    "language": "A language model",
}
_TIMES = "_experts_times"  # that a search was taken up again
_AGAIN = "_experts_again"  # the question of an earlier search, for a new one


def units_of(record: ExpertsRecord) -> str:
    """Among what a search was."""
    return plain(record.language_model or "") or UNITS.get(record.units, record.units)


def search_words(record: ExpertsRecord) -> str:
    """A search in a list to choose from."""
    return f"{record.name or record.id} ({moment(record.created_at)})"


def row(client: Client, record: ExpertsRecord) -> None:
    """An earlier search in the list. Before `new`: it may begin with the concepts of one."""
    with st.container(border=True):
        line = st.columns([5, 1.1, 1.3], vertical_alignment="center")
        line[0].markdown(
            f"**{plain(record.name) or 'Search'}**  \n:gray[{units_of(record)} · {ago(record.created_at)}]"
        )
        with line[1]:
            go.link("experts", "Open", experts=record.id)
        if line[2].button(
            "Again", key=f"again-{record.id}", help="A new search that begins with its concepts"
        ):
            _again(client, record)


def _again(client: Client, record: ExpertsRecord) -> None:
    """Takes up what a search was asked with. Before the widgets of the new one are made."""
    try:
        spec = client.jobs.get(record.job_id).job.spec
        assert isinstance(spec, FindExperts)
        if record.concept_set_sha256 is not None:
            concept_editor.aim(LanguageAim.of(spec))
            concept_editor.open_draft(Draft.of_set(client.experts.concept_set(record)))
            st.rerun()
    except FulcrumError as error:
        st.warning(plain(str(error)))
        return
    # Under new keys, or the widgets would go on showing what was in them.
    st.session_state[_TIMES] = st.session_state.get(_TIMES, 0) + 1
    st.session_state[_AGAIN] = spec


def new(client: Client, models: list[ModelRecord], searches: list[ExpertsRecord]) -> None:
    """Asks for a search; sentences are written on a page of their own."""
    st.subheader("New search", anchor=False)
    datasets = [d for d in client.datasets.list() if d.n_images]
    saes = described_saes(client)
    kinds = (
        ([_KINDS["latents"]] if saes and datasets and models else [])
        + ([_KINDS["vision"]] if datasets and models else [])
        + ([_KINDS["text"]] if models else [])
        + [_KINDS["language"]]
    )
    spec: FindExperts | None = st.session_state.get(_AGAIN)
    if spec is not None and _KINDS[spec.units] in kinds:
        first = _KINDS[spec.units]
    elif concept_editor.kept() is None:
        first = kinds[0]
    else:
        kept = _KINDS["text" if concept_editor.aimed() is None else "language"]
        first = kept if kept in kinds else kinds[0]
    kind = st.segmented_control("Among", kinds, default=first, key=_key("experts-kind")) or first
    if kind == _KINDS["language"]:
        concept_editor.start(searches, client, concept_editor.aimed() or LanguageAim(), None)
        return
    if kind == _KINDS["text"]:
        concept_editor.start(searches, client, None, shortest_context(models))
        return
    _among_images(client, kind, datasets, saes, models, spec)


def _among_images(
    client: Client,
    kind: str,
    datasets: list[DatasetRecord],
    saes: list[SaeRecord],
    models: list[ModelRecord],
    spec: FindExperts | None,
) -> None:
    line = st.columns([3, 3, 1.6])
    dataset = line[0].selectbox(
        "Images",
        datasets,
        _place(datasets, spec.dataset_id if spec else None),
        format_func=lambda d: d.name,
        key=_key("experts-data"),
    )
    latents = kind == _KINDS["latents"]
    if latents:
        place = _place(saes, spec.sae_id if spec else None)
        sae = line[1].selectbox("SAE", saes, place, format_func=lambda s: s.name, key=_key("experts-sae"))
    else:
        place = _place(models, spec.model_id if spec else None)
        model = line[1].selectbox(
            "Model", models, place, format_func=lambda m: m.name, key=_key("experts-model")
        )
    splits = ["all", *dataset.n_by_split]
    split = line[2].selectbox(
        "Split",
        splits,
        splits.index(spec.split) if spec and spec.split in splits else 0,
        key=_key(f"experts-split-{dataset.id}"),
        help="A correction made of experts can only be proven on images that did not choose them: those of other splits",
    )
    columns = list(columns_of(client, dataset))
    usual = ["label"] if "label" in columns else columns[:1]
    picked = st.multiselect(
        "Concepts: each value of",
        columns,
        usual if spec is None else [c for c in spec.columns if c in columns],
        key=_key("experts-columns"),
        help="Each value against the column's other values",
    )
    concepts: list[ImageConcept] = []
    trouble = ""
    further = bool(spec and spec.concepts)
    if st.toggle(
        "Choose and rename the concepts",
        further,
        key=_key("experts-choose"),
        help="Each is then searched against all other images",
        disabled=not picked and not further,
    ):
        found = image_concepts.candidates(client, dataset, picked)
        if spec is not None and spec.dataset_id == dataset.id:
            found += [c for c in image_concepts.of_search(client, dataset, spec) if c.n is None]
        if found:
            key = _key(f"experts-concepts-{dataset.id}-{'-'.join(picked)}-{len(found)}")
            concepts, trouble = image_concepts.table(found, key)
        else:
            trouble = "There is no concept yet."
    more = st.columns([2, 2, 3], vertical_alignment="bottom")
    n_pos = more[0].number_input(
        "Examples of each",
        0,
        100_000,
        (spec.n_pos or 0) if spec else 0,
        50,
        key=_key("experts-pos"),
        help="0 takes all; a number makes AP comparable between concepts",
    )
    n_neg = more[1].number_input(
        "and others", 0, 100_000, (spec.n_neg or 0) if spec else 0, 50, key=_key("experts-neg")
    )
    usual_name = f"{dataset.name}: {', '.join(picked) or 'concepts'}"
    name = more[2].text_input("Name", max_chars=120, key=_key("experts-name"), placeholder=usual_name)
    taken_over = _further(spec, dataset, latents)
    if write_button(
        "Find experts",
        type="primary",
        icon=":material/search:",
        disabled=bool(trouble) or not (picked or concepts),
        help=trouble or None,
        key="experts-go",
    ):
        options = taken_over | {
            "concepts": concepts,
            "n_pos": int(n_pos) or None,
            "n_neg": int(n_neg) or None,
            "name": name.strip() or usual_name,
            "split": None if split == "all" else split,
        }
        asked = [] if concepts else picked
        try:
            if latents:
                job = client.experts.find_latents(sae, dataset, asked, **options)  # type: ignore[arg-type]  # by their names
            else:
                job = client.experts.find_units(model, dataset, asked, **options)  # type: ignore[arg-type]  # by their names
        except FulcrumError as error:
            troubles.show(error, "experts")
            return
        st.session_state.pop(_AGAIN, None)
        go.switch("jobs", job=job.id)


def _further(spec: FindExperts | None, dataset: DatasetRecord, latents: bool) -> dict[str, object]:
    """What the form does not ask for and a search that is taken up again was asked with; said where it matters."""
    if spec is None or spec.dataset_id != dataset.id:
        return {}
    among = {w.column: w.value for w in spec.among}
    words = [f"{column} {value}" for column, value in among.items()]
    words += [f"tokens {spec.tokens}"] if spec.tokens != "all" else []
    words += [f"seed {spec.seed}"] if spec.seed else []
    if words:
        st.caption(f"As the search before: {plain(', '.join(words))}.")
    kept: dict[str, object] = {
        "among": among or None,
        "tokens": spec.tokens,
        "seed": spec.seed,
    }
    return kept if latents else kept | {"sites": spec.sites}


def _key(name: str) -> str:
    return f"{name}-{st.session_state.get(_TIMES, 0)}"


def _place(things: Sequence[DatasetRecord | SaeRecord | ModelRecord], id: str | None) -> int:
    return next((i for i, thing in enumerate(things) if thing.id == id), 0)
