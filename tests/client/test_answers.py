import sys

import numpy as np
import pytest
from tests.client.samples import (
    AFTER,
    ATTRIBUTION,
    BEFORE,
    CURVE,
    EFFECT,
    IMAGE,
    MODEL,
    NAMES,
    PROVENANCE,
    SAE,
    SUGGESTION,
)

from fulcrum.client.answers import DoseCurve, Explanation, Predictions, Steering, Suggestions
from fulcrum.domain.corrections import Correction, Origin
from fulcrum.domain.edits import MarginCondition, Scale, Scope
from fulcrum.domain.errors import InvalidRequest, LatentOutOfRange, MissingDependency
from fulcrum.domain.tasks import ClassSet

TASK = ClassSet(NAMES)
WHY = Explanation("res_1", IMAGE, SAE, TASK, ATTRIBUTION, PROVENANCE)
TRIED = Steering(
    "res_2", IMAGE, SAE, TASK, (Scale(7, 0.0),), EFFECT, PROVENANCE, Scope("patches"), (MarginCondition(2.0),)
)
SWEPT = DoseCurve("res_3", IMAGE, SAE, (7,), CURVE, PROVENANCE)
MANY = Predictions(("res_4",), (IMAGE, IMAGE), MODEL, TASK, (BEFORE, BEFORE), (AFTER, BEFORE), PROVENANCE)
FOUND = Suggestions("res_5", IMAGE, SAE, "cat", (SUGGESTION,), PROVENANCE)


def test_latents_are_an_array_with_nan_where_nothing_was_measured():
    array = WHY.to_numpy()
    assert array["latent"].tolist() == [7, 3]
    assert array["score"].tolist() == [0.8, -0.4]
    assert array["measured_effect"][0] == 0.6
    assert np.isnan(array["measured_effect"][1])


def test_latents_are_a_frame_with_their_labels():
    frame = WHY.with_labels({7: "sticker"}).to_pandas()
    assert frame.index.name == "latent"
    assert frame.loc[7, "score"] == 0.8
    assert frame["label"].tolist() == ["sticker", ""]
    assert "label" not in WHY.to_pandas()


def test_a_heatmap_leaves_cls_out_and_follows_the_grid():
    np.testing.assert_array_equal(WHY.heatmap(7), [[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(InvalidRequest, match="per_token=True"):
        WHY.heatmap(3)
    with pytest.raises(LatentOutOfRange):
        WHY.heatmap(5)


def test_a_steering_is_the_correction_that_was_tried():
    assert TRIED.correction == Correction(
        model_sha256=PROVENANCE.model_sha256,
        sae_sha256=PROVENANCE.sae_sha256,
        hook_point=PROVENANCE.hook_point,
        edits=(Scale(7, 0.0),),
        scope=Scope("patches"),
        conditions=(MarginCondition(2.0),),
        task=TASK,
        origin=Origin("manual", (IMAGE.sha256,)),
    )
    assert TRIED.flipped
    assert (TRIED.before.top, TRIED.after.top) == ("dog", "cat")


def test_a_steering_shows_each_class_before_and_after():
    array = TRIED.to_numpy()
    assert array["class_name"].tolist() == list(NAMES)
    np.testing.assert_array_equal(array["prob_before"], BEFORE.probs)
    np.testing.assert_array_equal(array["logit_after"], AFTER.logits)
    assert TRIED.to_pandas().loc["cat", "prob_after"] == 0.65


def test_a_curve_has_a_row_for_each_gain():
    np.testing.assert_array_equal(SWEPT.to_numpy(), [[0, -1, 0.5, 1.5, -1], [1, 1, 2, 1, -1]])
    frame = SWEPT.to_pandas()
    assert frame.index.tolist() == [0.0, 1.0]
    assert frame.loc[1.0, "dog"] == 2.0


def test_predictions_of_many_images_are_paired():
    assert [a.top for _, a in MANY.pairs] == ["cat", "dog"]
    assert MANY.to_pandas()["flipped"].tolist() == [True, False]
    np.testing.assert_array_equal(MANY.to_numpy()[0], AFTER.probs)
    plain = Predictions(("res_4",), (IMAGE,), MODEL, TASK, (BEFORE,), None, PROVENANCE)
    np.testing.assert_array_equal(plain.to_numpy(), [BEFORE.probs])
    assert "flipped" not in plain.to_pandas()
    with pytest.raises(InvalidRequest, match="correction"):
        _ = plain.pairs


def test_answers_stay_short_in_a_terminal():
    shown = [repr(a) for a in (WHY, TRIED, SWEPT, MANY, FOUND)]
    assert all(len(text) < 120 for text in shown)
    assert shown[1] == "Steering('dog <1>.png': 'dog' -> 'cat', 1 edits, res_2)"


def test_suggestions_are_a_sequence():
    assert len(FOUND) == 1
    assert FOUND[0] == next(iter(FOUND)) == SUGGESTION


@pytest.mark.parametrize("answer", [WHY, TRIED, SWEPT, MANY])
def test_tables_without_pandas_name_the_package_and_arrays_work(answer, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingDependency, match="pandas"):
        answer.to_pandas()
    assert len(answer.to_numpy()) > 0
