"""Users, projects and members: who may decide about whom."""

import pytest
from tests.gateway.test_failures import assert_problem

ANY = {"If-Match": "*"}


def invite(platform, **fields):
    return platform.admin.post("/v1/users", json={"name": "Anna", **fields})


def test_who_is_invited_comes_in_with_the_link(platform):
    answer = invite(platform, project_id=platform.project.id, role="reviewer")
    assert answer.status_code == 201, answer.text
    user, link = answer.json()["user"], answer.json()["login_link"]
    assert link.startswith(f"{platform.url}/login?link=lnk_")
    browser = platform.client(follow_redirects=True)
    assert browser.post("/login", data={"link": link.partition("link=")[2]}).status_code == 200
    assert browser.get("/v1/me").json() == user
    member = browser.get(f"/v1/projects/{platform.project.id}/members/{user['id']}").json()
    assert member["role"] == "reviewer"


def test_only_administrators_of_the_platform_invite_and_change_people(platform):
    anna = platform.as_user("Anna", "admin")
    assert_problem(anna.post("/v1/users", json={"name": "Ben"}), 403, "FORBIDDEN")
    me = f"/v1/users/{anna.get('/v1/me').json()['id']}"
    assert_problem(anna.patch(me, json={"is_admin": True}, headers=ANY), 403, "FORBIDDEN")
    assert_problem(anna.post(f"{me}:invite"), 403, "FORBIDDEN")
    assert len(anna.get("/v1/users").json()["items"]) == 2
    assert anna.get(me).json()["name"] == "Anna"
    writer = platform.client(platform.token_of(platform.admin_user, ("write",)))
    assert_problem(writer.post("/v1/users", json={"name": "Ben"}), 403, "FORBIDDEN")


@pytest.mark.parametrize("name", ["", " ", " Anna", "Anna ", "a\nb", "a\u0000b", "x" * 101])
def test_names_that_would_confuse_are_refused(platform, name):
    assert_problem(invite(platform, name=name), 422, "INVALID_REQUEST")


def test_a_name_is_taken_in_every_spelling(platform):
    invite(platform)
    assert_problem(invite(platform, name="aNNA"), 409, "ALREADY_EXISTS")


def test_who_is_disabled_is_out_at_once_and_comes_back_when_enabled(platform):
    user = platform.new_user("Anna", "analyst")
    client = platform.client(platform.token_of(user))
    path = f"/v1/users/{user.id}"
    assert client.get("/v1/me").status_code == 200
    changed = platform.admin.patch(path, json={"disabled": True}, headers={"If-Match": '"1"'})
    assert changed.headers["etag"] == '"2"'
    assert_problem(client.get("/v1/me"), 401, "UNAUTHENTICATED")
    assert_problem(
        platform.admin.patch(path, json={"disabled": False}, headers={"If-Match": '"1"'}),
        412,
        "STALE_VERSION",
    )
    assert platform.admin.patch(path, json={"disabled": False}, headers=ANY).status_code == 200
    assert client.get("/v1/me").status_code == 200


def test_the_last_administrator_stays(platform):
    me = f"/v1/users/{platform.admin_user.id}"
    for change in ({"is_admin": False}, {"disabled": True}):
        assert_problem(platform.admin.patch(me, json=change, headers=ANY), 409, "CONFLICT")
    assert platform.admin.get("/v1/me").json()["is_admin"] is True
    other = invite(platform, name="Second", is_admin=True).json()["user"]
    assert (
        platform.admin.patch(f"/v1/users/{other['id']}", json={"is_admin": False}, headers=ANY).status_code
        == 200
    )


def test_inviting_again_ends_the_old_password(platform):
    user = platform.new_user("Anna", "analyst")
    client = platform.client(platform.token_of(user))
    client.put("/v1/me/password", json={"new_password": "correct horse battery"})
    answer = platform.admin.post(f"/v1/users/{user.id}:invite")
    assert answer.status_code == 201
    assert "link=lnk_" in answer.json()["login_link"]
    log_in = platform.client().post(
        "/v1/auth/login", json={"name": "Anna", "password": "correct horse battery"}
    )
    assert_problem(log_in, 401, "UNAUTHENTICATED")
    assert_problem(platform.admin.post("/v1/users/usr_nobody:invite"), 404, "UNKNOWN_USER")


def test_a_patch_without_changes_changes_nothing(platform):
    user = platform.new_user("Anna", "analyst")
    answer = platform.admin.patch(f"/v1/users/{user.id}", json={}, headers={"If-Match": '"1"'})
    assert answer.status_code == 200
    assert answer.json()["name"] == "Anna"


