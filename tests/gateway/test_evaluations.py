"""Evaluations over HTTP and through the SDK: report, staleness, flip board, tables; what a plan says before a run."""

import csv
import dataclasses
import io

import numpy as np
import pyarrow.parquet
import pytest

from fulcrum.client import Client
from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import (
    InvalidDataset,
    InvalidRequest,
    SaeDoesNotFit,
    UnknownEvaluation,
    UnknownSae,
)
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.jobs import Where
from fulcrum.domain.models import ModelRef
from fulcrum.domain.records import (
    CorrectionRecord,
    CorrectionVersion,
    DatasetRecord,
    DatasetVersion,
    EvaluationRecord,
    LookRecord,
    ModelRecord,
    SaeRecord,
)
from fulcrum.gateway.evaluations.service import minimum_detectable_effect
from fulcrum.science.validation import power
from fulcrum.science.validation.flips import OUTCOMES
from fulcrum.science.validation.inputs import ValidationInput
from fulcrum.science.validation.per_image import per_image
from fulcrum.science.validation.report import validate
from fulcrum.science.validation.specification import Specification
from fulcrum.science.validation.stale import Subject
from fulcrum.worker.evaluations import as_columns, as_json, as_parquet

NAMES = ("cup", "fish", "car")
CONTENT = Correction("a" * 64, "b" * 64, "visual.blocks.3.resid_post", (Scale(7, 0.0),))


@pytest.fixture(scope="module")
def judged():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(400, 3))
    corrected = base + rng.normal(scale=0.7, size=base.shape)
    given = ValidationInput(
        base_logits=base,
        corrected_logits=corrected,
        labels=rng.integers(0, 3, 400),
        class_names=NAMES,
        split="select",
        groups={"light": np.where(rng.random(400) < 0.3, "=dark", "bright")},
        subject=Subject(CONTENT.sha256, "f" * 64, "a" * 64, "b" * 64, "0.1.0"),
        provenance={"class_names": list(NAMES)},
    )
    spec = Specification(min_controls=0)
    return validate(given, spec), per_image(given, spec)


@pytest.fixture
def kept(platform, judged):
    report, table = judged
    p, u = platform.project.id, platform.admin_user.id
    correction = CorrectionRecord(new_id("cor"), p, "c", u, now())
    dataset = DatasetRecord(
        new_id("dat"), p, "d", u, now(), "", "ready", "f" * 64, 400, NAMES, {"select": 400, "discover": 50}
    )
    assert report.subject is not None
    record = EvaluationRecord(
        id=new_id("evl"),
        project_id=p,
        kind="validation",
        correction_id=correction.id,
        number=1,
        dataset_id=dataset.id,
        split="select",
        **vars(report.subject),
        specification_sha256=report.specification_sha256,
        job_id="job_1",
        report_sha256=platform.artifacts.put_bytes(as_json(report.to_dict())),
        created_by=u,
        created_at=now(),
        verdict=report.verdict.name,
        badge=report.verdict.badge,
        look=1,
        gates={g.name: g.state for g in report.gates},
        numbers={"n": report.overall.n},
        columns_sha256=platform.artifacts.put_bytes(as_columns(table)),
        parquet_sha256=platform.artifacts.put_bytes(as_parquet(table)),
    )
    sweep = dataclasses.replace(
        record, id=new_id("evl"), kind="sweep", verdict=None, columns_sha256=None, parquet_sha256=None
    )
    with platform.store.write() as tx:
        tx.datasets.add(dataset)
        tx.corrections.add(correction, CorrectionVersion(correction.id, 1, CONTENT.sha256, CONTENT, u, now()))
        tx.evaluations.add(record)
        tx.evaluations.add(sweep)
    return record, sweep


@pytest.fixture
def client(platform):
    token = platform.token_of(platform.admin_user)
    with Client(platform.url, token) as client:
        yield client


def test_an_evaluation_comes_with_its_report_and_is_of_today(client, kept, judged):
    record, sweep = kept
    found = client.evaluations.get(record.id)
    assert found.record == record
    assert found.changes == ()
    assert found.report["overall"]["fixed"] == judged[0].overall.fixed
    assert list(client.evaluations.list(kind="sweep")) == [sweep]
    assert list(client.evaluations.list(correction="cor_other")) == []
    with pytest.raises(UnknownEvaluation):
        client.evaluations.get("evl_none")


