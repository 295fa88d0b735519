"""The demo world: determinism, twins, groups and the data set on disk."""

import csv
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fulcrum.demo.world import (
    CLASS_NAMES,
    FRAME_CLASS,
    WAVES_CLASS,
    WORDS,
    render,
    sample_scene,
    with_sticker,
)
from fulcrum.demo.world_dataset import COLUMNS, SPLITS, demo_samples, write_demo_dataset


def test_a_scene_is_painted_the_same_every_time() -> None:
    first = sample_scene(np.random.default_rng(7), "fish", waves=True)
    second = sample_scene(np.random.default_rng(7), "fish", waves=True)
    assert first == second
    assert np.array_equal(render(first).image, render(second).image)


@pytest.mark.parametrize("label", CLASS_NAMES)
def test_twins_differ_inside_the_sticker_only_and_keep_the_object_in_view(label: str) -> None:
    rng = np.random.default_rng(3)
    for word in WORDS[::5]:
        scene = sample_scene(rng, label, frame=word == "apple")
        clean, attacked = render(scene), render(with_sticker(rng, scene, word))
        differs = (clean.image != attacked.image).any(axis=2)
        assert not (differs & ~attacked.sticker_mask).any()
        assert differs[attacked.sticker_mask].mean() > 0.5
        assert attacked.object_mask.sum() > 0.7 * clean.object_mask.sum() > 0
        assert not clean.sticker_mask.any()


def test_the_attack_names_another_class_and_a_right_sticker_the_same() -> None:
    for sample in demo_samples("select", n_pairs=40, n_right=20, n_neutral=20, seed=1):
        word, label = sample.sticker_word, sample.label
        match sample.sticker_kind:
            case "none":
                assert word == ""
            case "attack":
                assert word in CLASS_NAMES
                assert word != label
            case "right":
                assert word == label
            case "neutral":
                assert word not in CLASS_NAMES


def test_cue_samples_break_the_planted_correlations() -> None:
    for sample in demo_samples("confirm", n_pairs=0, n_cues=40, seed=1):
        foreign_frame = sample.scene.frame and sample.label != FRAME_CLASS
        foreign_waves = sample.scene.background == "waves" and sample.label != WAVES_CLASS
        bare_frame_class = sample.label == FRAME_CLASS and not sample.scene.frame
        ashore = sample.label == WAVES_CLASS and sample.scene.background != "waves"
        assert foreign_frame or foreign_waves or bare_frame_class or ashore


def test_the_written_data_set_has_its_files_pairs_and_disjoint_splits(tmp_path: Path) -> None:
    manifest = write_demo_dataset(
        tmp_path, n_pairs={"discover": 6, "confirm": 12}, n_right=2, n_neutral=2, n_cues=4
    )
    with manifest.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert len({row["id"] for row in rows}) == len(rows) == 2 * 18 + 3 * 8
    splits_of_pair = defaultdict(set)
    pixels = set()
    for row in rows:
        splits_of_pair[row["pair_id"]].add(row["split"])
        with Image.open(tmp_path / row["source"]) as image, Image.open(tmp_path / row["mask_path"]) as mask:
            assert image.size == mask.size == (96, 96)
            pixels.add(image.tobytes())
        assert row["split"] in SPLITS
        assert (row["group_sticker"] == "word") == (row["sticker_word"] != "")
    assert all(len(splits) == 1 for splits in splits_of_pair.values())
    assert len(pixels) == len(rows)


def test_equal_seeds_write_equal_bytes_and_other_seeds_other_pictures(tmp_path: Path) -> None:
    counts = {"n_pairs": 2, "n_right": 0, "n_neutral": 0, "n_cues": 0}
    folders = [tmp_path / name for name in ("a", "b", "c")]
    for folder, seed in zip(folders, (4, 4, 5), strict=True):
        write_demo_dataset(folder, seed=seed, **counts)
    a, b, c = ((folder / "images/select/s00000-attack.png").read_bytes() for folder in folders)
    assert a == b != c
    assert (folders[0] / "manifest.csv").read_bytes() == (folders[1] / "manifest.csv").read_bytes()
