"""Many users on one engine: what they share are forwards, and nothing else."""

import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fulcrum.demo.shipped import WEIGHTS, demo_model, demo_sae, demo_task
from fulcrum.domain.codec import to_json
from fulcrum.domain.edits import Add, Cap, ProjectOut, Scale, Scope, SetTo
from fulcrum.domain.errors import Cancelled, ComputationFailed, DeadlineExceeded, OutOfMemory, UnreadableImage
from fulcrum.domain.hook_points import HookPoint
from fulcrum.domain.models import ModelRef
from fulcrum.engine import cores
from fulcrum.engine.batched_tower import BatchedTower
from fulcrum.engine.batching import Batcher
from fulcrum.engine.cores import compute_on_one_core
from fulcrum.engine.encoding import embed_images
from fulcrum.engine.local import LocalEngine
from fulcrum.engine.residency import Residency
from fulcrum.engine.scopes import Cancellation, request_scope
from fulcrum.science.attribution.gradients import suffix_gradient
from fulcrum.science.vision.split import HookState, SplitTower
from fulcrum.science.vision.towers import split_tower

MODEL, SAE, TASK = demo_model(), demo_sae(), demo_task()
METHODS = ("act_x_grad", "integrated_gradients", "ablation")


@pytest.fixture(scope="module")
def batcher():
    with Batcher() as made:
        yield made


@pytest.fixture(scope="module")
def served(batcher):
    """An engine that batches."""
    return LocalEngine(batcher=batcher)


@pytest.fixture(scope="module")
def images(small_world):
    return [small_world.read_bytes(sample) for sample in small_world.samples[:6]]


@pytest.fixture(scope="module")
def strong(engine, images):
    """Latents that matter for the first image."""
    return [row.latent for row in engine.attribute(MODEL, SAE, images[0], TASK, n_latents=8).latents]


def edits_of(latents):
    """One or two edits of any kind."""
    latent = st.sampled_from(latents)
    edit = st.one_of(
        st.builds(Scale, latent, st.sampled_from([0.0, 0.5, 1.0, 3.0])),
        st.builds(SetTo, latent, st.floats(0, 5)),
        st.builds(Add, latent, st.floats(-2, 2)),
        st.builds(Cap, latent, st.floats(0, 2)),
        st.builds(ProjectOut, latent),
    )
    return st.lists(edit, min_size=1, max_size=2, unique_by=lambda e: e.latent)


def wait_for_rows(batcher, n):
    until = time.monotonic() + 20
    while batcher.queue_depth < n:
        assert time.monotonic() < until
        time.sleep(0.001)


def steer(engine, image, edits, *, user="", deterministic=True, n_controls=3):
    with request_scope(user, deterministic=deterministic):
        correction = engine.correction(MODEL, SAE, edits, task=TASK, scope=Scope())
        return engine.steer(MODEL, SAE, image, correction, TASK, n_controls=n_controls)


@pytest.mark.parametrize("method", METHODS)
def test_an_engine_that_batches_attributes_as_one_that_does_not(engine, served, images, method):
    plain = engine.attribute(MODEL, SAE, images[0], TASK, method=method, n_latents=5, n_steps=8)
    for deterministic in (False, True):
        with request_scope(deterministic=deterministic):
            found = served.attribute(MODEL, SAE, images[0], TASK, method=method, n_latents=5, n_steps=8)
        assert [r.latent for r in found.latents] == [r.latent for r in plain.latents]
        for mine, other in zip(found.latents, plain.latents, strict=True):
            assert mine.score == pytest.approx(other.score, abs=2e-3)
            assert mine.measured_effect == pytest.approx(other.measured_effect, abs=2e-3)


def test_an_engine_that_batches_answers_everything_else_as_one_that_does_not(engine, served, images, strong):
    np.testing.assert_allclose(
        served.encode_images(MODEL, images), engine.encode_images(MODEL, images), atol=1e-5
    )
    texts = ["a boat", "a dog", "a boat"]
    np.testing.assert_allclose(
        served.encode_texts(MODEL, texts), engine.encode_texts(MODEL, texts), atol=1e-5
    )
    np.testing.assert_allclose(
        served.residency.head(MODEL, TASK).class_embeddings,
        engine.residency.head(MODEL, TASK).class_embeddings,
        atol=1e-5,
    )
    gains = [0.0, 0.5, 1.0, 2.0]
    mine = served.sweep(MODEL, SAE, images[0], strong[:1], gains, TASK)
    other = engine.sweep(MODEL, SAE, images[0], strong[:1], gains, TASK)
    np.testing.assert_allclose(mine.logits, other.logits, atol=2e-3)
    assert served.encode_latents(MODEL, SAE, images[0]).latents.tolist() == (
        engine.encode_latents(MODEL, SAE, images[0]).latents.tolist()
    )
    wanted = engine.predict(MODEL, images[:1], TASK)[0].runner_up
    assert [s.edits for s in served.suggest(MODEL, SAE, images[0], TASK, wanted)] == [
        s.edits for s in engine.suggest(MODEL, SAE, images[0], TASK, wanted)
    ]
    assert [info.ref for info in served.models()] == [MODEL]