def test_a_verdict_goes_stale_when_something_changes_that_it_belongs_to(platform, client, kept):
    record, _ = kept
    other = dataclasses.replace(CONTENT, edits=(Scale(7, 0.5),))
    with platform.store.write() as tx:
        tx.datasets.update(record.dataset_id, digest="e" * 64)
        tx.corrections.add_version(
            record.correction_id,
            None,
            CorrectionVersion(record.correction_id, 2, other.sha256, other, platform.admin_user.id, now()),
        )
    changes = {c.part: (c.then, c.now) for c in client.evaluations.get(record.id).changes}
    assert changes == {
        "dataset_digest": ("f" * 64, "e" * 64),
        "correction_sha256": (CONTENT.sha256, other.sha256),
    }
    with platform.store.write() as tx:
        tx.datasets.delete(record.dataset_id)
    changes = {c.part: c.now for c in client.evaluations.get(record.id).changes}
    assert changes["dataset_digest"] == "deleted"


def test_the_flip_board_shows_every_image_of_an_outcome_once_the_largest_change_first(client, kept, judged):
    record, (_, table) = kept[0], judged
    for outcome in ("fixed", "broken", "moved", "still_wrong"):
        cards = list(client.evaluations.images(record, outcome=outcome))
        expected = table["outcome"] == OUTCOMES.index(outcome)
        assert {c.id for c in cards} == set(table["id"][expected])
        assert len(cards) == expected.sum()
        changes = [abs(c.margin_change) for c in cards]
        assert changes == sorted(changes, reverse=True)
    changed = {c.id for c in client.evaluations.images(record, changed_only=True)}
    another = table["base_prediction"] != table["corrected_prediction"]
    assert changed == set(table["id"][table["evaluated"] & another])
    moved = list(client.evaluations.images(record, outcome="moved", changed_only=True))
    assert {c.id for c in moved} == set(table["id"][table["outcome"] == OUTCOMES.index("moved")])
    assert not list(client.evaluations.images(record, outcome="still_wrong", changed_only=True))
    fixed = next(iter(client.evaluations.images(record, outcome="fixed")))
    row = int(np.flatnonzero(table["id"] == fixed.id)[0])
    assert fixed.corrected == fixed.label == NAMES[table["label"][row]]
    dark = list(client.evaluations.images(record, where="light==dark"))
    assert len(dark) == (table["group:light"] == "=dark").sum()
    for name in ("label", "class"):
        of_class = {c.id for c in client.evaluations.images(record, where=f"{name}={NAMES[0]}")}
        assert of_class == set(table["id"][table["evaluated"] & (table["label"] == 0)])
        assert of_class
    with pytest.raises(InvalidRequest, match=r"label.*light"):
        list(client.evaluations.images(record, where="colour=red"))


def test_the_tables_hold_every_number_and_no_formula(client, kept, judged, tmp_path):
    record, (_, table) = kept[0], judged
    client.evaluations.table(record, tmp_path / "t.parquet")
    parquet = pyarrow.parquet.read_table(tmp_path / "t.parquet")
    assert (parquet["corrected_margin"].to_numpy() == table["corrected_margin"]).all()
    rows = list(csv.DictReader(io.StringIO(client.evaluations.table(record, format="csv").decode())))
    assert [float(r["kl"]) for r in rows] == table["kl"].tolist()
    assert {r["group:light"] for r in rows} == {"'=dark", "bright"}


def test_confusion_and_slices_are_those_of_the_report(client, kept, judged):
    record, (report, table) = kept[0], judged
    found = client.evaluations.confusion(record)
    assert [sum(row) for row in found.delta] == [0, 0, 0]
    right_before, right_after = (
        (table[f"{k}_prediction"] == table["label"]).sum() for k in ("base", "corrected")
    )
    assert sum(found.delta[i][i] for i in range(3)) == right_after - right_before
    assert found.pairs[0]["n"] == report.changed_pairs[0].n
    slices = client.evaluations.slices(record)
    assert [s["group"]["name"] for s in slices.slices] == [s.group.name for s in report.slices]
    assert len(slices.broken) == len(report.slices_with_broken)


