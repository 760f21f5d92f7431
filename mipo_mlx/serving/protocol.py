"""The words of OpenAI's API: what a request asks, what an answer looks like, and how a request is refused.

A key that changes the answer is done, or refused with its name and what to do: no key is read and ignored. UNUSED are keys that
change no answer here, and each client sends some of its own: they are let through. A key that is nearly a known one is refused,
since it is a typing error. Tools are let through too, as long as their use is the model's to decide: it calls none, and answers
in words. Open WebUI and Continue send theirs with every question. What the tools of another model found is told as a text.
"""

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import groupby
from typing import Any

from ..files import dump
from ..models.chat_template import Messages, plain

CHAT, TEXT = "chat.completion", "text_completion"
MOST_STOPS = 16
NO_LIMIT = -1  # how clients of llama.cpp and LM Studio write max_tokens for no limit of their own
LONGEST_STOP, LONGEST_KEY = 1_000, 40  # characters
MOST_KEYS = 100
MOST_TOKENS = 1 << 31
DONE_HERE = (
    "model", "messages", "prompt", "max_tokens", "max_completion_tokens", "temperature", "top_p", "top_k", "min_p", "seed", "stop",
    "stream", "stream_options", "presence_penalty", "frequency_penalty", "repetition_penalty", "repeat_penalty",
)  # fmt: skip
# Keys that would change the answer and are not offered, with the values that ask for nothing, and what to do instead.
LEAVE, ONE, FORM, CUT = "leave it out", "ask once for each answer", "ask for the form in words", "take top_p, top_k or min_p"
NOT_OFFERED: dict[str, tuple[tuple[Any, ...], str]] = {
    "tool_choice": (("none", "auto"), "the model calls no tools; take auto or none"),
    "function_call": (("none", "auto"), "the model calls no tools; take auto or none"),
    "n": ((1,), ONE), "best_of": ((1,), ONE), "use_beam_search": ((False,), LEAVE),
    "response_format": (({"type": "text"},), FORM), "grammar": (("",), FORM), "json_schema": (({},), FORM), "format": (("",), FORM),
    "guided_json": ((), FORM), "guided_regex": ((), FORM), "guided_choice": ((), FORM), "guided_grammar": ((), FORM),
    "structured_outputs": ((), FORM), "verbosity": (("medium",), "ask for the length in words"),
    "logprobs": ((False,), LEAVE), "top_logprobs": ((0,), LEAVE), "prompt_logprobs": ((), LEAVE), "logit_bias": (({},), LEAVE),
    "modalities": ((["text"],), "only text is written"), "audio": ((), "only text is written"), "moderation": ((), LEAVE),
    "web_search_options": ((), LEAVE), "suffix": (("",), LEAVE), "echo": ((False,), LEAVE),
    "stop_token_ids": (([],), "take stop"), "ignore_eos": ((False,), LEAVE), "min_tokens": ((0,), LEAVE),
    "length_penalty": ((1,), LEAVE), "bad_words": (([],), LEAVE), "typical_p": ((1,), CUT), "tfs_z": ((1,), CUT),
    "top_a": ((0,), CUT), "mirostat": ((0,), CUT), "xtc_probability": ((0,), CUT), "dynatemp_range": ((0,), CUT),
    "dry_multiplier": ((0,), "take repetition_penalty"), "repeat_last_n": ((-1, 64), "penalties count the whole answer"),
    "continue_final_message": ((False,), "the last message should be the user's"), "chat_template": ((), LEAVE),
    "chat_template_kwargs": (({}, {"enable_thinking": False}), LEAVE), "options": (({},), "give its keys by themselves"),
    "system": ((), "give it as a message"), "stop_sequences": (([],), "take stop"),
    **dict.fromkeys(("n_predict", "num_predict", "max_new_tokens", "max_output_tokens"), ((), "take max_tokens")),
}  # fmt: skip
# Keys that change no answer here: for the caller's books, for a service, for speed, and for thinking, which the model does not do.
UNUSED = (
    "user", "safety_identifier", "metadata", "store", "service_tier", "prompt_cache_key", "prompt_cache_retention",
    "prompt_cache_options", "prediction", "reasoning_effort", "tools", "functions", "parallel_tool_calls",
)  # fmt: skip
ALIKE = 0.85  # likeness to a known key from which an unknown one is a typing error
TOOLS = ("tool", "function")
SYSTEM, SPEAKERS = ("system", "developer"), ("user", "assistant")


