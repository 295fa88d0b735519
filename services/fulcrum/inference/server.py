"""The service put together: engine, border, health, figures; opened, drained, closed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import prometheus_client
import torch
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from fulcrum import telemetry
from fulcrum.domain.errors import InvalidSettings
from fulcrum.domain.models import ModelRef
from fulcrum.engine.batching import Batcher
from fulcrum.engine.local import LocalEngine
from fulcrum.engine.references import FOLDER, References
from fulcrum.engine.residency import Residency
from fulcrum.engine.sae_artifacts import SaeArtifacts
from fulcrum.engine.scopes import request_scope
from fulcrum.inference.answering import Answering
from fulcrum.inference.border import Border
from fulcrum.inference.calls import Workers
from fulcrum.inference.health import Health
from fulcrum.inference.images import Images
from fulcrum.inference.listening import bind, check_address
from fulcrum.inference.metrics import Metrics
from fulcrum.inference.servicer import Servicer
from fulcrum.inference.settings import Settings
from fulcrum.rpc.channels import server_options
from fulcrum.rpc.v1 import inference_pb2
from fulcrum.rpc.v1.inference_pb2_grpc import add_InferenceServicer_to_server
from fulcrum.science.vision.sources import HF_HUB
from fulcrum.store.artifacts import open_artifacts

MakeEngine = Callable[[Settings, Batcher], LocalEngine]

SERVICE: str = inference_pb2.DESCRIPTOR.services_by_name["Inference"].full_name

# A call that was told to stop needs a moment to say so to its caller.
_LAST_WORDS_S = 1.0

log = telemetry.logger(__name__)


class Server:
    """A service that listens. `fatal` is set when the device is beyond repair and the process has to go."""

    def __init__(self, settings: Settings, make_engine: MakeEngine | None = None) -> None:
        """Loads no model. `make_engine` is for engines of one's own. Raises InvalidSettings."""
        self.settings = settings
        self._loop = asyncio.get_running_loop()
        self.metrics = Metrics()
        self.workers = Workers(settings.max_concurrent_rpcs)
        self.fatal = asyncio.Event()
        artifacts = None if settings.artifacts_url is None else open_artifacts(settings.artifacts_url)
        self._saes = None if artifacts is None else SaeArtifacts(artifacts, settings.cache_dir)
        self.references = References(settings.folders, self._saes)
        self.batcher = Batcher(
            device_of(settings.device),
            max_rows=settings.max_batch_rows,
            max_queue_bytes=settings.max_queue_bytes,
            threads=settings.threads,
            on_fatal=self._on_fatal,
        )
        self.engine = (make_engine or engine_of)(settings, self.batcher)
        self.answering = Answering(self.engine, self.references, Images(artifacts, settings.max_image_bytes))
        self._canary_ref = None if settings.canary_model is None else model_ref(settings.canary_model)
        self.border = Border(
            SERVICE,
            self.workers,
            self.metrics,
            token=None if settings.token is None else settings.token.get_secret_value(),
            max_call_s=settings.max_call_s,
            max_message_bytes=settings.max_message_bytes,
            public=self.references.public,
        )
        self.health = Health(
            ("", SERVICE),
            self._canary,
            stalled_s=lambda: self.batcher.stalled_s if self.batcher.queue_depth else None,
            every_s=settings.canary_every_s,
            timeout_s=settings.canary_timeout_s,
            stall_s=settings.stall_s,
        )
        self._watch_figures()
        self._grpc: grpc.aio.Server | None = None
        self._figures: Any = None
        self.address = settings.address
        self.metrics_port: int | None = None

    async def start(self) -> None:
        """Listens; healthy once the canary model is loaded and a forward passed. Raises InvalidSettings."""
        server = grpc.aio.server(
            interceptors=[self.border],
            options=server_options(self.settings.max_message_bytes),
            # Ours comes first and gives its reason; this one bounds what is being refused.
            maximum_concurrent_rpcs=4 * self.settings.max_concurrent_rpcs + 64,
        )
        servicer = Servicer(self.answering, self.workers, self.border.shown, self.settings.max_call_s)
        add_InferenceServicer_to_server(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health.servicer, server)
        reflection.enable_server_reflection((SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        self.address = bind(server, self.settings)
        self._grpc = server
        self._serve_figures()
        await self.health.start()
        await server.start()
        log.info("listening", address=self.address, device=str(self.engine.residency.device))

    async def stop(self) -> None:
        """Healthy no more; new calls are refused, running ones get `drain_s`, then they are told to stop."""
        self.workers.stopping.set()
        await self.health.stop()
        n_calls = self.workers.n_calls
        log.info("draining", n_calls=n_calls)
        if not await self.workers.drained(self.settings.drain_s):
            self.workers.give_up()
            await self.workers.drained(_LAST_WORDS_S)
        if self._grpc is not None:
            await self._grpc.stop(_LAST_WORDS_S)
        self.workers.close()
        await asyncio.to_thread(self.batcher.close, _LAST_WORDS_S)
        if self._figures is not None:
            http, thread = self._figures
            await asyncio.to_thread(http.shutdown)
            http.server_close()
            thread.join()
        if self._saes is not None:
            self._saes.close()
        log.info("stopped", n_calls=self.workers.n_calls)

    def _on_fatal(self, error: BaseException) -> None:
        # On the device thread.
        log.critical("the device is beyond repair", error=str(error))
        self._loop.call_soon_threadsafe(self.fatal.set)

    def _canary(self) -> None:
        ref = None if self._canary_ref is None else self.references.model(self._canary_ref)
        with request_scope("health"):  # its own place in the queue, beside every user
            self.answering.canary(ref)

    def _watch_figures(self) -> None:
        batcher, engine = self.batcher, self.engine
        self.metrics.watch(
            gauges={
                "healthy": ("1 while the health check passes.", lambda: float(self.health.serving)),
                "calls_in_work": ("Calls that hold a thread.", lambda: self.workers.n_calls),
                "queue_rows": ("Rows that wait for the device or run.", lambda: batcher.queue_depth),
                "queue_bytes": ("Activations of the rows that wait.", lambda: batcher.queued_bytes),
                "stalled_seconds": ("For how long work waits and none gets done.", lambda: batcher.stalled_s),
                "models_loaded": ("Models in memory.", lambda: len(engine.models())),
                "models_loading": ("Models on their way.", lambda: len(engine.residency.loading())),
                "resident_bytes": ("Models and SAEs.", lambda: engine.residency.counts.size_bytes),
                "prefix_bytes": ("Activations kept.", lambda: engine.prefix_counts.size_bytes),
            },
            counters={
                "batches": ("Forwards.", lambda: batcher.counts.batches),
                "rows": ("Rows of all forwards.", lambda: batcher.counts.rows),
                "padding_rows": (
                    "Rows that filled deterministic forwards up.",
                    lambda: batcher.counts.padding_rows,
                ),
                "retried_batches": ("Batches run again one by one.", lambda: batcher.counts.retried_batches),
                "out_of_memory": ("Forwards that ran out of memory.", lambda: batcher.counts.out_of_memory),
                "dropped": ("Requests dropped before they ran.", lambda: batcher.counts.dropped),
                "loads": ("Models and SAEs loaded.", lambda: engine.residency.counts.loads),
                "evictions": ("Models and SAEs dropped.", lambda: engine.residency.counts.evictions),
                "prefix_hits": ("Questions that found their prefix.", lambda: engine.prefix_counts.hits),
                "prefix_misses": ("Questions that had to run it.", lambda: engine.prefix_counts.misses),
            },
        )

    def _serve_figures(self) -> None:
        port = self.settings.metrics_port
        if port is None:
            return
        try:
            self._figures = prometheus_client.start_http_server(
                port, self.settings.metrics_host, self.metrics.registry
            )
        except OSError as error:
            raise InvalidSettings(f"figures cannot be served on port {port}: {error.strerror}") from error
        self.metrics_port = self._figures[0].server_port


@asynccontextmanager
async def open_server(settings: Settings, make_engine: MakeEngine | None = None) -> AsyncIterator[Server]:
    """A listening service for the time of the block; it drains at the end."""
    check_address(settings)
    server = Server(settings, make_engine)
    try:
        await server.start()
        yield server
    finally:
        await server.stop()


def engine_of(settings: Settings, batcher: Batcher) -> LocalEngine:
    """The engine that the settings describe. Raises InvalidSettings."""
    return LocalEngine(
        prefix_budget_bytes=settings.prefix_budget_bytes,
        residency=Residency(
            device_of(settings.device),
            getattr(torch, settings.dtype),
            settings.memory_budget_bytes,
            batcher=batcher,
        ),
    )


def device_of(setting: str) -> str:
    """Raises InvalidSettings for a device that is not here."""
    if setting == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(setting)
    except RuntimeError as error:
        raise InvalidSettings(f"device {setting!r}: expected cpu, cuda, cuda:N or auto") from error
    if device.type not in ("cpu", "cuda"):
        raise InvalidSettings(f"device {setting!r}: expected cpu, cuda, cuda:N or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InvalidSettings(f"device {setting!r}: this machine shows {torch.cuda.device_count()} GPUs")
    return setting


def model_ref(text: str) -> ModelRef:
    """`folder:NAME/sub` and `hf-hub:owner/name` are whole names; else what follows the last `/` is the tag."""
    if text.startswith((FOLDER, HF_HUB)):
        return ModelRef(text)
    name, slash, tag = text.rpartition("/")
    if not slash:
        raise InvalidSettings(
            f"model {text!r} names no weights: expected 'NAME/TAG', '{FOLDER}...' or '{HF_HUB}...'"
        )
    return ModelRef(name, tag)
