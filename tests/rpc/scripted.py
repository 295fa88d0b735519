"""A real gRPC service on a Unix socket whose calls do what a test says."""

import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import grpc
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fulcrum.domain.corrections import Correction
from fulcrum.domain.models import ModelRef
from fulcrum.domain.provenance import Provenance
from fulcrum.domain.results import DoseResponse, EditDiagnostics, Effect, Prediction, Suggestion
from fulcrum.domain.tasks import ClassSet, LogitTarget
from fulcrum.rpc.channels import server_options
from fulcrum.rpc.errors import to_abort
from fulcrum.rpc.v1.inference_pb2_grpc import InferenceServicer, add_InferenceServicer_to_server

MODEL = ModelRef("folder:lab/clip")
SAE = "folder:lab/sae"
TASK = ClassSet(("cat", "dog"))
CORRECTION = Correction("a" * 64, "b" * 64, "visual.blocks.3.resid_post", ())
PROVENANCE = Provenance(
    model_sha256="a" * 64,
    sae_sha256="b" * 64,
    hook_point="visual.blocks.3.resid_post",
    preprocess_sha256="c" * 64,
    device="cpu",
    dtype="float32",
    deterministic=False,
    batch_size=1,
    queue_ms=0.5,
    compute_ms=2.5,
    prefix_cached=False,
    fulcrum_version="0.1",
    torch_version="2.6",
)
PREDICTION = Prediction(TASK.names, np.array([1.0, 2.0]), np.array([0.25, 0.75]))
EFFECT = Effect(PREDICTION, PREDICTION, EditDiagnostics((), True, np.zeros(5), 0.0, (), False))
CURVE = DoseResponse(
    np.array([0.0, 1.0]), np.ones((2, 2)), TASK.names, np.zeros(2), LogitTarget("cat"), None, True
)
SUGGESTION = Suggestion((), True, -1.0, 1.0, True, (0.25, 0.5), 2.0)


class Scripted(InferenceServicer):
    """`behaviours[method](request, context)`; remembers every call as (method, request, metadata)."""

    def __init__(self, behaviours):
        self.behaviours = behaviours
        self.calls = []
        self.cancelled = threading.Event()

    def __getattribute__(self, name):
        if name in ("behaviours", "calls", "cancelled", "port") or name.startswith("_"):
            return super().__getattribute__(name)

        def call(request, context):
            self.calls.append((name, request, dict(context.invocation_metadata())))
            context.add_callback(lambda: context.code() is None and self.cancelled.set())
            return self.behaviours[name](request, context)

        return call


class Health(health_pb2_grpc.HealthServicer):
    def __init__(self, status):
        self.status = status

    def Check(self, request, context):
        return health_pb2.HealthCheckResponse(status=self.status)


def refuse(error):
    """A behaviour that fails with a domain error."""
    return lambda request, context: context.abort_with_status(_status(error))


def _status(error):
    class Status(grpc.Status):
        code, details, trailing_metadata = to_abort(error)

    return Status()


@contextmanager
def folder() -> Iterator[Path]:
    """A folder with a name that is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="rpc") as name:
        yield Path(name)


@contextmanager
def serving(
    address, *, health=health_pb2.HealthCheckResponse.SERVING, credentials=None, at_most=None, **behaviours
):
    """The servicer behind `address` for the time of the block."""
    servicer = Scripted(behaviours)
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, options=server_options(), maximum_concurrent_rpcs=at_most)
        add_InferenceServicer_to_server(servicer, server)
        health_pb2_grpc.add_HealthServicer_to_server(Health(health), server)
        if credentials is None:
            server.add_insecure_port(address)
        else:
            servicer.port = server.add_secure_port(address, credentials)
        server.start()
        try:
            yield servicer
        finally:
            server.stop(None).wait()


@contextmanager
def replicas(n, **behaviours):
    """Addresses and servicers of `n` replicas that behave alike."""
    with ExitStack() as stack:
        where = stack.enter_context(folder())
        addresses = [f"unix:{where}/{i}" for i in range(n)]
        yield addresses, [stack.enter_context(serving(a, **behaviours)) for a in addresses]
