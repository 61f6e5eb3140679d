"""Calls to AWS: what is retried, and what a user reads when it fails."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import (
    Api,
    AwsFailure,
    region_problem,
    session_api,
)
from ansible_collections.ascent.scaling.plugins.module_utils.retry import Retry
from botocore.config import Config
from botocore.exceptions import (
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    UnauthorizedSSOTokenError,
)
from botocore.parsers import ResponseParserError
from botocore.stub import Stubber

PARAMETER = {"Name": "/ascent/lab/stage"}
ANSWER = {"Parameter": {"Name": "/ascent/lab/stage", "Value": "1"}}


@pytest.fixture
def stubbed() -> Any:
    client = boto3.client(
        "ssm",
        region_name="us-east-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(retries={"total_max_attempts": 1}),
    )
    now = [0.0]
    retry = Retry(
        deadline=10,
        clock=lambda: now[0],
        sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
        chance=lambda: 1.0,
    )
    with Stubber(client) as stubber:
        yield Api(lambda _: client, retry), stubber


def ask(api: Api, **more: Any) -> Any:
    return api.call("ssm", "get_parameter", "/ascent/lab/stage", **PARAMETER, **more)


@pytest.mark.parametrize(
    ("code", "status"),
    [("ThrottlingException", 400), ("RequestLimitExceeded", 503), ("InternalServerError", 500)],
)
def test_what_passes_is_tried_again(stubbed: Any, code: str, status: int) -> None:
    api, stubber = stubbed
    for _ in range(3):
        stubber.add_client_error("get_parameter", code, http_status_code=status)
    stubber.add_response("get_parameter", ANSWER)
    assert ask(api)["Parameter"]["Value"] == "1"
    stubber.assert_no_pending_responses()


@pytest.mark.parametrize(
    ("code", "status", "words"),
    [
        ("ThrottlingException", 400, ("throttles", "gave up after", "continues where it stopped")),
        ("InternalServerError", 500, ("server error", "gave up after", "Health Dashboard")),
    ],
)
def test_what_does_not_pass_ends_with_a_sentence(
    stubbed: Any, code: str, status: int, words: tuple[str, ...]
) -> None:
    api, stubber = stubbed
    for _ in range(20):
        stubber.add_client_error("get_parameter", code, http_status_code=status)
    with pytest.raises(AwsFailure) as caught:
        ask(api)
    for word in ("ssm:get_parameter", "/ascent/lab/stage", *words):
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("code", "word"),
    [
        (
            "AccessDeniedException",
            "ssm:get_parameter on /ascent/lab/stage failed: .* permission ssm:GetParameter "
            ".* docs/iam/stage-1.json",
        ),
        ("ExpiredTokenException", "Renew them"),
        ("RequestTimeTooSkewed", "clock"),
        ("ValidationException", "ValidationException"),
    ],
)
def test_other_errors_are_told_at_once(stubbed: Any, code: str, word: str) -> None:
    api, stubber = stubbed
    stubber.add_client_error("get_parameter", code, http_status_code=400)
    with pytest.raises(AwsFailure, match=word) as caught:
        ask(api)
    assert caught.value.code == code


def test_missing_is_none_where_it_may_be_missing(stubbed: Any) -> None:
    api, stubber = stubbed
    stubber.add_client_error("get_parameter", "ParameterNotFound", http_status_code=400)
    assert ask(api, missing=("ParameterNotFound",)) is None


@pytest.mark.parametrize(
    ("error", "word"),
    [
        (NoCredentialsError(), "AWS_PROFILE"),
        (PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), "incomplete"),
        (UnauthorizedSSOTokenError(), "aws sso login"),
        (EndpointConnectionError(endpoint_url="http://x"), "region's name"),
        (ResponseParserError("no element found"), "is not AWS"),
    ],
)
def test_no_way_to_aws_is_told(error: Exception, word: str) -> None:
    class Client:
        def get_parameter(self, **_: Any) -> None:
            raise error

    with pytest.raises(AwsFailure, match=word):
        ask(Api(lambda _: Client()))


@pytest.mark.parametrize(
    ("region", "words"),
    [("us-east-1", ""), ("us-esat-1", "did you mean us-east-1"), ("moon", "only eu-west-1, us")],
)
def test_a_region_that_is_none_is_told(region: str, words: str) -> None:
    problem = region_problem(region, ["us-east-1", "eu-west-1"])
    assert (words in problem) if words else problem == ""


def test_the_sdk_knows_the_regions_of_all_partitions() -> None:
    for region in ("eu-central-1", "cn-north-1", "us-gov-west-1"):
        session_api(region, access_key="a", secret_key="b")
    with pytest.raises(AwsFailure, match="did you mean eu-"):
        session_api("eu-centrall-1", access_key="a", secret_key="b")
