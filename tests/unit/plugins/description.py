"""A description as the stage playbooks build it, small enough to read."""

from __future__ import annotations

from typing import Any

DESCRIPTION: dict[str, Any] = {
    "environment": "lab",
    "stage": 1,
    "vpc_cidr": "10.42.0.0/16",
    "zones": ["us-east-1a", "us-east-1b"],
    "subnets": ["public", "private"],
    "security_groups": {
        "host": {"ingress": [{"port": 22, "sources": ["198.51.100.7/32"]}]},
        "web": {
            "ingress": [
                {"port": 80, "sources": ["0.0.0.0/0"]},
                {"port": 443, "sources": ["0.0.0.0/0"]},
            ]
        },
    },
    "hosts": [
        {
            "name": "box",
            "tiers": ["web", "database"],
            "size": "t3.small",
            "disk": 20,
            "subnet": "public",
            "zone": "us-east-1a",
            "security_groups": ["host", "web"],
            "elastic_ip": True,
        }
    ],
    "names": ["shop.test"],
    "front_door": ["box"],
    "dns_zone": "shop.test",
    "public_key": "ssh-ed25519 "
    "AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me",
    "backup_bucket": {"keep_old_versions_days": 14},
}

# What stage 4 says besides stage 1: a load balancer, that the names lead to.
BALANCED: dict[str, Any] = {
    "stage": 4,
    "security_groups": {
        **DESCRIPTION["security_groups"],
        "load_balancer": {"ingress": [{"port": 443, "sources": ["0.0.0.0/0"]}]},
    },
    "load_balancers": [
        {
            "name": "front",
            "subnets": "public",
            "security_groups": ["load_balancer"],
            "health": {"path": "/health/ready"},
        }
    ],
    "front_door": "front",
}

# What stage 3 says besides: a database on RDS, and who reaches it.
MANAGED: dict[str, Any] = {
    "stage": 3,
    "security_groups": {
        **DESCRIPTION["security_groups"],
        "database": {"ingress": [{"port": 5432, "sources": ["group:web"]}]},
    },
    "managed_databases": [
        {
            "name": "managed",
            "engine": "postgres",
            "version": "17",
            "size": "db.t4g.small",
            "storage_gib": 20,
            "subnets": "private",
            "security_groups": ["database"],
            "multi_az": False,
            "backup_days": 35,
            "backup_window": "02:00-02:30",
            "maintenance_window": "sun:03:00-sun:03:30",
            "log_exports": ["upgrade", "postgresql"],
            "parameters": {"rds.logical_replication": 1, "log_min_duration_statement": "1000"},
        }
    ],
}
