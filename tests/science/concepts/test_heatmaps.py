import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fulcrum.domain.errors import ComputationFailed, InvalidInput, LatentOutOfRange
from fulcrum.science.concepts.heatmaps import (
    crop_box,
    gradient_x_input,
    normalised,
    occlusion,
    stored_map,
    upsampled,
)

from .fake_tower import FakeTower


def activation(tower, sae, image, latent, reduce):
    z = sae.encode(tower.prefix(image[None]).x)[0, :, latent].detach()
    return float(z.max() if reduce == "max" else z.sum())


def strongest(tower, sae, image) -> int:
    return int(sae.encode(tower.prefix(image[None]).x)[0].amax(dim=0).argmax())


def test_the_stored_map_lays_patches_out_in_rows_and_leaves_cls_out(tower, sae, images):
    z = sae.encode(tower.prefix(images).x)[..., 5].detach()
    stored = stored_map(z, (3, 3), has_cls=True)
    for b in range(3):
        for row in range(3):
            for column in range(3):
                assert stored[b, row, column] == z[b, 1 + 3 * row + column]
    assert stored_map(z[:, 1:], (3, 3), has_cls=False).equal(stored)
    assert stored_map(torch.arange(6.0)[None], (2, 3), has_cls=False).tolist() == [[[0, 1, 2], [3, 4, 5]]]


@pytest.mark.parametrize("shape", [(2, 9), (2, 11), (10,), (2, 10, 1)])
@pytest.mark.usefixtures("shape_checks_off")
def test_tokens_that_are_not_the_grid_are_refused(shape):
    with pytest.raises(InvalidInput, match="grid"):
        stored_map(torch.zeros(shape), (3, 3), has_cls=True)


@pytest.mark.parametrize("reduce", ["max", "sum"])
@pytest.mark.parametrize("baseline", [None, torch.tensor([0.5, -1.0, 0.2], dtype=torch.float64)])
def test_gradient_x_input_equals_central_differences(tower, sae, images, reduce, baseline):
    with torch.no_grad():
        latents = [strongest(tower, sae, image) for image in images]
        for image, latent in zip(images, latents, strict=True):
            (pixel_map,) = gradient_x_input(tower, sae, image[None], latent, reduce, baseline)
            slow = torch.zeros(12, 12, dtype=torch.float64)
            for c in range(3):
                for h in range(12):
                    for w in range(12):
                        nudge = torch.zeros_like(image)
                        nudge[c, h, w] = 1e-5
                        up = activation(tower, sae, image + nudge, latent, reduce)
                        down = activation(tower, sae, image - nudge, latent, reduce)
                        base = 0.0 if baseline is None else float(baseline[c])
                        slow[h, w] += (image[c, h, w] - base) * (up - down) / 2e-5
            assert pixel_map.abs().max() > 0
            torch.testing.assert_close(pixel_map, slow, atol=1e-7, rtol=1e-6)


def test_pixel_maps_sum_to_the_change_from_the_baseline_where_everything_is_linear(sae, images):
    tower = FakeTower(mixing=0.0)
    with torch.no_grad():
        sae.b_enc.fill_(100.0)  # every relu open
    maps = gradient_x_input(tower, sae, images, 3, "sum")
    for image, pixel_map in zip(images, maps, strict=True):
        change = activation(tower, sae, image, 3, "sum") - activation(tower, sae, image * 0, 3, "sum")
        assert float(pixel_map.sum()) == pytest.approx(change, rel=1e-9)
    occluded = occlusion(tower, sae, images, 3, reduce="sum")
    torch.testing.assert_close(occluded, maps.reshape(3, 3, 4, 3, 4).sum(dim=(2, 4)))


def test_maps_of_a_batch_are_those_of_its_images(tower, sae, images):
    latent = strongest(tower, sae, images[0])
    for function in (gradient_x_input, occlusion):
        together = function(tower, sae, images, latent)
        alone = torch.cat([function(tower, sae, image[None], latent) for image in images])
        torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("reduce", ["max", "sum"])