class Refused(Exception):
    """A request that gets no answer: an HTTP status, and an error in OpenAI's form."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    @property
    def body(self) -> dict[str, Any]:
        kind = "server_error" if self.status >= 500 else "authentication_error" if self.status == 401 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


FAILED = Refused(500, "the server failed; its terminal says where")


@dataclass(frozen=True)
class Settings:
    """How an answer is sampled, and where it ends."""

    max_tokens: int | None = None  # None: the server's own
    temperature: float | None = None  # likewise
    top_p: float | None = None
    top_k: int = 0  # 0: any number
    min_p: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    stream: bool = False
    include_usage: bool = False

    def with_defaults(self, temperature: float, top_p: float) -> "Settings":
        """The same, with the server's own values where the request has none."""
        return replace(
            self,
            temperature=temperature if self.temperature is None else self.temperature,
            top_p=top_p if self.top_p is None else self.top_p,
        )


@dataclass(frozen=True)
class CompletionRequest:
    """A request for one answer, read and checked."""

    kind: str  # CHAT or TEXT
    model: str
    settings: Settings
    talk: Messages = field(default_factory=list)  # turns of user and assistant; the last one is the user's
    system: str = ""  # the client's own system messages
    question: str = ""  # the user's own words in that turn: what is searched for
    text: str = ""  # of TEXT: what is to be continued


def read_chat(body: Mapping[str, Any]) -> CompletionRequest:
    """A request to /v1/chat/completions. Raises Refused for what is wrong or not offered."""
    settings = _settings(body, "prompt")
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise Refused(400, "messages: expected a list of messages, each with role and content", "messages")
    turns = [_turn(message, f"messages[{place}]") for place, message in enumerate(given)]
    spoken = [turn for turn in turns if turn["role"] in SPEAKERS and plain(turn["content"]).strip()]
    called = _names_of_calls(given)
    as_text = [_of_tool(turn, given[place], called) if turn["role"] in TOOLS else turn for place, turn in enumerate(turns)]
    talk = _joined([turn for turn in as_text if turn["role"] in SPEAKERS and plain(turn["content"]).strip()])
    questions = [turn["content"] for turn in _joined(spoken) if turn["role"] == "user"]
    if not talk or talk[-1]["role"] != "user" or not questions:
        raise Refused(400, "messages: the last message should be the user's, with some text", "messages")
    system = "\n\n".join(turn["content"].strip() for turn in turns if turn["role"] in SYSTEM and turn["content"].strip())
    return CompletionRequest(CHAT, _model(body), settings, talk, system, questions[-1])


def read_text(body: Mapping[str, Any]) -> CompletionRequest:
    """A request to /v1/completions. Raises Refused for what is wrong or not offered."""
    settings = _settings(body, "messages")
    prompt = body.get("prompt")
    prompt = prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt
    if not isinstance(prompt, str) or not prompt:
        raise Refused(400, "prompt: expected one text that is not empty; token ids and several texts are not offered", "prompt")
    return CompletionRequest(TEXT, _model(body), settings, text=prompt)


def _joined(talk: Messages) -> Messages:
    """Messages of one speaker that follow one another as one: many chat templates refuse them, and lose none this way."""
    return [
        {"role": role, "content": "\n\n".join(turn["content"] for turn in turns)}
        for role, turns in groupby(talk, key=lambda turn: turn["role"])
    ]


