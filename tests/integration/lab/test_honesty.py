"""What is not true is refused; what fails, fails as AWS does; and nobody reaches a real account."""

from __future__ import annotations

import subprocess
import sys

import boto3
import pytest
from botocore.exceptions import ClientError

from lab import lifecycle
from lab.cli import environment
from tests.integration.lab.conftest import Aws, Box

pytestmark = pytest.mark.lab


@pytest.mark.parametrize(
    ("service", "call", "arguments"),
    [
        ("elbv2", "create_load_balancer", {"Name": "front", "Type": "gateway"}),
        ("elbv2", "create_trust_store", {"Name": "t", "CaCertificatesBundleS3Bucket": "b",
                                         "CaCertificatesBundleS3Key": "k"}),
        ("elb", "delete_load_balancer", {"LoadBalancerName": "front"}),
        ("autoscaling", "delete_auto_scaling_group", {"AutoScalingGroupName": "g"}),
        ("rds", "delete_db_cluster", {"DBClusterIdentifier": "d"}),
        ("elasticache", "create_cache_cluster", {"CacheClusterId": "c"}),
        ("cloudfront", "delete_distribution", {"Id": "d"}),
        ("lambda", "delete_function", {"FunctionName": "f"}),
        ("ec2", "create_image", {"InstanceId": "i-00000000000000000", "Name": "copy"}),
        ("ec2", "request_spot_instances", {}),
        ("ec2", "create_ipam", {}),
        ("ssm", "send_command", {"DocumentName": "AWS-RunShellScript"}),
    ],
)  # fmt: skip
def test_what_is_not_true_says_so(
    aws: Aws, service: str, call: str, arguments: dict[str, object]
) -> None:
    with pytest.raises(ClientError) as caught:
        getattr(aws.client(service), call)(**arguments)
    error = caught.value.response["Error"]
    assert error["Code"] == "NotTrueInTheLab"
    assert "docs/lab.md" in error["Message"]


def test_reading_what_is_not_there_finds_nothing(aws: Aws) -> None:
    assert aws.client("elbv2").describe_load_balancers()["LoadBalancers"] == []
    assert aws.client("rds").describe_db_instances()["DBInstances"] == []


def test_services_that_are_only_an_api_work(aws: Aws) -> None:
    assert aws.client("sts").get_caller_identity()["Account"] == "123456789012"
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="backups")
    s3.put_public_access_block(
        Bucket="backups",
        PublicAccessBlockConfiguration={
            "BlockPublicAcls": True,
            "IgnorePublicAcls": True,
            "BlockPublicPolicy": True,
            "RestrictPublicBuckets": True,
        },
    )
    s3.put_bucket_versioning(Bucket="backups", VersioningConfiguration={"Status": "Enabled"})
    s3.put_object(Bucket="backups", Key="a/b", Body=b"x" * 100_000)
    assert len(s3.get_object(Bucket="backups", Key="a/b")["Body"].read()) == 100_000
    ssm = aws.client("ssm")
    ssm.put_parameter(Name="/ascent/stage", Value="1", Type="String")
    assert ssm.get_parameter(Name="/ascent/stage")["Parameter"]["Value"] == "1"
    secrets = aws.client("secretsmanager")
    secrets.create_secret(Name="ascent/main", SecretString="word")
    assert secrets.get_secret_value(SecretId="ascent/main")["SecretString"] == "word"
    dynamodb = aws.client("dynamodb")
    dynamodb.create_table(
        TableName="locks",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    lock = {
        "TableName": "locks",
        "Item": {"id": {"S": "stage"}},
        "ConditionExpression": "attribute_not_exists(id)",
    }
    dynamodb.put_item(**lock)
    with pytest.raises(ClientError, match="ConditionalCheckFailedException"):
        dynamodb.put_item(**lock)
    cloudwatch = aws.client("cloudwatch")
    cloudwatch.put_metric_alarm(
        AlarmName="a", EvaluationPeriods=1, ComparisonOperator="GreaterThanThreshold",
        MetricName="m", Namespace="n", Period=60, Statistic="Sum", Threshold=1,
    )  # fmt: skip
    assert cloudwatch.describe_alarms()["MetricAlarms"][0]["StateValue"] == "INSUFFICIENT_DATA"


def test_faults_strike_as_often_as_asked(aws: Aws) -> None:
    def fault(**data: object) -> None:
        assert lifecycle.ask(aws.settings, "POST", "/_ascent/faults", data)

    try:
        fault(service="ec2", action="DescribeVpcs", code="RequestLimitExceeded", count=2)
        for _ in range(2):
            with pytest.raises(ClientError) as caught:
                aws.ec2.describe_vpcs()
            assert caught.value.response["Error"]["Code"] == "RequestLimitExceeded"
            assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        aws.ec2.describe_vpcs()
        fault(service="dynamodb", code="ThrottlingException", count=1)
        with pytest.raises(ClientError, match="ThrottlingException"):
            aws.client("dynamodb").list_tables()
        fault(service="s3", code="SlowDown", count=1)
        with pytest.raises(ClientError, match="SlowDown"):
            aws.client("s3").list_buckets()
        fault(service="ssm", code="InternalServerError", count=1)
        patient = aws.client("ssm", retries=3)
        answer = patient.get_parameters(Names=["/none"])
        assert answer["ResponseMetadata"]["RetryAttempts"] == 1
    finally:
        lifecycle.ask(aws.settings, "DELETE", "/_ascent/faults")


def test_no_client_of_the_lab_reaches_a_real_account(aws: Aws, pair: tuple[Box, Box]) -> None:
    """In hosts every name of AWS is the lab's; the operator's shell knows the lab alone."""
    for name in ("sts.amazonaws.com", "s3.eu-west-1.amazonaws.com", "ec2.us-east-1.api.aws"):
        assert pair[0].run(f"getent ahostsv4 {name}").split()[0] == aws.settings.address
    program = (
        "import boto3; c = boto3.client('sts'); print(c.meta.endpoint_url, "
        "c.get_caller_identity()['Account'], c._request_signer._credentials.access_key)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(aws.settings),
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert answer == [aws.settings.endpoint, "123456789012", "ascentlab"]
    assert boto3.__version__
