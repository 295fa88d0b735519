"""The statistics of a full report, recomputed by other libraries from the table that anybody can download."""

import io

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from fulcrum.client import Client
from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Scale
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import CorrectionRecord, CorrectionVersion, DatasetRecord, EvaluationRecord
from fulcrum.science.validation.inputs import ValidationInput
from fulcrum.science.validation.per_image import per_image
from fulcrum.science.validation.report import validate
from fulcrum.science.validation.specification import ProtectedGroup, Specification
from fulcrum.science.validation.stale import Subject
from fulcrum.worker.evaluations import as_columns, as_json, as_parquet

NAMES = ("cup", "fish", "car", "key")
CONTENT = Correction("a" * 64, "b" * 64, "visual.blocks.3.resid_post", (Scale(7, 0.0),))
SPEC = Specification(min_controls=0, protected_groups=(ProtectedGroup("cue", "none"),), min_group_size=30)


def drawn():
    """Twins without and with a cue that drags the answer to another class; the correction mends most, breaks few."""
    rng = np.random.default_rng(4)
    n = 900
    labels = np.repeat(rng.integers(0, 4, n), 2)
    cue = np.tile([False, True], n)
    base = rng.normal(size=(2 * n, 4))
    base[np.arange(2 * n), labels] += 3.0
    base[np.arange(2 * n), (labels + 1) % 4] += np.where(cue, 3.0, 0.0)
    corrected = base + rng.normal(scale=0.6, size=base.shape)
    corrected[np.arange(2 * n), (labels + 1) % 4] -= np.where(cue, 2.4, 0.0)
    splits = np.repeat(np.where(rng.random(n) < 0.3, "discover", "confirm"), 2)
    light = np.where(rng.random(2 * n) < 0.4, "dark", "bright")
    rare = np.where(rng.random(2 * n) < 0.01, "yes", "")
    return ValidationInput(
        base_logits=base,
        corrected_logits=corrected,
        labels=labels,
        class_names=NAMES,
        split="confirm",
        image_ids=[f"i{k}" for k in range(2 * n)],
        splits=splits,
        target=cue,
        groups={"cue": np.where(cue, "word", "none"), "light": light, "rare": rare},
        clusters=np.repeat([f"p{k}" for k in range(n)], 2),
        subject=Subject(CONTENT.sha256, "f" * 64, "a" * 64, "b" * 64, "0.1.0"),
        provenance={"class_names": list(NAMES)},
    )


@pytest.fixture(scope="module")
def made():
    given = drawn()
    return validate(given, SPEC), per_image(given, SPEC)


@pytest.fixture
def exported(platform, made):
    """(report, table) as they come out of the API."""
    report, table = made
    p, u = platform.project.id, platform.admin_user.id
    correction = CorrectionRecord(new_id("cor"), p, "c", u, now())
    dataset = DatasetRecord(new_id("dat"), p, "d", u, now(), "", "ready", "f" * 64, 1800, NAMES)
    record = EvaluationRecord(
        id=new_id("evl"),
        project_id=p,
        kind="validation",
        correction_id=correction.id,
        number=1,
        dataset_id=dataset.id,
        split="confirm",
        **vars(report.subject),
        specification_sha256=report.specification_sha256,
        job_id="job_1",
        report_sha256=platform.artifacts.put_bytes(as_json(report.to_dict())),
        created_by=u,
        created_at=now(),
        columns_sha256=platform.artifacts.put_bytes(as_columns(table)),
        parquet_sha256=platform.artifacts.put_bytes(as_parquet(table)),
    )
    with platform.store.write() as tx:
        tx.datasets.add(dataset)
        tx.corrections.add(correction, CorrectionVersion(correction.id, 1, CONTENT.sha256, CONTENT, u, now()))
        tx.evaluations.add(record)
    with Client(platform.url, platform.token_of(platform.admin_user)) as client:
        content = client.evaluations.table(record, format="csv")
        found = client.evaluations.get(record).report
    table = pd.read_csv(io.BytesIO(content), keep_default_na=False)
    judged = table[table["evaluated"] & (table["label"] >= 0)].copy()
    judged["was"] = judged["base_prediction"] == judged["label"]
    judged["is"] = judged["corrected_prediction"] == judged["label"]
    judged["net"] = judged["is"].astype(int) - judged["was"].astype(int)
    judged["group:class"] = [NAMES[k] for k in judged["label"]]
    return found, judged


