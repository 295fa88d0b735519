"""What latents stand for: words of people and programs, with what was said before."""

import pytest

from fulcrum.gateway.concepts import schemas


def put(lab, latent, etag=None, **body):
    headers = {} if etag is None else {"If-Match": etag}
    return lab.client.put(f"/v1/saes/{lab.sae['id']}/concepts/{latent}", json=body, headers=headers)


def test_a_label_is_kept_with_what_was_said_before(lab):
    first = put(lab, 7, label="handle", label_source="auto", label_score=0.4)
    assert first.status_code == 200, first.text
    schemas.ConceptRecord.model_validate(first.json())
    second = put(lab, 7, first.headers["etag"], label="cup handle", note="seen on 20 images")
    assert second.status_code == 200, second.text
    record = lab.client.get(f"/v1/saes/{lab.sae['id']}/concepts/7").json()
    assert record == second.json()
    assert (record["label"], record["label_source"], record["note"]) == (
        "cup handle",
        "person",
        "seen on 20 images",
    )
    assert [(h["label"], h["label_source"], h["label_score"]) for h in record["history"]] == [
        ("handle", "auto", 0.4)
    ]
    assert record["id"] == first.json()["id"]


def test_nobody_overwrites_a_label_that_they_have_not_seen(lab):
    assert put(lab, 7, '"1"', label="x").json()["reason"] == "STALE_VERSION"  # nothing is there
    seen = put(lab, 7, label="handle").headers["etag"]
    blind = put(lab, 7, label="rim")
    assert (blind.status_code, blind.json()["reason"]) == (428, "MISSING_PRECONDITION")
    assert "handle" in blind.json()["detail"]
    assert put(lab, 7, seen, label="rim").status_code == 200
    assert put(lab, 7, seen, label="saucer").json()["reason"] == "STALE_VERSION"
    assert put(lab, 7, "*", label="saucer").json()["label"] == "saucer"
    assert put(lab, 7, "nonsense", label="saucer").json()["reason"] == "INVALID_REQUEST"


def test_concepts_are_listed_and_found_by_words(lab):
    for latent, label in ((3, "stripes"), (5, "red stripes"), (8, "handle")):
        assert put(lab, latent, label=label).status_code == 200
    path = f"/v1/saes/{lab.sae['id']}/concepts"
    assert [c["latent"] for c in lab.client.get(path).json()["items"]] == [8, 5, 3]
    found = lab.client.get(path, params={"q": "STRIPES"}).json()["items"]
    assert [c["latent"] for c in found] == [5, 3]
    assert lab.client.get(path, params={"q": "100%"}).json()["items"] == []


def test_what_nobody_described_is_unknown(lab):
    path = f"/v1/saes/{lab.sae['id']}/concepts"
    assert lab.client.get(f"{path}/7").json()["reason"] == "UNKNOWN_CONCEPT"
    assert lab.client.get("/v1/saes/sae_x/concepts").json()["reason"] == "UNKNOWN_SAE"


def test_a_latent_that_the_sae_does_not_have_cannot_be_described(lab):
    d_sae = lab.sae["info"]["d_sae"]
    assert put(lab, d_sae - 1, label="last").status_code == 200
    answer = put(lab, d_sae, label="beyond")
    assert (answer.status_code, answer.json()["reason"]) == (422, "LATENT_OUT_OF_RANGE")
    assert put(lab, -1, label="x").status_code == 422
    assert put(lab, 2**40, label="x").status_code == 422
    assert put(lab, 1, label="x\u0000").status_code == 422


@pytest.fixture
def people(lab):
    """A client for each role, and what they do to labels."""
    return {role: lab.platform.as_user(role, role) for role in ("viewer", "analyst", "reviewer")}


def propose(lab, client, latent, label, note=""):
    path = f"/v1/saes/{lab.sae['id']}/concepts/{latent}"
    answer = client.put(path, json={"label": label, "note": note}, headers={"If-Match": "*"})
    assert answer.status_code == 200, answer.text
    return answer.headers["etag"]


def review(lab, client, latent, decision, etag="*", **body):
    headers = {} if etag is None else {"If-Match": etag}
    path = f"/v1/saes/{lab.sae['id']}/concepts/{latent}:review"
    return client.post(path, json={"decision": decision} | body, headers=headers)


def test_a_persons_label_is_proposed_and_a_programs_is_not(lab):
    assert put(lab, 7, label="handle", label_source="auto").json()["review"] is None
    assert put(lab, 7, "*", label="cup handle").json()["review"] == "proposed"


def test_a_programs_label_replaces_no_persons(lab):
    put(lab, 7, label="cup handle")
    answer = put(lab, 7, "*", label="rim", label_source="auto")
    assert (answer.status_code, answer.json()["reason"]) == (409, "CONFLICT")
    assert "'cup handle' of a person" in answer.json()["detail"]
    assert lab.client.get(f"/v1/saes/{lab.sae['id']}/concepts/7").json()["label"] == "cup handle"


