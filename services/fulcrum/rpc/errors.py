"""Domain errors as `google.rpc.Status` and back: translated once, here.

The reason names the class; the code is what a client without Fulcrum understands.
"""

from typing import Any, NamedTuple

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from fulcrum.domain import errors

DOMAIN = "fulcrum"
_DETAILS_KEY = "grpc-status-details-bin"

# Message and details travel in HTTP/2 trailers, which are limited to a few KB; a longer message would lose the status.
_MESSAGE_BYTES = 1500

CODES: dict[type[errors.FulcrumError], grpc.StatusCode] = {
    errors.FulcrumError: grpc.StatusCode.INTERNAL,
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UnreadableImage: grpc.StatusCode.INVALID_ARGUMENT,
    errors.ImageTooLarge: grpc.StatusCode.INVALID_ARGUMENT,
    errors.EmptyPrompts: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidPrompt: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidTarget: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidHookPoint: grpc.StatusCode.INVALID_ARGUMENT,
    errors.EditCannotReachOutput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidEdit: grpc.StatusCode.INVALID_ARGUMENT,
    errors.LatentOutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.SaeDoesNotFit: grpc.StatusCode.FAILED_PRECONDITION,
    errors.InvalidSaeConfig: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidDataset: grpc.StatusCode.INVALID_ARGUMENT,
    errors.DatasetWithoutLabels: grpc.StatusCode.FAILED_PRECONDITION,
    errors.SingleClassDataset: grpc.StatusCode.FAILED_PRECONDITION,
    errors.MissingFiles: grpc.StatusCode.FAILED_PRECONDITION,
    errors.InvalidSettings: grpc.StatusCode.INVALID_ARGUMENT,
    errors.InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    errors.PayloadTooLarge: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.UnknownModel: grpc.StatusCode.NOT_FOUND,
    errors.UnknownSae: grpc.StatusCode.NOT_FOUND,
    errors.UnknownDataset: grpc.StatusCode.NOT_FOUND,
    errors.UnknownImage: grpc.StatusCode.NOT_FOUND,
    errors.UnknownImageSet: grpc.StatusCode.NOT_FOUND,
    errors.UnknownCorrection: grpc.StatusCode.NOT_FOUND,
    errors.UnknownSession: grpc.StatusCode.NOT_FOUND,
    errors.UnknownConcept: grpc.StatusCode.NOT_FOUND,
    errors.UnknownIndex: grpc.StatusCode.NOT_FOUND,
    errors.UnknownDescription: grpc.StatusCode.NOT_FOUND,
    errors.UnknownExperts: grpc.StatusCode.NOT_FOUND,
    errors.UnknownResult: grpc.StatusCode.NOT_FOUND,
    errors.UnknownEvaluation: grpc.StatusCode.NOT_FOUND,
    errors.UnknownProject: grpc.StatusCode.NOT_FOUND,
    errors.UnknownUser: grpc.StatusCode.NOT_FOUND,
    errors.UnknownToken: grpc.StatusCode.NOT_FOUND,
    errors.UnknownArtifact: grpc.StatusCode.NOT_FOUND,
    errors.UnknownJob: grpc.StatusCode.NOT_FOUND,
    errors.Denied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    errors.ReviewerIsAuthor: grpc.StatusCode.PERMISSION_DENIED,
    errors.Conflict: grpc.StatusCode.FAILED_PRECONDITION,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.StaleVersion: grpc.StatusCode.ABORTED,
    errors.MissingPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.IdempotencyConflict: grpc.StatusCode.ABORTED,
    errors.AlreadyRunning: grpc.StatusCode.FAILED_PRECONDITION,
    errors.NeededJobFailed: grpc.StatusCode.FAILED_PRECONDITION,
    errors.JobFinished: grpc.StatusCode.FAILED_PRECONDITION,
    errors.JobUnfinished: grpc.StatusCode.FAILED_PRECONDITION,
    errors.QuotaExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.NothingToReview: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.RateLimited: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.ServiceUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.OutOfMemory: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.JobCancelled: grpc.StatusCode.CANCELLED,
    errors.LeaseLost: grpc.StatusCode.CANCELLED,
    errors.CorruptFile: grpc.StatusCode.DATA_LOSS,
    errors.CorruptCheckpoint: grpc.StatusCode.DATA_LOSS,
    errors.CorruptIndex: grpc.StatusCode.DATA_LOSS,
    errors.CorruptArtifact: grpc.StatusCode.DATA_LOSS,
    errors.MissingDependency: grpc.StatusCode.FAILED_PRECONDITION,
    errors.TooManyAttempts: grpc.StatusCode.INTERNAL,
    errors.ComputationFailed: grpc.StatusCode.INTERNAL,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}

_BY_REASON: dict[str, type[errors.FulcrumError]] = {e.reason: e for e in CODES}

