"""What shall stand, compared with what stands."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ascent.scaling.plugins.module_utils import environment as env

from tests.unit.plugins.description import BALANCED, DESCRIPTION, MANAGED

SOUND = {
    "environment": "lab",
    "region": "us-east-1",
    "zones": ["us-east-1a"],
    "domain": "shop.test",
    "dns_zone": "shop.test",
    "vpc_cidr": "10.42.0.0/16",
    "operator_cidrs": ["198.51.100.7/32"],
    "functions": {"main": {"database": "shop", "role": "shop"}},
}


def wanted(**changes: Any) -> list[env.Resource]:
    return env.desired({**copy.deepcopy(DESCRIPTION), **changes}, "123456789012", "us-east-1")


def standing(resources: list[env.Resource]) -> list[env.Resource]:
    """The same resources, as if AWS had answered them."""
    return [{**copy.deepcopy(item), "id": f"id-{number}"} for number, item in enumerate(resources)]


def test_sound_settings_have_no_problem() -> None:
    assert env.problems(SOUND) == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"environment": "Shop"}, "ascent_environment"),
        ({"environment": "a"}, "ascent_environment"),
        ({"environment": "a" * 22}, "ascent_environment"),
        ({"environment": "shop--eu"}, "ascent_environment"),
        ({"environment": "shop-"}, "ascent_environment"),
        ({"domain": "localhost"}, "ascent_domain"),
        ({"domain": "shop_1.example.com"}, "ascent_domain"),
        ({"dns_zone": "other.test"}, "ascent_dns_zone"),
        ({"region": "frankfurt"}, "ascent_region"),
        ({"zones": []}, "ascent_zones"),
        ({"zones": ["us-east-1a", "us-east-1a"]}, "ascent_zones"),
        ({"vpc_cidr": "10.0.0.0/8"}, "ascent_vpc_cidr"),
        ({"vpc_cidr": "10.42.0.1/16"}, "ascent_vpc_cidr"),
        ({"operator_cidrs": []}, "ascent_operator_cidrs"),
        ({"operator_cidrs": ["0.0.0.0/0"]}, "never open to everyone"),
        ({"operator_cidrs": ["here"]}, "ascent_operator_cidrs"),
        ({"functions": {}}, "ascent_functions"),
        ({"functions": {"main": {"database": "shop"}}}, "lacks 'role'"),
        ({"functions": {"main": {"database": "Shop'", "role": "shop"}}}, "Shop'"),
        ({"functions": {"main": {"database": "postgres", "role": "shop"}}}, "is taken"),
        ({"functions": {"main": {"database": "shop", "role": "pg_shop"}}}, "is taken"),
        ({"domain": f"{'a' * 50}.{'b' * 20}.test", "dns_zone": "test"}, "room for 64"),
        ({"domain_aliases": ["www_1.shop.test"]}, "domain_aliases"),
        ({"domain_aliases": ["www.other.test"]}, "www.other.test' does not end with"),
        ({"database_host": "Database_17"}, "ascent_database_host"),
        ({"database_host": "box"}, "is taken"),
        ({"managed_name": "managed.18"}, "ascent_managed_database.name"),
        ({"managed_engine": "mysql"}, "between PostgreSQL servers alone"),
        ({"application": {"name": "Shop!"}}, "ascent_application.name"),
        ({"application": {"name": "a" * 32}}, "ascent_application.name"),
        ({"application": {"name": "postgres"}}, "have already"),
        ({"application": {"name": "shop", "health_path": "up; x"}}, "health_path"),
    ],
)
def test_each_mistake_is_named(change: dict[str, Any], word: str) -> None:
    found = env.problems({**SOUND, **change})
    assert len(found) == 1
    assert word in found[0]


def test_all_mistakes_are_named_at_once() -> None:
    assert len(env.problems({})) >= 6


@pytest.mark.parametrize(
    ("values", "others", "taken"),
    [
        (["198.51.100.7"], {}, {}),
        (["198.51.100.9"], {}, {"shop.test": "198.51.100.9"}),
        ([], {"shop.test": "CNAME old.test"}, {"shop.test": "CNAME old.test"}),
        (["198.51.100.7"], {"shop.test": "AAAA 2001:db8::1"}, {"shop.test": "AAAA 2001:db8::1"}),
        ([], {"mail.shop.test": "CNAME old.test"}, {}),
    ],
)
def test_names_that_lead_elsewhere_are_told(
    values: list[str], others: dict[str, str], taken: dict[str, str]
) -> None:
    found: list[env.Resource] = [
        {
            "kind": "elastic_ip",
            "name": "box",
            "attributes": {},
            "facts": {"address": "198.51.100.7"},
        },
        {"kind": "dns_zone", "name": "shop.test", "attributes": {}, "facts": {"others": others}},
        {"kind": "dns_record", "name": "shop.test A", "attributes": {"values": values}},
    ]
    assert env.taken_names(["Shop.test."], found) == taken


def test_subnets_never_overlap_and_a_new_zone_moves_none() -> None:
    few = env.subnet_cidrs("10.42.0.0/16", ["a", "b"], ["public", "private"])
    more = env.subnet_cidrs("10.42.0.0/16", ["a", "b", "c"], ["public", "private"])
    assert few.items() <= more.items()
    assert len(set(more.values())) == 6
    assert more["public", "a"] == "10.42.0.0/20"
    assert more["private", "a"] == "10.42.128.0/20"


@pytest.mark.parametrize(
    "written", ["tcp 443 0.0.0.0/0", "tcp 8000-8100 group:web", "all all ::/0"]
)
def test_a_rule_is_read_as_it_was_written(written: str) -> None:
    protocol, first, last, source = env.parse_rule(written)
    ports = "all" if protocol == "all" else str(first) if first == last else f"{first}-{last}"
    assert env.rule(protocol, ports, source) == written


def test_an_empty_account_gets_everything_in_the_order_of_making() -> None:
    groups = {**MANAGED["security_groups"], **BALANCED["security_groups"]}
    everything = {**MANAGED, **BALANCED, "security_groups": groups}
    changes = env.compare(wanted(**everything), [])["changes"]
    assert {change["action"] for change in changes} == {"create"}
    places = [env.KINDS.index(change["kind"]) for change in changes]
    assert places == sorted(places)
    assert {change["kind"] for change in changes} == set(env.KINDS)


def test_what_stands_as_described_needs_nothing() -> None:
    assert env.compare(wanted(), standing(wanted())) == {"changes": [], "notices": []}


def test_drift_is_named_exactly() -> None:
    found = standing(wanted())
    web = next(item for item in found if (item["kind"], item["name"]) == ("security_group", "web"))
    web["attributes"]["ingress"].append("tcp 5432 0.0.0.0/0")
    [change] = env.compare(wanted(), found)["changes"]
    assert (change["kind"], change["name"], change["action"]) == ("security_group", "web", "change")
    assert set(change["after"]) == {"ingress"}
    assert set(change["before"]["ingress"]) - set(change["after"]["ingress"]) == {
        "tcp 5432 0.0.0.0/0"
    }
    assert env.summary(change) == "change security group web (ingress)"


def test_only_the_tags_that_differ_are_changed_and_others_are_left() -> None:
    found = standing(wanted())
    vpc = found[0]["attributes"]["tags"]
    vpc["Name"] = "renamed"
    vpc["cost-centre"] = "42"
    [change] = env.compare(wanted(), found)["changes"]
    assert change["before"] == {"tags": {"Name": "renamed"}}
    assert change["after"] == {"tags": {"Name": "lab"}}


def test_a_host_that_is_gone_is_made_anew() -> None:
    found = [item for item in standing(wanted()) if item["kind"] != "instance"]
    [change] = env.compare(wanted(), found)["changes"]
    assert (change["action"], change["kind"], change["name"]) == ("create", "instance", "box")


def test_a_stopped_host_is_started() -> None:
    found = standing(wanted())
    box = next(item for item in found if item["kind"] == "instance")
    box["attributes"]["state"] = "stopped"
    [change] = env.compare(wanted(), found)["changes"]
    assert change["after"] == {"state": "running"}


def test_another_size_is_left_to_a_person() -> None:
    found = standing(wanted())
    box = next(item for item in found if item["kind"] == "instance")
    box["attributes"]["size"] = "t3.nano"
    plan = env.compare(wanted(), found)
    assert plan["changes"] == []
    assert "t3.nano" in plan["notices"][0]


def of_kind(resources: list[env.Resource], kind: str) -> dict[str, Any]:
    """The attributes of the only one of its kind."""
    [found] = [item for item in resources if item["kind"] == kind]
    return found["attributes"]


def database(**changes: Any) -> dict[str, Any]:
    """Stage 3's part of a description, its database changed."""
    [managed] = MANAGED["managed_databases"]
    return {**MANAGED, "managed_databases": [{**managed, **changes}]}


