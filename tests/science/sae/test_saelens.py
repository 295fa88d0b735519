"""SAELens loads what we save, we load what SAELens saves, and both compute the same."""

import json
import warnings
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from tests.science.sae.drawn import drawn_sae, tokens

from fulcrum.domain.errors import InvalidSaeConfig
from fulcrum.domain.models import Variant
from fulcrum.science.sae.storage import load_sae, save_sae
from fulcrum.science.sae.variants import VARIANTS

D_IN, D_SAE = 8, 24


@pytest.fixture(scope="module")
def sae_lens() -> ModuleType:
    # Its import warns about its own dependencies.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module: ModuleType = pytest.importorskip("sae_lens")
    return module


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_saelens_computes_our_latents_from_our_files(
    sae_lens: ModuleType, variant: Variant, tmp_path: Path
) -> None:
    """Trap 7: ours normalises its input, and nothing of that may be lost."""
    ours, x = drawn_sae(variant, hook_point="visual.blocks.5.resid_post", model_name="ViT-B-32"), tokens(50)
    save_sae(ours, tmp_path, {"fvu": 0.2})
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(theirs.encode(x), ours.encode(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(theirs(x), ours(x), rtol=1e-4, atol=1e-4)
    assert theirs.cfg.metadata.hook_name == "visual.blocks.5.resid_post"
    assert theirs.cfg.metadata.model_name == "ViT-B-32"


@pytest.mark.parametrize("variant", list(VARIANTS))
def test_an_sae_that_went_through_saelens_is_still_ours(
    sae_lens: ModuleType, variant: Variant, tmp_path: Path
) -> None:
    ours, x = drawn_sae(variant), tokens(50)
    save_sae(ours, tmp_path / "ours")
    sae_lens.SAE.load_from_disk(tmp_path / "ours").save_model(tmp_path / "theirs")
    back = load_sae(tmp_path / "theirs")
    assert back.config == ours.config
    assert torch.equal(back.encode(x), load_sae(tmp_path / "ours").encode(x))


def drawn_theirs(sae_lens: ModuleType, architecture: str, **fields: Any) -> Any:
    names = {"standard": "StandardSAE", "topk": "TopKSAE", "jumprelu": "JumpReLUSAE", "gated": "GatedSAE"}
    name = names[architecture]
    cfg = getattr(sae_lens, f"{name}Config")(d_in=D_IN, d_sae=D_SAE, **fields)
    sae = getattr(sae_lens, name)(cfg)
    generator = torch.Generator().manual_seed(4)
    for parameter in sae.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return sae


@pytest.mark.parametrize("apply_b_dec_to_input", [True, False])
@pytest.mark.parametrize(
    ("architecture", "variant", "fields"),
    [
        ("standard", "relu", {}),
        ("topk", "topk", {"k": 5}),
        ("topk", "topk", {"k": 5, "rescale_acts_by_decoder_norm": True}),
        ("jumprelu", "jumprelu", {}),
        ("gated", "gated", {}),
    ],
)
def test_we_compute_saelens_latents_from_its_files(
    sae_lens: ModuleType,
    architecture: str,
    variant: Variant,
    fields: dict[str, Any],
    apply_b_dec_to_input: bool,
    tmp_path: Path,
) -> None:
    theirs = drawn_theirs(sae_lens, architecture, apply_b_dec_to_input=apply_b_dec_to_input, **fields)
    theirs.save_model(tmp_path)
    ours, x = load_sae(tmp_path), tokens(50)
    assert ours.config.variant == variant
    with torch.no_grad():
        torch.testing.assert_close(ours.encode(x), theirs.encode(x), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-4)


def test_configurations_from_before_saelens_6_are_read(sae_lens: ModuleType, tmp_path: Path) -> None:
    theirs = drawn_theirs(sae_lens, "topk", k=5)
    theirs.save_model(tmp_path)
    old = {
        "architecture": "standard",
        "d_in": D_IN,
        "d_sae": D_SAE,
        "dtype": "torch.float32",
        "hook_name": "blocks.5.hook_resid_post",
        "model_name": "ViT-B-32",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": 5},
        "normalize_activations": None,
        "apply_b_dec_to_input": True,
    }
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    ours, x = load_sae(tmp_path), tokens(50)
    assert ours.config.hook_point == "blocks.5.hook_resid_post"
    with torch.no_grad():
        torch.testing.assert_close(ours.encode(x), theirs.encode(x), rtol=1e-4, atol=1e-4)
        reread = sae_lens.SAE.load_from_disk(tmp_path)
        assert torch.equal(reread.encode(x), theirs.encode(x))


@pytest.mark.parametrize("normalisation", ["layer_norm", "constant_norm_rescale"])
def test_a_normalisation_that_depends_on_the_token_is_refused_instead_of_forgotten(
    sae_lens: ModuleType, normalisation: str, tmp_path: Path
) -> None:
    drawn_theirs(sae_lens, "standard", normalize_activations=normalisation).save_model(tmp_path)
    with pytest.raises(InvalidSaeConfig, match=normalisation):
        load_sae(tmp_path)


@pytest.mark.parametrize("kind", ["BatchTopK", "MatryoshkaBatchTopK"])
def test_a_batch_topk_sae_trained_by_saelens_keeps_its_threshold(
    sae_lens: ModuleType, kind: str, tmp_path: Path
) -> None:
    """Trap 8. SAELens saves it as a JumpReLU SAE, so that is what it is here too."""
    fields = {"matryoshka_widths": [8, D_SAE]} if kind == "MatryoshkaBatchTopK" else {}
    cfg = getattr(sae_lens, f"{kind}TrainingSAEConfig")(d_in=D_IN, d_sae=D_SAE, k=3, **fields)
    theirs = getattr(sae_lens, f"{kind}TrainingSAE")(cfg)
    with torch.no_grad():
        theirs.W_enc.normal_(generator=torch.Generator().manual_seed(4))
    theirs.topk_threshold = torch.tensor(0.35, dtype=torch.double)
    theirs.save_inference_model(tmp_path)
    ours, x = load_sae(tmp_path), tokens(50)
    assert ours.config.variant == "jumprelu"
    inference = sae_lens.SAE.load_from_disk(tmp_path)
    with torch.no_grad():
        latents = inference.encode(x)
        assert latents[latents > 0].min() > 0.35
        torch.testing.assert_close(ours.encode(x), latents, rtol=1e-4, atol=1e-4)
