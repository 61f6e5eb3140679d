#!/usr/bin/python
# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the secrets of an environment: given, kept, or generated once; and rotate them."""

from __future__ import annotations

DOCUMENTATION = r"""
module: environment_secrets
short_description: Bring the secrets of an environment, generating what is missing, and rotate them
version_added: 0.1.0
description:
  - Returns a value for each name that the user does not give - the one in AWS Secrets Manager,
    C(ascent/<environment>/<name>), or else a new one that is generated and kept there.
  - The result holds secrets. Run it with C(no_log=true).
  - Secrets Manager's versions of a secret hold the state of its rotation, so that any controller
    can end what another one began. The version C(AWSCURRENT) is in use; while there is one labelled
    C(AWSPENDING), C(ascent-retiring) or C(ascent-fallback), that is valid beside it.
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
    # passphrase: the same, for what cannot be rotated
    # ssh_key: an Ed25519 private key in OpenSSH's format, made by ssh-keygen
  given:
    description:
      - Names for which the user has values of their own, such as from Ansible Vault. They win, so
        nothing is read, generated or stored for these. The values themselves are not passed.
    type: list
    elements: str
    default: []
  rotate:
    description: Names of the kind V(password) to rotate, all by the same O(step).
    type: list
    elements: str
    default: []
  step:
    description:
      - The step of the rotation. Each may be repeated, and takes only what the one before left.
      - V(prepare) generates a value that is valid from now on, but not used, for each of O(rotate).
        When the promotion of one of them has begun in an earlier run, it generates none.
      - V(promote) makes the prepared values the ones in use; those before them stay valid.
      - V(retire) ends the validity of those before.
    type: str
    choices: [prepare, promote, retire]
  keep:
    description:
      - Names whose earlier value stays valid after O(step=retire), until the next rotation. For
        keys that have signed what is still out, such as sessions.
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
- name: Prepare new passwords, valid beside those in use
  ascent.scaling.environment_secrets:
    environment: production
    secrets:
      database_main: password
    rotate: [database_main]
    step: prepare
  register: secrets
  no_log: true

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
accepted:
  description:
    - Every valid value of each secret of the kind C(password) - first the one in use, which is also
      in RV(secrets), then the others.
  returned: always
  type: dict
  contains:
    generation: {description: Its number; the first one is 1., type: int}
    value: {description: The value., type: str}
rotating:
  description: The names whose rotation has begun and not ended.
  returned: always
  type: list
  elements: str
rotated:
  description: What the step did, or would do in check mode, a line each.
  returned: always
  type: list
  elements: str
  sample: [prepare database_main generation 2]
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

import re
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
# Labels of a version (AWS Secrets Manager User Guide, "Secret versions"). AWS keeps AWSPREVIOUS by
# itself for ever, so what is valid bears labels of our own.
CURRENT = "AWSCURRENT"
PENDING = "AWSPENDING"
RETIRING = "ascent-retiring"
FALLBACK = "ascent-fallback"
VALID = (CURRENT, PENDING, RETIRING, FALLBACK)


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


GENERATORS = {"password": password, "passphrase": password, "ssh_key": ssh_key}


class Kept:
    """One secret in Secrets Manager: its versions, and who of them bears which label."""

    def __init__(self, api: Api, environment: str, name: str) -> None:
        self._api = api
        self._environment = environment
        self.name = name
        self.path = f"ascent/{environment}/{name}"
        self.labels: dict[str, str] = {}  # label -> version

    def _call(self, operation: str, **more: Any) -> dict[str, Any] | None:
        gone = ("ResourceNotFoundException",)
        try:
            return self._api.call(
                "secretsmanager", operation, self.path, missing=gone, SecretId=self.path, **more
            )
        except AwsFailure as error:
            if error.code == "InvalidRequestException":
                raise AwsFailure(
                    f"the secret {self.path} is marked for deletion. Bring it back with `aws "
                    f"secretsmanager restore-secret --secret-id {self.path}`, or wait until it is "
                    "gone"
                ) from error
            raise

    def look(self) -> bool:
        """Read which version bears which label; tell whether the secret is there."""
        answer = self._call("describe_secret")
        versions = (answer or {}).get("VersionIdsToStages") or {}
        self.labels = {label: version for version in versions for label in versions[version]}
        return answer is not None

    def value(self, label: str = CURRENT) -> str | None:
        """Return the value that bears a label, None without one."""
        answer = self._call("get_secret_value", VersionStage=label)
        return None if answer is None else str(answer["SecretString"])

    def create(self, value: str) -> str:
        """Store a first value; return the one that is kept (another run may have been faster)."""
        answer = self._api.call(
            "secretsmanager",
            "create_secret",
            self.path,
            missing=("ResourceExistsException",),
            Name=self.path,
            Description="Generated and kept by Ascent",
            ClientRequestToken=version_of(1),
            SecretString=value,
            Tags=[{"Key": "ascent:environment", "Value": self._environment}],
        )
        return value if answer is not None else self.value() or value

    def valid(self) -> list[dict[str, Any]]:
        """Return every valid value with its generation, the one in use first."""
        found: dict[str, dict[str, Any]] = {}
        if CURRENT not in self.labels:
            raise AwsFailure(
                f"the secret {self.path} has no current value: put one in, or delete the secret"
            )
        for label in VALID:
            version = self.labels.get(label)
            if version and version not in found:
                found[version] = {"generation": generation(version), "value": self.value(label)}
        return list(found.values())

    def add(self, value: str, number: int) -> None:
        """Store a further value, valid but not in use."""
        self._call(
            "put_secret_value",
            ClientRequestToken=version_of(number),
            SecretString=value,
            VersionStages=[PENDING],
        )

    def label(self, label: str, version: str | None) -> None:
        """Give a label to a version, or take it away from all."""
        bearer = self.labels.get(label)
        if bearer == version:
            return
        move: dict[str, str] = {"RemoveFromVersionId": bearer} if bearer else {}
        if version:
            move["MoveToVersionId"] = version
        self._call("update_secret_version_stage", VersionStage=label, **move)
        self.look()


def version_of(number: int) -> str:
    """Return the id of the version of a generation (AWS wants 32 to 64 characters)."""
    return f"ascent-secret-generation-{number:08d}"


def generation(version: str) -> int:
    """Return the generation of a version, 1 for one that was put in by other means."""
    match = re.fullmatch(r"ascent-secret-generation-(\d{8})", version)
    return int(match[1]) if match else 1


def next_generation(labels: dict[str, str]) -> int:
    """Return the next free number; odd follows even, as two login roles take turns."""
    current = generation(labels[CURRENT])
    number = max(generation(version) for version in labels.values()) + 1
    return number + 1 if number % 2 == current % 2 else number


def prepare(kept: list[Kept], dry: bool) -> list[str]:
    """Generate what is missing of the next values, unless an earlier run has begun to promote."""
    if any(RETIRING in secret.labels for secret in kept):
        return []
    done = []
    for secret in kept:
        if PENDING not in secret.labels:
            number = next_generation(secret.labels)
            done.append(f"prepare {secret.name} generation {number}")
            if not dry:
                secret.add(password(), number)
    return done


def promote(kept: list[Kept], dry: bool) -> list[str]:
    """Put the prepared values into use."""
    done = []
    for secret in kept:
        new = secret.labels.get(PENDING)
        if not new:
            continue
        done.append(f"promote {secret.name} generation {generation(new)}")
        if dry:
            continue
        old = secret.labels[CURRENT]
        if old != new:
            secret.label(FALLBACK, None)
            secret.label(RETIRING, old)
            secret.label(CURRENT, new)
        secret.label(PENDING, None)
    return done


def retire(kept: list[Kept], keep: list[str], dry: bool) -> list[str]:
    """End the validity of what was in use before; what is kept becomes a fallback."""
    done = []
    for secret in kept:
        old = secret.labels.get(RETIRING)
        if not old:
            continue
        done.append(f"retire {secret.name} generation {generation(old)}")
        if not dry:
            secret.label(FALLBACK, old if secret.name in keep else None)
            secret.label(RETIRING, None)
    return done


def rotate(
    api: Api, environment: str, names: list[str], step: str, keep: list[str], dry: bool
) -> list[str]:
    """Take one step of a rotation; return what was done. Raises AwsFailure."""
    kept = [Kept(api, environment, name) for name in sorted(names)]
    missing = [secret.path for secret in kept if not secret.look()]
    if missing:
        raise AwsFailure(
            f"nothing was rotated: Secrets Manager does not have {', '.join(missing)}. A run of "
            "the stage generates what is missing"
        )
    if step == "prepare":
        return prepare(kept, dry)
    return promote(kept, dry) if step == "promote" else retire(kept, keep, dry)


def check_names(wanted: dict[str, str], given: list[str], names: list[str]) -> None:
    """Raise AwsFailure if a kind is unknown or a name cannot be rotated."""
    unknown = sorted(f"{name}: {kind}" for name, kind in wanted.items() if kind not in GENERATORS)
    if unknown:
        raise AwsFailure(f"no such kind of secret: {unknown}; there are {sorted(GENERATORS)}")
    wrong = sorted(name for name in names if wanted.get(name) != "password")
    if wrong:
        raise AwsFailure(f"not to be rotated, as they are no passwords of ours: {wrong}")
    own = sorted(set(names) & set(given))
    if own:
        raise AwsFailure(
            f"nothing was rotated: the inventory gives {', '.join(own)} (ascent_secrets), so the "
            "values are yours to change. To have them made and rotated, take them out there and "
            "run the stage once, or rotate only the others"
        )


def bring(
    api: Api, environment: str, wanted: dict[str, str], given: list[str], dry: bool
) -> dict[str, Any]:
    """Return what the module returns. Raises AwsFailure."""
    check_names(wanted, given, [])
    values: dict[str, str] = {}
    public: dict[str, str] = {}
    accepted: dict[str, list[dict[str, Any]]] = {}
    generated: list[str] = []
    rotating: list[str] = []
    for name, kind in sorted(wanted.items()):
        if name in given:
            continue
        secret = Kept(api, environment, name)
        if secret.look():
            accepted[name] = secret.valid()
            if {PENDING, RETIRING} & set(secret.labels):
                rotating.append(name)
        else:
            generated.append(name)
            value = f"stand-in-for-{name}" if dry else secret.create(GENERATORS[kind]())
            accepted[name] = [{"generation": 1, "value": value}]
        values[name] = str(accepted[name][0]["value"])
        if kind == "ssh_key":
            made_up = dry and name in generated
            public[name] = "(made by the first run)" if made_up else public_key(values[name])
            del accepted[name]
    return {
        "changed": bool(generated),
        "secrets": values,
        "accepted": accepted,
        "rotating": rotating,
        "rotated": [],
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
            "rotate": {"type": "list", "elements": "str", "default": []},
            "step": {"type": "str", "choices": ["prepare", "promote", "retire"]},
            "keep": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    wish = module.params
    api, environment, dry = module_api(module), wish["environment"], module.check_mode
    rotated: list[str] = []
    try:
        if wish["step"]:
            check_names(wish["secrets"], wish["given"], wish["rotate"])
            rotated = rotate(api, environment, wish["rotate"], wish["step"], wish["keep"], dry)
        result = bring(api, environment, wish["secrets"], wish["given"], dry)
        result.update(changed=result["changed"] or bool(rotated), rotated=rotated)
    except (AwsFailure, OSError, subprocess.CalledProcessError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