def test_a_managed_database_is_private_encrypted_and_protected() -> None:
    resources = wanted(**MANAGED)
    instance = of_kind(resources, "db_instance")
    assert (instance["public"], instance["encrypted"]) == (False, True)
    assert instance["deletion_protection"] is True
    assert instance["log_exports"] == ["postgresql", "upgrade"]
    assert instance["tags"]["ascent:name"] == "managed"
    subnets = of_kind(resources, "db_subnet_group")["subnets"]
    assert subnets == ["private-us-east-1a", "private-us-east-1b"]
    group = of_kind(resources, "db_parameter_group")
    assert group["family"] == "postgres17"
    assert group["parameters"]["rds.logical_replication"] == "1"


@pytest.mark.parametrize(
    ("kind", "attribute", "seen", "advice"),
    [
        ("db_instance", "engine", "mysql", "fixed for life"),
        ("db_instance", "version", "16", "upgrade_database"),
        ("db_instance", "size", "db.t4g.micro", "maintenance window"),
        ("db_instance", "encrypted", False, "fixed for life"),
        ("db_parameter_group", "family", "postgres16", "goes with the version"),
    ],
)
def test_what_would_cost_a_managed_database_its_service_is_left_to_a_person(
    kind: str, attribute: str, seen: Any, advice: str
) -> None:
    found = standing(wanted(**MANAGED))
    of_kind(found, kind)[attribute] = seen
    plan = env.compare(wanted(**MANAGED), found)
    assert plan["changes"] == []
    assert advice in plan["notices"][0]


