"""Routes for images: only with a login, only what the gateway gives to it, and a heatmap where the latent fires."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from fulcrum.domain.concepts import TopImage
from fulcrum.domain.errors import ServiceUnavailable, UnknownImage
from fulcrum.science.vision.geometry import ViewGeometry
from fulcrum_ui import pictures


def png(colour, size=(64, 48)):
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


class Images:
    def thumbnail(self, image):
        return self.content(image)

    def content(self, image):
        if image == "img_gone":
            raise UnknownImage("image 'img_gone' does not exist")
        if image == "img_down":
            raise ServiceUnavailable("no answer")
        return png("red") if image == "img_1" else b"no image"


class Gateway:
    images = Images()


@pytest.fixture
def client(monkeypatch):
    seen = []
    monkeypatch.setattr(pictures, "client_of", lambda login: seen.append(login) or Gateway())
    with TestClient(Starlette(routes=pictures.ROUTES)) as found:
        found.logins = seen
        yield found


def test_an_image_comes_square_small_and_to_be_kept(client):
    client.cookies.set("fulcrum_session", "log_1.a")
    answer = client.get("/pictures/images/img_1?size=128")
    assert answer.status_code == 200
    assert Image.open(io.BytesIO(answer.content)).size == (128, 128)
    assert "private" in answer.headers["cache-control"]
    assert answer.headers["vary"] == "Cookie"
    assert client.logins == ["log_1.a"]


def test_nobody_sees_anything_without_a_login(client):
    assert client.get("/pictures/images/img_1").status_code == 401
    assert client.logins == []


@pytest.mark.parametrize(("image", "status"), [("img_gone", 404), ("img_down", 502), ("img_broken", 422)])
def test_what_cannot_be_shown_has_a_status(client, image, status):
    client.cookies.set("fulcrum_session", "log_1.a")
    answer = client.get(f"/pictures/images/{image}")
    assert answer.status_code == status
    assert "Traceback" not in answer.text


@pytest.mark.parametrize("size", ["1", "99999999999999999999", "-5"])
def test_sizes_are_those_that_are_made(client, size):
    client.cookies.set("fulcrum_session", "log_1.a")
    answer = client.get(f"/pictures/images/img_1?size={size}")
    assert Image.open(io.BytesIO(answer.content)).width in pictures._SIZES


def test_a_size_that_is_no_number_is_refused(client):
    client.cookies.set("fulcrum_session", "log_1.a")
    assert client.get("/pictures/images/img_1?size=big").status_code == 422


def test_the_heatmap_keeps_bright_where_the_latent_fires():
    grey = Image.new("RGB", (120, 120), (128, 128, 128))
    shown = np.asarray(pictures.heat_over(grey, ((0.0, 0.0), (0.0, 3.0)))).astype(int)
    assert shown[105, 105].sum() > shown[15, 15].sum()
    assert shown[105, 105][0] > shown[105, 105][2]  # orange


def test_a_silent_heatmap_leaves_the_image_as_it_is():
    grey = Image.new("RGB", (40, 40), (128, 128, 128))
    assert np.array_equal(np.asarray(pictures.heat_over(grey, ((0.0, 0.0),))), np.asarray(grey))


def test_examples_of_an_older_content_are_not_shown(client, monkeypatch):
    example = TopImage("dat_1", "new", 0, 1.0, 0, 0.0, ((1.0,),))

    class Latents:
        def top_images(self, *args, **kwargs):
            return (example,)

    class Datasets:
        def thumbnail(self, *args, **kwargs):
            return png("red")

    monkeypatch.setattr(Gateway, "latents", Latents(), raising=False)
    monkeypatch.setattr(Gateway, "datasets", Datasets(), raising=False)
    client.cookies.set("fulcrum_session", "log_1.a")
    assert client.get(pictures.example_url("sae_1", 3, 0, example)).status_code == 200
    older = replace(example, dataset_digest="old")
    assert client.get(pictures.example_url("sae_1", 3, 0, older)).status_code == 404


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(384, 160), (160, 384), (256, 256)])
def test_patches_lie_where_the_model_sees_them(mode, size):
    """A bright patch of the model's grid is painted into the image; the square shows it in that place of the grid."""
    width, height = size
    rows = columns = 8
    boxes = ViewGeometry((64, 64), mode).patch_boxes(width, height, (rows, columns))
    inside = [
        i for i, (x0, y0, x1, y1) in enumerate(boxes) if x0 >= 0 and y0 >= 0 and x1 <= width and y1 <= height
    ]
    assert inside
    for i in inside:
        x0, y0, x1, y1 = (round(v) for v in boxes[i])
        picture = Image.new("RGB", size)
        picture.paste((255, 255, 255), (x0, y0, x1, y1))
        shown = np.asarray(pictures.seen(picture, mode).resize((64, 64)).convert("L")).astype(float)
        blocks = shown.reshape(rows, 8, columns, 8).mean(axis=(1, 3))
        assert int(blocks.argmax()) == i
        assert blocks.ravel()[i] > 150
