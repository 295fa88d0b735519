"""Validation, sweeps and suggestions as jobs, on the demo model and a small demo world."""

import dataclasses
import io
import json
from datetime import timedelta

import numpy as np
import pyarrow.parquet
import pytest
from scipy import stats
from sqlalchemy import update
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from tests.worker.lab import ATTACK

from fulcrum.demo.shipped import demo_model, demo_sae, demo_task
from fulcrum.domain.corrections import from_dict
from fulcrum.domain.edits import Scale
from fulcrum.domain.identifiers import now
from fulcrum.domain.image_sets import FrozenImageSet, to_bytes
from fulcrum.domain.jobs import IndexDataset, SuggestCorrection, SweepCorrection, Where
from fulcrum.engine.validating import Question, validate_correction
from fulcrum.science.validation.specification import Specification
from fulcrum.store.jobs import JobTaskRow
from fulcrum.worker.handlers import validate_correction as module
from fulcrum.worker.handlers.index_dataset import IndexDatasetHandler
from fulcrum.worker.handlers.sweep_correction import SweepCorrectionHandler
from fulcrum.worker.handlers.validate_correction import ValidateCorrectionHandler
from fulcrum.worker.indexes import open_runs


def test_a_validation_as_a_job_is_the_report_of_one_run_here_and_now(lab):
    job = lab.run(lab.ask())
    assert job.state == "succeeded", job.error
    report, evaluation = lab.report(job), lab.evaluation(job)
    run = lab.runs[0]
    target = lab.data.groups["sticker_kind"] == "attack"
    direct = validate_correction(run, Question(lab.content, "confirm", target=target)).report.to_dict()
    for content in (report, direct):
        for name in ("time", "user"):
            content["provenance"].pop(name)
    assert report == json.loads(json.dumps(direct))
    assert (evaluation.verdict, evaluation.badge) == (report["verdict"]["name"], report["verdict"]["badge"])
    assert evaluation.gates == {g["name"]: g["state"] for g in report["gates"]}
    assert (evaluation.look, evaluation.job_id) == (1, job.id)
    assert job.n_shards > 3
    with lab.workshop.store.read() as tx:
        assert tx.corrections.get(lab.correction.id).state == "evaluated"


def test_a_second_user_a_retry_and_a_sweep_compute_nothing_that_is_known(lab):
    assert lab.run(lab.ask(split="select")).state == "succeeded"
    before = lab.n_forwards()
    again = lab.run(lab.ask(split="select"), user=lab.workshop.new_user("Bob"))
    assert again.state == "succeeded"
    assert again.n_shards_reused == again.n_shards
    assert lab.n_forwards() == before
    sweep = SweepCorrection(lab.correction.id, 1, lab.dataset.id, (0.0, 0.5, 1.0), where=ATTACK)
    swept = lab.run(sweep)
    assert swept.state == "succeeded", swept.error
    assert swept.n_shards_reused >= 2  # the answers at the correction's own gain, and its controls
    assert [g["gain"] for g in lab.report(swept)["gains"]] == [0.0, 0.5, 1.0]


def test_the_seal_of_confirm_is_broken_once_and_the_badge_says_so(lab):
    first, second = lab.run(lab.ask(n_controls=0)), lab.run(lab.ask(n_controls=0))
    assert (first.result["look"], second.result["look"]) == (1, 2)
    assert "look 2 at confirm" in second.result["badge"]
    assert "look" not in first.result["badge"]


def test_every_look_at_select_is_adjusted_for_the_gains_of_a_sweep_too(lab):
    first = lab.run(lab.ask(split="select", n_controls=0))
    assert (first.result["n_looks"], lab.report(first)["selection"]["n_corrections"]) == (1, 1)
    lab.run(
        SweepCorrection(lab.correction.id, 1, lab.dataset.id, (0.25, 0.5, 1.0), where=ATTACK, n_controls=0)
    )
    later = lab.run(lab.ask(split="select", n_controls=0))
    selection = lab.report(later)["selection"]
    assert (selection["n_looks"], selection["n_corrections"]) == (4, 3)  # gain 1 changes nothing: no look


def test_looks_at_discover_are_free(lab):
    job = lab.run(lab.ask(split="discover", n_controls=0))
    assert job.state == "succeeded", job.error
    assert job.result["look"] == 0
    assert not job.result["verdict"].startswith("generalises")
    with lab.workshop.store.read() as tx:
        assert tx.looks.at(lab.workshop.project.id, lab.data.digest) == ()


