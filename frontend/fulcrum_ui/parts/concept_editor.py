"""Concepts written by hand: sentences in tables, with what is wrong beside them, until they can be searched."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import pandas as pd
import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.concept_files import (
    csv_sentences,
    json_sentences,
    write_concepts_csv,
    write_concepts_json,
)
from fulcrum.domain.concept_sets import Negatives, built_from_templates
from fulcrum.domain.errors import FulcrumError, InvalidInput, NotFound
from fulcrum.domain.records import ExpertsRecord, ModelRecord
from fulcrum_ui import go, troubles
from fulcrum_ui.concept_draft import Draft, DraftConcept, Example, read_word_list
from fulcrum_ui.parts.language_aim import LanguageAim, choose_language_model
from fulcrum_ui.parts.words import moment, plain
from fulcrum_ui.parts.writing import write_button

_DRAFT, _EDITS, _OPEN, _MORE = "_concept_draft", "_concept_edits", "_concept_open", "draft-more"
_CHOSEN = "_concept_chosen"
_AIM, _AIMS = "_concept_aim", "_concept_aims"
_TOWER, _LANGUAGE = "Units of a text tower", "A language model"
_STARTS = ("Word list", "File", "Earlier search", "Empty")
_NEGATIVES = {
    "other_concepts": "of any other word",
    "other_domains": "of words of other domains",
}
_TABLE_PX = 430


def start(
    searches: Sequence[ExpertsRecord], client: Client, aim_at: LanguageAim | None, longest: int | None
) -> None:
    """Ways to a first draft for a language model, or for a text tower (None); each leads to its tables.

    Sentences that are made from templates have at most `longest` bytes.
    """
    way = st.segmented_control("Start from", _STARTS, default=_STARTS[0], key="draft-way")
    try:
        match way:
            case "File":
                made = _from_files()
            case "Earlier search":
                made = _from_search(searches, client)
            case "Empty":
                made = Draft("concepts", ()) if st.button("Write concepts", type="primary") else None
            case _:
                made = _from_words(longest)
    except NotFound as error:
        st.warning(plain(str(error)))
        return
    except FulcrumError as error:
        st.error(plain(str(error)))
        return
    if made is not None:
        aim(aim_at)
        open_draft(made)
        st.rerun()
    draft = kept()
    if draft is not None and draft.concepts:
        st.button(
            f"Go on with “{plain(draft.name)}”",
            icon=":material/edit_note:",
            type="tertiary",
            on_click=go.write,
            args=({"draft": "1"},),
        )


def kept() -> Draft | None:
    """What is being written in this visit."""
    return st.session_state.get(_DRAFT)


def aimed() -> LanguageAim | None:
    """The language model that is searched; None for a text tower."""
    return st.session_state.get(_AIM)


def aim(at: LanguageAim | None) -> None:
    """What the draft is searched in."""
    st.session_state[_AIM] = at
    # Under new keys, or the widgets would go on showing what was in them.
    st.session_state[_AIMS] = st.session_state.get(_AIMS, 0) + 1


def open_draft(draft: Draft) -> None:
    """In place of what was written before."""
    st.session_state[_DRAFT] = draft
    st.session_state.pop(_OPEN, None)
    st.session_state.pop(_CHOSEN, None)
    st.session_state[_EDITS] = st.session_state.get(_EDITS, 0) + 1
    go.write({"draft": "1"})


def edit(client: Client, models: Sequence[ModelRecord], searches: Sequence[ExpertsRecord]) -> None:
    """The whole page: tables, downloads, and the search."""
    draft = kept()
    assert draft is not None
    line = st.columns([3, 3, 1.4, 1.4], vertical_alignment="bottom")
    line[0].title("Concepts by sentences", anchor=False)
    name = line[1].text_input("Name of the set", draft.name, max_chars=120, key="draft-name")
    if name != draft.name:
        draft = _keep(replace(draft, name=name))
    left, right = st.columns([5, 6], gap="large")
    with right:  # first: what is changed there counts on the left
        draft = _sentences(draft)
    with left:
        _concepts(draft)
        _search(client, draft, models, searches)
    _downloads(draft, line[2:])
    st.caption(
        "Kept while this page is open: a reload forgets it, so download what took you long. A file brings it back."
    )


def _concepts(draft: Draft) -> None:
    faults = draft.faults()
    table = pd.DataFrame(
        [
            {
                "name": c.name,
                "domain": c.domain,
                "positive": len(c.sentences(True)),
                "negative": len(c.sentences(False)),
                "check": faults.get(c.number, ""),
            }
            for c in draft.concepts
        ],
        columns=["name", "domain", "positive", "negative", "check"],
    ).astype({"name": str, "domain": str, "positive": int, "negative": int, "check": str})
    key = f"draft-concepts-{st.session_state.setdefault(_EDITS, 0)}"
    st.subheader("Concepts", anchor=False)
    st.data_editor(
        table,
        num_rows="dynamic",
        hide_index=True,
        width="stretch",
        height=min(_TABLE_PX, 38 + 35 * (len(table) + 2)),
        disabled=["positive", "negative", "check"],
        column_config={
            "name": st.column_config.TextColumn("concept", max_chars=120),
            "domain": st.column_config.TextColumn(
                max_chars=120, help="Kind of thing: concepts of one should lie together"
            ),
            "positive": st.column_config.NumberColumn(width="small"),
            "negative": st.column_config.NumberColumn(width="small"),
            "check": st.column_config.TextColumn(width="medium", help="What keeps it from being searched"),
        },
        key=key,
        on_change=_concepts_changed,
        args=(key,),
    )


def _concepts_changed(key: str) -> None:
    edits, draft = st.session_state[key], kept()
    assert draft is not None
    added = [row for row in edits["added_rows"] if row.get("name") or row.get("domain")]
    if edits["added_rows"] and not (added or edits["edited_rows"] or edits["deleted_rows"]):
        return  # a row that is just begun: a new table would close the cell in which somebody writes
    _keep(draft.edited(edits["edited_rows"], added, edits["deleted_rows"]))
    st.session_state[_EDITS] += 1  # a new table, from what the draft is now


def _sentences(draft: Draft) -> Draft:
    """The draft with what was changed in the table."""
    st.subheader("Sentences", anchor=False)
    if not draft.concepts:
        st.info("Add a concept in the table on the left: click its last row.")
        return draft
    names = {c.number: c.name.strip() or "(without a name)" for c in draft.concepts}
    before = st.session_state.get(_CHOSEN)
    number = st.selectbox(
        "Of the concept",
        list(names),
        list(names).index(before) if before in names else 0,
        format_func=lambda n: names.get(n, ""),
        key=f"draft-concept-{st.session_state.get(_EDITS, 0)}",  # one of old names would go on showing them
        label_visibility="collapsed",
    )
    st.session_state[_CHOSEN] = number
    concept = draft.concept(number)
    assert concept is not None
    draft = _sentence_table(draft, concept)
    st.text_area(
        "Add sentences, one on each line", key=_MORE, height=90, placeholder="There was a dog in the garden."
    )
    row = st.columns(2)
    for column, about, words in zip(row, (True, False), ("Add as positive", "Add as negative"), strict=True):
        column.button(
            words,
            key=f"draft-add-{about}",
            width="stretch",
            on_click=_add,
            args=(number, about),
            help="About the concept" if about else "Not about it",
        )
    return draft


def _sentence_table(draft: Draft, concept: DraftConcept) -> Draft:
    # The table keeps its rows while they are edited, or it would jump to its beginning with each letter; it is made
    # anew when what is wrong with a row has changed.
    shown: tuple[int, int, tuple[Example, ...]] | None = st.session_state.get(_OPEN)
    if shown is None or shown[0] != concept.number:
        shown = _shown_anew(concept)
    _, version, examples = shown
    table = pd.DataFrame(
        {
            "sentence": [e.sentence for e in examples],
            "about": [e.about for e in examples],
            "check": replace(concept, examples=examples).faults(),
        }
    ).astype({"sentence": str, "about": bool, "check": str})
    edited = st.data_editor(
        table,
        num_rows="dynamic",
        hide_index=True,
        width="stretch",
        height=_TABLE_PX,
        disabled=["check"],
        column_config={
            "sentence": st.column_config.TextColumn(width="large", max_chars=2000),
            "about": st.column_config.CheckboxColumn(
                "positive", width="small", default=True, help="Whether it is about the concept"
            ),
            "check": st.column_config.TextColumn(
                width="medium", help="What keeps the concept from being searched"
            ),
        },
        key=f"draft-sentences-{concept.number}-{version}",
    )
    rows = [
        (str(sentence or ""), bool(about), "" if pd.isna(check) else str(check))
        for place, (sentence, about, check) in zip(
            edited.index, edited[["sentence", "about", "check"]].itertuples(index=False), strict=True
        )
        if place in table.index
        or (isinstance(sentence, str) and sentence.strip())  # else a row that is just begun
    ]
    now = replace(concept, examples=tuple(Example(sentence, about) for sentence, about, _ in rows))
    if now != concept:
        draft = _keep(draft.changed(now))
        if now.faults() != tuple(check for *_, check in rows):
            _shown_anew(now)
            st.rerun()
    return draft


def _shown_anew(concept: DraftConcept) -> tuple[int, int, tuple[Example, ...]]:
    before = st.session_state.get(_OPEN)
    shown = (concept.number, (before[1] if before else 0) + 1, concept.examples)
    st.session_state[_OPEN] = shown
    return shown


def _add(number: int, about: bool) -> None:
    draft = kept()
    lines = str(st.session_state.get(_MORE, "")).splitlines()
    if draft is None:
        return
    _keep(draft.with_sentences(number, lines, about))
    st.session_state[_MORE] = ""
    st.session_state.pop(_OPEN, None)


def _search(
    client: Client, draft: Draft, models: Sequence[ModelRecord], searches: Sequence[ExpertsRecord]
) -> None:
    kinds = [*([_TOWER] if models else []), _LANGUAGE]
    times = st.session_state.get(_AIMS, 0)
    first = _TOWER if aimed() is None and models else _LANGUAGE
    kind = st.segmented_control("Among", kinds, default=first, key=f"draft-kind-{times}") or first
    line = st.columns([3, 2], vertical_alignment="bottom")
    trouble = draft.trouble()
    model, at = None, None
    if kind == _TOWER:
        model = line[0].selectbox("Model", models, format_func=lambda m: m.name, key="draft-model")
    else:
        at = choose_language_model(line[0], searches, aimed() or LanguageAim(), times)
        trouble = trouble or at.trouble()
    if write_button(
        "Find experts",
        place=line[1],
        type="primary",
        icon=":material/search:",
        disabled=bool(trouble),
        help=trouble or None,
        width="stretch",
        key="draft-go",
    ):
        try:
            if at is not None:
                job = client.experts.find_in_language_model(
                    at.reference, draft.to_set(), layers=at.layers, name=draft.name.strip()
                )
            else:
                assert model is not None
                job = client.experts.find_in_sentences(model, draft.to_set(), name=draft.name.strip())
        except FulcrumError as error:
            troubles.show(error, "experts")
            return
        go.switch("jobs", job=job.id)
    if draft.trouble():
        st.caption(f":material/error: {draft.trouble()} The column *check* says what to change.")


def _downloads(draft: Draft, columns: Sequence[st.delta_generator.DeltaGenerator]) -> None:
    try:
        lists = draft.to_lists()
    except InvalidInput as error:
        columns[0].caption(plain(str(error)))
        return
    plain_name = "".join(c if c.isalnum() else "-" for c in draft.name).strip("-") or "concepts"
    for column, ending, content, media in (
        (columns[0], "json", write_concepts_json(lists), "application/json"),
        (columns[1], "csv", write_concepts_csv(lists).encode(), "text/csv"),
    ):
        column.download_button(
            ending.upper(),
            content,
            f"{plain_name}.{ending}",
            media,
            icon=":material/download:",
            width="stretch",
            key=f"draft-{ending}",
            on_click="ignore",
        )


def _from_words(longest: int | None) -> Draft | None:
    text = st.text_area(
        "Words by domain",
        "animals: dog, cat, owl\nfruits: apple, pear, banana",
        key="draft-words",
        height=110,
        help="A line for each domain. Every word becomes a concept, with sentences made from templates.",
    )
    line = st.columns([1.2, 1.2, 2.2], vertical_alignment="bottom")
    n_pos = line[0].number_input("Sentences with it", 2, 5000, 100, 50, key="draft-pos")
    n_neg = line[1].number_input("and others", 2, 50_000, 200, 50, key="draft-neg")
    negatives: Negatives = line[2].selectbox(
        "The others are",
        get_args(Negatives)[::-1],
        format_func=lambda n: _NEGATIVES[n],
        key="draft-negatives",
        help="With words of other domains alone, concepts of a domain share their negatives, and that alone makes them alike",
    )
    if not st.button("Build sentences", type="primary", icon=":material/edit_note:", key="draft-build"):
        return None
    words = read_word_list(text)
    built = built_from_templates("words", words, int(n_pos), int(n_neg), negatives=negatives, longest=longest)
    return Draft.of_set(built)


def _from_files() -> Draft | None:
    files = st.file_uploader(
        "JSON in Suau's layout, or one CSV with the columns concept, sentence, label and perhaps domain",
        type=["json", "csv"],
        accept_multiple_files=True,
        key="draft-files",
    )
    if not st.button("Open", type="primary", disabled=not files, key="draft-open"):
        return None
    name = files[0].name.rpartition(".")[0]
    if all(f.name.lower().endswith(".json") for f in files):
        return Draft.of(name, json_sentences([f.getvalue() for f in files]))
    if len(files) > 1:
        raise InvalidInput(f"{len(files)} files: concepts come from one CSV, or from JSON files")
    try:
        text = files[0].getvalue().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidInput(f"{files[0].name!r} is not UTF-8: save it so") from None
    return Draft.of(name, csv_sentences(text))


def _from_search(searches: Sequence[ExpertsRecord], client: Client) -> Draft | None:
    asked = [s for s in searches if s.concept_set_sha256 is not None]
    if not asked:
        st.caption("No search over sentences yet.")
        return None
    search = st.selectbox(
        "Search",
        asked,
        format_func=lambda s: f"{s.name or s.id} ({s.n_concepts} concepts, {moment(s.created_at)})",
        key="draft-search",
    )
    if not st.button("Open its concepts", type="primary", key="draft-from-search"):
        return None
    return Draft.of_set(client.experts.concept_set(search))


def _keep(draft: Draft) -> Draft:
    st.session_state[_DRAFT] = draft
    return draft
