"""What the lab makes true; everything else is refused, with an error that says so."""

from __future__ import annotations

from collections.abc import Mapping

CODE = "NotTrueInTheLab"

# Services whose whole meaning is in their API (moto), or in the API and the lab's hosts (EC2,
# Elastic Load Balancing, RDS, Route 53). Names are those of the signature (SigV4 credential scope).
TRUE_SERVICES = frozenset(
    {
        "acm",
        "dynamodb",
        "ec2",
        "elasticloadbalancing",
        "events",
        "iam",
        "kms",
        "logs",
        "monitoring",
        "rds",
        "route53",
        "s3",
        "secretsmanager",
        "sns",
        "sqs",
        "ssm",
        "sts",
        "tagging",
    }
)

# Calls of those services that would promise what no host and no packet would ever show.
NOT_TRUE: Mapping[str, frozenset[str]] = {
    "ec2": frozenset(
        {
            "AcceptTransitGatewayPeeringAttachment",
            "AssociateSubnetCidrBlock",
            "AttachNetworkInterface",
            "AttachVpnGateway",
            "CopyImage",
            "CreateCarrierGateway",
            "CreateCustomerGateway",
            "CreateEgressOnlyInternetGateway",
            "CreateFleet",
            "CreateFlowLogs",
            "CreateImage",
            "CreateNetworkAclEntry",
            "CreateTrafficMirrorSession",
            "CreateTransitGateway",
            "CreateVpnConnection",
            "CreateVpnGateway",
            "ImportImage",
            "RegisterImage",
            "ReplaceNetworkAclEntry",
            "RequestSpotFleet",
            "RequestSpotInstances",
        }
    ),
    "ssm": frozenset({"CreateAssociation", "SendCommand", "StartSession"}),
    "route53": frozenset({"CreateHealthCheck"}),
}
# All that changes something in a service of which the lab makes a part true.
ONLY_TRUE: Mapping[str, frozenset[str]] = {
    "elasticloadbalancing": frozenset(
        {
            "AddListenerCertificates",
            "AddTags",
            "CreateListener",
            "CreateLoadBalancer",
            "CreateRule",
            "CreateTargetGroup",
            "DeleteListener",
            "DeleteLoadBalancer",
            "DeleteRule",
            "DeleteTargetGroup",
            "DeregisterTargets",
            "ModifyListener",
            "ModifyLoadBalancerAttributes",
            "ModifyRule",
            "ModifyTargetGroup",
            "ModifyTargetGroupAttributes",
            "RegisterTargets",
            "RemoveListenerCertificates",
            "RemoveTags",
            "SetIpAddressType",
            "SetRulePriorities",
            "SetSecurityGroups",
            "SetSubnets",
        }
    ),
    "rds": frozenset(
        {
            "AddTagsToResource",
            "CopyDBParameterGroup",
            "CreateDBInstance",
            "CreateDBParameterGroup",
            "CreateDBSnapshot",
            "CreateDBSubnetGroup",
            "DeleteDBInstance",
            "DeleteDBParameterGroup",
            "DeleteDBSnapshot",
            "DeleteDBSubnetGroup",
            "ModifyDBInstance",
            "ModifyDBParameterGroup",
            "ModifyDBSubnetGroup",
            "RebootDBInstance",
            "RemoveTagsFromResource",
            "ResetDBParameterGroup",
            "RestoreDBInstanceFromDBSnapshot",
            "RestoreDBInstanceToPointInTime",
            "StartDBInstance",
            "StopDBInstance",
        }
    ),
}
# Classic load balancers are called by the same names, in another version of the API.
_CLASSIC = "2012-06-01"
# Calls that are true but for some of their parameters.
_NOT_TRUE_PARAMETERS: Mapping[tuple[str, str], Mapping[str, frozenset[str]]] = {
    ("ec2", "CreateVpc"): {"AmazonProvidedIpv6CidrBlock": frozenset({"true"})},
    ("ec2", "CreateVpcEndpoint"): {
        "VpcEndpointType": frozenset({"Interface", "GatewayLoadBalancer"})
    },
    ("ec2", "ModifyInstanceAttribute"): {"SourceDestCheck.Value": frozenset({"false"})},
    ("ec2", "ModifyNetworkInterfaceAttribute"): {"SourceDestCheck.Value": frozenset({"false"})},
}
_READING = ("Describe", "List", "Get", "BatchGet", "Search", "Query", "Scan", "Head", "Lookup")


def reads(action: str) -> bool:
    """Say whether a call changes nothing."""
    return action.startswith(_READING)


def refusal(service: str, action: str, parameters: Mapping[str, str]) -> str | None:
    """Return why a call is refused; None if it is true."""
    if service not in TRUE_SERVICES:
        if reads(action):
            return None  # there is nothing, and that is what it says
        return f"The lab does not make {service} true yet, so it refuses {action}. See docs/lab.md."
    classic = service == "elasticloadbalancing" and parameters.get("Version") == _CLASSIC
    if classic and not reads(action):
        return f"The lab has no classic load balancers, so it refuses {action}. See docs/lab.md."
    partly = ONLY_TRUE.get(service)
    unknown = partly is not None and action not in partly and not reads(action)
    if unknown or action in NOT_TRUE.get(service, ()):
        return f"The lab cannot make {service} {action} true. See docs/lab.md."
    for name, values in _NOT_TRUE_PARAMETERS.get((service, action), {}).items():
        value = parameters.get(name, "")
        if value in values:
            return (
                f"The lab cannot make {service} {action} with {name}={value} true. See docs/lab.md."
            )
    return None