def test_a_sweep_has_no_table_of_images(client, kept):
    for ask in (client.evaluations.table, client.evaluations.confusion, client.evaluations.slices):
        with pytest.raises(UnknownEvaluation, match="only a validation"):
            ask(kept[1])
    with pytest.raises(UnknownEvaluation, match="only a validation"):
        list(client.evaluations.images(kept[1]))


def test_a_plan_says_what_the_split_can_show_and_counts_no_look(platform, client, kept):
    record, _ = kept
    plan = client.evaluations.plan(record.correction_id, record.dataset_id)
    assert (plan.n, plan.n_looks, plan.next_look, plan.most_forward_images) == (400, 0, 1, 450)
    assert plan.mde == pytest.approx(power.minimum_detectable_effect(400))
    assert (plan.images_for_harm, plan.can_pass_harm) == (power.images_for_clean_bound(0.01), True)
    with platform.store.write() as tx:
        tx.looks.count(
            LookRecord(
                new_id("lok"), record.project_id, "f" * 64, "select", CONTENT.sha256, 0.1, 0, "job_9", now()
            )
        )
    assert client.evaluations.plan(record.correction_id, record.dataset_id).next_look == 2
    with pytest.raises(InvalidDataset, match="no image in split"):
        client.evaluations.plan(record.correction_id, record.dataset_id, split="confirm")


@pytest.mark.parametrize("n", [1, 20, 100, 1000, 5000, 50_000])
@pytest.mark.parametrize("psi", [0.01, 0.05, 0.3])
def test_the_effect_of_the_plan_is_that_of_the_science(n, psi):
    mine, other = minimum_detectable_effect(n, psi), power.minimum_detectable_effect(n, psi)
    assert mine == (None if other is None else pytest.approx(other, rel=1e-9))


def test_strangers_see_no_evaluation(platform, kept):
    stranger = platform.as_user("Eve")
    record, _ = kept
    for place in ("", "/images", "/table", "/confusion", "/slices"):
        assert stranger.get(f"/v1/evaluations/{record.id}{place}").status_code == 404
    body = {"dataset_id": record.dataset_id}
    assert stranger.post(f"/v1/corrections/{record.correction_id}:plan", json=body).status_code == 404


@pytest.fixture
def with_sae(platform, kept):
    p, u = platform.project.id, platform.admin_user.id
    model = ModelRecord(new_id("mdl"), p, "m", ModelRef("folder:demo/clip"), u, now())
    sae = SaeRecord(new_id("sae"), p, "s", model.id, "folder:demo/sae", u, now())
    with platform.store.write() as tx:
        tx.models.add(model)
        tx.saes.add(sae)
        tx.corrections.update(kept[0].correction_id, None, sae_id=sae.id)
    return sae


def test_a_validation_is_asked_for_once_after_the_index_it_stands_on(platform, client, kept, with_sae):
    record = kept[0]
    job = client.evaluations.validate(record.correction_id, record.dataset_id, where={"light": "bright"})
    assert (job.kind, job.state, job.spec.where) == (
        "validate_correction",
        "queued",
        (Where("light", "bright"),),
    )
    (needed,) = job.after
    assert client.jobs.get(needed).job.kind == "index_dataset"
    again = client.evaluations.validate(record.correction_id, record.dataset_id, where={"light": "bright"})
    assert again.id == job.id
    other = client.evaluations.validate(record.correction_id, record.dataset_id, seed=1)
    assert other.id != job.id
    assert other.after == job.after  # one index for both


def test_sweeps_and_suggestions_are_jobs_too(client, kept, with_sae):
    record = kept[0]
    swept = client.evaluations.sweep(record.correction_id, record.dataset_id, [0.0, 0.5])
    assert (swept.kind, swept.spec.gains) == ("sweep_correction", (0.0, 0.5))
    found = client.evaluations.suggest(record.dataset_id, with_sae, {"light": "bright"})
    assert (found.kind, found.spec.sae_id) == ("suggest_correction", with_sae.id)
    assert found.spec.split == "discover"


