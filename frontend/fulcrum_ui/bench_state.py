"""What is on the bench: the image, the question and the edits. All of it is in the page's address."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import streamlit as st

from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import (
    Add,
    Affine,
    Cap,
    Edit,
    Floor,
    MeanAblate,
    ProjectOut,
    Scale,
    Scope,
    SetTo,
)
from fulcrum.domain.tasks import ClassSet
from fulcrum_ui import go

_BENCH, _WRITTEN, _UNDO, _REDO = "_bench", "_bench_written", "_bench_undo", "_bench_redo"
MAX_GAIN = 5.0
MAX_STRENGTH = 2.0
_IN_ADDRESS = ("image", "sae", "classes", "template", "edits", "region", "correction", "strength")
BENCH_NOTE = "bench-note"  # what is said once above the bench by whoever led there


@dataclass(frozen=True)
class Held:
    """A saved correction on the bench: its edits go together, by one strength."""

    name: str
    edits: tuple[Edit, ...]
    scope: Scope

    @property
    def has_strengths(self) -> bool:
        """Whether there is a half of it: of a bound there is none."""
        return not any(isinstance(e, Cap | Floor) for e in self.edits)


@dataclass(frozen=True)
class Bench:
    """One state of the bench; undo goes back to an earlier one."""

    image: str | None = None
    sae: str | None = None
    classes: tuple[str, ...] = ()
    template: str = "a photo of a {}"  # or several with "|" between them, whose embeddings are averaged
    gains: tuple[tuple[int, float], ...] = ()  # edited latents, in the order in which they were taken up
    region: tuple[int, ...] = ()  # patches in which the edits act; () is everywhere
    correction: str | None = None  # a saved one that lies below the gains: its id, or id.number for a version
    strength: float = 1.0  # of it
    held: Held | None = None  # its content, which the address leaves out

    @property
    def task(self) -> ClassSet:
        """Raises EmptyPrompts, InvalidPrompt."""
        return ClassSet(self.classes, split_templates(self.template))

    @property
    def edits(self) -> tuple[Edit, ...]:
        """A gain of 1 is no edit; a latent that was taken up goes by its gain, whatever the correction says."""
        taken = {latent for latent, _ in self.gains}
        below = () if self.held is None else self.held.edits
        return (
            *(at_strength(e, self.strength) for e in below if e.latent not in taken and self.strength),
            *(Scale(latent, gain) for latent, gain in self.gains if gain != 1.0),
        )

    @property
    def scope(self) -> Scope:
        """Where they act."""
        if self.region:
            return Scope("patch_list", self.region)
        return Scope() if self.held is None else self.held.scope

    def with_gain(self, latent: int, gain: float) -> "Bench":
        """A latent taken up, or its gain changed."""
        kept = dict(self.gains) | {latent: gain}
        return replace(self, gains=tuple(kept.items()))

    def without(self, latent: int) -> "Bench":
        """A latent as it was."""
        return replace(self, gains=tuple((n, g) for n, g in self.gains if n != latent))

    def on_sae(self, sae: str) -> "Bench":
        """With another dictionary: edits name latents of one, and mean nothing for another."""
        return replace(self, sae=sae, gains=(), correction=None, strength=1.0, held=None)

    def without_edits(self) -> "Bench":
        """The image as it is."""
        return replace(self, gains=(), region=(), correction=None, strength=1.0, held=None)

    def to_query(self) -> dict[str, str]:
        """For the address."""
        query = {
            "image": self.image or "",
            "sae": self.sae or "",
            "classes": ",".join(self.classes),
            "template": "" if self.template == Bench.template else self.template,
            "edits": ",".join(f"{n}:{_exact(g)}" for n, g in self.gains),
            "region": ".".join(map(str, self.region)),
            "correction": self.correction or "",
            "strength": "" if self.strength == 1.0 or not self.correction else _exact(self.strength),
        }
        return {k: v for k, v in query.items() if v}

    @staticmethod
    def from_query(query: dict[str, str]) -> "Bench":
        """What an address says; what cannot be read is left out, as if it had not been there."""
        gains = []
        for part in query.get("edits", "").split(","):
            latent, _, gain = part.partition(":")
            if latent.isdecimal() and len(latent) < 9:
                gains.append((int(latent), _number(gain, MAX_GAIN)))
        region = [p for p in query.get("region", "").split(".") if p.isdecimal() and len(p) < 7]
        template = query.get("template", Bench.template)
        return Bench(
            image=query.get("image") or None,
            sae=query.get("sae") or None,
            classes=split_classes(query.get("classes", "")),
            template=template if are_templates(template) else Bench.template,
            gains=tuple(dict(gains).items()),
            region=tuple(sorted({int(p) for p in region})),
            correction=query.get("correction") or None,
            strength=_number(query.get("strength", "1"), MAX_STRENGTH) if query.get("correction") else 1.0,
        )


def split_classes(text: str) -> tuple[str, ...]:
    """'dog, cat' as ('dog', 'cat'), each once."""
    return tuple(dict.fromkeys(name.strip() for name in text.replace("\n", ",").split(",") if name.strip()))


def split_templates(text: str) -> tuple[str, ...]:
    """'a photo of a {} | a drawing of a {}' as the two."""
    return tuple(dict.fromkeys(part.strip() for part in text.split("|") if part.strip()))


def are_templates(text: str) -> bool:
    """Whether each of them holds {} once."""
    parts = split_templates(text)
    return bool(parts) and all(part.count("{}") == 1 for part in parts)


def _exact(gain: float) -> str:
    """All digits: an address must not bring back another correction."""
    return repr(float(gain)).removesuffix(".0")


def _number(text: str, most: float) -> float:
    try:
        return min(most, max(0.0, float(text)))
    except ValueError:
        return 0.0


def at_strength(edit: Edit, strength: float) -> Edit:
    """The way to an edit that is gone: 0 none of it, 1 all, more goes beyond. Bounds are there or not."""
    match edit:
        case _ if strength == 1.0:
            return edit
        case Scale(latent, gain):
            return Scale(latent, 1 + strength * (gain - 1))
        case SetTo(latent, value) | MeanAblate(latent, value):
            return Affine(latent, 1 - strength, strength * value)
        case Add(latent, value):
            return Add(latent, strength * value)
        case Affine(latent, gain, shift):
            return Affine(latent, 1 + strength * (gain - 1), strength * shift)
        case ProjectOut(latent, keep, direction):
            return ProjectOut(latent, 1 + strength * (keep - 1), direction)
        case Cap() | Floor():
            return edit


def holding(correction: Correction, name: str) -> tuple[Held | None, str | None]:
    """A correction as the bench holds it; or why it cannot: what cannot be done whole is not done in part."""
    if correction.conditions or correction.drop_error:
        return None, "the bench knows no conditions, and keeps what the SAE does not explain"
    return Held(name, correction.edits, correction.scope), None


def of_correction(
    correction: Correction,
    image: str,
    sae: str | None,
    classes: tuple[str, ...],
    templates: tuple[str, ...],
    saved: str,
) -> tuple[Bench, str | None]:
    """An image with a correction on it, saved as `saved`; or without, and why."""
    bench = Bench(
        image=image, sae=sae, classes=classes, template=" | ".join(templates) if templates else Bench.template
    )
    if any("," in name for name in classes) or not are_templates(bench.template):
        bench = replace(bench, classes=(), template=Bench.template)
        return bench, "its class names or prompts cannot be written into the bench's lines"
    held, missing = holding(correction, saved)
    if held is None:
        return bench, missing
    gains = tuple((e.latent, e.gain) for e in correction.edits if isinstance(e, Scale))
    by_gains = len(gains) == len(correction.edits) and all(0 <= gain <= MAX_GAIN for _, gain in gains)
    if by_gains and correction.scope.kind in ("all", "patch_list"):
        return replace(bench, gains=gains, region=correction.scope.patches), None
    return replace(bench, correction=saved, held=held), None


def current() -> Bench:
    """The present state. An address that somebody opened or pasted comes before what was here."""
    here = dict(st.query_params)
    relevant = {k: v for k, v in here.items() if k in _IN_ADDRESS}
    if relevant and relevant != st.session_state.get(_WRITTEN):
        st.session_state[_BENCH] = _opened(st.session_state.get(_BENCH), Bench.from_query(relevant))
        st.session_state[_WRITTEN] = relevant
        st.session_state[_UNDO], st.session_state[_REDO] = [], []
    bench: Bench = st.session_state.setdefault(_BENCH, Bench())
    return bench


def _opened(here: Bench | None, there: Bench) -> Bench:
    """A link without an image, such as "try this latent", is about the image that is on the bench."""
    if there.image is not None or here is None or here.image is None:
        return there
    kept = {"image": here.image, "classes": there.classes or here.classes, "template": here.template}
    return replace(there, **kept)  # type: ignore[arg-type]  # each under its own name


def write() -> None:
    """Puts the present state into the address."""
    query = st.session_state.get(_BENCH, Bench()).to_query()
    st.session_state[_WRITTEN] = query
    go.write(query)


def amend(to: Callable[[Bench], Bench]) -> None:
    """What the page itself fills in: no step of the person's, so nothing to undo."""
    st.session_state[_BENCH] = to(st.session_state.get(_BENCH, Bench()))


def change(to: Callable[[Bench], Bench]) -> None:
    """One step that can be undone. A callback, or called before `write`."""
    was: Bench = st.session_state.get(_BENCH, Bench())
    now = to(was)
    if now == was:
        return
    st.session_state.setdefault(_UNDO, []).append(was)
    st.session_state[_REDO] = []
    st.session_state[_BENCH] = now


def can_undo() -> bool:
    """Whether there is an earlier state."""
    return bool(st.session_state.get(_UNDO))


def can_redo() -> bool:
    """Whether there is a later one."""
    return bool(st.session_state.get(_REDO))


def undo() -> None:
    """Back by a step."""
    _step(_UNDO, _REDO)


def redo() -> None:
    """Forth by a step."""
    _step(_REDO, _UNDO)


def _step(source: str, target: str) -> None:
    if st.session_state.get(source):
        st.session_state.setdefault(target, []).append(st.session_state[_BENCH])
        st.session_state[_BENCH] = st.session_state[source].pop()
