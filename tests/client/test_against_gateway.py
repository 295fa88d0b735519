"""The SDK against the whole platform: HTTP to the gateway, gRPC to the inference service, the demo model."""

import asyncio
import io
import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from tests.inference.running import Running

from fulcrum.client import AsyncClient, Client, LogitTarget, ModelRef, Scale
from fulcrum.demo.shipped import WEIGHTS, demo_task
from fulcrum.demo.world import render, with_sticker
from fulcrum.demo.world_dataset import natural_scene
from fulcrum.domain import errors
from fulcrum.domain.corrections import from_dict
from fulcrum.gateway.settings import Settings
from fulcrum.store.artifacts import open_artifacts

MODEL, SAE = ModelRef("folder:demo/clip"), "folder:demo/sae"
TASK = demo_task()
LABEL, WORD = TASK.names[0], TASK.names[1]


@pytest.fixture(scope="module")
def inference(tmp_path_factory):
    """The inference service and the folder of artifacts that it shares with the gateway."""
    url = f"file://{tmp_path_factory.mktemp('artifacts')}"
    with Running(artifacts_url=url) as running:
        yield running


@pytest.fixture
def artifacts(inference):
    return open_artifacts(inference.settings.artifacts_url)


@pytest.fixture
def engine():
    """None: the gateway opens the service of its settings."""


@pytest.fixture
def gateway_settings(store, empty_redis, tmp_path, inference):
    return Settings(
        database_url=f"sqlite:///{tmp_path / 'fulcrum.db'}",
        artifacts_url=inference.settings.artifacts_url,
        redis_url=empty_redis,
        inference_address=inference.address,
        requests_per_minute=100_000,
        request_burst=10_000,
    )


@pytest.fixture(scope="module")
def picture():
    """An object with a sticker that says another one's name, as the bytes of a PNG."""
    rng = np.random.default_rng(7)
    scene = with_sticker(rng, natural_scene(rng, LABEL), WORD)
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(render(scene).image)).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def token(platform):
    return platform.token_of(platform.admin_user)


@pytest.fixture
def client(platform, token):
    with Client(platform.url, token, retries=1) as opened:
        yield opened


@pytest.fixture
def colleagues_token(platform):
    return platform.token_of(platform.new_user("Rae", "reviewer"))


@pytest.fixture
def colleague(platform, colleagues_token):
    with Client(platform.url, colleagues_token, retries=1) as opened:
        yield opened


@pytest.fixture
def ready(client):
    """The client of a project with the demo's model and SAE."""
    model = client.models.wait(client.models.create("demo", MODEL))
    client.saes.wait(client.saes.create("demo", model, SAE))
    return client


