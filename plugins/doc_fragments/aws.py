# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to AWS, as every module of this collection that talks to AWS takes it."""

from __future__ import annotations


class ModuleDocFragment:
    """The options of amazon.aws's AnsibleAWSModule, which these modules are built on."""

    DOCUMENTATION = r"""
requirements:
  - python >= 3.11
  - boto3 >= 1.34.0
  - botocore >= 1.34.0
options:
  region:
    description:
      - The AWS region. Without it, the environment variables E(AWS_REGION) and
        E(AWS_DEFAULT_REGION) count, then the AWS SDK's configuration.
    type: str
    aliases: [aws_region]
  endpoint_url:
    description:
      - Where the API is, when it is not at AWS. Without it, E(AWS_URL) counts.
    type: str
    aliases: [aws_endpoint_url]
  profile:
    description:
      - A profile of the AWS SDK's configuration. Without it, E(AWS_PROFILE) counts.
      - It excludes O(access_key), O(secret_key) and O(session_token).
    type: str
    aliases: [aws_profile]
  access_key:
    description:
      - The access key. Without it, E(AWS_ACCESS_KEY_ID) counts, then the AWS SDK's usual chain.
    type: str
    aliases: [aws_access_key_id, aws_access_key]
  secret_key:
    description:
      - The secret key that belongs to O(access_key). Without it, E(AWS_SECRET_ACCESS_KEY) counts.
    type: str
    aliases: [aws_secret_access_key, aws_secret_key]
  session_token:
    description:
      - The token of a temporary O(access_key). Without it, E(AWS_SESSION_TOKEN) counts.
    type: str
    aliases: [aws_session_token]
  validate_certs:
    description: Whether the API's certificate must be trusted.
    type: bool
    default: true
  aws_ca_bundle:
    description:
      - A file with certificates to trust instead of the system's. Without it, E(AWS_CA_BUNDLE)
        counts.
    type: path
  aws_config:
    description: Settings of botocore's client, by their names there, which override ours.
    type: dict
  debug_botocore_endpoint_logs:
    description: Return the calls that were made in C(resource_actions).
    type: bool
    default: false
notes:
  - Throttling, server errors and lost connections are tried again, with jitter, for a minute;
    then the module fails and says what to do.
"""
