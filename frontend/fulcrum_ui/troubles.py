"""What a person sees when something fails: what happened, and what to do about it. Never a traceback."""

import logging
import uuid

import streamlit as st

from fulcrum.domain.errors import (
    Denied,
    FulcrumError,
    NotFound,
    RateLimited,
    ServiceUnavailable,
    Unauthenticated,
)
from fulcrum_ui.visitor import forget_visitor, login, login_link

_log = logging.getLogger("fulcrum_ui")


def show(error: Exception, key: str = "page") -> None:
    """A card in place of what could not be shown."""
    match error:
        case Unauthenticated():
            _login(bool(login()))
        case ServiceUnavailable():
            _card(
                "The platform does not answer",
                "It may be starting or restarting. Nothing is lost: what you see here is kept in the address of this page.",
                str(error),
                key,
            )
        case RateLimited():
            _card(
                "A little slower, please",
                "Too many requests in a short time; it goes on in a moment.",
                str(error),
                key,
            )
        case NotFound():
            _card(
                "That is not here (any more)",
                "It may have been deleted, or belongs to another project.",
                str(error),
                key,
            )
        case Denied():
            _card(
                "You may not do this here",
                "Ask an administrator of the project for the role.",
                str(error),
                key,
            )
        case FulcrumError():
            _card("That did not work", None, str(error), key)
        case _:
            number = uuid.uuid4().hex[:8]
            _log.exception("a page failed (%s)", number, exc_info=error)
            _card(
                "Something went wrong in this page",
                f"It is in the log of the frontend as {number}. Trying again, or going to another page, is safe.",
                None,
                key,
            )


def on_script_error(error: Exception) -> bool:
    """For errors in callbacks and everywhere else. True: shown."""
    show(error, key="script")
    return True


def _card(title: str, advice: str | None, detail: str | None, key: str) -> None:
    with st.container(border=True):
        st.subheader(title, anchor=False)
        if advice:
            st.write(advice)
        if detail:
            st.text(detail[:1].upper() + detail[1:])
        if st.button("Try again", key=f"again-{key}", icon=":material/refresh:"):
            forget_visitor()
            st.rerun()


def _login(expired: bool) -> None:
    forget_visitor()
    _, middle, _ = st.columns([1, 1.6, 1])
    with middle, st.container(border=True):
        st.title("Your login has ended" if expired else "Welcome to Fulcrum", anchor=False)
        if expired:
            st.write("Log in again: you come back to exactly this view.")
        else:
            st.write(
                "See which concepts carried a prediction, change them and watch the model answer, and prove what it mends."
            )
        st.link_button("Log in", login_link(), type="primary", icon=":material/login:", width="stretch")
        st.caption(
            "With the link that `fulcrum up` printed, or with name and password. Then this page opens by itself."
        )
