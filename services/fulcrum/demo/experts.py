"""Experts of what was planted in the demo world: objects, colours and written words, in both towers and the SAE."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fulcrum.client import Client
from fulcrum.demo.world import CLASS_NAMES, COLOURS, TEMPLATES
from fulcrum.domain.concept_sets import ConceptSet, concept_set_of
from fulcrum.domain.experts import Experts, ExpertUnit
from fulcrum.domain.jobs import JobRecord
from fulcrum.domain.records import DatasetRecord, ModelRecord, SaeRecord

# The job once it has succeeded, told of while it runs by this phrase.
Ended = Callable[[JobRecord, str], JobRecord]

COLUMNS = ("label", "colour", "sticker_word")
N_POS, N_NEG = 20, 150
NAMES = {"latents": "planted, SAE", "vision": "planted, vision tower", "text": "planted, text tower"}
_N_BEST = 5


@dataclass(frozen=True)
class PlantedExperts:
    """Three searches for the same kinds of concepts; `best` are the best latents of every concept."""

    latents: Experts
    vision: Experts
    text: Experts
    best: dict[str, tuple[ExpertUnit, ...]]


def ask_for_planted_experts(
    client: Client,
    model: ModelRecord,
    sae: SaeRecord,
    dataset: DatasetRecord,
    *,
    n_pos: int = N_POS,
    n_neg: int = N_NEG,
) -> dict[str, JobRecord]:
    """Asks for the three searches and does not wait; asked again, the platform computes nothing again."""
    return {
        "latents": client.experts.find_latents(
            sae, dataset, COLUMNS, split="discover", n_pos=n_pos, n_neg=n_neg, name=NAMES["latents"]
        ),
        "vision": client.experts.find_units(
            model, dataset, COLUMNS, split="discover", n_pos=n_pos, n_neg=n_neg, name=NAMES["vision"]
        ),
        "text": client.experts.find_in_sentences(model, planted_sentences(), name=NAMES["text"]),
    }


def find_planted_experts(
    client: Client,
    model: ModelRecord,
    sae: SaeRecord,
    dataset: DatasetRecord,
    ended: Ended,
    *,
    n_pos: int = N_POS,
    n_neg: int = N_NEG,
) -> PlantedExperts:
    """Asks for all three at once and waits; images are those of the discover split. Asked again, the platform
    computes nothing again.

    Raises what `ended` raises for a job that fails.
    """
    jobs = ask_for_planted_experts(client, model, sae, dataset, n_pos=n_pos, n_neg=n_neg)
    found = {}
    for units, job in jobs.items():
        result = ended(job, f"experts ({units})").result
        assert result is not None  # it has succeeded
        found[units] = client.experts.get(result["experts_id"])
    return PlantedExperts(**found, best=best_units(client, found["latents"]))


def best_units(client: Client, search: Experts, n: int = _N_BEST) -> dict[str, tuple[ExpertUnit, ...]]:
    """The best units of every concept, one request each."""
    best = {}
    for concept in search.concepts:
        units = client.experts.units(search.record, concept.name)
        best[concept.name] = tuple(unit for unit, _ in zip(units, range(n), strict=False))
    return best


def planted_sentences(templates: Sequence[str] = TEMPLATES, seed: int = 0) -> ConceptSet:
    """Objects and colours as the text tower reads them: each concept against all others of its kind."""
    told = {
        (name, colour, number): template.format(f"{colour} {name}")
        for name in CLASS_NAMES
        for colour in COLOURS
        for number, template in enumerate(templates)
    }
    n_pos = len(COLOURS) * len(templates)
    n_neg = 8 * n_pos
    positives, negatives, domains = {}, {}, {}
    for place, (domain, names) in enumerate({"object": CLASS_NAMES, "colour": tuple(COLOURS)}.items()):
        for name in names:
            about = [text for key, text in told.items() if key[place] == name]
            others = [text for key, text in told.items() if key[place] != name]
            rng = random.Random(f"{seed}:{name}")
            # As many of each for every concept, so that AP can be compared.
            positives[name], negatives[name] = rng.sample(about, n_pos), rng.sample(others, n_neg)
            domains[name] = domain
    return concept_set_of("objects and colours", positives, negatives, domains)
