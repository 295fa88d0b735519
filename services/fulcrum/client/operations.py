"""Turns a flow into a method that blocks on `Client` and awaits on `AsyncClient`, with the same typed arguments."""

import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from types import GenericAlias
from typing import Any, Concatenate, Generic, ParamSpec, Self, TypeVar, get_args, overload

from fulcrum.client.drivers import Driver
from fulcrum.client.steps import Flow, Running
from fulcrum.client.streams import AsyncStream, Stream
from fulcrum.client.wire import Wire

P = ParamSpec("P")
T = TypeVar("T")
R = TypeVar("R")


class Sync:
    """Mark of what blocks."""


class Async:
    """Mark of what is awaited."""


Side = TypeVar("Side", Sync, Async)


class Bound(Generic[Side]):
    """A group of operations bound to a connection; `Side` says how its methods are called."""

    def __init__(self, wire: Wire, driver: Driver) -> None:
        self._wire = wire
        self._driver = driver


class _Described(Generic[P, R]):
    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[R]], returns: Any) -> None:
        self.flow = flow  # for other flows, which go through it with `yield from`
        self.__doc__ = flow.__doc__
        signature = inspect.signature(flow)
        self._shown = signature.replace(
            parameters=list(signature.parameters.values())[1:], return_annotation=returns
        )

    def _method(self, instance: Any, perform: Callable[[Flow[Any]], Any]) -> Callable[..., Any]:
        @functools.wraps(self.flow)
        def method(*args: Any, **kwargs: Any) -> Any:
            return perform(self.flow(instance, *args, **kwargs))

        method.__signature__ = self._shown  # type: ignore[attr-defined]  # what `help` and notebooks show
        return method


class operation(_Described[P, R]):  # a decorator
    """One call with one answer."""

    def __init__(self, flow: Callable[Concatenate[Any, P], Flow[R]]) -> None:
        super().__init__(flow, get_args(_returned(flow))[-1])

    @overload
    def __get__(self, instance: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, instance: Bound[Sync], owner: Any) -> Callable[P, R]: ...
    @overload
    def __get__(self, instance: Bound[Async], owner: Any) -> Callable[P, Coroutine[Any, Any, R]]: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        """The method; the operation itself on the class."""
        if instance is None:
            return self
        return self._method(instance, instance._driver.call)


class listing(Generic[T]):
    """A list that is read page by page while somebody iterates. The decorated flow emits items of `kind`."""

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind

    def __call__(self, flow: Callable[Concatenate[Any, P], Flow[None]]) -> "Listing[P, T]":
        """Decorates a flow."""
        return Listing(flow, GenericAlias(Iterator, (self.kind,)))


class Listing(_Described[P, None], Generic[P, T]):
    """What `listing` makes of a flow."""

    @overload
    def __get__(self, instance: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, instance: Bound[Sync], owner: Any) -> Callable[P, Iterator[T]]: ...
    @overload
    def __get__(self, instance: Bound[Async], owner: Any) -> Callable[P, AsyncIterator[T]]: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        """The method; the listing itself on the class."""
        if instance is None:
            return self
        return self._method(instance, lambda flow: instance._driver.iterate(Running(flow)))


class stream(Generic[T]):
    """A call whose answers come one after the other. The decorated flow emits items of `kind` and returns the whole."""

    def __init__(self, kind: type[T]) -> None:
        self.kind = kind

    def __call__(self, flow: Callable[Concatenate[Any, P], Flow[R]]) -> "Streaming[P, T, R]":
        """Decorates a flow."""
        return Streaming(flow, GenericAlias(Stream, (self.kind, get_args(_returned(flow))[-1])))


class Streaming(_Described[P, R], Generic[P, T, R]):
    """What `stream` makes of a flow."""

    @overload
    def __get__(self, instance: None, owner: Any) -> Self: ...
    @overload
    def __get__(self, instance: Bound[Sync], owner: Any) -> Callable[P, Stream[T, R]]: ...
    @overload
    def __get__(self, instance: Bound[Async], owner: Any) -> Callable[P, AsyncStream[T, R]]: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        """The method; the stream itself on the class."""
        if instance is None:
            return self
        return self._method(instance, instance._driver.stream)


def _returned(flow: Callable[..., Any]) -> Any:
    return inspect.signature(flow).return_annotation
