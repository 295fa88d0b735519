"""From an attacked image to a verdict, by clicking; and what one sees when something is not as it should be."""

import re
import socket
import subprocess
import sys
import time
from itertools import islice

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import follow, go, opened, settled

from fulcrum.client import Scale
from fulcrum.demo.shipped import demo_task


def choose(page, label, option):
    page.get_by_role("combobox", name=label, exact=True).click()
    page.get_by_role("option", name=option, exact=isinstance(option, str)).click()
    settled(page)


PAGES = ("", "debug", "concepts", "experts", "corrections", "validation", "datasets", "models", "jobs")


@pytest.fixture(scope="module")
def attacked(world):
    """The file of an attacked image that the model gets wrong."""
    for sample in world.client.datasets.images(
        world.dataset, split="discover", where={"group_sticker_kind": "attack"}
    ):
        image = world.client.datasets.open_image(world.dataset, sample)
        why = world.client.explain(image, demo_task(), sae=world.sae)
        if why.prediction.top != sample.label:
            return world.folder / "images" / "discover" / f"{sample.id}.png"
    raise AssertionError("the model gets every attacked image right")


def test_from_an_attacked_image_to_a_verdict(page, world, attacked):
    go(page, world, "debug")
    page.locator('input[type="file"]').first.set_input_files(str(attacked))
    page.get_by_test_id("prediction-bars").wait_for()
    said = page.locator(".fu-banner").first.inner_text()
    assert "The model says" in said
    page.get_by_role("button", name="Suppress").first.wait_for()
    for _ in range(8):  # cards of what speaks for the answer, in the order of their share
        page.get_by_role("button", name="Suppress").first.click()
        page.get_by_text(re.compile("answer changed|Still ")).first.wait_for()
        settled(page)
        if page.get_by_text("The answer changed").count():
            break
    expect(page.get_by_text("The answer changed")).to_have_count(1)
    page.get_by_text(re.compile(r"pushes of the same size along random directions")).wait_for()

    page.get_by_role("button", name="Save correction").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("no stickers")
    dialog.get_by_label("Why").fill("It reads the sticker.")
    dialog.get_by_label("Why").blur()
    dialog.get_by_role("button", name="Save").click()
    dialog.get_by_text("Validate it on a data set").click()

    page.wait_for_url(re.compile("validation.*correction=cor_"))
    page.get_by_text("What this can show").wait_for()
    settled(page)
    choose(page, "Failure mode: column", "sticker_kind")
    choose(page, "is", "attack")
    choose(page, "Same cue, rightly", "right")
    controls = page.get_by_role("spinbutton", name="Controls")
    controls.fill("20")
    controls.press("Enter")
    settled(page)
    page.get_by_role("button", name="Validate").click()
    page.get_by_text("Look at the evaluation").click()

    page.wait_for_url(re.compile("evaluation=evl_"))
    page.get_by_text("Images of the failure mode", exact=True).wait_for()
    verdict = page.locator(".fu-banner").first.inner_text()
    assert re.search("generalises|harm|instance|inconclusive", verdict, re.IGNORECASE), verdict
    page.get_by_role("tab", name="Flip board").click()
    page.get_by_role("radio", name=re.compile("Fixed")).click()
    settled(page)
    (record,) = world.client.evaluations.list(kind="validation")
    expect(page.get_by_text(f"Fixed ({record.numbers['fixed']})")).to_have_count(1)
    for tab in ("Slices", "Confusion", "Ripple", "Doses", "Details"):
        page.get_by_role("tab", name=tab).click()
        settled(page)
    page.get_by_role("button", name="Share").click()
    shared = page.get_by_test_id("stCode").inner_text().strip()
    assert record.id in shared


