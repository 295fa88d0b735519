"""What latents stand for: words of people and programs, with what was said before."""

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
