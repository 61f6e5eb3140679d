"""What the role pooler promises, asked of the host."""

from __future__ import annotations

import shlex
import textwrap

import pytest


def login(host, role: str, password: str, alias: str, query: str):
    """The result of a login through PgBouncer, as the application's."""
    return host.run(
        f"PGPASSWORD={shlex.quote(password)} psql -XAtv ON_ERROR_STOP=1 "
        f"-h 127.0.0.1 -p 6432 -U {role} -d {alias} -c {shlex.quote(query)}"
    )


def console(host, command: str, user: str = "postgres"):
    """The result of a command at PgBouncer's console, as a user of the host."""
    return host.run(
        f"runuser -u {user} -- psql -XAt -h /var/run/postgresql -p 6432 -U pgbouncer -d pgbouncer"
        f" -c {shlex.quote(command)}"
    )


def python(host, password: str, program: str) -> str:
    """What a program prints that has psycopg and the address of the alias main."""
    code = textwrap.dedent(program)
    return host.check_output(
        f"URL='postgresql://shop:{password}@127.0.0.1:6432/main' "
        f"/usr/bin/python3 -c {shlex.quote(code)}"
    )


@pytest.mark.parametrize(
    ("alias", "role", "database"), [("main", "shop", "shop"), ("users", "people", "people")]
)
def test_an_alias_leads_to_its_database(host, secrets, alias, role, database):
    answer = login(
        host,
        role,
        secrets[f"{role}_password"],
        alias,
        "SELECT current_database(), current_user, inet_server_port()",
    )
    assert answer.stdout.strip() == f"{database}|{role}|5432", answer.stderr


def test_a_wrong_password_is_refused(host):
    answer = login(host, "shop", "wrong", "main", "SELECT 1")
    assert answer.rc != 0
    assert "SASL authentication failed" in answer.stderr


def test_a_role_does_not_reach_another_functions_database(host, secrets):
    answer = login(host, "shop", secrets["shop_password"], "users", "SELECT 1")
    assert answer.rc != 0
    assert "no pg_hba.conf entry" in answer.stderr


def test_no_password_is_on_the_host(host, secrets):
    users = host.file("/etc/pgbouncer/userlist.txt")
    assert (users.user, users.group, users.mode) == ("root", "postgres", 0o640)
    assert users.content_string.count("SCRAM-SHA-256$4096:") == 2
    for password in (secrets["shop_password"], secrets["people_password"]):
        assert host.run(f"grep -rl {password} /etc").stdout == ""


def test_it_listens_on_loopback_only(host):
    listening = host.check_output("ss -Hlnt 'sport = :6432'").splitlines()
    assert [line.split()[3] for line in listening] == ["127.0.0.1:6432"]


def test_many_clients_share_few_connections_transaction_by_transaction(host, secrets):
    """Eight clients, each with a transaction after the other, over a pool of two."""
    pids, kept = python(
        host,
        secrets["shop_password"],
        """
        import os, psycopg
        options = dict(prepare_threshold=None)
        clients = [psycopg.connect(os.environ["URL"], **options) for _ in range(8)]
        pid = lambda client: client.execute("SELECT pg_backend_pid()").fetchone()[0]
        used, kept = set(), True
        for client in clients * 3:
            with client.transaction():
                first = pid(client)
                kept &= first == pid(client)
            used.add(first)
        print(len(used), kept)
        """,
    ).split()
    assert int(pids) <= 2, "clients kept connections of their own"
    assert kept == "True", "a transaction lost its connection"


def test_prepared_statements_work_whatever_connection_is_met(host, secrets, release):
    """PgBouncer 1.18 of Debian 12 does not keep them; drivers do without."""
    threshold = "0" if release > 12 else "None"
    answer = python(
        host,
        secrets["shop_password"],
        f"""
        import os, psycopg
        options = dict(autocommit=True, prepare_threshold={threshold})
        clients = [psycopg.connect(os.environ["URL"], **options) for _ in range(2)]
        # One client holds a connection, so that the other has to move to the second and back.
        answers = []
        for round in range(4):
            holder, mover = clients[round % 2], clients[1 - round % 2]
            with holder.transaction():
                holder.execute("SELECT 1")
                answers.append(mover.execute("SELECT 40 + %s::int", (2,)).fetchone()[0])
        print(answers)
        """,
    )
    assert answer.strip() == "[42, 42, 42, 42]"


