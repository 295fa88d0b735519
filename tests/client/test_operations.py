import inspect

import pytest

from fulcrum.client import AsyncClient, Client
from fulcrum.client.operations import Listing, Streaming, _Described, operation
from fulcrum.domain.records import ImageRecord

URL, TOKEN = "http://gateway.test", "fct_x"


def everything(kind):
    """(name, descriptor, group) of all that can be asked."""
    opened = kind(URL, TOKEN)
    for attribute, annotation in vars(opened).items():
        if not attribute.startswith("_"):
            for name in dir(type(annotation)):
                found = getattr(type(annotation), name, None)
                if isinstance(found, _Described):
                    yield f"{attribute}.{name}", found, annotation
    for name in dir(kind):
        found = getattr(kind, name, None)
        if isinstance(found, _Described):
            yield name, found, opened


def test_both_clients_can_ask_the_same():
    assert [n for n, *_ in everything(Client)] == [n for n, *_ in everything(AsyncClient)]
    names = {n for n, *_ in everything(Client)}
    assert {"explain", "steer", "sweep", "suggest", "predict", "save_correction", "images.upload"} <= names


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_every_method_says_what_it_does_and_hides_how(kind):
    for name, _, group in everything(kind):
        method = getattr(group, name.rpartition(".")[2])
        assert method.__doc__, name
        signature = inspect.signature(method)
        assert "self" not in signature.parameters, name
        assert "Generator" not in str(signature.return_annotation), name
        assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values()), name


def test_signatures_name_the_answer():
    with Client(URL, TOKEN) as client:
        assert inspect.signature(client.images.get).return_annotation is ImageRecord
        assert "Iterator" in str(inspect.signature(client.images.list).return_annotation)


def test_the_three_kinds_answer_each_in_its_way():
    kinds = {n: type(d) for n, d, _ in everything(Client)}
    assert kinds["images.get"] is operation
    assert kinds["images.list"] is Listing
    assert kinds["sweep"] is Streaming