def test_from_an_upload_to_a_saved_correction(ready, picture, tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(picture)
    why = ready.explain(path, TASK)
    assert why.image.filename == "photo.png"
    assert why.prediction.class_names == TASK.names
    assert len(why.latents) == 20
    assert all(a.measured_effect is not None for a in why.latents)

    tried = ready.steer(why, [Scale(a.latent, 0.0) for a in why.latents[:5]], n_controls=4)
    assert tried.before.class_names == TASK.names
    np.testing.assert_allclose(tried.before.logits, why.prediction.logits, atol=1e-4)
    assert not np.allclose(tried.after.logits, tried.before.logits, atol=1e-3)

    record = ready.save_correction("less sticker", tried, description="found by hand")
    version = ready.corrections.version(record)
    assert version.correction == tried.correction
    assert version.sha256 == tried.correction.sha256
    assert version.correction.origin.image_sha256 == (why.image.sha256,)
    assert record.sae_id == why.sae.id

    again = ready.steer(why, record, n_controls=0)
    np.testing.assert_allclose(again.after.logits, tried.after.logits, atol=1e-4)
    assert again.edits == tried.edits


def test_answers_are_kept_with_their_questions(ready, picture):
    session = ready.sessions.create("stickers")
    why = ready.explain(picture, TASK, n_latents=3, session=session, deterministic=True)
    kept = ready.results.get(why.result_id)
    assert kept.kind == "attribution"
    assert kept.request["deterministic"] is True
    assert kept.response["value"]["latents"][0]["latent"] == why.latents[0].latent
    assert [r.id for r in ready.results.list(kind="attribution")] == [why.result_id]
    assert [e.result_id for e in ready.sessions.entries(session)] == [why.result_id]


def test_heatmaps_and_tables_come_from_one_explanation(ready, picture):
    why = ready.explain(picture, TASK, per_token=True, n_latents=4, target=LogitTarget(WORD))
    heat = why.heatmap(why.latents[0].latent)
    assert heat.shape == why.attribution.grid
    assert len(why.to_numpy()) == len(why.to_pandas()) == 4
    assert "class" in why._repr_html_()


def test_a_sweep_streams_points_and_ends_with_the_curve(ready, picture):
    why = ready.explain(picture, TASK, n_latents=1)
    gains = [0.0, 0.5, 1.0, 2.0]
    stream = ready.sweep(why, why.latents[0].latent, gains=gains)
    points = list(stream)
    curve = stream.result()
    assert [g for p in points for g in p.gains] == gains
    np.testing.assert_allclose(np.concatenate([p.logits for p in points]), curve.response.logits)
    at_one = curve.response.logits[gains.index(1.0)]
    np.testing.assert_allclose(at_one, why.prediction.logits, atol=1e-3)
    assert ready.results.get(curve.result_id).kind == "dose_response"


def test_suggestions_stream_and_can_be_tried(ready, picture):
    why = ready.explain(picture, TASK, n_latents=1)
    wanted = why.prediction.runner_up
    found = ready.suggest(why, wanted, max_latents=3).result()
    assert found.wanted == wanted
    assert len(found) > 0
    for suggestion in found:
        after = ready.steer(why, list(suggestion.edits), n_controls=0).after
        assert (after.top == wanted) == suggestion.flips


def test_a_stream_that_is_closed_early_leaves_the_gateway_well(ready, picture):
    why = ready.explain(picture, TASK, n_latents=1)
    with ready.sweep(why, why.latents[0].latent, gains=np.linspace(0, 2, 33)) as stream:
        next(stream)
    with pytest.raises(errors.Cancelled):
        stream.result()
    assert ready.me().name == "admin"


def test_many_images_are_predicted_before_and_after_a_correction(ready, picture):
    why = ready.explain(picture, TASK, n_latents=3)
    other = Image.new("RGB", (64, 64), (200, 30, 30))
    plain = ready.predict([picture, other], TASK)
    assert plain.after is None
    assert len(plain) == 2
    steered = ready.predict([why, other], correction=[Scale(why.latents[0].latent, 0.0)])
    assert steered.task == TASK
    np.testing.assert_allclose(steered.before[1].logits, plain.before[1].logits, atol=1e-4)
    assert steered.to_numpy().shape == (2, len(TASK.names))
    assert list(steered.to_pandas().columns)[-1] == "flipped"


def test_the_same_bytes_twice_are_one_image(client, picture):
    first, second = client.images.upload(picture), client.images.upload(io.BytesIO(picture))
    assert first == second
    assert client.images.content(first) == picture
    assert client.images.thumbnail(first).startswith(b"\xff\xd8")


def test_lists_are_read_page_by_page(client, monkeypatch):
    for n in range(5):
        client.datasets.create(f"set {n}")
    monkeypatch.setattr("fulcrum.client.wire.PAGE_SIZE", 2)
    names = [d.name for d in client.datasets.list()]
    assert names == [f"set {n}" for n in reversed(range(5))]


def test_latents_of_an_image_fit_its_tokens(ready, picture):
    image, sae = ready.images.upload(picture), ready.saes.choose()
    found = ready.images.latents(image, sae)
    assert found.offsets[-1] == len(found.latents) == len(found.values)
    assert found.d_sae == sae.info.d_sae


def test_a_change_of_what_somebody_else_changed_is_refused(client):
    seen = client.datasets.create("photos")
    client.datasets.update(seen, description="new")
    with pytest.raises(errors.StaleVersion):
        client.datasets.update(seen, description="other")
    assert client.datasets.update(seen.id, description="by id").description == "by id"
    client.datasets.delete(client.datasets.get(seen))
    with pytest.raises(errors.UnknownDataset):
        client.datasets.get(seen)


def test_a_correction_goes_on_in_versions_and_comes_home_as_a_file(ready, picture, tmp_path):
    why = ready.explain(picture, TASK, n_latents=2)
    first = ready.steer(why, Scale(why.latents[0].latent, 0.5), n_controls=0).correction
    record = ready.corrections.create("halved", first, sae=why.sae, model=why.sae.model_id)
    with pytest.raises(errors.AlreadyExists):
        ready.corrections.add_version(record, first)
    second = ready.steer(why, Scale(why.latents[0].latent, 0.0), n_controls=0).correction
    assert ready.corrections.add_version(record, second, note="stronger").number == 2
    assert [v.number for v in ready.corrections.versions(record)] == [2, 1]
    assert ready.corrections.version(record, 1).correction == first
    target = tmp_path / "home.json"
    assert ready.corrections.export(record, target) == target.read_bytes()
    assert from_dict(json.loads(target.read_bytes())).sha256 == second.sha256
    assert [c.id for c in ready.corrections.list(sae=why.sae)] == [record.id]


def test_concepts_name_latents_in_the_display(ready, picture):
    why = ready.explain(picture, TASK, n_latents=1)
    latent = why.latents[0].latent
    with pytest.raises(errors.UnknownConcept):
        ready.concepts.get(why.sae, latent)
    seen = ready.concepts.put(why.sae, latent, "sticker")
    ready.concepts.put(why.sae, latent, "written word", expected=seen)
    with pytest.raises(errors.StaleVersion):
        ready.concepts.put(why.sae, latent, "late", expected=seen)
    labels = ready.concepts.labels(why.sae)
    assert labels == {latent: "written word"}
    assert "written word" in why.with_labels(labels)._repr_html_()
    assert [c.latent for c in ready.concepts.list(why.sae, words="written")] == [latent]


def test_a_label_waits_until_a_colleague_has_confirmed_it(
    ready, colleague, colleagues_token, platform, picture
):
    sae = ready.explain(picture, TASK, n_latents=1).sae
    seen = ready.concepts.put(sae, 3, "wheel")
    assert [c.latent for c in colleague.concepts.list(sae, review="proposed")] == [3]
    with pytest.raises(errors.ReviewerIsAuthor):
        ready.concepts.review(sae, 3, "confirm")
    newer = ready.concepts.put(sae, 3, "tyre")
    with pytest.raises(errors.StaleVersion):
        colleague.concepts.review(sae, 3, "confirm", expected=seen)
    confirmed = colleague.concepts.review(sae, 3, "confirm", expected=newer, note="clear")
    assert (confirmed.review, confirmed.review_note) == ("confirmed", "clear")
    with pytest.raises(errors.NothingToReview):
        colleague.concepts.review(sae, 3, "reject")
    ready.concepts.put(sae, 3, "ring")

    async def reject():
        async with AsyncClient(platform.url, colleagues_token) as waiting:
            return await waiting.concepts.review(sae, 3, "reject")

    back = asyncio.run(reject())
    assert (back.label, back.review, back.history[0].label) == ("tyre", "confirmed", "ring")


def test_an_sae_of_ones_own_is_uploaded_and_used(client, picture):
    model = client.models.create("demo", MODEL)
    sae = client.saes.wait(client.saes.upload("mine", model, WEIGHTS / "sae"))
    assert sae.source.startswith("artifact:")
    assert client.explain(picture, TASK, sae="mine", n_latents=1).sae.id == sae.id


def test_a_model_that_cannot_be_loaded_says_why(client):
    model = client.models.create("nothing", ModelRef("folder:demo/nothing"))
    with pytest.raises(errors.UnknownModel, match=r"'nothing' cannot be loaded: .+"):
        client.models.wait(model)


def test_errors_of_the_engine_arrive_as_they_were_raised(ready, picture):
    why = ready.explain(picture, TASK, n_latents=1)
    with pytest.raises(errors.LatentOutOfRange) as caught:
        ready.steer(why, Scale(10_000_000, 0.0))
    assert any(note.startswith("request ") for note in caught.value.__notes__)
    with pytest.raises(errors.InvalidTarget):
        ready.explain(picture, TASK, target=LogitTarget("unicorn"))
    with pytest.raises(errors.UnknownImage):
        ready.images.get("img_" + "0" * 26)
    with pytest.raises(errors.UnreadableImage):
        ready.images.upload(b"\x89PNG\r\n\x1a\n" + b"truncated")


def test_who_may_not_is_told_so(platform, client):
    with (
        Client(platform.url, platform.token_of(platform.new_user("reader", "viewer"))) as reader,
        pytest.raises(errors.Forbidden),
    ):
        reader.datasets.create("mine")
    with Client(platform.url, "fct_tok_wrong", retries=0) as stranger, pytest.raises(errors.Unauthenticated):
        stranger.me()


def test_tokens_are_made_used_and_revoked(platform, client):
    made = client.tokens.create("notebook", scopes=["write"])
    assert made.token not in repr(made)
    with Client(platform.url, made.token, retries=0) as other:
        assert other.me().name == "admin"
        with pytest.raises(errors.Forbidden):
            other.tokens.create("greater", scopes=["admin"])
        client.tokens.delete(made.record)
        with pytest.raises(errors.Unauthenticated):
            other.me()
    assert made.record.id in [t.id for t in client.tokens.list()]


def test_people_are_invited_into_projects(client, platform):
    project = client.projects.create("Second")
    invited = client.users.invite("Ada", project=project, role="reviewer")
    assert "link=" in invited.login_link
    assert invited.login_link not in repr(invited)
    assert {m.user_id: m.role for m in client.projects.members(project)}[invited.user.id] == "reviewer"
    client.projects.put_member(project, invited.user, "viewer")
    client.projects.remove_member(project, invited.user)
    assert invited.user.id not in [m.user_id for m in client.projects.members(project)]
    assert client.users.update(invited.user, disabled=True).disabled
    assert {"First project", "Second"} <= {p.name for p in client.projects.list()}


def test_a_project_of_choice_holds_what_is_made(platform, token, client):
    project = client.projects.create("Other")
    with Client(platform.url, token, project_id=project.id) as other:
        made = other.datasets.create("there")
        assert made.project_id == project.id
        assert [d.id for d in other.datasets.list()] == [made.id]
    assert list(client.datasets.list()) == []


def test_the_awaiting_client_does_the_same(platform, token, ready, picture):
    async def story():
        async with AsyncClient(platform.url, token) as client:
            why = await client.explain(picture, TASK, n_latents=2)
            tried, curve = await asyncio.gather(
                client.steer(why, Scale(why.latents[0].latent, 0.0), n_controls=0),
                client.sweep(why, [why.latents[0].latent], gains=[0.0, 1.0]).result(),
            )
            record = await client.save_correction("awaited", tried)
            return why, tried, curve, record, [c.name async for c in client.corrections.list()]

    why, tried, curve, record, names = asyncio.run(story())
    assert names == ["awaited"]
    np.testing.assert_allclose(curve.response.logits[0], tried.after.logits, atol=1e-3)
    assert ready.corrections.version(record).correction == tried.correction
    assert why.prediction.top == tried.before.top


def test_threads_share_one_client(ready, picture):
    why = ready.explain(picture, TASK, n_latents=4)
    alone = [ready.steer(why, Scale(a.latent, 0.0), n_controls=0, deterministic=True) for a in why.latents]
    with ThreadPoolExecutor(4) as pool:
        together = list(
            pool.map(
                lambda a: ready.steer(why, Scale(a.latent, 0.0), n_controls=0, deterministic=True),
                why.latents,
            )
        )
    for one, other in zip(alone, together, strict=True):
        assert one.edits == other.edits
        np.testing.assert_allclose(one.after.logits, other.after.logits, atol=1e-4)
