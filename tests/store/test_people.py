"""Users, and the secrets by which they prove who they are."""

import dataclasses
from datetime import timedelta

import pytest

from fulcrum.domain.errors import AlreadyExists, NotFound, UnknownToken, UnknownUser
from fulcrum.domain.identifiers import new_id, now
from fulcrum.domain.records import Login, User


def test_a_user_is_found_by_name_whatever_its_case_or_composition(world):
    with world.store.read() as tx:
        for name in ("Änne", "änne", "ÄNNE", "A\u0308nne"):
            assert tx.users.by_name(name) == world.user
        assert tx.users.by_name("Anne") is None


def test_two_users_cannot_have_names_that_look_the_same(world):
    with pytest.raises(AlreadyExists), world.store.write() as tx:
        tx.users.add(User(new_id("usr"), "ÄNNE", now()))
    with pytest.raises(AlreadyExists), world.store.write() as tx:
        tx.users.update(world.other.id, name="änne")
    with world.store.write() as tx:
        tx.users.update(world.user.id, name="Zoë")
        assert tx.users.by_name("zoë").id == world.user.id
        assert tx.users.add(User(new_id("usr"), "Änne", now())).name == "Änne"


def test_a_password_hash_is_found_by_name_and_gone_with_the_user(world):
    with world.store.write() as tx:
        assert tx.users.password_hash("änne") is None
        tx.users.set_password_hash(world.user.id, "$argon2id$...")
        user, password_hash = tx.users.password_hash("ÄNNE")
        assert (user.id, password_hash) == (world.user.id, "$argon2id$...")
        assert tx.users.password_hash("nobody") is None
        with pytest.raises(UnknownUser):
            tx.users.set_password_hash("usr_none", "x")
        tx.users.delete(world.user.id)
        assert tx.users.password_hash("änne") is None


def test_a_usable_token_comes_with_the_hash_of_its_secret(world):
    with world.store.read() as tx:
        assert tx.tokens.by_id(world.token.id) == (world.token, "token-hash")
        assert tx.tokens.by_id("tok_none") is None
        assert tx.tokens.list(user_id=world.user.id).items == (world.token,)
        assert tx.tokens.list(user_id=world.other.id).items == ()


def test_a_revoked_or_expired_token_opens_nothing_but_is_still_listed(world):
    old = dataclasses.replace(world.token, id=new_id("tok"), expires_at=now() - timedelta(microseconds=1))
    with world.store.write() as tx:
        tx.tokens.add(old, "hash")
        revoked = tx.tokens.revoke(world.token.id)
        assert revoked.revoked_at is not None
        assert tx.tokens.revoke(world.token.id) == revoked
        assert tx.tokens.by_id(world.token.id) is None
        assert tx.tokens.by_id(old.id) is None
        assert {t.id for t in tx.tokens.list(user_id=world.user.id).items} == {old.id, world.token.id}
        with pytest.raises(UnknownToken):
            tx.tokens.revoke("tok_none")


def test_a_token_without_an_end_stays_usable_and_its_use_is_noted_to_the_minute(world):
    token = dataclasses.replace(world.token, id=new_id("tok"), expires_at=None)
    with world.store.write() as tx:
        tx.tokens.add(token, "hash")
        tx.tokens.touch(token.id)
        used = tx.tokens.get(token.id)
        assert abs(used.last_used_at - now()) < timedelta(seconds=20)
        tx.tokens.touch(token.id)
        assert tx.tokens.by_id(token.id) == (used, "hash")


def test_a_login_ends_when_it_is_revoked_or_expires(world):
    expired = Login(new_id("log"), world.user.id, now(), now() - timedelta(seconds=1))
    more = [Login(new_id("log"), world.user.id, now(), now() + timedelta(hours=1)) for _ in range(3)]
    with world.store.write() as tx:
        assert tx.logins.by_id(world.login.id) == (world.login, "login-hash")
        tx.logins.add(expired, "hash")
        assert tx.logins.by_id(expired.id) is None
        tx.logins.revoke(world.login.id)
        tx.logins.revoke(world.login.id)
        assert tx.logins.by_id(world.login.id) is None
        for login in more:
            tx.logins.add(login, "hash")
        with pytest.raises(UnknownToken):
            tx.logins.get(expired.id)  # forgotten when the next one came
        assert tx.logins.revoke_of(world.user.id, except_id=more[0].id) == 2
        assert tx.logins.by_id(more[0].id) is not None


def test_a_login_link_works_once(world):
    with world.store.write() as tx:
        tx.links.add("lnk_1", world.user.id, "link-hash", now() + timedelta(minutes=5))
    with world.store.write() as tx:
        assert tx.links.redeem("lnk_1") == (world.user.id, "link-hash")
    with world.store.write() as tx:
        assert tx.links.redeem("lnk_1") is None
        assert tx.links.redeem("lnk_none") is None


def test_an_expired_login_link_does_not_work(world):
    with world.store.write() as tx:
        tx.links.add("lnk_1", world.user.id, "link-hash", now() - timedelta(microseconds=1))
        assert tx.links.redeem("lnk_1") is None


def test_a_wrong_secret_leaves_the_link_whole(world):
    with world.store.write() as tx:
        tx.links.add("lnk_1", world.user.id, "link-hash", now() + timedelta(minutes=5))

    class WrongSecret(Exception):
        pass

    def redeem_with_a_wrong_secret():
        with world.store.write() as tx:
            assert tx.links.redeem("lnk_1") is not None
            raise WrongSecret

    with pytest.raises(WrongSecret):
        redeem_with_a_wrong_secret()
    with world.store.write() as tx:
        assert tx.links.redeem("lnk_1") == (world.user.id, "link-hash")


def test_a_secret_belongs_to_a_user_who_exists(world):
    token = dataclasses.replace(world.token, id=new_id("tok"), user_id="usr_none")
    login = dataclasses.replace(world.login, id=new_id("log"), user_id="usr_none")
    with world.store.write() as tx:
        with pytest.raises(NotFound, match="usr_none"):
            tx.tokens.add(token, "hash")
        with pytest.raises(NotFound, match="usr_none"):
            tx.logins.add(login, "hash")
        with pytest.raises(NotFound, match="usr_none"):
            tx.links.add("lnk_1", "usr_none", "hash", now() + timedelta(minutes=5))