@pytest.mark.parametrize("window", [1, 2, 3])
def test_occlusion_equals_painting_one_window_after_the_other(tower, sae, images, window, reduce):
    latent = strongest(tower, sae, images[1])
    fill = torch.tensor([0.3, 0.0, -0.7], dtype=torch.float64)
    got = occlusion(tower, sae, images[1:2], latent, window, reduce, fill, chunk=2)[0]
    whole = activation(tower, sae, images[1], latent, reduce)
    for row in range(3):
        for column in range(3):
            drops = []
            for top in range(3 - window + 1):
                for left in range(3 - window + 1):
                    if top <= row < top + window and left <= column < left + window:
                        painted = images[1].clone()
                        for c in range(3):
                            painted[c, top * 4 : (top + window) * 4, left * 4 : (left + window) * 4] = fill[c]
                        drops.append(whole - activation(tower, sae, painted, latent, reduce))
            assert float(got[row, column]) == pytest.approx(np.mean(drops), abs=1e-12)


def test_occlusion_never_runs_more_images_at_once_than_asked(tower, sae, images):
    a = occlusion(tower, sae, images, 0, chunk=4)
    assert tower.largest_batch == 4
    torch.testing.assert_close(a, occlusion(tower, sae, images, 0, chunk=100))


def test_occlusion_keeps_the_sign_of_a_patch_that_suppresses_the_latent(sae, images):
    tower = FakeTower(mixing=0.0)
    with torch.no_grad():
        sae.W_enc[:, 2] = -sae.W_enc[:, 2]
        sae.b_enc.fill_(100.0)
        flipped = occlusion(tower, sae, images, 2, reduce="sum")
        sae.W_enc[:, 2] = -sae.W_enc[:, 2]
    straight = occlusion(tower, sae, images, 2, reduce="sum")
    torch.testing.assert_close(flipped, -straight)
    assert (flipped < 0).any()
    assert (flipped > 0).any()


def test_maps_of_a_silent_latent_are_zero(tower, sae, images):
    with torch.no_grad():
        sae.b_enc[7] = -1000.0
    assert not gradient_x_input(tower, sae, images, 7).any()
    assert not occlusion(tower, sae, images, 7).any()


def test_gradients_are_taken_even_inside_no_grad_and_leave_the_inputs_and_weights_alone(tower, sae, images):
    before = images.clone()
    outside = gradient_x_input(tower, sae, images, 3, "sum")
    with torch.no_grad():
        inside = gradient_x_input(tower, sae, images, 3, "sum")
    assert inside.equal(outside)
    assert inside.any()
    assert not inside.requires_grad
    assert images.equal(before)
    assert not images.requires_grad
    assert all(p.grad is None for p in sae.parameters())


@pytest.mark.parametrize("trainable_sae", [True, False])
def test_a_prefix_without_gradients_is_an_error_not_a_black_map(tower, sae, images, trainable_sae):
    sae.requires_grad_(trainable_sae)

    class Closed(FakeTower):
        @torch.no_grad()
        def prefix(self, images):
            return super().prefix(images)

    with pytest.raises(ComputationFailed, match="without gradients"):
        gradient_x_input(Closed(), sae, images, 3)
    torch.testing.assert_close(occlusion(Closed(), sae, images, 3), occlusion(tower, sae, images, 3))


@pytest.mark.usefixtures("shape_checks_off")
def test_senseless_requests_are_refused(tower, sae, images):
    for function in (gradient_x_input, occlusion):
        with pytest.raises(LatentOutOfRange):
            function(tower, sae, images, 16)
        with pytest.raises(InvalidInput, match="batch"):
            function(tower, sae, images[0], 3)
        with pytest.raises(InvalidInput, match="reduce"):
            function(tower, sae, images, 3, reduce="mean")
    with pytest.raises(InvalidInput, match="colour"):
        gradient_x_input(tower, sae, images, 3, baseline=torch.zeros(2))
    with pytest.raises(InvalidInput, match="colour"):
        occlusion(tower, sae, images, 3, fill=torch.zeros(()))
    with pytest.raises(InvalidInput, match="window"):
        occlusion(tower, sae, images, 3, window=4)
    with pytest.raises(InvalidInput, match="chunk"):
        occlusion(tower, sae, images, 3, chunk=0)


