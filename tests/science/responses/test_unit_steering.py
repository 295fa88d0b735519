"""Steering with experts: the maps by hand, and a tiny causal model, trained here, made to speak of a concept."""

import numpy as np
import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel

from fulcrum.domain.errors import InvalidEdit, InvalidInput
from fulcrum.science.experts.ap import expertise
from fulcrum.science.experts.maps import (
    Moments,
    UnitMaps,
    damped,
    set_to,
    transported,
    transported_by_moments,
)
from fulcrum.science.responses.causal import (
    generated,
    next_token_mass,
    perplexity,
    steer_with_experts,
)
from fulcrum.science.responses.text import maxima_over_tokens
from fulcrum.science.responses.unit_steering import steered

N_NEUTRAL, N_OF_TOPIC, LENGTH = 12, 6, 14
TOPICS = [list(range(N_NEUTRAL + t * N_OF_TOPIC, N_NEUTRAL + (t + 1) * N_OF_TOPIC)) for t in range(4)]
LAYERS = ("transformer.h.0.mlp.c_proj", "transformer.h.1.mlp.c_proj")
WIDTH = 48


def texts(n, rng, topic=None):
    """Half of the words neutral, half of one topic, as people write."""
    rows = rng.integers(0, N_NEUTRAL, (n, LENGTH))
    topics = rng.integers(0, 4, n) if topic is None else np.full(n, topic)
    about = rng.random((n, LENGTH)) < 0.5
    words = N_NEUTRAL + topics[:, None] * N_OF_TOPIC + rng.integers(0, N_OF_TOPIC, (n, LENGTH))
    return torch.from_numpy(np.where(about, words, rows)), topics