@pytest.mark.parametrize("batches", [False, True])
def test_predictions_with_a_correction_are_those_of_single_steers(engine, served, images, strong, batches):
    asked = served if batches else engine
    correction = asked.correction(MODEL, SAE, [Scale(strong[0], 0.0)], task=TASK)
    answers = asked.predict_steered(MODEL, SAE, images, correction, TASK)
    assert len(answers) == len(images)
    for image, answer in zip(images, answers, strict=True):
        effect = engine.steer(MODEL, SAE, image, correction, TASK, n_controls=0)
        np.testing.assert_allclose(answer.before.logits, effect.before.logits, atol=2e-3)
        np.testing.assert_allclose(answer.after.logits, effect.after.logits, atol=2e-3)
        assert answer.changed == effect.diagnostics.changed
    assert answers[0].changed


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_deterministic_effect_has_the_same_bits_alone_and_beside_others(served, images, strong, data):
    asked = data.draw(
        st.lists(st.tuples(st.integers(0, 2), edits_of(strong)), min_size=8, max_size=8), label="users"
    )
    alone = [to_json(steer(served, images[i], edits)) for i, edits in asked]
    everyone = threading.Barrier(len(asked) + 1)

    def user(number):
        image, edits = asked[number]
        everyone.wait(20)
        return to_json(steer(served, images[image], edits, user=f"u{number}"))

    def noise():  # free requests at the same moment
        everyone.wait(20)
        return [steer(served, images[3], [Scale(strong[1], 0.0)], deterministic=False) for _ in range(2)]

    with ThreadPoolExecutor(len(asked) + 1) as pool:
        together = [pool.submit(user, n) for n in range(len(asked))]
        pool.submit(noise).result(60)
        assert [future.result(60) for future in together] == alone


def test_every_deterministic_answer_has_the_same_bits_under_load(served, images, strong):
    def ask():
        with request_scope("me", deterministic=True):
            correction = served.correction(MODEL, SAE, [Scale(strong[0], 0.0)], task=TASK)
            return [
                served.encode_images(MODEL, images).tolist(),
                served.encode_texts(MODEL, ["a boat", "a dog"]).tolist(),
                *[
                    to_json(served.attribute(MODEL, SAE, images[0], TASK, method=m, n_latents=3))
                    for m in METHODS
                ],
                to_json(served.sweep(MODEL, SAE, images[0], strong[:2], [0.0, 0.5, 2.0], TASK)),
                [to_json(a) for a in served.predict_steered(MODEL, SAE, images, correction, TASK)],
            ]

    alone = ask()
    ended = threading.Event()

    def noise(number):
        with request_scope(f"noise {number}", deterministic=number % 2 == 0):
            while not ended.is_set():
                served.encode_images(MODEL, images[: 1 + number])
                served.encode_texts(MODEL, ["some text"] * (1 + number))

    with ThreadPoolExecutor(8) as pool:
        others = [pool.submit(noise, n) for n in range(4)]
        try:
            answers = [future.result(120) for future in [pool.submit(ask) for _ in range(3)]]
        finally:
            ended.set()
        for future in others:
            future.result(60)
    assert all(answer == alone for answer in answers)


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_user_ever_sees_an_edit_of_another_one(served, images, strong, data):
    asked = data.draw(st.lists(edits_of(strong), min_size=20, max_size=20), label="users")
    alone = [steer(served, images[0], edits, deterministic=False, n_controls=0) for edits in asked]
    everyone = threading.Barrier(len(asked))

    def user(number):
        everyone.wait(20)
        return [
            steer(served, images[0], asked[number], user=f"u{number}", deterministic=False, n_controls=0)
            for _ in range(2)
        ]

    with ThreadPoolExecutor(len(asked)) as pool:
        for isolated, effects in zip(alone, pool.map(user, range(len(asked))), strict=True):
            for effect in effects:
                # Rounding is 1e-4 here, and the smallest of these edits moves logits by far more.
                np.testing.assert_allclose(effect.before.logits, isolated.before.logits, atol=1e-3)
                np.testing.assert_allclose(effect.after.logits, isolated.after.logits, atol=1e-3)
                assert effect.diagnostics.changed == isolated.diagnostics.changed
                if not effect.diagnostics.changed:
                    assert (effect.after.logits == effect.before.logits).all()


