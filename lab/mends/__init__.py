"""Where moto's answers must be mended for amazon.aws to converge; each could go upstream."""

from __future__ import annotations

from lab.mends import cloudwatch, dynamodb, ec2, s3


def install() -> None:
    """Apply all mends."""
    for module in (cloudwatch, dynamodb, ec2, s3):
        for mend in module.MENDS:
            mend()