def test_two_cards_of_a_flip_board_become_an_invariant_list_that_the_next_validation_must_keep(page, world):
    client, dataset = world.client, world.dataset
    edits = [Scale(found.latent, 0.0) for found in islice(client.latents.list(world.sae), 60)]  # the loudest
    image = client.datasets.open_image(dataset, next(iter(client.datasets.images(dataset, split="discover"))))
    tried = client.steer(image, edits, demo_task(), sae=world.sae, n_controls=0)
    saved = client.save_correction(f"too much {time.time():.0f}", tried)
    job = client.evaluations.validate(saved, dataset, split="select", n_controls=0)
    ended = client.jobs.wait(job, timeout_s=300)
    assert ended.state == "succeeded", ended.error
    record = next(e for e in client.evaluations.list(correction=saved) if e.job_id == job.id)
    broken = list(client.evaluations.images(record, outcome="broken"))
    assert len(broken) > 1

    go(page, world, f"validation?evaluation={record.id}&part=Flip board&outcome=Broken")
    boxes = page.get_by_role("checkbox", name=re.compile("^Select "))
    boxes.nth(0).click()
    boxes.nth(1).click()
    page.get_by_text("2 selected").wait_for()
    # Which other latents moved most, on the cards of the two and on no other.
    page.get_by_role("button", name="What moved in them").click()
    asked = client.datasets.open_image(dataset, broken[0].id)
    told = client.steer(
        asked, saved, demo_task(), sae=world.sae, n_controls=0
    ).effect.diagnostics.moved_latents
    first = page.locator(f'.card[data-id="{broken[0].id}"] button')
    expect(first).to_have_attribute("title", re.compile(rf"(latent {told[0][0]}|\({told[0][0]}\)) "))
    others = page.locator(".card button").nth(2)
    expect(others).to_have_attribute("title", re.compile(r"^[^\n]*\n[^\n]*$"))
    page.get_by_role("button", name="Save as set").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Invariant list").click()
    dialog.get_by_label("Name").fill("signs")
    dialog.get_by_label("Name").press("Enter")
    dialog.get_by_role("button", name="Save", exact=True).click()
    dialog.get_by_text("holds 2 images now").wait_for()
    (kept,) = client.image_sets.list(dataset=dataset)
    assert (kept.purpose, kept.n_by_split) == ("invariant", {"select": 2})
    assert set(client.image_sets.images(kept)) == {b.id for b in broken[:2]}
    dialog.get_by_role("button", name="Validate again with it").click()
    page.get_by_text("Look at the evaluation").click()
    page.wait_for_url(re.compile("evaluation=evl_"))
    page.get_by_text("invariant images keep their answer: signs").wait_for()
    page.get_by_text(re.compile("^2 of 2 changed their answer")).wait_for()
    assert record.id not in page.url
    # From the gate to the images, which the address brings back.
    page.get_by_role("button", name="signs: 2 images that changed their answer").click()
    settled(page)
    cards = page.locator(".card")
    expect(cards).to_have_count(2)
    shown = {cards.nth(i).get_attribute("data-id") for i in range(2)}
    assert shown == {b.id for b in broken[:2]}
    page.reload()
    settled(page)
    expect(cards).to_have_count(2)
    expect(page.get_by_role("tab", name="Flip board")).to_have_attribute("aria-selected", "true")

    # The form proposes it, and the data set shows it.
    go(page, world, f"validation?correction={saved.id}")
    page.get_by_text("signs (invariant)").first.wait_for()
    page.get_by_text(re.compile("signs: 2 of 2 in select")).wait_for()
    go(page, world, f"datasets?dataset={dataset.id}&set={kept.id}")
    expect(page.get_by_role("checkbox", name=re.compile("^Select "))).to_have_count(2)
    choose(page, "Split", re.compile("^confirm"))
    expect(page.get_by_text("No image has all of these.")).to_be_visible()
    page.get_by_role("tab", name="Image sets").click()
    page.get_by_text("signs", exact=True).wait_for()
    page.get_by_role("button", name="Images", exact=True).click()
    expect(page.get_by_role("checkbox", name=re.compile("^Select "))).to_have_count(2)
    assert page.url.endswith(f"?dataset={dataset.id}&set={kept.id}")
    boxes.nth(0).click()
    page.get_by_text("1 selected").wait_for()
    page.get_by_role("button", name="Take out of this set").click()
    expect(boxes).to_have_count(1)
    assert client.image_sets.get(kept).n_images == 1
    boxes.nth(0).click()
    page.get_by_text("2 selected").wait_for()
    assert page.url.endswith(f"?dataset={dataset.id}&set={kept.id}")
    page.get_by_role("button", name="Clear").click()
    page.get_by_text("Tick images to keep them as a set").wait_for()
    expect(boxes).to_have_count(1)

    # Deleted, and brought back.
    client.image_sets.create(dataset, "newer", [broken[0].id])
    page.reload()
    settled(page)
    page.get_by_role("tab", name="Image sets").click()
    # Both stand there: the last button is not that of the newer one while the older is still to come.
    page.get_by_text("newer", exact=True).wait_for()
    page.get_by_text("signs", exact=True).wait_for()
    settled(page)
    page.get_by_role("button", name="More", exact=True).last.click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_text("Deleted signs").wait_for()
    assert [s.name for s in client.image_sets.list(dataset=dataset)] == ["newer"]
    expect(page.get_by_role("button", name="Delete", exact=True)).to_be_hidden()  # nor that of another set
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_text("Deleted signs")).to_have_count(0)
    page.get_by_text("signs", exact=True).wait_for()
    assert client.image_sets.get(kept).n_images == 1


@pytest.mark.parametrize("width", [1280, 1920])
def test_pages_open_without_errors_and_fit_the_screen(browser, admin_state, world, width):
    for path in PAGES:
        with opened(browser, admin_state, width) as page:
            go(page, world, path)
            assert page.get_by_text("Try again").count() == 0, path
            too_wide = page.evaluate("document.documentElement.scrollWidth > window.innerWidth")
            assert not too_wide, path


