"""Names that colleagues review, several projects, and concepts written by hand, by clicking."""

import json
import re
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect
from tests.browser.conftest import client_of, go, opened, settled
from tests.worker.language_models import save_causal

from fulcrum.domain.concept_sets import built_from_templates


@pytest.fixture(scope="module")
def colleague(world):
    """Eve, who may propose names and not review them."""
    project = next(iter(world.client.projects.list()))
    invited = world.client.users.invite("Eve", project=project, role="analyst")
    with client_of(world, invited.login_link) as client:
        yield client


def latents_of(world, n):
    return [
        d.latent for _, d in zip(range(n), world.client.latents.list(world.sae, sort="clarity"), strict=False)
    ]


def test_names_wait_on_home_and_are_confirmed_and_rejected_with_a_reason(page, world, colleague):
    first, second = latents_of(world, 2)
    before = world.client.latents.get(world.sae, second).summary.label
    colleague.concepts.put(world.sae, first, "round thing", note="in all of them")
    colleague.concepts.put(world.sae, second, "nonsense")
    go(page, world)
    page.get_by_text("2 labels wait for your review").click()
    page.wait_for_url(re.compile("concepts.*waiting=1"))
    page.get_by_text("in all of them").wait_for()
    expect(page.get_by_text("nonsense", exact=False).first).to_be_visible()
    go(page, world, f"concepts?sae={world.sae.id}&latent={first}")
    page.get_by_text("proposed by Eve").wait_for()
    page.get_by_placeholder("Why (kept with the name)").fill("seen on twenty")
    page.get_by_role("button", name="Confirm").click()
    page.get_by_text("confirmed by", exact=False).first.wait_for()
    go(page, world, f"concepts?sae={world.sae.id}&latent={second}")
    page.get_by_role("button", name="Reject").click()
    page.get_by_text("Earlier names").wait_for()
    page.get_by_text("rejected by", exact=False).first.wait_for()
    confirmed, rejected = (world.client.concepts.get(world.sae, n) for n in (first, second))
    assert (confirmed.review, confirmed.review_note) == ("confirmed", "seen on twenty")
    assert (rejected.label or None, rejected.history[0].label) == (before, "nonsense")
    assert list(world.client.concepts.list(world.sae, review="proposed")) == []


def test_who_proposed_a_name_hears_that_a_colleague_decides(page, world):
    (latent,) = latents_of(world, 3)[2:]
    go(page, world, f"concepts?sae={world.sae.id}&latent={latent}")
    page.get_by_role("button", name="Rename").click()
    page.get_by_text("until a reviewer confirms it").wait_for()
    page.get_by_role("textbox", name="Name", exact=True).fill("my word")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("Your name waits for a colleague").wait_for()
    page.get_by_role("heading", name=re.compile("my word")).wait_for()
    assert page.get_by_role("button", name="Confirm").count() == 0


def test_concepts_are_written_checked_taken_home_and_searched(page, world, tmp_path):
    faulty = {
        "concept": "cup",
        "group": "things",
        "sentences": {"positive": ["a cup", "my cup", "a boat"], "negative": ["a boat", "a car"]},
    }
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(faulty))
    go(page, world, "experts")
    page.get_by_role("radio", name="Units of the text tower").click()
    page.get_by_role("radio", name="File").click()
    page.locator('input[type="file"]').set_input_files(str(file))
    settled(page)
    page.get_by_role("button", name="Open", exact=True).first.click()
    page.wait_for_url(re.compile("draft=1"))
    page.get_by_text("One concept is not right yet.").wait_for()
    expect(page.get_by_role("button", name="Find experts")).to_be_disabled()
    # A sentence stood on both sides; the same without it.
    page.get_by_role("button", name="All searches").click()
    page.get_by_role("button", name="Go on with “mine”").wait_for()
    settled(page)
    page.get_by_role("radio", name="File").click()
    right = faulty | {"sentences": {"positive": ["a cup", "my cup"], "negative": ["a boat", "a car"]}}
    key = {"concept": "key", "sentences": {"positive": ["a key", "my key"], "negative": ["a boat", "a car"]}}
    file.write_text(json.dumps([right, key]))
    page.locator('input[type="file"]').set_input_files(str(file))
    settled(page)
    page.get_by_role("button", name="Open", exact=True).first.click()
    page.get_by_text("Add sentences, one on each line").wait_for()
    settled(page)
    more = page.get_by_role("textbox", name="Add sentences, one on each line")
    more.fill("Where is my cup?\nA cup of tea.")
    more.blur()
    page.get_by_role("button", name="Add as positive").click()
    expect(more).to_have_value("")  # they were taken
    settled(page)
    with page.expect_download() as taken:
        page.get_by_role("button", name="JSON").click()
    (cup, *_) = json.loads(Path(taken.value.path()).read_text())
    assert cup["concept"] == "cup"
    assert cup["sentences"]["positive"][-2:] == ["Where is my cup?", "A cup of tea."]
    name = f"by hand {time.time():.0f}"
    page.get_by_role("textbox", name="Name of the set").fill(name)
    page.get_by_role("textbox", name="Name of the set").blur()
    settled(page)
    page.get_by_role("button", name="Find experts").click()
    page.wait_for_url(re.compile("job=job_"))
    job = page.url.partition("job=")[2].partition("&")[0]
    ended = world.client.jobs.wait(job, timeout_s=300)
    assert ended.state == "succeeded", ended.error
    asked = world.client.experts.concept_set(ended.result["experts_id"])
    assert (asked.name, len(asked.concepts)) == (name, 2)
    assert "Where is my cup?" in asked.sentences