def test_connections_to_the_server_are_encrypted(host, secrets):
    answer = login(
        host,
        "shop",
        secrets["shop_password"],
        "main",
        "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    )
    assert answer.stdout.strip() == "t", answer.stderr


def test_the_console_is_for_the_local_operator_only(host, secrets, release):
    version = {12: "1.18", 13: "1.24"}[release]
    assert console(host, "SHOW VERSION").stdout.startswith(f"PgBouncer {version}")
    stranger = console(host, "SHOW VERSION", user="nobody")
    assert stranger.rc != 0
    assert "PgBouncer 1" not in stranger.stdout
    role = login(host, "shop", secrets["shop_password"], "pgbouncer", "SHOW VERSION")
    assert role.rc != 0
    assert "not allowed" in role.stderr


def test_a_change_is_loaded_while_a_client_works(hosts, converge, secrets):
    """Also: a run that died before it told PgBouncer is finished by the next."""
    ini = "/etc/pgbouncer/pgbouncer.ini"
    saved = {name: host.file(ini).content_string for name, host in hosts.items()}
    pids = {name: host.check_output("pidof pgbouncer") for name, host in hosts.items()}
    url = f"postgresql://shop:{secrets['shop_password']}@127.0.0.1:6432/main"
    program = (
        "import os, psycopg, time\n"
        "options = dict(autocommit=True, prepare_threshold=None)\n"
        "client = psycopg.connect(os.environ['URL'], **options)\n"
        "open('/run/client', 'w').close()\n"
        "while True:\n"
        "    client.execute('SELECT 1'); time.sleep(0.02)"
    )
    try:
        for host in hosts.values():
            host.run_expect(
                [0],
                f"systemd-run --collect --unit=client --setenv=URL={url} /usr/bin/python3"
                f" -c {shlex.quote(program)};"
                " for i in $(seq 100); do [ -e /run/client ] && exit; sleep 0.1; done; exit 1",
            )
        run = converge(pooler_query_wait_timeout=17, pooler_listen_address="127.0.0.2")
        assert run.returncode == 0, run.stdout
        for name, host in hosts.items():
            assert "query_wait_timeout|17|" in console(host, "SHOW CONFIG").stdout
            # A new address would need a restart, and that is not done behind anyone's back.
            told = run.told(name)
            assert "WARNING: these settings of PgBouncer wait for a restart" in told
            assert "listen_addr" in told
            # That of Debian 12 is too old for them, and the role says so there.
            unkept = "PgBouncer 1.18 of Debian 12 keeps no prepared statements" in told
            assert unkept == (name == "debian-12")
            # As a run leaves it that wrote the file and was killed.
            host.run_expect([0], f"cat > {ini} <<'END'\n{saved[name]}END")

        run = converge()
        assert run.returncode == 0, run.stdout
        for name, host in hosts.items():
            assert "query_wait_timeout|30|" in console(host, "SHOW CONFIG").stdout
            assert "WARNING: these settings" not in run.told(name)
            assert host.service("client").is_running, "the client lost its connection"
            assert host.check_output("pidof pgbouncer") == pids[name]
    finally:
        for host in hosts.values():
            host.run("systemctl stop client; rm -f /run/client")


def test_the_guard_runs_and_comes_back_when_it_is_killed(host):
    guard = host.service("ascent-guard")
    assert guard.is_running
    assert guard.is_enabled
    pid = host.check_output("systemctl show -P MainPID ascent-guard")
    assert host.run(f"ps -o user= -p {pid}").stdout.strip() == "postgres"
    host.check_output(f"kill -KILL {pid}")
    host.check_output(
        "for i in $(seq 50); do systemctl is-active -q ascent-guard && break; sleep 0.1; done"
    )
    assert host.check_output("systemctl show -P MainPID ascent-guard") != pid


def test_what_the_guard_knows_of_a_move_is_for_it_alone(host):
    folder = host.file("/etc/ascent-guard")
    assert (folder.user, folder.group, oct(folder.mode)) == ("root", "postgres", "0o750")


def test_where_an_alias_leads_is_the_guards_to_write(host):
    databases = host.file("/etc/pgbouncer/databases.ini")
    assert databases.user == "postgres"
    before = databases.content_string
    # A draft beside the file, renamed over it, as the guard does it.
    host.check_output(
        "runuser -u postgres -- sh -c 'cd /etc/pgbouncer && cp databases.ini .databases.ini.new"
        " && mv .databases.ini.new databases.ini'"
    )
    assert host.file("/etc/pgbouncer/databases.ini").content_string == before
    settings = "/etc/pgbouncer/pgbouncer.ini"
    assert host.run(f"runuser -u postgres -- sh -c 'echo >>{settings}'").rc != 0


def test_a_move_is_described_to_the_guard_and_forgotten(hosts, enter, secrets):
    """Also: neither side lets the guard in, and the application notices nothing of that."""
    path = "/etc/ascent-guard/shop.json"
    databases = {
        name: host.file("/etc/pgbouncer/databases.ini").content_string
        for name, host in hosts.items()
    }
    try:
        run = enter("move", moves=True)
        assert run.returncode == 0, run.stdout
        assert secrets["move_password"] not in run.stdout
        pids = {}
        for name, host in hosts.items():
            described = host.file(path)
            assert (described.user, described.group, described.mode) == ("root", "postgres", 0o640)
            assert host.run(f"runuser -u nobody -- cat {path}").rc != 0
            pids[name] = host.check_output("systemctl show -P MainPID ascent-guard")
        run = enter("move", moves=True)
        assert not any(run.changed(name) for name in hosts), run.stdout
        for name, host in hosts.items():
            answer = login(host, "shop", secrets["shop_password"], "main", "SELECT 42")
            assert answer.stdout.strip() == "42", answer.stderr
            assert host.service("ascent-guard").is_running
            assert host.check_output("systemctl show -P MainPID ascent-guard") == pids[name]
            led = host.file("/etc/pgbouncer/databases.ini").content_string
            assert led == databases[name]
    finally:
        run = enter("move")
    assert run.returncode == 0, run.stdout
    for host in hosts.values():
        assert not host.file(path).exists
        assert host.service("ascent-guard").is_running
