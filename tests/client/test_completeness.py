"""Whatever the gateway offers, the SDK can ask for."""

import re
import tempfile
from pathlib import Path

import httpx
import pytest
from tests.client.samples import IMAGE, MODEL, SAE
from tests.client.scripted import TOKEN, URL
from tests.client.test_questions import CORRECTION

from fulcrum.client import Client, ModelRef, Scale
from fulcrum.domain.codec import to_json
from fulcrum.domain.concept_files import TripletChoices
from fulcrum.domain.concept_sets import concept_set_of
from fulcrum.domain.experts import ExpertRule
from fulcrum.gateway.app import create_app

# Of browsers and of those who watch the platform, not of programs that use it.
NOT_FOR_PROGRAMS = {
    "/healthz",
    "/readyz",
    "/metrics",
    "/v1/auth/login",
    "/v1/auth/links:redeem",
    "/v1/auth/logout",
}
CONCEPTS = concept_set_of("a", {"b": ["c", "d"]}, {"b": ["e", "f"]})
ARCHIVE = Path(tempfile.mkdtemp(), "images.zip")
ARCHIVE.write_bytes(b"PK")
PNG = b"\x89PNG\r\n\x1a\n"
ASKED = {
    "GET /v1/me": lambda c: c.me(),
    "PUT /v1/me/password": lambda c: c.change_password("long enough"),
    "GET /v1/users": lambda c: list(c.users.list()),
    "POST /v1/users": lambda c: c.users.invite("Ada"),
    "GET /v1/users/{}": lambda c: c.users.get("usr_1"),
    "PATCH /v1/users/{}": lambda c: c.users.update("usr_1", name="Ada"),
    "POST /v1/users/{}:invite": lambda c: c.users.invite_again("usr_1"),
    "POST /v1/tokens": lambda c: c.tokens.create("a"),
    "GET /v1/tokens": lambda c: list(c.tokens.list()),
    "DELETE /v1/tokens/{}": lambda c: c.tokens.delete("tok_1"),
    "GET /v1/projects": lambda c: list(c.projects.list()),
    "POST /v1/projects": lambda c: c.projects.create("a"),
    "GET /v1/projects/{}": lambda c: c.projects.get("prj_1"),
    "PATCH /v1/projects/{}": lambda c: c.projects.rename("prj_1", "b"),
    "GET /v1/projects/{}/members": lambda c: list(c.projects.members("prj_1")),
    "GET /v1/projects/{}/members/{}": lambda c: c.projects.member("prj_1", "usr_1"),
    "PUT /v1/projects/{}/members/{}": lambda c: c.projects.put_member("prj_1", "usr_1", "viewer"),
    "DELETE /v1/projects/{}/members/{}": lambda c: c.projects.remove_member("prj_1", "usr_1"),
    "POST /v1/images": lambda c: c.images.upload(PNG),
    "GET /v1/images": lambda c: list(c.images.list()),
    "GET /v1/images/{}": lambda c: c.images.get("img_1"),
    "DELETE /v1/images/{}": lambda c: c.images.delete("img_1"),
    "GET /v1/images/{}/content": lambda c: c.images.content("img_1"),
    "GET /v1/images/{}/thumbnail": lambda c: c.images.thumbnail("img_1"),
    "GET /v1/images/{}/latents": lambda c: c.images.latents("img_1", "sae_1"),
    "POST /v1/models": lambda c: c.models.create("a", ModelRef("folder:demo/clip")),
    "GET /v1/models": lambda c: list(c.models.list()),
    "GET /v1/models/{}": lambda c: c.models.get("mdl_1"),
    "PATCH /v1/models/{}": lambda c: c.models.rename("mdl_1", "b"),
    "DELETE /v1/models/{}": lambda c: c.models.delete("mdl_1"),
    "POST /v1/models/{}:warm": lambda c: c.models.warm("mdl_1"),
    "POST /v1/saes": lambda c: c.saes.create("a", "mdl_1", "folder:demo/sae"),
    "POST /v1/saes:upload": lambda c: c.saes.upload("a", "mdl_1", cfg=__file__, weights=__file__),
    "GET /v1/saes": lambda c: list(c.saes.list()),
    "GET /v1/saes/{}": lambda c: c.saes.get("sae_1"),
    "PATCH /v1/saes/{}": lambda c: c.saes.rename("sae_1", "b"),
    "DELETE /v1/saes/{}": lambda c: c.saes.delete("sae_1"),
    "POST /v1/saes/{}:warm": lambda c: c.saes.warm("sae_1"),
    "POST /v1/models/{}:train-sae": lambda c: c.saes.train("a", "mdl_1", "dat_1"),
    "GET /v1/saes/{}/concepts": lambda c: list(c.concepts.list("sae_1")),
    "GET /v1/saes/{}/concepts/{}": lambda c: c.concepts.get("sae_1", 3),
    "PUT /v1/saes/{}/concepts/{}": lambda c: c.concepts.put("sae_1", 3, "wheel"),
    "POST /v1/saes/{}/concepts/{}:review": lambda c: c.concepts.review("sae_1", 3, "confirm"),
    "GET /v1/indexes": lambda c: list(c.latents.indexes()),
    "POST /v1/datasets/{}:index": lambda c: c.latents.index("dat_1", "sae_1"),
    "POST /v1/saes/{}:describe": lambda c: c.latents.describe("sae_1", "dat_1"),
    "GET /v1/saes/{}/descriptions": lambda c: list(c.latents.descriptions("sae_1")),
    "GET /v1/saes/{}/latents": lambda c: list(c.latents.list("sae_1")),
    "GET /v1/saes/{}/latents:batch": lambda c: c.latents.cards("sae_1", [1, 2]),
    "GET /v1/saes/{}/latents/{}": lambda c: c.latents.get("sae_1", 3),
    "GET /v1/saes/{}/latents/{}/top-images": lambda c: c.latents.top_images("sae_1", 3),
    "GET /v1/saes/{}/map": lambda c: c.latents.map("sae_1"),
    "POST /v1/saes/{}:search": lambda c: c.latents.search("sae_1", "a dog"),
    "POST /v1/datasets": lambda c: c.datasets.create("a"),
    "GET /v1/datasets": lambda c: list(c.datasets.list()),
    "GET /v1/datasets/{}": lambda c: c.datasets.get("dat_1"),
    "PATCH /v1/datasets/{}": lambda c: c.datasets.update("dat_1", name="b"),
    "POST /v1/datasets/{}:import": lambda c: c.datasets.import_images("dat_1", "folder:lab/a"),
    "DELETE /v1/datasets/{}": lambda c: c.datasets.delete("dat_1"),
    "POST /v1/datasets/{}:upload": lambda c: c.datasets.upload("dat_1", ARCHIVE),
    "GET /v1/datasets/{}/versions": lambda c: list(c.datasets.versions("dat_1")),
    "GET /v1/datasets/{}/report": lambda c: c.datasets.report("dat_1"),
    "GET /v1/datasets/{}/images/{}/mask": lambda c: c.datasets.mask("dat_1", 3),
    "GET /v1/datasets/{}/facets": lambda c: c.datasets.facets("dat_1", where={"a": "b"}),
    "GET /v1/datasets/{}/images": lambda c: list(c.datasets.images("dat_1", split="select")),
    "GET /v1/datasets/{}/images/{}": lambda c: c.datasets.image("dat_1", 3),
    "GET /v1/datasets/{}/images/{}/content": lambda c: c.datasets.image_content("dat_1", 3),
    "GET /v1/datasets/{}/images/{}/thumbnail": lambda c: c.datasets.thumbnail("dat_1", "cup"),
    "POST /v1/datasets/{}/images:thumbnails": lambda c: c.datasets.thumbnails("dat_1", [3, "cup"]),
    "POST /v1/datasets/{}/images/{}:open": lambda c: c.datasets.open_image("dat_1", 3),
    "POST /v1/image-sets": lambda c: c.image_sets.create("dat_1", "night", ["a/1.png"]),
    "GET /v1/image-sets": lambda c: list(c.image_sets.list(dataset="dat_1")),
    "GET /v1/image-sets/{}": lambda c: c.image_sets.get("ims_1"),
    "GET /v1/image-sets/{}/images": lambda c: list(c.image_sets.images("ims_1")),
    "PATCH /v1/image-sets/{}": lambda c: c.image_sets.update("ims_1", add=["a/2.png"]),
    "DELETE /v1/image-sets/{}": lambda c: c.image_sets.delete("ims_1"),
    "POST /v1/image-sets/{}:restore": lambda c: c.image_sets.restore("ims_1"),
    "POST /v1/sessions": lambda c: c.sessions.create("a"),
    "GET /v1/sessions": lambda c: list(c.sessions.list()),
    "GET /v1/sessions/{}": lambda c: c.sessions.get("ses_1"),
    "PATCH /v1/sessions/{}": lambda c: c.sessions.rename("ses_1", "b"),
    "DELETE /v1/sessions/{}": lambda c: c.sessions.delete("ses_1"),
    "POST /v1/sessions/{}/entries": lambda c: c.sessions.note("ses_1", "hm", kind="hypothesis"),
    "GET /v1/sessions/{}/entries": lambda c: list(c.sessions.entries("ses_1")),
    "POST /v1/corrections": lambda c: c.corrections.create("a", CORRECTION),
    "GET /v1/corrections": lambda c: list(c.corrections.list()),
    "GET /v1/corrections/{}": lambda c: c.corrections.get("cor_1"),
    "PATCH /v1/corrections/{}": lambda c: c.corrections.update("cor_1", description="b"),
    "DELETE /v1/corrections/{}": lambda c: c.corrections.delete("cor_1"),
    "GET /v1/corrections/{}:export": lambda c: c.corrections.export("cor_1"),
    "POST /v1/corrections/{}/versions": lambda c: c.corrections.add_version("cor_1", CORRECTION),
    "GET /v1/corrections/{}/versions": lambda c: list(c.corrections.versions("cor_1")),
    "GET /v1/corrections/{}/versions/{}": lambda c: c.corrections.version("cor_1", 2),
    "POST /v1/corrections/{}:plan": lambda c: c.evaluations.plan("cor_1", "dat_1"),
    "POST /v1/corrections/{}:validate": lambda c: c.evaluations.validate("cor_1", "dat_1", where={"a": "b"}),
    "POST /v1/corrections/{}:sweep": lambda c: c.evaluations.sweep("cor_1", "dat_1", [0.0]),
    "POST /v1/corrections:interact": lambda c: c.evaluations.interactions(["cor_1", "cor_2"], "dat_1"),
    "POST /v1/datasets/{}:suggest": lambda c: c.evaluations.suggest("dat_1", "sae_1", {"a": "b"}),
    "GET /v1/evaluations": lambda c: list(c.evaluations.list()),
    "GET /v1/evaluations/{}": lambda c: c.evaluations.get("evl_1"),
    "GET /v1/evaluations/{}:compare": lambda c: c.evaluations.compare("evl_1", "evl_2"),
    "POST /v1/evaluations/{}:recompute": lambda c: c.evaluations.recompute("evl_1"),
    "GET /v1/evaluations/{}/images": lambda c: list(c.evaluations.images("evl_1", outcome="broken")),
    "GET /v1/evaluations/{}/table": lambda c: c.evaluations.table("evl_1"),
    "GET /v1/evaluations/{}/confusion": lambda c: c.evaluations.confusion("evl_1"),
    "GET /v1/evaluations/{}/slices": lambda c: c.evaluations.slices("evl_1"),
    "POST /v1/saes/{}:find-experts": lambda c: c.experts.find_latents("sae_1", "dat_1", ["label"]),
    "POST /v1/models/{}:find-experts": lambda c: c.experts.find_units("mdl_1", "dat_1", ["label"]),
    "POST /v1/experts:find": lambda c: c.experts.find_in_language_model("folder:lab/gpt2", CONCEPTS),
    "POST /v1/experts/{}:align": lambda c: c.experts.align("exp_1", [TripletChoices("a", (("a", "b", "c"),))]),
    "POST /v1/experts/{}:correct": lambda c: c.experts.correct("exp_1", "cup", "damp", "less cup"),
    "GET /v1/experts": lambda c: list(c.experts.list(units="latents")),
    "GET /v1/experts/{}": lambda c: c.experts.get("exp_1"),
    "GET /v1/experts/{}/concept-set": lambda c: c.experts.concept_set("exp_1"),
    "GET /v1/experts/{}/units": lambda c: list(c.experts.units("exp_1", "cup")),
    "GET /v1/experts/{}/units/{}": lambda c: c.experts.unit("exp_1", 3),
    "GET /v1/experts/{}/counts": lambda c: c.experts.counts("exp_1", ExpertRule("top_k", 5)),
    "GET /v1/experts/{}/profile": lambda c: c.experts.profile("exp_1", "cup"),
    "GET /v1/experts/{}/distribution": lambda c: c.experts.distribution("exp_1", "cup"),
    "GET /v1/experts/{}/structure": lambda c: c.experts.structure("exp_1"),
    "GET /v1/experts/{}/stability": lambda c: c.experts.stability("exp_1", "exp_2"),
    "GET /v1/jobs": lambda c: list(c.jobs.list(state="running")),
    "GET /v1/jobs/{}": lambda c: c.jobs.get("job_1"),
    "POST /v1/jobs/{}:cancel": lambda c: c.jobs.cancel("job_1"),
    "POST /v1/jobs/{}:retry": lambda c: c.jobs.retry("job_1"),
    "GET /v1/jobs/{}:watch": lambda c: list(c.jobs.watch("job_1")),
    "GET /v1/jobs/{}/log": lambda c: list(c.jobs.log("job_1")),
    "GET /v1/jobs/{}/metrics": lambda c: list(c.jobs.metrics("job_1")),
    "GET /v1/jobs/{}/correction": lambda c: c.corrections.suggested("job_1"),
    "POST /v1/jobs/{}:save": lambda c: c.corrections.save_suggested("job_1", "a"),
    "GET /v1/results": lambda c: list(c.results.list()),
    "GET /v1/results/{}": lambda c: c.results.get("res_1"),
    "POST /v1/predictions": lambda c: c.predict(IMAGE, ["a"], correction=Scale(1, 0.0), sae=SAE),
    "POST /v1/images/{}:explain": lambda c: c.explain(IMAGE, ["a"], sae=SAE),
    "POST /v1/images/{}:steer": lambda c: c.steer(IMAGE, Scale(1, 0.0), ["a"], sae=SAE),
    "POST /v1/images/{}:sweep": lambda c: list(c.sweep(IMAGE, 1, ["a"], sae=SAE)),
    "POST /v1/images/{}:suggest": lambda c: list(c.suggest(IMAGE, "a", ["a"], sae=SAE)),
}  # fmt: skip


class Asked(Exception):
    """The request that would have been sent."""


@pytest.fixture(scope="module")
def offered():
    paths = create_app().openapi()["paths"]
    return {
        f"{method.upper()} {re.sub(r'{[a-z_0-9]+}', '{}', path)}"
        for path, methods in paths.items()
        if path not in NOT_FOR_PROGRAMS
        for method in methods
    }


def test_everything_that_the_gateway_offers_to_programs_can_be_asked_through_the_sdk(offered):
    assert offered - set(ASKED) == set()
    assert set(ASKED) - offered == set()


@pytest.mark.parametrize("endpoint", ASKED)
def test_the_sdk_asks_at_the_place_that_the_gateway_offers(endpoint):
    def gateway(request):
        if request.url.path.startswith("/v1/models/") and endpoint == "POST /v1/predictions":
            return httpx.Response(200, json=to_json(MODEL))
        raise Asked(f"{request.method} {request.url.path}")

    with Client(URL, TOKEN, transport=httpx.MockTransport(gateway)) as client, pytest.raises(Asked) as caught:
        ASKED[endpoint](client)
    pattern = re.escape(endpoint).replace(r"\{\}", "[0-9A-Za-z_-]+")
    assert re.fullmatch(pattern, str(caught.value))
