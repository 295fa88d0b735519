"""From the experts of a concept to the bench, by clicking: units of a layer are steered as latents are."""

import re

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import go, settled

from fulcrum.demo.shipped import demo_task

CONCEPT = "sticker_kind=attack"


@pytest.fixture(scope="module")
def search(world):
    """Experts among the units of the vision tower."""
    model = next(iter(world.client.models.list()))
    job = world.client.experts.find_units(
        model, world.dataset, ["sticker_kind"], split="discover", name="stickers"
    )
    ended = world.client.jobs.wait(job, timeout_s=300)
    assert ended.state == "succeeded", ended.error
    return ended.result["experts_id"]


@pytest.fixture(scope="module")
def attacked(world):
    """An attacked image on the platform that the model gets wrong."""
    client = world.client
    for sample in client.datasets.images(
        world.dataset, split="confirm", where={"group_sticker_kind": "attack"}
    ):
        image = client.datasets.open_image(world.dataset, sample)
        if client.predict(image, demo_task(), model=world.sae.model_id).before[0].top != sample.label:
            return image
    raise AssertionError("the model gets every attacked image right")


def test_experts_of_a_concept_are_damped_on_the_bench_and_called_units(page, world, search, attacked):
    go(page, world, f"experts?experts={search}")
    page.get_by_role("combobox", name="Concept").click()
    page.get_by_role("option", name=CONCEPT).click()
    settled(page)
    page.get_by_text("Steer with these experts").click()
    page.get_by_role("spinbutton", name="Best units").fill("12")
    page.get_by_role("spinbutton", name="Best units").press("Enter")
    settled(page)
    page.get_by_text(re.compile(r"of the model's best 12 lie there")).first.wait_for()
    page.get_by_role("radio", name="As with it", exact=True).click()
    page.get_by_text("Each is carried to the mean and spread").wait_for()
    settled(page)
    page.get_by_role("textbox", name="Name").fill("stickers everywhere")
    page.get_by_role("textbox", name="Name").blur()
    settled(page)
    page.get_by_role("button", name="Make the correction").click()

    page.wait_for_url(re.compile("debug.*correction=cor_"))
    page.get_by_text("choose an image to try it on").wait_for()
    (saved,) = [c for c in world.client.corrections.list() if c.name == "stickers everywhere"]
    content = world.client.corrections.version(saved).correction
    assert {e.kind for e in content.edits} <= {"affine", "add", "set"}
    assert len(content.edits) == 12

    go(page, world, f"debug?image={attacked.id}&correction={saved.id}")
    page.get_by_test_id("prediction-bars").wait_for()
    page.get_by_text(re.compile("answer changed|Still ")).first.wait_for()
    settled(page)
    assert f"correction={saved.id}.1" in page.url
    expect(page.get_by_text(re.compile(r"turn unit \d+ × .* and 9 more"))).to_have_count(1)
    expect(page.get_by_text(re.compile(r"^unit \d+$")).first).to_be_visible()
    assert page.get_by_text(re.compile(r"^latent \d+")).count() == 0
    assert page.get_by_text("describe this SAE").count() == 0
    page.get_by_text(re.compile(r"pushes of the same size along random directions")).wait_for()

    slider = page.get_by_role("slider", name="Strength of stickers everywhere")
    slider.focus()
    slider.press("End")  # one press: of many some are lost while the page is drawn again
    page.wait_for_url(re.compile("strength=2"))
    settled(page)
    expect(page.get_by_role("button", name="Save correction")).to_be_enabled()
    page.get_by_role("button", name="Suppress").first.click()
    settled(page)
    page.wait_for_url(re.compile("edits="))
    page.reload()
    settled(page)
    page.get_by_text(re.compile("answer changed|Still ")).first.wait_for()
    assert "strength=2" in page.url
    page.get_by_role("button", name="Reset").click()
    settled(page)
    page.get_by_text("Suppress or amplify a unit below").wait_for()
    assert "correction=" not in page.url


def test_a_layer_of_units_stands_beside_saes_and_is_not_described(page, world):
    go(page, world, "models")
    page.get_by_role("tab", name="Units of a layer").click()
    page.get_by_role("button", name="Add", exact=True).last.click()
    settled(page)
    made = [s for s in world.client.saes.list() if s.name.startswith("units of")]
    assert made
    world.client.saes.wait(made[0])
    go(page, world, "models")
    page.get_by_text(re.compile(r"\d+ units of the layer at visual\.blocks")).first.wait_for()
    go(page, world, "concepts")
    page.get_by_role("combobox", name="SAE").click()
    options = page.get_by_role("option").all_inner_texts()
    assert options
    assert not any(text.startswith("units of") for text in options)
