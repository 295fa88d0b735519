"""From an attacked image to a proven correction: the whole workflow on the demo world, through the platform's jobs."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.formats import load_dataset
from fulcrum.datasets.samples import Dataset, Sample
from fulcrum.demo.findings import Agreement, Findings, ImageTable, agreement_of, findings_of
from fulcrum.demo.served import DATASET_NAME, Picture, Served, Tell
from fulcrum.demo.shipped import WORLD_NAME
from fulcrum.demo.world import CLASS_NAMES, NEUTRAL_WORDS, WORDS
from fulcrum.demo.world_dataset import MANIFEST, WorldSize, drawn_world
from fulcrum.domain.concepts import LatentCard
from fulcrum.domain.corrections import Correction
from fulcrum.domain.engine import ImageLatents
from fulcrum.domain.errors import ComputationFailed
from fulcrum.domain.evaluations import FlippedImage, Outcome
from fulcrum.domain.records import EvaluationRecord
from fulcrum.domain.results import Attribution, DoseResponse, Effect, GroupSuggestion, Suggestion
from fulcrum.domain.tasks import MarginTarget

GAINS = (0.0, 0.25, 0.5, 0.75, 1.0)
ATTACK = {"sticker_kind": "attack"}
SPECIFICATION: dict[str, Any] = {
    "protected_groups": [{"column": "sticker_kind", "value": "none"}],
    "worst_group_columns": ["frame", "background", "class"],
}
_N_COMPARED_PAIRS = (
    12  # twins of confirm that are uploaded: to compare, and to be tried by whoever looks around
)
_N_SWEEP_CONTROLS = 25  # a cloud beside the doses; the proof has its hundred
_N_CARDS, _N_EXAMPLES, _N_FLIPS = 12, 4, 8


@dataclass(frozen=True)
class DosePoint:
    """All edits at one gain on the select split."""

    gain: float
    attacked_top1: float
    others_top1: float


@dataclass(frozen=True)
class Story:
    """Everything that the report shows. `report` is that of the evaluation, as the platform keeps it."""

    world: Dataset
    example: Sample
    attribution: Attribution
    example_latents: ImageLatents
    suggestions: tuple[Suggestion, ...]
    group: GroupSuggestion
    effect: Effect
    curve: DoseResponse
    doses: tuple[DosePoint, ...]
    evaluation: EvaluationRecord
    report: dict[str, Any]
    cards: tuple[LatentCard, ...]  # of the correction's latents, the most effective first
    fixed: tuple[FlippedImage, ...]
    broken: tuple[FlippedImage, ...]
    findings: Findings
    agreement: Agreement


def tell(
    folder: Path,
    worlds: Path,
    services: Callable[[], Served],
    on_step: Tell,
    seed: int = 0,
    size: WorldSize | None = None,
) -> Story:
    """Plays the story on the running platform; what it has computed before it does not compute again.

    Found on discover, doses chosen on select, proven on confirm. The world is drawn below `worlds`, which workers know
    as WORLD_NAME; `correction.json` goes to `folder`. `services` is called when the first question comes; `size` None
    is what the verdict needs.
    """
    on_step("draw the demo world", 0, 0)
    place = f"seed-{seed}"
    world = load_dataset(drawn_world(worlds / place, seed, size), name="demo world")
    on_step("wait for the services", 0, 0)
    served = services()
    client, sae = served.client, served.sae

    name = DATASET_NAME if seed == 0 else f"{DATASET_NAME}, seed {seed}"
    dataset = served.imported(name, f"folder:{WORLD_NAME}/{place}/{MANIFEST}", world.digest)
    served.ended(client.latents.index(dataset, sae), "index")
    search = client.evaluations.suggest(
        dataset, sae, ATTACK, clean={"sticker_kind": "none"}, max_clean_loss=0.005, task=served.task
    )
    search = served.ended(search, "search a correction")
    group = _found(search.result, client.corrections.suggested(search))
    saved = served.saved(search)
    client.corrections.export(saved, folder / "correction.json")

    # Asked for at once, so that workers are busy while the rest is asked.
    proof = client.evaluations.validate(
        saved,
        dataset,
        split="confirm",
        where=ATTACK,
        same_cue_legitimate={"sticker_kind": "right"},
        specification=SPECIFICATION,
        concept_bank=NEUTRAL_WORDS,
        seed=seed,
    )
    doses = client.evaluations.sweep(
        saved, dataset, GAINS, where=ATTACK, n_controls=_N_SWEEP_CONTROLS, seed=seed
    )
    described = client.latents.describe(sae, dataset, vocabulary=_vocabulary())
    proof = served.ended(proof, "prove it on confirm")
    assert proof.result is not None
    evaluation = client.evaluations.get(proof.result["evaluation_id"])
    content = client.evaluations.table(evaluation.record)
    table = ImageTable.read(content, world, evaluation.report["provenance"]["class_names"])

    on_step("explain one image", 0, 0)
    number = table.clearest_failure()
    example = world.samples[number]
    assert example.label is not None
    target = MarginTarget(table.answer("base", number), example.label)
    session = served.session(f"The story, seed {seed}", _picture(world, number), target)
    suggestions = session.suggest(example.label)
    effect = session.steer(group.correction, seed)
    curve = session.sweep(group.correction, GAINS)
    compared = _compared(table)
    agreement = agreement_of(
        table, compared, served.predicted([_picture(world, int(n)) for n in compared], saved)
    )
    doses = served.ended(doses, "doses on select")
    served.ended(described, "describe the latents")
    assert doses.result is not None
    attribution = session.explained.attribution
    return Story(
        world=world,
        example=example,
        attribution=attribution,
        example_latents=client.images.latents(session.image, sae),
        suggestions=suggestions,
        group=group,
        effect=effect,
        curve=curve,
        doses=_doses(client.evaluations.get(doses.result["evaluation_id"]).report),
        evaluation=evaluation.record,
        report=evaluation.report,
        cards=client.latents.cards(
            sae, _most_effective(group.correction, attribution), n_examples=_N_EXAMPLES, dataset=dataset
        ),
        fixed=_flipped(served, evaluation.record, "fixed"),
        broken=_flipped(served, evaluation.record, "broken"),
        findings=findings_of(evaluation.report, table),
        agreement=agreement,
    )


def _found(result: dict[str, Any] | None, correction: Correction) -> GroupSuggestion:
    assert result is not None  # of a job that succeeded
    if not correction.edits:
        raise ComputationFailed("the search found no edit that helps the attacked images of the demo world")
    return GroupSuggestion(
        correction,
        result["group_accuracy_before"],
        result["group_accuracy_after"],
        result["clean_accuracy_before"],
        result["clean_accuracy_after"],
        tuple(result["path"]),
        result["n_evaluated"],
    )


def _vocabulary() -> tuple[str, ...]:
    """Words for labels: the objects, and every word that a sticker may say."""
    return tuple(dict.fromkeys((*CLASS_NAMES, *(f"word {word}" for word in WORDS))))


def _picture(world: Dataset, number: int) -> Picture:
    sample = world.samples[number]
    return Picture(f"{sample.id}.png", world.read_bytes(sample))


def _compared(table: ImageTable) -> NDArray[np.int64]:
    """Some attacked images of confirm and their clean twins, spread over the split."""
    attacked, clean = table.numbers("attack", "confirm"), table.numbers("clean", "confirm")
    chosen = np.unique(np.linspace(0, len(attacked) - 1, _N_COMPARED_PAIRS).astype(np.int64))
    return np.concatenate([attacked[chosen], clean[chosen]])


def _doses(report: dict[str, Any]) -> tuple[DosePoint, ...]:
    return tuple(
        DosePoint(gain["gain"], gain["target_accuracy"], gain["other_accuracy"]) for gain in report["gains"]
    )


def _most_effective(correction: Correction, attribution: Attribution) -> list[int]:
    effect = {a.latent: abs(a.measured_effect or 0.0) for a in attribution.latents}
    return sorted(correction.latents, key=lambda n: (-effect.get(n, 0.0), n))[:_N_CARDS]


def _flipped(served: Served, evaluation: EvaluationRecord, outcome: Outcome) -> tuple[FlippedImage, ...]:
    """The first cards of the flip board."""
    return tuple(islice(served.client.evaluations.images(evaluation, outcome=outcome), _N_FLIPS))