def test_words_become_sentences_that_the_text_tower_reads_and_a_language_model_is_named_for_them(page, world):
    words = built_from_templates("words", {"animals": ("dog", "cat", "owl"), "fruits": ("apple", "pear", "banana")},
                                 100, 200)  # fmt: skip
    save_causal(world.models / "gpt", words)
    go(page, world, "experts")
    page.get_by_role("radio", name="Units of the text tower").click()
    settled(page)
    page.get_by_role("button", name="Build sentences").click()
    page.wait_for_url(re.compile("draft=1"))
    settled(page)
    job = asked_for(page)
    ended = world.client.jobs.wait(job, timeout_s=300)
    assert ended.state == "succeeded", ended.error
    go(page, world, "experts")
    page.get_by_role("radio", name="A language model").click()
    settled(page)
    page.get_by_role("button", name="Build sentences").click()
    page.wait_for_url(re.compile("draft=1"))
    settled(page)
    expect(page.get_by_role("button", name="Find experts")).to_be_disabled()
    reference = page.get_by_role("combobox", name="Language model")
    reference.fill("folder:lab/gpt")
    reference.press("Enter")
    settled(page)
    job = asked_for(page)
    ended = world.client.jobs.wait(job, timeout_s=300)
    assert ended.state == "succeeded", ended.error
    record = world.client.experts.get(ended.result["experts_id"]).record
    assert (record.units, record.language_model) == ("language", "folder:lab/gpt")
    go(page, world, f"experts?experts={record.id}")
    page.get_by_text("folder:lab/gpt").first.wait_for()


def asked_for(page):
    """The job of a press on Find experts."""
    page.get_by_role("button", name="Find experts").click()
    page.wait_for_url(re.compile("job=job_"))
    return page.url.partition("job=")[2].partition("&")[0]


def test_who_sees_several_projects_chooses_one_and_shared_links_carry_it(browser, admin_state, page, world):
    go(page, world, "corrections")
    first = next(iter(world.client.projects.list()))
    assert page.get_by_test_id("stSidebar").count() == 0 or not page.get_by_label("Project").count()
    assert "project=" not in page.url
    other = world.client.projects.create("Birds")
    with opened(browser, admin_state) as seen:
        deadline = time.monotonic() + 60  # what a visitor sees is asked again after half a minute
        while True:
            go(seen, world, "datasets")
            if seen.get_by_test_id("stSidebar").get_by_text("Project").count():
                break
            assert time.monotonic() < deadline, "the new project does not appear"
            time.sleep(3)
        seen.get_by_text(world.dataset.name).first.wait_for()
        assert f"project={first.id}" in seen.url
        seen.get_by_test_id("stSidebar").get_by_role("combobox").click()
        seen.get_by_role("option", name="Birds").click()
        seen.wait_for_url(re.compile(f"project={other.id}"))
        settled(seen)
        expect(seen.get_by_text(world.dataset.name)).to_have_count(0)
        seen.get_by_role("link", name="Models & SAEs").click()
        seen.wait_for_url(re.compile(f"models.*project={other.id}"))
        settled(seen)
        expect(seen.get_by_text(world.sae.name)).to_have_count(0)
        seen.reload()
        settled(seen)
        assert f"project={other.id}" in seen.url
        expect(seen.get_by_text(world.sae.name)).to_have_count(0)
        go(seen, world, f"datasets?dataset={world.dataset.id}&project={first.id}")
        seen.get_by_role("heading", name=world.dataset.name).wait_for()
        assert f"project={first.id}" in seen.url
        go(seen, world, "datasets?project=prj_nobody")
        seen.get_by_text("you are no member of it").wait_for()
