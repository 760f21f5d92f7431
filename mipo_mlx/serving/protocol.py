"""The words of OpenAI's API: what a request asks, what an answer looks like, and how a request is refused.

A key that changes the answer is either offered or refused with its name. Other keys, such as `user` or `metadata`, change
nothing, so they are let through: each client sends some of its own. Tools are let through too, as long as their use is the
model's to decide: it calls none, and answers in words. Open WebUI and Continue send theirs with every question.
"""

import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..files import dump
from ..models.chat_template import Messages

CHAT, TEXT = "chat.completion", "text_completion"
MOST_STOPS = 16
NO_LIMIT = -1  # how clients of llama.cpp and LM Studio write max_tokens for no limit of their own
LONGEST_STOP = 1_000  # characters
# Keys that would change the answer and that are not offered, with the values that ask for nothing.
NOT_OFFERED: dict[str, tuple[Any, ...]] = {
    "tool_choice": ("none", "auto"), "function_call": ("none", "auto"), "audio": (),
    "modalities": (["text"],), "logprobs": (False,), "top_logprobs": (0,), "logit_bias": ({},), "presence_penalty": (0,),
    "frequency_penalty": (0,), "response_format": ({"type": "text"},), "web_search_options": (), "prediction": (), "suffix": ("",),
    "echo": (False,), "best_of": (1,), "n": (1,),
}  # fmt: skip
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
    seed: int | None = None
    stop: tuple[str, ...] = ()
    stream: bool = False
    include_usage: bool = False


@dataclass(frozen=True)
class Wanted:
    """A request for one answer, read and checked."""

    kind: str  # CHAT or TEXT
    model: str
    settings: Settings
    talk: Messages = field(default_factory=list)  # turns of user and assistant; the last one is the user's
    system: str = ""  # the client's own system messages
    text: str = ""  # of TEXT: what is to be continued


def read_chat(body: Mapping[str, Any]) -> Wanted:
    """A request to /v1/chat/completions. Raises Refused for what is wrong or not offered."""
    settings = _settings(body)
    given = body.get("messages")
    if not isinstance(given, list) or not given:
        raise Refused(400, "messages: expected a list of messages, each with role and content", "messages")
    turns = [_turn(message, f"messages[{place}]") for place, message in enumerate(given)]
    talk = [turn for turn in turns if turn["role"] in SPEAKERS and turn["content"]]
    if not talk or talk[-1]["role"] != "user":
        raise Refused(400, "messages: the last message should be the user's, with some text", "messages")
    system = "\n\n".join(turn["content"].strip() for turn in turns if turn["role"] in SYSTEM and turn["content"].strip())
    return Wanted(CHAT, _model(body), settings, _joined(talk), system)


def read_text(body: Mapping[str, Any]) -> Wanted:
    """A request to /v1/completions. Raises Refused for what is wrong or not offered."""
    settings = _settings(body)
    prompt = body.get("prompt")
    prompt = prompt[0] if isinstance(prompt, list) and len(prompt) == 1 else prompt
    if not isinstance(prompt, str) or not prompt:
        raise Refused(400, "prompt: expected one text that is not empty; token ids and several texts are not offered", "prompt")
    return Wanted(TEXT, _model(body), settings, text=_unicode(prompt, "prompt"))


def _joined(talk: Messages) -> Messages:
    """Messages of one speaker that follow one another as one: many chat templates refuse them, and lose none this way."""
    turns: Messages = []
    for turn in talk:
        if turns and turns[-1]["role"] == turn["role"]:
            turns[-1] = {**turn, "content": f"{turns[-1]['content']}\n\n{turn['content']}"}
        else:
            turns.append(turn)
    return turns


def _turn(message: Any, where: str) -> dict[str, str]:
    role = message.get("role") if isinstance(message, Mapping) else None
    if role not in (*SYSTEM, *SPEAKERS):
        raise Refused(400, f"{where}.role: expected system, developer, user or assistant; results of tools are not offered", where)
    if message.get("tool_calls") or message.get("function_call"):
        raise Refused(400, f"{where}.tool_calls: calls of tools are not offered", where)
    content = message.get("content")
    if isinstance(content, list):
        content = "\n".join(_part(part, where) for part in content)
    if content is None and role == "assistant":
        content = ""
    if not isinstance(content, str):
        raise Refused(400, f"{where}.content: expected a text", where)
    return {"role": role, "content": _unicode(content, where)}


def _part(part: Any, where: str) -> str:
    """The text of a part of a message; an assistant's refusal, which clients send back, is text too."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    text = part.get(kind) if kind in ("text", "refusal") else None
    if not isinstance(text, str):
        raise Refused(400, f"{where}.content: only parts of the type text are offered", where)
    return text


def _unicode(text: str, where: str) -> str:
    """JSON can hold half of a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Refused(400, f"{where}: not valid Unicode (half of a surrogate pair)", where) from None
    return text


def _model(body: Mapping[str, Any]) -> str:
    if not isinstance(body.get("model"), str):
        raise Refused(400, "model: expected the name of a model; GET /v1/models lists them", "model")
    return body["model"]


def _settings(body: Mapping[str, Any]) -> Settings:
    for key, nothing in NOT_OFFERED.items():
        value = body.get(key)
        if value is not None and not any(
            value == other and isinstance(value, bool) == isinstance(other, bool) for other in nothing
        ):
            raise Refused(400, f"{key}: not offered here; leave it out", key, "unsupported_parameter")
    most = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    stream_options = body.get("stream_options") or {}
    if not isinstance(stream_options, Mapping):
        raise Refused(400, "stream_options: expected an object", "stream_options")
    top_p = _number(body, "top_p", 0, 1)
    return Settings(
        max_tokens=None if body.get(most) == NO_LIMIT else _integer(body, most, 1, 1 << 31),
        temperature=0.0 if top_p == 0 else _number(body, "temperature", 0, 2),
        top_p=top_p or None,
        seed=_integer(body, "seed", -(1 << 63), (1 << 64) - 1),
        stop=_stop(body.get("stop")),
        stream=_flag(body, "stream"),
        include_usage=_flag(stream_options, "include_usage"),
    )


def _stop(value: Any) -> tuple[str, ...]:
    stops = [value] if isinstance(value, str) else [] if value is None else value
    right = (
        isinstance(stops, list) and len(stops) <= MOST_STOPS and all(isinstance(s, str) and len(s) <= LONGEST_STOP for s in stops)
    )
    if not right:
        raise Refused(
            400, f"stop: expected a text or a list of at most {MOST_STOPS} texts of up to {LONGEST_STOP} characters", "stop"
        )
    return tuple(_unicode(stop, "stop") for stop in stops if stop)


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
        raise Refused(400, f"{key}: expected a whole number{' above 0' if low == 1 else ''}", key)
    return value


@dataclass
class Reply:
    """One answer in OpenAI's form, whole or in events."""

    wanted: Wanted
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
    """A server-sent event."""
    return f"data: {dump(row)}\n\n"
