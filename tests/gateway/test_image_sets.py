"""Image sets over HTTP and through the SDK: chosen from a data set or a flip board, judged as they were when asked."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from tests.datasets.images import encoded, picture
from tests.gateway.test_browsing import imported, samples_of

from fulcrum.client import Client, FlipFilter
from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import (
    AlreadyExists,
    InvalidInput,
    InvalidRequest,
    StaleVersion,
    UnknownDataset,
    UnknownEvaluation,
    UnknownImage,
    UnknownImageSet,
)
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.image_sets import from_bytes
from fulcrum.domain.models import ModelRef
from fulcrum.domain.records import (
    CorrectionRecord,
    CorrectionVersion,
    DatasetRecord,
    EvaluationRecord,
    ModelRecord,
    SaeRecord,
)
from fulcrum.science.validation.image_sets import ImageSet
from fulcrum.science.validation.inputs import ValidationInput
from fulcrum.science.validation.per_image import per_image
from fulcrum.science.validation.report import validate
from fulcrum.science.validation.specification import Specification
from fulcrum.science.validation.stale import Subject
from fulcrum.worker.evaluations import as_columns, as_json

CONTENT = Correction("a" * 64, "b" * 64, "visual.blocks.3.resid_post", (Scale(7, 0.0),))
N = 12


@dataclasses.dataclass(frozen=True)
class Shops:
    """An imported data set with a correction, and an evaluation that judged the set `seen before`."""

    dataset: DatasetRecord
    ids: tuple[str, ...]
    correction: CorrectionRecord
    evaluation: EvaluationRecord
    inside: np.ndarray
    table: dict


@pytest.fixture
def shops(platform):
    dataset, fields = imported(platform, samples_of(N), {str(i): encoded(picture(i)) for i in range(N)})
    p, u = platform.project.id, platform.admin_user.id
    splits = {s: len(dataset.numbers(split=s)) for s in dataset.split_names}
    record = DatasetRecord(new_id("dat"), p, "shops", u, now(), n_by_split=splits, **fields)
    model = ModelRecord(new_id("mdl"), p, "m", ModelRef("folder:demo/clip"), u, now())
    sae = SaeRecord(new_id("sae"), p, "s", model.id, "folder:demo/sae", u, now())
    correction = CorrectionRecord(new_id("cor"), p, "c", u, now(), sae_id=sae.id)
    rng = np.random.default_rng(0)
    base = rng.normal(size=(N, 2))
    inside = np.arange(N) < 3
    given = ValidationInput(
        base_logits=base,
        corrected_logits=np.where(np.arange(N)[:, None] % 2 == 0, base[:, ::-1], base),
        labels=np.arange(N) % 2,
        class_names=("a", "b"),
        split="select",
        image_ids=dataset.ids.tolist(),
        image_sets=(ImageSet("seen before", "invariant", inside),),
        subject=Subject(CONTENT.sha256, dataset.digest, "a" * 64, "b" * 64, "0.1.0"),
        provenance={"class_names": ["a", "b"]},
    )
    spec = Specification(min_controls=0)
    report, table = validate(given, spec), per_image(given, spec)
    evaluation = EvaluationRecord(
        id=new_id("evl"),
        project_id=p,
        kind="validation",
        correction_id=correction.id,
        number=1,
        dataset_id=record.id,
        split="select",
        **vars(report.subject),
        specification_sha256=report.specification_sha256,
        job_id="job_1",
        report_sha256=platform.artifacts.put_bytes(as_json(report.to_dict())),
        created_by=u,
        created_at=now(),
        columns_sha256=platform.artifacts.put_bytes(as_columns(table)),
    )
    with platform.store.write() as tx:
        tx.datasets.add(record)
        tx.models.add(model)
        tx.saes.add(sae)
        tx.corrections.add(correction, CorrectionVersion(correction.id, 1, CONTENT.sha256, CONTENT, u, now()))
        tx.evaluations.add(evaluation)
    return Shops(record, tuple(dataset.ids.tolist()), correction, evaluation, inside, table)


@pytest.fixture
def client(platform):
    with Client(platform.url, platform.token_of(platform.admin_user)) as opened:
        yield opened


def test_a_set_keeps_each_image_once_and_shows_them_wherever_images_are_shown(platform, client, shops):
    some = [shops.ids[5], shops.ids[0], shops.ids[5], shops.ids[3]]
    made = client.image_sets.create(shops.dataset, "night", some, note="dark")
    assert (made.name, made.purpose, made.note, made.n_images, made.version) == (
        "night", "slice", "dark", 3, 1,
    )  # fmt: skip
    split_of = {i.id: i.split for i in client.datasets.images(shops.dataset)}
    assert made.n_by_split == Counter(split_of[i] for i in set(some))
    assert client.image_sets.get(made) == made
    assert list(client.image_sets.images(made)) == sorted(set(some))
    assert list(client.image_sets.list(dataset=shops.dataset)) == [made]
    assert list(client.image_sets.list(purpose="invariant")) == []
    shown = list(client.datasets.images(shops.dataset, image_set=made))
    assert [i.id for i in shown] == [i for i in shops.ids if i in some]
    narrowed = client.datasets.images(shops.dataset, image_set=made, split=split_of[shops.ids[5]])
    assert {i.id for i in narrowed} == {i for i in some if split_of[i] == split_of[shops.ids[5]]}
    assert client.datasets.facets(shops.dataset, image_set=made).n_images == 3
    path, seen, cursor = f"/v1/image-sets/{made.id}/images", [], None
    while True:
        params = {"limit": 2} | ({} if cursor is None else {"cursor": cursor})
        page = platform.admin.get(path, params=params).json()
        seen.append(page["items"])
        if (cursor := page["next_cursor"]) is None:
            break
    assert [len(s) for s in seen] == [2, 1]
    stale = platform.admin.get(path, params={"limit": 2}).json()["next_cursor"]
    client.image_sets.update(made, add=[shops.ids[1]])
    refused = platform.admin.get(path, params={"cursor": stale})
    assert (refused.status_code, refused.json()["reason"]) == (422, "INVALID_REQUEST")


def test_images_that_the_data_set_does_not_have_are_named_and_nothing_is_kept(client, shops):
    with pytest.raises(UnknownImage, match=r"2 of 3 images are not in the data set 'shops'.*'x/1', 'x/2'"):
        client.image_sets.create(shops.dataset, "night", ["x/2", shops.ids[0], "x/1"])
    with pytest.raises(InvalidInput, match="would hold no image"):
        client.image_sets.create(shops.dataset, "night")
    assert list(client.image_sets.list()) == []
    made = client.image_sets.create(shops.dataset, "night", shops.ids[:2])
    with pytest.raises(AlreadyExists, match="night"):
        client.image_sets.create(shops.dataset, "night", shops.ids[:1])
    with pytest.raises(UnknownImage, match="cannot be removed"):
        client.image_sets.update(made, remove=[shops.ids[4]])
    with pytest.raises(InvalidInput, match="would hold no image"):
        client.image_sets.update(made, remove=shops.ids[:2])
    assert client.image_sets.get(made) == made


def test_a_change_is_made_of_what_was_seen_and_of_nothing_else(client, shops):
    made = client.image_sets.create(shops.dataset, "night", shops.ids[:2])
    more = client.image_sets.update(
        made, name="dark", purpose="invariant", add=shops.ids[2:5], remove=shops.ids[:1]
    )
    assert (more.name, more.purpose, more.n_images, more.version) == ("dark", "invariant", 4, 2)
    assert list(client.image_sets.images(more)) == sorted(shops.ids[1:5])
    with pytest.raises(StaleVersion):
        client.image_sets.update(made, note="late")
    assert client.image_sets.update(made.id, add=[shops.ids[9]]).n_images == 5  # by its id: whatever is there
    with pytest.raises(StaleVersion):
        client.image_sets.delete(more)
    with pytest.raises(InvalidRequest, match="nothing to change"):
        client.image_sets.update(made.id)
    client.image_sets.delete(made.id)
    with pytest.raises(UnknownImageSet):
        client.image_sets.get(made)
    client.image_sets.create(shops.dataset, "dark", shops.ids[:1])  # its name is free


def test_a_deleted_set_comes_back_with_its_images_unless_its_name_was_taken(platform, client, shops):
    made = client.image_sets.create(shops.dataset, "night", shops.ids[:3], purpose="invariant", note="dark")
    client.image_sets.delete(made)
    back = client.image_sets.restore(made)
    assert back == dataclasses.replace(made, version=3)
    assert set(client.image_sets.images(back)) == set(shops.ids[:3])
    assert client.image_sets.restore(made) == back  # pressed twice
    client.image_sets.delete(back)
    other = client.image_sets.create(shops.dataset, "night", shops.ids[5:6])
    with pytest.raises(AlreadyExists, match="'night' now: rename that one"):
        client.image_sets.restore(made)
    assert list(client.image_sets.list(dataset=shops.dataset)) == [other]
    client.image_sets.update(other, name="dusk")
    assert client.image_sets.restore(made).name == "night"
    with platform.store.read() as tx:
        done = [e.action for e in tx.audit.list().items if e.subject == made.id]
    assert done.count("image_set.restore") == 2


def test_a_set_of_a_data_set_that_is_gone_is_not_restored(client, shops):
    made = client.image_sets.create(shops.dataset, "night", shops.ids[:3])
    client.image_sets.delete(made)
    client.datasets.delete(client.datasets.get(shops.dataset))
    with pytest.raises(UnknownDataset):
        client.image_sets.restore(made)


def test_all_images_of_a_flip_board_come_into_a_set_by_its_filter(client, shops):
    for outcome in ("fixed", "broken"):
        expected = {i.id for i in client.evaluations.images(shops.evaluation, outcome=outcome)}
        assert expected
        made = client.image_sets.create(
            shops.dataset, outcome, flips=FlipFilter(shops.evaluation.id, outcome)
        )
        assert set(client.image_sets.images(made)) == expected
    listed = client.evaluations.images(shops.evaluation, where="set=seen before")
    assert {i.id for i in listed} == set(np.array(shops.ids)[shops.inside])
    changed = [i for i in client.evaluations.images(shops.evaluation) if i.base != i.corrected]
    both = FlipFilter(shops.evaluation.id, where=("set=seen before",), changed_only=True)
    made = client.image_sets.create(shops.dataset, "changed", flips=both)
    assert set(client.image_sets.images(made)) == {i.id for i in changed if "seen before" in i.sets}
    made = client.image_sets.create(shops.dataset, "one", shops.ids[8:9])
    more = client.image_sets.update(
        made, add_flips=FlipFilter(shops.evaluation.id, where=("set=seen before",))
    )
    assert set(client.image_sets.images(more)) == {*shops.ids[:3], shops.ids[8]}
    other = client.datasets.create("other")
    with pytest.raises(UnknownEvaluation):
        client.image_sets.create(shops.dataset, "two", flips=FlipFilter("evl_none"))
    with pytest.raises(InvalidInput):
        client.image_sets.create(other, "two", flips=FlipFilter(shops.evaluation.id))


def test_the_flip_board_says_which_judged_sets_an_image_is_in(client, shops):
    for image in client.evaluations.images(shops.evaluation):
        inside = shops.inside[shops.ids.index(image.id)]
        assert image.sets == (("seen before",) if inside else ())
    with pytest.raises(InvalidRequest, match="set=seen before"):
        list(client.evaluations.images(shops.evaluation, where="set=unknown"))


def test_a_validation_freezes_the_sets_that_it_was_asked_with(platform, client, shops):
    night = client.image_sets.create(shops.dataset, "night", shops.ids[:4], purpose="invariant")
    day = client.image_sets.create(shops.dataset, "day", shops.ids[4:])

    def ask(*sets):
        return client.evaluations.validate(shops.correction, shops.dataset, image_sets=sets)

    job = ask(night, day)
    assert [s.name for s in job.spec.image_sets] == ["day", "night"]
    assert job.spec.image_sets[1] == night.frozen()
    assert ask(day, night, day).id == job.id  # the same question in another order
    assert ask(night).id != job.id
    plain = ask()
    assert plain.spec.image_sets == ()
    changed = client.image_sets.update(night, remove=shops.ids[:1])
    assert ask(changed, day).id != job.id
    then = from_bytes(platform.artifacts.read_bytes(job.spec.image_sets[1].sha256))
    assert then == tuple(sorted(shops.ids[:4]))
    foreign = client.datasets.create("other")
    with platform.store.write() as tx:
        tx.image_sets.add(dataclasses.replace(day, id="ims_foreign", dataset_id=foreign.id))
    with pytest.raises(InvalidRequest, match="'day' is of data set"):
        ask("ims_foreign")
    with pytest.raises(UnknownImageSet):
        ask("ims_none")


def test_a_list_that_cannot_be_judged_in_the_split_spends_no_look(client, shops):
    split_of = {i.id: i.split for i in client.datasets.images(shops.dataset)}
    elsewhere = [i for i in shops.ids if split_of[i] != "confirm"]
    kept = client.image_sets.create(shops.dataset, "quiet", elsewhere, purpose="invariant")
    shown = client.image_sets.create(shops.dataset, "shown", elsewhere)
    with pytest.raises(InvalidRequest, match="'quiet' has no image in confirm"):
        client.evaluations.validate(shops.correction, shops.dataset, split="confirm", image_sets=[kept])
    # A slice is no gate, and the list can be judged where its images are.
    client.evaluations.validate(shops.correction, shops.dataset, split="confirm", image_sets=[shown])
    client.evaluations.validate(shops.correction, shops.dataset, split="select", image_sets=[kept])


def test_an_evaluation_says_that_a_set_which_it_judged_is_another_one_now(platform, client, shops):
    night = client.image_sets.create(shops.dataset, "night", shops.ids[:4])
    record = dataclasses.replace(shops.evaluation, id=new_id("evl"), image_sets=(night.frozen(),))
    with platform.store.write() as tx:
        tx.evaluations.add(record)
    assert client.evaluations.get(record).changes == ()
    renamed = client.image_sets.update(night, name="dusk", note="words only")
    assert client.evaluations.get(record).changes == ()
    stricter = client.image_sets.update(renamed, purpose="invariant")
    (change,) = client.evaluations.get(record).changes
    assert (change.part, change.then, change.now) == ("image set night", "slice", "invariant")
    other = client.image_sets.update(stricter, add=[shops.ids[7]])
    (change,) = client.evaluations.get(record).changes
    assert (change.then, change.now) == (night.sha256, other.sha256)
    found = client.evaluations.compare(shops.evaluation, record)
    assert [(c.part, c.then) for c in found.changes] == [("image set night", "not judged")]
    client.image_sets.delete(other)
    (change,) = client.evaluations.get(record).changes
    assert change.now == "deleted"


def test_a_recomputation_judges_the_sets_of_today_and_a_deleted_one_as_it_was(platform, client, shops):
    night = client.image_sets.create(shops.dataset, "night", shops.ids[:4])
    day = client.image_sets.create(shops.dataset, "day", shops.ids[4:])
    job = client.evaluations.validate(shops.correction, shops.dataset, image_sets=[night, day])
    record = dataclasses.replace(
        shops.evaluation, id=new_id("evl"), job_id=job.id, image_sets=job.spec.image_sets
    )
    with platform.store.write() as tx:
        tx.evaluations.add(record)
    larger = client.image_sets.update(day, add=[shops.ids[0]])
    client.image_sets.delete(night)
    again = client.evaluations.recompute(record)
    assert again.spec.image_sets == (larger.frozen(), night.frozen())


def test_strangers_know_of_no_set_and_viewers_change_none(platform, client, shops):
    made = client.image_sets.create(shops.dataset, "night", shops.ids[:2])
    stranger, viewer = platform.as_user("Eve"), platform.as_user("Vera", "viewer")
    body = {"dataset_id": shops.dataset.id, "name": "mine", "image_ids": list(shops.ids[:1])}
    place = f"/v1/image-sets/{made.id}"
    for path in (place, f"{place}/images", f"/v1/datasets/{shops.dataset.id}/images?image_set_id={made.id}"):
        assert stranger.get(path).status_code == 404
        assert viewer.get(path).status_code == 200
    for who, status in ((stranger, 404), (viewer, 403)):
        assert who.post("/v1/image-sets", json=body).status_code == status
        for method, sent in (("PATCH", {"note": "x"}), ("DELETE", None)):
            answer = who.request(method, place, json=sent, headers={"If-Match": "*"})
            assert answer.status_code == status
    assert platform.admin.patch(place, json={"note": "x"}).status_code == 428
    client.image_sets.delete(made)
    for who, status in ((stranger, 404), (viewer, 403)):
        answer = who.post(f"{place}:restore")
        assert answer.status_code == status
    unknown = stranger.post("/v1/image-sets/ims_none:restore").json()
    refused = stranger.post(f"{place}:restore").json()
    assert refused["detail"].replace(made.id, "ims_none") == unknown["detail"]
    hidden = platform.admin.get(f"/v1/datasets/{shops.dataset.id}/images?image_set_id=ims_none")
    assert hidden.status_code == 404
