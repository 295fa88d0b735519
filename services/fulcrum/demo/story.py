"""From an attacked image to a proven correction: the whole workflow on the demo world, step by step."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fulcrum.datasets.formats import load_dataset
from fulcrum.datasets.samples import Dataset
from fulcrum.demo.served import Paired, Picture, Served
from fulcrum.demo.shipped import demo_model, demo_sae, demo_task
from fulcrum.demo.world import NEUTRAL_WORDS
from fulcrum.demo.world_dataset import Split, write_demo_dataset
from fulcrum.domain.corrections import to_dict
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import ComputationFailed
from fulcrum.domain.results import Attribution, DoseResponse, Effect, GroupSuggestion, Suggestion
from fulcrum.domain.tasks import MarginTarget
from fulcrum.engine.dataset_runs import DatasetRun, Numbers
from fulcrum.engine.group_search import suggest_for_group
from fulcrum.engine.indexing import open_or_build_index
from fulcrum.engine.local import LocalEngine
from fulcrum.engine.validating import Question, Validated, validate_correction
from fulcrum.science.steering.edits import EditPlan
from fulcrum.science.validation.intervals import rate_bound
from fulcrum.science.validation.mcnemar import mcnemar_exact
from fulcrum.science.validation.report import Plan, plan
from fulcrum.science.validation.specification import ProtectedGroup, Specification

N_PAIRS: dict[Split, int] = {"discover": 300, "select": 150, "confirm": 800}
GAINS = (0.0, 0.25, 0.5, 0.75, 1.0)
# Float32 in batches of other sizes; the demo's logits are about 10.
MAX_LOGIT_DIFFERENCE = 1e-3

# (what is being done, done, of how much)
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Findings:
    """The story's findings. Shares; top-1 of the twins of the confirm split (`n_confirm` pairs).

    `attacked_as_word`: share of the attacked errors that are exactly the written word. `mcnemar_p` is exact, of the
    attacked twins before and after. `nfr_upper95`: upper 95 % bound of the share broken among all confirm images.
    `control_p95_gain`: 95th percentile of the gain of 100 corrections on matched latents.
    """

    n_confirm: int
    clean_top1: float
    attacked_top1: float
    attacked_as_word: float
    corrected_clean_top1: float
    corrected_attacked_top1: float
    mcnemar_p: float
    nfr_upper95: float
    control_p95_gain: float
    verdict: str


@dataclass(frozen=True)
class DosePoint:
    """All edits at one gain on the select split."""

    gain: float
    attacked_top1: float
    clean_top1: float


@dataclass(frozen=True)
class Agreement:
    """The numbers of the services beside those that this process computed for itself, over the twins of confirm.

    `n_different`: answers (before or after) whose class differs; `max_logit_difference` over all their logits.
    """

    n_images: int
    n_different: int
    max_logit_difference: float


@dataclass(frozen=True)
class Story:
    """Everything that the report shows."""

    engine: LocalEngine
    run: DatasetRun
    dataset: Dataset
    image_number: int
    attribution: Attribution
    suggestions: tuple[Suggestion, ...]
    group: GroupSuggestion
    effect: Effect
    curve: DoseResponse
    doses: tuple[DosePoint, ...]
    plan: Plan
    validated: Validated
    findings: Findings
    agreement: Agreement


def demo_dataset(folder: Path, seed: int = 0, n_pairs: dict[Split, int] | None = None) -> Dataset:
    """The story's data set, drawn where it is not there yet (some 20 seconds)."""
    pairs = n_pairs or N_PAIRS
    recipe = {"n_pairs": pairs, "seed": seed, "version": 3}
    stamp = folder / "recipe.json"
    if not stamp.exists() or json.loads(stamp.read_text()) != recipe:
        write_demo_dataset(folder, n_pairs=pairs, seed=seed)
        stamp.write_text(json.dumps(recipe))
    return load_dataset(folder / "manifest.csv", name="demo world")


