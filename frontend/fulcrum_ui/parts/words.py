"""Numbers, names and times as people read them; all HTML is escaped here."""

import re
from datetime import UTC, datetime
from html import escape

from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Add, Affine, Cap, Edit, Floor, MeanAblate, ProjectOut, Scale, SetTo

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>$:~])")


def plain(text: str) -> str:
    """What a person or another service wrote, for places that read Markdown: shown as it is, no link, no image."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split("\n")))


def percent(share: float | None, digits: int = 1) -> str:
    """'27.1 %'."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def signed(value: float | None, digits: int = 2) -> str:
    """'+1.20', with a true minus."""
    if value is None:
        return "–"
    return f"{value:+.{digits}f}".replace("-", "−")


def number(value: float | None, digits: int = 2) -> str:
    """'0.123', '1 234'."""
    if value is None:
        return "–"
    if isinstance(value, int) or (float(value).is_integer() and abs(value) >= 100):
        return f"{int(value):,}".replace(",", " ")
    return f"{value:.{digits}f}".replace("-", "−")


def p_value(value: float | None) -> str:
    """'p = 0.03', 'p < 0.0001'."""
    if value is None:
        return "p –"
    if value < 1e-4:
        return f"p = {value:.1e}"
    return f"p = {value:.4f}".rstrip("0").rstrip(".")


def size(n_bytes: int) -> str:
    """'1.4 MB'."""
    value = float(n_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def duration(seconds: float | None) -> str:
    """'14 s', '3 min', '2.1 h'."""
    if seconds is None:
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def ago(then: datetime | None) -> str:
    """'3 min ago'."""
    if then is None:
        return "–"
    seconds = max(0.0, (datetime.now(UTC) - then).total_seconds())
    if seconds < 10:
        return "just now"
    if seconds > 86400 * 2:
        return then.strftime("%Y-%m-%d")
    return f"{duration(seconds)} ago"


def moment(then: datetime) -> str:
    """'2026-11-28 13:05:09', UTC: for choices, which Streamlit keeps by their words, so that these must not age."""
    return then.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def badge(text: str, kind: str = "plain") -> str:
    """A small word in a frame; `kind` is good, bad, info or plain."""
    return f'<span class="fu-badge fu-{kind}">{escape(text)}</span>'


def latent_name(latent: int, label: str | None) -> str:
    """'sticker (12)' or 'latent 12'."""
    return f"{label} ({latent})" if label else f"latent {latent}"


def edit_words(edit: Edit, label: str | None = None) -> str:
    """What an edit does, in a line."""
    match edit:
        case Scale(latent, gain):
            name = latent_name(latent, label)
            if gain == 0:
                return f"suppress {name}"
            return f"{'amplify' if gain > 1 else 'turn'} {name} × {gain:g}"
        case SetTo(latent, value):
            return f"set {latent_name(latent, label)} to {value:g}"
        case Cap(latent, value):
            return f"cap {latent_name(latent, label)} at {value:g}"
        case Floor(latent, value):
            return f"raise {latent_name(latent, label)} to at least {value:g}"
        case MeanAblate(latent, mean):
            return f"set {latent_name(latent, label)} to its mean {mean:g}"
        case Affine(latent, gain, shift):
            return f"turn {latent_name(latent, label)} × {gain:g} {'+' if shift >= 0 else '−'} {abs(shift):g}"
        case Add(latent, value):
            return f"add {value:g} to {latent_name(latent, label)}"
        case ProjectOut(latent, keep):
            return f"take the direction of {latent_name(latent, label)} out" + (
                f", but {keep:g}" if keep else ""
            )


def edits_words(correction: Correction, labels: dict[int, str] | None = None, most: int = 4) -> str:
    """The edits of a correction in a line."""
    labels = labels or {}
    shown = [edit_words(e, labels.get(e.latent)) for e in correction.edits[:most]]
    more = len(correction.edits) - most
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
