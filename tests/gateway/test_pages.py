"""The few pages for browsers: they work without scripts and hold nothing of others."""

import re
from html.parser import HTMLParser
from urllib.parse import quote

import pytest

from fulcrum.domain.errors import ServiceUnavailable
from fulcrum.gateway.bootstrap import bootstrap

PASSWORD = "correct horse battery"


class Elements(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def of(self, tag):
        return [a for t, a in self.found if t == tag]


@pytest.fixture
def browser(platform):
    """As a browser sends forms: with its Origin."""
    return platform.client(follow_redirects=True, headers={"Origin": platform.url, "Accept": "text/html,*/*"})


@pytest.fixture
def member(platform, browser):
    """A browser that is logged in by link as the administrator."""
    link = bootstrap(platform.store).login_link_secret
    assert browser.post("/login", data={"link": link}).status_code == 200
    return browser


def test_the_landing_page_says_what_this_is_and_where_to_log_in(browser):
    page = browser.get("/")
    assert page.status_code == 200
    assert 'href="/login"' in page.text


def test_pages_load_nothing_from_elsewhere_and_run_no_script(browser, member):
    for path in ("/", "/login", "/login?link=x", "/nothing"):
        page = browser.get(path)
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src" not in policy
        elements = Elements(page.text)
        assert elements.of("script") == []
        linked = [a.get("href") or a.get("src") or a.get("action") for _, a in elements.found]
        assert all(url.startswith("/") for url in linked if url)
        assert all("style" not in a for _, a in elements.found)


def test_pages_can_be_used_with_a_screen_reader(browser, member):
    for path in ("/", "/login", "/login?link=x"):
        elements = Elements(browser.get(path).text)
        assert elements.of("html") == [{"lang": "en"}]
        assert len(elements.of("h1")) == 1
        labels = {a["for"] for a in elements.of("label")}
        seen = {a["id"] for a in elements.of("input") if a.get("type") != "hidden" and "hidden" not in a}
        assert seen == labels
        assert all("alt" in a for a in elements.of("img"))


def test_style_and_icon_are_served(browser):
    assert browser.get("/static/style.css").headers["content-type"].startswith("text/css")
    assert browser.get("/static/icon.svg").headers["content-type"] == "image/svg+xml"
    for name in ("html.py", "..%2Fhtml.py", "%2e%2e/html.py"):
        assert browser.get(f"/static/{name}").status_code == 404


def test_the_button_of_a_login_link_leads_in_and_a_second_time_it_says_why_not(platform, browser):
    link = bootstrap(platform.store).login_link_secret
    page = browser.get("/login", params={"link": link})
    assert link in page.text
    assert "Welcome, admin" in browser.post("/login", data={"link": link}).text
    again = platform.client().post("/login", data={"link": link})
    assert again.status_code == 401
    assert "used already" in again.text


def test_what_is_typed_into_a_url_or_form_is_shown_as_text_only(browser):
    nasty = '"><script>alert(1)</script>'
    for page in (
        browser.get(f"/login?link={quote(nasty)}"),
        browser.post("/login", data={"name": nasty, "password": "x"}),
        browser.get(f"/{quote(nasty)}"),
    ):
        assert "<script" not in page.text


def test_a_wrong_password_is_told_on_the_page_and_the_name_stays(browser):
    page = browser.post("/login", data={"name": "Anna", "password": "wrong"})
    assert page.status_code == 401
    assert 'role="alert"' in page.text
    assert 'value="Anna"' in page.text
    assert "wrong" in page.text
    assert browser.post("/login", data={}).status_code == 401
    assert (
        browser.post(
            "/login", content=b"\xff\xfe", headers={"Content-Type": "multipart/form-data"}
        ).status_code
        == 422
    )


def test_a_password_that_was_set_on_the_page_works(platform, member):
    short = member.post("/account/password", data={"new_password": "short"})
    assert short.status_code == 422
    assert "at least 10" in short.text
    done = member.post("/account/password", data={"new_password": PASSWORD})
    assert "Your password is set" in done.text
    wrong = member.post("/account/password", data={"new_password": PASSWORD, "current_password": "no"})
    assert wrong.status_code == 403
    out = member.post("/logout")
    assert 'href="/login"' in out.text
    assert (
        platform.client(follow_redirects=True)
        .post("/login", data={"name": "admin", "password": PASSWORD})
        .status_code
        == 200
    )


def test_a_token_that_was_made_on_the_page_works_and_is_shown_once(platform, member):
    page = member.post("/account/tokens", data={"name": "notebook"})
    text = re.search(r"fct_tok_\w+", page.text)[0]
    assert platform.client(text).get("/v1/tokens").status_code == 200
    assert text not in member.get("/").text
    assert member.post("/account/tokens", data={"name": " "}).status_code == 422


def test_foreign_pages_cannot_use_the_forms(platform, member):
    for path in ("/logout", "/account/password", "/account/tokens"):
        refused = member.post(path, data={"name": "x"}, headers={"Origin": "https://evil.example"})
        assert refused.status_code == 403
    assert "Welcome" in member.get("/").text


def test_forms_of_who_is_not_logged_in_lead_to_the_login(platform, browser):
    for path in ("/account/password", "/account/tokens"):
        assert "Log in" in browser.post(path, data={"name": "x"}).text


def test_the_page_says_what_does_not_work(platform, member):
    platform.engine.down = ServiceUnavailable("away", 1.0)
    assert "loading, draining or stuck" in member.get("/").text