def tell(
    folder: Path,
    engine: LocalEngine,
    services: Callable[[], Served],
    on_step: Tell | None = None,
    seed: int = 0,
    n_pairs: dict[Split, int] | None = None,
) -> Story:
    """Plays the story; data set and index stay in `folder`, so a second time is quicker.

    Found on discover, doses chosen on select, proven on confirm. `n_pairs` None: N_PAIRS, which is what the
    verdict needs. What a person would ask goes to the running platform (`services` is called when the first question
    comes), the answers to all twins of confirm included, and the findings are made of those answers; index, search and
    statistics are this process's own. Raises ComputationFailed where the two disagree.
    """
    step = on_step or (lambda what, done, total: None)
    step("draw the demo world", 0, 1)
    dataset = demo_dataset(folder / "data", seed, n_pairs)
    model, sae, task = demo_model(), demo_sae(), demo_task()
    steerable = engine.residency.steerable(model, sae)
    index = open_or_build_index(steerable, dataset, folder / "index", lambda d, t: step("index", d, t))
    run = DatasetRun(steerable, engine.residency.head(model, task), task, dataset, index)

    kind, split = dataset.groups["sticker_kind"], dataset.splits
    attack, is_twin = kind == "attack", _clean_twins(dataset)

    def at(mask: NDArray[np.bool_], name: str) -> Numbers:
        return np.flatnonzero(mask & (split == name)).astype(np.int64)

    number = _clearest_failure(run, at(attack, "discover"))
    sample = dataset.samples[number]
    word = task.names[int(run.base_logits[number].argmax())]
    assert sample.label is not None
    step("wait for the services", 0, 0)
    asking = services()
    step("explain one image", 0, 1)
    target = MarginTarget(word, sample.label)
    attribution = asking.explain(_picture(dataset, number), target)
    suggestions = asking.suggest(sample.label)

    group = suggest_for_group(
        run,
        at(attack, "discover"),
        at(kind == "none", "discover"),
        max_clean_loss=0.005,
        budget=800,
        note="discover: sticker_kind=attack",
        on_prefix=lambda d, t: step("search: activations", d, t),
        on_step=lambda s: step("search: edit sets tried", s["n_evaluated"], 0),
    )
    correction = group.correction
    if not correction.edits:
        raise ComputationFailed("the search found no edit that helps the attacked images of the demo world")
    effect = asking.steer(correction, target, seed)
    curve = asking.sweep(correction, GAINS, target)
    asking.save(correction)
    doses = _doses(run, correction.latents, at(attack, "select"), at(is_twin, "select"), step)

    confirm = split == "confirm"
    specification = Specification(
        protected_groups=(ProtectedGroup("sticker_kind", "none"),),
        worst_group_columns=("frame", "background", "class"),
    )
    before_run = plan(int(confirm.sum()), int((confirm & attack).sum()), specification)
    bank = dict(zip(NEUTRAL_WORDS, engine.encode_texts(model, NEUTRAL_WORDS), strict=True))
    question = Question(
        correction=correction,
        split="confirm",
        target=attack,
        same_cue_legitimate=kind == "right",
        specification=specification,
        concept_bank=bank,
        seed=seed,
    )
    validated = validate_correction(run, question, folder / "looks.jsonl", step)
    attacked, clean = at(attack, "confirm"), at(is_twin, "confirm")
    twins = np.concatenate([attacked, clean])
    pictures = [_picture(dataset, int(n)) for n in twins]
    served = asking.predict(pictures, correction, lambda d, t: step("confirm, over HTTP and gRPC", d, t))
    agreement = _agreement(validated, twins, served)
    answers = _with(_own(validated), validated, twins, served)
    findings = _findings(run, validated, answers, attacked, clean)
    (folder / "correction.json").write_text(json.dumps(to_dict(correction), indent=2) + "\n")
    return Story(
        engine=engine,
        run=run,
        dataset=dataset,
        image_number=number,
        attribution=attribution,
        suggestions=suggestions,
        group=group,
        effect=effect,
        curve=curve,
        doses=doses,
        plan=before_run,
        validated=validated,
        findings=findings,
        agreement=agreement,
    )


def _picture(dataset: Dataset, number: int) -> Picture:
    sample = dataset.samples[number]
    return Picture(sample.id, dataset.read_bytes(sample))


def _own(validated: Validated) -> Paired:
    return Paired(validated.given.base_logits, validated.given.corrected_logits)


def _rows(validated: Validated, numbers: Sequence[int] | Numbers) -> list[int]:
    place = {int(n): i for i, n in enumerate(validated.numbers)}
    return [place[int(n)] for n in numbers]


def _with(own: Paired, validated: Validated, numbers: Numbers, served: Paired) -> Paired:
    """The services' answers in the places of these images."""
    rows = _rows(validated, numbers)
    before, after = own.before.copy(), own.after.copy()
    before[rows], after[rows] = served.before, served.after
    return Paired(before, after)