def test_a_reduce_that_is_killed_after_its_look_was_counted_counts_no_second_one(lab, monkeypatch):
    kept = module.keep
    died = []

    def die_once(work, record):
        if not died:
            died.append(record.id)
            raise KeyboardInterrupt
        return kept(work, record)

    monkeypatch.setattr(module, "keep", die_once)
    job = lab.workshop.submit(lab.ask(n_controls=0))
    with pytest.raises(KeyboardInterrupt):
        lab.workshop.run(job, lab.handlers)
    # Another worker takes over when the lease of the dead one is over.
    with lab.workshop.store.write() as tx:
        expired = update(JobTaskRow.__table__).values(lease_expires_at=now() - timedelta(hours=1))
        tx.job_tasks._connection.execute(expired.where(JobTaskRow.__table__.c.state == "running"))
        assert tx.job_tasks.take_over() == 1
    done = lab.workshop.run(job, lab.handlers)
    assert done.state == "succeeded", done.error
    assert done.result["look"] == 1
    assert done.result["evaluation_id"] == died[0]


def test_the_statistics_of_a_report_follow_from_its_table_by_other_libraries(lab):
    job = lab.run(lab.ask())
    report, evaluation = lab.report(job), lab.evaluation(job)
    content = lab.workshop.artifacts.read_bytes(evaluation.parquet_sha256)
    table = pyarrow.parquet.read_table(io.BytesIO(content)).to_pandas()
    judged = table[table["evaluated"]]
    right, now_right = (judged[f"{k}_prediction"] == judged["label"] for k in ("base", "corrected"))
    counts = [
        [(right & now_right).sum(), (right & ~now_right).sum()],
        [(~right & now_right).sum(), (~right & ~now_right).sum()],
    ]
    target = judged["target"]
    overall, on_target = report["overall"], report["target"]
    assert (overall["broken"], overall["fixed"]) == (counts[0][1], counts[1][0])
    assert overall["accuracy_after"] == pytest.approx(now_right.mean())
    on = [[0, (right & ~now_right & target).sum()], [(~right & now_right & target).sum(), 0]]
    # Twins share a pair: only one of each is in the failure mode, so its images are independent.
    assert judged[target]["cluster"].is_unique
    assert on_target["p_method"] in ("mcnemar_exact", "sign_flip_exact")
    assert on_target["p"] == pytest.approx(mcnemar(on, exact=True).pvalue)
    n, broken = on_target["n"], on_target["broken"]
    assert on_target["nfr_bound"]["upper"] == pytest.approx(stats.beta.ppf(0.95, broken + 1, n - broken))
    low, high = on_target["interval"]["low"], on_target["interval"]["high"]
    b, c = on_target["broken"] + 0.5, on_target["fixed"] + 0.5
    size = n + 2
    half = stats.norm.ppf(0.975) * np.sqrt((b + c) / size - ((c - b) / size) ** 2) / np.sqrt(size)
    assert (low, high) == pytest.approx(((c - b) / size - half, (c - b) / size + half))
    still = judged[judged["should_not_move"]]["kl"]
    assert report["ripple"]["kl"]["mean"] == pytest.approx(still.mean())
    assert report["ripple"]["kl"]["p95"] == np.quantile(still, 0.95, method="inverted_cdf")
    for name in ("slices", "classes"):
        rows = [r for r in report[name] if r.get("q") is not None]
        if name == "slices" and rows:
            q = multipletests([r["p"] for r in rows], method="fdr_bh")[1]
            assert [r["q"] for r in rows] == pytest.approx(q)
    brier = report["calibration"]["brier"]
    assert brier["after"] == pytest.approx(judged["corrected_brier"].mean())


def test_a_suggestion_is_a_correction_that_can_be_saved_and_validated(lab):
    spec = SuggestCorrection(lab.dataset.id, lab.sae.id, ATTACK, (Where("sticker_kind", "none"),), budget=120)
    job = lab.run(spec)
    assert job.state == "succeeded", job.error
    assert job.result["group_accuracy_after"] >= job.result["group_accuracy_before"]
    found = from_dict(json.loads(lab.workshop.artifacts.read_bytes(job.result["correction_artifact"])))
    assert found.sha256 == job.result["correction_sha256"]
    assert len(found.origin.image_sha256) == job.result["n_group"] + job.result["n_clean"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"where": (Where("sticker_kind", "nowhere"),)}, "INVALID_DATASET"),
        ({"where": (Where("colour", "x"),)}, "INVALID_DATASET"),
        ({"number": 7}, "UNKNOWN_CORRECTION"),
        ({"specification": {"alpha": 2.0}}, "INVALID_SETTINGS"),
        ({"specification": {"alfa": 0.05}}, "INVALID_REQUEST"),
    ],
)
def test_questions_that_cannot_be_meant_fail_with_their_reason_and_leave_nothing(lab, changes, error):
    job = lab.run(lab.ask(**changes))
    assert job.state == "failed"
    assert job.error.startswith(error)
    with lab.workshop.store.read() as tx:
        assert tx.evaluations.list(lab.workshop.project.id).items == ()
        assert tx.corrections.get(lab.correction.id).state == "draft"