def test_a_reviewer_confirms_what_a_colleague_proposed(lab, people):
    etag = propose(lab, people["analyst"], 7, "handle", "seen on mugs")
    answer = review(lab, people["reviewer"], 7, "confirm", etag, note="clear")
    assert answer.status_code == 200, answer.text
    schemas.ConceptRecord.model_validate(answer.json())
    record = lab.client.get(f"/v1/saes/{lab.sae['id']}/concepts/7").json()
    assert record == answer.json()
    assert (record["label"], record["review"], record["review_note"]) == ("handle", "confirmed", "clear")
    assert record["reviewed_by"] == people["reviewer"].get("/v1/me").json()["id"] != record["created_by"]
    assert answer.headers["etag"] == f'"{record["version"]}"' != etag


def test_a_rejected_label_gives_way_to_the_one_before_it(lab, people):
    put(lab, 7, label="rim", label_source="auto", label_score=0.4)
    propose(lab, people["analyst"], 7, "handle", "seen on mugs")
    record = review(lab, people["reviewer"], 7, "reject", note="also on bags").json()
    assert (record["label"], record["label_source"], record["label_score"], record["review"]) == (
        "rim",
        "auto",
        0.4,
        None,
    )
    (rejected,) = record["history"]
    assert (rejected["label"], rejected["note"], rejected["review"], rejected["review_note"]) == (
        "handle",
        "seen on mugs",
        "rejected",
        "also on bags",
    )
    assert rejected["reviewed_by"] != rejected["created_by"]


def test_only_reviewers_review_and_strangers_learn_nothing(lab, people):
    propose(lab, lab.client, 7, "handle")
    for role in ("viewer", "analyst"):
        answer = review(lab, people[role], 7, "confirm")
        assert (answer.status_code, answer.json()["reason"]) == (403, "FORBIDDEN")
        assert "'reviewer'" in answer.json()["detail"]
    stranger = review(lab, lab.platform.as_user("stranger"), 7, "confirm")
    assert (stranger.status_code, stranger.json()["reason"]) == (404, "UNKNOWN_SAE")
    reader = lab.platform.as_user("reads only", "reviewer", ("read",))
    assert review(lab, reader, 7, "confirm").json()["reason"] == "FORBIDDEN"
    assert review(lab, people["reviewer"], 7, "confirm").status_code == 200


def test_nobody_reviews_their_own_label_and_who_is_alone_hears_what_to_do(lab):
    propose(lab, lab.client, 7, "handle")
    alone = review(lab, lab.client, 7, "confirm")
    assert (alone.status_code, alone.json()["reason"]) == (403, "REVIEWER_IS_AUTHOR")
    assert "Nobody else can review" in alone.json()["detail"]
    assert "invite a colleague" in alone.json()["detail"]
    lab.platform.as_user("an analyst", "analyst")  # who cannot review either
    assert "Nobody else" in review(lab, lab.client, 7, "confirm").json()["detail"]
    lab.platform.as_user("Rae", "reviewer")
    assert "ask another reviewer" in review(lab, lab.client, 7, "confirm").json()["detail"]


def test_a_label_that_changed_since_it_was_seen_is_not_reviewed(lab, people):
    seen = propose(lab, people["analyst"], 7, "handle")
    missing = review(lab, people["reviewer"], 7, "confirm", None)
    assert (missing.status_code, missing.json()["reason"]) == (428, "MISSING_PRECONDITION")
    propose(lab, people["analyst"], 7, "rim")
    stale = review(lab, people["reviewer"], 7, "confirm", seen)
    assert (stale.status_code, stale.json()["reason"]) == (412, "STALE_VERSION")
    assert lab.client.get(f"/v1/saes/{lab.sae['id']}/concepts/7").json()["review"] == "proposed"


def test_what_does_not_wait_cannot_be_reviewed(lab, people):
    put(lab, 7, label="rim", label_source="auto")
    answer = review(lab, people["reviewer"], 7, "confirm")
    assert (answer.status_code, answer.json()["reason"]) == (409, "NOTHING_TO_REVIEW")
    propose(lab, people["analyst"], 7, "handle")
    assert review(lab, people["reviewer"], 7, "confirm").status_code == 200
    assert review(lab, people["reviewer"], 7, "reject").json()["reason"] == "NOTHING_TO_REVIEW"
    assert review(lab, people["reviewer"], 8, "confirm").json()["reason"] == "UNKNOWN_CONCEPT"
    assert review(lab, people["reviewer"], 7, "maybe").status_code == 422


def test_labels_that_wait_are_listed_and_reviews_stand_in_the_audit_log(lab, people):
    for latent, label in ((3, "stripes"), (5, "red stripes"), (8, "handle")):
        propose(lab, people["analyst"], latent, label)
    review(lab, people["reviewer"], 8, "confirm")
    path = f"/v1/saes/{lab.sae['id']}/concepts"

    def latents(**params):
        return [c["latent"] for c in lab.client.get(path, params=params).json()["items"]]

    assert latents(review="proposed") == [5, 3]
    assert latents(review="proposed", q="red") == [5]
    assert latents(review="confirmed") == [8]
    assert lab.client.get(path, params={"review": "maybe"}).status_code == 422
    with lab.platform.store.read() as tx:
        (event,) = tx.audit.list(action="concept.review").items
    assert event.subject == lab.sae["id"]
    assert event.detail == {"latent": 8, "label": "handle", "decision": "confirm"}
