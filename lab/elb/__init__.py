"""Elastic Load Balancing, version 2 (`lab.balancers` holds what is behind its load balancers)."""

from __future__ import annotations

from lab.elb.backend import (
    Job,
    LabELBv2Backend,
    as_node,
    backends,
    balancers,
    endpoints,
    install,
    nodes,
    presents,
    public_endpoints,
)
from lab.elb.balancer import BalancerNode, LabLoadBalancer, NodeState, Physics
from lab.elb.group import LabTargetGroup, Target
from lab.elb.health import Check, Health, Outcome, View

__all__ = [
    "BalancerNode",
    "Check",
    "Health",
    "Job",
    "LabELBv2Backend",
    "LabLoadBalancer",
    "LabTargetGroup",
    "NodeState",
    "Outcome",
    "Physics",
    "Target",
    "View",
    "as_node",
    "backends",
    "balancers",
    "endpoints",
    "install",
    "nodes",
    "presents",
    "public_endpoints",
]
