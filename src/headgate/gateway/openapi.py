"""The OpenAPI document of the door, built from the models that check requests, so that it cannot lag behind them."""

from __future__ import annotations

from functools import cache
from typing import Any

import orjson
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from headgate import __version__
from headgate.gateway.wire.chat import ChatRequest
from headgate.gateway.wire.completions import CompletionRequest
from headgate.gateway.wire.embeddings import EmbeddingRequest
from headgate.gateway.wire.responses import ResponseRequest

_POSTS: tuple[tuple[str, str, type[BaseModel], bool], ...] = (
    ("/v1/chat/completions", "Answer a conversation.", ChatRequest, True),
    ("/v1/completions", "Continue a text.", CompletionRequest, True),
    ("/v1/responses", "Answer an input, keeping nothing.", ResponseRequest, True),
    ("/v1/embeddings", "Turn texts into vectors.", EmbeddingRequest, False),
)
_ERRORS = {
    "400": "The request is not valid; `param` names the field.",
    "401": "No valid API key.",
    "403": "The key's role may not do that.",
    "404": "No such pipeline.",
    "408": "The request took too long to arrive.",
    "413": "The body is too large.",
    "422": "The answer was cut before it was complete JSON; raise max_tokens.",
    "429": "The pipeline's queue is full; see Retry-After.",
    "431": "The headers are too large.",
    "502": "The replica failed, or its answer did not fit the schema.",
    "503": "Nobody can answer now; see Retry-After.",
    "504": "The deadline passed.",
}
_WARNING = {
    "X-Headgate-Warning": {
        "description": "Fields of the body that were not honoured.",
        "schema": {"type": "string"},
        "required": False,
    },
    "X-Request-Id": {"description": "The id of this request.", "schema": {"type": "string"}, "required": True},
}


@cache
def openapi_bytes() -> bytes:
    """The document, encoded."""
    models = [model for _, _, model, _ in _POSTS]
    _, definitions = models_json_schema(
        [(model, "validation") for model in models], ref_template="#/components/schemas/{model}"
    )
    paths: dict[str, Any] = {path: {"post": _post(text, model, streams)} for path, text, model, streams in _POSTS}
    paths["/v1/models"] = {"get": _get("The pipelines that are served.", {"200": _json("A list of models.")})}
    named = _get("One pipeline.", {"200": _json("A model."), "404": _error("404")})
    named["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    paths["/v1/models/{name}"] = {"get": named}
    paths["/health"] = {"get": _get("Whether requests are taken.", {"200": _json("Yes."), "503": _error("503")}, False)}
    text = {"description": "Prometheus text.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    paths["/metrics"] = {"get": _get("Counters, for keys with role scrape or admin.", {"200": text})}
    paths["/openapi.json"] = {"get": _get("This document.", {"200": _json("OpenAPI 3.1.")}, False)}
    status = _get("Replicas, queues and processes, for admins.", {"200": _json("The state."), "503": _error("503")})
    paths["/admin/status"] = {"get": status}
    told = _get(
        "The last decisions with their reasons, for admins.", {"200": _json("Decisions."), "503": _error("503")}
    )
    paths["/admin/decisions"] = {"get": told}
    paths["/admin/reload"] = {"post": _reload()}
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Headgate",
                "version": __version__,
                "description": "Many small language models behind one OpenAI-compatible door.",
            },
            "paths": paths,
            "components": {
                "schemas": {**definitions.get("$defs", {}), "Error": _ERROR_SCHEMA},
                "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            },
            "security": [{"key": []}],
        }
    )


_ERROR_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def _error(status: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": _ERRORS[status], "content": content}


def _json(text: str) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": {"type": "object"}}}}


def _get(text: str, responses: dict[str, Any], key: bool = True) -> dict[str, Any]:
    if not key:
        return {"summary": text, "responses": responses, "security": []}
    return {"summary": text, "responses": {**responses, "401": _error("401"), "403": _error("403")}}


def _post(text: str, model: type[BaseModel], streams: bool) -> dict[str, Any]:
    whole: dict[str, Any] = {**_json("The answer."), "headers": _WARNING}
    if streams:
        whole["content"]["text/event-stream"] = {}  # OpenAPI 3.1 has no words for events
    return {
        "summary": text,
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}},
        },
        "responses": {"200": whole, **{status: _error(status) for status in _ERRORS}},
    }


def _reload() -> dict[str, Any]:
    schema = {"type": "object", "properties": {"path": {"type": "string"}}}
    return {
        "summary": "Apply a changed headgate.yaml, for admins.",
        "requestBody": {"required": False, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": _json("What changed."),
            **{status: _error(status) for status in ("400", "401", "403", "413", "503")},
        },
    }
