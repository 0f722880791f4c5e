"""What docs/reference/http.md says of routes and headers beyond their names. A test fails when one is missing."""

from __future__ import annotations

INTRO = """# The HTTP API

The wire is OpenAI's, so that its clients work unchanged: give them `base_url="http://127.0.0.1:8080/v1"` and a key.
`model` names a pipeline. A key goes into `Authorization: Bearer hg_...`; without one only `/health` and `/openapi.json`
answer. The CLI speaks to the same routes over `run/admin.sock` in the state folder (mode 0600), where no key is needed.

A field that is not honoured is never dropped in silence: the answer names it in `x-headgate-warning`. What is refused
is refused at once, with field and cure; see [errors](errors.md).

**Streaming.** `stream: true` answers with server-sent events, the first token as soon as it is there, and `[DONE]` at
the end. An answer that a JSON schema, `json_object` or a strict tool binds is held back until it was validated, then
sent whole ([why](../why/004-constrained-answers-are-held.md)).

**What is not served.** Images, audio and files in messages; `previous_response_id`, `conversation`, `background`,
stored prompts and tools in `/v1/responses`; the assistants, files and batch APIs.
"""

ROUTES: dict[tuple[str, str], str] = {
    ("GET", "/health"): "200 when this gateway can carry requests, 503 with the reason when it cannot.",
    ("GET", "/metrics"): "Counters in Prometheus' text format; see [metrics](metrics.md).",
    ("GET", "/openapi.json"): "This API as an OpenAPI document.",
    ("GET", "/v1/models"): "The pipelines, whether awake or asleep.",
    ("GET", "/v1/models/{name}"): "One pipeline.",
    ("POST", "/v1/chat/completions"): "An answer to a conversation.",
    ("POST", "/v1/completions"): "The continuation of a text or of token ids.",
    ("POST", "/v1/embeddings"): "Vectors of texts, from an embedding model.",
    ("POST", "/v1/responses"): "OpenAI's responses API: text only, and stateless.",
    ("GET", "/admin/status"): "What runs: pools, pipelines, replicas, this gateway's queues.",
    ("GET", "/admin/decisions"): "The newest decisions of the control loop, each with its reason.",
    ("POST", "/admin/reload"): "Read headgate.yaml again and apply it; a bad file is refused and changes nothing.",
}

HEADERS: dict[str, str] = {
    "x-request-id": "The request's id (UUIDv7), the same as in the ledger and the logs.",
    "x-headgate-version": "Digest of the model version that answered.",
    "x-headgate-device": "What it ran on, such as `cpu:1`.",
    "x-headgate-replica": "Which replica answered.",
    "x-headgate-queue-ms": "Milliseconds that the request waited for a replica.",
    "x-headgate-attempts": "Attempts on replicas, when it took more than one.",
    "x-headgate-warning": "Fields of the request that were not honoured, by name.",
    "retry-after": "Seconds after which a retry may help; with 429, 503 and 504.",
}
