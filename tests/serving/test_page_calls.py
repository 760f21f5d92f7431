"""What the page asks of the server: its token, passages by their key, the rules of the profile, and the votes."""

import re

import pytest

from mipo_mlx.files import read_records
from mipo_mlx.memory import contexts
from mipo_mlx.progress import Reporter
from mipo_mlx.records import BASE, NEITHER, TUNED, VOTES, Ballot
from mipo_mlx.run import locked
from tests.commands.test_chat import COOK, SOUP, run_with_notes

from .conftest import Address, serving

CALLS = (("/page/state", None), ("/page/profile", {}), ("/page/ask", {}), ("/page/vote", {}), ("/page/passages/x", None))


@pytest.fixture
def own(tiny_folder, tmp_path):
    """A server of a run that the test may change."""
    with serving(run_with_notes(tmp_path, tiny_folder)) as address:
        yield address


def token(address: Address) -> dict[str, str]:
    page = address.get("/")
    assert page.status_code == 200 and "default-src 'none'" in page.headers["content-security-policy"]
    return {"authorization": "Bearer " + re.search(r'name="token" content="([^"]*)"', page.text)[1]}


def test_calls_need_the_token_of_the_page(served):
    for headers in ({}, {"authorization": "Bearer x"}):
        for path, body in CALLS:
            answer = served.get(path, headers=headers) if body is None else served.post(path, body, headers=headers)
            assert answer.status_code == 401, path
    assert served.get("/page/state", headers=token(served)).json()["run"] == "mine"
    with_origin = {**token(served), "origin": "http://localhost:3000"}
    assert served.get("/page/state", headers=with_origin).status_code == 403
    assert token(served) == token(served) and len(token(served)["authorization"]) > 40


def test_the_page_loads_nothing_and_its_parts_have_one_nonce_each_time(served):
    one, two = served.get("/").text, served.get("/").text
    nonces = [set(re.findall(r'nonce="([^"]+)"', page)) for page in (one, two)]
    assert len(nonces[0]) == len(nonces[1]) == 1 and nonces[0] != nonces[1]
    assert not re.search(r'(?:src|href)="(?!#|data:)', one) and "{{" not in one and " style=" not in one and " onclick" not in one


def test_a_passage_is_opened_by_its_key(served):
    request = {"model": "mine", "messages": [{"role": "user", "content": COOK}]}
    (source,) = served.post("/v1/chat/completions", request).json()["mipo_sources"]
    shown = served.get(f"/page/passages/{source['key']}", headers=token(served))
    assert shown.json() == {"file": "soup.md", "line": 3, "text": SOUP}
    assert served.get("/page/passages/nothing", headers=token(served)).status_code == 404


def test_the_profile_is_saved_by_its_rules(own):
    path, headers = own.folder / contexts.PROFILE, token(own)
    path.write_text("- By hand.\n")

    def save(text: object, version: str):
        return own.post("/page/profile", {"text": text, "version": version}, headers=headers)

    def version() -> str:
        return own.get("/page/state", headers=headers).json()["profile"]["version"]

    assert (
        save("x", "old").status_code == 409
        and save(None, version()).status_code == save("x" * 20_001, version()).status_code == 400
    )
    with locked(own.folder, Reporter(quiet=True)):
        refused = save("- New.", version())
        assert refused.status_code == 409 and "another process" in refused.json()["error"]["message"]
    assert path.read_text() == "- By hand.\n"
    for text in ("- New.\r\n- And this.", "- Newer."):
        assert save(text, version()).status_code == 200
    assert path.read_text() == "- Newer.\n" and path.stat().st_mode & 0o777 == 0o600
    assert sorted(p.name for p in own.folder.glob("profile*")) == ["profile.md", "profile.old.md"]
    assert (own.folder / "profile.old.md").read_text() == "- By hand.\n"
    request = {"model": "mine:no-notes", "messages": [{"role": "user", "content": COOK}]}
    before = own.post("/v1/chat/completions", request).json()["usage"]["prompt_tokens"]
    assert save(" ", version()).json()["text"] == "" and not path.exists()
    assert own.post("/v1/chat/completions", request).json()["usage"]["prompt_tokens"] < before  # the next answer knows it


def test_votes_are_kept_and_only_once(own):
    headers = token(own)

    def ask(question: str | None):
        return own.post("/page/ask", {"question": question}, headers=headers)

    assert (
        ask(" ").status_code == ask("x" * 4_001).status_code == 400
        and own.post("/page/ask", {"question": 1}, headers=headers).status_code == 400
    )
    chosen = []
    for place, choice in enumerate(("first", "second", "neither", "first")):
        trial = ask(COOK if place % 2 else None).json()
        assert sorted(trial) == ["answers", "id", "question", "same", "sources"] and not trial["same"]
        assert own.post("/page/vote", {"id": trial["id"], "choice": "tuned"}, headers=headers).status_code == 400
        state = own.post("/page/vote", {"id": trial["id"], "choice": choice}, headers=headers).json()
        assert state["votes"] == place + 1 and state["result"] is None
        assert own.post("/page/vote", {"id": trial["id"], "choice": choice}, headers=headers).status_code == 404
        chosen.append((trial, choice))
    votes = read_records(own.folder / VOTES, Ballot)
    for vote, (trial, choice) in zip(votes, chosen, strict=True):
        answers = [vote.tuned, vote.base] if vote.first == TUNED else [vote.base, vote.tuned]
        assert trial["answers"] == answers and vote.request == trial["question"] and vote.own is (trial["question"] == COOK)
        picked = {"first": answers[0], "second": answers[1], "neither": None}[choice]
        assert {TUNED: vote.tuned, BASE: vote.base, NEITHER: None}[vote.choice] == picked
        assert vote.prompt[-1] == {"role": "user", "content": vote.request}
    assert votes[1].passages == [SOUP] and votes[1].sources == ["soup.md:3"] and SOUP in votes[1].prompt[0]["content"]
    assert len({vote.request for vote in votes if not vote.own}) == 2  # a held-out question comes once


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/page/profile", '{"text": "- \\ud800", "version": ""}'),
        ("/page/ask", '{"question": "\\udfff"}'),
        ("/page/ask", '{"question": "\\u0000 "}'),
        ("/page/vote", '{"id": "\\ud800", "choice": "first"}'),
        ("/page/vote", '{"id": [1]}'),
    ],
)
def test_texts_that_are_none_are_refused(served, path, body):
    answer = served.post(path, headers=token(served), content=body.encode())
    assert answer.status_code == 400 and answer.json()["error"]["type"] == "invalid_request_error"
