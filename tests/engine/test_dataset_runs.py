import numpy as np
import pytest

from fulcrum.datasets.formats import load_dataset
from fulcrum.datasets.index import LatentIndex
from fulcrum.demo.shipped import demo_model, demo_sae, demo_task
from fulcrum.domain.edits import (
    Add,
    Cap,
    Floor,
    LatentCondition,
    MarginCondition,
    MeanAblate,
    PredictedClassCondition,
    ProjectOut,
    Scale,
    Scope,
    SetTo,
)
from fulcrum.domain.errors import CorruptIndex, InvalidDataset, UnreadableImage
from fulcrum.domain.tasks import ClassSet
from fulcrum.engine.dataset_runs import DatasetRun
from fulcrum.engine.indexing import index_key, open_or_build_index
from fulcrum.science.steering.edits import EditPlan

TASK = demo_task()


@pytest.fixture(scope="session")
def busy(index):
    """Latents by firing rate, the busiest first."""
    return np.argsort(-np.asarray(index.statistics.image_rate), kind="stable")


def plans(busy, index):
    a, b, rare = (int(busy[i]) for i in (2, 8, 60))
    top = float(index.statistics.max[a])
    return {
        "scale": EditPlan((Scale(a, 0.0),)),
        "amplify": EditPlan((Scale(b, 2.5),)),
        "rare": EditPlan((Scale(rare, 0.0),)),
        "several": EditPlan((Scale(a, 0.0), Cap(b, 0.1), Scale(rare, 3.0))),
        "cap": EditPlan((Cap(a, top / 2),)),
        "floor": EditPlan((Floor(rare, 0.5),)),
        "set": EditPlan((SetTo(rare, 1.0),)),
        "add": EditPlan((Add(rare, 0.5),)),
        "mean_ablate": EditPlan((MeanAblate(a, float(index.statistics.mean[a])),)),
        "project_out": EditPlan((ProjectOut(a),)),
        "cls": EditPlan((Scale(a, 0.0), Scale(b, 0.0)), Scope("cls")),
        "patches": EditPlan((Scale(a, 0.0),), Scope("patches")),
        "patch_list": EditPlan((Scale(a, 0.0),), Scope("patch_list", (0, 1, 7))),
        "latent condition": EditPlan((Scale(a, 0.0),), conditions=(LatentCondition(a, ">=", top / 2),)),
        "class condition": EditPlan((Scale(a, 0.0),), conditions=(PredictedClassCondition(TASK.names[:3]),)),
        "margin condition": EditPlan((Scale(a, 0.0),), conditions=(MarginCondition(3.0),)),
        "drop_error": EditPlan((Scale(a, 0.0),), drop_error=True),
    }


KINDS = (
    "scale", "amplify", "rare", "several", "cap", "floor", "set", "add", "mean_ablate", "project_out", "cls", "patches",
    "patch_list", "latent condition", "class condition", "margin condition", "drop_error",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_affected_only_equals_the_naive_run(run, busy, index, kind):
    plan = plans(busy, index)[kind]
    numbers = np.flatnonzero(run.dataset.splits == "confirm")
    fast = run.corrected_logits(plan, numbers)
    base, slow = run.naive_logits(plan, numbers)
    np.testing.assert_allclose(fast, slow, atol=1e-4)
    np.testing.assert_allclose(run.base_logits[numbers], base, atol=1e-4)
    assert (fast.argmax(axis=1) == slow.argmax(axis=1)).all()
    # Images outside of `affected` are bit-equal to the base: nothing was run for them.
    untouched = ~np.isin(numbers, run.affected(plan, numbers))
    assert (fast[untouched] == run.base_logits[numbers][untouched]).all()
    assert run.counts.prefix_images == (~untouched).sum()


def test_only_images_that_can_change_go_through_the_model(run, busy):
    rare = next(int(n) for n in busy[::-1] if 0 < run.index.statistics.image_rate[n] < 0.05)
    numbers = np.arange(len(run.dataset))
    run.corrected_logits(EditPlan((Scale(rare, 0.0),)), numbers)
    assert run.counts.prefix_images == run.index.statistics.n_images_active[rare]
    again = run.counts.prefix_images
    run.corrected_logits(EditPlan((Scale(rare, 3.0),)), numbers)
    assert run.counts.prefix_images == again  # activations were kept


def test_many_plans_at_once_equal_each_by_itself(run, busy, index):
    chosen = [plans(busy, index)[k] for k in ("scale", "rare", "set", "class condition", "patch_list")]
    numbers = np.flatnonzero(run.dataset.splits == "select")
    together = run.corrected_logits_of_many(chosen, numbers)
    for plan, logits in zip(chosen, together, strict=True):
        np.testing.assert_allclose(run.corrected_logits(plan, numbers), logits, atol=1e-4)


def test_numbers_may_come_in_any_order_and_more_than_once(run, busy):
    plan = EditPlan((Scale(int(busy[2]), 0.0),))
    numbers = np.array([9, 3, 3, 40, 9])
    straight = run.corrected_logits(plan, np.arange(len(run.dataset)))
    np.testing.assert_allclose(run.corrected_logits(plan, numbers), straight[numbers], atol=1e-4)


def test_the_identity_plan_affects_no_image(run, busy):
    plan = EditPlan((Scale(int(busy[0]), 1.0),))
    assert len(run.affected(plan, np.arange(len(run.dataset)))) == 0


def test_an_interrupted_index_is_continued_to_the_same_index(steerable, small_world, index, tmp_path):
    class Killed(Exception):
        pass

    def kill(done, total):
        if done > 70:
            raise Killed

    with pytest.raises(Killed):
        open_or_build_index(steerable, small_world, tmp_path, kill, images_per_shard=32)
    resumed_at = []
    resumed = open_or_build_index(
        steerable, small_world, tmp_path, lambda done, total: resumed_at.append(done), images_per_shard=32
    )
    assert resumed_at[0] > 32
    for number in (0, 31, 32, 69, 70, len(small_world) - 1):
        mine, other = resumed.image(number), index.image(number)
        assert (mine.latents == other.latents).all()
        assert (mine.values == other.values).all()
    assert (resumed.embeddings() == index.embeddings()).all()


def test_an_index_of_another_data_set_is_refused(steerable, small_world, index):
    other = index_key(steerable, small_world.subset(range(20)))
    with pytest.raises(CorruptIndex, match="dataset_digest"):
        LatentIndex.open(index.folder, other)


def test_labels_outside_of_the_class_set_are_named(engine, steerable, small_world, index):
    task = ClassSet(TASK.names[:5], TASK.templates)
    head = engine.residency.head(demo_model(), task)
    with pytest.raises(InvalidDataset, match="class set"):
        DatasetRun(steerable, head, task, small_world, index)


def test_a_damaged_image_is_named(engine, tmp_path, small_world):
    for i in range(3):
        (tmp_path / f"{i}.png").write_bytes(small_world.read_bytes(small_world.samples[i]))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    dataset = load_dataset(tmp_path)
    with pytest.raises(UnreadableImage, match="broken"):
        open_or_build_index(engine.residency.steerable(demo_model(), demo_sae()), dataset, tmp_path / "index")
