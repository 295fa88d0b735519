"""A causal language model made to speak of a concept, or not to, by its experts: from sentences about the concept to
what is said before and after, with what it costs and what other units would do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from fulcrum.domain.errors import InvalidInput, UnknownModel
from fulcrum.domain.language_models import chosen_layers
from fulcrum.science.experts.ap import expertise
from fulcrum.science.experts.maps import UnitMaps, damped, set_to, transported
from fulcrum.science.responses.causal import generated, on_other_units, perplexity
from fulcrum.science.responses.text import (
    TextModel,
    check_texts,
    load_text_model,
    longest_text,
    readable_layers,
    text_responses,
)
from fulcrum.science.responses.unit_steering import steered

Way = Literal["set", "damp", "mean", "gaussian", "linear"]
WAYS: Final[tuple[Way, ...]] = get_args(Way)
MAX_ORDINARY: Final = 64  # texts whose perplexity tells the price


@dataclass(frozen=True)
class Speaker:
    """A causal model. `body` is the same without its language head: the modules of one are those of the other."""

    whole: TextModel
    body: TextModel


@dataclass(frozen=True)
class Speech:
    """A prompt with what the model goes on to say."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class Steering:
    """The concept's probability as the next word, mean over the prompts, and perplexity of ordinary sentences.

    `random_...` are those with the same maps on as many other units of the same layers; `p_value` is the share of
    these, with the experts themselves, that move the probability as far in the direction of the experts.
    """

    n_experts: Mapping[str, int]  # by layer
    least_ap: float
    before: float
    after: float
    random_after: tuple[float, ...]
    p_value: float
    perplexity_before: float
    perplexity_after: float
    random_perplexity: tuple[float, ...]
    speeches: tuple[Speech, ...]


def load_speaker(reference: str) -> Speaker:
    """Raises as `load_text_model` does; UnknownModel for a model that is not causal."""
    whole = load_text_model(reference, speaks=True)
    body = TextModel(whole.model.base_model, whole.tokenizer)
    readable_layers(body)
    with torch.no_grad():
        one, other = (whole.model(input_ids=torch.tensor([[0, last]])).logits[0, 0] for last in (0, 1))
    if not torch.allclose(one, other, atol=1e-4):
        raise UnknownModel(f"{reference[:200]!r} looks at words that come later: it is no causal model")
    return Speaker(whole, body)


def experts_of(
    speaker: Speaker,
    positives: Sequence[str],
    negatives: Sequence[str],
    way: Way,
    *,
    k: int = 50,
    layers: Sequence[str] = (),
    strength: float = 1.0,
) -> tuple[dict[str, UnitMaps], float]:
    """Maps of the best `k` units by AP, by layer, and the least AP among them. Raises InvalidInput."""
    widths = readable_layers(speaker.body)
    names = chosen_layers(list(widths), layers)
    responses = text_responses(speaker.body, [*positives, *negatives], names)
    if not 1 <= k <= len(responses):
        raise InvalidInput(f"k={k} experts of {len(responses)} units: choose 1 to {len(responses)}")
    on = np.arange(responses.shape[1]) < len(positives)
    (known,) = expertise(responses, on.astype(np.int8)[None])
    best = np.argsort(-known.ap, kind="stable")[:k]
    maps, first = {}, 0
    for name in names:
        units = np.sort(best[(best >= first) & (best < first + widths[name])])
        if len(units):
            found = _maps(way, units, units - first, known.on_p50, known.auroc, responses, on)
            maps[name] = found.with_strength(strength)
        first += widths[name]
    return maps, float(known.ap[best].min())


def _maps(
    way: Way,
    units: NDArray[np.int64],
    inside: NDArray[np.int64],
    on_p50: NDArray[np.float64],
    auroc: NDArray[np.float64],
    responses: NDArray[np.float32],
    on: NDArray[np.bool_],
) -> UnitMaps:
    match way:
        case "set":
            return set_to(inside, on_p50[units])
        case "damp":
            return damped(inside, auroc[units])
        case _:
            return transported(inside, responses[units][:, ~on], responses[units][:, on], way)


