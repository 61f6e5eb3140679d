"""Tell cloud-init what a container cannot read from its firmware: that this is EC2.

Only then does it ask the metadata service by version 2, as it does on AWS.
"""
# mypy: ignore-errors

from __future__ import annotations

from typing import Any

from cloudinit import sources
from cloudinit.sources import DataSourceEc2 as ec2


class DataSourceEc2(ec2.DataSourceEc2):
    """cloud-init's own source, on a machine known to be AWS's."""

    def _get_cloud_name(self) -> str:
        return ec2.CloudNames.AWS


datasources = [(DataSourceEc2, (sources.DEP_FILESYSTEM, sources.DEP_NETWORK))]


def get_datasource_list(depends: Any) -> list[Any]:
    """Return the sources that match the stage's dependencies."""
    return sources.list_from_depends(depends, datasources)
