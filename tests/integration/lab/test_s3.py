"""S3 as hosts know it: by its own names, over TLS, with the host's own role."""

from __future__ import annotations

import pytest

from tests.integration.lab.conftest import Aws, Box

pytestmark = pytest.mark.lab

BUCKET = "labtest-store"
# Signed as clients sign: without, S3 refuses.
CURL = "curl -sSf -m 10 --aws-sigv4 aws:amz:us-east-1:s3 --user key:secret"
OTHER = "https://ssm.us-east-1.amazonaws.com/"


@pytest.fixture(scope="module", autouse=True)
def bucket(aws: Aws) -> None:
    s3 = aws.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="shop/a", Body=b"kept")


@pytest.mark.parametrize(
    "url",
    [
        f"https://s3.us-east-1.amazonaws.com/{BUCKET}/shop/a",
        f"https://{BUCKET}.s3.us-east-1.amazonaws.com/shop/a",
        f"https://{BUCKET}.s3.amazonaws.com/shop/a",
    ],
)
def test_a_host_reads_and_writes_by_tls(aws: Aws, pair: tuple[Box, Box], url: str) -> None:
    """No option says whom to trust: curl takes the system's certificates."""
    assert pair[0].run(f"{CURL} {url}") == "kept"
    pair[0].run(f"echo -n written | {CURL} -T - -H 'Content-Type: text/plain' {url}-new")
    answer = aws.client("s3").get_object(Bucket=BUCKET, Key="shop/a-new")
    assert answer["Body"].read() == b"written"


def test_python_on_a_host_trusts_it_too(pair: tuple[Box, Box]) -> None:
    url = f"https://{BUCKET}.s3.us-east-1.amazonaws.com/shop/a"
    code = f"import urllib.request as r; print(r.urlopen('{url}', timeout=10).read().decode())"
    answer = pair[0].try_run(f'python3 -c "{code}"')
    assert "HTTP Error 403" in answer.stderr, "it must come as far as S3, which wants a signature"


def test_other_services_are_not_served_by_tls(pair: tuple[Box, Box]) -> None:
    done = pair[0].try_run(f"curl -sS -m 10 {OTHER}")
    assert done.returncode == 60, "the certificate must not fit"
    assert pair[0].run(f"curl -sk -m 10 -o /dev/null -w '%{{http_code}}' {OTHER}") == "421"


def test_the_groups_egress_holds_for_s3(aws: Aws, pair: tuple[Box, Box]) -> None:
    ec2, box = aws.ec2, pair[1]
    url = f"https://{BUCKET}.s3.us-east-1.amazonaws.com/shop/a"
    everywhere = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
    # Another group of its would open the way, too.
    ec2.modify_instance_attribute(InstanceId=box.id, Groups=[aws.ssh_group])
    ec2.revoke_security_group_egress(GroupId=aws.ssh_group, IpPermissions=everywhere)
    try:
        assert box.try_run(f"curl -sS -m 3 {url}").returncode == 28, "closed is silent"
    finally:
        ec2.authorize_security_group_egress(GroupId=aws.ssh_group, IpPermissions=everywhere)
    assert box.run(f"{CURL} {url}") == "kept"