@pytest.mark.parametrize("site", ["resid_post", "mlp_out", "attn_out", "mlp_in"])
def test_a_batched_tower_is_the_tower_with_and_without_gradients(engine, batcher, site):
    loaded = engine.residency.model(MODEL)
    tower = split_tower(loaded, HookPoint("visual", 1, site))
    batched = BatchedTower(tower, batcher, loaded.info.weights_sha256)
    assert isinstance(batched, SplitTower)
    pixels = torch.randn(3, 3, *loaded.preprocess.image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        state = tower.prefix(pixels)
        mine = batched.prefix(pixels)
        assert (mine.carry is None) == (state.carry is None)
        torch.testing.assert_close(mine.x, state.x)
        torch.testing.assert_close(batched.suffix(mine), tower.suffix(state))

    def target(embeddings):
        return (embeddings**3).sum(dim=1)

    for a, b in zip(
        suffix_gradient(batched, state, target), suffix_gradient(tower, state, target), strict=True
    ):
        torch.testing.assert_close(a, b)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    site=st.sampled_from(["resid_post", "mlp_out", "attn_out", "mlp_in"]),
    block=st.integers(0, 4),
    n_others=st.integers(0, 9),
    seed=st.integers(0, 100),
)
def test_a_row_has_the_same_bits_in_every_slot_of_a_bucket(engine, batcher, site, block, n_others, seed):
    loaded = engine.residency.model(MODEL)
    batched = BatchedTower(
        split_tower(loaded, HookPoint("visual", block, site)), batcher, loaded.info.weights_sha256
    )
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(n_others + 1, 3, *loaded.preprocess.image_size, generator=generator)
    with torch.no_grad(), request_scope(deterministic=True):
        at = seed % len(pixels)
        alone, together = batched.prefix(pixels[at : at + 1]), batched.prefix(pixels)
        assert torch.equal(together.x[at], alone.x[0])
        one = HookState(alone.x, alone.carry)
        assert torch.equal(batched.suffix(together)[at], batched.suffix(one)[0])


def test_a_deterministic_request_never_gets_an_activation_that_was_made_beside_others(images, batcher):
    engine = LocalEngine(batcher=batcher)
    cached = []
    for deterministic in (False, False, True, True, False):
        with request_scope(deterministic=deterministic) as figures:
            engine.encode_latents(MODEL, SAE, images[0])
        cached.append(figures.prefix_cached)
    assert cached == [False, True, False, True, True]


def test_models_with_the_same_weights_and_another_configuration_share_nothing(images, tmp_path):
    """An activation function has no weights, and GELU instead of QuickGELU is a mistake that people make."""
    shutil.copytree(WEIGHTS / "clip", tmp_path / "twin")
    file = tmp_path / "twin" / "open_clip_config.json"
    config = json.loads(file.read_text())
    config["model_cfg"]["quick_gelu"] = True
    file.write_text(json.dumps(config))
    twin, sae = ModelRef(f"local-dir:{tmp_path / 'twin'}"), "untrained:topk:64:4@visual.blocks.3.resid_post"
    models = (MODEL, twin)
    with Batcher() as batcher, ThreadPoolExecutor(2) as pool:
        engine, alone = LocalEngine(batcher=batcher), LocalEngine()
        assert engine.load_model(twin).weights_sha256 == engine.load_model(MODEL).weights_sha256
        free, entered = threading.Event(), threading.Event()

        def hold_the_device():
            entered.set()
            assert free.wait(20)

        holding = threading.Thread(target=batcher.run_alone, args=(hold_the_device,))
        holding.start()
        assert entered.wait(20)
        together = [pool.submit(engine.encode_images, model, images[:1]) for model in models]
        while batcher.queue_depth < 3:
            time.sleep(0.001)
        free.set()
        holding.join()
        for model, answer in zip(models, together, strict=True):
            np.testing.assert_allclose(answer.result(20), alone.encode_images(model, images[:1]), atol=1e-5)
            latents = engine.encode_latents(model, sae, images[0])
            expected = alone.encode_latents(model, sae, images[0])
            np.testing.assert_array_equal(latents.latents, expected.latents)
            np.testing.assert_allclose(latents.values, expected.values, atol=1e-4)
        difference = alone.encode_images(MODEL, images[:1]) - alone.encode_images(twin, images[:1])
        assert np.abs(difference).max() > 1e-3


