"""What a causal language model says with experts steered, what that costs, and whether other units would do it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.experts.maps import UnitMaps
from fulcrum.science.responses.unit_steering import steered


@dataclass(frozen=True)
class SteeredSpeech:
    """The concept's probability as the next token, and perplexity of ordinary text, before and after.

    `random_...` are means over sets of other units of the same layers and numbers with the same maps.
    """

    before: float
    after: float
    random_after: tuple[float, ...]
    perplexity_before: float
    perplexity_after: float
    random_perplexity: tuple[float, ...]


@torch.no_grad()
def next_token_mass(
    model: Any, ids: Int[Tensor, "n n_tokens"], words: Sequence[int]
) -> Float[np.ndarray, " n"]:
    """Probability that the next token is one of `words`. `model` is a causal model of transformers in eval mode."""
    if not words:
        raise InvalidInput("a concept needs at least one word")
    probs = model(input_ids=ids).logits[:, -1].float().softmax(dim=-1)
    mass: Float[np.ndarray, " n"] = probs[:, list(words)].sum(dim=-1).double().cpu().numpy()
    return mass


@torch.no_grad()
def perplexity(model: Any, ids: Int[Tensor, "n n_tokens"]) -> float:
    """Exponential of the mean loss over all tokens but the first. Raises InvalidInput for texts of one token."""
    if ids.shape[1] < 2:
        raise InvalidInput("perplexity needs texts of at least two tokens")
    logits = model(input_ids=ids).logits[:, :-1].float()
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    return float(loss.double().exp())


@torch.no_grad()
def generated(
    model: Any, ids: Int[Tensor, "n n_tokens"], n_new: int, seed: int = 0
) -> Int[Tensor, "n n_tokens_more"]:
    """Continues each row by sampling; the same seed, the same words."""
    generator = torch.Generator(device="cpu").manual_seed(seed)
    for _ in range(n_new):
        probs = model(input_ids=ids).logits[:, -1].float().softmax(dim=-1)
        ids = torch.cat([ids, torch.multinomial(probs.cpu(), 1, generator=generator).to(ids.device)], dim=1)
    return ids


def on_other_units(
    maps: Mapping[str, UnitMaps], n_units: Mapping[str, int], rng: np.random.Generator
) -> dict[str, UnitMaps]:
    """The same maps on as many other units of the same layers. Raises InvalidInput where there are too few."""
    others = {}
    for name, found in maps.items():
        free = np.setdiff1d(np.arange(n_units[name]), found.units)
        if len(free) < len(found.units):
            raise InvalidInput(
                f"{name} has {len(free)} units besides its {len(found.units)} experts: too few for a control"
            )
        others[name] = UnitMaps(rng.choice(free, len(found.units), replace=False), found.scale, found.shift)
    return others


def steer_with_experts(
    model: Any,
    layers: Mapping[str, nn.Module],
    maps: Mapping[str, UnitMaps],
    prompts: Int[Tensor, "n n_tokens"],
    words: Sequence[int],
    ordinary: Int[Tensor, "m m_tokens"],
    *,
    n_units: Mapping[str, int],
    n_random: int = 20,
    seed: int = 0,
) -> SteeredSpeech:
    """Before and after, and the same with `n_random` sets of random units: never an effect without its control.

    `n_units` has the width of each steered layer. Raises InvalidEdit, InvalidInput.
    """

    def measured(some: Mapping[str, UnitMaps]) -> tuple[float, float]:
        with steered(layers, some):
            return float(next_token_mass(model, prompts, words).mean()), perplexity(model, ordinary)

    rng = np.random.default_rng(seed)
    before, after = measured({}), measured(maps)
    control = [measured(on_other_units(maps, n_units, rng)) for _ in range(n_random)]
    return SteeredSpeech(
        before[0],
        after[0],
        tuple(mass for mass, _ in control),
        before[1],
        after[1],
        tuple(p for _, p in control),
    )
