#!/bin/sh
# Makes a host of the lab a node of load balancers: HAProxy from the host's own cache of packages,
# and nobody logs in.
set -eu
export DEBIAN_FRONTEND=noninteractive
cp -RT /recipe/rootfs /
apt-get install --quiet=2 --yes --no-download --no-install-recommends "$1"
apt-get purge --quiet=2 --yes openssh-server cloud-init
systemctl --quiet mask haproxy.service ssh.service
systemctl --quiet enable ascent-lb.service
mkdir -p /etc/ascent-lb
