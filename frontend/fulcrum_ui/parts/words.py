"""Numbers, names and times as people read them; all HTML is escaped here."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from itertools import takewhile
from typing import Literal

from fulcrum.domain.edits import Add, Affine, Cap, Edit, Floor, MeanAblate, ProjectOut, Scale, SetTo
from fulcrum.domain.records import SaeRecord

Noun = Literal["latent", "unit"]
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


def noun_of(sae: SaeRecord | None) -> Noun:
    """What a dictionary consists of: an SAE of latents, a layer of units."""
    return "unit" if sae is not None and sae.is_units else "latent"


def latent_name(latent: int, label: str | None, noun: Noun = "latent") -> str:
    """'sticker (12)' or 'latent 12', 'unit 12'."""
    return f"{label} ({latent})" if label else f"{noun} {latent}"


def edit_words(edit: Edit, label: str | None = None, noun: Noun = "latent") -> str:
    """What an edit does, in a line."""
    name = latent_name(edit.latent, label, noun)
    match edit:
        case Scale(_, gain):
            if gain == 0:
                return f"suppress {name}"
            return f"{'amplify' if gain > 1 else 'turn'} {name} × {gain:.4g}"
        case SetTo(_, value):
            return f"set {name} to {value:.4g}"
        case Cap(_, value):
            return f"cap {name} at {value:.4g}"
        case Floor(_, value):
            return f"raise {name} to at least {value:.4g}"
        case MeanAblate(_, mean):
            return f"set {name} to its mean {mean:.4g}"
        case Affine(_, gain, shift):
            return f"turn {name} × {gain:.4g} {'+' if shift >= 0 else '−'} {abs(shift):.4g}"
        case Add(_, value):
            return f"add {value:.4g} to {name}"
        case ProjectOut(_, keep):
            return f"take the direction of {name} out" + (f", but {keep:.4g}" if keep else "")


def edits_words(
    edits: Sequence[Edit], labels: dict[int, str] | None = None, most: int = 4, noun: Noun = "latent"
) -> str:
    """Edits in a line."""
    labels = labels or {}
    shown = [edit_words(e, labels.get(e.latent), noun) for e in edits[:most]]
    more = len(edits) - most
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")


def shared_beginning(names: Sequence[str]) -> str:
    """Whole parts, with their dots, with which all names begin: `encoder.layer.`; "" for one name."""
    if len(names) < 2:
        return ""
    beside = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return "".join(f"{parts[0]}." for parts in takewhile(lambda parts: len(set(parts)) == 1, beside))
