"""`fulcrum concepts` against a running gateway, by two people."""

import json

import pytest
from tests.cli.test_import import client, run  # noqa: F401
from tests.client.conftest import no_gateway_of_the_developer  # noqa: F401
from tests.gateway.conftest import (  # noqa: F401
    artifacts,
    empty_redis,
    engine,
    gateway_settings,
    local_engine,
    migrated,
    platform,
    redis_url,
    store,
)

from fulcrum.demo.shipped import served_model
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import ModelRecord, SaeRecord


@pytest.fixture
def sae(platform):  # noqa: F811
    """The id of an SAE; nothing has to be loaded for its labels."""
    p, u = platform.project.id, platform.admin_user.id
    model = ModelRecord(new_id("mdl"), p, "clip", served_model(), u, now(), "ready")
    kept = SaeRecord(new_id("sae"), p, "mid", model.id, "folder:demo/sae", u, now(), "ready")
    with platform.store.write() as tx:
        tx.models.add(model)
        tx.saes.add(kept)
    return kept.id


@pytest.fixture
def a_colleague_proposes(platform, sae):  # noqa: F811
    colleague = platform.as_user("Eve", "analyst")

    def propose(latent, label):
        body = {"label": label, "note": "on mugs"}
        answer = colleague.put(f"/v1/saes/{sae}/concepts/{latent}", json=body, headers={"If-Match": "*"})
        assert answer.status_code == 200, answer.text

    return propose


def said(capfd):
    return json.loads(capfd.readouterr().out)


def test_labels_wait_are_confirmed_and_rejected(client, sae, a_colleague_proposes, capfd):  # noqa: F811
    a_colleague_proposes(3, "wheel")
    a_colleague_proposes(4, "eye")
    assert run(["concepts", "list", sae, "--waiting", "--json"]) == 0
    assert [c["label"] for c in said(capfd)["concepts"]] == ["eye", "wheel"]
    assert run(["concepts", "confirm", sae, "3", "wheel", "--note", "clear", "--json"]) == 0
    confirmed = said(capfd)
    assert (confirmed["review"], confirmed["review_note"]) == ("confirmed", "clear")
    assert run(["concepts", "reject", sae, "4", "eye"]) == 0
    assert "before: eye  rejected" in capfd.readouterr().out
    assert run(["concepts", "list", sae, "--waiting"]) == 0
    assert capfd.readouterr().out == ""
    assert client.concepts.get(sae, 4).label == ""


def test_a_label_that_changed_since_it_was_seen_is_not_confirmed(client, sae, a_colleague_proposes, capfd):  # noqa: F811
    a_colleague_proposes(3, "wheel")
    a_colleague_proposes(3, "tyre")
    assert run(["concepts", "confirm", sae, "3", "wheel", "--json"]) == 2
    assert said(capfd)["error"]["reason"] == "STALE_VERSION"
    assert client.concepts.get(sae, 3).review == "proposed"


def test_one_proposes_but_does_not_confirm_ones_own_name(client, sae, capfd):  # noqa: F811
    assert run(["concepts", "name", sae, "5", "handle", "--note", "seen twice", "--json"]) == 0
    assert said(capfd)["review"] == "proposed"
    assert run(["concepts", "confirm", sae, "5", "handle", "--json"]) == 2
    error = said(capfd)["error"]
    assert error["reason"] == "REVIEWER_IS_AUTHOR"
    assert "invite a colleague" in error["message"]
    assert run(["concepts", "show", sae, "5"]) == 0
    assert "handle  proposed" in capfd.readouterr().out
