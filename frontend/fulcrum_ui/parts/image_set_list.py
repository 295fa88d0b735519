"""The image sets of a data set: what each holds, and what can be done with it; a deleted one can be brought back."""

from collections.abc import Callable
from html import escape

import streamlit as st

from fulcrum.client import Client
from fulcrum.domain.errors import AlreadyExists, FulcrumError
from fulcrum.domain.records import DatasetRecord, ImageSetRecord
from fulcrum_ui import troubles
from fulcrum_ui.parts import image_sets
from fulcrum_ui.parts.words import ago, badge, number, plain
from fulcrum_ui.parts.writing import write_button
from fulcrum_ui.visitor import forget

_DELETED = "deleted-image-set"  # the last one of this visit


def image_set_list(client: Client, record: DatasetRecord, show: Callable[[str], None]) -> None:
    """The sets of a data set, newest first; `show` is called back with the id of one whose images are wanted."""
    _undo_line(client, record)
    found = image_sets.sets_of(client, record.id)
    if not found:
        st.info(
            "No image was kept here yet. Tick images above or on a flip board: as a slice, they are judged beside those of "
            "the columns; as an invariant list, no correction may change their answers."
        )
    for kept in found:
        with st.container(border=True):
            row = st.columns([5, 4, 1.2, 1.2], vertical_alignment="center")
            why = f"<br><span class='fu-quiet'>{escape(kept.note[:300])}</span>" if kept.note else ""
            row[0].html(f"<b>{escape(kept.name)}</b> {badge(*image_sets.purpose_badge(kept.purpose))}{why}")
            splits = ", ".join(f"{k or 'no split'} {number(v)}" for k, v in kept.n_by_split.items())
            row[1].caption(
                f"{number(kept.n_images)} {'image' if kept.n_images == 1 else 'images'}"
                + (f" · {splits}" if splits else "")
                + f" · {ago(kept.created_at)}"
            )
            row[2].button(
                "Images",
                key=f"set-images-{kept.id}",
                width="stretch",
                on_click=show,
                args=(kept.id,),
            )
            # Whether it is open is kept for each: else that of the next set would open where one was deleted.
            with row[3].popover("More", width="stretch", key=f"set-more-{kept.id}", on_change="rerun"):
                _more_of_set(client, kept)


def _undo_line(client: Client, record: DatasetRecord) -> None:
    """What was deleted just now, and the way back; until another one is, or the line is closed."""
    gone: ImageSetRecord | None = st.session_state.get(_DELETED)
    if gone is None or gone.dataset_id != record.id:
        return
    line = st.container(border=True, horizontal=True, vertical_alignment="center", key="deleted-set")
    line.markdown(f":material/delete: Deleted **{plain(gone.name)}**", width="content")
    undo = write_button("Undo", place=line, key="set-undo", icon=":material/undo:", type="tertiary")
    line.space("stretch")
    close = line.button("", key="set-gone", icon=":material/close:", type="tertiary", help="Leave it deleted")
    if close:
        st.session_state.pop(_DELETED)
        st.rerun()
    if undo:
        try:
            client.image_sets.restore(gone)
        except AlreadyExists as error:
            forget("image-sets")  # so that the one of this name is listed
            said = str(error)
            st.error(plain(said[:1].upper() + said[1:]))
            return
        except FulcrumError as error:
            st.session_state.pop(_DELETED)
            troubles.show(error, "set-undo")
            return
        st.session_state.pop(_DELETED)
        forget("image-sets", "samples")
        st.rerun()


def _more_of_set(client: Client, kept: ImageSetRecord) -> None:
    name = st.text_input("Name", kept.name, max_chars=120, key=f"set-name-{kept.id}")
    note = st.text_area("Why these", kept.note, max_chars=2000, key=f"set-note-{kept.id}")
    purpose = st.segmented_control(
        "As",
        list(image_sets.PURPOSES),
        default=kept.purpose,
        format_func=lambda p: image_sets.PURPOSES[p],
        key=f"set-purpose-{kept.id}",
    )
    try:
        if write_button("Save", key=f"set-save-{kept.id}", width="stretch", disabled=not name.strip()):
            client.image_sets.update(kept, name=name.strip(), note=note.strip(), purpose=purpose)
            forget("image-sets")
            st.rerun()
        st.caption("Evaluations that judged it keep what it was, and say that it changed.")
        if write_button("Delete", key=f"set-delete-{kept.id}", width="stretch", icon=":material/delete:"):
            client.image_sets.delete(kept)
            forget("image-sets", "samples")
            st.session_state[_DELETED] = kept
            st.rerun()
    except FulcrumError as error:
        forget("image-sets")  # perhaps somebody else changed it
        troubles.show(error, f"set-{kept.id}")
