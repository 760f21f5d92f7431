"""The endpoint as OpenAI's own Python client sees it, over a real socket."""

import json
import shutil
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from openai import OpenAI
from openai.types import completion_create_params as text_params
from openai.types.chat import completion_create_params as chat_params

from mipo_mlx.serving import protocol
from tests.commands.test_chat import COOK

ASKED = [{"role": "user", "content": COOK}]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


@pytest.fixture(scope="module")
def client(served) -> OpenAI:
    return OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=60)


def test_three_names_are_listed(client, served):
    names = [model.id for model in client.models.list()]
    assert names == ["mine", "mine:no-notes", "mine:base"]
    assert client.models.retrieve("mine:base").owned_by == "mipo-mlx"
    with pytest.raises(openai.NotFoundError, match="mine:no-notes"):
        client.models.retrieve("other")


def test_an_answer_with_the_note_that_was_told(client):
    answer = client.chat.completions.create(model="mine", messages=ASKED)
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.message.content and choice.finish_reason in ("stop", "length")
    (source,) = answer.mipo_sources
    assert (source["file"], source["line"]) == ("soup.md", 3) and source["score"] > 0.17 and len(source["key"]) == 16
    usage = answer.usage
    assert usage.completion_tokens <= 8 and usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    without = client.chat.completions.create(model="mine:no-notes", messages=ASKED)
    assert without.mipo_sources == [] and without.usage.prompt_tokens < usage.prompt_tokens
    base = client.chat.completions.create(model="mine:base", messages=ASKED)
    assert base.mipo_sources == answer.mipo_sources and base.usage.prompt_tokens == usage.prompt_tokens
    assert base.choices[0].message.content != choice.message.content


def test_a_stream_has_the_same_text_as_the_whole(client):
    whole = client.chat.completions.create(model="mine", messages=ASKED)
    chunks = list(client.chat.completions.create(model="mine", messages=ASKED, stream=True))
    assert chunks[0].mipo_sources == whole.mipo_sources and chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == [whole.choices[0].finish_reason]
    assert len({chunk.id for chunk in chunks}) == 1
    options = {"include_usage": True}
    *parts, last = client.chat.completions.create(model="mine", messages=ASKED, stream=True, stream_options=options)
    assert last.choices == [] and last.usage.completion_tokens == whole.usage.completion_tokens
    assert all(part.usage is None for part in parts)


def test_the_clients_stream_helper(client):
    text = client.chat.completions.create(model="mine", messages=ASKED).choices[0].message.content
    with client.chat.completions.stream(model="mine", messages=ASKED, stop=text[4:]) as stream:  # it refuses answers that were cut
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        assert stream.get_final_completion().choices[0].message.content == text


def test_a_text_is_continued_as_it_stands(client):
    answer = client.completions.create(model="mine", prompt="I keep", max_tokens=5, temperature=0)
    assert answer.object == "text_completion" and answer.usage.completion_tokens <= 5
    parts = list(client.completions.create(model="mine", prompt=["I keep"], max_tokens=5, temperature=0, stream=True))
    assert "".join(part.choices[0].text for part in parts) == answer.choices[0].text
    assert (
        answer.choices[0].text
        != client.completions.create(model="mine:base", prompt="I keep", max_tokens=5, temperature=0).choices[0].text
    )


