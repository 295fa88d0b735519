"""What somebody sees who may read a project and change nothing in it, and how that ends with another role."""

import re
import time

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import follow, go, opened, settled
from tests.browser.test_story import PAGES

from fulcrum.client import Scale
from fulcrum.demo.shipped import demo_task
from fulcrum.domain.tasks import ClassSet

WHY = re.compile("You look at this project as a viewer")


@pytest.fixture(scope="module")
def story(world):
    """What colleagues did: an image that they asked about, a correction, and its evaluation."""
    client, names = world.client, demo_task().names
    sample = next(iter(client.datasets.images(world.dataset, split="discover")))
    image = client.datasets.open_image(world.dataset, sample)
    why = client.explain(image, ClassSet(names), sae=world.sae, n_latents=24, per_token=True)
    tried = client.steer(why, Scale(why.latents[0].latent, 0.0), n_controls=20)
    saved = client.save_correction(f"kept {time.time():.0f}", tried)
    job = client.evaluations.validate(saved, world.dataset, split="select", n_controls=0)
    assert client.jobs.wait(job, timeout_s=300).state == "succeeded"
    record = next(e for e in client.evaluations.list(correction=saved) if e.job_id == job.id)
    return image, why, tried, saved, record


@pytest.fixture(scope="module")
def viewer(browser, world):
    """The browser of Vera, who reads."""
    project = next(iter(world.client.projects.list()))
    invited = world.client.users.invite("Vera", project=project, role="viewer")
    context = browser.new_context()
    page = context.new_page()
    follow(page, invited.login_link)
    page.wait_for_url(f"{world.started.frontend_url}/**", timeout=60_000)
    state = context.storage_state()
    context.close()
    return invited.user, project, state


def calm(page):
    """No card says that something was refused or failed."""
    for words in ("You may not do this here", "That did not work", "Something went wrong", "Try again"):
        assert page.get_by_text(words, exact=True).count() == 0, words


def test_a_viewer_reads_every_page_and_is_refused_nowhere(browser, world, story, viewer):
    image, _, _, saved, record = story
    *_, state = viewer
    for path in (
        *PAGES,
        f"debug?image={image.id}",
        f"corrections?correction={saved.id}",
        f"validation?evaluation={record.id}",
        f"validation?evaluation={record.id}&part=Flip board",
        f"datasets?dataset={world.dataset.id}",
        f"jobs?job={record.job_id}",
    ):
        with opened(browser, state) as page:
            go(page, world, path)
            calm(page)
            page.get_by_text("Viewer: reading only").wait_for()
            assert not page.evaluate("document.documentElement.scrollWidth > window.innerWidth"), path


def test_a_link_of_a_colleague_shows_a_viewer_what_the_model_said_to_them(browser, world, story, viewer):
    image, why, tried, saved, _ = story
    *_, state = viewer
    latent = why.latents[0].latent
    address = f"debug?image={image.id}&sae={world.sae.id}&classes={','.join(why.task.names)}"
    with opened(browser, state) as page:
        go(page, world, f"{address}&edits={latent}:0")
        page.get_by_test_id("prediction-bars").wait_for()
        said = page.locator(".fu-banner").first.inner_text()
        assert tried.after.top in said
        page.get_by_text("pushes of the same size along random directions").first.wait_for()
        page.get_by_text(WHY).first.wait_for()
        expect(page.get_by_role("button", name="Suppress")).to_have_count(0)
        page.reload()
        settled(page)
        assert page.locator(".fu-banner").first.inner_text() == said
        # Edits that nobody tried: the prediction is there, and what is not known is said.
        go(page, world, f"{address}&edits={latent}:0.35")
        page.get_by_text("Nobody has tried these edits on it yet").wait_for()
        expect(page.locator(".fu-banner").first).to_contain_text(f"The model said {why.prediction.top}")
        # A question that nobody asked.
        go(page, world, f"debug?image={image.id}&sae={world.sae.id}&classes=apple,boat")
        page.get_by_role("heading", name="Nobody has asked this yet").wait_for()
        calm(page)
        page.get_by_role("button", name="What else was asked about this image").click()
        page.get_by_text(f"The model said {why.prediction.top}").wait_for()
        page.get_by_text("All corrections").click()
        page.wait_for_url(re.compile("/corrections"))
        page.get_by_text(saved.name).first.wait_for()


def test_buttons_that_write_are_disabled_for_a_viewer_and_say_why(browser, world, story, viewer):
    _, _, _, saved, record = story
    *_, state = viewer
    with opened(browser, state) as page:
        go(page, world, f"validation?correction={saved.id}")
        button = page.get_by_role("button", name="Validate", exact=True)
        expect(button).to_be_disabled()
        button.hover(force=True)
        page.get_by_role("tooltip").get_by_text(WHY).wait_for()
        go(page, world, f"corrections?correction={saved.id}")
        page.get_by_role("button", name="More").click()
        for name in ("Save", "Delete"):
            expect(page.get_by_role("button", name=name, exact=True)).to_be_disabled()
        go(page, world, f"validation?evaluation={record.id}&part=Flip board&outcome=Still right")
        page.locator(
            ".card button"
        ).first.click()  # an image that nobody opened: looked at, not taken to the bench
        dialog = page.get_by_role("dialog")
        dialog.get_by_text(WHY).wait_for()
        calm(page)


def test_a_viewer_who_becomes_an_analyst_writes_soon_without_logging_in_again(browser, world, story, viewer):
    _, _, _, saved, _ = story
    user, project, state = viewer
    with opened(browser, state) as page:
        go(page, world, f"validation?correction={saved.id}")
        expect(page.get_by_role("button", name="Validate", exact=True)).to_be_disabled()
        world.client.projects.put_member(project, user, "analyst")
        try:
            deadline = time.monotonic() + 60
            while page.get_by_role("button", name="Validate", exact=True).is_disabled():
                assert time.monotonic() < deadline, "the new role is not seen"
                time.sleep(3)
                go(page, world, f"validation?correction={saved.id}")
            expect(page.get_by_text("Viewer: reading only")).to_have_count(0)
        finally:
            world.client.projects.put_member(project, user, "viewer")