def exact_p(rows):
    """McNemar where every image stands alone; else all signs of the totals of the clusters, equally likely."""
    if rows["cluster"].is_unique:
        broken, fixed = (rows["net"] == -1).sum(), (rows["net"] == 1).sum()
        return mcnemar([[0, broken], [fixed, 0]], exact=True).pvalue
    totals = rows.groupby("cluster")["net"].sum().abs().to_numpy()
    chances = {0: 1.0}
    for t in totals[totals > 0]:
        chances = {
            s: 0.5 * (chances.get(s - t, 0) + chances.get(s + t, 0))
            for s in {k + d for k in chances for d in (t, -t)}
        }
    observed = abs(rows["net"].sum())
    return min(1.0, sum(p for s, p in chances.items() if abs(s) >= observed))


def detectable(n):
    """The effect whose sample size by VALIDATION.md is n; None where even all discordant images show none."""
    za, zb = stats.norm.ppf(1 - SPEC.alpha / 2), stats.norm.ppf(SPEC.power)
    psi = SPEC.discordant_share

    def missing(d):
        return (za * np.sqrt(psi) + zb * np.sqrt(psi - d**2)) ** 2 / d**2 - n

    return None if missing(psi) > 0 else optimize.brentq(missing, 1e-9, psi, xtol=1e-14)


def check_comparison(found, rows):
    assert found["n"] == len(rows)
    assert found["accuracy_before"] == pytest.approx(rows["was"].mean())
    assert found["accuracy_after"] == pytest.approx(rows["is"].mean())
    assert (found["fixed"], found["broken"]) == ((rows["net"] == 1).sum(), (rows["net"] == -1).sum())
    assert found["nfr"] == pytest.approx((rows["net"] == -1).mean())
    assert found["net"] == pytest.approx(rows["net"].mean())
    assert found["p"] == pytest.approx(exact_p(rows), rel=1e-6)
    mde = detectable(len(rows))
    assert found["mde"] == (None if mde is None else pytest.approx(mde))


def agresti_min(rows, level):
    n = len(rows) + 2
    b, c = (rows["net"] == -1).sum() + 0.5, (rows["net"] == 1).sum() + 0.5
    half = stats.norm.ppf((1 + level) / 2) * np.sqrt((b + c) / n - ((c - b) / n) ** 2) / np.sqrt(n)
    return (c - b) / n - half, (c - b) / n + half


def test_the_comparisons_with_their_tests_and_bounds(exported):
    report, judged = exported
    for name, rows in (
        ("overall", judged),
        ("target", judged[judged["target"]]),
        ("unaffected", judged[~judged["target"]]),
    ):
        check_comparison(report[name], rows)
        if rows["cluster"].is_unique:
            low, high = agresti_min(rows, 1 - SPEC.alpha)
            assert (report[name]["interval"]["low"], report[name]["interval"]["high"]) == (
                pytest.approx(low),
                pytest.approx(high),
            )
            broken = (rows["net"] == -1).sum()
            upper = proportion_confint(broken, len(rows), alpha=2 * SPEC.alpha, method="beta")[1]
            assert report[name]["nfr_bound"]["upper"] == pytest.approx(upper)
    assert report["overall"]["p_method"] == "sign_flip_exact"  # twins repeat, or that branch was not checked
    assert report["target"]["p_method"] == "mcnemar_exact"
    assert report["target"]["broken"] > 0


@pytest.mark.parametrize("table", ["classes", "groups", "slices"])
def test_every_row_of_the_group_tables_with_its_adjusted_p(exported, table):
    report, judged = exported
    rows, ps = report[table], []
    assert len(rows) >= 4
    for row in rows:
        members = judged
        for column, value in zip(row["group"]["columns"], row["group"]["values"], strict=True):
            members = members[members[f"group:{column}"] == value]
        check_comparison(row, members)
        judged_row = len(members) >= SPEC.min_group_size
        assert (row["q"] is not None) == judged_row
        if judged_row:
            ps.append(exact_p(members))
    q = multipletests(ps, method="fdr_bh")[1]
    assert [r["q"] for r in rows if r["q"] is not None] == pytest.approx(q.tolist(), rel=1e-6)


