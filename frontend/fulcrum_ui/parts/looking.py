"""A picture of a gallery looked at closer, by who may not take it to the bench."""

from html import escape

import streamlit as st

from fulcrum_ui.parts.words import plain
from fulcrum_ui.parts.writing import refusal


@st.dialog("Image")
def look(source: str, caption: str, id: str) -> None:
    """`source` and `caption` as the gallery has them."""
    st.html(f'<img class="fu-picture" style="max-width:100%" src="{escape(source)}" alt="{escape(id)}">')
    for line in caption.split("\n"):
        st.write(plain(line))
    st.caption(plain(id))
    st.caption(f":material/lock: Taking it to the bench asks the model anew. {refusal() or ''}")