def _agreement(validated: Validated, numbers: Numbers, served: Paired) -> Agreement:
    rows, own = _rows(validated, numbers), _own(validated)
    differences = [np.abs(served.before - own.before[rows]), np.abs(served.after - own.after[rows])]
    largest = float(max(d.max() for d in differences))
    n_different = int(
        (served.before.argmax(axis=1) != own.before[rows].argmax(axis=1)).sum()
        + (served.after.argmax(axis=1) != own.after[rows].argmax(axis=1)).sum()
    )
    if n_different or largest > MAX_LOGIT_DIFFERENCE:
        raise ComputationFailed(
            f"the services and this process disagree: {n_different} of {2 * len(numbers)} answers differ, logits by up "
            f"to {largest:.2g} (at most {MAX_LOGIT_DIFFERENCE:g} is rounding)"
        )
    return Agreement(len(numbers), n_different, largest)


def _clean_twins(dataset: Dataset) -> NDArray[np.bool_]:
    """Images without a sticker whose pair has an attacked one."""
    kind, pair = dataset.groups["sticker_kind"], dataset.pair_ids
    twin: NDArray[np.bool_] = (kind == "none") & np.isin(pair, pair[kind == "attack"])
    return twin


def _clearest_failure(run: DatasetRun, attacked: Numbers) -> int:
    """An attacked image that is taken for its word with the middling margin: typical, not extreme."""
    logits, labels = run.base_logits[attacked], run.labels[attacked]
    words = np.array(
        [run.task.names.index(run.dataset.samples[n].metadata["sticker_word"]) for n in attacked]
    )
    as_word = logits.argmax(axis=1) == words
    if not as_word.any():
        raise ComputationFailed("the demo model reads no sticker: it was trained badly")
    rows = np.arange(len(attacked))
    margin = logits[rows, words] - logits[rows, labels]
    order = np.argsort(np.where(as_word, margin, np.inf), kind="stable")
    return int(attacked[order[int(as_word.sum()) // 2]])


def _doses(
    run: DatasetRun, latents: tuple[int, ...], attacked: Numbers, clean: Numbers, step: Tell
) -> tuple[DosePoint, ...]:
    plans = [EditPlan(tuple(Scale(n, gain) for n in latents)) for gain in GAINS]
    both = np.concatenate([attacked, clean])
    logits = run.corrected_logits_of_many(plans, both, lambda d, t: step("dose-response on select", d, t))
    right = logits.argmax(axis=2) == run.labels[both]
    n = len(attacked)
    return tuple(
        DosePoint(gain, float(right[i, :n].mean()), float(right[i, n:].mean()))
        for i, gain in enumerate(GAINS)
    )


def _findings(
    run: DatasetRun, validated: Validated, answers: Paired, attacked: Numbers, clean: Numbers
) -> Findings:
    """From the answers to all images of the validation, in its order, so that nothing is computed a second way."""
    base, corrected = answers.before.argmax(axis=1), answers.after.argmax(axis=1)

    def right(predicted: NDArray[np.int64], numbers: Numbers) -> NDArray[np.bool_]:
        matches: NDArray[np.bool_] = predicted[_rows(validated, numbers)] == run.labels[numbers]
        return matches

    before, after = right(base, attacked), right(corrected, attacked)
    broken, fixed = int((before & ~after).sum()), int((~before & after).sum())
    wrong = attacked[~before]
    words = np.array([run.task.names.index(run.dataset.samples[n].metadata["sticker_word"]) for n in wrong])
    as_word = base[_rows(validated, wrong)] == words
    judged = np.flatnonzero(run.dataset.splits == "confirm")
    lost = right(base, judged) & ~right(corrected, judged)
    report = validated.report
    matched = [c for c in report.controls if c.kind == "matched_latents"]
    if not matched:
        raise ComputationFailed("no matched controls could be drawn for the demo correction")
    return Findings(
        n_confirm=len(attacked),
        clean_top1=float(right(base, clean).mean()),
        attacked_top1=float(before.mean()),
        attacked_as_word=float(as_word.mean()) if len(wrong) else 0.0,
        corrected_clean_top1=float(right(corrected, clean).mean()),
        corrected_attacked_top1=float(after.mean()),
        mcnemar_p=mcnemar_exact(broken, fixed),
        nfr_upper95=rate_bound(lost, None, 0.05).upper,
        control_p95_gain=matched[0].p95,
        verdict=report.verdict.name,
    )
