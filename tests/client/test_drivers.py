"""Both clients before a gateway that is a function: what goes over the wire, and what comes of failures there."""

import io
import time

import httpx
import pytest
from tests.client.samples import CURVE, IMAGE, PROVENANCE, SAE
from tests.client.scripted import TOKEN, URL

from fulcrum.client import AsyncClient, Client
from fulcrum.domain import errors
from fulcrum.domain.codec import to_json

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 300


def respond(value, status=200):
    return httpx.Response(status, json=to_json(value))


def test_every_request_names_who_asks_and_with_what(client_of):
    seen = []

    def gateway(request):
        seen.append(request)
        return respond(IMAGE)

    assert client_of(gateway).call("images.get", IMAGE) == IMAGE
    assert seen[0].headers["Authorization"] == f"Bearer {TOKEN}"
    assert seen[0].headers["User-Agent"].startswith("fulcrum-client/")
    assert str(seen[0].url) == f"{URL}/v1/images/{IMAGE.id}"


def test_an_upload_is_a_form_with_the_very_bytes(client_of):
    def gateway(request):
        body = request.read()
        assert request.headers["content-type"].startswith("multipart/form-data; boundary=")
        assert b'name="project_id"\r\n\r\nprj_9\r\n' in body
        assert b'name="file"; filename="dog.png"\r\nContent-Type: image/png\r\n\r\n' + PNG + b"\r\n" in body
        return respond(IMAGE, 201)

    assert client_of(gateway, project_id="prj_9").call("images.upload", PNG, filename="dog.png") == IMAGE


def test_an_upload_that_has_to_be_repeated_sends_the_files_again(client_of, tmp_path):
    (tmp_path / "cfg.json").write_bytes(b"{}")
    (tmp_path / "sae_weights.safetensors").write_bytes(PNG)
    bodies = []

    def gateway(request):
        body = request.read()
        boundary = request.headers["content-type"].partition("boundary=")[2].encode()
        bodies.append(body.replace(boundary, b""))
        return httpx.Response(503, headers={"retry-after": "0"}) if len(bodies) == 1 else respond(SAE, 201)

    assert client_of(gateway).call("saes.upload", "mine", "mdl_1", tmp_path) == SAE
    assert bodies[0] == bodies[1]
    assert PNG in bodies[1]


def test_an_sae_without_its_files_is_refused_before_anything_is_sent(client_of, tmp_path):
    def gateway(request):
        raise AssertionError("nothing may be sent")

    with pytest.raises(errors.InvalidRequest, match="cfg"):
        client_of(gateway).call("saes.upload", "mine", "mdl_1", tmp_path)


@pytest.mark.parametrize(
    ("failure", "kind", "n_attempts"),
    [
        (httpx.ConnectError, errors.ServiceUnavailable, 2), (httpx.ConnectTimeout, errors.ServiceUnavailable, 2),
        (httpx.ReadError, errors.ServiceUnavailable, 2), (httpx.RemoteProtocolError, errors.ServiceUnavailable, 2),
        (httpx.ReadTimeout, errors.DeadlineExceeded, 1), (httpx.DecodingError, errors.InternalError, 1),
    ],
)  # fmt: skip
def test_no_error_of_the_network_library_ever_comes_out(client_of, failure, kind, n_attempts):
    attempts = []

    def gateway(request):
        attempts.append(request)
        raise failure("it broke", request=request)

    with pytest.raises(kind):
        client_of(gateway, retries=1).call("images.get", "img_1")
    assert len(attempts) == n_attempts


def test_a_redirect_is_not_followed_with_the_token(client_of):
    asked = []

    def gateway(request):
        asked.append(str(request.url))
        return httpx.Response(307, headers={"location": "http://elsewhere.test/"})

    with pytest.raises(errors.FulcrumError):
        client_of(gateway, retries=0).call("me")
    assert asked == [f"{URL}/v1/me"]


@pytest.mark.parametrize("thing", ["", "..", "../users", "img_1?a=b", "img_1:explain", "img_1#", "img 1"])
@pytest.mark.parametrize("name", ["images.get", "corrections.export", "results.get", "tokens.delete"])
def test_what_is_no_id_cannot_reach_into_another_resource(client_of, name, thing):
    def gateway(request):
        raise AssertionError("nothing may be sent")

    with pytest.raises(errors.InvalidRequest, match="no id"):
        client_of(gateway).call(name, thing)


def test_pages_are_asked_for_only_as_far_as_somebody_reads(client_of):
    asked = []

    def gateway(request):
        asked.append(dict(request.url.params))
        number = int(request.url.params.get("cursor", 0))
        following = str(number + 1) if number < 2 else None
        return respond({"items": [to_json(IMAGE)] * 2, "next_cursor": following})

    assert len(client_of(gateway).items("images.list")) == 6
    assert [a.get("cursor") for a in asked] == [None, "1", "2"]
    asked.clear()
    with Client(URL, TOKEN, transport=httpx.MockTransport(gateway)) as client:
        assert next(client.images.list()) == IMAGE
    assert len(asked) == 1


