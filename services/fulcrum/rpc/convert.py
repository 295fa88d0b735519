"""Domain values as protobuf messages and back, driven by the fields of the dataclasses.

A message mirrors its dataclass: the same field names; `x | None` and defaults are unset fields; alternatives are a
oneof whose case is their `kind`; pairs are messages of two fields; literals are enums.
"""

from typing import Any, TypeVar, cast

from google.protobuf.message import Message

from fulcrum.domain import corrections, edits, engine, hook_points, models, provenance, results, tasks
from fulcrum.domain.errors import ComputationFailed, InvalidRequest
from fulcrum.domain.provenance import Answered, Provenance
from fulcrum.rpc import answers, requests
from fulcrum.rpc.fields import field_of, read_fields, reader, write_fields, writer
from fulcrum.rpc.v1 import corrections_pb2, inference_pb2, models_pb2, results_pb2, tasks_pb2

T = TypeVar("T")
M = TypeVar("M", bound=Message)

MESSAGES: dict[type, type[Message]] = {
    models.ModelRef: models_pb2.ModelRef,
    models.ModelInfo: models_pb2.ModelInfo,
    models.SaeInfo: models_pb2.SaeInfo,
    hook_points.HookPoint: models_pb2.HookPoint,
    tasks.ClassSet: tasks_pb2.ClassSet,
    tasks.CosineTarget: tasks_pb2.CosineTarget,
    tasks.LogitTarget: tasks_pb2.LogitTarget,
    tasks.LogProbTarget: tasks_pb2.LogProbTarget,
    tasks.MarginTarget: tasks_pb2.MarginTarget,
    edits.Scale: corrections_pb2.Scale,
    edits.SetTo: corrections_pb2.SetTo,
    edits.Cap: corrections_pb2.Cap,
    edits.Floor: corrections_pb2.Floor,
    edits.Add: corrections_pb2.Add,
    edits.ProjectOut: corrections_pb2.ProjectOut,
    edits.MeanAblate: corrections_pb2.MeanAblate,
    edits.Affine: corrections_pb2.Affine,
    edits.Scope: corrections_pb2.Scope,
    edits.LatentCondition: corrections_pb2.LatentCondition,
    edits.PredictedClassCondition: corrections_pb2.PredictedClassCondition,
    edits.MarginCondition: corrections_pb2.MarginCondition,
    corrections.Origin: corrections_pb2.Origin,
    corrections.Correction: corrections_pb2.Correction,
    provenance.Provenance: results_pb2.Provenance,
    engine.ImageLatents: results_pb2.ImageLatents,
    results.Prediction: results_pb2.Prediction,
    results.SteeredPrediction: results_pb2.SteeredPrediction,
    results.LatentAttribution: results_pb2.LatentAttribution,
    results.Attribution: results_pb2.Attribution,
    results.EditDiagnostics: results_pb2.EditDiagnostics,
    results.Controls: results_pb2.Controls,
    results.Effect: results_pb2.Effect,
    results.DoseResponse: results_pb2.DoseResponse,
    results.Suggestion: results_pb2.Suggestion,
    answers.DosePoints: results_pb2.DosePoints,
    requests.EncodeImages: inference_pb2.EncodeImagesRequest,
    requests.EncodeTexts: inference_pb2.EncodeTextsRequest,
    requests.EncodeLatents: inference_pb2.EncodeLatentsRequest,
    requests.Predict: inference_pb2.PredictRequest,
    requests.PredictSteered: inference_pb2.PredictSteeredRequest,
    requests.Attribute: inference_pb2.AttributeRequest,
    requests.Steer: inference_pb2.SteerRequest,
    requests.Sweep: inference_pb2.SweepRequest,
    requests.Suggest: inference_pb2.SuggestRequest,
    requests.SessionOpening: inference_pb2.SteerSessionOpen,
    requests.SessionMove: inference_pb2.SteerSessionMove,
    requests.LoadModel: inference_pb2.LoadModelRequest,
    requests.LoadSae: inference_pb2.LoadSaeRequest,
    requests.ListModels: inference_pb2.ListModelsRequest,
    requests.WarmModel: inference_pb2.WarmModelRequest,
}

# What the field `value` of an answer holds.
VALUES: dict[type[Message], Any] = {
    inference_pb2.EncodeImagesResponse: results.FloatArray,
    inference_pb2.EncodeTextsResponse: results.FloatArray,
    inference_pb2.EncodeLatentsResponse: engine.ImageLatents,
    inference_pb2.PredictResponse: tuple[results.Prediction, ...],
    inference_pb2.PredictSteeredResponse: tuple[results.SteeredPrediction, ...],
    inference_pb2.AttributeResponse: results.Attribution,
    inference_pb2.SteerResponse: results.Effect,
    inference_pb2.SweepDone: results.DoseResponse,
    inference_pb2.SuggestDone: tuple[results.Suggestion, ...],
    inference_pb2.SteerSessionAnswer: results.Effect,
    inference_pb2.LoadModelResponse: models.ModelInfo,
    inference_pb2.LoadSaeResponse: models.SaeInfo,
    inference_pb2.ListModelsResponse: tuple[models.ModelInfo, ...],
    inference_pb2.WarmModelResponse: models.ModelInfo,
}


def to_message(value: Any) -> Any:
    """The message of a domain value or request.

    Raises InvalidRequest for a request that has no message (a number beyond 64 bits, text that is no Unicode) and
    ComputationFailed for a result that holds a number that is not finite.
    """
    message = MESSAGES[type(value)]()
    _written(value, lambda: write_fields(value, message))
    return message


def from_message(kind: type[T], message: Message) -> T:
    """The domain value or request in a message. Raises InvalidRequest naming the field, and what the dataclass itself
    refuses (an empty class set, an infinite gain).
    """
    return cast(T, read_fields(kind, message, kind.__name__))


def to_answer(kind: type[M], value: Any, provenance: Provenance | None = None) -> M:
    """A response (or the last event of a stream) of `kind`. Raises ComputationFailed as `to_message`."""
    message = kind()
    field = field_of(kind, "value")
    _written(value, lambda: writer(VALUES[kind], field)(value, message))
    if provenance is not None:
        write_fields(provenance, cast(Any, message).provenance)
    return message


def from_answer(message: Message) -> Answered[Any]:
    """Value and provenance of a response that has both. Raises InvalidRequest for a malformed one."""
    where = type(message).__name__
    if not message.HasField("provenance"):
        raise InvalidRequest(f"{where} lacks the field 'provenance'")
    origin = from_message(Provenance, cast(Any, message).provenance)
    return Answered(value_of(message), origin)


def value_of(message: Message) -> Any:
    """Value of a response. Raises InvalidRequest for a malformed one."""
    where = f"{type(message).__name__}.value"
    field = field_of(type(message), "value")
    if not field.is_repeated and not message.HasField("value"):
        raise InvalidRequest(f"{type(message).__name__} lacks the field 'value'")
    return reader(VALUES[type(message)], field)(message, where)


def _written(value: Any, write: Any) -> None:
    try:
        write()
    except (ValueError, TypeError, OverflowError) as error:
        name = type(value).__name__
        if type(value).__module__ == requests.__name__:
            raise InvalidRequest(f"{name} cannot be sent: {error}") from error
        raise ComputationFailed(f"{name} cannot be sent: {error}") from error
