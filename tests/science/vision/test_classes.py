"""Prompt ensembling, logits and probabilities."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum.domain.errors import ComputationFailed, EmptyPrompts, InvalidPrompt
from fulcrum.domain.tasks import ClassSet
from fulcrum.science.vision.classes import encode_class_set, encode_images, encode_texts, logits, probs
from fulcrum.science.vision.loaded import LoadedModel

from .small_models import TINY

NAMES = ("cat", "dog", "fox")
TEMPLATES = ("a {}", "the {} !")


@pytest.fixture(scope="module")
def sigmoid(load_random: Callable[..., LoadedModel]) -> LoadedModel:
    """Trained with a sigmoid loss, so with a logit bias."""
    return load_random({**TINY, "init_logit_bias": -10, "custom_text": True})


def test_class_embeddings_equal_their_slow_twin(tiny: LoadedModel) -> None:
    got = encode_class_set(tiny, ClassSet(NAMES, TEMPLATES))
    for row, name in zip(got, NAMES, strict=True):
        total = [0.0] * 24
        for template in TEMPLATES:
            embed = tiny.model.encode_text(tiny.tokenizer([template.format(name)]), normalize=False)[
                0
            ].double()
            length = math.sqrt(sum(float(v) ** 2 for v in embed))
            total = [t + float(v) / length for t, v in zip(total, embed, strict=True)]
        mean = [t / len(TEMPLATES) for t in total]
        length = math.sqrt(sum(v * v for v in mean))
        torch.testing.assert_close(row, torch.tensor([v / length for v in mean]), rtol=1e-4, atol=1e-6)


def test_classes_and_templates_are_not_transposed(tiny: LoadedModel) -> None:
    """With as many templates as classes a wrong reshape has the right shape (SCIENCE.md 8, trap 9)."""
    templates = ("a {}", "the {} !", "one {}")
    together = encode_class_set(tiny, ClassSet(NAMES, templates))
    for row, name in zip(together, NAMES, strict=True):
        alone = encode_class_set(tiny, ClassSet((name,), templates))[0]
        torch.testing.assert_close(row, alone, rtol=1e-4, atol=1e-6)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from(["cat", "dog", "a fox", "an owl", ""]), min_size=1, max_size=9),
    st.integers(1, 5),
)
def test_order_repetition_and_batch_size_do_not_change_an_embedding(texts: list[str], batch: int) -> None:
    got = encode_texts(_TINY[0], texts, batch)
    assert got.shape == (len(texts), 24)
    torch.testing.assert_close(torch.linalg.vector_norm(got, dim=-1), torch.ones(len(texts)))
    for row, text in zip(got, texts, strict=True):
        torch.testing.assert_close(row, encode_texts(_TINY[0], [text])[0], rtol=1e-4, atol=1e-6)


_TINY: list[LoadedModel] = []


@pytest.fixture(autouse=True)
def _share_tiny(tiny: LoadedModel) -> None:
    """Hypothesis tests take no function-scoped fixtures."""
    _TINY[:] = [tiny]


def test_equal_prompts_run_once(tiny: LoadedModel) -> None:
    rows: list[int] = []
    handle = tiny.model.token_embedding.register_forward_hook(
        lambda _m, args, _o: rows.append(args[0].shape[0])
    )
    encode_texts(tiny, ["cat", "dog", "cat", "cat"], batch=2)
    handle.remove()
    assert rows == [2]


def test_logits_are_those_of_the_model_with_scale(tiny: LoadedModel) -> None:
    images, tokens = _images(), tiny.tokenizer(list(NAMES))
    expected = tiny.model.get_logits(images, tokens)[0]
    got = logits(tiny, encode_images(tiny, images), encode_texts(tiny, NAMES))
    assert got.shape == (4, 3)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert tiny.logit_scale == pytest.approx(float(tiny.model.logit_scale.exp()), rel=1e-6)
    assert got.std() > 0.5  # cosines alone lie within [-1, 1] and hardly differ (trap 6)


def test_logits_have_the_bias_of_models_trained_with_a_sigmoid(sigmoid: LoadedModel) -> None:
    images, tokens = _images(), sigmoid.tokenizer(list(NAMES))
    expected = sigmoid.model.get_logits(images, tokens)[0]
    got = logits(sigmoid, encode_images(sigmoid, images), encode_texts(sigmoid, NAMES))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert sigmoid.info.logit_bias == sigmoid.logit_bias
    assert sigmoid.logit_bias is not None


def test_logits_do_not_care_whether_embeddings_are_normalised(tiny: LoadedModel) -> None:
    raw = tiny.model.encode_image(_images(), normalize=False)
    classes = encode_texts(tiny, NAMES)
    torch.testing.assert_close(
        logits(tiny, raw, classes), logits(tiny, raw / raw.norm(dim=-1, keepdim=True), classes)
    )


def test_logits_of_as_many_images_as_classes_keep_images_in_rows(tiny: LoadedModel) -> None:
    """A square result hides a transposition (SCIENCE.md 8, trap 10)."""
    images, classes = encode_images(tiny, _images()[:3]), encode_texts(tiny, NAMES)
    together = logits(tiny, images, classes)
    for i in range(3):
        for c in range(3):
            cosine = float((images[i].double() * classes[c].double()).sum())
            assert float(together[i, c]) == pytest.approx(cosine * tiny.logit_scale, abs=1e-4)


def test_logits_are_differentiable_in_the_image(tiny: LoadedModel) -> None:
    embeds = torch.randn(2, 24, requires_grad=True)
    logits(tiny, embeds, encode_texts(tiny, NAMES)).sum().backward()
    assert embeds.grad is not None
    # The scale of an embedding does not matter, so the gradient is at right angles to it.
    torch.testing.assert_close((embeds * embeds.grad).sum(-1), torch.zeros(2), atol=1e-4, rtol=0)


def test_probabilities_are_softmax_or_sigmoid_as_the_model_was_trained(
    tiny: LoadedModel, sigmoid: LoadedModel
) -> None:
    values = torch.tensor([[0.5, -1.0, 2.0]])
    exps = [math.exp(v) for v in (0.5, -1.0, 2.0)]
    torch.testing.assert_close(probs(tiny, values), torch.tensor([[e / sum(exps) for e in exps]]))
    torch.testing.assert_close(
        probs(sigmoid, values), torch.tensor([[1 / (1 + math.exp(-v)) for v in (0.5, -1.0, 2.0)]])
    )
    assert (tiny.probs_kind, sigmoid.probs_kind) == ("softmax", "sigmoid")


def test_a_prompt_longer_than_the_context_is_refused_not_cut(tiny: LoadedModel) -> None:
    fits = "a" * 18  # with begin and end exactly the context of twenty
    assert encode_texts(tiny, [fits]).shape == (1, 24)
    with pytest.raises(InvalidPrompt, match="has 21 tokens, the model reads at most 20"):
        encode_texts(tiny, ["cat", fits + "a"])


def test_no_text_is_refused(tiny: LoadedModel) -> None:
    with pytest.raises(EmptyPrompts):
        encode_texts(tiny, [])


def test_embeddings_that_are_not_finite_are_an_error(load_random: Callable[..., LoadedModel]) -> None:
    broken = load_random(TINY)
    broken.model.ln_final.weight.fill_(float("nan"))
    with pytest.raises(ComputationFailed, match="text"):
        encode_texts(broken, ["cat"])


def test_text_embeddings_can_be_used_in_a_graph(tiny: LoadedModel) -> None:
    """Tensors made under inference_mode could not be saved for a backward pass."""
    assert not encode_texts(tiny, ["cat"]).is_inference()


def _images() -> Any:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