def test_what_cannot_be_meant_is_refused_before_a_job_is_made(platform, client, kept, with_sae):
    record = kept[0]
    with pytest.raises(InvalidDataset, match="confirm"):
        client.evaluations.validate(record.correction_id, record.dataset_id, split="confirm")
    with pytest.raises(InvalidRequest):
        client.evaluations.sweep(record.correction_id, record.dataset_id, [])
    viewer = platform.as_user("Vic", "viewer")
    body = {"dataset_id": record.dataset_id}
    assert viewer.post(f"/v1/corrections/{record.correction_id}:validate", json=body).status_code == 403
    with platform.store.write() as tx:
        tx.corrections.update(record.correction_id, None, sae_id=None)
    with pytest.raises(UnknownSae, match="registered"):
        client.evaluations.validate(record.correction_id, record.dataset_id)
    assert list(client.jobs.list()) == []


def test_an_index_and_a_description_are_jobs_and_there_is_one_index_for_all(client, kept, with_sae):
    dataset = kept[0].dataset_id
    index = client.latents.index(dataset, with_sae)
    assert (index.kind, index.state) == ("index_dataset", "queued")
    described = client.latents.describe(with_sae, dataset, vocabulary=["wheel", "text"])
    assert (described.kind, described.spec.vocabulary) == ("describe_concepts", ("wheel", "text"))
    assert described.after == (index.id,)
    assert client.latents.describe(with_sae, dataset, vocabulary=["wheel", "text"]).id == described.id
    empty = client.datasets.create("empty")
    with pytest.raises(InvalidDataset, match="import its images first"):
        client.latents.index(empty, with_sae)


def test_interactions_of_saved_corrections_are_one_job_for_the_same_versions(
    platform, client, kept, with_sae
):
    record = kept[0]
    other = dataclasses.replace(CONTENT, edits=(Scale(9, 0.0),))
    second = client.corrections.create("other", other, sae=with_sae)
    job = client.evaluations.interactions([record.correction_id, second], record.dataset_id)
    assert (job.kind, job.state, job.spec.split) == ("interact_corrections", "queued", "select")
    assert [v.number for v in job.spec.corrections] == [1, 1]
    assert client.jobs.get(job.after[0]).job.kind == "index_dataset"
    first = client.corrections.version(record.correction_id)
    assert client.evaluations.interactions([first, second], record.dataset_id).id == job.id
    client.corrections.add_version(second, dataclasses.replace(other, edits=(Scale(9, 0.5),)))
    later = client.evaluations.interactions([first, second], record.dataset_id)
    assert later.id != job.id
    assert [v.number for v in later.spec.corrections] == [1, 2]
    with pytest.raises(InvalidRequest, match="corrections"):
        client.evaluations.interactions([first], record.dataset_id)


def test_interactions_stay_within_one_sae_and_one_project(platform, client, kept, with_sae):
    record = kept[0]
    p, u = platform.project.id, platform.admin_user.id
    foreign = SaeRecord(new_id("sae"), p, "t", with_sae.model_id, "folder:demo/sae2", u, now())
    with platform.store.write() as tx:
        tx.saes.add(foreign)
    second = client.corrections.create("of another SAE", CONTENT, sae=foreign)
    with pytest.raises(SaeDoesNotFit, match="2 SAEs"):
        client.evaluations.interactions([record.correction_id, second], record.dataset_id)
    stranger = platform.as_user("Eve")
    body = {
        "dataset_id": record.dataset_id,
        "corrections": [{"correction_id": record.correction_id}, {"correction_id": second.id}],
    }
    assert stranger.post("/v1/corrections:interact", json=body).status_code == 404
    assert list(client.jobs.list()) == []


@pytest.fixture
def validated(platform, client, kept, with_sae):
    """The evaluation as if a job had made it, and that job."""
    record = kept[0]
    job = client.evaluations.validate(
        record.correction_id, record.dataset_id, where={"light": "bright"}, seed=3
    )
    made = dataclasses.replace(record, id=new_id("evl"), job_id=job.id)
    with platform.store.write() as tx:
        tx.evaluations.add(made)
    return made, job