def test_efficacy_with_its_exact_intervals(exported):
    report, judged = exported
    found = report["efficacy"]
    failures = judged[judged["target"] & ~judged["was"]]
    assert found["coverage"]["count"] == len(failures)
    for name, count, n in (
        ("generalisation", failures["is"].sum(), len(failures)),
        ("coverage", len(failures), judged["target"].sum()),
    ):
        low, high = proportion_confint(count, n, alpha=SPEC.alpha, method="beta")
        share = found[name]
        assert (share["count"], share["n"], share["share"]) == (count, n, pytest.approx(count / n))
        assert (share["interval"]["low"], share["interval"]["high"]) == (
            pytest.approx(low),
            pytest.approx(high),
        )
    neighbours = judged[judged["same_class_without_cue"] & judged["was"]]
    assert found["same_class_without_cue"]["share"] == pytest.approx(neighbours["is"].mean())


def test_worst_group_answers_that_changed_and_side_effects(exported):
    report, judged = exported
    groups = [
        rows
        for column in ("cue", "light", "rare")
        for value, rows in judged.groupby(f"group:{column}")
        if value != ""
    ]
    worst = report["worst_group"]
    assert worst["accuracy_after"] == pytest.approx(min(g["is"].mean() for g in groups))
    assert worst["accuracy_before"] == pytest.approx(min(g["was"].mean() for g in groups))
    changed = judged[judged["base_prediction"] != judged["corrected_prediction"]]
    pairs = changed.groupby(["base_prediction", "corrected_prediction"]).size()
    assert {(p["before"], p["after"]): p["n"] for p in report["changed_pairs"]} == {
        (NAMES[a], NAMES[b]): n for (a, b), n in pairs.items()
    }
    still = judged[judged["should_not_move"]]
    assert report["ripple"]["n"] == len(still)
    assert report["ripple"]["kl"]["mean"] == pytest.approx(still["kl"].mean())
    assert report["ripple"]["kl"]["max"] == still["kl"].max()
    assert report["ripple"]["kl"]["p95"] == np.quantile(still["kl"], 0.95, method="inverted_cdf")
    moves, ps = report["ripple"]["classes"], []
    for move in moves:
        k = NAMES.index(move["class_name"])
        left = (changed["base_prediction"] == k).sum()
        entered = (changed["corrected_prediction"] == k).sum()
        assert (move["n_left"], move["n_entered"]) == (left, entered)
        ps.append(stats.binomtest(int(entered), int(left + entered)).pvalue)
        assert move["p"] == pytest.approx(ps[-1])
    assert [m["q"] for m in moves] == pytest.approx(multipletests(ps, method="fdr_bh")[1].tolist())


def test_calibration_and_its_intervals(exported):
    report, judged = exported
    for name, column in (("brier", "brier"), ("log_loss", "log_loss")):
        found = report["calibration"][name]
        before, after = judged[f"base_{column}"], judged[f"corrected_{column}"]
        assert (found["before"], found["after"]) == (
            pytest.approx(before.mean()),
            pytest.approx(after.mean()),
        )
        clusters = (after - before).groupby(judged["cluster"]).mean()
        half = stats.norm.ppf(0.975) * clusters.std(ddof=1) / np.sqrt(len(clusters))
        middle = (after - before).mean()
        width = found["interval"]["high"] - found["interval"]["low"]
        assert width == pytest.approx(2 * half, rel=0.1)  # a bootstrap of whole clusters, drawn 2000 times
        assert found["interval"]["low"] < middle < found["interval"]["high"]
    found = report["calibration"]["ece"]
    for name, right in (("base", "was"), ("corrected", "is")):
        order = judged.sort_values([f"{name}_confidence", right], kind="stable")
        gap = (order[right].astype(float) - order[f"{name}_confidence"]).to_numpy()
        # Equal masses: an image goes whole into the bin of its middle.
        bins = ((np.arange(len(gap)) + 0.5) * SPEC.ece_bins / len(gap)).astype(int)
        ece = sum(abs(gap[bins == k].sum()) for k in range(SPEC.ece_bins)) / len(gap)
        assert found["before" if name == "base" else "after"] == pytest.approx(ece)