def test_an_answer_says_how_it_came_about(served, images, strong):
    with request_scope("me", deterministic=True) as figures:
        correction = served.correction(MODEL, SAE, [Scale(strong[0], 0.0)], task=TASK)
        served.steer(MODEL, SAE, images[0], correction, TASK, n_controls=0)
        told = served.provenance(MODEL, SAE, figures)
        plain = served.provenance(MODEL, None, figures)
    assert told.model_sha256 == correction.model_sha256 == plain.model_sha256
    assert told.sae_sha256 == correction.sae_sha256
    assert told.hook_point == correction.hook_point
    assert plain.sae_sha256 is None
    assert plain.hook_point is None
    assert told.deterministic
    assert told.batch_size == 8
    assert told.compute_ms > 0
    assert (told.device, told.dtype, told.torch_version) == ("cpu", "float32", torch.__version__)


def test_an_image_that_gives_no_finite_embedding_fails_alone(images):
    with Batcher() as batcher:
        engine = LocalEngine(batcher=batcher)
        loaded = engine.residency.model(MODEL)
        good = engine.encode_images(MODEL, images[:1])
        inside, go_on = threading.Event(), threading.Event()

        def block():
            inside.set()
            assert go_on.wait(20)

        def poisoned():
            pixels = torch.full((1, 3, *loaded.preprocess.image_size), float("nan"))
            return embed_images(loaded, pixels, batcher)

        with ThreadPoolExecutor(4) as pool:
            pool.submit(batcher.run_alone, block)
            assert inside.wait(20)
            bad = pool.submit(poisoned)
            fine = pool.submit(engine.encode_images, MODEL, images[:1])
            wait_for_rows(batcher, 3)
            go_on.set()
            with pytest.raises(ComputationFailed, match="not finite"):
                bad.result(20)
            np.testing.assert_allclose(fine.result(20), good, atol=1e-5)
        assert batcher.counts.retried_batches == 1


def test_an_unreadable_image_does_not_reach_the_device(served, batcher, images):
    before = batcher.counts.batches
    with request_scope(), pytest.raises(UnreadableImage):
        served.encode_images(MODEL, [b"not an image"])
    assert batcher.counts.batches == before


def test_work_for_a_caller_who_went_away_stops(served, images, strong):
    cancellation = Cancellation()
    cancellation.set()
    with request_scope(cancellation=cancellation), pytest.raises(Cancelled):
        served.encode_images(MODEL, images)
    with request_scope(timeout_s=0.0), pytest.raises(DeadlineExceeded):
        served.encode_latents(MODEL, SAE, images[0])
    assert served.encode_images(MODEL, images[:1]).shape[0] == 1


def test_a_request_that_waits_for_anothers_prefix_makes_it_itself_when_that_one_goes_away(images):
    with Batcher() as batcher:
        engine = LocalEngine(batcher=batcher)
        engine.load_sae(SAE, MODEL)
        inside, go_on, cancellation = threading.Event(), threading.Event(), Cancellation()

        def block():
            inside.set()
            assert go_on.wait(20)

        def latents(**scope):
            with request_scope(**scope):
                return engine.encode_latents(MODEL, SAE, images[0]).latents.tolist()

        with ThreadPoolExecutor(4) as pool:
            pool.submit(batcher.run_alone, block)
            assert inside.wait(20)
            first = pool.submit(latents, cancellation=cancellation)
            wait_for_rows(batcher, 2)
            second = pool.submit(latents)
            late = pool.submit(latents, timeout_s=0.05)
            with pytest.raises(DeadlineExceeded):
                late.result(20)
            cancellation.set()
            with pytest.raises(Cancelled):
                first.result(20)
            go_on.set()
            assert second.result(20)


def test_memory_that_is_full_outside_a_forward_is_told_as_such(images, strong):
    class Full(Residency):
        def steerable(self, ref, sae):
            raise torch.OutOfMemoryError("Tried to allocate 20 GiB")

    engine = LocalEngine(residency=Full())
    with pytest.raises(OutOfMemory, match="20 GiB") as raised:
        engine.encode_latents(MODEL, SAE, images[0])
    assert raised.value.retry_after_s


