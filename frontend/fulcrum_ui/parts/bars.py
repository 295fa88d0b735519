"""Predictions as bars: before and after on one line, so that the eye compares and does not search."""

from html import escape

import streamlit as st

from fulcrum.domain.results import Prediction
from fulcrum_ui.parts.words import percent, signed


def prediction_bars(before: Prediction, after: Prediction | None = None, most: int = 8) -> None:
    """The most likely classes, before or after; the predicted one is bold."""
    shown = _order(before, after)[:most]
    other = len(before.class_names) - len(shown)
    head = "<span></span><span></span>"
    head += '<span class="fu-head">before</span><span class="fu-head">after</span>' if after else ""
    head += "" if after else '<span></span><span class="fu-head">probability</span>'
    rows = "".join(_row(before, after, i) for i in shown)
    st.html(f'<div class="fu-bars" data-testid="prediction-bars">{head}{rows}</div>')
    if other > 0:
        st.caption(f"and {other} less likely {'class' if other == 1 else 'classes'}")


def verdict_words(before: Prediction, after: Prediction) -> tuple[str, str]:
    """What happened, and whether it is a flip ('good' is the app's word for strong, not for right)."""
    if before.top != after.top:
        return f"The answer changed: {before.top} → {after.top}", "good"
    moved = float(after.margin - before.margin)
    if abs(moved) < 1e-6:
        return f"Nothing moved: still {after.top}", "plain"
    way = "more" if moved > 0 else "less"
    return f"Still {after.top}, {way} sure: its margin moved by {signed(moved)}", "plain"


def _order(before: Prediction, after: Prediction | None) -> list[int]:
    def most(i: int) -> float:
        return max(float(before.probs[i]), float(after.probs[i]) if after is not None else 0.0)

    return sorted(range(len(before.class_names)), key=lambda i: (-most(i), i))


def _row(before: Prediction, after: Prediction | None, i: int) -> str:
    name = before.class_names[i]
    top = "fu-top" if name in (before.top, after.top if after else before.top) else ""
    b = float(before.probs[i])
    if after is None:
        bar = f'<div class="fu-track"><i class="a only" style="width:{100 * b:.2f}%"></i></div>'
        values = f'<span></span><span class="fu-value {top}">{percent(b)}</span>'
    else:
        a = float(after.probs[i])
        bar = (
            f'<div class="fu-track"><i class="b" style="width:{100 * b:.2f}%"></i>'
            f'<i class="a" style="width:{100 * a:.2f}%"></i></div>'
        )
        was, now = ("fu-top" if name == p.top else "" for p in (before, after))
        values = f'<span class="fu-value {was}">{percent(b)}</span><span class="fu-value {now}">{percent(a)}</span>'
    return f'<span class="fu-name {top}" title="{escape(name)}">{escape(name)}</span>{bar}{values}'


def banner(text: str, kind: str = "plain") -> None:
    """A sentence that one cannot overlook."""
    st.html(f'<div class="fu-banner {kind}" role="status">{escape(text)}</div>')
