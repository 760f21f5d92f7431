"""The real llama.cpp, from the package `xllamacpp`: it gives the tokens, templates and probabilities of a GGUF file.

It runs with one thread, a float32 KV cache and no flash attention, so that every difference comes from the file.
"""

import json
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import Failure, first_line


def available() -> bool:
    import importlib.util

    return importlib.util.find_spec("xllamacpp") is not None


class Llama:
    """A GGUF file inside llama.cpp, as a context manager. Raises Failure where llama.cpp cannot load the file."""

    def __init__(self, path: Path, context: int = 1024, lora: Path | None = None) -> None:
        import xllamacpp

        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = context
        parameters.n_gpu_layers = 0
        parameters.warmup = False
        parameters.fit_params = False
        parameters.verbosity = -1
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
        parameters.n_threads_http = 1
        if lora is not None:
            adapter = xllamacpp.CommonAdapterLoraInfo()
            adapter.path, adapter.scale = str(lora), 1.0
            parameters.lora_adapters = [adapter]
        try:
            self._server = xllamacpp.Server(parameters)
        except RuntimeError as error:
            raise Failure(f"{path}: llama.cpp cannot load it ({first_line(error)})") from None
        self._address = self._server.listening_address
        self.greedy(self.tokenize("a"), 1)  # an idle server that ends before its loop begins waits for ever

    def __enter__(self) -> "Llama":
        return self

    def __exit__(self, *_: Any) -> None:
        self._server = None

    def _post(self, where: str, body: dict[str, Any] | None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._address}/{where}", data, {"Content-Type": "application/json"})
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy: the server runs on this machine
        with opener.open(request, timeout=600) as answer:
            return json.loads(answer.read())

    def tokenize(self, text: str, special: bool = False) -> list[int]:
        """Token ids. `special` adds the tokens that the file names for the begin of a text."""
        return self._post("tokenize", {"content": text, "add_special": special, "parse_special": True})["tokens"]

    def template(self, messages: list[dict[str, str]]) -> str:
        """The prompt as text, through the file's own chat template."""
        return self._post("apply-template", {"messages": messages})["prompt"]

    def defaults(self) -> dict[str, Any]:
        """The sampling settings that the file brings."""
        return self._post("props", None)["default_generation_settings"]["params"]

    def greedy(self, tokens: Sequence[int], count: int) -> list[int]:
        """Up to `count` tokens, each the likeliest next one; fewer where the model ends its answer."""
        body = {"prompt": list(tokens), "n_predict": count, "temperature": 0.0, "return_tokens": True, "cache_prompt": False}
        return self._post("completion", body)["tokens"]

    def logprobs(self, tokens: Sequence[int], positions: Sequence[int], vocabulary: int, top: int | None = None) -> np.ndarray:
        """(len(positions), vocabulary) float64: log p(next token | tokens[: position + 1]); -inf outside the `top` likeliest."""
        rows = np.full((len(positions), vocabulary), -np.inf)
        # llama.cpp takes probabilities before sampling but returns them with visible tokens only. So a plain letter is forced.
        forced = [[self.tokenize("a")[-1], 1e6]]
        for row, position in enumerate(positions):
            body = {"prompt": list(tokens[: position + 1]), "n_predict": 1, "temperature": 0.0, "n_probs": top or vocabulary}
            body |= {"cache_prompt": True, "logit_bias": forced}
            for entry in self._post("completion", body)["completion_probabilities"][0]["top_logprobs"]:
                rows[row, entry["id"]] = entry["logprob"]
        return rows
