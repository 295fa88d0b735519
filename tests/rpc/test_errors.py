import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum.domain import errors
from fulcrum.domain.errors import FulcrumError, Overloaded, PayloadTooLarge, ServiceUnavailable, Unavailable
from fulcrum.rpc.errors import CODES, from_rpc_error, from_status, to_abort, to_status, was_lost


def tree(kind=FulcrumError):
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


ALL = list(tree())


class Failed(grpc.RpcError):
    """What a stub raises."""

    def __init__(self, code, details, trailing=()):
        self._parts = code, details, trailing

    def code(self):
        return self._parts[0]

    def details(self):
        return self._parts[1]

    def trailing_metadata(self):
        return self._parts[2]


def raised(error):
    """An error as the other side's stub raises it."""
    return Failed(*to_abort(error))


def test_every_domain_error_has_a_grpc_code_of_its_own_choice():
    assert set(CODES) == set(ALL)
    assert grpc.StatusCode.OK not in CODES.values()


@pytest.mark.parametrize("kind", ALL, ids=lambda k: k.__name__)
def test_an_error_comes_back_as_the_same_class_with_its_message(kind):
    error = from_rpc_error(raised(kind("the latent is 9: allowed are 0 to 7 ✓")))
    assert type(error) is kind
    assert str(error) == "the latent is 9: allowed are 0 to 7 ✓"
    assert error.retry_after_s is None


@pytest.mark.parametrize("kind", list(tree(Unavailable)), ids=lambda k: k.__name__)
def test_when_to_try_again_comes_back(kind):
    assert from_rpc_error(raised(kind("later", retry_after_s=2.25))).retry_after_s == 2.25
    assert from_rpc_error(raised(kind("later", retry_after_s=0.0))).retry_after_s == 0.0


def test_a_client_without_fulcrum_finds_reason_and_retry_delay_in_the_standard_details():
    status = to_status(Overloaded("the queue is full", retry_after_s=1.5))
    assert status.code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(retry)
    assert (info.reason, info.domain) == ("OVERLOADED", "fulcrum")
    assert retry.retry_delay.ToTimedelta().total_seconds() == 1.5


def test_an_exhausted_resource_without_a_reason_is_a_message_that_was_too_large():
    # gRPC says RESOURCE_EXHAUSTED for both; retrying a message that is too large would never end.
    error = from_rpc_error(
        Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)")
    )
    assert type(error) is PayloadTooLarge
    assert "larger than max (5 vs. 4)" in str(error)
    assert error.retry_after_s is None


def test_too_many_calls_at_once_are_no_message_that_was_too_large():
    error = from_rpc_error(Failed(grpc.StatusCode.RESOURCE_EXHAUSTED, "Concurrent RPC limit exceeded!"))
    assert type(error) is Overloaded
    assert error.retry_after_s > 0


def test_an_unreachable_service_may_be_asked_again():
    error = from_rpc_error(Failed(grpc.StatusCode.UNAVAILABLE, "failed to connect"))
    assert type(error) is ServiceUnavailable
    assert error.retry_after_s > 0


@pytest.mark.parametrize(
    "code", [c for c in grpc.StatusCode if c is not grpc.StatusCode.OK], ids=lambda c: c.name
)
def test_a_status_that_is_not_ours_becomes_a_domain_error_too(code):
    error = from_rpc_error(Failed(code, "words of a proxy"))
    assert isinstance(error, FulcrumError)
    assert "words of a proxy" in str(error)
    assert isinstance(from_rpc_error(Failed(code, None, None)), FulcrumError)


def test_a_reason_of_a_newer_version_falls_back_to_its_code():
    status = status_pb2.Status(code=grpc.StatusCode.NOT_FOUND.value[0], message="no such hologram")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="UNKNOWN_HOLOGRAM", domain="fulcrum"))
    assert type(from_status(status)) is errors.NotFound


def test_a_reason_of_another_domain_is_not_ours():
    status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="RATE_LIMITED", domain="example.com"))
    assert type(from_status(status)) is ServiceUnavailable


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(list(grpc.StatusCode)))
def test_details_of_random_bytes_do_not_hide_the_failure(details, code):
    if code is not grpc.StatusCode.OK:
        error = from_rpc_error(Failed(code, "text", (("grpc-status-details-bin", details),)))
        assert isinstance(error, FulcrumError)


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=40))
def test_details_that_cannot_be_unpacked_leave_the_class_of_the_code(garbage):
    status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message="text")
    status.details.add(type_url="type.googleapis.com/google.rpc.RetryInfo", value=garbage)
    status.details.add(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff")
    assert type(from_status(status)) is ServiceUnavailable


def test_details_of_another_failure_are_not_believed():
    trailing = to_abort(errors.UnknownModel("no such model")).trailing_metadata
    error = from_rpc_error(Failed(grpc.StatusCode.UNAVAILABLE, "Socket closed", trailing))
    assert type(error) is ServiceUnavailable


def test_a_message_of_any_length_fits_into_trailers():
    # Trailers over a few KB make gRPC drop the whole status, and the caller would see a bare INTERNAL.
    abort = to_abort(errors.InvalidPrompt("é" * 100_000))
    assert len(abort.details.encode()) < 2000
    assert sum(len(v) for _, v in abort.trailing_metadata) < 2500
    back = from_rpc_error(Failed(*abort))
    assert type(back) is errors.InvalidPrompt
    assert str(back).startswith("ééé")
    assert str(back).endswith("…")


def test_a_message_that_is_no_unicode_still_arrives():
    assert str(from_rpc_error(raised(errors.InvalidPrompt("\ud800 in a prompt")))) == "? in a prompt"


def test_only_a_connection_that_broke_during_the_call_was_lost():
    assert was_lost(Failed(grpc.StatusCode.UNAVAILABLE, "Stream removed (Socket closed)"))
    assert not was_lost(
        Failed(grpc.StatusCode.UNAVAILABLE, "connections to all backends failing; last error: x")
    )
    assert not was_lost(Failed(grpc.StatusCode.UNAVAILABLE, "failed to connect to all addresses"))
    assert not was_lost(Failed(grpc.StatusCode.UNAVAILABLE, "errors resolving host:1"))
    assert not was_lost(raised(ServiceUnavailable("draining")))
    assert not was_lost(Failed(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded"))
