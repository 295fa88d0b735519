"""What one expects before the run, and whether it came so: kept in a log that nobody can change afterwards."""

import streamlit as st

from fulcrum.client import Client, Explanation, Steering
from fulcrum.domain.errors import FulcrumError
from fulcrum_ui import troubles
from fulcrum_ui.parts.words import percent, plain
from fulcrum_ui.parts.writing import write_button, write_submit

_HELD = "expectation"


def expectation(client: Client, why: Explanation, tried: Steering | None) -> None:
    """The box before, the verdict after."""
    held = st.session_state.get(_HELD)
    if held is None or held["image"] != why.image.id:
        if tried is not None:
            st.caption(
                "What came of this edit is on the screen already. Reset it, and say first what you expect of the next."
            )
            return
        _ask(client, why)
        return
    st.markdown(f"You expect **{held['answer']}** with {percent(held['confidence'], 0)} confidence.")
    if held["why"]:
        st.caption(plain(held["why"]))
    if tried is None:
        st.caption("Now make the edit.")
        return
    came = tried.after.top
    right = came == held["answer"]
    (st.success if right else st.warning)(
        f"It says {came}: {'as expected' if right else 'not as expected'}. "
        f"Brier score of this guess: {(held['confidence'] - right) ** 2:.2f}.",
        icon=":material/check:" if right else ":material/close:",
    )
    if write_button("Write the outcome into the log", key="note-outcome"):
        text = f"Expected {held['answer']} ({percent(held['confidence'], 0)} sure), came {came}: {'as' if right else 'not as'} expected."
        try:
            client.sessions.note(
                held["session"], text, kind="note", image=why.image, result_id=tried.result_id
            )
        except FulcrumError as error:
            troubles.show(error, "note")
            return
        st.session_state.pop(_HELD)
        st.rerun(scope="fragment")


def _ask(client: Client, why: Explanation) -> None:
    with st.form("expectation-form", border=False):
        names = list(why.task.names)
        answer = st.selectbox("After my edit the model will say", names, names.index(why.prediction.top))
        confidence = st.slider("How sure are you?", 0.5, 1.0, 0.75, 0.05, format="percent")
        reason = st.text_input("Because", max_chars=500, placeholder="the sticker's word carries the answer")
        done = write_submit("Hold me to it", width="stretch")
    if not done:
        st.caption(
            "People believe what they see afterwards. Say it before, and you learn how well you know the model."
        )
        return
    try:
        log = st.session_state.get("session-log")
        if log is None:
            log = st.session_state["session-log"] = client.sessions.create(
                f"Debugging {why.image.filename}"[:200]
            )
        text = f"After my edit the model will say {answer} ({percent(confidence, 0)} sure)"
        client.sessions.note(
            log, text + (f", because {reason}" if reason else "."), kind="hypothesis", image=why.image
        )
    except FulcrumError as error:
        troubles.show(error, "hypothesis")
        return
    st.session_state[_HELD] = {
        "answer": answer,
        "confidence": confidence,
        "why": reason,
        "image": why.image.id,
        "session": log.id,
    }
    st.rerun(scope="fragment")
