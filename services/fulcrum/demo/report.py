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
from fulcrum.demo import pictures
from fulcrum.demo.story import Story
from fulcrum.demo.world import WORDS
from fulcrum.demo.world_objects import CLASS_NAMES
from fulcrum.domain.tasks import MarginTarget
from fulcrum.science.concepts.embeddings import latent_means
from fulcrum.science.concepts.labels import best_labels
from fulcrum.science.concepts.top_images import TopImages
from fulcrum.science.concepts.vocabulary import embed_vocabulary

_N_LATENTS_SHOWN = 12
_N_EXAMPLES = 4
_N_CARDS = 8


@dataclass(frozen=True)
class LatentCard:
    """A latent of the correction, with the images in which it is largest."""

    latent: int
    label: str
    label_score: float
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
    report, validated = story.validated.report, story.validated
    sample = story.dataset.samples[story.image_number]
    image = _image(story, story.image_number)
    target = story.attribution.target
    assert isinstance(target, MarginTarget)
    shown = story.attribution.latents[:8]
    controls = {kind: np.asarray(gains) for kind, gains in validated.given.control_gains.items()}
    top = np.argsort(-np.maximum(story.effect.before.probs, story.effect.after.probs), kind="stable")[:5]
    names = [story.run.task.names[i] for i in top]
    path = story.group.path
    return {
        "version": fulcrum.__version__,
        "findings": story.findings,
        "gain": story.findings.corrected_attacked_top1 - story.findings.attacked_top1,
        "clean_change": story.findings.corrected_clean_top1 - story.findings.clean_top1,
        "report": report,
        "plan": story.plan,
        "image": pictures.png_uri(image, 3),
        "heat": pictures.png_uri(
            pictures.overlay(image, _token_map(story, story.image_number, story.group.correction.latents)), 3
        ),
        "label": sample.label,
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
        "latents": _latent_cards(story),
        "n_edits": len(story.group.correction.edits),
        "dose_chart": pictures.dose_chart(
            [d.gain for d in story.doses],
            [d.attacked_top1 for d in story.doses],
            [d.clean_top1 for d in story.doses],
        ),
        "controls_chart": pictures.controls_chart(report.target.net if report.target else 0.0, controls),
        "fixed": _flips(story, fixed=True),
        "broken": _flips(story, fixed=False),
        "provenance": report.provenance,
        "correction_sha256": story.group.correction.sha256,
    }


def _image(story: Story, number: int) -> Image.Image:
    return Image.open(io.BytesIO(story.dataset.read_bytes(story.dataset.samples[number]))).convert("RGB")


def _token_map(story: Story, number: int, latents: tuple[int, ...]) -> NDArray[np.floating]:
    """Sum of the latents' values over the patch grid, from the index."""
    known = story.run.index.image(number)
    tower = story.run.steerable.tower
    tokens = np.repeat(np.arange(len(known.offsets) - 1), np.diff(known.offsets))
    chosen = np.isin(known.latents, latents)
    summed = np.bincount(
        tokens[chosen], weights=known.values[chosen].astype(np.float64), minlength=tower.n_tokens
    )
    rows, columns = tower.grid
    patches: NDArray[np.float64] = summed.astype(np.float64)[tower.n_tokens - rows * columns :].reshape(
        rows, columns
    )
    return patches


def _latent_cards(story: Story) -> list[LatentCard]:
    """The most effective latents of the correction, labelled by the words whose images they fire on."""
    index, run = story.run.index, story.run
    n_top = 16
    latents = [n for n in story.group.correction.latents if len(index.top_images(n, 2)[0]) >= 2]
    effect = {a.latent: abs(a.measured_effect or 0.0) for a in story.attribution.latents}
    latents = sorted(latents, key=lambda n: (-effect.get(n, 0.0), n))[:_N_LATENTS_SHOWN]
    images = np.full((index.layout.d_sae, n_top), -1, dtype=np.int64)
    scores = np.zeros((index.layout.d_sae, n_top))
    counts = np.zeros(index.layout.d_sae, dtype=np.int64)
    for latent in latents:
        numbers, values = index.top_images(latent, n_top)
        counts[latent] = len(numbers)
        images[latent, : len(numbers)], scores[latent, : len(numbers)] = numbers, values
    means = latent_means(run.base_embeddings.cpu().numpy(), TopImages(images, scores, counts))
    vocabulary = embed_vocabulary(
        lambda texts: story.engine.encode_texts(story.run.steerable.loaded.info.ref, texts),
        tuple(dict.fromkeys((*CLASS_NAMES, *WORDS))),
        ("the word {}", "a sticker that says {}", "a photo of a {}"),
    )
    labels = {found[0].latent: found[0] for found in best_labels(means, vocabulary)}
    cards = []
    for latent in latents:
        label = labels.get(latent)
        examples = tuple(
            pictures.png_uri(pictures.overlay(_image(story, int(n)), _token_map(story, int(n), (latent,))), 1)
            for n in images[latent, : min(_N_EXAMPLES, counts[latent])]
        )
        cards.append(
            LatentCard(
                latent,
                "" if label is None else label.text,
                0.0 if label is None or label.score is None else label.score,
                float(index.statistics.image_rate[latent]),
                examples,
            )
        )
    return cards


def _flips(story: Story, *, fixed: bool) -> list[FlipCard]:
    """Images of the confirm split that the correction fixed or broke, by the change of their margin."""
    given, numbers, names = story.validated.given, story.validated.numbers, story.run.task.names
    assert given.labels is not None
    assert given.splits is not None
    base, corrected = given.base_logits.argmax(axis=1), given.corrected_logits.argmax(axis=1)
    right, still = base == given.labels, corrected == given.labels
    rows = np.flatnonzero(
        (~right & still if fixed else right & ~still) & (np.asarray(given.splits) == "confirm")
    )
    change = np.abs(given.corrected_logits - given.base_logits).max(axis=1)
    rows = rows[np.argsort(-change[rows], kind="stable")][:_N_CARDS]
    return [
        FlipCard(
            pictures.png_uri(_image(story, int(numbers[i]))),
            names[given.labels[i]],
            names[base[i]],
            names[corrected[i]],
        )
        for i in rows
    ]
