import dataclasses

import pytest
from tests.client.samples import ATTRIBUTION, CURVE, EFFECT, IMAGE, MODEL, PROVENANCE, SAE, SUGGESTION

from fulcrum.client.answers import Answer
from fulcrum.client.reading import read
from fulcrum.domain.codec import to_json
from fulcrum.domain.corrections import Correction
from fulcrum.domain.edits import Scale
from fulcrum.domain.errors import InternalError
from fulcrum.domain.records import CorrectionVersion, ImageRecord, Page
from fulcrum.domain.results import Attribution, Suggestion

CORRECTION = Correction("c" * 64, "b" * 64, "visual.blocks.3.resid_post", (Scale(7, 0.0),))
VERSION = CorrectionVersion("cor_1", 1, CORRECTION.sha256, CORRECTION, "usr_1", IMAGE.created_at)


def with_news(content):
    """The same from a gateway that knows more: a field more in every object."""
    match content:
        case dict():
            return {**{k: with_news(v) for k, v in content.items()}, "news_of_2030": [{"x": 1}]}
        case list():
            return [with_news(v) for v in content]
        case _:
            return content


@pytest.mark.parametrize("value", [IMAGE, MODEL, PROVENANCE, ATTRIBUTION, EFFECT, CURVE, SUGGESTION])
def test_fields_of_a_newer_gateway_are_passed_over_at_every_depth(value):
    again = read(type(value), with_news(to_json(value)), "GET /v1/x")
    assert to_json(again) == to_json(value)


def test_figures_of_an_sae_may_have_any_name():
    assert read(type(SAE), to_json(SAE), "GET /v1/x") == SAE


def test_so_are_those_of_pages_and_answers():
    page = read(Page[ImageRecord], with_news(to_json(Page((IMAGE, IMAGE), "next"))), "GET /v1/images")
    assert page == Page((IMAGE, IMAGE), "next")
    content = {"result_id": "res_1", "value": [to_json(SUGGESTION)], "provenance": to_json(PROVENANCE)}
    answer = read(Answer[tuple[Suggestion, ...]], with_news(content), "POST /v1/x")
    assert answer.value == (SUGGESTION,)


def test_a_correction_is_read_whole_or_not_at_all_because_its_hash_covers_all_of_it():
    assert read(CorrectionVersion, to_json(VERSION), "GET /v1/x") == VERSION
    content = to_json(VERSION)
    content["correction"]["meaning_of_2030"] = "other"
    with pytest.raises(InternalError, match="different versions"):
        read(CorrectionVersion, content, "GET /v1/x")


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(ImageRecord) if f.name != "version"])
def test_a_field_that_is_missing_is_named_as_the_gateways_fault(name):
    content = to_json(IMAGE)
    del content[name]
    with pytest.raises(InternalError, match=f"GET /v1/x.*{name!r}"):
        read(ImageRecord, content, "GET /v1/x")


@pytest.mark.parametrize("content", [None, [], "text", 3])
def test_an_answer_of_another_shape_is_the_gateways_fault(content):
    with pytest.raises(InternalError):
        read(Attribution, content, "POST /v1/x")


def test_a_grid_of_three_numbers_is_not_cut_to_two():
    content = to_json(ATTRIBUTION)
    content["grid"] = [7, 7, 1]
    with pytest.raises(InternalError, match="grid"):
        read(Attribution, content, "POST /v1/x")
