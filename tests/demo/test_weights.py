"""The shipped CLIP and SAE: size, loading and what they reach on held-out scenes."""

from pathlib import Path

import pytest

import fulcrum.demo
from fulcrum.demo.recipe_clip import MODEL_CONFIG, demo_tokenizer, load_clip, write_clip_config
from fulcrum.demo.recipe_measure import ZeroShot, class_embeddings, held_out, zero_shot
from fulcrum.demo.recipe_sae import demo_model, probe_correction
from fulcrum.science.sae.storage import check_fits, load_sae

WEIGHTS = Path(fulcrum.demo.__file__).parent / "weights"
SEED = 31_337  # of no scene that the recipe has seen


@pytest.fixture(scope="module")
def measured() -> ZeroShot:
    return zero_shot(
        load_clip(WEIGHTS / "clip"), demo_tokenizer(WEIGHTS / "clip"), held_out("confirm", 84, 24, SEED)
    )


def test_all_shipped_weights_together_take_at_most_15_mb() -> None:
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file()) <= 15e6


def test_the_shipped_configuration_is_the_one_of_the_recipe(tmp_path: Path) -> None:
    write_clip_config(tmp_path)
    for name in ("open_clip_config.json", "no_merges.txt.gz"):
        assert (tmp_path / name).read_bytes() == (WEIGHTS / "clip" / name).read_bytes()


def test_the_tokenizer_is_byte_level_and_knows_its_directory() -> None:
    tokenizer = demo_tokenizer(WEIGHTS / "clip")
    text_cfg = MODEL_CONFIG["model_cfg"]["text_cfg"]
    assert tokenizer.vocab_size == text_cfg["vocab_size"] == 514
    assert (tokenizer("a cup")[0] > 0).sum() == len("acup") + 2


def test_the_model_is_a_good_classifier_of_unseen_scenes(measured: ZeroShot) -> None:
    assert measured.clean_top1 >= 0.93
    assert measured.right_top1 >= 0.95


def test_a_written_word_misleads_the_model_and_the_error_is_the_word(measured: ZeroShot) -> None:
    assert measured.attacked_top1 <= 0.5
    assert measured.attacked_as_word >= 0.8


def test_the_sae_fits_the_model_that_it_is_shipped_with() -> None:
    loaded, sae = demo_model(WEIGHTS / "clip"), load_sae(WEIGHTS / "sae")
    check_fits(sae, loaded.info.d_model, sae.config.hook_point, loaded.info.weights_sha256)


def test_suppressing_a_handful_of_latents_found_on_discover_restores_attacked_images_of_confirm() -> None:
    loaded, sae = demo_model(WEIGHTS / "clip"), load_sae(WEIGHTS / "sae")
    classes = class_embeddings(load_clip(WEIGHTS / "clip"), demo_tokenizer(WEIGHTS / "clip"))
    probe = probe_correction(
        loaded,
        sae,
        classes,
        held_out("discover", 48, 0, SEED),
        held_out("confirm", 84, 0, SEED),
        n_candidates=12,
    )
    assert probe.attacked_after - probe.attacked_before >= 0.15
    assert probe.clean_after >= probe.clean_before - 0.03
