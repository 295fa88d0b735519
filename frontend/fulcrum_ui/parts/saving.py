"""Keeping what helped: a correction with a name."""

import streamlit as st

from fulcrum.domain.errors import AlreadyExists, FulcrumError
from fulcrum_ui import bench_state as state
from fulcrum_ui import go
from fulcrum_ui.parts.words import edits_words, noun_of, plain
from fulcrum_ui.parts.writing import write_button
from fulcrum_ui.visitor import remembered, visitor


@st.dialog("Save as correction")
def save_dialog() -> None:
    """Name and reason; afterwards the next step is a click away."""
    client, bench = visitor().client, state.current()
    saved = st.session_state.get("saved-correction")
    if saved is not None:
        st.success(f"Saved **{plain(saved.name)}**.", icon=":material/check:")
        st.write("One image proves nothing about others. See what it fixes and what it breaks:")
        go.link("validation", "Validate it on a data set", icon="fact_check", correction=saved.id)
        go.link("corrections", "Look at it", icon="healing", correction=saved.id)
        return
    sae = remembered(("sae", bench.sae), lambda: client.saes.get(bench.sae or ""))
    st.caption(
        plain(edits_words(bench.edits, most=8, noun=noun_of(sae)))
        + (f" in {len(bench.region)} patches" if bench.region else "")
    )
    if bench.held is not None:
        st.caption(f"With **{plain(bench.held.name)}** at strength {bench.strength:g}.")
    name = st.text_input("Name", placeholder="no written words", max_chars=120)
    reason = st.text_area(
        "Why", placeholder="What is wrong, and why should this mend it?", max_chars=2000, height=90
    )
    if not write_button("Save", type="primary", disabled=not name.strip(), width="stretch"):
        return
    try:
        image = client.images.get(bench.image or "")
        tried = client.steer(
            image, list(bench.edits), bench.task, sae=bench.sae, scope=bench.scope, n_controls=0
        )
        st.session_state["saved-correction"] = client.save_correction(
            name.strip(), tried, description=reason.strip()
        )
    except AlreadyExists:
        st.error(f"There is a correction named {plain(repr(name.strip()))} already: take another name.")
    except FulcrumError as error:
        st.error(plain(str(error)))
    else:
        st.rerun(scope="fragment")


def begin() -> None:
    """Forgets the last one, so that the dialog asks again."""
    st.session_state.pop("saved-correction", None)
