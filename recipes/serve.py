"""Asks a GGUF through llama.cpp's own server, in this process, on a Unix socket."""

import http.client
import json
import socket
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import xllamacpp

STREAMS = 8
MAX_ANSWER_TOKENS = 200


class ServedModel:
    """One GGUF behind llama.cpp's HTTP server, on one thread.

    Why: a second thread that has to share its core makes llama.cpp slower by a factor of ten and more.
    """

    def __init__(self, path: Path, socket_path: str) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.hostnames = [socket_path]
        params.n_parallel = STREAMS
        params.n_ctx = STREAMS * 1024
        params.cpuparams.n_threads = 1
        params.cpuparams_batch.n_threads = 1
        params.verbosity = 0
        self._socket_path = socket_path
        self._server = xllamacpp.Server(params)

    def post(self, route: str, body: dict[str, Any]) -> dict[str, Any]:
        """The server's JSON answer. Raises RuntimeError with its text when the status is not 200."""
        connection = http.client.HTTPConnection("localhost", timeout=120)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(self._socket_path)
        connection.request("POST", route, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        if response.status != 200:
            raise RuntimeError(f"{route}: {response.status} {text[:200]!r}")
        return json.loads(text)

    def answer(self, ticket: str) -> str:
        """The model's greedy answer to one ticket."""
        body = {"messages": [{"role": "user", "content": ticket}], "temperature": 0, "max_tokens": MAX_ANSWER_TOKENS}
        return self.post("/v1/chat/completions", body)["choices"][0]["message"]["content"]

    def answer_all(self, tickets: list[str]) -> list[str]:
        """Answers in the order of `tickets`."""
        with ThreadPoolExecutor(STREAMS) as pool:
            return list(pool.map(self.answer, tickets))

    def tokenize(self, text: str) -> list[int]:
        """llama.cpp's token ids, no special tokens added."""
        return self.post("/tokenize", {"content": text, "add_special": False})["tokens"]


@contextmanager
def serve(path: Path) -> Iterator[ServedModel]:
    """A running server for the GGUF at `path`; it ends with the block."""
    with tempfile.TemporaryDirectory() as folder:
        yield ServedModel(path, f"{folder}/x.sock")