@pytest.mark.parametrize("wished", [True, False])
def test_a_managed_database_gets_its_standby_and_loses_it(wished: bool) -> None:
    found = standing(wanted(**database(multi_az=not wished)))
    [change] = env.compare(wanted(**database(multi_az=wished)), found)["changes"]
    assert (change["before"], change["after"]) == ({"multi_az": not wished}, {"multi_az": wished})
    assert env.summary(change) == "change db instance managed (multi_az)"
    assert change["role"] == "managed_database"


def test_a_minor_version_is_amazons_to_choose() -> None:
    assert wanted(**database(version="17.4")) == wanted(**database(version="17"))


def test_parameters_that_nobody_has_set_are_left_alone() -> None:
    found = standing(wanted(**MANAGED))
    parameters = of_kind(found, "db_parameter_group")["parameters"]
    parameters["work_mem"] = "4096"
    assert env.compare(wanted(**MANAGED), found)["changes"] == []
    parameters["rds.logical_replication"] = "0"
    [change] = env.compare(wanted(**MANAGED), found)["changes"]
    assert change["before"] == {"parameters": {"rds.logical_replication": "0"}}
    assert change["after"] == {"parameters": {"rds.logical_replication": "1"}}
    assert change["role"] == "managed_database"


def test_a_managed_database_that_a_stage_does_not_have_is_left_alone() -> None:
    plan = env.compare(wanted(), standing(wanted(**MANAGED)))
    assert [change["kind"] for change in plan["changes"] if change["action"] == "create"] == []
    assert any(notice.startswith("db_instance managed ") for notice in plan["notices"])