def steer_speech(
    speaker: Speaker,
    maps: Mapping[str, UnitMaps],
    least_ap: float,
    words: Sequence[str],
    prompts: Sequence[str],
    ordinary: Sequence[str],
    *,
    n_new: int = 20,
    n_random: int = 20,
    seed: int = 0,
    advance: Callable[[int, int], None] | None = None,
) -> Steering:
    """What is said before and after, never without random units.

    Raises InvalidInput for no prompt, for more tokens than the model takes, for a word without tokens, and for layers
    with too few other units.
    """
    if not prompts or not ordinary:
        raise InvalidInput("name at least one prompt, and one ordinary sentence for the price")
    spelled = _spelled(speaker.whole, words)
    starts = [_ids(speaker.whole, prompt) for prompt in prompts]
    texts = [_ids(speaker.whole, text) for text in ordinary[:MAX_ORDINARY]]
    n_tokens, longest = max(len(ids) for ids in starts) + n_new, longest_text(speaker.body)
    if longest is not None and n_tokens > longest:
        raise InvalidInput(
            f"the longest prompt and {n_new} new tokens are {n_tokens} tokens, the model takes {longest}"
        )
    check_texts(speaker.body, ordinary[:MAX_ORDINARY])
    modules = {name: speaker.body.model.get_submodule(name) for name in speaker.body.layers}
    widths = readable_layers(speaker.body)

    def measured(some: Mapping[str, UnitMaps]) -> tuple[float, float]:
        with steered(modules, some):
            mass = float(np.mean([_probability(speaker.whole.model, ids, spelled) for ids in starts]))
            return mass, _perplexity(speaker.whole.model, texts)

    def said(some: Mapping[str, UnitMaps]) -> list[str]:
        with steered(modules, some):
            new = [generated(speaker.whole.model, torch.tensor([ids]), n_new, seed)[0] for ids in starts]
        return [speaker.whole.tokenizer.decode(row[len(ids) :]) for row, ids in zip(new, starts, strict=True)]

    before, after = measured({}), measured(maps)
    rng = np.random.default_rng(seed)
    control = []
    for number in range(n_random):
        if advance is not None:
            advance(number, n_random)
        control.append(measured(on_other_units(maps, widths, rng)))
    further = [abs(m - before[0]) for m, _ in control if (m - before[0]) * (after[0] - before[0]) > 0]
    n_as_far = sum(moved >= abs(after[0] - before[0]) for moved in further)
    return Steering(
        n_experts={name: len(found.units) for name, found in maps.items()},
        least_ap=least_ap,
        before=before[0],
        after=after[0],
        random_after=tuple(mass for mass, _ in control),
        p_value=(1 + n_as_far) / (1 + n_random),
        perplexity_before=before[1],
        perplexity_after=after[1],
        random_perplexity=tuple(p for _, p in control),
        speeches=tuple(Speech(p, b, a) for p, b, a in zip(prompts, said({}), said(maps), strict=True)),
    )


def _spelled(speaker: TextModel, words: Sequence[str]) -> list[list[int]]:
    """Each way of beginning a next word with one of `words`, as ids."""
    unknown = speaker.tokenizer.unk_token_id
    found: dict[tuple[int, ...], None] = {}
    for word in words:
        ways = [f" {word}", word, f" {word[:1].upper()}{word[1:]}"]
        ids = [tuple(speaker.tokenizer(w, add_special_tokens=False)["input_ids"]) for w in ways]
        known = [some for some in ids if some and unknown not in some]
        if not known:
            raise InvalidInput(f"the model has no token for the word {word[:80]!r}")
        found |= dict.fromkeys(known)
    # A spelling that begins with another one is part of it.
    return [list(ids) for ids in found if not any(ids[: len(o)] == o for o in found if o != ids)]


def _ids(speaker: TextModel, text: str) -> list[int]:
    """As the model reads it, without what ends a text."""
    ids: list[int] = list(speaker.tokenizer(text)["input_ids"])
    while len(ids) > 1 and ids[-1] in (speaker.tokenizer.eos_token_id, speaker.tokenizer.sep_token_id):
        ids.pop()
    if not ids:
        raise InvalidInput(f"the prompt {text[:80]!r} has no token")
    return ids


@torch.no_grad()
def _probability(model: Any, ids: list[int], spelled: Sequence[list[int]]) -> float:
    total = 0.0
    for word in spelled:
        logits = model(input_ids=torch.tensor([[*ids, *word[:-1]]])).logits[0, len(ids) - 1 :].double()
        total += float(logits.log_softmax(dim=-1)[torch.arange(len(word)), torch.tensor(word)].sum().exp())
    return total


def _perplexity(model: Any, texts: Sequence[list[int]]) -> float:
    """Over all tokens of the texts but the first of each."""
    long = [ids for ids in texts if len(ids) > 1]
    if not long:
        raise InvalidInput("perplexity needs texts of at least two tokens")
    losses = [np.log(perplexity(model, torch.tensor([ids]))) * (len(ids) - 1) for ids in long]
    return float(np.exp(sum(losses) / sum(len(ids) - 1 for ids in long)))