def test_labels_outside_the_class_set_are_named(lab):
    task = dataclasses.replace(demo_task(), names=demo_task().names[:3])
    job = lab.run(lab.ask(task=task))
    assert job.state == "failed"
    assert "class set" in job.error


def test_a_correction_of_another_sae_is_refused(lab):
    foreign = dataclasses.replace(lab.content, sae_sha256="d" * 64)
    with lab.workshop.store.write() as tx:
        tx.corrections.add_version(lab.correction.id, None, lab.version(foreign, 2))
    job = lab.run(lab.ask(number=2))
    assert job.state == "failed"
    assert job.error.startswith("SAE_DOES_NOT_FIT")


def test_a_data_set_that_is_deleted_while_its_job_runs_leaves_nothing_half_visible(lab):
    opened = lab.open

    def delete_then_open(work, *rest):
        run = opened(work, *rest)
        if len(lab.runs) == 3:
            with work.store.write() as tx:
                tx.datasets.delete(lab.dataset.id)
        return run

    lab.handlers["validate_correction"] = ValidateCorrectionHandler(delete_then_open)
    job = lab.run(lab.ask(n_controls=0))
    assert job.state == "failed"
    assert job.error.startswith("UNKNOWN_DATASET")
    with lab.workshop.store.read() as tx:
        assert tx.evaluations.list(lab.workshop.project.id).items == ()


def test_a_sweep_leaves_confirm_sealed(lab):
    job = lab.run(SweepCorrection(lab.correction.id, 1, lab.dataset.id, (0.0,), split="confirm"))
    assert job.state == "failed"
    assert "sealed" in job.error


def test_the_default_specification_is_what_nobody_changed(lab):
    job = lab.run(lab.ask(specification={"harm_margin": 0.03}, n_controls=0))
    expected = Specification(harm_margin=0.03, min_controls=0, seed=0)
    assert lab.evaluation(job).specification_sha256 == expected.sha256


def test_a_validation_waits_for_its_index_and_a_sweep_runs_every_prefix_once(lab):
    opened = open_runs(lambda work, dataset_id: lab.data)
    runs = []

    def open_run(*rest):
        runs.append(opened(*rest))
        return runs[-1]

    handlers = {
        "index_dataset": IndexDatasetHandler(lambda work, dataset_id: lab.data),
        "validate_correction": ValidateCorrectionHandler(open_run),
        "sweep_correction": SweepCorrectionHandler(open_run),
    }
    index = lab.workshop.submit(IndexDataset(lab.dataset.id, lab.sae.id))
    question = lab.workshop.submit(lab.ask(n_controls=0), after=(index.id,))
    done = lab.workshop.run(question, handlers)
    assert done.state == "succeeded", done.error
    direct = lab.run(lab.ask(n_controls=0))
    assert direct.result["p"] == done.result["p"]
    assert direct.n_shards_reused == direct.n_shards  # the same index, so the same parts
    before = runs[-1].counts.prefix_images
    gains = (0.0, 0.25, 0.5, 2.0)
    sweep = SweepCorrection(lab.correction.id, 1, lab.dataset.id, gains, where=ATTACK, n_controls=0)
    assert lab.workshop.run(lab.workshop.submit(sweep), handlers).state == "succeeded"
    assert len({id(r) for r in runs}) == 1
    assert runs[-1].counts.prefix_images - before <= (lab.data.splits != "confirm").sum()


def test_a_bank_of_prompts_is_watched_and_changes_no_other_number(lab):
    plain = lab.report(lab.run(lab.ask(n_controls=0, split="discover")))
    job = lab.run(lab.ask(n_controls=0, split="discover", concept_bank=("sale", "open", "a red thing")))
    assert job.n_shards_reused == job.n_shards
    report = lab.report(job)
    assert {m["name"] for m in report["ripple"]["concepts"]} == {"sale", "open", "a red thing"}
    for content in (plain, report):
        content["ripple"]["concepts"] = []
        content["provenance"]["time"] = ""
    assert report == plain


