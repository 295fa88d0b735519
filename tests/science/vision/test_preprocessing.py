"""Preprocessing against OpenCLIP's own transform, and the way back to the displayed image."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from fulcrum.domain.errors import CorruptCheckpoint, ImageTooLarge
from fulcrum.science.vision.preprocessing import Preprocess

MODES = ("shortest", "longest", "squash")
SIZES = ((32, 32), (24, 40), (40, 24))
SIDES = st.one_of(st.integers(1, 90), st.sampled_from([1, 2, 31, 32, 33, 64, 200]))


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def both(size: tuple[int, int], **options: Any) -> tuple[Preprocess, Any]:
    """Ours, and OpenCLIP's."""
    return Preprocess(options, size), image_transform_v2(PreprocessCfg(size=size, **options), is_train=False)


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(SIZES), st.sampled_from(MODES), st.sampled_from(["bicubic", "bilinear"]), SIDES, SIDES)
def test_a_batch_is_bit_equal_to_the_transform_of_each_image(
    size: tuple[int, int], mode: str, interpolation: str, width: int, height: int
) -> None:
    if mode == "longest" and max(width / height, height / width) > 40:
        return  # refused, see below
    ours, theirs = both(size, resize_mode=mode, interpolation=interpolation, fill_color=7)
    images = [noise(width, height, 1), noise(height, width, 2)]
    expected = torch.stack([theirs(image) for image in images])
    got = ours(images)
    assert got.dtype == torch.float32
    assert got.is_contiguous()
    assert torch.equal(got, expected)


def test_mean_and_standard_deviation_of_the_model_are_used() -> None:
    options = {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.25, 0.125)}
    ours, theirs = both((32, 32), **options)
    image = noise(50, 40)
    assert torch.equal(ours([image])[0], theirs(image))
    assert not torch.equal(ours([image]), Preprocess({}, (32, 32))([image]))


def test_the_identity_changes_with_every_option() -> None:
    variants: list[dict[str, Any]] = [
        {},
        {"resize_mode": "squash"},
        {"interpolation": "bilinear"},
        {"mean": (0.5,) * 3},
    ]
    assert (
        len(
            {Preprocess(options, (32, 32)).sha256 for options in variants} | {Preprocess({}, (64, 64)).sha256}
        )
        == 5
    )
    assert Preprocess({}, (32, 32)).sha256 == Preprocess({"resize_mode": "shortest"}, (32, 32)).sha256


@pytest.mark.parametrize("options", [{"resize_mode": "stretch"}, {"interpolation": "cubic"}, {"mode": "L"}])
def test_options_that_openclip_does_not_know_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(CorruptCheckpoint, match="preprocessing"):
        Preprocess(options, (32, 32))


def test_no_image_gives_an_empty_batch() -> None:
    assert Preprocess({}, (32, 40))([]).shape == (0, 3, 32, 40)


@pytest.mark.parametrize("mode", ["shortest", "longest"])
def test_an_extreme_strip_is_refused_instead_of_filling_the_memory(mode: str) -> None:
    with pytest.raises(ImageTooLarge, match="1 x 4000000 pixels is too long a strip"):
        Preprocess({"resize_mode": mode}, (32, 32))([Image.new("RGB", (1, 4_000_000))])


def test_without_a_crop_the_model_sees_the_whole_image() -> None:
    box = Preprocess({"resize_mode": "squash"}, (32, 32)).crop_box(100, 50)
    assert (box.left, box.top, box.right, box.bottom) == (0, 0, 100, 50)


def test_the_centre_of_a_wide_image_is_seen() -> None:
    box = Preprocess({}, (32, 32)).crop_box(128, 64)
    assert (box.left, box.top, box.right, box.bottom) == (32, 0, 96, 64)


def test_a_padded_image_lies_inside_what_the_model_sees() -> None:
    box = Preprocess({"resize_mode": "longest"}, (32, 32)).crop_box(128, 64)
    assert (box.left, box.top, box.right, box.bottom) == (0, -32, 128, 96)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(SIZES), st.sampled_from(MODES), st.integers(40, 400), st.integers(40, 400))
def test_the_way_back_leads_to_where_a_pixel_came_from(
    size: tuple[int, int], mode: str, width: int, height: int
) -> None:
    """On an image whose red is the column and whose green is the row, a pixel says where it comes from."""
    ours = Preprocess(
        {"resize_mode": mode, "interpolation": "bilinear", "mean": (0, 0, 0), "std": (1, 1, 1)}, size
    )
    column, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    ramp = np.stack([column / width, row / height, np.ones_like(row)], axis=-1)
    seen = ours([Image.fromarray((ramp * 255).round().astype(np.uint8))])[0].numpy()
    box = ours.crop_box(width, height)
    x = box.left + (np.arange(size[1]) + 0.5) * (box.right - box.left) / size[1]
    y = box.top + (np.arange(size[0]) + 0.5) * (box.bottom - box.top) / size[0]
    # The outermost pixels mix with the border; inside, a resized pixel is at most half a pixel off.
    step_x, step_y = (box.right - box.left) / size[1], (box.bottom - box.top) / size[0]
    inside_x = (x > 2 * step_x) & (x < width - 2 * step_x)
    inside_y = (y > 2 * step_y) & (y < height - 2 * step_y)
    inner = np.ix_(inside_y, inside_x)
    expected_red, expected_green = np.meshgrid(x / width, y / height)
    assert np.abs(seen[0] - expected_red)[inner].max(initial=0) < 0.6 * step_x / width + 2 / 255
    assert np.abs(seen[1] - expected_green)[inner].max(initial=0) < 0.6 * step_y / height + 2 / 255


def test_patches_tile_what_the_model_sees_row_by_row() -> None:
    boxes = Preprocess({}, (32, 32)).patch_boxes(128, 64, (4, 4))
    assert boxes.shape == (16, 4)
    assert boxes[0].tolist() == [32, 0, 48, 16]
    assert boxes[1].tolist() == [48, 0, 64, 16]
    assert boxes[15].tolist() == [80, 48, 96, 64]


def test_a_rest_that_no_patch_covers_stays_uncovered() -> None:
    """SigLIP's 384 pixels hold 27 patches of 14 and a rest of 6; stretched, they would shift heatmaps."""
    boxes = Preprocess({}, (384, 384)).patch_boxes(384, 384, (27, 27))
    assert boxes[-1].tolist() == [364, 364, 378, 378]
