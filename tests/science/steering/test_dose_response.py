import numpy as np
import pytest
import torch
from tests.science.tiny import TinyTower, tiny_head, tiny_images, tiny_sae

from fulcrum.domain.edits import Scale, Scope
from fulcrum.domain.errors import InvalidEdit, InvalidSettings, LatentOutOfRange
from fulcrum.domain.tasks import MarginTarget
from fulcrum.science.attribution.targets import target_function
from fulcrum.science.steering.dose_response import dose_response
from fulcrum.science.steering.edits import EditPlan, apply_edits
from fulcrum.science.vision.split import HookState

TOWER = TinyTower(block=1)
SAE = tiny_sae()
HEAD = tiny_head()
TARGET = MarginTarget("a", "b")
Y = target_function(HEAD, TARGET)


def image(number: int) -> HookState:
    return TOWER.prefix(tiny_images(4, TOWER)).rows(slice(number, number + 1))


def logits_at(state: HookState, latents: list[int], gain: float) -> np.ndarray:
    plan = EditPlan(tuple(Scale(j, gain) for j in latents))
    x = apply_edits(TOWER, SAE, state.x, [plan]).x
    return HEAD.logits(TOWER.suffix(state.with_x(x))).detach().numpy()[0]


def test_every_gain_gives_what_a_forward_pass_of_its_own_gives_in_one_suffix_call() -> None:
    state = image(1)
    TOWER.n_suffix_calls = 0
    gains = [3.0, 0.0, 1.0, 0.5, 3.0, -1.0]
    curve = dose_response(TOWER, state, SAE, [3, 4], gains, HEAD, TARGET, Y, tolerance=None)
    assert TOWER.n_suffix_calls == 1
    assert curve.gains.tolist() == [-1.0, 0.0, 0.5, 1.0, 3.0]
    for gain, logits, value in zip(curve.gains, curve.logits, curve.target_values, strict=True):
        expected = logits_at(state, [3, 4], float(gain))
        np.testing.assert_allclose(logits, expected, rtol=1e-9)
        assert value == pytest.approx(expected[0] - expected[1])
    assert curve.class_names == HEAD.class_names
    assert curve.target == TARGET


@pytest.mark.parametrize("number", range(4))
def test_the_prediction_changes_across_the_flip_interval_and_not_between_it_and_gain_1(number: int) -> None:
    state = image(number)
    latents = [1, 3, 4, 8]
    curve = dose_response(
        TOWER, state, SAE, latents, np.linspace(0, 4, 17).tolist(), HEAD, TARGET, Y, tolerance=1e-3
    )
    unedited = int(np.argmax(logits_at(state, latents, 1.0)))
    changed = np.argmax(curve.logits, axis=1) != unedited
    if curve.flip_interval is None:
        assert not changed.any()
        return
    low, high = curve.flip_interval
    assert 0 < high - low <= 1e-3
    near, far = (low, high) if low >= 1 else (high, low)
    assert int(np.argmax(logits_at(state, latents, near))) == unedited
    assert int(np.argmax(logits_at(state, latents, far))) != unedited
    between = (np.abs(curve.gains - 1) < abs(near - 1)) & (np.sign(curve.gains - 1) == np.sign(near - 1))
    assert not changed[between].any()


def test_the_images_above_do_flip_somewhere() -> None:
    """Or the test above would pass with nothing to say."""
    flips = [
        dose_response(TOWER, image(n), SAE, [1, 3, 4, 8], [0.0, 0.5, 2.0, 4.0], HEAD, TARGET, Y).flip_interval
        for n in range(4)
    ]
    assert sum(f is not None for f in flips) >= 2


def test_a_turning_curve_is_not_called_monotone() -> None:
    seen = set()
    for latent in range(12):
        gains = [0.0, 0.5, 1.0, 2.0, 4.0, 8.0]
        curve = dose_response(TOWER, image(0), SAE, [latent], gains, HEAD, TARGET, Y, tolerance=None)
        steps = np.diff(curve.target_values)
        turns = bool((steps > 1e-3).any() and (steps < -1e-3).any())
        one_way = bool((steps >= 0).all() or (steps <= 0).all())
        if turns:
            assert not curve.monotone
        if one_way:
            assert curve.monotone
        seen.add(turns)
    assert seen == {True, False}


def test_a_sweep_respects_its_scope() -> None:
    state = image(0)
    curve = dose_response(TOWER, state, SAE, [3], [0.0], HEAD, TARGET, Y, scope=Scope("cls"))
    x = apply_edits(TOWER, SAE, state.x, [EditPlan((Scale(3, 0.0),), Scope("cls"))]).x
    expected = HEAD.logits(TOWER.suffix(state.with_x(x))).detach()
    torch.testing.assert_close(torch.from_numpy(curve.logits), expected)


def test_bad_input_is_refused() -> None:
    for latents, gains, tolerance in [
        ([1], [], 0.1),
        ([], [0.0], 0.1),
        ([1], [0.0], 0.0),
        ([1], [0.0], -1.0),
    ]:
        with pytest.raises(InvalidSettings):
            dose_response(TOWER, image(0), SAE, latents, gains, HEAD, TARGET, Y, tolerance=tolerance)
    with pytest.raises(InvalidEdit, match="must be finite"):
        dose_response(TOWER, image(0), SAE, [1], [float("nan")], HEAD, TARGET, Y)
    with pytest.raises(LatentOutOfRange):
        dose_response(TOWER, image(0), SAE, [20], [0.0], HEAD, TARGET, Y)
    with pytest.raises(InvalidEdit, match="one image"):
        dose_response(TOWER, TOWER.prefix(tiny_images(2, TOWER)), SAE, [1], [0.0], HEAD, TARGET, Y)