def test_the_same_images_with_other_duplicates_are_another_question(platform, client, validated, with_sae):
    record, job = validated
    asked = {"where": {"light": "bright"}, "seed": 3}
    assert client.evaluations.validate(record.correction_id, record.dataset_id, **asked).id == job.id
    for by_a_model in (False, True):
        # The images were imported again: the digest is the same, and what counts as one image need not be.
        imported = client.datasets.import_images(
            record.dataset_id, "folder:lab/a", model=with_sae.model_id if by_a_model else None
        )
        version = DatasetVersion(
            id=new_id("dsv"),
            project_id=record.project_id,
            dataset_id=record.dataset_id,
            digest=record.dataset_digest,
            manifest_sha256="ab"[by_a_model] * 64,
            report_sha256="c" * 64,
            n_images=400,
            size_bytes=1,
            n_by_split={},
            job_id=imported.id,
            created_by=record.created_by,
            created_at=now(),
        )
        with platform.store.write() as tx:
            tx.dataset_versions.add(version)
            tx.datasets.update(record.dataset_id, manifest_sha256=version.manifest_sha256)
        again = client.evaluations.validate(record.correction_id, record.dataset_id, **asked)
        assert (again.id == job.id) is not by_a_model


def test_a_recomputation_asks_the_same_question_and_takes_nothing_from_the_store(client, validated):
    record, job = validated
    again = client.evaluations.recompute(record)
    assert again.id != job.id
    assert dataclasses.replace(again.spec, fresh=False) == job.spec
    assert again.spec.fresh
    assert client.evaluations.recompute(record).id == again.id


def test_a_recomputation_is_for_what_was_judged_or_for_the_newest_version(platform, client, validated):
    record, _ = validated
    first = client.evaluations.recompute(record)
    other = dataclasses.replace(CONTENT, edits=(Scale(7, 0.5),))
    client.corrections.add_version(record.correction_id, other)
    assert client.evaluations.recompute(record).id == first.id
    newest = client.evaluations.recompute(record, newest=True)
    assert newest.spec.number == 2
    with platform.store.write() as tx:
        tx.datasets.update(record.dataset_id, digest="e" * 64)
    changed = client.evaluations.recompute(record)
    assert (changed.spec.number, changed.id == first.id) == (1, False)
    viewer = platform.as_user("Vic", "viewer")
    assert viewer.post(f"/v1/evaluations/{record.id}:recompute", json={}).status_code == 403


def test_two_evaluations_beside_each_other_show_what_changed(platform, client, kept, judged):
    record, sweep = kept
    same = client.evaluations.compare(record, record)
    assert (same.changes, same.differences, same.n_images) == ((), (), 400)
    assert (same.n_base_differs, same.n_corrected_differs, same.max_margin_difference) == (0, 0, 0.0)

    table = {name: column.copy() for name, column in judged[1].items()}
    table["corrected_prediction"][:3] = (table["corrected_prediction"][:3] + 1) % 3
    table["corrected_margin"][5] += 0.25
    table = {name: column[:390] for name, column in table.items()}
    other = dataclasses.replace(
        record,
        id=new_id("evl"),
        dataset_digest="e" * 64,
        verdict="inconclusive",
        gates=record.gates | {"harm": "undecided"},
        numbers={"n": 390},
        columns_sha256=platform.artifacts.put_bytes(as_columns(table)),
    )
    with platform.store.write() as tx:
        tx.evaluations.add(other)
    found = client.evaluations.compare(record, other)
    assert [(c.part, c.then, c.now) for c in found.changes] == [("dataset_digest", "f" * 64, "e" * 64)]
    differences = {d.name: (d.then, d.now) for d in found.differences}
    assert differences["n"] == (record.numbers["n"], 390)
    assert differences["verdict"] == (record.verdict, "inconclusive")
    assert differences["gates.harm"] == (record.gates.get("harm"), "undecided")
    assert (found.n_images, found.n_only_then, found.n_only_now) == (390, 10, 0)
    assert (found.n_base_differs, found.n_corrected_differs) == (0, 3)
    assert found.max_margin_difference == pytest.approx(0.25)
    with pytest.raises(InvalidRequest, match="only like can be compared"):
        client.evaluations.compare(record, sweep)
    stranger = platform.as_user("Eve")
    place = f"/v1/evaluations/{record.id}:compare"
    assert stranger.get(place, params={"other_id": other.id}).status_code == 404
