"""The digest by e-mail, against a real SMTP server on this machine."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest
from aiosmtpd.controller import Controller
from served import FREELY, Served, serve
from starlette.testclient import TestClient

from didact.core.errors import BadInput
from didact.reusing.dock.errors import NotFound
from didact.reusing.dock.storage import Store
from didact.web.app import create_app
from didact.web.board import Board
from didact.web.digest import Sent, confirmation, letter, send_digests, send_due
from didact.web.mail import MailSettings, compose, is_address
from didact.web.news import News
from didact.web.subscriptions import BadAddress, Subscription, Subscriptions

SITE = "https://dock.example.org"
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
WEEK = timedelta(days=7)


def news(n: int = 1) -> News:
    return News(
        f"verdict:m{n}", "verdict", f"m{n}: the claim <holds>", "It & does.", f"/board/methods/m{n}", f"m{n}",
        f"2026-04-{n:02}T00:00:00+00:00",
    )  # fmt: skip


class Letterbox:
    """A mail server that keeps what it gets, and can refuse."""

    def __init__(self) -> None:
        self.refuse: set[str] = set()
        self.letters: list[EmailMessage] = []
        self._controller = Controller(self, hostname="127.0.0.1", port=0)

    async def handle_RCPT(self, server, session, envelope, address, options) -> str:
        if address in self.refuse:
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope) -> str:
        self.letters.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"

    def __enter__(self) -> Letterbox:
        # The controller wants to know its port beforehand; 0 would do for the system, but not for it.
        import socket

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._controller.port = probe.getsockname()[1]
        self._controller.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._controller.stop()

    @property
    def settings(self) -> MailSettings:
        return MailSettings(
            host="127.0.0.1",
            port=self._controller.port,
            sender="didact <no-reply@example.org>",
            site=SITE,
            security="none",
        )


@pytest.fixture
def box():
    with Letterbox() as box:
        yield box


@pytest.fixture
def subscriptions(tmp_path: Path) -> Subscriptions:
    return Subscriptions(Store(tmp_path / "dock.sqlite"))


@pytest.fixture
def served(tmp_path: Path, box: Letterbox) -> Served:
    """A dock whose pages send letters."""
    served = serve(tmp_path)
    app = create_app(served.dock, None, box.settings, settings=FREELY)
    app.state.board = Board(None, tmp_path / "no results")
    served.client = TestClient(app)
    return served


def subscribed(subscriptions: Subscriptions, email: str = "ada@example.org", every: str = "week") -> Subscription:
    return subscriptions.confirm(subscriptions.ask(email, every, NOW), [], NOW)


def posted(client: TestClient, page: str, path: str, **fields: str):
    """Fill in a form as a browser does: with the CSRF token of the page it is on."""
    token = re.search(r'name="csrf" value="(\w+)"', client.get(page).text)[1]
    return client.post(path, data={"csrf": token, **fields}, follow_redirects=False)


def link_in(message: EmailMessage, path: str) -> str:
    return re.search(rf"{re.escape(SITE)}({re.escape(path)}\S+)", message.get_body(("plain",)).get_content())[1]


def key_of(link: str) -> str:
    return parse_qs(urlsplit(link).query)["key"][0]


# -- settings and letters ----------------------------------------------------------------------------------------------


def test_without_a_host_there_is_no_mail():
    assert MailSettings.from_environment({}) is None
    assert MailSettings.from_environment({"DIDACT_SMTP_PORT": "25"}) is None


def test_settings_come_from_the_environment():
    found = MailSettings.from_environment({
        "DIDACT_SMTP_HOST": "mail.example.org", "DIDACT_SMTP_PORT": "2525", "DIDACT_SMTP_USER": "u",
        "DIDACT_SMTP_PASSWORD": "very secret", "DIDACT_SMTP_SENDER": "a@example.org", "DIDACT_SMTP_SITE": SITE + "/",
    })  # fmt: skip
    assert (found.host, found.port, found.security) == ("mail.example.org", 2525, "starttls")
    assert found.link("/digest") == SITE + "/digest"
    assert "very secret" not in repr(found)


@pytest.mark.parametrize(
    ("missing", "named"),
    [
        ({"DIDACT_SMTP_SENDER": ""}, "DIDACT_SMTP_SENDER"),
        ({"DIDACT_SMTP_SENDER": "nobody"}, "DIDACT_SMTP_SENDER"),
        ({"DIDACT_SMTP_SITE": "dock.example.org"}, "DIDACT_SMTP_SITE"),
        ({"DIDACT_SMTP_PORT": "many"}, "DIDACT_SMTP_PORT"),
        ({"DIDACT_SMTP_SECURITY": "hope"}, "DIDACT_SMTP_SECURITY"),
    ],
)
def test_wrong_settings_are_named(missing, named):
    good = {"DIDACT_SMTP_HOST": "m", "DIDACT_SMTP_SENDER": "a@example.org", "DIDACT_SMTP_SITE": SITE}
    with pytest.raises(BadInput, match=named):
        MailSettings.from_environment({**good, **missing})


def test_a_password_never_travels_in_the_open(box):
    from didact.web.mail import send

    settings = box.settings.model_copy(update={"user": "u", "password": "p"})
    with pytest.raises(BadInput, match="in the open"):
        send(settings, compose(settings, "ada@example.org", "s", "t"))
    assert box.letters == []


@pytest.mark.parametrize(
    "address", ["", "ada", "ada@", "@b", "a b@c.d", "a@b\nBcc: x@y", "a@b,c@d", "ä@b", "a@-b", "a@" + "b" * 300]
)
def test_what_is_no_address(address, box):
    assert not is_address(address)
    with pytest.raises(BadInput, match="e-mail address"):
        compose(box.settings, address, "s", "t")


def test_headers_cannot_be_smuggled_in(box):
    with pytest.raises(ValueError, match="Header values"):
        compose(box.settings, "ada@example.org", "hello\r\nBcc: eve@example.org", "t")


def test_a_digest_is_text_and_html_with_a_way_out():
    settings = MailSettings(host="h", sender="didact <no-reply@example.org>", site=SITE)
    message = letter(Subscription("ada@example.org", "week", "k/ey", ""), [news(2), news(1)], settings)
    assert message["Subject"] == "didact: 2 new verdicts"
    assert message["To"] == "ada@example.org"
    assert message["List-Unsubscribe"] == f"<{SITE}/digest/unsubscribe?key=k/ey>"
    assert message["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@example.org>")
    text = message.get_body(("plain",)).get_content()
    html = message.get_body(("html",)).get_content()
    assert f"{SITE}/board/methods/m2" in text
    assert f"{SITE}/digest/unsubscribe?key=k/ey" in text
    assert "m2: the claim &lt;holds&gt;" in html
    assert f'href="{SITE}/board/methods/m2"' in html
    assert "<holds>" not in html


def test_a_long_digest_names_the_first_and_counts_the_rest():
    settings = MailSettings(host="h", sender="a@example.org", site=SITE)
    many = [news(1) for _ in range(45)]
    text = letter(Subscription("ada@example.org", "week", "k", ""), many, settings).get_body(("plain",)).get_content()
    assert "And 5 more" in text


# -- subscriptions -----------------------------------------------------------------------------------------------------


def test_nobody_is_subscribed_before_the_link_is_followed(subscriptions):
    secret = subscriptions.ask("ada@example.org", "week", NOW)
    assert subscriptions.due(NOW + 10 * WEEK) == []
    assert subscriptions.pending(secret, NOW) == "ada@example.org"
    assert subscriptions.confirm(secret, [], NOW).email == "ada@example.org"
    assert [s.email for s in subscriptions.due(NOW + WEEK)] == ["ada@example.org"]


def test_a_link_works_once_and_for_two_days(subscriptions):
    secret = subscriptions.ask("ada@example.org", "week", NOW)
    with pytest.raises(NotFound, match="too old"):
        subscriptions.confirm(secret, [], NOW + timedelta(days=2, minutes=1))
    subscriptions.confirm(secret, [], NOW)
    with pytest.raises(NotFound, match="used already"):
        subscriptions.confirm(secret, [], NOW)
    for wrong in ("", "x", "\ud800"):
        with pytest.raises(NotFound):
            subscriptions.confirm(wrong, [], NOW)


def test_the_link_is_not_in_the_database(tmp_path, subscriptions):
    secret = subscriptions.ask("ada@example.org", "week", NOW)
    subscriptions.store.close()
    content = b"".join(file.read_bytes() for file in tmp_path.glob("dock.sqlite*"))
    assert b"ada@example.org" in content
    assert secret.encode() not in content


def test_one_letter_an_hour_to_one_address(subscriptions):
    first = subscriptions.ask("ada@example.org", "week", NOW)
    assert subscriptions.ask("Ada@Example.org", "week", NOW + timedelta(minutes=59)) is None
    second = subscriptions.ask("ada@example.org", "day", NOW + timedelta(minutes=61))
    assert subscriptions.pending(first, NOW) is None, "the newer link replaces the older"
    assert subscriptions.confirm(second, [], NOW + timedelta(minutes=62)).every == "day"


def test_a_subscriber_changes_how_often_by_another_confirmation(subscriptions):
    before = subscribed(subscriptions)
    secret = subscriptions.ask("ada@example.org", "day", NOW + WEEK)
    (unchanged,) = subscriptions.due(NOW + WEEK)
    assert unchanged.every == "week", "asking alone changes nothing: anybody can ask"
    after = subscriptions.confirm(secret, [], NOW + WEEK)
    assert (after.every, after.key, after.covered) == ("day", before.key, before.covered)


def test_addresses_that_were_never_confirmed_are_forgotten(subscriptions):
    subscriptions.ask("ada@example.org", "week", NOW)
    subscriptions.ask("bob@example.org", "week", NOW + timedelta(days=3))
    import sqlalchemy as sa

    with subscriptions.store.reading() as connection:
        emails = list(connection.scalars(sa.text("SELECT email FROM digest_subscription")))
    assert emails == ["bob@example.org"]


@pytest.mark.parametrize(("email", "every"), [("nobody", "week"), ("ada@example.org", "hour"), ("", "week")])
def test_bad_subscriptions_are_refused(subscriptions, email, every):
    with pytest.raises(BadAddress):
        subscriptions.ask(email, every, NOW)


def test_unsubscribing_forgets_the_address(subscriptions):
    someone = subscribed(subscriptions)
    assert subscriptions.unsubscribe(someone.key)
    assert not subscriptions.unsubscribe(someone.key)
    assert subscriptions.find(someone.key) is None
    assert subscriptions.due(NOW + WEEK) == []


# -- sending -----------------------------------------------------------------------------------------------------------


def test_a_subscriber_is_told_what_is_new_since_and_only_once(subscriptions, box):
    secret = subscriptions.ask("ada@example.org", "week", NOW)
    subscriptions.confirm(secret, [news(1)], NOW)
    assert send_due(subscriptions, [news(2), news(1)], box.settings, NOW + timedelta(days=1)) == Sent(), "not due yet"
    assert send_due(subscriptions, [news(2), news(1)], box.settings, NOW + WEEK) == Sent(sent=1)
    (message,) = box.letters
    assert "m2" in message.get_body(("plain",)).get_content()
    assert "m1" not in message.get_body(("plain",)).get_content(), "known before the subscription"
    assert send_due(subscriptions, [news(2), news(1)], box.settings, NOW + WEEK) == Sent()
    assert send_due(subscriptions, [news(2), news(1)], box.settings, NOW + 2 * WEEK) == Sent(quiet=1), "nothing new"
    assert len(box.letters) == 1


def test_an_old_result_that_comes_late_is_news(subscriptions, box):
    subscribed(subscriptions)
    late = News("verdict:late", "verdict", "late: the claim holds", "", "/x", "late", "2020-01-01T00:00:00+00:00")
    assert send_due(subscriptions, [late], box.settings, NOW + WEEK).sent == 1


def test_daily_weekly_and_monthly(subscriptions, box):
    for every in ("day", "week", "month"):
        subscribed(subscriptions, f"{every}@example.org", every)
    told = []
    for days in range(1, 61):
        box.letters.clear()
        send_due(subscriptions, [news(1)], box.settings, NOW + timedelta(days=days))
        told += [(days, message["To"]) for message in box.letters]
    assert told == [(1, "day@example.org"), (7, "week@example.org"), (30, "month@example.org")]


def test_a_letter_that_is_refused_stays_due_and_harms_no_other(subscriptions, box):
    for name in ("ada", "bob", "eve"):
        subscribed(subscriptions, f"{name}@example.org")
    box.refuse = {"bob@example.org"}
    assert send_due(subscriptions, [news()], box.settings, NOW + WEEK) == Sent(sent=2, failed=1)
    box.refuse = set()
    assert send_due(subscriptions, [news()], box.settings, NOW + WEEK) == Sent(sent=1)
    assert sorted(message["To"] for message in box.letters) == [f"{n}@example.org" for n in ("ada", "bob", "eve")]


def test_without_a_mail_server_everything_stays_due(subscriptions, box):
    subscribed(subscriptions)
    nowhere = box.settings.model_copy(update={"port": 1})
    assert send_due(subscriptions, [news()], nowhere, NOW + WEEK) == Sent(failed=1)
    assert send_due(subscriptions, [news()], box.settings, NOW + WEEK) == Sent(sent=1)


def test_two_processes_do_not_send_the_same_letter(subscriptions):
    someone = subscribed(subscriptions)
    assert subscriptions.take(someone, NOW + WEEK)
    assert not subscriptions.take(someone, NOW + WEEK)


def test_nothing_is_sent_when_no_mail_is_set(served, box):
    subscribed(Subscriptions(served.dock.store))
    served.submit(usable=True)
    assert send_digests(served.dock, None, None) == Sent()
    assert box.letters == []


def test_the_digest_of_a_dock_tells_of_its_learnwares(served, box, tmp_path):
    store = Subscriptions(served.dock.store)
    store.confirm(store.ask("ada@example.org", "day", datetime.now(UTC)), [], datetime.now(UTC) - timedelta(days=2))
    served.submit(usable=True, name="left or right")
    assert send_digests(served.dock, str(tmp_path / "ledger.sqlite"), box.settings).sent == 1
    (message,) = box.letters
    assert "New learnware: left or right" in message.get_body(("plain",)).get_content()


# -- pages -------------------------------------------------------------------------------------------------------------


def test_from_the_form_to_the_first_letter_to_the_last_click(served, box):
    """The whole way of a subscriber, over HTTP and SMTP."""
    answer = posted(served.client, "/digest", "/digest", email="ada@example.org", every="day")
    assert answer.status_code == 200
    (message,) = box.letters
    assert message["To"] == "ada@example.org"
    link = link_in(message, "/digest/confirm")
    subscriptions = Subscriptions(served.dock.store)

    assert "ada@example.org" in served.client.get(link).text
    assert subscriptions.due(datetime.now(UTC) + WEEK) == [], "a program that opens links has not confirmed"
    assert posted(served.client, link, "/digest/confirm", key=key_of(link)).status_code == 200
    (someone,) = subscriptions.due(datetime.now(UTC) + WEEK)
    assert someone.every == "day"
    assert served.client.get(link).status_code == 404, "the link is used up"

    served.submit(usable=True)
    from didact.web.digest import all_news

    send_due(
        subscriptions, all_news(served.client.app.state.board, served.dock), box.settings, datetime.now(UTC) + WEEK
    )
    out = box.letters[-1]["List-Unsubscribe"].strip("<>").removeprefix(SITE)
    assert "ada@example.org" in served.client.get(out).text
    assert subscriptions.find(someone.key) is not None, "looking does not unsubscribe"
    # What a mail program does (RFC 8058): one POST, no cookie, no page of ours before it.
    program = TestClient(served.client.app)
    done = program.post(out, data={"List-Unsubscribe": "One-Click"})
    assert done.status_code == 200
    assert subscriptions.find(someone.key) is None


def test_the_answer_does_not_tell_whether_an_address_is_known(served, box):
    first = posted(served.client, "/digest", "/digest", email="ada@example.org", every="week")
    second = posted(served.client, "/digest", "/digest", email="ada@example.org", every="week")
    assert first.text == second.text
    assert len(box.letters) == 1, "but no second letter within the hour"


def test_links_never_come_from_the_host_header(served, box):
    served.client.headers["Host"] = "evil.example.com"
    posted(served.client, "/digest", "/digest", email="ada@example.org", every="week")
    assert "evil" not in box.letters[0].as_string()


def test_a_form_from_elsewhere_sends_nothing(served, box):
    answer = served.client.post("/digest", data={"email": "ada@example.org", "every": "week"})
    assert answer.status_code == 403
    assert box.letters == []


def test_mistakes_are_shown_on_the_form(served, box):
    answer = posted(served.client, "/digest", "/digest", email="nobody<script>", every="week")
    assert answer.status_code == 422
    assert 'role="alert"' in answer.text
    assert "<script>" not in answer.text.replace('<script src="', "")


def test_when_the_mail_server_is_away_one_may_try_again_at_once(served, box):
    box.refuse = {"ada@example.org"}
    assert posted(served.client, "/digest", "/digest", email="ada@example.org", every="week").status_code == 502
    box.refuse = set()
    assert posted(served.client, "/digest", "/digest", email="ada@example.org", every="week").status_code == 200
    assert len(box.letters) == 1


def test_a_site_without_mail_says_so_and_stores_nothing(tmp_path):
    served = serve(tmp_path)
    page = served.client.get("/digest")
    assert "sends no e-mail" in page.text
    assert "<form" not in page.text
    token = re.search(r'data-csrf="(\w+)"', page.text)[1]
    answer = served.client.post("/digest", data={"csrf": token, "email": "ada@example.org", "every": "week"})
    assert answer.status_code == 404
    assert Subscriptions(served.dock.store).ask("ada@example.org") is not None, "no letter counts as sent"


def test_confirmation_letters_hold_the_link_and_nothing_of_others():
    settings = SimpleNamespace(site=SITE, link=lambda path: SITE + path, sender="a@example.org")
    text = confirmation("ada@example.org", "s&cret", settings).get_content()
    assert f"{SITE}/digest/confirm?key=s%26cret" in text