def _names_of_calls(messages: Sequence[Any]) -> dict[str, str]:
    """What the assistant of a client's history called, with its arguments, by the call's id."""
    calls = [call for message in messages for call in message.get("tool_calls") or () if isinstance(call, Mapping)]
    named = {call.get("id"): call.get("function") or call.get("custom") for call in calls}
    return {
        key: f"{call.get('name')}({call.get('arguments') or call.get('input') or ''})"
        for key, call in named.items()
        if isinstance(key, str) and isinstance(call, Mapping)
    }


def _of_tool(turn: dict[str, str], message: Mapping[str, Any], called: Mapping[str, str]) -> dict[str, str]:
    """The result of a tool as the user's text: few chat templates know such a role."""
    key = message.get("tool_call_id")
    name = called.get(key) if isinstance(key, str) else None
    label = str(name or message.get("name") or "a tool")
    return {"role": "user", "content": f"Result of {label}:\n{turn['content']}"}


def _turn(message: Any, where: str) -> dict[str, str]:
    role = message.get("role") if isinstance(message, Mapping) else None
    if role not in (*SYSTEM, *SPEAKERS, *TOOLS):
        raise Refused(400, f"{where}.role: expected system, developer, user, assistant or tool", where)
    if not isinstance(message.get("tool_calls") or [], list):
        raise Refused(400, f"{where}.tool_calls: expected a list", where)
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(_part(part, where) for part in content)
    if content is None and role == "assistant" and not message.get("audio"):
        content = ""
    if not isinstance(content, str):
        raise Refused(400, f"{where}.content: expected a text", where)
    return {"role": role, "content": content}


