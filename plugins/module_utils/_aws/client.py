# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Calls to AWS: one way to make a client, to retry and to explain an error."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionClosedError,
        ConnectTimeoutError,
        EndpointConnectionError,
        NoCredentialsError,
        PartialCredentialsError,
        ReadTimeoutError,
        SSOError,
        TokenRetrievalError,
    )
    from botocore.parsers import ResponseParserError
except ImportError:  # AnsibleAWSModule tells the user
    pass

from ansible_collections.ascent.scaling.plugins.module_utils._aws.permissions import permissions
from ansible_collections.ascent.scaling.plugins.module_utils.retry import DeadlineExceeded, Retry

# Codes that mean "slow down" (botocore, data/_retry.json and the services' error pages).
THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
        "TransactionInProgressException",
    }
)
DENIED = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "AuthorizationError"}
)
BAD_CREDENTIALS = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "IncompleteSignature",
        "InvalidClientTokenId",
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
# The request's date is not AWS's, beyond what a slow line explains.
WRONG_CLOCK = frozenset(
    {"InvalidSignatureException", "RequestExpired", "RequestInTheFuture", "RequestTimeTooSkewed"}
)
NEW_CREDENTIALS = (
    "Set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where an instance "
    "role gives them."
)


class AwsFailure(Exception):
    """A call that failed for good; its text says what was tried, on what, and what to do."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


def error_code(error: Exception) -> str:
    """Return the AWS error code of `error`, or the name of its class."""
    if isinstance(error, ClientError):
        return str(error.response.get("Error", {}).get("Code", ""))
    return type(error).__name__


def is_passing(error: Exception) -> bool:
    """Tell whether the same call may succeed a moment later: throttling, 5xx, a lost line."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return error_code(error) in THROTTLED or int(status) >= 500
    return isinstance(error, (ConnectionClosedError, ReadTimeoutError))


def explain(error: Exception, operation: str, resource: str) -> str:
    """Turn an error of botocore into a sentence that says what to do next."""
    what = f"{operation}" + (f" on {resource}" if resource else "")
    cause: Exception = error
    prefix = f"{what} failed: "
    if isinstance(error, DeadlineExceeded) and isinstance(error.__cause__, Exception):
        cause = error.__cause__
        prefix = f"{what} failed: {error} "
    code = error_code(cause)
    if isinstance(cause, NoCredentialsError):
        return f"{prefix}there are no AWS credentials. {NEW_CREDENTIALS}"
    if isinstance(cause, PartialCredentialsError):
        return f"{prefix}the AWS credentials are incomplete ({cause}). {NEW_CREDENTIALS}"
    if isinstance(cause, (SSOError, TokenRetrievalError)):
        return f"{prefix}the sign-on has ended ({cause}). Run `aws sso login`, then run again."
    if isinstance(cause, (EndpointConnectionError, ConnectTimeoutError)):
        return (
            f"{prefix}{cause} Check the region's name, the endpoint and the way to it "
            "(network, proxy)."
        )
    if isinstance(cause, ResponseParserError):
        return (
            f"{prefix}what answered is not AWS (its answer is none of this service's). Check the "
            "endpoint, whether it is up, and the way to it (network, proxy)."
        )
    if code in BAD_CREDENTIALS:
        return (
            f"{prefix}AWS does not accept the credentials ({code}). Renew them and run again. (A "
            "region that the account has not enabled answers the same.)"
        )
    if code in WRONG_CLOCK:
        return (
            f"{prefix}AWS refuses the date or the signature of the request ({code}). Set this "
            "machine's clock; if it is right, renew the credentials."
        )
    if code in DENIED:
        service = operation.partition(":")[0]
        needed = permissions(f"{service}:{getattr(cause, 'operation_name', '')}")
        return (
            f"{prefix}the credentials lack the permission {' or '.join(needed)} there. AWS said: "
            f"{cause}. The operator of stage 1 needs the policy docs/iam/stage-1.json, that of a "
            "higher stage the one with its number: attach it, then run again."
        )
    if code in THROTTLED:
        return (
            f"{prefix}AWS throttles this account's calls ({code}). Nothing is half done: run "
            "again later, the run continues where it stopped."
        )
    if is_passing(cause):
        return (
            f"{prefix}AWS answered with a server error ({cause}). Run again; if it stays, see "
            "the AWS Health Dashboard of the region."
        )
    return f"{prefix}{cause}"


def region_problem(region: str, known: Iterable[str]) -> str:
    """Return what is wrong with a region's name, empty when it is one of the `known`."""
    regions = sorted(known)
    if region in regions:
        return ""
    close = difflib.get_close_matches(region, regions)
    return (
        f"there is no AWS region '{region}'"
        + (f"; did you mean {' or '.join(close)}?" if close else f", only {', '.join(regions)}.")
        + " If it is a new one, update the Python package boto3."
    )