def test_a_recomputation_runs_every_part_again_and_comes_to_the_same_numbers(lab):
    first = lab.run(lab.ask())
    before = lab.n_forwards()
    again = lab.run(lab.ask(fresh=True))
    assert again.n_shards == first.n_shards
    assert again.n_shards_reused == 0
    assert lab.n_forwards() > before
    one, other = lab.evaluation(first), lab.evaluation(again)
    assert other.parquet_sha256 == one.parquet_sha256
    assert (one.look, other.look) == (1, 2)
    assert "look 2 at confirm" in other.badge
    known = lab.run(lab.ask())
    assert known.n_shards_reused == known.n_shards


def frozen(lab, name, purpose, ids):
    sha256 = lab.workshop.artifacts.put_bytes(to_bytes(ids))
    return FrozenImageSet(f"ims_{name}", name, purpose, sha256, len(set(ids)))


def test_image_sets_are_judged_as_they_were_and_every_count_follows_from_the_table(lab):
    loudest = np.argsort(-np.asarray(lab.index.statistics.image_rate))[:24]
    edits = [Scale(int(n), 0.0) for n in loudest]  # enough to flip some answers
    content = lab.engine.correction(demo_model(), demo_sae(), edits, task=demo_task())
    with lab.workshop.store.write() as tx:
        tx.corrections.add_version(lab.correction.id, None, lab.version(content, 2))
    plain = lab.run(lab.ask(n_controls=0, number=2))
    table = pyarrow.parquet.read_table(
        io.BytesIO(lab.workshop.artifacts.read_bytes(lab.evaluation(plain).parquet_sha256))
    ).to_pandas()
    judged = table[table["evaluated"]]
    flipped = judged["base_prediction"] != judged["corrected_prediction"]
    assert 0 < flipped.sum() < len(judged)
    kept, lost = judged["id"][~flipped].tolist(), judged["id"][flipped].tolist()
    elsewhere = lab.data.ids[lab.data.splits == "select"].tolist()[:4]
    sets = (
        frozen(lab, "mixed", "invariant", [*kept[:6], *lost[:2], *elsewhere, "gone.png"]),
        frozen(lab, "quiet", "invariant", kept[:5]),
        frozen(lab, "select only", "invariant", elsewhere),
        frozen(lab, "tag", "slice", judged["id"].tolist()[:25]),
    )
    job = lab.run(lab.ask(n_controls=0, image_sets=sets, number=2))
    assert job.state == "succeeded", job.error
    assert job.n_shards_reused == job.n_shards  # a set costs no forward pass
    report, evaluation = lab.report(job), lab.evaluation(job)
    assert evaluation.image_sets == sets
    prefix = "invariant images keep their answer: "
    gates = {n.removeprefix(prefix): s for n, s in evaluation.gates.items() if n.startswith(prefix)}
    assert gates == {"mixed": "fail", "quiet": "pass", "select only": "undecided"}
    mixed = report["image_sets"][0]
    assert (mixed["n"], mixed["evaluated"], mixed["other_splits"], mixed["gone"]) == (13, 8, 4, 1)
    assert (mixed["changed"], mixed["changed_ids"]) == (2, sorted(lost[:2]))
    (reason,) = (g["reason"] for g in report["gates"] if g["name"] == prefix + "mixed")
    assert reason.startswith("2 of 8 changed their answer")
    (row,) = (s for s in report["slices"] if s["group"]["name"] == "set=tag")
    some = judged.iloc[:25]
    right = (some["base_prediction"] == some["label"], some["corrected_prediction"] == some["label"])
    assert row["n"] == 25
    assert row["accuracy_before"] == pytest.approx(right[0].mean())
    assert row["accuracy_after"] == pytest.approx(right[1].mean())
    discordant = row["fixed"] + row["broken"]
    p = stats.binomtest(row["fixed"], discordant).pvalue if discordant else 1.0
    assert row["p"] == pytest.approx(p)
    # The table has a column for each set, and nothing else is another number.
    columns = lab.workshop.artifacts.read_bytes(evaluation.columns_sha256)
    with np.load(io.BytesIO(columns)) as found:
        assert found["set:tag"].sum() == 25
    one, other = ({g["name"]: g for g in r["gates"]} for r in (lab.report(plain), report))
    assert all(other[name] == gate for name, gate in one.items())


def test_a_set_whose_images_cannot_be_read_fails_the_job_and_counts_no_look(lab):
    lost = FrozenImageSet("ims_x", "x", "slice", "e" * 64, 1)
    job = lab.run(lab.ask(n_controls=0, image_sets=(lost,)))
    assert job.state == "failed"
    assert job.error.startswith("UNKNOWN_ARTIFACT")
    with lab.workshop.store.read() as tx:
        assert tx.looks.at(lab.workshop.project.id, lab.data.digest) == ()