def _part(part: Any, where: str) -> str:
    """The text of a part of a message; an assistant's refusal, which clients send back, is text too."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    text = part.get(kind) if kind in ("text", "refusal") else None
    if not isinstance(text, str):
        raise Refused(400, f"{where}.content: the model reads text alone; leave out pictures, sound and files", where)
    return text


def _model(body: Mapping[str, Any]) -> str:
    if not isinstance(body.get("model"), str):
        raise Refused(400, "model: expected the name of a model; GET /v1/models lists them", "model")
    return body["model"]


def _settings(body: Mapping[str, Any], foreign: str) -> Settings:
    """foreign: the key of the other endpoint."""
    _check_keys(body)
    if body.get(foreign) is not None:
        other = "completions" if foreign == "prompt" else "chat/completions"
        raise Refused(400, f"{foreign}: belongs to /v1/{other}", foreign, "unknown_parameter")
    most = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    stream_options = body.get("stream_options") or {}
    if not isinstance(stream_options, Mapping):
        raise Refused(400, "stream_options: expected an object", "stream_options")
    top_p = _number(body, "top_p", 0, 1)
    repetition = "repetition_penalty" if body.get("repetition_penalty") is not None else "repeat_penalty"
    return Settings(
        max_tokens=None if body.get(most) == NO_LIMIT else _integer(body, most, 1, MOST_TOKENS),
        temperature=0.0 if top_p == 0 else _number(body, "temperature", 0, 2),
        top_p=top_p or None,
        top_k=max(0, _integer(body, "top_k", -1, MOST_TOKENS) or 0),
        min_p=_number(body, "min_p", 0, 1) or 0.0,
        seed=_integer(body, "seed", -(1 << 63), (1 << 64) - 1),
        stop=_stop(body.get("stop")),
        presence_penalty=_number(body, "presence_penalty", -2, 2) or 0.0,
        frequency_penalty=_number(body, "frequency_penalty", -2, 2) or 0.0,
        repetition_penalty=1.0 if body.get(repetition) == 0 else _number(body, repetition, 0.1, 2) or 1.0,
        stream=_flag(body, "stream"),
        include_usage=_flag(stream_options, "include_usage"),
    )


def _check_keys(body: Mapping[str, Any]) -> None:
    """Raise Refused for a key that is not offered, and for one that is a typing error of a known key."""
    if len(body) > MOST_KEYS:
        raise Refused(400, f"the body has more than {MOST_KEYS} keys")
    for key, value in body.items():
        if key in NOT_OFFERED and value is not None:
            nothing, remedy = NOT_OFFERED[key]
            if not any(value == other and isinstance(value, bool) == isinstance(other, bool) for other in nothing):
                raise Refused(400, f"{key}: not offered here; {remedy}", key, "unsupported_parameter")
        if key not in NOT_OFFERED and key not in DONE_HERE and key not in UNUSED:
            given = key[:LONGEST_KEY]
            near = get_close_matches(given.lower().replace("-", "_"), (*DONE_HERE, *NOT_OFFERED), 1, ALIKE)
            if near:
                given = "".join(letter if letter.isprintable() else "?" for letter in given)
                raise Refused(400, f"{given}: no such key; is {near[0]} meant?", given, "unknown_parameter")


def _stop(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    right = (
        isinstance(stops, list) and len(stops) <= MOST_STOPS and all(isinstance(s, str) and len(s) <= LONGEST_STOP for s in stops)
    )
    if not right:
        raise Refused(
            400, f"stop: expected a text or a list of at most {MOST_STOPS} texts of up to {LONGEST_STOP} characters", "stop"
        )
    return tuple(stop for stop in stops if stop)


def _flag(body: Mapping[str, Any], key: str) -> bool:
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise Refused(400, f"{key}: expected true or false", key)
    return bool(value)


def _number(body: Mapping[str, Any], key: str, low: float, high: float) -> float | None:
    value = body.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high):
        raise Refused(400, f"{key}: expected a number from {low} to {high}", key)
    return None if value is None else float(value)


def _integer(body: Mapping[str, Any], key: str, low: int, high: int) -> int | None:
    value = body.get(key)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high):
        raise Refused(400, f"{key}: expected a whole number from {low} to {high}", key)
    return value


@dataclass
class Reply:
    """One answer in OpenAI's form, whole or in events."""

    wanted: CompletionRequest
    sources: list[dict[str, Any]] = field(default_factory=list)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, finish: str, usage: dict[str, Any]) -> dict[str, Any]:
        chat = {"message": {"role": "assistant", "content": text, "refusal": None}}
        choice = {"index": 0, **(chat if self._chat else {"text": text}), "logprobs": None, "finish_reason": finish}
        return {**self._head(CHAT if self._chat else TEXT), "choices": [choice], "usage": usage, **self._notes}

    def opening(self) -> str:
        """The first event: who speaks, and which notes were told."""
        return self._event({"role": "assistant", "content": ""}, None, self._notes)

    def piece(self, text: str) -> str:
        return self._event({"content": text}, None)

    def closing(self, finish: str) -> str:
        return self._event({}, finish)

    def usage(self, usage: dict[str, Any]) -> str:
        return event({**self._head(self._streamed), "choices": [], "usage": usage})

    @property
    def _chat(self) -> bool:
        return self.wanted.kind == CHAT

    @property
    def _streamed(self) -> str:
        return f"{CHAT}.chunk" if self._chat else TEXT

    @property
    def _notes(self) -> dict[str, Any]:
        return {"mipo_sources": self.sources} if self._chat else {}

    def _event(self, delta: dict[str, Any], finish: str | None, more: dict[str, Any] | None = None) -> str:
        part = {"delta": delta} if self._chat else {"text": delta.get("content", "")}
        choice = {"index": 0, **part, "logprobs": None, "finish_reason": finish}
        without = {"usage": None} if self.wanted.settings.include_usage else {}
        return event({**self._head(self._streamed), "choices": [choice], **without, **(more or {})})

    def _head(self, kind: str) -> dict[str, Any]:
        begin = "chatcmpl" if self._chat else "cmpl"
        return {
            "id": f"{begin}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.wanted.model,
            "system_fingerprint": None,
        }


DONE = "data: [DONE]\n\n"


def event(row: dict[str, Any]) -> str:
    return f"data: {dump(row)}\n\n"
