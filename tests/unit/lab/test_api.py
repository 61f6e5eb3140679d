"""Telling requests apart, and errors in each service's own form."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from lab.api import Call, error, identify

# moto wonders at codes that AWS does not have, such as the lab's own.
pytestmark = pytest.mark.filterwarnings("ignore:Exception")

FORM = "application/x-www-form-urlencoded; charset=utf-8"


def request(service: str, body: bytes = b"", **more: Any) -> dict[str, Any]:
    scope = f"ascentlab/20260101/us-east-1/{service}/aws4_request"
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "SERVER_NAME": "lab",
        "SERVER_PORT": "4566",
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "HTTP_AUTHORIZATION": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=h, Signature=s",
        **more,
    }


@pytest.mark.parametrize(
    ("environ", "body", "expected"),
    [
        (
            request("ec2", CONTENT_TYPE=FORM),
            b"Action=CreateVpc&CidrBlock=10.0.0.0%2F16",
            Call("ec2", "CreateVpc", {"Action": "CreateVpc", "CidrBlock": "10.0.0.0/16"}),
        ),
        (
            request("dynamodb", HTTP_X_AMZ_TARGET="DynamoDB_20120810.PutItem"),
            b"{}",
            Call("dynamodb", "PutItem", {}),
        ),
        (
            request("route53", PATH_INFO="/2013-04-01/hostedzone"),
            b"",
            Call("route53", "CreateHostedZone", {}),
        ),
        (
            request("lambda", PATH_INFO="/2015-03-31/functions", REQUEST_METHOD="POST"),
            b"",
            Call("lambda", "CreateFunction", {}),
        ),
        (
            request("nothing", REQUEST_METHOD="DELETE", PATH_INFO="/thing"),
            b"",
            Call("nothing", "Delete", {}),
        ),
    ],
)
def test_what_a_request_asks_for(environ: dict[str, Any], body: bytes, expected: Call) -> None:
    assert identify(environ, body) == expected


def test_a_presigned_url_bears_its_service_in_the_query() -> None:
    environ = request(
        "", QUERY_STRING="X-Amz-Credential=a%2F20260101%2Fus-east-1%2Fs3%2Faws4_request"
    )
    del environ["HTTP_AUTHORIZATION"]
    assert identify({**environ, "REQUEST_METHOD": "GET"}, b"").service == "s3"


@pytest.mark.parametrize(
    ("service", "content_type", "expected"),
    [
        ("ec2", FORM, "<Errors><Error><Code>Odd</Code><Message>why</Message>"),
        ("elasticloadbalancing", FORM, "<Code>Odd</Code><Message>why</Message>"),
        ("s3", "", "<Code>Odd</Code><Message>why</Message>"),
        ("route53", "", "<Code>Odd</Code><Message>why</Message>"),
        ("no-such-service", "", "<Error><Code>Odd</Code><Message>why</Message></Error>"),
    ],
)
def test_errors_in_xml(service: str, content_type: str, expected: str) -> None:
    environ = request(service, CONTENT_TYPE=content_type)
    status, _, body = error(environ, Call(service, "X", {}), "Odd", "why", 503)
    assert status.startswith("503 ")
    assert expected in body.decode().replace("\n", "").replace("  ", "")


@pytest.mark.parametrize(
    ("service", "content_type"),
    [
        ("ssm", "application/x-amz-json-1.1"),
        ("dynamodb", "application/x-amz-json-1.0"),
        ("lambda", "application/json"),
    ],
)
def test_errors_in_json(service: str, content_type: str) -> None:
    environ = request(service, CONTENT_TYPE=content_type)
    status, headers, body = error(environ, Call(service, "X", {}), "Odd", "why", 400)
    assert status.startswith("400 ")
    told = json.loads(body)
    named = told.get("__type", "") + dict(headers).get("X-Amzn-Errortype", "")
    assert "Odd" in named + dict(headers).get("x-amzn-errortype", "")
    assert told.get("message", told.get("Message")) == "why"
