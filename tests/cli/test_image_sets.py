"""`fulcrum image-sets` against a running gateway."""

import json

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
from tests.gateway.test_image_sets import shops  # noqa: F401


def test_sets_are_made_by_id_from_a_file_and_from_a_flip_board_and_taken_away(
    client,  # noqa: F811
    shops,  # noqa: F811
    tmp_path,
    capfd,
):
    (tmp_path / "ids.txt").write_text("\n".join([*shops.ids[:2], "", shops.ids[1]]), encoding="utf-8")
    asked = ["image-sets", "create", "-d", "shops", "--from", str(tmp_path / "ids.txt")]
    assert run([*asked, "night", "--image", shops.ids[7], "--invariant", "--note", "dark", "--json"]) == 0
    made = json.loads(capfd.readouterr().out)
    assert (made["n_images"], made["purpose"], made["note"]) == (3, "invariant", "dark")
    assert set(client.image_sets.images(made["id"])) == {*shops.ids[:2], shops.ids[7]}
    board = ["image-sets", "create", "kept", "-d", shops.dataset.id, "--evaluation", shops.evaluation.id]
    assert run([*board, "--where", "set=seen before"]) == 0
    assert "slice          3 images" in capfd.readouterr().out
    board[2] = "changed"
    assert run([*board, "--where", "set=seen before", "--changed", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["n_images"] == 2  # of the three, the first and the third
    assert run(["image-sets", "list", "-d", "shops", "--purpose", "invariant"]) == 0
    listed = capfd.readouterr().out.splitlines()
    assert len(listed) == 1
    assert "3 images (confirm 1, " in listed[0]
    assert listed[0].endswith("night")
    assert run(["image-sets", "show", made["id"], "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["image_ids"] == sorted([*shops.ids[:2], shops.ids[7]])
    assert run(["image-sets", "delete", made["id"]]) == 0
    assert [s.name for s in client.image_sets.list()] == ["changed", "kept"]
    assert f"image-sets restore {made['id']}" in capfd.readouterr().out
    assert run(["image-sets", "restore", made["id"], "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["name"] == "night"
    assert run(["image-sets", "restore", "ims_none", "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["error"]["reason"] == "UNKNOWN_IMAGE_SET"


def test_what_cannot_be_meant_is_one_clear_line(client, shops, tmp_path, capfd):  # noqa: F811
    (tmp_path / "latin.txt").write_bytes("é.png".encode("latin-1"))
    assert (
        run(["image-sets", "create", "x", "-d", "shops", "--from", str(tmp_path / "latin.txt"), "--json"])
        == 2
    )
    assert "is not UTF-8" in json.loads(capfd.readouterr().out)["error"]["message"]
    asked = ["image-sets", "create", "x", "-d", "shops", "--json"]
    assert run([*asked, "--image", "nowhere.png"]) == 2
    error = json.loads(capfd.readouterr().out)["error"]
    assert error["reason"] == "UNKNOWN_IMAGE"
    assert "nowhere.png" in error["message"]
    for alone in (["--outcome", "broken"], ["--changed"]):
        assert run([*asked, *alone]) == 2
        assert json.loads(capfd.readouterr().out)["error"]["reason"] == "INVALID_SETTINGS"
    assert run(["image-sets", "create", "x", "-d", "elsewhere", "--json"]) == 2
    assert json.loads(capfd.readouterr().out)["error"]["reason"] == "UNKNOWN_DATASET"
    assert run(["image-sets", "list", "--purpose", "tag", "--json"]) == 2
