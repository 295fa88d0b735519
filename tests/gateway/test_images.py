"""Uploading, seeing and deleting images."""

import hashlib
import io
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image
from tests.gateway.pictures import encoded, part
from tests.gateway.test_failures import assert_problem


@pytest.mark.parametrize(
    ("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")]
)
def test_an_image_comes_back_as_it_was_uploaded(platform, kind, media_type):
    content = encoded(kind)
    answer = platform.admin.post(
        "/v1/images", files=part(content, "a/b\\my photo.bin", "application/octet-stream")
    )
    assert answer.status_code == 201, answer.text
    record = answer.json()
    assert answer.headers["etag"] == '"1"'
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert (record["media_type"], record["size_bytes"]) == (media_type, len(content))
    assert (record["width"], record["height"]) == (40, 30)
    assert record["filename"] == "my photo.bin"
    assert record["project_id"] == platform.project.id
    assert platform.admin.get(f"/v1/images/{record['id']}").json() == record

    back = platform.admin.get(f"/v1/images/{record['id']}/content")
    assert back.content == content
    assert back.headers["content-type"] == media_type
    assert back.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in back.headers["content-security-policy"]
    again = platform.admin.get(
        f"/v1/images/{record['id']}/content", headers={"If-None-Match": back.headers["etag"]}
    )
    assert (again.status_code, again.content) == (304, b"")


def test_the_same_bytes_are_one_image_of_a_project_and_another_of_another_project(platform):
    first = platform.admin.post("/v1/images", files=part(encoded()))
    again = platform.admin.post("/v1/images", files=part(encoded(), "other name.png"))
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    other = platform.new_project("Second project")
    elsewhere = platform.admin.post("/v1/images", files=part(encoded()), data={"project_id": other.id})
    assert elsewhere.status_code == 201
    assert elsewhere.json()["id"] != first.json()["id"]
    assert [i["id"] for i in platform.admin.get("/v1/images").json()["items"]] == [first.json()["id"]]
    listed = platform.admin.get("/v1/images", params={"project_id": other.id}).json()["items"]
    assert [i["id"] for i in listed] == [elsewhere.json()["id"]]


def test_the_same_upload_from_many_at_once_makes_one_record(platform):
    with ThreadPoolExecutor(6) as pool:
        answers = list(
            pool.map(lambda _: platform.admin.post("/v1/images", files=part(encoded())), range(12))
        )
    assert {a.json()["id"] for a in answers} == {answers[0].json()["id"]}
    assert sorted(a.status_code for a in answers) == [200] * 11 + [201]


def test_a_turned_photograph_has_the_size_that_a_person_sees(platform):
    exif = Image.Exif()
    exif[0x0112] = 6
    record = platform.admin.post("/v1/images", files=part(encoded("JPEG", exif=exif))).json()
    assert (record["width"], record["height"]) == (30, 40)
    small = platform.admin.get(f"/v1/images/{record['id']}/thumbnail")
    with Image.open(io.BytesIO(small.content)) as picture:
        assert picture.size == (30, 40)


def test_thumbnails_are_small_and_without_metadata(platform):
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    record = platform.admin.post("/v1/images", files=part(encoded("JPEG", (1200, 600), exif=exif))).json()
    small = platform.admin.get(f"/v1/images/{record['id']}/thumbnail")
    assert small.headers["content-type"] == "image/jpeg"
    assert b"taken at home" not in small.content
    with Image.open(io.BytesIO(small.content)) as picture:
        assert picture.size == (256, 128)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<!doctype html><script>alert(1)</script>",
        b"GIF89a" + bytes(100),
        b"\x89PNG\r\n\x1a\n" + bytes(50),
        encoded()[:60],
        encoded("JPEG")[: len(encoded("JPEG")) // 2],
        encoded("WEBP")[:24],
    ],
    ids=["empty", "text", "svg", "html", "gif", "png head", "png cut", "jpeg cut", "webp cut"],
)
def test_what_is_no_readable_image_is_refused_and_leaves_nothing(platform, content, tmp_path):
    assert_problem(platform.admin.post("/v1/images", files=part(content)), 422, "UNREADABLE_IMAGE")
    assert platform.admin.get("/v1/images").json()["items"] == []
    assert [p for p in (tmp_path / "artifacts").rglob("*") if p.is_file()] == []


