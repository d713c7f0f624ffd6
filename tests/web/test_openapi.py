"""Requests drawn from the API's own description, sensible and senseless: every answer is described, none is a 5xx."""

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from served import serve
from test_api import CASES

ROUTES = sorted({(case.route, case.method) for case in CASES})  # test_api sees to it that this is all of them
DESCRIBED = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
QUICKLY = settings(deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    served = serve(tmp_path_factory.mktemp("served"), registration="closed")
    served.there = served.submit(usable=True).id
    return served


@pytest.fixture(scope="module")
def description(served):
    return schemathesis.openapi.from_asgi("/v1/openapi.json", served.client.app)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize("route, method", ROUTES, ids=lambda part: part)
def test_every_answer_is_as_described(served, description, route, method, mode):
    operation = description[route][method]

    @settings(QUICKLY, max_examples=4 if route == "/v1/login" else 15)  # each guess costs 0.1 s, on purpose
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        for role in ("none", "owner", "admin"):
            if mode is GenerationMode.POSITIVE and route.startswith("/v1/learnwares/{id}") and method != "DELETE":
                case.path_parameters["id"] = served.there
            case.call_and_validate(headers=served.headers[role], checks=DESCRIBED)

    if mode is GenerationMode.POSITIVE or _can_be_wrong(operation):
        ask()


def _can_be_wrong(operation) -> bool:
    """Whether there is anything in a request that could be other than described."""
    return bool(list(operation.iter_parameters()) or operation.body)


def test_the_description_names_the_refusals(served):
    for path, methods in served.client.app.openapi()["paths"].items():
        for method, about in methods.items():
            assert {"401", "403", "422", "429"} <= set(about["responses"]), (method, path)
            assert about["description"].endswith("."), (method, path)
            for status, answer in about["responses"].items():
                if int(status) >= 400:
                    assert answer["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorOut")
