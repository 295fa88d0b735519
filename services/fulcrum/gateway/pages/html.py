"""The few pages of the gateway's own, as texts: no script, no frame, nothing from elsewhere."""

from collections.abc import Mapping, Sequence
from html import escape
from urllib.parse import urlsplit

from fulcrum.domain.records import Project, User
from fulcrum.gateway.auth.passwords import MIN_LENGTH


def headers(frontend_url: str | None = None) -> dict[str, str]:
    """Of each page. Forms may lead to the frontend, because browsers hold a redirect after a form against them."""
    parts = urlsplit(frontend_url or "")
    there = f" {parts.scheme}://{parts.netloc}" if parts.netloc else ""
    return {
        "Content-Security-Policy": f"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'{there}; "
        "base-uri 'none'; frame-ancestors 'none'",
        # Not `no-referrer`: browsers would then send our own forms with the Origin "null".
        "Referrer-Policy": "same-origin",
    }


_SNIPPET = """\
from fulcrum.client import Client

client = Client("{url}", token="fct_...")
seen = client.explain("photo.jpg", ["a cat", "a dog"])
print(seen)"""


def landing(frontend_url: str | None = None) -> str:
    """For strangers."""
    enter = escape(frontend_url or "/login")
    return _page(
        "Fulcrum",
        f"""
<h1>See why the model said it. Change its mind. Prove that it holds.</h1>
<p class="lead">Fulcrum shows which concepts carried a CLIP prediction, lets you suppress or amplify them and watch
the answer move, and keeps what works as a correction that a whole lab can test, review and take home.</p>
<p><a class="button" href="{enter}">Log in</a></p>
<div class="cards">
<section class="card"><h2>For people</h2><p>Log in with the link that <code>fulcrum up</code> printed, or with the one
that an administrator gave you.</p></section>
<section class="card"><h2>For programs</h2><p>Everything is in the HTTP API, described in
<a href="/openapi.json">OpenAPI</a>, and in the Python package <code>fulcrum.client</code>.</p></section>
</div>""",
    )


def home(
    user: User,
    projects: Sequence[Project],
    checks: Mapping[str, str],
    url: str,
    shown: str = "",
    *,
    frontend_url: str | None = None,
) -> str:
    """For who is logged in; `shown` is a message, as HTML."""
    states = "".join(
        f"<dt>{escape(name.capitalize())}</dt><dd>"
        + (
            '<span class="good-word">ready</span>'
            if said == "ok"
            else f'<span class="bad-word">{escape(said)}</span>'
        )
        + "</dd>"
        for name, said in checks.items()
    )
    listed = "".join(
        f"<li>{escape(p.name)}<br><code class='quiet'>{escape(p.id)}</code></li>" for p in projects
    )
    return _page(
        "Fulcrum",
        f"""
<h1>Welcome, {escape(user.name)}</h1>
{shown}
{"" if frontend_url is None else f'<p><a class="button" href="{escape(frontend_url)}">Open the bench</a></p>'}
<div class="cards">
<section class="card" aria-labelledby="platform"><h2 id="platform">Platform</h2>
<dl class="states">{states}</dl></section>
<section class="card" aria-labelledby="projects"><h2 id="projects">Your projects</h2>
{f'<ul class="plain-list">{listed}</ul>' if listed else "<p>None yet: ask an administrator to add you to one.</p>"}
</section>
<section class="card wide" aria-labelledby="python"><h2 id="python">From Python</h2>
<pre tabindex="0"><code>{escape(_SNIPPET.format(url=url))}</code></pre>
<p class="quiet">On the machine that runs <code>fulcrum up</code>, <code>Client()</code> finds both by itself. The API
is described in <a href="/openapi.json">OpenAPI</a>.</p></section>
<section class="card" aria-labelledby="tokens"><h2 id="tokens">API token</h2>
<p class="quiet">For notebooks and scripts; it may read and write what you may.</p>
<form method="post" action="/account/tokens">
<label for="token-name">Name <span class="hint">What it is for</span></label>
<input id="token-name" name="name" type="text" required maxlength="200" autocomplete="off">
<button>Make a token</button></form></section>
<section class="card" aria-labelledby="password"><h2 id="password">Password</h2>
<p class="quiet">So that you can log in without a link.</p>
<form method="post" action="/account/password">
<input type="text" name="name" value="{escape(user.name)}" autocomplete="username" hidden>
<label for="current">Current password <span class="hint">Empty if you have none yet</span></label>
<input id="current" name="current_password" type="password" autocomplete="current-password">
<label for="new">New password <span class="hint">At least {MIN_LENGTH} characters</span></label>
<input id="new" name="new_password" type="password" required minlength="{MIN_LENGTH}" maxlength="256"
 autocomplete="new-password">
<button>Set password</button></form></section>
</div>""",
        user,
    )


