"""The OpenAPI document tells the truth: its paths are the door's, and no answer comes that it does not name."""

from __future__ import annotations

from collections.abc import Iterator

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from tests.helpers.door import OpenDoor, Process, open_door, pipeline

EXAMPLES = 40
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
POSTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")
GETS = ("/v1/models", "/v1/models/{name}", "/health", "/openapi.json", "/metrics")
ADMIN = ("/admin/status", "/admin/decisions", "/admin/reload")


@pytest.fixture(scope="module")
def door() -> Iterator[OpenDoor]:
    processes = (Process(name="a", pipelines=("chat", "embed"), settings={"answer_tokens": 4}, slots=32),)
    with open_door(processes, (pipeline("chat"), pipeline("embed", task="embed"))) as opened:
        yield opened


@pytest.fixture(scope="module")
def schema(door: OpenDoor) -> schemathesis.openapi.OpenApiSchema:
    return schemathesis.openapi.from_url(f"{door.url}/openapi.json")


def test_documented_paths_are_the_doors(door: OpenDoor) -> None:
    document = httpx2.get(f"{door.url}/openapi.json").json()
    assert sorted(set(document["paths"]) - set(ADMIN)) == door.door.paths
    assert set(ADMIN) <= set(document["paths"]), "the admin API is served where there is a node"
    assert set(POSTS) | set(GETS) == set(door.door.paths)


@pytest.mark.parametrize("path", POSTS + GETS)
def test_no_answer_that_is_not_documented(
    door: OpenDoor, schema: schemathesis.openapi.OpenApiSchema, path: str
) -> None:
    method = "POST" if path in POSTS else "GET"
    operation = schema[path][method]
    headers = {"Authorization": f"Bearer {door.keys['admin']}"}
    seen: dict[int, int] = {}

    @settings(
        max_examples=EXAMPLES if path in POSTS else 5,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(), served=st.sampled_from([True, True, True, False]))
    def run(case: schemathesis.Case, served: bool) -> None:
        if served and isinstance(case.body, dict):
            case.body["model"] = "embed" if path == "/v1/embeddings" else "chat"  # else hardly one gets past 404
        response = case.call(headers=headers, timeout=10)
        seen[response.status_code] = seen.get(response.status_code, 0) + 1
        case.validate_response(response, checks=CHECKS)
        if response.status_code >= 400:
            error = response.json()["error"]
            assert set(error) == {"message", "type", "param", "code"} and error["message"]

    run()
    door.wait_idle()
    print(path, seen)
