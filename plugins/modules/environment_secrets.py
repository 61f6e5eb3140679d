#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the secrets of an environment: given, kept, or generated once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: environment_secrets
short_description: Bring the secrets of an environment, generating what is missing once
version_added: 0.1.0
description:
  - Returns a value for each name that the user does not give - the one in AWS Secrets Manager,
    C(ascent/<environment>/<name>), or else a new one that is generated and kept there.
  - The result holds secrets. Run it with C(no_log=true).
options:
  environment:
    description: The environment.
    type: str
    required: true
  secrets:
    description: The names that are needed, each with the kind of value to generate.
    type: dict
    required: true
    # password: 32 letters and digits (190 bits), safe in URLs and configuration files
    # ssh_key: an Ed25519 private key in OpenSSH's format, made by ssh-keygen
  given:
    description:
      - Names for which the user has values of their own, such as from Ansible Vault. They win, so
        nothing is read, generated or stored for these. The values themselves are not passed.
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - ascent.scaling.aws
attributes:
  check_mode:
    description:
      - Generates and stores nothing. What is missing is answered by a stand-in, named in
        RV(stand_ins), so that templates can still be rendered.
    support: full
author:
  - The Ascent founders (@ascent)
"""

EXAMPLES = r"""
- name: Bring the secrets
  ascent.scaling.environment_secrets:
    environment: production
    secrets:
      database_main: password
      ssh_key: ssh_key
    given: "{{ ascent_secrets.keys() | list }}"
  register: secrets
  no_log: true

- name: Join them with the user's own
  ansible.builtin.set_fact:
    secret_values: "{{ secrets.secrets | combine(ascent_secrets) }}"
  no_log: true
"""

RETURN = r"""
secrets:
  description: A value for each name that the user does not give.
  returned: always
  type: dict
public_keys:
  description: The public half of each secret of the kind C(ssh_key). It is no secret.
  returned: always
  type: dict
generated:
  description: The names whose value was generated now (in check mode, would be).
  returned: always
  type: list
  elements: str
stand_ins:
  description: The names that have only a stand-in, in check mode.
  returned: always
  type: list
  elements: str
"""

import secrets as chance
import string
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from ansible_collections.ascent.scaling.plugins.module_utils._aws.client import (
    Api,
    AwsFailure,
    module_api,
)

PASSWORD_LENGTH = 32


def password() -> str:
    """Return a new password: letters and digits, so that it needs quoting nowhere."""
    letters = string.ascii_letters + string.digits
    return "".join(chance.choice(letters) for _ in range(PASSWORD_LENGTH))


def ssh_key() -> str:
    """Return a new private key. Raises OSError or CalledProcessError."""
    with tempfile.TemporaryDirectory(prefix="ascent-") as folder:
        path = Path(folder) / "key"
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "ascent", "-f", str(path)],
            check=True,
            capture_output=True,
        )
        return path.read_text(encoding="ascii")


def public_key(private: str) -> str:
    """Return the public half of a private key. Raises OSError or CalledProcessError."""
    with tempfile.TemporaryDirectory(prefix="ascent-") as folder:
        path = Path(folder) / "key"
        path.touch(mode=0o600)
        path.write_text(private, encoding="ascii")
        answer = subprocess.run(
            ["ssh-keygen", "-y", "-f", str(path)], check=True, capture_output=True, text=True
        )
        return answer.stdout.strip()


GENERATORS = {"password": password, "ssh_key": ssh_key}


def read(api: Api, secret: str) -> str | None:
    """Return a kept value, None without one."""
    try:
        answer = api.call(
            "secretsmanager",
            "get_secret_value",
            secret,
            missing=("ResourceNotFoundException",),
            SecretId=secret,
        )
    except AwsFailure as error:
        if error.code == "InvalidRequestException":
            raise AwsFailure(
                f"the secret {secret} is marked for deletion. Bring it back with `aws "
                f"secretsmanager restore-secret --secret-id {secret}`, or wait until it is gone"
            ) from error
        raise
    return None if answer is None else str(answer["SecretString"])


def keep(api: Api, environment: str, secret: str, value: str) -> str:
    """Store a new value; return the one that is kept (another run may have been faster)."""
    answer = api.call(
        "secretsmanager",
        "create_secret",
        secret,
        missing=("ResourceExistsException",),
        Name=secret,
        Description="Generated and kept by Ascent",
        SecretString=value,
        Tags=[{"Key": "ascent:environment", "Value": environment}],
    )
    return value if answer is not None else read(api, secret) or value


def bring(
    api: Api, environment: str, wanted: dict[str, str], given: list[str], dry: bool
) -> dict[str, Any]:
    """Return what the module returns. Raises AwsFailure."""
    unknown = sorted(f"{name}: {kind}" for name, kind in wanted.items() if kind not in GENERATORS)
    if unknown:
        raise AwsFailure(f"no such kind of secret: {unknown}; there are {sorted(GENERATORS)}")
    values: dict[str, str] = {}
    public: dict[str, str] = {}
    generated: list[str] = []
    for name, kind in sorted(wanted.items()):
        if name in given:
            continue
        secret = f"ascent/{environment}/{name}"
        value = read(api, secret)
        if value is None:
            generated.append(name)
            if dry:
                value = f"stand-in-for-{name}"
            else:
                value = keep(api, environment, secret, GENERATORS[kind]())
        values[name] = value
        if kind == "ssh_key":
            made_up = dry and name in generated
            public[name] = "(made by the first run)" if made_up else public_key(value)
    return {
        "changed": bool(generated),
        "secrets": values,
        "public_keys": public,
        "generated": generated,
        "stand_ins": generated if dry else [],
    }


def main() -> None:
    module = AnsibleAWSModule(
        argument_spec={
            "environment": {"type": "str", "required": True},
            "secrets": {"type": "dict", "required": True, "no_log": False},
            "given": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    wish = module.params
    try:
        result = bring(
            module_api(module),
            wish["environment"],
            wish["secrets"],
            wish["given"],
            module.check_mode,
        )
    except (AwsFailure, OSError, subprocess.CalledProcessError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