def test_a_bomb_is_refused_from_its_header(platform):
    bomb = bytearray(encoded(size=(10, 10)))
    bomb[16:24] = (100_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bomb[12:29]).to_bytes(4, "big")
    assert_problem(platform.admin.post("/v1/images", files=part(bytes(bomb))), 413, "IMAGE_TOO_LARGE")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"), ("..", ".."), ("a\u202egnp.exe", "agnp.exe"), ("x" * 500, "x" * 200),
        ("Übung – 日本.png", "Übung – 日本.png"), ("folder/", "image"),
    ],
)  # fmt: skip
def test_names_of_files_are_shown_but_never_believed(platform, given, kept):
    record = platform.admin.post("/v1/images", files=part(encoded(), given)).json()
    assert record["filename"] == kept
    back = platform.admin.get(f"/v1/images/{record['id']}/content")
    assert "\n" not in back.headers["content-disposition"]


def test_roles_decide_who_uploads_sees_and_deletes(platform):
    viewer, analyst = platform.as_user("Vera", "viewer"), platform.as_user("Anna", "analyst")
    stranger = platform.as_user("Sam")
    assert_problem(viewer.post("/v1/images", files=part(encoded())), 403, "FORBIDDEN")
    assert_problem(stranger.post("/v1/images", files=part(encoded())), 404, "UNKNOWN_PROJECT")
    record = analyst.post("/v1/images", files=part(encoded())).json()
    path = f"/v1/images/{record['id']}"
    assert viewer.get(path).status_code == 200
    for where in (path, f"{path}/content", f"{path}/thumbnail"):
        hidden = assert_problem(stranger.get(where), 404, "UNKNOWN_IMAGE")
        assert hidden["detail"] == stranger.get("/v1/images/img_0").json()["detail"].replace(
            "img_0", record["id"]
        )
    assert_problem(viewer.delete(path, headers={"If-Match": '"1"'}), 403, "FORBIDDEN")
    assert_problem(stranger.delete(path, headers={"If-Match": '"1"'}), 404, "UNKNOWN_IMAGE")
    assert analyst.delete(path, headers={"If-Match": '"1"'}).status_code == 204


def test_deleting_needs_the_version_that_was_seen(platform):
    record = platform.admin.post("/v1/images", files=part(encoded())).json()
    path = f"/v1/images/{record['id']}"
    assert_problem(platform.admin.delete(path), 428, "MISSING_PRECONDITION")
    assert_problem(platform.admin.delete(path, headers={"If-Match": '"7"'}), 412, "STALE_VERSION")
    for wrong in ("1", "W/1", '"x"', "", '"1", "2"'):
        assert_problem(platform.admin.delete(path, headers={"If-Match": wrong}), 422, "INVALID_REQUEST")
    assert platform.admin.delete(path, headers={"If-Match": '"1"'}).status_code == 204
    assert_problem(platform.admin.get(path), 404, "UNKNOWN_IMAGE")
    assert_problem(platform.admin.get(f"{path}/content"), 404, "UNKNOWN_IMAGE")
    assert platform.admin.post("/v1/images", files=part(encoded())).status_code == 201
    with platform.store.read() as tx:
        assert "image.delete" in [e.action for e in tx.audit.list().items]


def test_bytes_that_changed_on_the_disk_are_never_passed_for_the_image(platform, tmp_path):
    record = platform.admin.post("/v1/images", files=part(encoded())).json()
    [file] = (tmp_path / "artifacts").rglob(record["sha256"])
    file.write_bytes(encoded(colour=(0, 0, 0)))
    assert_problem(platform.admin.get(f"/v1/images/{record['id']}/content"), 500, "CORRUPT_ARTIFACT")


class TestUnderASmallLimit:
    @pytest.fixture
    def gateway_settings(self, gateway_settings):
        return gateway_settings.model_copy(update={"max_upload_bytes": 1000})

    def test_files_over_the_limit_are_refused_however_they_come(self, platform):
        noise = bytes(range(256)) * 4
        within_room = platform.admin.post("/v1/images", files=part(encoded() + noise))
        assert_problem(within_room, 413, "IMAGE_TOO_LARGE")
        announced = platform.admin.post("/v1/images", files=part(noise * 100))
        assert_problem(announced, 413, "PAYLOAD_TOO_LARGE")

        def chunks():
            yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
            for _ in range(200):
                yield noise

        headers = {"content-type": "multipart/form-data; boundary=b"}
        streamed = platform.admin.post("/v1/images", content=chunks(), headers=headers)
        assert_problem(streamed, 413, "PAYLOAD_TOO_LARGE")