@pytest.mark.parametrize(
    ("wrong", "param"),
    [({"prompt": "word " * 2_000}, "prompt"), ({"prompt": ["a", "b"]}, "prompt"), ({"extra_body": {"messages": ASKED}}, "messages"),
     ({"echo": True}, "echo"), ({"suffix": "end"}, "suffix"), ({"logprobs": 0}, "logprobs"), ({"best_of": 2}, "best_of")],
)  # fmt: skip
def test_what_is_wrong_with_a_text_is_named(client, wrong, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(**{"model": "mine", "prompt": "I keep", **wrong})
    assert refused.value.param == param and refused.value.message.count(param)


def test_a_seed_repeats_an_answer_and_limits_hold(client):
    def ask(**more):
        return client.chat.completions.create(model="mine", messages=ASKED, temperature=1.5, max_completion_tokens=12, **more)

    texts = [ask(seed=seed, top_p=top_p).choices[0].message.content for top_p in (1, 0.9) for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2] and texts[3] == texts[4] != texts[5]
    assert len({ask().choices[0].message.content for _ in range(3)}) > 1  # without a seed each answer is drawn anew
    greedy = {ask(top_p=0, seed=seed).choices[0].message.content for seed in (1, 2)}
    assert len(greedy) == 1
    assert ask(seed=5).usage.completion_tokens <= 12


def test_a_stop_text_ends_the_answer_and_is_left_out(client):
    whole = client.chat.completions.create(model="mine", messages=ASKED, max_tokens=12)
    text = whole.choices[0].message.content
    for stop in (text[3:5], [text[3:5], "never in it"]):
        cut = client.chat.completions.create(model="mine", messages=ASKED, max_tokens=12, stop=stop)
        assert cut.choices[0].message.content == text[: text.index(text[3:5])] and cut.choices[0].finish_reason == "stop"
        chunks = client.chat.completions.create(model="mine", messages=ASKED, max_tokens=12, stop=stop, stream=True)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == cut.choices[0].message.content


def test_a_longer_talk_begins_where_the_first_answer_ended(client, served):
    first = client.chat.completions.create(model="mine:no-notes", messages=ASKED)
    turns = [*ASKED, {"role": "assistant", "content": first.choices[0].message.content}, {"role": "user", "content": "And then?"}]
    second = client.chat.completions.create(model="mine:no-notes", messages=turns)
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached >= first.usage.prompt_tokens - 1
    turns = [{"role": "developer", "content": [{"type": "text", "text": "Be brief."}]}, *turns]
    assert client.chat.completions.create(model="mine:no-notes", messages=turns).choices[0].message.content is not None


@pytest.mark.parametrize(
    "wrong, param",
    [
        ({"messages": []}, "messages"),
        *(({"messages": [{"role": "user", "content": nothing}]}, "messages") for nothing in ("", " \n", "\0")),
        ({"extra_body": {"prompt": "x"}}, "prompt"),  # of the other endpoint
        ({"messages": [*ASKED, {"role": "assistant", "content": "Soup"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, "messages[0]"),
        ({"messages": [{"role": "assistant", "audio": {"id": "x"}}, *ASKED]}, "messages[0]"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "a"}]}, "messages"),  # nobody asked
        ({"messages": [{"role": "user", "content": COOK, "tool_calls": 5}]}, "messages[0]"),
        ({"messages": [{"role": "narrator", "content": "x"}]}, "messages[0]"),
        ({"messages": [{"role": "user", "content": "word " * 2_000}]}, "messages"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -1}, "top_p"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": "x"}, "seed"),
        ({"stop": [1]}, "stop"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"tools": TOOLS, "tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"functions": [TOOLS[0]["function"]], "function_call": {"name": "f"}}, "function_call"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"presence_penalty": 2.5}, "presence_penalty"),
        ({"frequency_penalty": "1"}, "frequency_penalty"),
        ({"seed": 1 << 70}, "seed"),
        ({"logit_bias": {"5": -100}}, "logit_bias"),
        ({"verbosity": "low"}, "verbosity"),
        ({"extra_body": {"top_k": 2.5}}, "top_k"),
        ({"extra_body": {"top_k": -2}}, "top_k"),
        ({"extra_body": {"min_p": 1.5}}, "min_p"),
        ({"extra_body": {"repetition_penalty": 0.01}}, "repetition_penalty"),
        ({"extra_body": {"repeat_penalty": "1"}}, "repeat_penalty"),
        ({"extra_body": {"mirostat": 2}}, "mirostat"),
        ({"extra_body": {"guided_regex": "a+"}}, "guided_regex"),
        ({"extra_body": {"max_new_tokens": 5}}, "max_new_tokens"),
        ({"extra_body": {"max_token": 5}}, "max_token"),  # nearly a key that there is
        ({"extra_body": {"topP": 0.5}}, "topP"),
        ({"extra_body": {"Stop": "x"}}, "Stop"),
        ({"extra_body": dict.fromkeys(map(str, range(200)))}, None),
    ],
)
def test_what_is_wrong_or_not_offered_is_named(client, wrong, param):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(**{"model": "mine", "messages": ASKED, **wrong})
    assert refused.value.param == param and refused.value.type == "invalid_request_error"


@pytest.mark.parametrize(
    "more",
    [
        {"max_tokens": -1},  # no limit of the client's own: the server's holds
        {"tools": TOOLS},  # the model may decide, and calls none
        {"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True},
        {"tools": TOOLS, "tool_choice": "none"},
        {"functions": [TOOLS[0]["function"]], "function_call": "auto"},
        {"extra_body": {"repetition_penalty": 1, "repeat_penalty": 1.1, "top_k": -1, "min_p": 0, "typical_p": 1, "mirostat": 0}},
        {"extra_body": {"chat_id": "c", "session_id": "s", "background_tasks": {}, "features": {}, "num_ctx": 4096}},
        {"prediction": {"type": "content", "content": "x"}, "reasoning_effort": "high", "verbosity": "medium"},
        {"messages": [ASKED[0], {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]}, ASKED[0]]},
    ],
)
def test_what_clients_send_beside_the_question(client, more):
    answer = client.chat.completions.create(**{"model": "mine", "messages": ASKED, **more})
    assert answer.choices[0].message.content and answer.usage.completion_tokens <= 8
    assert answer.choices[0].message.tool_calls is None and answer.choices[0].finish_reason in ("stop", "length")


def test_each_key_of_the_real_client_is_done_refused_or_unused():
    keys = (*protocol.DONE_HERE, *protocol.NOT_OFFERED, *protocol.UNUSED)
    assert len(keys) == len(set(keys))
    for params in (chat_params.CompletionCreateParamsBase, text_params.CompletionCreateParamsBase):
        assert set(params.__annotations__) <= set(keys)


def test_settings_that_change_the_odds_change_the_answer(client):
    def ask(**more):
        answer = client.chat.completions.create(model="mine", messages=ASKED, **{"max_tokens": 12, "seed": 3, **more})
        return answer.choices[0].message.content

    likeliest = ask()
    for only in ({"top_k": 1}, {"min_p": 1.0}):
        assert ask(temperature=1.9, extra_body=only) == likeliest != ask(temperature=1.9)
    changes = {"presence_penalty": 2}, {"frequency_penalty": 2}, {"extra_body": {"repetition_penalty": 2}}
    for change in (*changes, {"extra_body": {"repeat_penalty": 2}}):
        assert ask(**change) != likeliest


CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}


@pytest.mark.parametrize("reply", [None, "Let me look."])
def test_the_history_of_another_model_with_tools_is_told_as_text(reply):
    history = [
        *ASKED,
        {"role": "assistant", "content": reply, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "Rain, 4 degrees"}]},
    ]
    wanted = protocol.read_chat({"model": "mine", "messages": history})
    result = 'Result of weather({"city": "Oslo"}):\nRain, 4 degrees'
    spoken = [{"role": "assistant", "content": reply}, {"role": "user", "content": result}] if reply else []
    assert wanted.talk == [{"role": "user", "content": COOK if reply else f"{COOK}\n\n{result}"}, *spoken]
    assert wanted.question == COOK  # memory is asked for the user's words, not for a tool's
    later = [*history, {"role": "assistant", "content": "Rain."}, {"role": "user", "content": "And tomorrow?"}]
    assert protocol.read_chat({"model": "mine", "messages": later}).question == "And tomorrow?"
    old = [{"role": "function", "name": "clock", "content": "noon"}, {"role": "tool", "tool_call_id": "lost", "content": "x"}]
    message = protocol.read_chat({"model": "mine", "messages": [*ASKED, *old]}).talk[-1]["content"]
    assert message == f"{COOK}\n\nResult of clock:\nnoon\n\nResult of a tool:\nx"