def test_an_address_brings_back_what_was_seen(page, world):
    sample = next(iter(world.client.datasets.images(world.dataset, split="select")))
    image = world.client.datasets.open_image(world.dataset, sample)
    go(page, world, f"debug?image={image.id}&classes=apple,boat,car&edits=12:0,40:2&region=0.1.2")
    page.get_by_text("Edits act in 3 of 36 patches").wait_for()
    expect(page.get_by_test_id("stSlider")).to_have_count(2)
    page.reload()
    settled(page)
    page.get_by_text("Edits act in 3 of 36 patches").wait_for()
    assert page.get_by_role("textbox", name="Classes").input_value() == "apple, boat, car"
    page.get_by_role("button", name="Undo").or_(page.get_by_role("button", name="Reset")).last.click()
    page.get_by_text("Suppress or amplify a latent below").wait_for()


def test_two_people_see_their_own_edits(browser, admin_state, world):
    sample = next(iter(world.client.datasets.images(world.dataset, split="select")))
    image = world.client.datasets.open_image(world.dataset, sample)
    project = next(iter(world.client.projects.list()))
    invited = world.client.users.invite("grace", project=project, role="analyst")
    with opened(browser, admin_state) as mine, opened(browser, None) as hers:
        follow(hers, invited.login_link)
        hers.wait_for_url(f"{world.started.frontend_url}/**")
        for page in (mine, hers):
            go(page, world, f"debug?image={image.id}&classes=apple,boat,car")
            page.get_by_role("button", name="Suppress").first.wait_for()
        untouched = hers.get_by_test_id("prediction-bars").inner_text()
        mine.get_by_role("button", name="Suppress").first.click()
        mine.get_by_test_id("stSlider").wait_for()
        hers.get_by_role("button", name="Amplify").nth(1).click()
        hers.get_by_test_id("stSlider").wait_for()
        assert "edits=" in mine.url
        assert mine.url.partition("edits=")[2] != hers.url.partition("edits=")[2]
        hers.get_by_role("button", name="Reset").click()
        hers.wait_for_function(
            "was => document.querySelector('[data-testid=prediction-bars]')?.innerText === was", arg=untouched
        )


def test_an_ended_login_leads_back_to_the_view(browser, world):
    project = next(iter(world.client.projects.list()))
    invited = world.client.users.invite("ada", project=project, role="viewer")
    with opened(browser, None) as page:
        go(page, world, "jobs")
        page.get_by_text("Welcome to Fulcrum").wait_for()
        follow(page, invited.login_link)
        page.wait_for_url(f"{world.started.frontend_url}/**")
        go(page, world, "jobs")
        page.get_by_role("heading", name="Jobs").wait_for()
        link = world.client.users.invite_again(invited.user).login_link  # ends her sessions
        page.reload()
        page.get_by_text("Your login has ended").wait_for()
        # Whoever is asked to log in is told where to come back to.
        back = page.get_by_role("link", name="Log in").get_attribute("href")
        assert "next=" in back
        follow(page, link + "&" + back.partition("?")[2])
        page.wait_for_url("**/jobs")
        page.get_by_role("heading", name="Jobs").wait_for()


def test_a_failed_job_says_why_and_can_be_tried_again(page, world):
    data = world.client.datasets.create(f"nothing {time.time():.0f}")
    job = world.client.jobs.wait(world.client.datasets.import_images(data, "folder:world/masks/nowhere"))
    assert job.state == "failed"
    go(page, world, f"jobs?job={job.id}")
    page.get_by_text(re.compile("Failed$")).wait_for()
    said = page.get_by_test_id("stAlert").inner_text()
    assert "nowhere" in said
    assert "Traceback" not in said
    expect(page.get_by_role("button", name="Try again")).to_have_count(1)


def test_a_slow_job_shows_how_far_it_is_and_can_be_cancelled(page, world):
    model = next(iter(world.client.models.list()))
    job = world.client.saes.train(
        f"slow {time.time():.0f}", model, world.dataset, d_sae=512, k=8, n_tokens=500_000_000
    )
    go(page, world, f"jobs?job={job.id}")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text(re.compile("Cancelled$")).wait_for()
    assert world.client.jobs.get(job).job.state == "cancelled"


def test_a_platform_that_is_down_is_said_and_not_a_traceback(browser, world, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    environment = {
        "FULCRUM_FRONTEND_PORT": str(free),
        "FULCRUM_FRONTEND_GATEWAY_URL": "http://127.0.0.1:9",
        "HOME": str(tmp_path),
        "PYTHONPATH": ":".join(sys.path),
    }
    frontend = subprocess.Popen([sys.executable, "-m", "fulcrum_ui"], env=environment)
    try:
        cookie = {"name": "fulcrum_session", "value": "log_0.0", "url": f"http://127.0.0.1:{free}"}
        context = browser.new_context()
        context.add_cookies([cookie])
        page = context.new_page()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with socket.socket() as reached:
                if reached.connect_ex(("127.0.0.1", free)) == 0:
                    break
            time.sleep(0.2)
        page.goto(f"http://127.0.0.1:{free}/")
        page.get_by_text("The platform does not answer").wait_for(timeout=60_000)
        assert page.get_by_text("Traceback").count() == 0
        expect(page.get_by_role("button", name="Try again")).to_have_count(1)
        context.close()
    finally:
        frontend.terminate()
        assert frontend.wait(30) is not None