# A status that no Fulcrum wrote: gRPC itself, a proxy, or a peer of another version.
_BY_CODE: dict[grpc.StatusCode, type[errors.FulcrumError]] = {
    grpc.StatusCode.CANCELLED: errors.Cancelled,
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidRequest,
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidRequest,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.PERMISSION_DENIED: errors.Forbidden,
    grpc.StatusCode.UNAUTHENTICATED: errors.Unauthenticated,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.PayloadTooLarge,  # "message larger than max"
    grpc.StatusCode.FAILED_PRECONDITION: errors.Conflict,
    grpc.StatusCode.ABORTED: errors.Conflict,
    grpc.StatusCode.UNAVAILABLE: errors.ServiceUnavailable,
    grpc.StatusCode.DATA_LOSS: errors.CorruptFile,
}

_SAYS = {
    grpc.StatusCode.UNAVAILABLE: "the inference service cannot be reached",
    grpc.StatusCode.DEADLINE_EXCEEDED: "the inference service did not answer in time",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "the message is larger than a channel takes",
    grpc.StatusCode.CANCELLED: "the call was cancelled",
    grpc.StatusCode.UNIMPLEMENTED: "the inference service is of another version",
}
_UNREACHABLE_RETRY_S = 1.0
# gRPC's own bound (`maximum_concurrent_rpcs`) has the code of a message that is too large, and no reason.
_TOO_MANY_CALLS = "Concurrent RPC limit exceeded"
_BUSY_RETRY_S = 1.0


class Abort(NamedTuple):
    """Arguments of `context.abort`."""

    code: grpc.StatusCode
    details: str
    trailing_metadata: tuple[tuple[str, bytes], ...]


def to_status(error: errors.FulcrumError) -> status_pb2.Status:
    """Code and message with an ErrorInfo (reason, domain "fulcrum") and, where repeating may help, a RetryInfo."""
    message = _shortened(str(error))
    status = status_pb2.Status(code=_code(error).value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN))
    if error.retry_after_s is not None:
        retry = error_details_pb2.RetryInfo()
        retry.retry_delay.FromNanoseconds(round(max(error.retry_after_s, 0.0) * 1e9))
        status.details.add().Pack(retry)
    return status


def from_status(status: status_pb2.Status) -> errors.FulcrumError:
    """The error that `to_status` was given: the same class, message and retry hint.

    A status without a reason that we know becomes the class its code stands for.
    """
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    _unpack(status, info)
    kind = _BY_REASON.get(info.reason) if info.domain == DOMAIN else None
    retry_after_s = None
    if _unpack(status, retry):
        retry_after_s = max(retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9, 0.0)
    if kind is None:
        codes = {code.value[0]: code for code in grpc.StatusCode}
        kind = _BY_CODE.get(codes.get(status.code, grpc.StatusCode.UNKNOWN), errors.InternalError)
    if issubclass(kind, errors.Unavailable):
        return kind(status.message, retry_after_s=retry_after_s)
    return kind(status.message)


def to_abort(error: errors.FulcrumError) -> Abort:
    """What a servicer gives to `context.abort(*...)`."""
    status = to_status(error)
    return Abort(_code(error), status.message, ((_DETAILS_KEY, status.SerializeToString()),))


def from_rpc_error(error: grpc.RpcError) -> errors.FulcrumError:
    """The domain error behind a failed call, of a synchronous or an asyncio stub."""
    call: Any = error
    code, details = call.code(), call.details() or ""
    if (status := _status_of(call)) is not None:
        return from_status(status)
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and _TOO_MANY_CALLS in details:
        return errors.Overloaded("the inference service has all the calls it takes", _BUSY_RETRY_S)
    says = _SAYS.get(code, "the inference service failed")
    status = status_pb2.Status(code=code.value[0], message=f"{says}: {details or code.name}")
    translated = from_status(status)
    if code is grpc.StatusCode.UNAVAILABLE:
        translated.retry_after_s = _UNREACHABLE_RETRY_S
    return translated


def was_lost(error: grpc.RpcError) -> bool:
    """Whether the connection broke during the call, so that the request may have been what broke it."""
    call: Any = error
    if call.code() is not grpc.StatusCode.UNAVAILABLE or _status_of(call) is not None:
        return False
    # Words of gRPC for a call that never left: its names of no reachable address.
    details = (call.details() or "").lower()
    return not any(words in details for words in ("backends failing", "failed to connect", "resolv"))


def _status_of(call: Any) -> status_pb2.Status | None:
    """The status in the trailers, unless it is another one than the call's own."""
    for key, value in call.trailing_metadata() or ():
        if key == _DETAILS_KEY:
            try:
                status = status_pb2.Status.FromString(value)
            except DecodeError:
                return None
            return status if status.code == call.code().value[0] else None
    return None


def _unpack(status: status_pb2.Status, into: Any) -> bool:
    """Whether the first detail of this type could be read into `into`."""
    for detail in status.details:
        if detail.Is(into.DESCRIPTOR):
            try:
                return bool(detail.Unpack(into))
            except DecodeError:
                return False
    return False


def _code(error: errors.FulcrumError) -> grpc.StatusCode:
    # A leaf that is not listed yet has the code of the nearest class above it.
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def _shortened(message: str) -> str:
    encoded = message.encode("utf-8", errors="replace")
    if len(encoded) <= _MESSAGE_BYTES:
        return encoded.decode()
    return encoded[:_MESSAGE_BYTES].decode(errors="ignore") + "…"
