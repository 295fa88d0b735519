"""The gateway's schemas are the domain's words: same names, same fields, same alternatives."""

import dataclasses
import typing

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fulcrum.domain import (
    codec,
    concept_files,
    concept_sets,
    concepts,
    corrections,
    edits,
    engine,
    evaluations,
    experts,
    hook_points,
    image_sets,
    jobs,
    labels,
    models,
    provenance,
    records,
    results,
    tasks,
)
from fulcrum.domain.errors import FulcrumError, InvalidRequest
from fulcrum.gateway import result_schemas, schemas
from fulcrum.gateway.concepts import schemas as concept_schemas
from fulcrum.gateway.corrections import schemas as correction_schemas
from fulcrum.gateway.datasets import schemas as dataset_schemas
from fulcrum.gateway.descriptions import schemas as description_schemas
from fulcrum.gateway.evaluations import schemas as evaluation_schemas
from fulcrum.gateway.experts import schemas as expert_schemas
from fulcrum.gateway.image_sets import schemas as image_set_schemas
from fulcrum.gateway.models import schemas as model_schemas
from fulcrum.gateway.results import schemas as stored_schemas
from fulcrum.gateway.saes import schemas as sae_schemas
from fulcrum.gateway.sessions import schemas as session_schemas
from fulcrum.gateway.sweep import schemas as sweep_schemas
from fulcrum.rpc import answers as rpc_answers

SCHEMA_MODULES = (
    schemas,
    result_schemas,
    model_schemas,
    sae_schemas,
    dataset_schemas,
    session_schemas,
    correction_schemas,
    description_schemas,
    evaluation_schemas,
    expert_schemas,
    concept_schemas,
    image_set_schemas,
    stored_schemas,
    sweep_schemas,
)
# Of `records`, those that the resources here own.
OWN_RECORDS = (
    records.ModelRecord,
    records.SaeRecord,
    records.DatasetRecord,
    records.SessionRecord,
    records.SessionEntry,
    records.CorrectionRecord,
    records.CorrectionVersion,
    records.ConceptRecord,
    records.ResultRecord,
    records.EvaluationRecord,
    records.ImageSetRecord,
    records.IndexRecord,
    records.DescriptionRecord,
    records.ExpertsRecord,
)
# Values that no endpoint takes or gives yet: group search is a job.
NOT_ON_THE_WIRE = {results.GroupSuggestion, experts.Expertise}


def dataclasses_of(module):
    return [
        c
        for c in vars(module).values()
        if isinstance(c, type) and dataclasses.is_dataclass(c) and c.__module__ == module.__name__
    ]


MIRRORED = [
    *(
        c
        for m in (tasks, edits, corrections, results, models, hook_points)
        for c in dataclasses_of(m)
        if c not in NOT_ON_THE_WIRE
    ),
    provenance.Provenance,
    engine.ImageLatents,
    rpc_answers.DosePoints,
    *dataclasses_of(evaluations),
    *dataclasses_of(image_sets),
    *dataclasses_of(concepts),
    *dataclasses_of(concept_sets),
    concept_files.PairRatings,
    concept_files.TripletChoices,
    *(c for c in dataclasses_of(experts) if c not in NOT_ON_THE_WIRE),
    jobs.ImageConcept,
    labels.EarlierLabel,
    *OWN_RECORDS,
]


def schema_of(cls):
    found = [
        getattr(m, cls.__name__)
        for m in SCHEMA_MODULES
        if getattr(getattr(m, cls.__name__, None), "__module__", None) == m.__name__
    ]
    assert len(found) == 1, f"{cls.__name__} has {len(found)} schemas"
    return found[0]


def literals(hint):
    if typing.get_origin(hint) is typing.Literal:
        return {frozenset(typing.get_args(hint))}
    return set().union(*(literals(a) for a in typing.get_args(hint)))


@pytest.mark.parametrize("cls", MIRRORED, ids=lambda c: c.__name__)
def test_a_schema_has_the_fields_of_its_dataclass(cls):
    schema = schema_of(cls)
    assert list(schema.model_fields) == [f.name for f in dataclasses.fields(cls)]


@pytest.mark.parametrize("cls", MIRRORED, ids=lambda c: c.__name__)
def test_what_the_dataclass_requires_the_schema_requires(cls):
    for field in dataclasses.fields(cls):
        optional = not (field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING)
        shown = schema_of(cls).model_fields[field.name]
        # An alternative is told apart by its `kind`, so in JSON that is always there.
        tag = field.name == "kind" and typing.get_origin(shown.annotation) is typing.Literal
        tag = tag and len(typing.get_args(shown.annotation)) == 1
        assert shown.is_required() == (tag or not optional), field.name


@pytest.mark.parametrize("cls", MIRRORED, ids=lambda c: c.__name__)
def test_literals_of_a_schema_are_those_of_the_dataclass(cls):
    hints = typing.get_type_hints(cls)
    for name, shown in schema_of(cls).model_fields.items():
        assert literals(shown.annotation) == literals(hints[name]), name


