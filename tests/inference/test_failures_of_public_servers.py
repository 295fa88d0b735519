"""What was seen to break other model servers, each as a test of this one."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from tests.inference.running import MODEL, SAE, Running, png

from fulcrum.domain.codec import to_json
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import (
    Cancelled,
    DeadlineExceeded,
    InternalError,
    OutOfMemory,
    ServiceUnavailable,
    Unavailable,
    UnreadableImage,
)


@pytest.fixture
def own():
    """A service for one test, with its model loaded and a hand on its device."""
    with Running(drain_s=2, canary_every_s=0.2) as running, running.client() as client:
        client.warm_model(MODEL, SAE)
        running.device = Device(running.server)
        yield running


class Device:
    """Holds the device thread, so that requests queue up behind it, and lets forwards of the image tower fail."""

    def __init__(self, server):
        self._batcher = server.batcher
        self._residency = server.engine.residency
        self._free = threading.Event()

    def hold(self):
        self._free.clear()
        held = threading.Event()

        def work():
            held.set()
            assert self._free.wait(30)

        self._thread = threading.Thread(target=lambda: self._batcher.run_alone(work))
        self._thread.start()
        assert held.wait(10)

    def wait_for_rows(self, n):
        """Until `n` rows wait behind the one that holds the device."""
        deadline = time.monotonic() + 20
        while self._batcher.queue_depth < n + 1 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert self._batcher.queue_depth >= n + 1

    def release(self):
        self._free.set()
        self._thread.join()

    def fail_when(self, check):
        """`check` sees the pixels that enter the image tower, and may raise."""
        [loaded] = self._residency.models()
        return loaded.model.visual.conv1.register_forward_pre_hook(lambda module, inputs: check(inputs[0]))


def healthy(client):
    deadline = time.monotonic() + 10
    while not client.health() and time.monotonic() < deadline:
        time.sleep(0.02)
    return client.health()


def same_logits(found, known):
    np.testing.assert_allclose(found.logits, known.logits, rtol=1e-4, atol=1e-4)


def test_an_image_of_one_pixel_is_answered_and_the_next_request_is_right(own, local, local_names, task):
    with own.client() as client:
        tiny = png(1, (1, 1))
        same_logits(client.predict(MODEL, [tiny], task)[0], local.predict(local_names[0], [tiny], task)[0])
        assert client.attribute(MODEL, SAE, tiny, task).latents
        for broken in (b"", b"\x89PNG\r\n\x1a\n", png(1)[:60], b"GIF89a" + b"0" * 50):
            with pytest.raises(UnreadableImage):
                client.predict(MODEL, [png(2), broken], task)
        same_logits(
            client.predict(MODEL, [png(2)], task)[0], local.predict(local_names[0], [png(2)], task)[0]
        )
        assert healthy(client)


def test_a_wave_of_client_timeouts_leaves_no_work_and_no_damage(own, local, local_names, task):
    with own.client() as client:
        client.predict(MODEL, [png(0)], task)  # its classes are known
    before = own.server.batcher.counts
    own.device.hold()

    def impatient(n):
        with own.client(user=f"user {n % 5}", timeout_s=0.25) as client:
            try:
                client.predict(MODEL, [png(n)], task)
            except (DeadlineExceeded, Cancelled) as error:
                return type(error)
        return None

    with ThreadPoolExecutor(40) as pool:
        outcomes = list(pool.map(impatient, range(40)))
    assert outcomes == [DeadlineExceeded] * 40
    deadline = time.monotonic() + 10
    while own.server.workers.n_calls and time.monotonic() < deadline:
        time.sleep(0.01)
    assert own.server.workers.n_calls == 0  # although the device still hangs
    own.device.release()
    with own.client(timeout_s=20) as client:
        same_logits(
            client.predict(MODEL, [png(1)], task)[0], local.predict(local_names[0], [png(1)], task)[0]
        )
        assert healthy(client)
    after = own.server.batcher.counts
    assert after.dropped - before.dropped >= 20  # the others did not even come as far as the queue
    assert after.rows - before.rows < 20  # of these forty, none ran


def test_one_poisoned_item_fails_alone(own, local, local_names, task):
    poison = torch.tensor(0.0)

    def check(pixels):
        if (pixels.flatten(1).std(dim=1) == poison).any():
            raise RuntimeError("a kernel that chokes on a flat picture")

    hook = own.device.fail_when(check)
    flat = _flat()
    images = [png(n) for n in range(5)] + [flat] + [png(n) for n in range(5, 8)]
    with own.client() as client:
        client.predict(
            MODEL, [png(0)], task
        )  # its classes are known, so that what waits below are images alone
    own.device.hold()

    def ask(image):
        with own.client() as client:
            try:
                return client.predict(MODEL, [image], task)[0]
            except InternalError as error:
                return error

    with ThreadPoolExecutor(len(images)) as pool:
        waiting = [pool.submit(ask, image) for image in images]
        own.device.wait_for_rows(len(images))
        own.device.release()
        found = [future.result() for future in waiting]
    hook.remove()
    for image, answer in zip(images, found, strict=True):
        if image == flat:
            assert isinstance(answer, InternalError)
            assert "chokes" not in str(answer)
        else:
            same_logits(answer, local.predict(local_names[0], [image], task)[0])
    assert own.server.batcher.counts.retried_batches >= 1


def _flat():
    import io

    from PIL import Image

    file = io.BytesIO()
    Image.new("L", (64, 64), 128).convert("RGB").save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def edits(local, local_names, task):
    """Different corrections, some with two edits."""
    latents = [a.latent for a in local.attribute(*local_names, png(1), task, n_latents=6).latents]
    return [
        local.correction(
            *local_names, [Scale(latents[n % 6], n / 4), Scale(latents[(n + 1) % 6], 0.0)][: 1 + n % 2]
        )
        for n in range(8)
    ]


def test_users_who_steer_at_the_same_moment_never_see_each_others_edit(own, edits, task):
    """Bit-equal to runs alone, in one forward with everybody."""

    def steer(n, correction, image):
        with own.client(user=f"user {n}", deterministic=True) as client:
            return to_json(client.steer(MODEL, SAE, image, correction, task, n_controls=3))

    image = png(1)
    alone = [steer(n, correction, image) for n, correction in enumerate(edits)]
    assert len({str(effect["after"]["logits"]) for effect in alone}) == len(edits)  # they do differ
    for _ in range(3):
        own.device.hold()
        with ThreadPoolExecutor(16) as pool:
            waiting = [pool.submit(steer, n, c, image) for n, c in enumerate(edits)]
            noise = [pool.submit(steer, 100 + n, edits[n], png(50 + n)) for n in range(8)]
            own.device.wait_for_rows(len(edits))
            own.device.release()
            together = [future.result() for future in waiting]
            for future in noise:
                future.result()
        assert together == alone


def test_users_who_steer_under_load_get_their_own_answer_also_in_the_free_mode(
    own, edits, local, local_names, task
):
    known = [local.steer(*local_names, png(1), c, task, n_controls=0).after.logits for c in edits]
    unedited = local.predict(local_names[0], [png(1)], task)[0].logits

    def steer(n):
        with own.client(user=f"user {n % 3}") as client:
            return client.steer(MODEL, SAE, png(1), edits[n % len(edits)], task, n_controls=2)

    with ThreadPoolExecutor(12) as pool:
        for n, effect in enumerate(pool.map(steer, range(48))):
            np.testing.assert_allclose(effect.after.logits, known[n % len(edits)], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(effect.before.logits, unedited, rtol=1e-4, atol=1e-4)
    largest = max(own.server.batcher.counts.sizes)
    assert largest > 1


def test_steering_is_applied_or_refused_never_silently_left_out(own, edits, task):
    with own.client() as client:
        for deterministic in (False, True):
            with own.client(deterministic=deterministic) as asker:
                effect = asker.steer(MODEL, SAE, png(1), edits[0], task)
            assert effect.diagnostics.changed
            assert effect.diagnostics.fired == (True,)
            assert not np.array_equal(effect.before.logits, effect.after.logits)
        identity = client.steer(
            MODEL,
            SAE,
            png(1),
            type(edits[0])(edits[0].model_sha256, edits[0].sae_sha256, edits[0].hook_point, ()),
            task,
        )
    assert not identity.diagnostics.changed
    assert np.array_equal(identity.before.logits, identity.after.logits)


def test_out_of_memory_is_halved_and_answered(own, local, local_names, task):
    def check(pixels):
        if len(pixels) > 5:  # eight images, or nine rows with the canary's: either half fits
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    hook = own.device.fail_when(check)
    images = [png(n) for n in range(8)]
    with own.client() as client:
        found = client.predict(MODEL, images, task)
        for answer, known in zip(found, local.predict(local_names[0], images, task), strict=True):
            same_logits(answer, known)
    hook.remove()
    assert own.server.batcher.counts.out_of_memory >= 1


def test_lasting_lack_of_memory_is_said_with_a_time_to_retry_and_passes(own, local, local_names, task):
    def check(pixels):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    hook = own.device.fail_when(check)
    with own.client(timeout_s=20) as client:
        with pytest.raises(OutOfMemory) as raised:
            client.predict(MODEL, [png(1)], task)
        assert raised.value.retry_after_s > 0
        deadline = time.monotonic() + 10
        while client.health() and time.monotonic() < deadline:  # no forward passes
            time.sleep(0.02)
        assert not client.health()
        hook.remove()
        same_logits(
            client.predict(MODEL, [png(1)], task)[0], local.predict(local_names[0], [png(1)], task)[0]
        )
        assert healthy(client)


def test_a_device_beyond_repair_says_so_and_asks_for_a_new_process(own, task):
    def check(pixels):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    own.device.fail_when(check)
    with own.client(timeout_s=20) as client:
        with pytest.raises(ServiceUnavailable):
            client.predict(MODEL, [png(1)], task)
        assert _soon(own.server.fatal.is_set)
        with pytest.raises(Unavailable):
            client.predict(MODEL, [png(2)], task)
        assert _soon(lambda: not client.health())


def _soon(condition):
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()
