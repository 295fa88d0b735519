"""Whether a replica says that it serves (grpc.health.v1)."""

from typing import Any

from grpc_health.v1 import health_pb2, health_pb2_grpc

SERVICE = "fulcrum.rpc.v1.Inference"

CHECK = health_pb2.HealthCheckRequest(service=SERVICE)


def health_stub(channel: Any) -> Any:
    """Stub over a synchronous or an asyncio channel."""
    return health_pb2_grpc.HealthStub(channel)


def serves(response: Any) -> bool:
    """True for SERVING alone: loading, draining and a failed canary are not."""
    return bool(response.status == health_pb2.HealthCheckResponse.SERVING)
