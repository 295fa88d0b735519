"""The story as one HTML file that needs nothing else."""

import io
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

import fulcrum
from fulcrum.datasets.samples import Sample
from fulcrum.demo import pictures
from fulcrum.demo.story import Story
from fulcrum.domain.evaluations import FlippedImage
from fulcrum.domain.tasks import MarginTarget


@dataclass(frozen=True)
class ShownLatent:
    """A latent of the correction, with the images in which it is largest."""

    latent: int
    label: str
    image_rate: float
    examples: tuple[str, ...]  # data URIs, heatmap over image


@dataclass(frozen=True)
class FlipCard:
    """An image whose answer changed."""

    uri: str
    label: str
    before: str
    after: str


def write_report(story: Story, path: Path) -> None:
    """Writes the file; its folder must exist."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"pct": lambda x: f"{x:.1%}", "points": lambda x: f"{100 * x:+.1f}"}
    text = files("fulcrum.demo").joinpath("report.html.j2").read_text(encoding="utf-8")
    path.write_text(environment.from_string(text).render(**_content(story)), encoding="utf-8")


def _content(story: Story) -> dict[str, Any]:
    report, correction = story.report, story.group.correction
    image = _image(story, story.example)
    target = story.attribution.target
    assert isinstance(target, MarginTarget)
    shown = story.attribution.latents[:8]
    controls = {c["kind"]: np.array(c["gains"]) for c in report["controls"]}
    top = np.argsort(-np.maximum(story.effect.before.probs, story.effect.after.probs), kind="stable")[:5]
    names = [story.effect.before.class_names[i] for i in top]
    path = story.group.path
    return {
        "version": fulcrum.__version__,
        "findings": story.findings,
        "report": report,
        "badge": story.evaluation.badge,
        "image": pictures.png_uri(image, 3),
        "heat": pictures.png_uri(pictures.overlay(image, _example_map(story)), 3),
        "label": story.example.label,
        "word": target.class_name,
        "attribution": story.attribution,
        "score_chart": pictures.score_bars(
            [a.latent for a in shown], [a.score for a in shown], [a.measured_effect or 0.0 for a in shown]
        ),
        "effect_chart": pictures.before_after_bars(
            names, story.effect.before.probs[top].tolist(), story.effect.after.probs[top].tolist()
        ),
        "effect": story.effect,
        "flip": story.curve.flip_interval,
        "agreement": story.agreement,
        "suggestions": story.suggestions,
        "group": story.group,
        "search_chart": pictures.search_chart(
            [story.group.group_accuracy_before, *(s["group_accuracy"] for s in path)],
            [story.group.clean_accuracy_before, *(s["clean_accuracy"] for s in path)],
            [0, *(s["n_edits"] for s in path)],
        ),
        "latents": _latents(story),
        "n_edits": len(correction.edits),
        "dose_chart": pictures.dose_chart(
            [d.gain for d in story.doses],
            [d.attacked_top1 for d in story.doses],
            [d.others_top1 for d in story.doses],
        ),
        "controls_chart": pictures.controls_chart(report["target"]["net"], controls),
        "fixed": [_flip(story, card) for card in story.fixed],
        "broken": [_flip(story, card) for card in story.broken],
        "correction_sha256": correction.sha256,
    }


def _image(story: Story, sample: Sample) -> Image.Image:
    return Image.open(io.BytesIO(story.world.read_bytes(sample))).convert("RGB")


def _example_map(story: Story) -> NDArray[np.floating]:
    """Sum of the correction's latents over the patches of the example (rows, columns)."""
    known, (rows, columns) = story.example_latents, story.attribution.grid
    n_tokens = len(known.offsets) - 1
    tokens = np.repeat(np.arange(n_tokens), np.diff(known.offsets))
    chosen = np.isin(known.latents, story.group.correction.latents)
    summed = np.bincount(tokens[chosen], weights=known.values[chosen].astype(np.float64), minlength=n_tokens)
    patches: NDArray[np.float64] = summed.astype(np.float64)[n_tokens - rows * columns :]
    return patches.reshape(rows, columns)


def _latents(story: Story) -> list[ShownLatent]:
    """The described latents with their images, the heatmap over each."""
    return [
        ShownLatent(
            card.summary.latent,
            card.summary.label or "",
            card.summary.image_rate,
            tuple(
                pictures.png_uri(
                    pictures.overlay(
                        _image(story, story.world.samples[example.image]), np.array(example.heatmap)
                    )
                )
                for example in card.examples
            ),
        )
        for card in story.cards
    ]


def _flip(story: Story, card: FlippedImage) -> FlipCard:
    sample = story.world.samples[story.world.number(card.id)]
    return FlipCard(pictures.png_uri(_image(story, sample)), card.label or "", card.base, card.corrected)