class Slow(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A stream of events whose end is noticed."""

    def __init__(self, *chunks):
        self.chunks, self.closed = chunks, False

    def __iter__(self):
        yield from self.chunks

    async def __aiter__(self):
        for chunk in self.chunks:
            yield chunk

    def close(self):
        self.closed = True

    async def aclose(self):
        self.closed = True


POINTS = b'event: points\ndata: {"gains": [0.0], "logits": [[0.5, 1.5, -1.0]], "target_values": [-1.0]}\n\n'


def done_event():
    answer = {"result_id": "res_1", "value": CURVE, "provenance": PROVENANCE}
    return b"event: done\ndata: " + httpx.Response(200, json=to_json(answer)).content + b"\n\n"


def sweeping(stream):
    def gateway(request):
        if request.url.path.endswith(":sweep"):
            return httpx.Response(200, headers={"content-type": "text/event-stream"}, stream=stream)
        raise AssertionError(request.url)

    return gateway


ARGUMENTS = ((IMAGE, 7, ["dog", "cat", "car"]), {"sae": SAE, "gains": [0.0, 1.0]})


def test_a_stream_gives_points_then_the_whole_and_is_closed(client_of):
    stream = Slow(b": ping\n\n" + POINTS[:20], POINTS[20:], done_event())
    points, curve = client_of(sweeping(stream)).stream("sweep", *ARGUMENTS[0], **ARGUMENTS[1])
    assert [p.gains.tolist() for p in points] == [[0.0]]
    assert curve.response.flip_interval == (0.0, 1.0)
    assert stream.closed


def test_leaving_a_stream_early_closes_the_connection_so_that_the_work_is_dropped(client_of):
    stream = Slow(POINTS, POINTS, done_event())
    first = client_of(sweeping(stream)).first("sweep", *ARGUMENTS[0], **ARGUMENTS[1])
    assert first.gains.tolist() == [0.0]
    assert stream.closed


def test_a_stream_that_breaks_is_closed_and_an_error(client_of):
    stream = Slow(POINTS)
    with pytest.raises(errors.ServiceUnavailable, match="before it was done"):
        client_of(sweeping(stream)).stream("sweep", *ARGUMENTS[0], **ARGUMENTS[1])
    assert stream.closed


def test_a_refused_stream_is_the_services_error(client_of):
    def gateway(request):
        content = {"reason": "LATENT_OUT_OF_RANGE", "status": 422, "detail": "latent 7", "request_id": "r"}
        return httpx.Response(422, headers={"content-type": "application/problem+json"}, json=content)

    with pytest.raises(errors.LatentOutOfRange):
        client_of(gateway).stream("sweep", *ARGUMENTS[0], **ARGUMENTS[1])


def test_waiting_between_attempts_takes_its_time(client_of):
    answers = iter([httpx.Response(429, headers={"retry-after": "0.2"}), respond(IMAGE)])
    begun = time.monotonic()
    assert client_of(lambda _: next(answers)).call("images.get", "img_1") == IMAGE
    assert time.monotonic() - begun >= 0.2


def test_a_model_is_waited_for_until_it_is_ready_or_has_failed(client_of):
    states = iter(["registered", "loading", "ready"])
    client = client_of(lambda _: respond({**to_json(SAE), "state": next(states)}))
    assert client.call("saes.wait", SAE.id).state == "ready"
    failing = client_of(lambda _: respond({**to_json(SAE), "state": "failed", "error": "no such file"}))
    with pytest.raises(errors.UnknownSae, match="no such file"):
        failing.call("saes.wait", SAE)
    loading = client_of(lambda _: respond({**to_json(SAE), "state": "loading"}))
    with pytest.raises(errors.DeadlineExceeded):
        loading.call("saes.wait", SAE, timeout_s=0)


def test_a_picture_may_be_an_open_file_for_both(client_of):
    def gateway(request):
        assert PNG in request.read()
        return respond(IMAGE, 201)

    assert client_of(gateway).call("images.upload", io.BytesIO(PNG)) == IMAGE


@pytest.mark.parametrize("settings", [{"timeout_s": 0}, {"timeout_s": float("inf")}, {"retries": -1}])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_impossible_settings_are_refused(kind, settings):
    with pytest.raises(errors.InvalidSettings):
        kind(URL, TOKEN, **settings)


def test_a_client_shows_where_it_speaks_to_and_never_its_token():
    with Client(URL, TOKEN) as client:
        assert repr(client) == f"Client('{URL}')"
        assert TOKEN not in repr(vars(client))