def test_a_talk_with_tools_gets_its_answer_and_its_note(client):
    history = [*ASKED, {"role": "assistant", "tool_calls": [CALL]}, {"role": "tool", "tool_call_id": "call_1", "content": "Rain"}]
    answer = client.chat.completions.create(model="mine", messages=history)
    assert answer.choices[0].message.content and answer.mipo_sources[0]["file"] == "soup.md"


def test_an_address_that_is_nearly_right(client, served):
    assert served.get("/v1/models/").json() == served.get("/v1/models").json()
    for answer in (served.get("/models"), served.post("/chat/completions", {}), served.post("/completions", {})):
        assert answer.status_code == 404 and answer.json()["error"]["message"].endswith("ends in /v1")
    assert served.get("/v1/else").status_code == 404 and served.get("/v1/chat/completions").status_code == 405


def test_keys_that_ask_for_nothing_are_let_through(client):
    nothing = {
        "n": 1, "logprobs": False, "tools": [], "tool_choice": "none", "presence_penalty": 0, "frequency_penalty": 0.0,
        "response_format": {"type": "text"}, "user": "me", "metadata": {"a": "b"}, "store": False,
    }  # fmt: skip
    assert client.chat.completions.create(model="mine", messages=ASKED, **nothing).choices


def test_a_client_that_gives_up_stops_its_answer(served):
    hasty = OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0, timeout=0.2)
    with pytest.raises(openai.APITimeoutError):
        hasty.chat.completions.create(model="mine", messages=[{"role": "user", "content": "Hi"}], max_tokens=250, stop=["\0"] * 16)
    client = OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
    stream = client.chat.completions.create(model="mine", messages=ASKED, max_tokens=250, temperature=1.9, stream=True)
    next(iter(stream))
    stream.close()
    wait = threading.Event()
    for _ in range(500):
        if not served.busy and not served.worker._waiting:
            break
        wait.wait(0.02)
    assert not served.busy and not served.worker._waiting


def test_sixteen_clients_at_once(client):
    """Each gets its own whole answer, the same as alone."""
    questions = [f"{COOK} For {count} guests?" for count in range(16)]

    def ask(question: str, stream: bool) -> str:
        messages = [{"role": "user", "content": question}]
        if not stream:
            return client.chat.completions.create(model="mine", messages=messages).choices[0].message.content
        chunks = client.chat.completions.create(model="mine", messages=messages, stream=True)
        return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(ask, questions, [place % 2 == 0 for place in range(16)]))
    assert together == [ask(question, False) for question in questions]


NODE = Path(__file__).parent / "client.mjs"


@pytest.mark.skipif(shutil.which("node") is None, reason="node is missing: this test runs OpenAI's JavaScript client")
def test_the_javascript_client(served):
    done = subprocess.run(["node", str(NODE), f"{served.url}/v1", COOK], capture_output=True, text=True, timeout=120)
    if done.returncode == 3:
        pytest.skip("npm's package openai is missing: install it anywhere that node looks, as in NODE_PATH")
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert seen["models"] == ["mine", "mine:no-notes", "mine:base"]
    assert seen["whole"] == seen["streamed"] and seen["file"] == "soup.md"
    assert seen["unknown"] == 404 and seen["wrong"] == 400 and seen["usage"] > 0
