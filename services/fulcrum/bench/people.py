"""Whether a text model organises words as people do: its experts beside random weights, baselines and ratings of pairs.

What ExpertLens asks, on ratings that the caller has: those of the public sets are not ours to ship.
"""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fulcrum.bench.measure import environment
from fulcrum.domain.concept_files import PairRatings
from fulcrum.domain.concept_sets import template_sentences
from fulcrum.domain.errors import InvalidSettings
from fulcrum.domain.experts import ExpertRule
from fulcrum.engine.expert_alignment import Compared, alignment_of
from fulcrum.science.experts.ap import NEGATIVE, POSITIVE, UNUSED, expertise
from fulcrum.science.experts.expert_sets import centred_cosine, cosine_of_rows, experts_above, jaccard
from fulcrum.science.responses.text import TextModel, load_text_model, text_responses

TAUS = (0.3, 0.5, 0.7)


def bench_people(
    reference: str,
    judgements: PairRatings,
    n_pos: int = 24,
    n_neg: int = 500,
    threads: int = 2,
    on_event: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Spearman's rho with people over the pairs they rated, with its interval over words and Mantel's p.

    Every word is a concept of `n_pos` template sentences against `n_neg` of other words; units are the outputs of the
    linear layers of `reference`'s MLPs. `rho` has Jaccard of expert sets by threshold on AP and centred cosines of AP,
    for the model and for random weights, and the baselines of the same sentences: mean activation, and the embedding
    of the bare word. Raises what reading the model, building the sentences and the alignment raise.
    """
    report = on_event or (lambda _: None)
    torch.set_num_threads(threads)
    words = sorted({word for pair in judgements.pairs for word in pair})
    sentences = [text for word in words for text in template_sentences(word, n_pos)]
    labels = _labels(len(words), n_pos, n_neg)
    rho: dict[str, Any] = {}
    for of, random_weights in (("trained", False), ("random_weights", True)):
        model = load_text_model(reference, random_weights=random_weights)
        report(f"{of}: {len(sentences)} sentences about {len(words)} words")
        compared = _compared(model, sentences, labels, words)
        found = alignment_of(judgements, words, compared, seed=0)
        rho[of] = {_key(c.of, c.rule): asdict(c) for c in found.correlations}
        report(", ".join(f"{key} {value['rho']:.2f}" for key, value in rho[of].items()))
    return {
        "benchmark": "people",
        "judgements": judgements.name,
        "n_pairs": len(judgements.pairs),
        "n_words": len(words),
        "n_pos": n_pos,
        "n_neg": n_neg,
        "ratios": {
            f"{of}_{key}": value["rho"] for of, values in rho.items() for key, value in values.items()
        },
        "rho": rho,
        **environment(threads, "cpu"),
    }


def _labels(n_words: int, n_pos: int, n_neg: int) -> NDArray[np.int8]:
    """(n_words, n_words * n_pos): a word's own sentences, and as many others for each: AP needs one base rate."""
    n = n_words * n_pos
    if n - n_pos < n_neg:
        raise InvalidSettings(f"{n_words} words with {n_pos} sentences each give no {n_neg} of other words")
    of = np.arange(n) // n_pos
    shuffled = np.random.default_rng(0).permutation(n)
    labels = np.full((n_words, n), UNUSED, dtype=np.int8)
    for word, row in enumerate(labels):
        row[shuffled[of[shuffled] != word][:n_neg]] = NEGATIVE
        row[of == word] = POSITIVE
    return labels


def _compared(
    model: TextModel, sentences: list[str], labels: NDArray[np.int8], words: list[str]
) -> list[Compared]:
    layers = [name for name in model.layers if "attention" not in name and "attn" not in name]
    responses = text_responses(model, sentences, layers)
    found = expertise(responses, labels)
    by_rule = [
        Compared("experts", ExpertRule("tau", tau), jaccard(experts_above(found, tau))) for tau in TAUS
    ]
    by_rule.append(Compared("experts", ExpertRule("cosine_ap"), centred_cosine(found)))
    means = np.stack([responses[:, row == POSITIVE].mean(axis=1, dtype=np.float64) for row in labels])
    by_rule.append(Compared("mean_activation", None, cosine_of_rows(means)))
    by_rule.append(Compared("bare_word_embedding", None, cosine_of_rows(_embeddings(model, words))))
    return by_rule


@torch.no_grad()
def _embeddings(model: TextModel, words: list[str]) -> NDArray[np.float64]:
    """(n_words, d) mean of the last hidden states over the tokens of each word alone."""
    rows = []
    for word in words:
        asked = model.tokenizer(word, return_tensors="pt")
        rows.append(model.model(**asked).last_hidden_state[0].mean(dim=0).double().numpy())
    return np.stack(rows)


def _key(of: str, rule: ExpertRule | None) -> str:
    if rule is None:
        return of
    return f"{of}_cosine" if rule.value is None else f"{of}_tau_{rule.value:g}"