def balancer(**changes: Any) -> dict[str, Any]:
    """Stage 4's part of a description, its load balancer changed."""
    [front] = BALANCED["load_balancers"]
    return {**BALANCED, "load_balancers": [{**front, **changes}]}


def test_a_load_balancer_speaks_tls_on_both_sides_and_keeps_its_names() -> None:
    resources = wanted(**BALANCED)
    front = of_kind(resources, "load_balancer")
    assert front["subnets"] == ["public-us-east-1a", "public-us-east-1b"]
    assert front["listeners"] == [
        "80 HTTP redirect HTTPS:443",
        f"443 HTTPS forward front {env.TLS_POLICY}",
    ]
    assert front["certificate"] == "certificate front"
    assert front["deletion_protection"] is True
    group = of_kind(resources, "target_group")
    assert (group["protocol"], group["port"], group["target_type"]) == ("HTTPS", 443, "instance")
    assert group["health"]["path"] == "/health/ready"
    assert of_kind(resources, "certificate")["names"] == ["shop.test"]
    assert of_kind(resources, "dns_record") == {"alias": "load balancer front"}
    assert env.compare(resources, standing(resources)) == {"changes": [], "notices": []}


def test_a_certificate_of_the_users_own_is_not_made() -> None:
    resources = wanted(**balancer(certificate_arn="arn:aws:acm:us-east-1:1:certificate/1"))
    assert [item for item in resources if item["kind"] == "certificate"] == []
    assert of_kind(resources, "load_balancer")["certificate"].startswith("arn:aws:acm:")


def test_without_tls_nothing_is_encrypted_and_nothing_redirects() -> None:
    resources = wanted(**balancer(tls=False))
    assert of_kind(resources, "load_balancer")["listeners"] == ["80 HTTP forward front"]
    assert of_kind(resources, "target_group")["port"] == 80
    assert [item for item in resources if item["kind"] == "certificate"] == []


def test_traffic_goes_from_a_fixed_address_to_the_load_balancer() -> None:
    found = standing(wanted(**{**BALANCED, "front_door": ["box"]}))
    [change] = env.compare(wanted(**BALANCED), found)["changes"]
    assert (change["kind"], change["role"]) == ("dns_record", "dns")
    assert change["after"] == {"alias": "load balancer front"}


@pytest.mark.parametrize(
    ("kind", "attribute", "seen"),
    [
        ("target_group", "protocol", "HTTP"),
        ("target_group", "port", 80),
        ("target_group", "target_type", "ip"),
        ("load_balancer", "scheme", "internal"),
    ],
)
def test_what_is_fixed_for_life_is_left_to_a_person(kind: str, attribute: str, seen: Any) -> None:
    found = standing(wanted(**BALANCED))
    of_kind(found, kind)[attribute] = seen
    plan = env.compare(wanted(**BALANCED), found)
    assert plan["changes"] == []
    assert "fixed for life" in plan["notices"][0]


def test_an_alias_of_others_is_not_taken_over_and_ours_is_no_stranger() -> None:
    def record(alias: str, **facts: str) -> env.Resource:
        return {
            "kind": "dns_record",
            "name": "shop.test A",
            "attributes": {"alias": alias},
            "facts": dict(facts),
        }

    strange = record("old.elb.amazonaws.com", target="old.elb.amazonaws.com")
    assert env.taken_names(["shop.test"], [strange]) == {"shop.test": "A old.elb.amazonaws.com"}
    assert env.taken_names(["shop.test"], [record("load balancer front")]) == {}


def test_what_nobody_wants_is_told_and_left() -> None:
    found = standing(wanted())
    found.append({"kind": "instance", "name": "old", "id": "i-1", "attributes": {}})
    plan = env.compare(wanted(), found)
    assert plan["changes"] == []
    assert "i-1" in plan["notices"][0]


def test_a_zone_of_the_users_own_is_not_tagged() -> None:
    found = standing(wanted())
    zone = next(item for item in found if item["kind"] == "dns_zone")
    zone["attributes"]["tags"] = {}
    zone["facts"] = {"foreign": True}
    assert env.compare(wanted(), found)["changes"] == []