@pytest.mark.parametrize("module", SCHEMA_MODULES, ids=lambda m: m.__name__)
def test_every_field_of_a_body_or_answer_is_described(module):
    for schema in vars(module).values():
        if not (isinstance(schema, type) and issubclass(schema, pydantic.BaseModel)):
            continue
        for name, field in schema.model_fields.items():
            described = field.description or any(getattr(m, "description", None) for m in field.metadata)
            assert described, f"{schema.__name__}.{name}"


def test_every_body_is_strict_and_refuses_unknown_fields():
    bodies = [
        s
        for m in SCHEMA_MODULES
        for s in vars(m).values()
        if isinstance(s, type) and issubclass(s, schemas.Body)
    ]
    assert len(bodies) > 20
    for body in bodies:
        assert body.model_config["strict"], body
        assert body.model_config["extra"] == "forbid", body
        assert body.model_config["allow_inf_nan"] is False, body


PROMPTS = st.text(st.characters(codec="ascii", categories=("L", "Nd")), min_size=1, max_size=12)
FLOATS = st.floats(-100, 100)
EDITS = st.one_of(
    st.builds(edits.Scale, st.integers(0, 5), FLOATS),
    st.builds(edits.SetTo, st.integers(6, 9), FLOATS),
    st.builds(edits.Cap, st.integers(10, 15), st.floats(0, 10)),
    st.builds(edits.Floor, st.integers(16, 19), FLOATS),
    st.builds(edits.Add, st.integers(20, 25), FLOATS),
    st.builds(edits.ProjectOut, st.integers(26, 29), FLOATS, st.sampled_from(["decoder", "encoder"])),
    st.builds(edits.MeanAblate, st.integers(30, 35), FLOATS),
    st.builds(edits.Affine, st.integers(36, 40), FLOATS, FLOATS),
)
CONDITIONS = st.one_of(
    st.builds(edits.LatentCondition, st.integers(0, 99), st.sampled_from([">=", "<="]), FLOATS),
    st.builds(edits.PredictedClassCondition, st.tuples(PROMPTS)),
    st.builds(edits.MarginCondition, FLOATS),
)
SCOPES = st.one_of(
    st.builds(edits.Scope, st.sampled_from(["all", "cls", "patches"])),
    st.builds(edits.Scope, st.just("patch_list"), st.lists(st.integers(0, 48), min_size=1).map(tuple)),
)
HASHES = st.text("0123456789abcdef", min_size=64, max_size=64)
TASKS = st.builds(
    tasks.ClassSet,
    st.lists(PROMPTS, min_size=1, max_size=4, unique=True).map(tuple),
    st.just(("a photo of a {}",)),
)
CORRECTIONS = st.builds(
    corrections.Correction,
    HASHES,
    HASHES,
    st.just("visual.blocks.3.resid_post"),
    st.lists(EDITS, max_size=4, unique_by=lambda e: e.latent).map(tuple),
    SCOPES,
    st.lists(CONDITIONS, max_size=3).map(tuple),
    st.none() | TASKS,
    st.builds(
        corrections.Origin,
        st.just("image_search"),
        st.lists(HASHES, max_size=2).map(tuple),
        st.none() | st.just("d"),
    ),
    st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(CORRECTIONS)
def test_a_correction_goes_through_its_schema_and_back_unchanged(correction):
    body = schemas.Correction.model_validate(codec.to_json(correction))
    again = schemas.to_domain(corrections.Correction, body)
    assert again == correction
    assert again.sha256 == correction.sha256


@pytest.mark.parametrize(
    ("schema", "content", "field"),
    [
        (schemas.Scale, {"kind": "scale", "latent": "3", "gain": 1.0}, "latent"),
        (schemas.Scale, {"kind": "scale", "latent": True, "gain": 1.0}, "latent"),
        (schemas.Scale, {"kind": "scale", "latent": -1, "gain": 1.0}, "latent"),
        (schemas.Scale, {"kind": "scale", "latent": 2**70, "gain": 1.0}, "latent"),
        (schemas.Scale, {"kind": "scale", "latent": 3, "gain": float("nan")}, "gain"),
        (schemas.Scale, {"kind": "scale", "latent": 3, "gain": float("inf")}, "gain"),
        (schemas.Scale, {"kind": "scale", "latent": 3, "gain": 1.0, "alpha": 2}, "alpha"),
        (schemas.ClassSet, {"names": []}, "names"),
        (schemas.ClassSet, {"names": ["cup\x00"]}, "names"),
        (schemas.ClassSet, {"names": ["\ud800"]}, "names"),
        (schemas.ClassSet, {"names": "cup"}, "names"),
        (schemas.Origin, {"image_sha256": ["../../etc/passwd"]}, "image_sha256"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_field(schema, content, field):
    with pytest.raises(pydantic.ValidationError) as caught:
        schema.model_validate(content)
    assert caught.value.errors()[0]["loc"][0] == field


def test_a_whole_number_is_a_gain():
    assert schemas.Scale.model_validate({"kind": "scale", "latent": 3, "gain": 0}).gain == 0.0


def test_an_empty_patch_is_refused():
    with pytest.raises(InvalidRequest, match="nothing to change"):
        schemas.changes(dataset_schemas.DatasetChange())


def test_the_domain_has_the_last_word_about_a_body():
    with pytest.raises(FulcrumError, match="must differ"):
        schemas.to_domain(tasks.ClassSet, schemas.ClassSet(names=["cup", "cup"]))