class Api:
    """AWS as one module needs it: clients made once, calls retried, errors explained."""

    def __init__(self, client: Callable[[str], Any], retry: Retry | None = None) -> None:
        self._make = client
        self._clients: dict[str, Any] = {}
        self._retry = retry or Retry()

    def client(self, service: str) -> Any:
        """Return the client of `service`, made at its first use."""
        if service not in self._clients:
            try:
                self._clients[service] = self._make(service)
            except BotoCoreError as error:
                raise AwsFailure(explain(error, f"{service}: connect", "")) from error
        return self._clients[service]

    def call(
        self,
        service: str,
        operation: str,
        resource: str = "",
        *,
        missing: tuple[str, ...] = (),
        passing: tuple[str, ...] = (),
        **parameters: Any,
    ) -> dict[str, Any] | None:
        """Make one call and return the answer.

        service: botocore's name, such as ``ec2``; operation: the client's method.
        missing: error codes that mean "it is not there": the answer is then None.
        passing: codes of eventual consistency that are worth a repetition here.
        Raises AwsFailure.
        """
        method = getattr(self.client(service), operation)
        return self._guarded(
            lambda: method(**parameters), f"{service}:{operation}", resource, missing, passing
        )

    def pages(
        self,
        service: str,
        operation: str,
        key: str,
        resource: str = "",
        *,
        missing: tuple[str, ...] = (),
        **parameters: Any,
    ) -> list[dict[str, Any]]:
        """Return the items under `key` of every page (an empty list when missing)."""
        client = self.client(service)

        def fetch() -> list[dict[str, Any]]:
            if not client.can_paginate(operation):
                return list(getattr(client, operation)(**parameters).get(key, []))
            pages = client.get_paginator(operation).paginate(**parameters)
            return [item for page in pages for item in page.get(key, [])]

        return self._guarded(fetch, f"{service}:{operation}", resource, missing, ()) or []

    def _guarded(
        self,
        call: Callable[[], Any],
        operation: str,
        resource: str,
        missing: tuple[str, ...],
        passing: tuple[str, ...],
    ) -> Any:
        try:
            return self._retry.run(
                call, lambda error: is_passing(error) or error_code(error) in passing
            )
        except (BotoCoreError, ClientError, ResponseParserError, DeadlineExceeded) as error:
            cause = error.__cause__ if isinstance(error, DeadlineExceeded) else error
            code = error_code(cause) if isinstance(cause, Exception) else ""
            if code in missing:
                return None
            raise AwsFailure(explain(error, operation, resource), code) from error


def _config() -> Any:
    """Return botocore's settings: its own retries are off, as Retry does that."""
    return Config(
        retries={"total_max_attempts": 1},
        connect_timeout=5,
        read_timeout=30,
        user_agent_extra="ascent",
    )


def module_api(module: Any, retry: Retry | None = None) -> Api:
    """Return the Api of an AnsibleAWSModule, with the connection that its options describe."""
    from ansible_collections.amazon.aws.plugins.module_utils.botocore import (
        boto3_conn,
        get_aws_connection_info,
    )

    region, endpoint, arguments = get_aws_connection_info(module)

    def client(service: str) -> Any:
        return boto3_conn(
            module,
            conn_type="client",
            resource=service,
            region=region,
            endpoint=endpoint,
            config=_config(),
            **arguments,
        )

    return Api(client, retry)


def session_api(
    region: str,
    *,
    endpoint_url: str = "",
    access_key: str = "",
    secret_key: str = "",
    profile: str = "",
    retry: Retry | None = None,
) -> Api:
    """Return the Api of a plugin that is no module. Raises AwsFailure, also for a wrong region."""
    try:
        session = boto3.session.Session(
            aws_access_key_id=access_key or None,
            aws_secret_access_key=secret_key or None,
            profile_name=None if access_key else profile or None,
            region_name=region,
        )
    except NameError as error:
        raise AwsFailure(
            "the Python package boto3 is missing: install what requirements.txt lists"
        ) from error
    except BotoCoreError as error:
        raise AwsFailure(
            f"the AWS SDK's configuration does not hold: {error} {NEW_CREDENTIALS}"
        ) from error
    partitions = session.get_available_partitions()
    regions = [name for part in partitions for name in session.get_available_regions("ec2", part)]
    if problem := region_problem(region, regions):
        raise AwsFailure(problem)
    return Api(
        lambda service: session.client(
            service, endpoint_url=endpoint_url or None, config=_config()
        ),
        retry,
    )