def test_a_record_follows_the_address() -> None:
    description = copy.deepcopy(DESCRIPTION)
    resources = env.desired(description, "1", "us-east-1", addresses={"box": "198.51.100.9"})
    record = next(item for item in resources if item["kind"] == "dns_record")
    assert record["attributes"]["values"] == ["198.51.100.9"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"zones": ["us-east-1b"]}, "us-east-1a"),
        ({"vpc_cidr": "10.42.0.0/28"}, "vpc_cidr"),
        ({"security_groups": {"host": {}}}, "web"),
        (
            {
                "security_groups": {
                    "host": {},
                    "web": {"ingress": [{"port": 80, "sources": ["group:nobody"]}]},
                }
            },
            "nobody",
        ),
        (database(security_groups=["data"]), "data"),
        ({**BALANCED, "front_door": "back"}, "back"),
        ({**BALANCED, "zones": ["us-east-1a"]}, "two zones"),
        (
            {**BALANCED, "load_balancers": [{"name": "front" * 6, "security_groups": []}]},
            "32 characters",
        ),
        (
            {**BALANCED, "load_balancers": [{"name": "front", "security_groups": ["wall"]}]},
            "wall",
        ),
        ({**MANAGED, "zones": ["us-east-1a"]}, "two zones"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(
    change: dict[str, Any], word: str
) -> None:
    with pytest.raises(env.DescriptionError, match=word):
        wanted(**change)


def test_a_host_may_touch_only_its_own_environment() -> None:
    policy = env.host_policy(DESCRIPTION, "aws", "123456789012", "us-east-1")
    for statement in policy["Statement"]:
        resources = statement["Resource"]
        for resource in [resources] if isinstance(resources, str) else resources:
            assert "lab" in resource
            assert resource != "*"
        actions = statement["Action"]
        assert "*" not in "".join([actions] if isinstance(actions, str) else actions)


def test_a_diff_shows_nothing_before_a_creation() -> None:
    [first, *_] = env.diffs(env.compare(wanted(), [])["changes"])
    assert first["before"] == ""
    assert '"cidr": "10.42.0.0/16"' in first["after"]


def test_hosts_delete_backups_but_never_what_was_deleted() -> None:
    policy = env.host_policy(DESCRIPTION, "aws", "123456789012", "us-east-1")
    rights = {statement["Sid"]: statement for statement in policy["Statement"]}
    backups = rights["WriteAndReadBackups"]
    assert backups["Action"] == [
        "s3:AbortMultipartUpload",
        "s3:DeleteObject",
        "s3:GetObject",
        "s3:PutObject",
    ]
    assert backups["Resource"] == "arn:aws:s3:::ascent-lab-backup-123456789012/lab/*"
    assert rights["ListBackups"]["Condition"] == {"StringLike": {"s3:prefix": ["lab/*"]}}


def test_the_bucket_removes_by_age_only_what_was_deleted_or_replaced() -> None:
    bucket = next(item for item in wanted() if item["kind"] == "bucket")["attributes"]
    assert bucket["expire_days"] is None
    assert bucket["expire_lone_delete_markers"] is True
    assert bucket["keep_old_versions_days"] == 14


def test_a_bucket_that_expires_backups_by_age_is_mended() -> None:
    found = standing(wanted())
    bucket = next(item for item in found if item["kind"] == "bucket")
    bucket["attributes"]["expire_days"] = 35
    [change] = env.compare(wanted(), found)["changes"]
    assert (change["kind"], change["after"]) == ("bucket", {"expire_days": None})


def test_the_hosts_are_told_the_buckets_own_name() -> None:
    """playbooks/vars/roles.yml writes the name once more, for the hosts."""
    text = (Path(__file__).parents[4] / "playbooks/vars/roles.yml").read_text()
    written = re.search(
        r"'ascent-' ~ ascent_environment ~ '-backup-' ~ [^\n]*__ascent_account", text
    )
    assert written
    assert env.bucket_name("lab", "123456789012") == "ascent-lab-backup-123456789012"