finite_maps = arrays(np.float64, st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4)),
                     elements=st.floats(-1e6, 1e6))  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(finite_maps, st.sampled_from(["bilinear", "nearest"]))
def test_normalising_and_enlarging_keep_signs_and_range(values, mode):
    maps = torch.from_numpy(values)
    shown = normalised(maps)
    for one, original in zip(shown, maps, strict=True):
        assert float(one.abs().max()) == pytest.approx(1.0 if original.any() else 0.0)
        assert (one * original >= 0).all()
    large = upsampled(maps, (9, 7), mode)
    assert large.shape == (len(maps), 9, 7)
    for one, original in zip(large, maps, strict=True):
        slack = 1e-9 * float(original.abs().max())
        assert float(original.min()) - slack <= float(one.min())
        assert float(one.max()) <= float(original.max()) + slack


def test_nearest_enlarging_repeats_every_cell():
    maps = torch.arange(6.0).reshape(1, 2, 3)
    expected = maps.repeat_interleave(4, dim=1).repeat_interleave(4, dim=2)
    assert upsampled(maps, (8, 12), "nearest").equal(expected)


@settings(max_examples=60, deadline=None)
@given(finite_maps, st.integers(1, 50), st.integers(1, 50), st.floats(0.05, 1.0), st.floats(0.05, 1.0))
def test_a_crop_box_is_a_square_inside_the_image_that_meets_the_peak(values, height, width, level, share_min):
    heatmap = torch.from_numpy(values[0])
    left, top, right, bottom = crop_box(heatmap, (height, width), level, share_min)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height
    if not heatmap.max() > 0:
        assert (left, top, right, bottom) == (0, 0, width, height)
        return
    assert right - left == bottom - top >= max(1, round(share_min * min(height, width)))
    row, column = divmod(int(heatmap.argmax()), heatmap.shape[1])
    if max(height / width, width / height) * max(heatmap.shape) < 2 * min(height, width) and level == 1.0:
        assert left < (column + 1) * width / heatmap.shape[1]
        assert right > column * width / heatmap.shape[1]
        assert top < (row + 1) * height / heatmap.shape[0]
        assert bottom > row * height / heatmap.shape[0]


def test_a_crop_box_holds_the_connected_region_of_the_peak_and_not_a_second_one():
    heatmap = torch.zeros(8, 8)
    heatmap[1, 1], heatmap[1, 2], heatmap[2, 1] = 1.0, 0.8, 0.6
    heatmap[6, 6] = 0.9
    assert crop_box(heatmap, (80, 80), share_min=0.1) == (10, 10, 30, 30)
    assert crop_box(heatmap, (80, 80), share_min=0.5) == (0, 0, 40, 40)
    assert crop_box(heatmap, (80, 80), level=0.95, share_min=0.1) == (10, 10, 20, 20)
    assert crop_box(torch.zeros(8, 8), (80, 60)) == (0, 0, 60, 80)
    negative = torch.zeros(8, 8)
    negative[7, 7], negative[0, 0] = 1.0, -5.0
    assert crop_box(negative, (80, 80), share_min=0.1) == (70, 70, 80, 80)


@pytest.mark.usefixtures("shape_checks_off")
def test_crop_boxes_without_sense_are_refused():
    with pytest.raises(InvalidInput):
        crop_box(torch.zeros(2, 2, 2), (8, 8))
    with pytest.raises(InvalidInput):
        crop_box(torch.zeros(2, 2), (8, 8), level=0.0)
    with pytest.raises(InvalidInput):
        crop_box(torch.zeros(2, 2), (0, 8))
    with pytest.raises(InvalidInput):
        upsampled(torch.zeros(2, 2), (4, 4))
