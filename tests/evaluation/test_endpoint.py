"""A judge over HTTP, against servers on the loopback: good ones, slow ones, broken ones, and ones that talk nonsense."""

import io
import json
import re
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from mipo_mlx import recipe_loading
from mipo_mlx.commands import dry_run
from mipo_mlx.errors import Failure
from mipo_mlx.evaluation import endpoint, evaluate, judge
from mipo_mlx.files import read_json
from mipo_mlx.models import embedding
from mipo_mlx.progress import Reporter
from mipo_mlx.run import Run
from tests.test_kill import NOTES

from .helpers import make_run, more_prompts, recipe

QUIET = Reporter(quiet=True)


class Handler(BaseHTTPRequestHandler):
    """Answers by `server.respond(handler, question)`: text is sent as a chat completion, None means that it has answered."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, dict(self.headers), body))
        reply = self.server.respond(self, body["messages"][0]["content"])
        if reply is not None:
            self.reply(200, json.dumps({"choices": [{"message": {"role": "assistant", "content": reply}}]}))

    def reply(self, code, text, **headers):
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *args):
        pass


@contextmanager
def serving(respond):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.respond, server.seen, server.daemon_threads = respond, [], True
    server.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(endpoint, "PAUSE", 0.01)
    monkeypatch.delenv(endpoint.KEY, raising=False)
    monkeypatch.setattr(embedding, "installed", lambda: None)


def answers(question):
    return re.search(r"Answer A: (.*)\n\nAnswer B: (.*)\n\nWhich", question, re.DOTALL).groups()


def longer(_, question):
    first, second = answers(question)
    return "A" if len(first) >= len(second) else "**B**"


def at(server, tiny_folder, **changes):
    return recipe(tiny_folder, **{"judge": server.url, "judge_model": "tiny", **changes})


def judged(folder):
    return read_json(folder / "eval.json")["judged"]


def test_verdicts_in_both_orders_equal_a_count_by_hand(tmp_path, tiny_folder):
    with serving(longer) as server:
        settings = at(server, tiny_folder)
        folder = make_run(tmp_path, settings, spread=0.05)
        evaluate.run(folder, settings, QUIET)
    gallery = [(e["base"]["text"], e["tuned"]["text"]) for e in read_json(folder / "eval.json")["gallery"]]
    lengths = [(len(base), len(tuned)) for base, tuned in gallery if base != tuned]
    result = judged(folder)
    assert len(gallery) == 8 and result["win"] == sum(t > b for b, t in lengths) > 0
    assert result["loss"] == sum(t < b for b, t in lengths) and result["win"] + result["tie"] + result["loss"] == 8
    assert result["nonsense"] == 0 and result["win_rate"]["value"] == pytest.approx((result["win"] + result["tie"] / 2) / 8)
    assert (result["judge"], result["model"], result["mode"]) == (server.url, "tiny", "pairwise")
    assert len(server.seen) == 2 * len(lengths)  # equal answers are a tie without being sent
    path, headers, body = server.seen[0]
    assert path == "/v1/chat/completions" and body["model"] == "tiny" and body["temperature"] == 0
    assert "Authorization" not in headers
    texts = [answers(body["messages"][0]["content"]) for _, _, body in server.seen[:2]]
    assert texts[0] == texts[1][::-1]


@pytest.mark.parametrize("reply, win_rate, first", [("A", 0.5, 1.0), ("B", 0.5, 0.0)])
def test_a_judge_that_looks_at_the_position_alone_makes_ties_and_is_found_out(tmp_path, tiny_folder, reply, win_rate, first):
    with serving(lambda *_: reply) as server:
        settings = at(server, tiny_folder, answers=4)
        folder = make_run(tmp_path, settings, spread=0.05)
        evaluate.run(folder, settings, QUIET)
    assert judged(folder)["win_rate"]["value"] == win_rate and judged(folder)["first_preferred"]["value"] == first


def test_nonsense_is_counted_and_never_scored(tmp_path, tiny_folder):
    replies = iter(["Both are fine.", "A", None, "B", "", "A", "A good answer would be B", "A"])

    def respond(handler, _):
        reply = next(replies)
        if reply is None:
            handler.reply(200, json.dumps({"choices": [{"message": {"content": None}}]}))
        return reply

    with serving(respond) as server:
        settings = at(server, tiny_folder, answers=4)
        folder = make_run(tmp_path, settings, spread=0.05)
        evaluate.run(folder, settings, QUIET)
    assert judged(folder)["nonsense"] == 4 and judged(folder)["win_rate"] == {"value": None, "interval": None}
    assert judged(folder)["win"] == judged(folder)["tie"] == judged(folder)["loss"] == 0


def test_a_model_judged_against_itself(tmp_path, tiny_folder):
    with serving(longer) as server:
        settings = at(server, tiny_folder, answers=16)
        folder = make_run(tmp_path, settings)
        more_prompts(folder)
        evaluate.run(folder, settings, QUIET)
    assert judged(folder)["tie"] == 16 and judged(folder)["win_rate"] == {"value": 0.5, "interval": [0.5, 0.5]}
    assert not server.seen


def test_rubric_mode_scores_single_answers(tmp_path, tiny_folder):
    def respond(_, question):
        reply = re.search(r"Answer: (.*)\n\nHow well", question, re.DOTALL)[1]
        return f"Rating: {1 + len(reply) % 5}/5"

    with serving(respond) as server:
        settings = at(server, tiny_folder, judge_mode="rubric")
        folder = make_run(tmp_path, settings, spread=0.05)
        evaluate.run(folder, settings, QUIET)
    result = read_json(folder / "eval.json")
    for side, place in (("base", "before"), ("tuned", "after")):
        scores = [1 + len(e[side]["text"]) % 5 for e in result["gallery"]]
        assert result["judged"]["metrics"]["rubric"][place]["value"] == pytest.approx(sum(scores) / 8)
    assert len(server.seen) == 16


def test_an_endpoint_that_goes_down_ends_in_one_line_and_is_continued(tmp_path, tiny_folder):
    """It breaks at its sixth question; the second time it is asked only what is missing, and the bytes are the same."""
    alive = threading.Event()
    questions = []

    def respond(handler, question):
        questions.append(question)
        if len(questions) > 5 and not alive.is_set():
            handler.reply(503, json.dumps({"error": {"message": "loading model"}}))
            return None
        return longer(handler, question)

    with serving(respond) as server:
        settings = at(server, tiny_folder)
        folder = make_run(tmp_path / "broken", settings, spread=0.05)
        with pytest.raises(Failure) as error:
            evaluate.run(folder, settings, QUIET)
        message = str(error.value)
        assert "HTTP 503 (loading model), 3 times in a row; 2 of 8 requests are judged and kept" in message and "\n" not in message
        assert f"`mipo-mlx eval {folder} --set evaluation.judge=null` leaves the judge out" in message
        assert not (folder / "eval.json").exists() and len(questions) == 5 + endpoint.TRIES
        alive.set()
        questions.clear()
        evaluate.run(folder, settings, QUIET)
        assert len(questions) == 12  # six requests in both orders
        whole = make_run(tmp_path / "whole", settings, spread=0.05)
        evaluate.run(whole, settings, QUIET)
        assert (whole / "eval.json").read_bytes() == (folder / "eval.json").read_bytes()


def test_nobody_there_ends_in_one_line():
    with serving(longer) as server:
        url = server.url
    with pytest.raises(Failure, match=r"cannot be reached \(Connection refused\), 3 times in a row"):
        endpoint.ask(endpoint.Endpoint(url, "m", 1.0), "A or B?")


def test_the_recipe_sets_the_time_limit(tmp_path, tiny_folder):
    with serving(lambda *_: time.sleep(0.5)) as server:
        settings = at(server, tiny_folder, answers=2, judge_timeout=0.15)
        folder = make_run(tmp_path, settings, spread=0.05)
        with pytest.raises(Failure, match=r"no answer within 0.15 s .* 0 of 2 requests are judged and kept"):
            evaluate.run(folder, settings, QUIET)


def test_a_busy_endpoint_is_asked_again():
    replies = iter([(429, "1"), (502, None)])

    def respond(handler, _):
        code, after = next(replies, (None, None))
        if code:
            handler.reply(code, "<html>busy</html>", **({"Retry_After": "0"} if after else {}))
            return None
        return "<think>A is longer.\nB?</think>\n\nB"

    with serving(respond) as server:
        assert endpoint.ask(endpoint.Endpoint(server.url, "m", 5.0), "A or B?").text == "B" and len(server.seen) == 3


def test_an_error_told_as_success_and_a_reply_cut_off_are_tried_again():
    def cut(handler, _):
        handler.send_response(200)
        handler.send_header("Content-Length", "500")
        handler.end_headers()
        handler.wfile.write(b'{"choices": [')

    def busy(handler, _):
        handler.reply(200, json.dumps({"error": {"message": "overloaded", "code": 529}}))

    for respond, message in ((cut, "the connection broke in mid-reply, 3 times"), (busy, r"HTTP 529 \(overloaded\), 3 times")):
        with serving(respond) as server, pytest.raises(Failure, match=message):
            endpoint.ask(endpoint.Endpoint(server.url, "m", 5.0), "A or B?")
        assert len(server.seen) == 3


def test_a_pause_that_is_no_number_is_left_aside():
    replies = iter([429])

    def respond(handler, _):
        if code := next(replies, None):
            handler.reply(code, "{}", Retry_After="\u00b2")
            return None
        return "B"

    with serving(respond) as server:
        assert endpoint.ask(endpoint.Endpoint(server.url, "m", 5.0), "A or B?").text == "B"


def test_a_reply_in_parts_is_read():
    parts = [{"type": "text", "text": "**"}, {"type": "text", "text": "A**"}]
    with serving(lambda handler, _: handler.reply(200, json.dumps({"choices": [{"message": {"content": parts}}]}))) as server:
        assert endpoint.ask(endpoint.Endpoint(server.url, "m", 5.0), "A or B?") == endpoint.Reply("**A**")


def test_empty_replies_are_asked_again_and_nonsense_is_shown(tmp_path, tiny_folder):
    """First every reply is cut while it thinks, then the judge chats, and what it said then counts."""
    output = io.StringIO()
    with serving(lambda *_: None) as server:

        def thinks(handler, _):
            choice = {"message": {"content": "<think>A, for"}, "finish_reason": "length"}
            handler.reply(200, json.dumps({"choices": [choice]}))

        server.respond = thinks
        settings = at(server, tiny_folder, answers=4)
        folder = make_run(tmp_path, settings, spread=0.05)
        evaluate.run(folder, settings, Reporter(quiet=True, stream=output))
        assert (judged(folder)["nonsense"], judged(folder)["unanswered"]) == (4, 4)
        assert "8 of 8 replies are no verdict, the last one empty: cut at 1024 tokens" in output.getvalue()
        output.truncate(0)
        server.respond = lambda *_: "Both are lovely,\nA or B?"
        evaluate.run(folder, settings, Reporter(quiet=True, stream=output))
        assert len(server.seen) == 16 and (judged(folder)["nonsense"], judged(folder)["unanswered"]) == (4, 0)
        assert "replies are no verdict, the last one 'Both are lovely, A or B?'" in output.getvalue()
        output.truncate(0)
        evaluate.run(folder, settings, Reporter(quiet=True, stream=output))
        assert len(server.seen) == 16 and not output.getvalue()  # what was said is kept


def test_verdicts_outlive_other_settings_and_add_up(tmp_path, tiny_folder, monkeypatch):
    with serving(longer) as first, serving(lambda *_: "A") as second:
        settings = at(first, tiny_folder, answers=4)
        folder = make_run(tmp_path, settings, spread=0.05)
        evaluate.run(folder, settings, QUIET)
        paid, verdict = len(first.seen), judged(folder)
        for changes in ({"examples": 1}, {"bootstrap": 300}, {"everyday": 2}, {"unprompted": 3}):
            evaluate.run(folder, recipe(tiny_folder, **{"answers": 4, **changes}), QUIET)
            assert judged(folder)["judge"] == first.url and judged(folder)["win"] == verdict["win"], changes
        evaluate.run(folder, at(second, tiny_folder, answers=4), QUIET)
        assert judged(folder)["judge"] == second.url and [o["judge"] for o in judged(folder)["others"]] == [first.url]
        assert judged(folder)["agreement"][0]["judges"] == [second.url, first.url]
        evaluate.run(folder, at(second, tiny_folder, answers=4, judge_model="other"), QUIET)
        labels = [f"{second.url} (other, pairwise)", f"{second.url} (tiny, pairwise)"]
        assert len(judged(folder)["others"]) == 2 and labels in [pair["judges"] for pair in judged(folder)["agreement"]]
        output = io.StringIO()
        evaluate.run(folder, recipe(tiny_folder, answers=2), Reporter(stream=output))  # fewer of the same: all were judged
        evaluate.run(folder, recipe(tiny_folder, answers=8), Reporter(stream=output))
        assert judged(folder) is None and f"{first.url}: left out, as it has not judged all of these answers" in output.getvalue()
        evaluate.run(folder, settings, QUIET)
        assert judged(folder)["win"] == verdict["win"] and len(first.seen) == paid  # nothing is paid twice


@pytest.mark.parametrize(
    "reply, answer",
    [
        ("<think>A? B?</think> A", "A"),
        ("A? B?\n</think>\n\nB", "B"),
        ("A <think>B?</think>", "A"),
        ("<think>one</think><think>two</think>B", "B"),
        ("<think>A, for", ""),
    ],
)
def test_what_a_judge_thinks_is_no_part_of_its_reply(reply, answer):
    with serving(lambda *_: reply) as server:
        assert endpoint.ask(endpoint.Endpoint(server.url, "m", 5.0), "A or B?").text == answer


@pytest.mark.parametrize(
    "code, text, message",
    [
        (401, '{"error": {"message": "bad key sesame-42"}}', r"HTTP 401 \(bad key \*\*\*\); put the key into .* MIPO_JUDGE_KEY"),
        (404, "<html>nginx</html>", r"HTTP 404; the URL should end in /v1"),
        (400, '{"error": "no such model"}', r"HTTP 400 \(no such model\)$"),
        (200, "<html>hello</html>", "the reply is no chat completion; the URL should end in /v1"),
        (200, '{"choices": []}', "the reply is no chat completion"),
        (200, '{"error": {"message": "no model sesame-42 loaded"}}', r"HTTP 200 \(no model \*\*\* loaded\)$"),
        (200, '{"error": {"message": "pay first", "code": 402}}', r"HTTP 402 \(pay first\)$"),
        (200, "x" * 1_100_000, "a reply of more than 1,048,576 bytes"),
    ],
)
def test_what_another_try_cannot_mend_ends_at_once_in_one_line(monkeypatch, code, text, message):
    monkeypatch.setenv(endpoint.KEY, "sesame-42")
    with serving(lambda handler, _: handler.reply(code, text)) as server:
        with pytest.raises(Failure, match=message) as error:
            endpoint.ask(endpoint.Endpoint(server.url, "m", 5.0), "A or B?")
        assert "\n" not in str(error.value) and "sesame" not in str(error.value) and len(server.seen) == 1


def test_the_key_is_sent_and_written_nowhere(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setenv(endpoint.KEY, "sesame-42")
    with serving(longer) as server:
        settings = at(server, tiny_folder, answers=2)
        folder = make_run(tmp_path, settings, spread=0.05)
        evaluate.run(folder, settings, QUIET)
    assert server.seen and all(headers["Authorization"] == "Bearer sesame-42" for _, headers, _ in server.seen)
    assert not any(b"sesame" in path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_the_line_end_of_a_file_is_no_part_of_the_key(monkeypatch):
    monkeypatch.setenv(endpoint.KEY, "sesame-42\r\n")
    with serving(lambda handler, _: handler.reply(400, "no sesame-42 here")) as server:
        with pytest.raises(Failure, match=r"\(no \*\*\* here\)"):
            endpoint.ask(endpoint.Endpoint(server.url, "m", 5.0), "A or B?")
    assert server.seen[0][1]["Authorization"] == "Bearer sesame-42"


@pytest.mark.parametrize("key", ["sesame\n42", "sesame\u2026", "sesame\x7f", "s\u00e9same"])
def test_a_key_that_cannot_be_sent_is_not_printed(monkeypatch, key):
    monkeypatch.setenv(endpoint.KEY, key)
    with pytest.raises(Failure, match="MIPO_JUDGE_KEY is no API key") as error:
        endpoint.ask(endpoint.Endpoint("http://127.0.0.1:9/v1", "m", 0.1), "A or B?")
    assert "same" not in str(error.value)


def test_redirects_are_not_followed_and_the_loopback_needs_no_proxy(monkeypatch):
    with serving(longer) as thief, serving(lambda h, _: h.reply(302, "", Location=thief.url)) as server:
        with pytest.raises(Failure, match="HTTP 302"):
            endpoint.ask(endpoint.Endpoint(server.url, "m", 5.0), "A or B?")
        assert not thief.seen
    with serving(lambda *_: "A") as server, serving(longer) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        assert endpoint.ask(endpoint.Endpoint(server.url, "m", 5.0), "A or B?").text == "A" and not proxy.seen


def test_it_says_who_gets_to_see_what(tmp_path, tiny_folder, capsys):
    far = endpoint.Endpoint("http://judge.example:8000/v1", "m", 1.0).warning()
    assert "contexts" in far and "sent to judge.example:8000: they leave this machine, unencrypted" in far
    assert "unencrypted" not in endpoint.Endpoint("https://judge.example/v1", "m", 1.0).warning()
    for near in ("http://127.0.0.1:1/v1", "http://localhost/v1", "http://[::1]:8080/v1"):
        assert "a server on this machine" in endpoint.Endpoint(near, "m", 1.0).warning()
    with serving(longer) as server:
        settings = at(server, tiny_folder, answers=2)
        folder = make_run(tmp_path, settings, spread=0.05)
        evaluate.run(folder, settings, Reporter(quiet=True))  # also with --quiet
    assert capsys.readouterr().err.count(f"sent to 127.0.0.1:{server.server_port}") == 1


def test_the_dry_run_names_the_host(tmp_path, tiny_folder):
    (tmp_path / "notes").mkdir()
    for name, text in NOTES:
        (tmp_path / "notes" / f"{name}.md").write_text(text)
    settings = recipe(tiny_folder, judge="https://judge.example/v1", judge_model="m")
    named = settings.sources.model_copy(update={"notes": str(tmp_path / "notes"), "min_tokens": 8})
    for values, there in ((settings, True), (recipe(tiny_folder), False)):
        message = dry_run.describe(Run(tmp_path / "run", values.model_copy(update={"sources": named})), Reporter(quiet=True))
        assert ("sends" in message and "sent to judge.example: they leave this machine" in message) is there


def test_nothing_is_sent_unless_an_endpoint_is_named(tmp_path, tiny_folder, monkeypatch):
    monkeypatch.setattr(endpoint, "_post", lambda *_: pytest.fail("a request"))
    settings = recipe(tiny_folder, answers=2)
    assert recipe_loading.parse("model: x\n").evaluation.judge is None and settings.evaluation.judge is None
    evaluate.run(make_run(tmp_path, settings, spread=0.05), settings, QUIET)


BROKEN = ["http://127.0.0.1:abc/v1", "http://127.0.0.1/v1 ", " http://a/v1", "http://a..b/v1", "http://a/v\u00fc", "http:///v1"]
BROKEN += ["http://a:99999/v1", "http://[::1/v1", "HTTP://", "HTTP://a/v1"]
AB, DIGITS = judge.LETTERS, judge.DIGITS


@pytest.mark.parametrize(
    "reply, allowed, result",
    [
        ("A", AB, "A"), ("b.", AB, "B"), ("**B**", AB, "B"), ("Answer: A", AB, "A"),
        ("The better answer is B.", AB, "B"), ("A\n\nIt names the bees.", AB, "A"), ("(A)", AB, "A"),
        ("Option B", AB, "B"), ("__A__", AB, "A"), ("Answer: Option A", AB, "A"), ("**Final answer:** B", AB, "B"),
        ("My choice is **A**.", AB, "A"), ("Option A or B", AB, None), ("Answer A, answer B", AB, None),
        ("A or B", AB, None), ("A good answer would be B", AB, None), ("C", AB, None),
        ("", AB, None), ("AB", AB, None), ("I cannot say.", AB, None),
        ("4", DIGITS, "4"), ("Rating: 4/5", DIGITS, "4"), ("5 out of 5", DIGITS, "5"), ("Score is 2.", DIGITS, "2"),
        ("6", DIGITS, None), ("45", DIGITS, None), ("4.5", DIGITS, None), ("3 to 4", DIGITS, None),
        ("4.0", DIGITS, "4"), ("**3.00**", DIGITS, "3"), ("4.0/5.0", DIGITS, "4"), ("4 or 5", DIGITS, None), ("4.05", DIGITS, None),
    ],
)  # fmt: skip
def test_a_reply_is_a_verdict_only_if_it_is_nothing_else(reply, allowed, result):
    assert judge.written(reply, allowed) == [float(text == result) for text in allowed]


@pytest.mark.parametrize(
    "text, message",
    [
        ("judge: http://127.0.0.1:1/v1", "judge_model: missing"),
        ("{judge: base, judge_model: x}", "judge_model: only an endpoint"),
        ("{judge: 'https://me:sesame@host/v1', judge_model: x}", "put the key into MIPO_JUDGE_KEY"),
        ("{judge: 'https://host/v1?key=sesame', judge_model: x}", "put the key into MIPO_JUDGE_KEY"),
        ("{judge: ['http://a/v1', 'http://b/v1'], judge_model: x}", "one endpoint at a time"),
        ("{judge: [base, base]}", "the same judge is named twice"),
        ("{judge: []}", "evaluation.judge"),
        *((f"{{judge: '{url}', judge_model: x}}", "judge: expected an endpoint") for url in BROKEN),
        ("{judge: 3}", "r.yaml:2: evaluation.judge: input should be a valid string, found 3"),
        ("{judge_timeout: 0}", "evaluation.judge_timeout"),
    ],
)
def test_impossible_judges_are_refused_in_one_line(text, message):
    section = text if text.startswith("{") else f"{{{text}}}"
    with pytest.raises(recipe_loading.RecipeError) as error:
        recipe_loading.parse(f"model: x\nevaluation: {section}\n", "r.yaml")
    assert message in str(error.value) and "\n" not in str(error.value) and "sesame" not in str(error.value)


def test_a_slash_behind_the_url_makes_no_other_judge_and_a_judge_can_be_left_out():
    def evaluation(text):
        return recipe_loading.parse(f"model: x\nevaluation: {text}\n").evaluation

    plain, slash = (evaluation(f"{{judge: 'http://a:1/v1{end}', judge_model: x}}") for end in ("", "/"))
    assert plain == slash and evaluation("{judge: null, judge_model: x}").judge is None
    assert evaluation("{judge: [base, 'http://a/v1/'], judge_model: x}").judge == ["base", "http://a/v1"]
