import numpy as np
import pytest

from fulcrum.domain.errors import InvalidInput
from fulcrum.science.validation.noise_floor import below_floor, identity_gate, noise_floor, noise_gate

BASE = np.array([[1.0, 0.0], [0.500, 0.499], [0.0, 1.0]])


def test_the_floor_is_what_a_second_run_changes() -> None:
    repeat = BASE + np.array([[0, 0], [0, 0.002], [0, 0]])
    floor = noise_floor(BASE, repeat)
    assert (floor.n, floor.n_changed) == (3, 1)
    assert floor.max_logit_change == pytest.approx(0.002)


def test_a_flip_no_larger_than_noise_is_below_the_floor() -> None:
    floor = noise_floor(BASE, BASE + 0.002)
    tiny = BASE + np.array([[0, 0], [0, 0.0015], [0, 0]])
    assert below_floor(BASE, tiny, floor).tolist() == [False, True, False]
    real = BASE + np.array([[0, 3.0], [0, 0.0015], [0, 0]])
    assert below_floor(BASE, real, floor).tolist() == [False, True, False]
    assert not below_floor(BASE, tiny, noise_floor(BASE, BASE)).any()
    assert not below_floor(BASE, tiny, None).any()


def test_as_many_flips_as_noise_makes_are_no_result() -> None:
    floor = noise_floor(BASE, BASE + np.array([[0, 0], [0, 0.002], [0, 0]]))
    assert noise_gate(floor, 1).state == "fail"
    assert noise_gate(floor, 2).state == "pass"
    assert noise_gate(floor, 0).state == "pass"


def test_the_identity_correction_must_flip_nothing() -> None:
    assert identity_gate(BASE, BASE).state == "pass"
    gate = identity_gate(BASE, BASE[:, ::-1].copy())
    assert gate.state == "fail"
    assert "3 answers of 3" in gate.reason


def test_runs_of_different_shapes_are_refused() -> None:
    with pytest.raises(InvalidInput, match="must agree"):
        noise_floor(BASE, BASE[:2])
    with pytest.raises(InvalidInput, match="must agree"):
        identity_gate(BASE, BASE[:2])