# Projects


def test_who_begins_a_project_administers_it_and_strangers_do_not_learn_of_it(platform):
    anna, ben = platform.as_user("Anna"), platform.as_user("Ben")
    project = anna.post("/v1/projects", json={"name": "Moths"}).json()
    path = f"/v1/projects/{project['id']}"
    mine = anna.get("/v1/me").json()["id"]
    assert anna.get(f"{path}/members").json()["items"] == [
        {"project_id": project["id"], "user_id": mine, "role": "admin"}
    ]
    hidden = assert_problem(ben.get(path), 404, "UNKNOWN_PROJECT")
    nothing = ben.get("/v1/projects/prj_0").json()
    assert hidden["detail"] == nothing["detail"].replace("prj_0", project["id"])
    assert_problem(ben.get(f"{path}/members"), 404, "UNKNOWN_PROJECT")
    assert ben.get("/v1/projects").json()["items"] == []
    assert platform.admin.get(path).json() == project


def test_roles_are_given_and_taken_by_admins_of_the_project(platform):
    boss = platform.as_user("Boss", "admin")
    reviewer = platform.as_user("Rita", "reviewer")
    user = platform.new_user("Anna")
    member = f"/v1/projects/{platform.project.id}/members/{user.id}"
    assert_problem(reviewer.put(member, json={"role": "viewer"}), 403, "FORBIDDEN")
    assert boss.put(member, json={"role": "viewer"}).json()["role"] == "viewer"
    assert boss.put(member, json={"role": "analyst"}).json()["role"] == "analyst"
    assert_problem(boss.put(member, json={"role": "emperor"}), 422, "INVALID_REQUEST")
    assert_problem(boss.put(f"{member}x", json={"role": "viewer"}), 404, "UNKNOWN_USER")
    assert_problem(reviewer.delete(member), 403, "FORBIDDEN")
    assert boss.delete(member).status_code == 204
    assert_problem(boss.get(member), 404, "UNKNOWN_USER")
    assert_problem(boss.delete(member), 404, "UNKNOWN_USER")
    with platform.store.read() as tx:
        done = [(e.action, e.detail.get("role")) for e in tx.audit.list(subject=platform.project.id).items]
        assert tx.audit.verify()
    assert done == [("member.remove", None), ("member.put", "analyst"), ("member.put", "viewer")]


def test_a_project_keeps_its_last_admin(platform):
    anna = platform.as_user("Anna")
    project = anna.post("/v1/projects", json={"name": "Moths"}).json()
    mine = f"/v1/projects/{project['id']}/members/{anna.get('/v1/me').json()['id']}"
    assert_problem(anna.delete(mine), 409, "CONFLICT")
    assert_problem(anna.put(mine, json={"role": "viewer"}), 409, "CONFLICT")


def test_everybody_may_leave(platform):
    user = platform.new_user("Anna", "viewer")
    anna = platform.client(platform.token_of(user))
    member = f"/v1/projects/{platform.project.id}/members/{user.id}"
    assert anna.delete(member).status_code == 204
    assert_problem(anna.get(f"/v1/projects/{platform.project.id}"), 404, "UNKNOWN_PROJECT")
    assert_problem(anna.delete(member), 404, "UNKNOWN_PROJECT")


def test_renaming_a_project_needs_its_admin_and_the_version_that_was_seen(platform):
    boss, analyst = platform.as_user("Boss", "admin"), platform.as_user("Anna", "analyst")
    path = f"/v1/projects/{platform.project.id}"
    body = {"name": "Moths"}
    assert_problem(analyst.patch(path, json=body, headers=ANY), 403, "FORBIDDEN")
    assert_problem(boss.patch(path, json=body), 428, "MISSING_PRECONDITION")
    assert (
        boss.patch(path, json=body, headers={"If-Match": boss.get(path).headers["etag"]}).json()["version"]
        == 2
    )
    assert_problem(boss.patch(path, json=body, headers={"If-Match": '"1"'}), 412, "STALE_VERSION")


def test_without_a_project_named_work_goes_to_the_oldest_one(platform):
    anna = platform.as_user("Anna", "analyst")
    anna.post("/v1/projects", json={"name": "Moths"})
    assert anna.get("/v1/images").status_code == 200
    lonely = platform.as_user("Ben")
    content = assert_problem(lonely.get("/v1/images"), 404, "UNKNOWN_PROJECT")
    assert "member of no project" in content["detail"]
