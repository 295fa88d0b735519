"""What a notebook shows: small tables with bars, in one piece of HTML without scripts, fonts or links.

Colours are half transparent over the notebook's own, so that light and dark themes both work; blue and orange differ
for every kind of colour vision, and numbers stand beside all bars.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import zip_longest

from fulcrum.domain.edits import Edit
from fulcrum.domain.results import Attribution, DoseResponse, Effect, Prediction, Suggestion
from fulcrum.domain.tasks import Target

UP, DOWN, PLAIN = "#3b76d6", "#d9822b", "#8a8f98"
MAX_ROWS = 20

_FONT = "font:13px/1.45 system-ui,-apple-system,'Segoe UI',sans-serif"
_NUMBER = "text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap"
_CELL = "padding:2px 10px 2px 0;border:0;background:none"
_MUTED = "opacity:.65"


def explanation_html(name: str, attribution: Attribution, labels: Mapping[int, str]) -> str:
    """The prediction, then the latents with diverging bars of their scores and the measured effects."""
    shown = attribution.latents[:MAX_ROWS]
    largest = max((abs(a.score) for a in shown), default=0.0)
    rows = []
    for a in shown:
        label = f" <span style='{_MUTED}'>{escape(labels[a.latent])}</span>" if labels.get(a.latent) else ""
        measured = "not measured" if a.measured_effect is None else f"{a.measured_effect:+.3g}"
        rows.append(
            (
                _text(f"<b>{a.latent}</b>{label}"),
                _diverging(a.score, largest),
                _number(f"{a.score:+.3g}"),
                _number(measured, muted=a.measured_effect is None),
                _number(f"{a.max_activation:.3g}"),
                _number(str(a.n_tokens_active)),
            )
        )
    heads = ("latent", "", "score", "measured effect", "max activation", "tokens")
    notes = [f"{escape(attribution.method)} of {escape(_target(attribution.target))}"]
    if attribution.rank_agreement is not None:
        notes.append(f"rank agreement of score and measured effect {attribution.rank_agreement:.2f}")
    if len(attribution.latents) > MAX_ROWS:
        notes.append(f"{len(attribution.latents) - MAX_ROWS} more latents")
    title = f"{escape(name)} → <b>{escape(attribution.prediction.top)}</b>"
    return _box(
        title,
        _classes([attribution.prediction], ["probability"]),
        _table(heads, rows),
        _note(" · ".join(notes)),
    )


def steering_html(name: str, edits: Sequence[Edit], effect: Effect) -> str:
    """Probabilities before and after, the edits, and what shows whether the edit did it."""
    before, after = effect.before.top, effect.after.top
    turned = (
        f"<b>{escape(before)}</b> → <b>{escape(after)}</b>"
        if effect.flipped
        else f"stays <b>{escape(after)}</b>"
    )
    notes = []
    if effect.target is not None and effect.target_before is not None and effect.target_after is not None:
        change = effect.target_after - effect.target_before
        notes.append(
            f"{escape(_target(effect.target))}: "
            f"{effect.target_before:+.3g} → {effect.target_after:+.3g} ({change:+.3g})"
        )
    for controls in effect.controls:
        kind = controls.kind.replace("_", " ")
        notes.append(
            f"{escape(kind)}: {controls.n_flipped} of {len(controls.target_changes)} flip, p = {controls.p_value:.3g}"
        )
    if not effect.diagnostics.changed:
        notes.append("the edit changed nothing: the activations are bit-identical")
    return _box(
        f"{escape(name)}: {turned}",
        _classes([effect.before, effect.after], ["before", "after"]),
        _note("edits: " + (", ".join(escape(edit_text(e)) for e in edits) or "none")),
        *(_note(n) for n in notes),
    )


def curve_html(latents: Sequence[int], response: DoseResponse) -> str:
    """The target over the gains as bars, with the prediction at each."""
    values = [float(v) for v in response.target_values]
    largest = max((abs(v) for v in values), default=0.0)
    rows = []
    for gain, value, logits in zip(response.gains, values, response.logits, strict=True):
        top = response.class_names[int(logits.argmax())]
        rows.append(
            (_number(f"{gain:g}"), _diverging(value, largest), _number(f"{value:+.3g}"), _text(escape(top)))
        )
    flips = (
        "no flip on this grid"
        if response.flip_interval is None
        else f"flips between gains {response.flip_interval[0]:g} and {response.flip_interval[1]:g}"
    )
    heads = ("gain", "", escape(_target(response.target)), "prediction")
    shape = "monotone" if response.monotone else "not monotone"
    title = f"gain of {_plural('latent', latents)} {', '.join(str(n) for n in latents)}"
    return _box(title, _table(heads, rows), _note(f"{flips} · {shape}"))


def suggestions_html(wanted: str, suggestions: Sequence[Suggestion]) -> str:
    """One row for each suggestion."""
    rows = []
    for s in suggestions[:MAX_ROWS]:
        dose = "" if s.dose_interval is None else f"{s.dose_interval[0]:.3g} to {s.dose_interval[1]:.3g}"
        cost = "" if s.dataset_cost is None else f"{s.dataset_cost:.1%}"
        rows.append(
            (
                _text(", ".join(escape(edit_text(e)) for e in s.edits)),
                _text("yes" if s.flips else "no"),
                _number(f"{s.margin_before:+.3g} → {s.margin_after:+.3g}"),
                _number(dose),
                _number(cost),
            )
        )
    heads = ("edits", "flips", "margin", "at gain", "clean images changed")
    found = f"{len(suggestions)} {_plural('way', suggestions)} to <b>{escape(wanted)}</b>"
    return _box(found, _table(heads, rows) if rows else "")


def predictions_html(
    names: Sequence[str], before: Sequence[Prediction], after: Sequence[Prediction] | None
) -> str:
    """One row for each image."""
    rows = []
    for i, (name, p) in enumerate(zip(names, before, strict=True)):
        if i >= MAX_ROWS:
            break
        cells = [
            _text(escape(name)),
            _text(escape(p.top)),
            _bar(float(p.probs.max()), PLAIN),
            _number(_share(p)),
        ]
        if after is not None:
            q = after[i]
            top = f"<b>{escape(q.top)}</b>" if q.top != p.top else escape(q.top)
            cells += [_text(top), _bar(float(q.probs.max()), UP), _number(_share(q))]
        rows.append(tuple(cells))
    heads = (
        "image",
        "prediction" if after is None else "before",
        "",
        "",
        *(() if after is None else ("after", "", "")),
    )
    more = len(names) - len(rows)
    title = f"{len(names)} {_plural('image', names)}"
    if after is not None:
        title += f", {sum(a.top != b.top for a, b in zip(before, after, strict=True))} flipped"
    return _box(title, _table(heads, rows), _note(f"{more} more") if more > 0 else "")


def edit_text(edit: Edit) -> str:
    """An edit in a few characters, such as `17 × 0`."""
    match edit.kind:
        case "scale":
            return f"{edit.latent} × {edit.gain:g}"
        case "set":
            return f"{edit.latent} = {edit.value:g}"
        case "cap":
            return f"{edit.latent} ≤ {edit.value:g}"
        case "floor":
            return f"{edit.latent} ≥ {edit.value:g}"
        case "add":
            return f"{edit.latent} {'+' if edit.value >= 0 else '−'} {abs(edit.value):g}"
        case "project_out":
            return f"{edit.latent} projected out, keep {edit.keep:g}"
        case "mean_ablate":
            return f"{edit.latent} = mean {edit.mean:g}"
        case "affine":
            return f"{edit.latent} × {edit.gain:g} {'+' if edit.shift >= 0 else '−'} {abs(edit.shift):g}"


def _target(target: Target) -> str:
    match target.kind:
        case "cosine" | "logit":
            return f"{target.kind}({target.class_name})"
        case "log_prob":
            return f"log prob({target.class_name})"
        case "margin":
            return f"{target.class_name} over {target.versus}"


def _classes(predictions: Sequence[Prediction], heads: Sequence[str], n: int = 6) -> str:
    """Classes that matter in any of the predictions, by their largest probability."""
    names = predictions[0].class_names
    strongest = sorted(range(len(names)), key=lambda i: -max(float(p.probs[i]) for p in predictions))[:n]
    rows = []
    for i in strongest:
        cells = [_text(escape(names[i]))]
        for k, p in enumerate(predictions):
            cells += [_bar(float(p.probs[i]), PLAIN if k == 0 and len(predictions) > 1 else UP)]
            cells += [_number(f"{float(p.probs[i]):.1%}")]
        if len(predictions) == 2:
            change = float(predictions[1].probs[i] - predictions[0].probs[i])
            cells.append(_number(f"{100 * change:+.1f} pt", muted=abs(change) < 0.0005))
        rows.append(tuple(cells))
    shown = ["class"]
    for head in heads:
        shown += [head, ""]
    return _table((*shown, *(("change",) if len(predictions) == 2 else ())), rows)


def _share(prediction: Prediction) -> str:
    return f"{float(prediction.probs.max()):.1%}"


def _plural(word: str, things: Sequence[object]) -> str:
    return word if len(things) == 1 else f"{word}s"


def _box(title: str, *parts: str) -> str:
    body = "".join(p for p in parts if p)
    head = f"<div style='font-size:14px;margin-bottom:4px'>{title}</div>"
    return f'<div style="{_FONT};margin:4px 0">{head}{body}</div>'


def _table(heads: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    rows = list(rows)
    first = rows[0] if rows else ()
    sides = ["right" if "text-align:right" in cell else "left" for cell in first]
    head = "".join(
        f"<th style='{_CELL};text-align:{side};font-weight:500;{_MUTED}'>{h}</th>"
        for h, side in zip_longest(heads, sides, fillvalue="left")
    )
    body = "".join(f"<tr style='background:none'>{''.join(cells)}</tr>" for cells in rows)
    return (
        "<table style='border-collapse:collapse;border:0;margin:2px 0 6px 0'>"
        f"<thead><tr style='background:none;border:0'>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _note(html: str) -> str:
    return f"<div style='{_MUTED};font-size:12px'>{html}</div>"


def _text(html: str) -> str:
    return f"<td style='{_CELL};text-align:left'>{html}</td>"


def _number(text: str, muted: bool = False) -> str:
    return f"<td style='{_CELL};{_NUMBER}{';' + _MUTED if muted else ''}'>{escape(text)}</td>"


def _bar(share: float, colour: str) -> str:
    width = 100 * min(max(share, 0.0), 1.0)
    return (
        f"<td style='{_CELL};width:120px'><div style='width:120px;height:9px;border-radius:2px;background:{PLAIN}22'>"
        f"<div style='width:{width:.1f}%;height:9px;border-radius:2px;background:{colour}cc'></div></div></td>"
    )


def _diverging(value: float, largest: float) -> str:
    width = 0.0 if largest == 0 else 50 * min(abs(value) / largest, 1.0)
    left = 50.0 if value >= 0 else 50.0 - width
    colour = UP if value >= 0 else DOWN
    return (
        f"<td style='{_CELL};width:160px'><div style='position:relative;width:160px;height:9px;background:{PLAIN}18'>"
        f"<div style='position:absolute;left:50%;width:1px;height:9px;background:{PLAIN}'></div>"
        f"<div style='position:absolute;left:{left:.1f}%;width:{width:.1f}%;height:9px;background:{colour}cc'></div>"
        "</div></td>"
    )