def login(wrong: str | None = None, name: str = "", next: str = "") -> str:
    """Name and password."""
    return _page(
        "Log in · Fulcrum",
        f"""
<section class="card"><h1>Log in</h1>
{bad(wrong)}
<form method="post" action="/login">
<input type="hidden" name="next" value="{escape(next)}">
<label for="name">Name</label>
<input id="name" name="name" type="text" required maxlength="200" autocomplete="username" autocapitalize="none"
 spellcheck="false" value="{escape(name)}">
<label for="password">Password</label>
<input id="password" name="password" type="password" required maxlength="256" autocomplete="current-password">
<button class="full">Log in</button></form></section>
<p class="quiet">No password yet? Follow your login link. A new one comes from an administrator, or from
<code>fulcrum up</code> on the machine itself.</p>""",
        narrow=True,
    )


def redeem(link: str, next: str = "") -> str:
    """One button: a browser that loads links in advance must not use this one up."""
    return _page(
        "Log in · Fulcrum",
        f"""
<section class="card"><h1>Your login link</h1>
<p>It works once, and only for you. Continue to use it in this browser.</p>
<form method="post" action="/login"><input type="hidden" name="link" value="{escape(link)}">
<input type="hidden" name="next" value="{escape(next)}">
<button class="full" autofocus>Continue to Fulcrum</button></form></section>""",
        narrow=True,
    )


def failure(status: int, title: str, detail: str, request_id: str) -> str:
    """What a person sees where a program gets problem+json."""
    return _page(
        f"{title} · Fulcrum",
        f"""
<section class="card"><h1>{escape(title)}</h1>
<p>{escape(detail)}</p>
<p class="quiet">Status {status}, request <code>{escape(request_id)}</code></p>
<p><a class="button" href="/">To the start</a></p></section>""",
        narrow=True,
    )


def bad(message: str | None) -> str:
    """A message about a failure, read out by screen readers; empty for None."""
    if message is None:
        return ""
    return f'<p class="message bad" role="alert">{escape(message[:1].upper() + message[1:])}</p>'


def good(message: str) -> str:
    """A message about what was done."""
    return f'<p class="message good" role="status">{escape(message)}</p>'


def new_token(text: str) -> str:
    """The only time that a token is shown."""
    return (
        '<div class="message good" role="status"><p>Your new token. Copy it now: it is never shown again.</p>'
        f'<code class="secret">{escape(text)}</code></div>'
    )


def _page(title: str, content: str, user: User | None = None, narrow: bool = False) -> str:
    who = ""
    if user is not None:
        who = (
            f'<div class="who"><span>{escape(user.name)}</span><form method="post" action="/logout">'
            '<button class="plain">Log out</button></form></div>'
        )
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="/static/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/static/style.css">
</head>
<body>
<header><a class="brand" href="/"><img src="/static/icon.svg" alt="">Fulcrum</a>{who}</header>
<main{' class="narrow"' if narrow else ""}>{content}
</main>
<footer>From attribution to action.</footer>
</body>
</html>
"""
