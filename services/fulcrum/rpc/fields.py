"""How each kind of field is written to a message and read from it; compiled once for each dataclass."""

import dataclasses
import math
import operator
import types
import typing
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, Union, cast, get_args, get_origin

import numpy as np
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from fulcrum.domain.errors import InvalidRequest
from fulcrum.rpc.images import ImageHash
from fulcrum.rpc.tensors import read_tensor, write_tensor

UNSET: Any = object()

# Literals that cannot be a name in an enum.
_ENUM_NAMES = {">=": "AT_LEAST", "<=": "AT_MOST"}

Writer = Callable[[Any, Any], None]  # (value, message)
Reader = Callable[[Any, str], Any]  # (message, where) -> value or UNSET


@dataclasses.dataclass(frozen=True)
class _Element:
    """One value: a message to fill (`write(value, message)`) or a scalar to set (`write(value) -> scalar`)."""

    write: Callable[..., Any]
    read: Callable[[Any, str], Any]  # (message or scalar, where)


@dataclasses.dataclass(frozen=True)
class _Field:
    name: str
    write: Writer
    read: Reader
    has_default: bool
    may_be_none: bool


def field_of(kind: type[Message], name: str) -> FieldDescriptor:
    """Descriptor of a field."""
    return cast(FieldDescriptor, kind.DESCRIPTOR.fields_by_name[name])


def write_fields(value: Any, message: Any) -> None:
    """Fills `message` from a dataclass. Raises ValueError, TypeError, OverflowError naming the field."""
    for field in _plan_of(type(value), type(message)):
        content = getattr(value, field.name)
        if content is None:
            continue
        try:
            field.write(content, message)
        except (ValueError, TypeError, OverflowError) as error:
            raise ValueError(f"{field.name}: {error}") from error


def read_fields(kind: Any, message: Any, where: str) -> Any:
    """A dataclass from `message`. Raises InvalidRequest naming the field, and what the dataclass itself refuses."""
    values = {}
    for field in _plan_of(kind, type(message)):
        value = field.read(message, f"{where}.{field.name}")
        # On the wire an empty list is an unset one, and its default means both.
        if value is not UNSET and not (isinstance(value, tuple) and not value and field.has_default):
            values[field.name] = value
        elif field.may_be_none and not field.has_default:
            values[field.name] = None
        elif not field.has_default:
            raise InvalidRequest(f"{where} lacks the field {field.name!r}")
    return kind(**values)


def is_kind(hint: Any) -> bool:
    """Whether a field only says which alternative its dataclass is; the oneof's case says that on the wire."""
    return get_origin(hint) is Literal and len(get_args(hint)) == 1


def _plan_of(kind: Any, message: Any) -> tuple[_Field, ...]:
    return _plan(kind, message)


@lru_cache(maxsize=256)
def _plan(kind: Any, message: Any) -> tuple[_Field, ...]:
    hints = typing.get_type_hints(kind)
    fields = [f for f in dataclasses.fields(kind) if not is_kind(hints[f.name])]
    return tuple(
        _Field(
            f.name,
            writer(hints[f.name], field_of(message, f.name)),
            reader(hints[f.name], field_of(message, f.name)),
            f.default is not dataclasses.MISSING or f.default_factory is not dataclasses.MISSING,
            type(None) in get_args(hints[f.name]),
        )
        for f in fields
    )


@lru_cache(maxsize=1024)
def writer(hint: Any, field: FieldDescriptor) -> Writer:
    """Writes a value of type `hint` (never None) to `field` of a message."""
    hint, name = _present(hint), field.name
    if get_origin(hint) is dict:

        def write_map(value: Any, message: Any) -> None:
            getattr(message, name).update({k: _finite(v) for k, v in value.items()})

        return write_map
    if field.is_repeated:
        element = _element(get_args(hint)[0], field)
        if field.message_type is None:
            return lambda value, message: getattr(message, name).extend([element.write(v) for v in value])

        def write_messages(value: Any, message: Any) -> None:
            repeated = getattr(message, name)
            for one in value:
                element.write(one, repeated.add())

        return write_messages
    element = _element(hint, field)
    if field.message_type is None:
        return lambda value, message: setattr(message, name, element.write(value))

    def write_message(value: Any, message: Any) -> None:
        part = getattr(message, name)
        part.SetInParent()  # an empty message is still there
        element.write(value, part)

    return write_message


