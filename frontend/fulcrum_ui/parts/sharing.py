"""The address of a view, for a colleague: it restores what is seen."""

from urllib.parse import urlencode

import streamlit as st

from fulcrum_ui import projects


def share() -> None:
    """A button that shows it, ready to copy."""
    with st.popover("Share", icon=":material/link:", width="stretch"):
        st.caption("Opens exactly this view, for everybody who may see this project.")
        query = urlencode(dict(st.query_params) | projects.shared_parameter())
        st.code((st.context.url or "").partition("?")[0] + (f"?{query}" if query else ""), language=None)