@pytest.fixture(scope="module")
def speaker():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    n_words = N_NEUTRAL + 4 * N_OF_TOPIC
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=n_words, n_positions=32, n_embd=48, n_layer=2, n_head=4, resid_pdrop=0.0,
                   embd_pdrop=0.0, attn_pdrop=0.0)
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(500):
        ids, _ = texts(64, rng)
        loss = model(input_ids=ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def known(speaker):
    """Expertise of every unit for topic 2, and its responses."""
    ids, topics = texts(400, np.random.default_rng(1))
    responses = maxima_over_tokens(speaker, LAYERS, ids, torch.ones_like(ids, dtype=torch.bool)).T.numpy()
    labels = (topics == 2).astype(np.int8)[None]
    return expertise(responses, labels)[0], responses, labels[0] == 1


def best(known, n):
    """The best units by AP, in their layers."""
    found, _, _ = known
    units = np.argsort(-found.ap, kind="stable")[:n]
    return {name: units[(units >= i * WIDTH) & (units < (i + 1) * WIDTH)] for i, name in enumerate(LAYERS)}


def maps_of(known, make, n=24):
    chosen = {name: units for name, units in best(known, n).items() if len(units)}
    return {name: make(units, units - LAYERS.index(name) * WIDTH) for name, units in chosen.items()}


def spoken(speaker, maps):
    layers = {name: speaker.get_submodule(name) for name in LAYERS}
    rng = np.random.default_rng(2)
    prompts = torch.from_numpy(rng.integers(0, N_NEUTRAL, (64, 6)))
    ordinary, _ = texts(64, rng)
    return steer_with_experts(
        speaker, layers, maps, prompts, TOPICS[2], ordinary, n_units=dict.fromkeys(LAYERS, WIDTH), n_random=20
    )


def test_experts_set_to_their_median_raise_the_concept_and_random_units_do_not(speaker, known):
    found, _, _ = known
    maps = maps_of(known, lambda units, inside: set_to(inside, found.on_p50[units]))
    told = spoken(speaker, maps)
    assert told.after > 2 * told.before
    assert max(told.random_after) < told.before
    assert told.perplexity_after > told.perplexity_before  # it has a price, and the price is told


@pytest.mark.parametrize("kind", ["mean", "gaussian", "linear"])
def test_transport_raises_the_concept_more_than_random_units_do(speaker, known, kind):
    _, responses, on = known
    maps = maps_of(
        known,
        lambda units, inside: transported(inside, responses[units][:, ~on], responses[units][:, on], kind),
    )
    told = spoken(speaker, maps)
    assert told.after > told.before
    assert told.after > np.quantile(told.random_after, 0.9)


def test_damped_experts_make_a_text_about_the_concept_go_on_about_something_else(speaker, known):
    found, _, _ = known
    maps = maps_of(known, lambda units, inside: damped(inside, found.auroc[units]), n=12)
    about, _ = texts(64, np.random.default_rng(3), topic=2)
    layers = {name: speaker.get_submodule(name) for name in LAYERS}
    before = next_token_mass(speaker, about, TOPICS[2]).mean()
    with steered(layers, maps):
        after = next_token_mass(speaker, about, TOPICS[2]).mean()
    assert after < 0.95 * before
    assert next_token_mass(speaker, about, TOPICS[2]).mean() == before  # nothing stays behind


def test_what_is_generated_is_about_the_concept_and_the_same_for_the_same_seed(speaker, known):
    found, _, _ = known
    maps = maps_of(known, lambda units, inside: set_to(inside, found.on_p50[units]))
    prompts = torch.zeros((16, 4), dtype=torch.long)
    layers = {name: speaker.get_submodule(name) for name in LAYERS}
    plain = generated(speaker, prompts, 8, seed=1)
    with steered(layers, maps):
        about = generated(speaker, prompts, 8, seed=1)
    assert torch.equal(plain, generated(speaker, prompts, 8, seed=1))
    share = [torch.isin(ids[:, 4:], torch.tensor(TOPICS[2])).float().mean() for ids in (plain, about)]
    assert share[1] > share[0]


def test_aura_keeps_what_tells_nothing_and_silences_what_tells_all():
    found = damped(np.arange(4), np.array([0.0, 1.0, 0.53125, 0.5]))
    assert found.scale.tolist() == [1.0, 0.0, 0.9375, 1.0]
    with pytest.raises(InvalidEdit, match="AUROC lies in"):
        damped(np.arange(1), np.array([1.2]))


@pytest.mark.parametrize("kind", ["gaussian", "linear"])
def test_transport_between_gaussians_reaches_the_other_ones_moments(kind):
    rng = np.random.default_rng(0)
    off, on = rng.normal(1, 1, (1, 4000)), rng.normal(5, 0.5, (1, 3000))
    found = transported(np.array([0]), off, on, kind)
    moved = found.scale * rng.normal(1, 1, 4000) + found.shift
    assert moved.mean() == pytest.approx(5, abs=0.1)
    assert moved.std() == pytest.approx(0.5, abs=0.1)


def test_transport_of_means_moves_and_does_not_stretch_and_a_constant_unit_is_moved():
    found = transported(
        np.array([0, 1]), np.array([[0.0, 2.0], [1.0, 1.0]]), np.array([[5.0], [4.0]]), "mean"
    )
    assert (found.scale.tolist(), found.shift.tolist()) == ([1, 1], [4, 3])
    constant = transported(np.array([0]), np.array([[1.0, 1.0]]), np.array([[4.0, 6.0]]), "gaussian")
    assert constant.scale * 1.0 + constant.shift == pytest.approx(5.0)


@pytest.mark.parametrize("kind", ["mean", "gaussian"])
def test_moments_alone_lead_to_the_map_of_the_responses(known, kind):
    found, responses, on = known
    units = np.arange(responses.shape[0])
    by_moments = transported_by_moments(
        units, Moments(found.off_mean, found.off_sd), Moments(found.on_mean, found.on_sd), kind
    )
    by_responses = transported(units, responses[:, ~on], responses[:, on], kind)
    assert by_moments.scale == pytest.approx(by_responses.scale, abs=1e-6)
    assert by_moments.shift == pytest.approx(by_responses.shift, abs=1e-6)


def test_strength_goes_from_nothing_to_the_whole_map():
    whole = UnitMaps(np.array([0]), np.array([0.0]), np.array([3.0]))
    assert (whole.with_strength(0).scale[0], whole.with_strength(0).shift[0]) == (1, 0)
    assert whole.with_strength(0.5).scale[0] * 1 + whole.with_strength(0.5).shift[0] == 2.0
    assert whole.with_strength(1).shift[0] == 3.0


def test_other_units_and_other_layers_stay_as_they_are():
    layer = nn.Linear(3, 5)
    x = torch.randn(2, 4, 3)
    plain = layer(x)
    with steered({"a": layer}, {"a": set_to(np.array([1, 4]), np.array([7.0, -1.0]))}):
        found = layer(x)
    assert torch.equal(found[..., [0, 2, 3]], plain[..., [0, 2, 3]])
    assert (found[..., 1] == 7).all()
    assert (found[..., 4] == -1).all()
    assert torch.equal(layer(x), plain)


def test_what_cannot_be_steered_is_refused(speaker):
    layer = nn.Linear(3, 5)
    of_another_layer = {"b": set_to(np.array([0]), np.array([1.0]))}
    with pytest.raises(InvalidEdit, match="are not among"), steered({"a": layer}, of_another_layer):
        pass
    beyond = {"a": set_to(np.array([5]), np.array([1.0]))}
    with steered({"a": layer}, beyond), pytest.raises(InvalidEdit, match="it has 5"):
        layer(torch.zeros(1, 3))
    with pytest.raises(InvalidEdit, match="once"):
        set_to(np.array([1, 1]), np.array([0.0, 0.0]))
    with pytest.raises(InvalidEdit, match="nan or infinity"):
        set_to(np.array([1]), np.array([np.nan]))
    with pytest.raises(InvalidInput, match="at least one word"):
        next_token_mass(speaker, torch.zeros((1, 2), dtype=torch.long), [])
    with pytest.raises(InvalidInput, match="two tokens"):
        perplexity(speaker, torch.zeros((1, 1), dtype=torch.long))
