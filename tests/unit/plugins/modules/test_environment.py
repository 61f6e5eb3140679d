"""The modules of an environment, against moto's AWS in this process."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from ansible_collections.ascent.scaling.plugins.module_utils import lease as leases
from ansible_collections.ascent.scaling.plugins.module_utils._aws import remove
from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import Api, AwsFailure
from ansible_collections.ascent.scaling.plugins.module_utils.environment import DescriptionError
from ansible_collections.ascent.scaling.plugins.modules import (
    environment_lock,
    environment_plan,
    environment_secrets,
    environment_teardown,
    network,
    stage_record,
)
from moto import mock_aws
from moto.rds.models import rds_backends

from tests.unit.plugins.description import BALANCED, DESCRIPTION, MANAGED

REGION = "us-east-1"
READS = ("describe_", "get_", "list_", "head_")


class Counted(Api):
    """The Api, which can be made to die before its n-th writing call."""

    def __init__(self) -> None:
        super().__init__(lambda service: boto3.client(service, region_name=REGION))
        self.written: list[str] = []
        self.dies_before = -1

    def call(self, service: str, operation: str, resource: str = "", **more: Any) -> Any:
        if not operation.startswith(READS):
            if len(self.written) == self.dies_before:
                raise KeyboardInterrupt
            self.written.append(operation)
        return super().call(service, operation, resource, **more)


@pytest.fixture(autouse=True)
def nobodys_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    # Hundreds of images, loaded at each start of moto, that no test looks at.
    monkeypatch.setenv("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)


@pytest.fixture
def api() -> Iterator[Counted]:
    with mock_aws():
        yield Counted()


def description(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(DESCRIPTION), **changes}


def plan(api: Api, **changes: Any) -> dict[str, Any]:
    return environment_plan.plan(api, REGION, description(**changes), [])


def bring(api: Api, dry: bool = False, **changes: Any) -> dict[str, Any]:
    return network.converge(api, REGION, description(**changes), dry)


def network_of(api: Api) -> dict[str, int]:
    """How many there are of what a network consists of."""
    ec2 = api.client("ec2")
    return {
        "vpcs": len([v for v in ec2.describe_vpcs()["Vpcs"] if not v["IsDefault"]]),
        "subnets": len([s for s in ec2.describe_subnets()["Subnets"] if not s["DefaultForAz"]]),
        "gateways": len(ec2.describe_internet_gateways()["InternetGateways"]),
        "tables": len(
            [
                table
                for table in ec2.describe_route_tables()["RouteTables"]
                if not any(item.get("Main") for item in table["Associations"])
            ]
        ),
        "groups": len(
            [
                group
                for group in ec2.describe_security_groups()["SecurityGroups"]
                if group["GroupName"] != "default"
            ]
        ),
    }


WHOLE = {"vpcs": 1, "subnets": 4, "gateways": 1, "tables": 2, "groups": 2}


# --- network ---------------------------------------------------------------------------------


def test_a_network_is_made_once(api: Counted) -> None:
    assert bring(api)["changed"]
    assert network_of(api) == WHOLE
    written = len(api.written)
    assert bring(api) == {"changed": False, "summary": [], "diff": []}
    assert len(api.written) == written
    assert [c for c in plan(api)["changes"] if c["role"] == "network"] == []


def test_check_mode_tells_the_same_and_writes_nothing(api: Counted) -> None:
    planned = bring(api, dry=True)
    assert api.written == []
    assert planned["summary"] == bring(api)["summary"]


def test_a_run_that_dies_before_any_call_is_continued_and_nothing_is_doubled() -> None:
    with mock_aws():
        whole_run = Counted()
        bring(whole_run)
        calls = len(whole_run.written)
    assert calls > 15
    for death in range(calls):
        with mock_aws():
            run = Counted()
            run.dies_before = death
            with pytest.raises(KeyboardInterrupt):
                bring(run)
            run.dies_before = -1
            bring(run)
            assert network_of(run) == WHOLE, f"died before call {death}"
            assert not bring(run)["changed"], f"died before call {death}"


def test_drift_is_mended(api: Counted) -> None:
    bring(api)
    ec2 = api.client("ec2")
    [web] = ec2.describe_security_groups(Filters=[{"Name": "group-name", "Values": ["lab-web"]}])[
        "SecurityGroups"
    ]
    ec2.authorize_security_group_ingress(
        GroupId=web["GroupId"], IpProtocol="tcp", FromPort=5432, ToPort=5432, CidrIp="0.0.0.0/0"
    )
    ec2.revoke_security_group_ingress(
        GroupId=web["GroupId"], IpProtocol="tcp", FromPort=443, ToPort=443, CidrIp="0.0.0.0/0"
    )
    [table] = ec2.describe_route_tables(
        Filters=[{"Name": "tag:ascent:name", "Values": ["public"]}]
    )["RouteTables"]
    ec2.delete_route(RouteTableId=table["RouteTableId"], DestinationCidrBlock="0.0.0.0/0")
    [association, *_] = table["Associations"]
    ec2.disassociate_route_table(AssociationId=association["RouteTableAssociationId"])
    [subnet, *_] = ec2.describe_subnets(Filters=[{"Name": "tag:ascent:name", "Values": ["p*"]}])[
        "Subnets"
    ]
    ec2.modify_subnet_attribute(SubnetId=subnet["SubnetId"], MapPublicIpOnLaunch={"Value": True})
    ec2.create_tags(Resources=[subnet["SubnetId"]], Tags=[{"Key": "Name", "Value": "mine"}])
    told = bring(api)["summary"]
    assert len(told) == 3
    assert "change route table public (routes, subnets)" in told
    assert "change security group web (ingress)" in told
    assert any(line.endswith("(public_addresses, tags)") for line in told)
    assert not bring(api)["changed"]


def test_groups_may_name_each_other(api: Counted) -> None:
    groups = {
        "a": {"ingress": [{"port": 5432, "sources": ["group:b"]}]},
        "b": {"ingress": [{"port": 6432, "sources": ["group:a"]}]},
        **DESCRIPTION["security_groups"],
    }
    bring(api, security_groups=groups)
    assert not bring(api, security_groups=groups)["changed"]


def test_two_vpcs_of_one_environment_are_refused(api: Counted) -> None:
    bring(api)
    api.client("ec2").create_vpc(
        CidrBlock="10.9.0.0/16",
        TagSpecifications=[
            {
                "ResourceType": "vpc",
                "Tags": [{"Key": "ascent:environment", "Value": "lab"}],
            }
        ],
    )
    with pytest.raises(AwsFailure, match="exists twice"):
        bring(api)


# --- environment_plan ------------------------------------------------------------------------


def test_the_plan_of_an_empty_account_names_everything_and_writes_nothing(api: Counted) -> None:
    found = plan(api)
    assert found["standing"] == {}
    assert found["stage"] == 0
    assert "create instance box" in found["summary"]
    assert found["sections"] == ["backup_bucket", "dns", "instance_profile", "instances", "network"]
    assert api.written == []


def test_the_stage_is_read_from_the_tags(api: Counted) -> None:
    bring(api, stage=3)
    assert plan(api)["stage"] == 3


def test_backups_that_were_left_say_nothing_of_the_stage() -> None:
    tags = {"tags": {"ascent:stage": "3"}}
    left = [{"kind": "bucket", "name": "backup", "attributes": tags}]
    assert environment_plan.highest_stage(left) == 0
    assert environment_plan.highest_stage([*left, {**left[0], "kind": "vpc"}]) == 3


def test_a_zone_that_the_region_lacks_is_refused(api: Counted) -> None:
    with pytest.raises(DescriptionError, match="us-east-1z"):
        plan(api, zones=["us-east-1z"])


# --- managed databases -----------------------------------------------------------------------


def tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def managed(api: Counted, environment: str = "lab") -> None:
    """A managed database as the role managed_database makes it."""
    bring(api, **MANAGED, environment=environment)
    found = plan(api, **MANAGED, environment=environment)
    name, wanted, ids = f"ascent-{environment}-managed", found["desired"], found["standing"]
    rds = api.client("rds")
    subnets, parameters, instance = (
        wanted[kind]["managed"] for kind in ("db_subnet_group", "db_parameter_group", "db_instance")
    )
    rds.create_db_subnet_group(
        DBSubnetGroupName=name,
        DBSubnetGroupDescription=name,
        SubnetIds=[ids["subnet"][subnet]["id"] for subnet in subnets["subnets"]],
        Tags=tag_list(subnets["tags"]),
    )
    rds.create_db_parameter_group(
        DBParameterGroupName=name,
        DBParameterGroupFamily=parameters["family"],
        Description=name,
        Tags=tag_list(parameters["tags"]),
    )
    rds.modify_db_parameter_group(
        DBParameterGroupName=name,
        Parameters=[
            {"ParameterName": key, "ParameterValue": value, "ApplyMethod": "pending-reboot"}
            for key, value in parameters["parameters"].items()
        ],
    )
    rds.create_db_instance(
        DBInstanceIdentifier=name,
        Engine=instance["engine"],
        EngineVersion="17.4",
        DBInstanceClass=instance["size"],
        AllocatedStorage=instance["storage_gib"],
        StorageEncrypted=True,
        PubliclyAccessible=False,
        DBSubnetGroupName=name,
        DBParameterGroupName=name,
        VpcSecurityGroupIds=[ids["security_group"]["database"]["id"]],
        MasterUsername="ascent",
        MasterUserPassword="0123456789abcdef",
        BackupRetentionPeriod=instance["backup_days"],
        PreferredBackupWindow=instance["backup_window"],
        PreferredMaintenanceWindow=instance["maintenance_window"].capitalize(),
        CopyTagsToSnapshot=True,
        DeletionProtection=True,
        EnablePerformanceInsights=True,
        EnableCloudwatchLogsExports=instance["log_exports"],
        Tags=tag_list(instance["tags"]),
    )
    # moto forgets it.
    databases = rds_backends["123456789012"][REGION].databases
    databases[name].performance_insights_enabled = True


def planned(api: Counted, environment: str = "lab") -> list[str]:
    """What is to be done with the managed database."""
    changes = plan(api, **MANAGED, environment=environment)["changes"]
    return [
        f"{change['action']} {change['kind']} {sorted(change['after'])}"
        for change in changes
        if change["role"] == "managed_database"
    ]


def test_a_managed_database_as_described_needs_nothing(api: Counted) -> None:
    managed(api)
    assert planned(api) == []
    [database] = plan(api, **MANAGED)["standing"]["db_instance"].values()
    assert database["host"].startswith("ascent-lab-managed.")
    assert (database["port"], database["protected"]) == (5432, True)


def test_what_somebody_changed_at_a_managed_database_is_planned(api: Counted) -> None:
    managed(api)
    rds = api.client("rds")
    name = "ascent-lab-managed"
    rds.modify_db_instance(
        DBInstanceIdentifier=name,
        BackupRetentionPeriod=1,
        DeletionProtection=False,
        ApplyImmediately=True,
    )
    rds.modify_db_parameter_group(
        DBParameterGroupName=name,
        Parameters=[
            {
                "ParameterName": "log_min_duration_statement",
                "ParameterValue": "1",
                "ApplyMethod": "immediate",
            }
        ],
    )
    assert planned(api) == [
        "change db_parameter_group ['parameters']",
        "change db_instance ['backup_days', 'deletion_protection']",
    ]


def test_a_managed_database_of_another_environment_is_not_seen(api: Counted) -> None:
    """Its name may begin as ours do: `ascent-lab-eu-managed`."""
    managed(api, environment="lab-eu")
    assert "db_instance" not in plan(api)["standing"]
    assert not tear_down(api)["changed"]
    assert planned(api, environment="lab-eu") == []


def test_a_managed_database_that_lost_its_tag_is_seen(api: Counted) -> None:
    managed(api)
    rds = api.client("rds")
    [database] = rds.describe_db_instances()["DBInstances"]
    rds.remove_tags_from_resource(
        ResourceName=database["DBInstanceArn"], TagKeys=["ascent:environment"]
    )
    assert planned(api) == ["change db_instance ['tags']"]


# --- load balancers --------------------------------------------------------------------------


def balanced(api: Counted) -> dict[str, Any]:
    """A load balancer as the role load_balancer makes it; the plan before it."""
    bring(api, **BALANCED)
    found = plan(api, **BALANCED)
    wanted, ids = found["desired"], found["standing"]
    elb, acm = api.client("elbv2"), api.client("acm")
    front, group, shown = (
        wanted[kind]["front"] for kind in ("load_balancer", "target_group", "certificate")
    )
    certificate = acm.request_certificate(
        DomainName=shown["names"][0],
        SubjectAlternativeNames=shown["names"],
        Tags=tag_list(shown["tags"]),
    )["CertificateArn"]
    [made] = elb.create_target_group(
        Name="lab-front",
        Protocol=group["protocol"],
        Port=group["port"],
        VpcId=ids["vpc"]["lab"]["id"],
        TargetType=group["target_type"],
        HealthCheckPath=group["health"]["path"],
        HealthCheckIntervalSeconds=group["health"]["interval"],
        HealthCheckTimeoutSeconds=group["health"]["timeout"],
        HealthyThresholdCount=group["health"]["healthy"],
        UnhealthyThresholdCount=group["health"]["unhealthy"],
        Matcher={"HttpCode": group["health"]["matcher"]},
        Tags=tag_list(group["tags"]),
    )["TargetGroups"]
    elb.modify_target_group_attributes(
        TargetGroupArn=made["TargetGroupArn"],
        Attributes=[{"Key": "deregistration_delay.timeout_seconds", "Value": "60"}],
    )
    [balancer] = elb.create_load_balancer(
        Name="lab-front",
        Scheme=front["scheme"],
        Subnets=[ids["subnet"][subnet]["id"] for subnet in front["subnets"]],
        SecurityGroups=[ids["security_group"]["load_balancer"]["id"]],
        Tags=tag_list(front["tags"]),
    )["LoadBalancers"]
    arn = balancer["LoadBalancerArn"]
    elb.modify_load_balancer_attributes(
        LoadBalancerArn=arn,
        Attributes=[
            {"Key": "deletion_protection.enabled", "Value": "true"},
            {"Key": "routing.http.drop_invalid_header_fields.enabled", "Value": "true"},
        ],
    )
    leads = {"Protocol": "HTTPS", "Port": "443", "StatusCode": "HTTP_301"}
    elb.create_listener(
        LoadBalancerArn=arn,
        Protocol="HTTP",
        Port=80,
        DefaultActions=[{"Type": "redirect", "RedirectConfig": leads}],
    )
    elb.create_listener(
        LoadBalancerArn=arn,
        Protocol="HTTPS",
        Port=443,
        SslPolicy=front["listeners"][1].split(" ")[-1],
        Certificates=[{"CertificateArn": certificate}],
        DefaultActions=[{"Type": "forward", "TargetGroupArn": made["TargetGroupArn"]}],
    )
    return found


def of_balancers(api: Counted) -> list[str]:
    """What is to be done with the load balancer and with names."""
    return [
        f"{change['action']} {change['kind']} {sorted(change['after'])}"
        for change in plan(api, **BALANCED)["changes"]
        if change["role"] in ("load_balancer", "dns")
    ]


def lead(api: Counted, dns_name: str, zone_id: str) -> None:
    """Lead the name to a load balancer."""
    route53 = api.client("route53")
    zone = route53.create_hosted_zone(Name="shop.test", CallerReference="1")["HostedZone"]["Id"]
    alias = {"HostedZoneId": zone_id, "DNSName": dns_name, "EvaluateTargetHealth": False}
    change = {
        "Action": "UPSERT",
        "ResourceRecordSet": {"Name": "shop.test", "Type": "A", "AliasTarget": alias},
    }
    route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": [change]})


def test_a_load_balancer_as_described_needs_nothing(api: Counted) -> None:
    before = balanced(api)
    assert {"create load balancer front", "create target group front"} <= set(before["summary"])
    assert of_balancers(api) == ["create dns_zone ['tags']", "create dns_record ['alias']"]
    front = plan(api, **BALANCED)["standing"]["load_balancer"]["front"]
    lead(api, f"dualstack.{front['dns_name']}.", front["zone_id"])
    assert of_balancers(api) == []


def test_what_somebody_changed_at_a_load_balancer_is_planned(api: Counted) -> None:
    balanced(api)
    elb = api.client("elbv2")
    [group] = elb.describe_target_groups()["TargetGroups"]
    elb.modify_target_group(TargetGroupArn=group["TargetGroupArn"], HealthCheckPath="/other")
    [balancer] = elb.describe_load_balancers()["LoadBalancers"]
    listeners = elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    plain = next(item for item in listeners if item["Port"] == 80)
    elb.delete_listener(ListenerArn=plain["ListenerArn"])
    assert of_balancers(api)[:2] == [
        "change target_group ['health']",
        "change load_balancer ['listeners']",
    ]


def test_load_balancers_of_others_are_not_seen(api: Counted) -> None:
    balanced(api)
    elb = api.client("elbv2")
    [balancer] = elb.describe_load_balancers()["LoadBalancers"]
    [group] = elb.describe_target_groups()["TargetGroups"]
    arns = [balancer["LoadBalancerArn"], group["TargetGroupArn"]]
    elb.remove_tags(ResourceArns=arns, TagKeys=["ascent:environment"])
    assert {"load_balancer", "target_group"} & set(plan(api, **BALANCED)["standing"]) == set()
    assert "create load_balancer" in " ".join(of_balancers(api))


def test_a_teardown_takes_the_load_balancer_and_the_name_that_leads_to_it(api: Counted) -> None:
    balanced(api)
    front = plan(api, **BALANCED)["standing"]["load_balancer"]["front"]
    lead(api, front["dns_name"], front["zone_id"])
    found = tear_down(api)
    assert [line.split(" ")[0] for line in found["remains"]] == ["dns"]
    elb, acm, route53 = (api.client(name) for name in ("elbv2", "acm", "route53"))
    assert elb.describe_load_balancers()["LoadBalancers"] == []
    assert elb.describe_target_groups()["TargetGroups"] == []
    assert acm.list_certificates()["CertificateSummaryList"] == []
    [zone] = route53.list_hosted_zones()["HostedZones"]
    kept = route53.list_resource_record_sets(HostedZoneId=zone["Id"])["ResourceRecordSets"]
    assert "A" not in [record["Type"] for record in kept]


# --- environment_lock ------------------------------------------------------------------------

ME: leases.Process = {
    "user": "anna",
    "host": "laptop",
    "machine": "m1",
    "boot": "b1",
    "pid": 100,
    "started": "5",
}
BEN: leases.Process = {**ME, "user": "ben", "machine": "m2"}


@pytest.fixture
def table(api: Counted) -> environment_lock.Table:
    made = environment_lock.Table(api, "ascent-locks")
    made.ensure(lambda: 0, lambda _: None)
    return made


def take(table: environment_lock.Table, who: leases.Process, now: float, **more: Any) -> Any:
    return environment_lock.take(
        table, "lab", who, 600, more.pop("force", False), now, lambda _: True
    )


def test_a_lock_is_taken_renewed_and_released(table: environment_lock.Table) -> None:
    assert take(table, ME, 1000)["action"] == "take"
    assert take(table, ME, 1100)["action"] == "renew"
    assert environment_lock.release(table, "lab", ME, dry=True)["changed"]
    assert table.read("lab") is not None
    assert environment_lock.release(table, "lab", ME, dry=False)["action"] == "release"
    assert table.read("lab") is None
    assert environment_lock.release(table, "lab", ME, dry=False)["action"] == "none"


def test_another_holder_is_named(table: environment_lock.Table) -> None:
    take(table, BEN, 1000)
    with pytest.raises(AwsFailure, match="ben@laptop"):
        take(table, ME, 1100)
    assert environment_lock.release(table, "lab", ME, dry=False)["action"] == "none"
    assert take(table, ME, 1100, force=True)["action"] == "retake"


def test_a_lease_that_ran_out_is_taken_over(table: environment_lock.Table) -> None:
    take(table, BEN, 1000)
    assert take(table, ME, 1601)["action"] == "retake"


def test_of_two_at_once_one_is_refused(table: environment_lock.Table) -> None:
    seen = table.read("lab")
    take(table, BEN, 1000)
    lease: leases.Lease = {"holder": ME, "since": 1000, "expires": 1600, "token": "x"}
    assert not table.write("lab", lease, seen)
    written = table.read("lab")
    assert written is not None
    assert written["holder"]["user"] == "ben"


def test_without_a_table_nobody_holds_it(api: Counted) -> None:
    assert environment_lock.Table(api, "ascent-locks").read("lab") is None


# --- environment_secrets ---------------------------------------------------------------------

KINDS = {"cache": "password", "database_main": "password"}


def secrets(api: Api, given: list[str] | None = None, dry: bool = False) -> dict[str, Any]:
    return environment_secrets.bring(api, "lab", KINDS, given or [], dry)


def test_secrets_are_generated_once(api: Counted) -> None:
    first = secrets(api)
    assert first["generated"] == ["cache", "database_main"]
    assert all(len(value) == 32 and value.isalnum() for value in first["secrets"].values())
    second = secrets(api)
    assert second["secrets"] == first["secrets"]
    assert not second["changed"]


def test_check_mode_generates_nothing_and_says_what(api: Counted) -> None:
    found = secrets(api, dry=True)
    assert found["stand_ins"] == ["cache", "database_main"]
    assert set(found["secrets"]) == set(KINDS)
    assert api.written == []


def test_what_the_user_gives_is_neither_read_nor_stored(api: Counted) -> None:
    found = secrets(api, given=["cache"])
    assert set(found["secrets"]) == {"database_main"}
    names = [s["Name"] for s in api.client("secretsmanager").list_secrets()["SecretList"]]
    assert names == ["ascent/lab/database_main"]


def test_a_faster_run_wins(api: Counted) -> None:
    kept = environment_secrets.Kept(api, "lab", "cache")
    assert kept.create("first") == "first"
    assert kept.create("second") == "first"


def test_a_secret_marked_for_deletion_is_told(api: Counted) -> None:
    secrets(api)
    api.client("secretsmanager").delete_secret(SecretId="ascent/lab/cache")
    with pytest.raises(AwsFailure, match="restore-secret"):
        secrets(api)


def test_an_ssh_key_comes_with_its_public_half(api: Counted) -> None:
    found = environment_secrets.bring(api, "lab", {"ssh_key": "ssh_key"}, [], False)
    assert found["secrets"]["ssh_key"].startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    assert found["public_keys"]["ssh_key"].startswith("ssh-ed25519 ")
    again = environment_secrets.bring(api, "lab", {"ssh_key": "ssh_key"}, [], False)
    assert again["public_keys"] == found["public_keys"]


def test_an_unknown_kind_is_refused(api: Counted) -> None:
    with pytest.raises(AwsFailure, match="no such kind"):
        environment_secrets.bring(api, "lab", {"x": "poem"}, [], False)


def rotation(api: Api, *names: str, step: str, keep: tuple[str, ...] = ()) -> list[str]:
    return environment_secrets.rotate(api, "lab", list(names), step, list(keep), dry=False)


def valid(api: Api, name: str) -> list[int]:
    """The generations that are valid, the one in use first."""
    return [entry["generation"] for entry in secrets(api)["accepted"][name]]


def test_a_rotation_goes_from_one_value_over_two_to_the_next(api: Counted) -> None:
    first = secrets(api)["secrets"]
    assert rotation(api, "cache", step="prepare") == ["prepare cache generation 2"]
    assert secrets(api)["secrets"] == first, "a prepared value is not in use"
    assert valid(api, "cache") == [1, 2]
    assert rotation(api, "cache", step="promote") == ["promote cache generation 2"]
    assert valid(api, "cache") == [2, 1]
    assert secrets(api)["rotating"] == ["cache"]
    assert rotation(api, "cache", step="retire") == ["retire cache generation 1"]
    assert valid(api, "cache") == [2]
    last = secrets(api)
    assert last["rotating"] == []
    assert last["secrets"]["cache"] != first["cache"]
    assert last["secrets"]["database_main"] == first["database_main"]


@pytest.mark.parametrize("step", ["prepare", "promote", "retire"])
def test_each_step_may_be_repeated(api: Counted, step: str) -> None:
    secrets(api)
    for name in ("prepare", "promote", "retire"):
        rotation(api, "cache", "database_main", step=name)
        if name == step:
            break
    before = secrets(api)
    if step != "retire":  # after it, nothing tells a repetition from the next rotation
        assert rotation(api, "cache", "database_main", step="prepare") == []
    assert rotation(api, "cache", "database_main", step=step) == []
    assert secrets(api) == before


def test_a_run_killed_between_two_promotions_rotates_nothing_twice(api: Counted) -> None:
    secrets(api)
    rotation(api, "cache", "database_main", step="prepare")
    rotation(api, "cache", step="promote")
    assert rotation(api, "cache", "database_main", step="prepare") == []
    assert rotation(api, "cache", "database_main", step="promote") == [
        "promote database_main generation 2"
    ]


@pytest.mark.parametrize("calls", [1, 2])
def test_a_promotion_killed_between_its_calls_is_ended(api: Counted, calls: int) -> None:
    secrets(api)
    rotation(api, "cache", step="prepare")
    kept = environment_secrets.Kept(api, "lab", "cache")
    kept.look()
    old, new = kept.labels["AWSCURRENT"], kept.labels["AWSPENDING"]
    kept.label("ascent-retiring", old)
    if calls == 2:
        kept.label("AWSCURRENT", new)
    assert rotation(api, "cache", step="prepare") == []
    rotation(api, "cache", step="promote")
    assert valid(api, "cache") == [2, 1]


def test_what_is_kept_stays_valid_until_the_next_rotation(api: Counted) -> None:
    secrets(api)
    for number in (2, 3):
        for step in ("prepare", "promote", "retire"):
            rotation(api, "cache", step=step, keep=("cache",))
        assert valid(api, "cache") == [number, number - 1]
        assert secrets(api)["rotating"] == []
    for step in ("prepare", "promote", "retire"):
        rotation(api, "cache", step=step)
    assert valid(api, "cache") == [4]


def test_the_next_generation_never_takes_the_turn_of_the_current_one(api: Counted) -> None:
    by_hand = "0" * 32
    labels = {
        "AWSCURRENT": by_hand,
        "AWSPREVIOUS": environment_secrets.version_of(2),
    }
    assert environment_secrets.next_generation(labels) == 4
    assert environment_secrets.next_generation({"AWSCURRENT": by_hand}) == 2


def test_a_rotation_of_what_the_user_gives_is_refused() -> None:
    with pytest.raises(AwsFailure, match="the inventory gives cache"):
        environment_secrets.check_names(KINDS, ["cache"], ["cache"])


def test_a_rotation_of_what_is_no_password_is_refused() -> None:
    with pytest.raises(AwsFailure, match="ssh_key"):
        environment_secrets.check_names({"ssh_key": "ssh_key"}, [], ["ssh_key"])


def test_a_rotation_before_the_first_run_is_refused(api: Counted) -> None:
    with pytest.raises(AwsFailure, match="ascent/lab/cache"):
        rotation(api, "cache", step="prepare")


def test_a_rotation_in_check_mode_writes_nothing(api: Counted) -> None:
    secrets(api)
    written = list(api.written)
    assert environment_secrets.rotate(api, "lab", ["cache"], "prepare", [], dry=True) == [
        "prepare cache generation 2"
    ]
    assert api.written == written


# --- stage_record ----------------------------------------------------------------------------


def test_a_record_is_read_as_it_was_written(api: Counted) -> None:
    name = "/ascent/lab/stage"
    assert stage_record.read(api, name) == {}
    stage_record.write(api, name, "lab", {"stage": 1}, new=True)
    stage_record.write(api, name, "lab", {"stage": 2}, new=False)
    assert stage_record.read(api, name) == {"stage": 2}


def test_a_broken_record_is_told(api: Counted) -> None:
    api.client("ssm").put_parameter(Name="/ascent/lab/stage", Value="two", Type="String")
    with pytest.raises(AwsFailure, match="not a stage record"):
        stage_record.read(api, "/ascent/lab/stage")


# --- environment_teardown --------------------------------------------------------------------


def whole(api: Counted) -> None:
    """An environment with a bit of everything."""
    bring(api)
    secrets(api)
    stage_record.write(api, "/ascent/lab/stage", "lab", {"stage": 1}, new=True)
    standing = plan(api)["standing"]
    wanted = plan(api)["desired"]
    ec2, route53, iam = (api.client(name) for name in ("ec2", "route53", "iam"))
    tags = [{"Key": k, "Value": v} for k, v in wanted["instance"]["box"]["tags"].items()]
    ec2.import_key_pair(
        KeyName="lab-operator",
        PublicKeyMaterial=DESCRIPTION["public_key"].encode(),
        TagSpecifications=[{"ResourceType": "key-pair", "Tags": tags}],
    )
    [host] = ec2.run_instances(
        ImageId="ami-12345678",
        MinCount=1,
        MaxCount=1,
        SubnetId=standing["subnet"]["public-us-east-1a"]["id"],
        SecurityGroupIds=[group["id"] for group in standing["security_group"].values()],
        TagSpecifications=[
            {"ResourceType": "instance", "Tags": tags},
            {"ResourceType": "volume", "Tags": tags},
        ],
    )["Instances"]
    address = ec2.allocate_address(
        Domain="vpc", TagSpecifications=[{"ResourceType": "elastic-ip", "Tags": tags}]
    )
    ec2.associate_address(AllocationId=address["AllocationId"], InstanceId=host["InstanceId"])
    name = "ascent-lab-host"
    rights = wanted["instance_profile"][name]
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(rights["trust"]))
    iam.put_role_policy(
        RoleName=name, PolicyName="ascent-host", PolicyDocument=json.dumps(rights["policy"])
    )
    iam.create_instance_profile(InstanceProfileName=name)
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    api.client("s3").create_bucket(Bucket="ascent-lab-backup-123456789012")
    for secret in ("shop_key", "backup_passphrase"):
        api.client("secretsmanager").create_secret(
            Name=f"ascent/lab/{secret}", SecretString="0", Tags=tags
        )
    zone = route53.create_hosted_zone(Name="shop.test", CallerReference="1")["HostedZone"]["Id"]
    for record, value in (("shop.test", address["PublicIp"]), ("mail.shop.test", "192.0.2.1")):
        change = {
            "Action": "UPSERT",
            "ResourceRecordSet": {
                "Name": record,
                "Type": "A",
                "TTL": 60,
                "ResourceRecords": [{"Value": value}],
            },
        }
        route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch={"Changes": [change]})


def own_the_zone(api: Counted) -> None:
    """Tag the zone as one that the environment made."""
    route53 = api.client("route53")
    zone = route53.list_hosted_zones()["HostedZones"][0]["Id"].rpartition("/")[2]
    route53.change_tags_for_resource(
        ResourceType="hostedzone",
        ResourceId=zone,
        AddTags=[{"Key": "ascent:environment", "Value": "lab"}],
    )


def tear_down(api: Counted, delete_backups: bool = False, dry: bool = False) -> dict[str, Any]:
    return environment_teardown.tear_down(api, "lab", "shop.test", delete_backups, dry)


def test_check_mode_lists_and_removes_nothing(api: Counted) -> None:
    whole(api)
    written = len(api.written)
    found = tear_down(api, dry=True)
    assert len(api.written) == written
    assert any(line.startswith("instance box") for line in found["removed"])
    assert any("backup" in line for line in found["remains"])


def test_everything_goes_but_backups_and_the_users_own_zone(api: Counted) -> None:
    whole(api)
    found = tear_down(api)
    kinds = sorted(line.split(" ")[0] for line in found["remains"])
    assert kinds == ["bucket", "dns", "dns", "secret"], found["remains"]
    assert any(line.startswith("secret ascent/lab/backup_passphrase ") for line in found["remains"])
    assert any("mail.shop.test" in line for line in found["remains"])
    assert network_of(api) == dict.fromkeys(WHOLE, 0)
    assert not tear_down(api)["changed"]


def test_the_passphrase_goes_with_the_last_backup(api: Counted) -> None:
    whole(api)
    tear_down(api)
    api.client("s3").delete_bucket(Bucket="ascent-lab-backup-123456789012")
    assert not any(line.startswith("secret") for line in tear_down(api)["remains"])


def test_a_zone_of_the_environment_and_backups_go_when_told(api: Counted) -> None:
    whole(api)
    own_the_zone(api)
    api.client("s3").put_object(Bucket="ascent-lab-backup-123456789012", Key="a", Body=b"")
    assert tear_down(api, delete_backups=True)["remains"] == []


def test_a_teardown_that_dies_before_any_call_is_continued() -> None:
    with mock_aws():
        whole_run = Counted()
        whole(whole_run)
        own_the_zone(whole_run)
        before = len(whole_run.written)
        tear_down(whole_run, delete_backups=True)
        calls = len(whole_run.written) - before
    assert calls > 20
    for death in range(0, calls, 3):
        with mock_aws():
            run = Counted()
            whole(run)
            own_the_zone(run)
            run.dies_before = len(run.written) + death
            with pytest.raises(KeyboardInterrupt):
                tear_down(run, delete_backups=True)
            run.dies_before = -1
            assert tear_down(run, delete_backups=True)["remains"] == [], f"died before {death}"


def rds_of(api: Counted) -> dict[str, list[str]]:
    """What is left of managed databases."""
    rds = api.client("rds")
    answers = {
        "instances": (rds.describe_db_instances()["DBInstances"], "DBInstanceIdentifier"),
        "groups": (rds.describe_db_subnet_groups()["DBSubnetGroups"], "DBSubnetGroupName"),
        "snapshots": (rds.describe_db_snapshots()["DBSnapshots"], "DBSnapshotIdentifier"),
    }
    found = {key: [item[name] for item in items] for key, (items, name) in answers.items()}
    parameters = rds.describe_db_parameter_groups()["DBParameterGroups"]
    found["groups"] += [
        item["DBParameterGroupName"]
        for item in parameters
        if item["DBParameterGroupName"].startswith("ascent-")
    ]
    return found


def test_of_a_managed_database_a_last_snapshot_stays(api: Counted) -> None:
    managed(api)
    told = tear_down(api, dry=True)["remains"]
    assert any(line.startswith("a last snapshot of db instance managed ") for line in told)
    told = tear_down(api)["remains"]
    left = rds_of(api)
    assert (left["instances"], left["groups"]) == ([], [])
    [snapshot] = left["snapshots"]
    assert snapshot.startswith("ascent-lab-managed-")
    assert told == [
        f"db snapshot {snapshot} {snapshot}: kept with the backups; delete_backups removes it"
    ]
    assert not tear_down(api)["changed"]
    assert tear_down(api, delete_backups=True)["remains"] == []
    assert rds_of(api)["snapshots"] == []


def test_no_snapshot_of_a_managed_database_stays_when_told(api: Counted) -> None:
    managed(api)
    rds = api.client("rds")
    for name, tags in (("ours", {"ascent:environment": "lab"}), ("another", {})):
        rds.create_db_snapshot(
            DBInstanceIdentifier="ascent-lab-managed",
            DBSnapshotIdentifier=f"ascent-lab-{name}",
            Tags=tag_list(tags) or tag_list({"ascent:environment": "lab-eu"}),
        )
    told = tear_down(api, delete_backups=True, dry=True)
    assert not any("last snapshot" in line for line in told["remains"])
    assert tear_down(api, delete_backups=True)["remains"] == []
    assert rds_of(api) == {"instances": [], "groups": [], "snapshots": ["ascent-lab-another"]}


def test_a_teardown_of_a_managed_database_that_dies_is_continued() -> None:
    with mock_aws():
        whole_run = Counted()
        managed(whole_run)
        before = len(whole_run.written)
        tear_down(whole_run)
        of_rds = [call for call in whole_run.written[before:] if "_db_" in call]
    assert of_rds[:2] == ["modify_db_instance", "delete_db_instance"]
    for death in range(len(of_rds)):
        with mock_aws():
            run = Counted()
            managed(run)
            run.dies_before = len(run.written) + death
            with pytest.raises(KeyboardInterrupt):
                tear_down(run)
            run.dies_before = -1
            tear_down(run)
            left = rds_of(run)
            assert (left["instances"], left["groups"]) == ([], []), f"died before {death}"
            assert len(left["snapshots"]) == 1, f"died before {death}"


def test_one_host_goes_with_what_is_its_own(api: Counted) -> None:
    whole(api)

    def only(name: str, dry: bool = False) -> dict[str, Any]:
        return environment_teardown.tear_down(api, "lab", "shop.test", False, dry, name)

    before = network_of(api)
    assert only("other") == {"changed": False, "removed": [], "remains": []}
    written = len(api.written)
    told = [line.rsplit(" ", 1)[0] for line in only("box", dry=True)["removed"]]
    assert told[:2] == ["elastic ip box", "instance box"]
    assert len(api.written) == written
    # Killed once the address is released: the host is found again.
    api.dies_before = written + 2
    with pytest.raises(KeyboardInterrupt):
        only("box")
    api.dies_before = -1
    found = only("box")
    assert found["changed"]
    assert found["remains"] == []
    assert not only("box")["changed"]
    assert network_of(api) == before
    standing = plan(api)["standing"]
    assert "instance" not in standing
    assert {"bucket", "instance_profile", "key_pair", "vpc"} <= set(standing)


def test_groups_that_name_each_other_go(api: Counted) -> None:
    groups = {
        "a": {"ingress": [{"port": 5432, "sources": ["group:b"]}]},
        "b": {"ingress": [{"port": 6432, "sources": ["group:a"]}]},
        **DESCRIPTION["security_groups"],
    }
    bring(api, security_groups=groups)
    assert tear_down(api)["remains"] == []


def test_another_environment_is_not_touched(api: Counted) -> None:
    bring(api)
    bring(api, environment="other")
    tear_down(api)
    assert network_of(api) == WHOLE
    assert not bring(api, environment="other")["changed"]


def test_every_kind_can_be_removed() -> None:
    kinds = [*remove.KINDS, *remove.LATER]
    assert [k for k in kinds if not hasattr(remove.Remover, f"_remove_{k}")] == []