@lru_cache(maxsize=1024)
def reader(hint: Any, field: FieldDescriptor) -> Reader:
    """Reads a value of type `hint` from `field` of a message; UNSET where nothing was sent."""
    hint, name = _present(hint), field.name
    if get_origin(hint) is dict:
        return lambda message, where: {
            k: _checked(v, f"{where}[{k!r}]") for k, v in sorted(getattr(message, name).items())
        }
    if field.is_repeated:
        element = _element(get_args(hint)[0], field)

        def read_repeated(message: Any, where: str) -> Any:
            repeated = getattr(message, name)
            return tuple(element.read(v, f"{where}[{i}]") for i, v in enumerate(repeated))

        return read_repeated
    element = _element(hint, field)
    if field.enum_type is not None:
        return lambda message, where: (
            element.read(getattr(message, name), where) if getattr(message, name) else UNSET
        )
    return lambda message, where: (
        element.read(getattr(message, name), where) if message.HasField(name) else UNSET
    )


def _present(hint: Any) -> Any:
    """The hint without None."""
    if get_origin(hint) not in (Union, types.UnionType):
        return hint
    alternatives = tuple(a for a in get_args(hint) if a is not type(None))
    return alternatives[0] if len(alternatives) == 1 else Union[alternatives]  # noqa: UP007  # built at run time


def _element(hint: Any, field: FieldDescriptor) -> _Element:
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        if set(get_args(hint)) == {bytes, ImageHash}:
            return _Element(_write_image, _read_image)
        return _alternatives(get_args(hint), field)
    if origin is Literal:
        return _enum(get_args(hint), cast(EnumDescriptor, field.enum_type))
    if origin is np.ndarray:
        integer = "integer" in str(hint)
        return _Element(write_tensor, lambda tensor, where: read_tensor(tensor, where, integer=integer))
    if origin is tuple:
        return _pair(get_args(hint), field)
    if dataclasses.is_dataclass(hint):
        return _Element(write_fields, lambda message, where: read_fields(hint, message, where))
    return _SCALARS[hint]


def _alternatives(kinds: tuple[Any, ...], field: FieldDescriptor) -> _Element:
    by_kind = {get_args(typing.get_type_hints(k)["kind"])[0]: k for k in kinds}

    def write(value: Any, message: Any) -> None:
        part = getattr(message, value.kind)
        part.SetInParent()
        write_fields(value, part)

    def read(message: Any, where: str) -> Any:
        kind = message.WhichOneof("kind")
        if kind is None:
            raise InvalidRequest(f"{where} has no kind: expected one of {sorted(by_kind)}")
        return read_fields(by_kind[kind], getattr(message, kind), f"{where}.{kind}")

    return _Element(write, read)


def _enum(literals: tuple[str, ...], enum: EnumDescriptor) -> _Element:
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    names = {text: prefix + _ENUM_NAMES.get(text, text.upper()) for text in literals}
    numbers = {text: enum.values_by_name[name].number for text, name in names.items()}
    texts = {number: text for text, number in numbers.items()}

    def write(value: Any) -> int:
        if value not in numbers:
            raise ValueError(f"{value!r} is not one of {list(literals)}")
        return numbers[value]

    def read(number: int, where: str) -> str:
        if number not in texts:
            raise InvalidRequest(f"{where} is {number}: expected one of {list(names.values())}")
        return texts[number]

    return _Element(write, read)


def _pair(hints: tuple[Any, ...], field: FieldDescriptor) -> _Element:
    parts = sorted(cast(Descriptor, field.message_type).fields, key=lambda f: f.number)
    writers = [writer(h, f) for h, f in zip(hints, parts, strict=True)]
    readers = [reader(h, f) for h, f in zip(hints, parts, strict=True)]

    def write(value: Any, message: Any) -> None:
        for write_part, part in zip(writers, value, strict=True):
            write_part(part, message)

    def read(message: Any, where: str) -> Any:
        values = tuple(read_part(message, where) for read_part in readers)
        for value, part in zip(values, parts, strict=True):
            if value is UNSET:
                raise InvalidRequest(f"{where} lacks the field {part.name!r}")
        return values

    return _Element(write, read)


def _write_image(value: Any, message: Any) -> None:
    if isinstance(value, ImageHash):
        message.sha256 = value.sha256
    else:
        message.data = value


def _read_image(message: Any, where: str) -> Any:
    match message.WhichOneof("source"):
        case "data":
            return message.data
        case "sha256":
            return ImageHash(message.sha256)
        case _:
            raise InvalidRequest(f"{where} has neither data nor sha256")


def _finite(value: Any) -> float:
    if isinstance(value, str | bytes):
        raise TypeError(f"{value!r} is no number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{number} is not a finite number")
    return number


def _checked(value: float, where: str) -> float:
    if not math.isfinite(value):
        raise InvalidRequest(f"{where} is {value}: expected a finite number")
    return value


def _as_sent(value: Any, where: str) -> Any:
    return value


_SCALARS: dict[type, _Element] = {
    str: _Element(lambda value: value, _as_sent),
    bool: _Element(bool, _as_sent),
    int: _Element(operator.index, _as_sent),
    float: _Element(_finite, _checked),
}
