"""AWS as a list of answers: botocore's Stubber for every service that is asked."""

from __future__ import annotations

from typing import Any

import boto3
from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import Api
from ansible_collections.ascent.scaling.plugins.module_utils.retry import Retry
from botocore.config import Config
from botocore.stub import Stubber


class Stubs:
    """An Api whose services answer what a test has told them, in that order, and nothing else.

    Its retries cost no time.
    """

    def __init__(self) -> None:
        self.stubbers: dict[str, Stubber] = {}
        now = [0.0]
        retry = Retry(
            clock=lambda: now[0],
            sleep=lambda seconds: now.__setitem__(0, now[0] + seconds),
            chance=lambda: 1.0,
        )
        self.api = Api(lambda service: self.of(service).client, retry)

    def of(self, service: str) -> Stubber:
        if service not in self.stubbers:
            client = boto3.client(
                service,
                region_name="us-east-1",
                aws_access_key_id="a",
                aws_secret_access_key="b",
                config=Config(retries={"total_max_attempts": 1}),
            )
            self.stubbers[service] = Stubber(client)
            self.stubbers[service].activate()
        return self.stubbers[service]

    def answers(self, service: str, operation: str, answer: Any, **expected: Any) -> None:
        self.of(service).add_response(operation, answer, expected or None)

    def fails(self, service: str, operation: str, code: str, **expected: Any) -> None:
        self.of(service).add_client_error(
            operation, code, f"no: {code}", 400, expected_params=expected or None
        )

    def assert_all_asked(self) -> None:
        for stubber in self.stubbers.values():
            stubber.assert_no_pending_responses()