def test_threads_that_call_the_engine_leave_the_cores_to_the_device_thread():
    own = torch.get_num_threads()
    with Batcher(threads=2) as batcher, ThreadPoolExecutor(1, initializer=compute_on_one_core) as pool:
        assert pool.submit(torch.get_num_threads).result(20) == 1
        assert batcher.run_alone(torch.get_num_threads) == 2
    assert torch.get_num_threads() == own
    torch.set_num_threads(own)  # also for threads that are still to come


def test_few_rows_of_a_small_model_run_on_one_core_and_many_on_all(images, monkeypatch):
    own = torch.get_num_threads()
    used = []

    def seen(module, inputs):
        used.append((len(inputs[0]), torch.get_num_threads()))

    with Batcher(threads=2) as batcher, ThreadPoolExecutor(1, initializer=compute_on_one_core) as pool:
        engine = LocalEngine(batcher=batcher)
        loaded = engine.residency.model(MODEL)
        hook = loaded.model.visual.ln_post.register_forward_pre_hook(seen)
        product = engine.residency.steerable(MODEL, SAE).tower.widest_product
        monkeypatch.setattr(cores, "ONE_CORE_PRODUCT", 2 * product)
        pool.submit(engine.encode_images, MODEL, images[:2]).result(60)
        pool.submit(engine.encode_images, MODEL, images[:3]).result(60)
        pool.submit(engine.attribute, MODEL, SAE, images[0], TASK).result(60)
        hook.remove()
        assert batcher.run_alone(torch.get_num_threads) == 2
    torch.set_num_threads(own)
    assert used[:2] == [(2, 1), (3, 2)]
    assert {(rows > 2, threads) for rows, threads in used} == {(False, 1), (True, 2)}


def test_an_engine_takes_the_batcher_of_the_residency_it_is_given(batcher):
    assert LocalEngine(residency=Residency(batcher=batcher)).batcher is batcher


def test_a_storm_of_requests_that_are_cancelled_or_late_leaves_nothing_behind(images, strong):
    rng = np.random.default_rng(0)
    with Batcher(max_rows=8) as batcher:
        engine = LocalEngine(batcher=batcher, prefix_budget_bytes=1 << 20)
        before = engine.encode_images(MODEL, images[:1])
        engine.load_sae(SAE, MODEL)
        engine.residency.head(MODEL, TASK)
        ended = threading.Event()
        plans = [(rng.random(30), rng.integers(0, 4, 30)) for _ in range(24)]

        def user(number):
            outcomes = []
            chances, kinds = plans[number]
            for chance, kind in zip(chances, kinds, strict=True):
                if ended.is_set():
                    break
                cancellation = Cancellation()
                timer = threading.Timer(float(chance) * 0.2, cancellation.set)
                timer.start()
                try:
                    with request_scope(
                        f"u{number % 5}",
                        deterministic=bool(kind % 2),
                        timeout_s=0.02 if chance > 0.8 else None,
                        cancellation=cancellation,
                    ):
                        if kind < 2:
                            engine.encode_images(MODEL, images[: 1 + number % 3])
                        elif kind == 2:
                            engine.attribute(MODEL, SAE, images[number % 6], TASK, n_latents=3)
                        else:
                            engine.predict_steered(
                                MODEL,
                                SAE,
                                images[:2],
                                engine.correction(MODEL, SAE, [Scale(strong[0], 0.0)]),
                                TASK,
                            )
                    outcomes.append("done")
                except (Cancelled, DeadlineExceeded) as error:
                    outcomes.append(error.reason)
                finally:
                    timer.cancel()
                    timer.join()
            return outcomes

        with ThreadPoolExecutor(len(plans)) as pool:
            ending = threading.Timer(4.0, ended.set)
            ending.start()
            outcomes = {o for each in pool.map(user, range(len(plans)), timeout=120) for o in each}
            ending.cancel()
            ending.join()
        # On a busy machine nobody may have been in time; that others are answered afterwards is seen below.
        assert outcomes - {"done"} == {"CANCELLED", "DEADLINE_EXCEEDED"}
        # A forward that was running for callers who are gone may still be at it.
        until = time.monotonic() + 20
        while batcher.queue_depth:
            assert time.monotonic() < until
            time.sleep(0.001)
        assert batcher.queued_bytes == 0
        assert engine.residency.counts.n_in_use == 0
        np.testing.assert_allclose(engine.encode_images(MODEL, images[:1]), before, atol=1e-5)
