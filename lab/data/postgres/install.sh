#!/bin/sh
# Makes a host of the lab a database's: PostgreSQL from the host's own cache of packages, and nobody
# logs in. Says what parameters this server has, on its standard output.
set -eu
exec 3>&1 1>&2
export DEBIAN_FRONTEND=noninteractive
cp -RT /recipe/rootfs /
chmod 0755 /usr/libexec/ascent-rds/*
apt-get install --quiet=2 --yes --no-download --no-install-recommends "$1"
apt-get purge --quiet=2 --yes openssh-server cloud-init
systemctl --quiet mask postgresql.service ssh.service
systemctl --quiet enable ascent-rds.service ascent-rds-membership.service ascent-rds-heartbeat.timer

# Extensions that RDS lets rds_superuser create, and PostgreSQL only superusers.
bin=$(dirname "$(ls /usr/lib/postgresql/*/bin/postgres)")
ln -sfT "$bin" /usr/libexec/ascent-rds/bin
extensions=$(ls -d /usr/share/postgresql/*/extension)
for name in amcheck bloom dblink pg_buffercache pg_freespacemap pg_prewarm pg_stat_statements \
    pg_visibility pgrowlocks pgstattuple sslinfo; do
  sed -i '/^trusted/d; $atrusted = true' "$extensions/$name.control"
done

place=$(mktemp -d)
chown postgres "$place"
run() { runuser --user=postgres -- "$@"; }
run "$bin/initdb" --pgdata="$place" --username=rdsadmin --no-sync >/dev/null
run "$bin/pg_ctl" --pgdata="$place" --wait --log="$place/log" start >/dev/null \
  --options="-k $place -h '' -c shared_preload_libraries=pg_stat_statements,auto_explain"
run "$bin/psql" -X -A -t -h "$place" -U rdsadmin -d postgres >&3 -c "
  SELECT json_build_object('version', current_setting('server_version'), 'settings', json_agg(s))
  FROM (SELECT name, context, vartype, min_val, max_val, enumvals, short_desc
        FROM pg_settings ORDER BY name) AS s"
run "$bin/pg_ctl" --pgdata="$place" --wait --mode=immediate stop >/dev/null
rm -r "$place"
