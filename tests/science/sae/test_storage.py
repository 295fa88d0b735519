"""SAEs on disk."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.science.sae.drawn import drawn_sae, tokens

from fulcrum.domain.errors import CorruptCheckpoint, InvalidSaeConfig, SaeDoesNotFit, UnknownSae
from fulcrum.domain.models import Variant
from fulcrum.science.sae.folding import fold_normalisation
from fulcrum.science.sae.storage import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    check_fits,
    load_sae,
    read_quality,
    sae_sha256,
    save_sae,
)
from fulcrum.science.sae.variants import VARIANTS

ALL = list(VARIANTS)


@pytest.mark.parametrize("variant", ALL)
def test_a_loaded_sae_computes_what_the_saved_one_did(variant: Variant, tmp_path: Path) -> None:
    """Traps 7 and 8: normalisation and threshold travel with the weights."""
    sae, x = drawn_sae(variant, hook_point="visual.blocks.5.resid_post", model_sha256="ab"), tokens(30)
    save_sae(sae, tmp_path, {"fvu": 0.25})
    loaded = load_sae(tmp_path)
    torch.testing.assert_close(loaded.encode(x), sae.encode(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(loaded(x), sae(x), rtol=1e-4, atol=1e-4)
    assert loaded.config == sae.config
    assert read_quality(tmp_path) == {"fvu": 0.25}
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


@pytest.mark.parametrize("variant", ALL)
def test_the_hash_is_the_same_before_saving_after_loading_and_after_saving_again(
    variant: Variant, tmp_path: Path
) -> None:
    sae = drawn_sae(variant)
    save_sae(sae, tmp_path / "a")
    loaded = load_sae(tmp_path / "a")
    save_sae(loaded, tmp_path / "b")
    assert sae_sha256(sae) == sae_sha256(loaded) == sae_sha256(load_sae(tmp_path / "b"))
    assert (tmp_path / "a" / WEIGHTS_FILE).read_bytes() == (tmp_path / "b" / WEIGHTS_FILE).read_bytes()


@pytest.mark.parametrize("variant", ALL)
def test_the_hash_changes_with_every_tensor(variant: Variant) -> None:
    sae = drawn_sae(variant)
    before = sae_sha256(sae)
    names = [*dict(sae.named_parameters()), *dict(sae.named_buffers())]
    for name in names:
        tensor = sae.get_parameter(name) if name in dict(sae.named_parameters()) else sae.get_buffer(name)
        saved = tensor.clone()
        tensor.add_(0.5)
        assert sae_sha256(sae) != before, name
        tensor.copy_(saved)
    assert sae_sha256(sae) == before


def test_the_hash_changes_with_the_options() -> None:
    one, other = drawn_sae("topk"), drawn_sae("topk")
    other.config.options["k"] = 4
    assert sae_sha256(one) != sae_sha256(other)


def test_saving_leaves_the_sae_as_it_was(tmp_path: Path) -> None:
    sae = drawn_sae("topk")
    before = {name: value.clone() for name, value in sae.state_dict().items()}
    save_sae(sae, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in sae.state_dict().items())


@pytest.mark.parametrize("variant", ALL)
def test_folding_keeps_the_function_and_folding_again_changes_nothing(variant: Variant) -> None:
    sae, x = drawn_sae(variant), tokens(20)
    latents, x_hat = sae.encode(x), sae(x)
    fold_normalisation(sae)
    torch.testing.assert_close(sae.encode(x), latents, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae(x), x_hat, rtol=1e-4, atol=1e-4)
    once = {name: value.clone() for name, value in sae.state_dict().items()}
    fold_normalisation(sae)
    assert all(torch.equal(value, once[name]) for name, value in sae.state_dict().items())


@pytest.mark.parametrize("variant", ["topk", "batch_topk", "gated"])
@pytest.mark.parametrize(
    "damage", ["missing", "unknown", "shape", "nan", "inf", "truncated", "empty", "pickle"]
)
def test_damaged_weights_are_refused_instead_of_replaced(
    variant: Variant, damage: str, tmp_path: Path
) -> None:
    """Trap 3."""
    save_sae(drawn_sae(variant), tmp_path)
    path = tmp_path / WEIGHTS_FILE
    tensors = load_file(path)
    match damage:
        case "missing":
            del tensors["W_dec"]
        case "unknown":
            tensors["extra"] = torch.zeros(1)
        case "shape":
            tensors["W_enc"] = tensors["W_enc"].T.contiguous()
        case "nan" | "inf":
            tensors["b_dec"][3] = float(damage)
    save_file(tensors, path)
    match damage:
        case "truncated":
            path.write_bytes(path.read_bytes()[:-7])
        case "empty":
            path.write_bytes(b"")
        case "pickle":
            path.write_bytes(pickle.dumps({"W_enc": [1.0]}))
    with pytest.raises(CorruptCheckpoint):
        load_sae(tmp_path)


def test_weights_changed_after_saving_are_refused(tmp_path: Path) -> None:
    save_sae(drawn_sae("relu"), tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    tensors["W_dec"][0, 0] += 1e-3
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with pytest.raises(CorruptCheckpoint, match="SHA-256"):
        load_sae(tmp_path)


def test_a_batch_topk_file_with_several_thresholds_is_refused(tmp_path: Path) -> None:
    save_sae(drawn_sae("batch_topk"), tmp_path)
    tensors = load_file(tmp_path / WEIGHTS_FILE)
    tensors["threshold"][3] += 1.0
    save_file(tensors, tmp_path / WEIGHTS_FILE)
    with pytest.raises(CorruptCheckpoint, match="one threshold"):
        load_sae(tmp_path)


def test_a_folder_without_an_sae_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(UnknownSae, match=r"cfg\.json"):
        load_sae(tmp_path / "nowhere")
    save_sae(drawn_sae("relu"), tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(UnknownSae, match="safetensors"):
        load_sae(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1, 2]", "", '"text"'])
def test_a_configuration_that_is_not_an_object_is_corrupt(text: str, tmp_path: Path) -> None:
    save_sae(drawn_sae("relu"), tmp_path)
    (tmp_path / CONFIG_FILE).write_text(text)
    with pytest.raises(CorruptCheckpoint):
        load_sae(tmp_path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architecture", "temporal"),
        ("normalize_activations", "layer_norm"),
        ("reshape_activations", "hook_z"),
        ("d_in", "8"),
        ("d_sae", 0),
        ("d_sae", None),
        ("metadata", [1]),
    ],
)
def test_configurations_that_we_cannot_represent_are_refused(key: str, value: object, tmp_path: Path) -> None:
    save_sae(drawn_sae("relu"), tmp_path)
    cfg = json.loads((tmp_path / CONFIG_FILE).read_text())
    cfg[key] = value
    (tmp_path / CONFIG_FILE).write_text(json.dumps(cfg))
    with pytest.raises(InvalidSaeConfig):
        load_sae(tmp_path)


def test_an_sae_fits_its_own_model_and_place_only() -> None:
    sae = drawn_sae("relu", hook_point="visual.blocks.5.resid_post", model_sha256="ab")
    check_fits(sae, 8, "visual.blocks.5.resid_post", "ab")
    with pytest.raises(SaeDoesNotFit, match="d_in=8"):
        check_fits(sae, 9, "visual.blocks.5.resid_post", "ab")
    with pytest.raises(SaeDoesNotFit, match=r"blocks\.6"):
        check_fits(sae, 8, "visual.blocks.6.resid_post", "ab")
    with pytest.raises(SaeDoesNotFit, match="SHA-256"):
        check_fits(sae, 8, "visual.blocks.5.resid_post", "cd")
    check_fits(drawn_sae("relu"), 8, "visual.blocks.6.resid_post", "cd")
