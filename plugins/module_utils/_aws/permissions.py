# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which permissions an operation of AWS needs (pure)."""

from __future__ import annotations

# Operations whose permission has another name, or that need a second one (Service Authorization
# Reference: Amazon S3, Amazon EC2, Amazon RDS, AWS IAM, AWS Secrets Manager, AWS Systems Manager).
EXCEPTIONS = {
    "s3:DeleteObjects": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
    "s3:GetBucketAccelerateConfiguration": ["s3:GetAccelerateConfiguration"],
    "s3:GetBucketEncryption": ["s3:GetEncryptionConfiguration"],
    "s3:GetBucketLifecycleConfiguration": ["s3:GetLifecycleConfiguration"],
    "s3:GetObjectLockConfiguration": ["s3:GetBucketObjectLockConfiguration"],
    "s3:GetPublicAccessBlock": ["s3:GetBucketPublicAccessBlock"],
    "s3:HeadBucket": ["s3:ListBucket"],
    "s3:ListBucketInventoryConfigurations": ["s3:GetInventoryConfiguration"],
    "s3:ListObjectVersions": ["s3:ListBucketVersions"],
    "s3:PutBucketEncryption": ["s3:PutEncryptionConfiguration"],
    "s3:PutBucketLifecycleConfiguration": ["s3:PutLifecycleConfiguration"],
    "s3:PutPublicAccessBlock": ["s3:PutBucketPublicAccessBlock"],
    "ec2:RunInstances": ["ec2:RunInstances", "iam:PassRole"],
    # A call that gives tags to what it makes needs the right to tag.
    "iam:CreateRole": ["iam:CreateRole", "iam:TagRole"],
    # The first database of an account makes RDS's service-linked role (RDS User Guide).
    "rds:CreateDBInstance": [
        "rds:CreateDBInstance",
        "rds:AddTagsToResource",
        "iam:CreateServiceLinkedRole",
    ],
    "rds:CreateDBParameterGroup": ["rds:CreateDBParameterGroup", "rds:AddTagsToResource"],
    "rds:CreateDBSnapshot": ["rds:CreateDBSnapshot", "rds:AddTagsToResource"],
    "rds:CreateDBSubnetGroup": ["rds:CreateDBSubnetGroup", "rds:AddTagsToResource"],
    "rds:RestoreDBInstanceFromDBSnapshot": [
        "rds:RestoreDBInstanceFromDBSnapshot",
        "rds:AddTagsToResource",
    ],
    "secretsmanager:CreateSecret": ["secretsmanager:CreateSecret", "secretsmanager:TagResource"],
    "ssm:PutParameter": ["ssm:PutParameter", "ssm:AddTagsToResource"],
}
# Services that botocore calls otherwise than IAM does.
PREFIXES = {"elb": "elasticloadbalancing", "elbv2": "elasticloadbalancing"}


def permissions(operation: str) -> list[str]:
    """Return the permissions of an operation, written as `ec2:RunInstances`."""
    service, _, action = operation.partition(":")
    operation = f"{PREFIXES.get(service, service)}:{action}"
    return EXCEPTIONS.get(operation, [operation])
