from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Scale
from fulcrum_ui.views.corrections import difference


def correction(*edits):
    return Correction("m", "s", "visual.blocks.1.resid_post", edits)


def test_a_line_for_each_latent_that_is_edited_otherwise():
    old = correction(Scale(1, 0.0), Scale(2, 0.5), Scale(3, 0.0))
    new = correction(Scale(2, 0.25), Scale(3, 0.0), Scale(4, 2.0))
    assert difference(old, new) == [
        {"latent": "1", "before": "suppress latent 1", "after": "untouched"},
        {"latent": "2", "before": "turn latent 2 × 0.5", "after": "turn latent 2 × 0.25"},
        {"latent": "4", "before": "untouched", "after": "amplify latent 4 × 2"},
    ]
    assert difference(old, old) == []
