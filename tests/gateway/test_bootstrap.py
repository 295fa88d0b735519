"""The first start, and every start."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from starlette.datastructures import Headers

from fulcrum.gateway.auth.identify import identify
from fulcrum.gateway.auth.service import redeem_link
from fulcrum.gateway.bootstrap import LOCAL_TOKEN_NAME, bootstrap, prepare
from fulcrum.gateway.settings import Settings
from fulcrum.store.database import open_store


def asker_of(store, token):
    return asyncio.run(identify(store, Headers({"authorization": f"Bearer {token}"})))


def test_the_first_start_makes_an_administrator_a_project_and_both_ways_in(store):
    first = bootstrap(store)
    assert first.admin.is_admin
    asker = asker_of(store, first.api_token)
    assert asker.user == first.admin
    with store.read() as tx:
        assert asker.project(tx, None, "admin") == first.project.id
        assert tx.audit.verify()
        assert [e.action for e in tx.audit.list().items] == ["platform.start"]


def test_every_start_gives_a_new_link_and_a_new_token_and_ends_the_old_one(store):
    first, second = bootstrap(store), bootstrap(store)
    assert (second.admin, second.project) == (first.admin, first.project)
    assert second.login_link_secret != first.login_link_secret
    assert asker_of(store, second.api_token).user == first.admin
    with store.read() as tx:
        local = [t for t in tx.tokens.list(user_id=first.admin.id).items if t.name == LOCAL_TOKEN_NAME]
        assert [t.revoked_at is None for t in local] == [True, False]
        assert tx.tokens.by_id(first.api_token[4:34]) is None


def test_an_administrator_who_took_another_name_stays_the_one(store):
    first = bootstrap(store)
    with store.write() as tx:
        tx.users.update(first.admin.id, None, name="Dr. Weiss")
    assert bootstrap(store).admin.name == "Dr. Weiss"


def test_two_starts_at_once_agree(store):
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: bootstrap(store), range(4)))
    assert len({r.admin.id for r in runs}) == 1
    assert len({r.project.id for r in runs}) == 1
    with store.read() as tx:
        usable = [t for t in tx.tokens.list(user_id=runs[0].admin.id).items if t.revoked_at is None]
    assert len(usable) == 1


def test_services_that_run_apart_get_tables_an_administrator_and_a_way_in(tmp_path):
    settings = Settings(database_url=f"sqlite:///{tmp_path / 'lab.db'}", public_url="https://lab.example/")
    first, second = prepare(settings), prepare(settings)
    assert first.login_link.startswith("https://lab.example/login?link=lnk_")
    assert (second.admin, second.project) == (first.admin, first.project)
    with open_store(settings.database_url) as store:
        store.ping()
        begun = redeem_link(store, second.login_link.partition("link=")[2], 1.0)
        assert begun.user == first.admin
        with store.read() as tx:
            assert tx.tokens.list(user_id=first.admin.id).items == ()
