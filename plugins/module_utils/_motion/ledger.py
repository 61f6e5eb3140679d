# Copyright: (c) 2026, The Ascent founders
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a move writes into the two databases that it concerns: the schema `ascent_move`.

The state of a move is nowhere else, so that any controller, and every guard, can go on from it.

Each side keeps two kinds of rows of an attempt to switch:

    attempt  at the side that is left: armed -> fencing -> committing -> switched, or aborted.
    door     at the side that is gone to: closed -> opened, or void.

`door` is the truth: what is opened cannot be made void, and what is void never opens. Both happen
in one statement on one row, so that whoever comes second finds out. A door opens before `until` by
its own server's clock or not at all; after that, "not opened" is final.

`attempt` is there for the case that the other side cannot be asked. The door is opened only after
the attempt was taken from `fencing` to `committing`, and whoever aborts takes it from there to
`aborted`: only one of them can. So the left side alone may decide that nothing happens, except
in the milliseconds of `committing`.

The side with the highest epoch among the opened doors is the one where the data is.

A side is closed to the application by taking CONNECT on the database from the functions' roles:
their logins connect only as members of them (docs/decisions/0004).
"""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

from ansible_collections.ascent.scaling.plugins.module_utils._motion.sites import Connection

SCHEMA = "ascent_move"
GUARD = "ascent_guard"

# The channel of NOTIFY for what the mover tells the guards; their answers are in the table pooler.
TOLD = "ascent_move_told"

TABLES = f"""
CREATE SCHEMA IF NOT EXISTS {SCHEMA};
CREATE TABLE IF NOT EXISTS {SCHEMA}.attempt (
  id text PRIMARY KEY,
  peer text NOT NULL,
  roles text[] NOT NULL,
  state text NOT NULL DEFAULT 'armed'
    CHECK (state IN ('armed', 'fencing', 'committing', 'switched', 'aborted')),
  why text NOT NULL DEFAULT '',
  since timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE IF NOT EXISTS {SCHEMA}.door (
  attempt text PRIMARY KEY,
  epoch integer NOT NULL,
  until timestamptz NOT NULL,
  opened_at timestamptz,
  voided_at timestamptz,
  CHECK (opened_at IS NULL OR voided_at IS NULL)
);
CREATE TABLE IF NOT EXISTS {SCHEMA}.mark (
  attempt text PRIMARY KEY,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE TABLE IF NOT EXISTS {SCHEMA}.pooler (
  name text PRIMARY KEY,
  seen timestamptz NOT NULL,
  server text NOT NULL DEFAULT '',
  attempt text NOT NULL DEFAULT '',
  said text NOT NULL DEFAULT '',
  detail text NOT NULL DEFAULT ''
);
CREATE TABLE IF NOT EXISTS {SCHEMA}.note (
  name text PRIMARY KEY,
  value jsonb NOT NULL,
  at timestamptz NOT NULL DEFAULT clock_timestamp()
);
"""

# With the rights of whoever made them (SECURITY DEFINER), so that a guard needs none of its own.
FUNCTIONS = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.door_state(asked text, void boolean) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE found_state text;
BEGIN
  IF void THEN
    INSERT INTO {SCHEMA}.door (attempt, epoch, until, voided_at)
    VALUES (asked, 0, clock_timestamp(), clock_timestamp()) ON CONFLICT DO NOTHING;
  END IF;
  UPDATE {SCHEMA}.door SET voided_at = clock_timestamp()
  WHERE attempt = asked AND opened_at IS NULL AND voided_at IS NULL
    AND (void OR until < clock_timestamp());
  SELECT CASE WHEN opened_at IS NOT NULL THEN 'opened'
              WHEN voided_at IS NOT NULL THEN 'void' ELSE 'closed' END
  INTO found_state FROM {SCHEMA}.door WHERE attempt = asked;
  RETURN coalesce(found_state, 'closed');
END $$;

CREATE OR REPLACE FUNCTION {SCHEMA}.give_up(asked text, final boolean, reason text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  role text;
  found_state text;
  closed text[];
BEGIN
  UPDATE {SCHEMA}.attempt SET state = 'aborted', why = reason
  WHERE id = asked AND (state IN ('armed', 'fencing') OR state = 'committing' AND final)
  RETURNING roles INTO closed;
  -- Only whoever aborts it opens: by now another attempt may have closed them again.
  FOREACH role IN ARRAY coalesce(closed, '{{}}') LOOP
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), role);
  END LOOP;
  SELECT state INTO found_state FROM {SCHEMA}.attempt WHERE id = asked;
  RETURN coalesce(found_state, 'aborted');
END $$;

CREATE OR REPLACE FUNCTION {SCHEMA}.standing() RETURNS integer
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
  SELECT max(epoch) FROM {SCHEMA}.door WHERE opened_at IS NOT NULL
$$;

CREATE OR REPLACE FUNCTION {SCHEMA}.say(
  who text, at_server text, which text, what text, more text
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
  INSERT INTO {SCHEMA}.pooler AS known (name, seen, server, attempt, said, detail)
  VALUES (who, clock_timestamp(), at_server, which, what, more)
  ON CONFLICT (name) DO UPDATE SET (seen, server, attempt, said, detail)
    = (excluded.seen, excluded.server, excluded.attempt, excluded.said, excluded.detail);
END $$;

REVOKE ALL ON FUNCTION {SCHEMA}.door_state(text, boolean),
  {SCHEMA}.give_up(text, boolean, text), {SCHEMA}.standing(),
  {SCHEMA}.say(text, text, text, text, text) FROM PUBLIC;
"""

RIGHTS = f"""
GRANT USAGE ON SCHEMA {SCHEMA} TO {GUARD};
GRANT EXECUTE ON FUNCTION {SCHEMA}.door_state(text, boolean),
  {SCHEMA}.give_up(text, boolean, text), {SCHEMA}.standing(),
  {SCHEMA}.say(text, text, text, text, text) TO {GUARD};
"""

# DDL would not reach the other side. What is temporary concerns nobody else; a concurrent index
# build cannot be taken back at its end, so it is refused at its beginning.
FREEZE = f"""
CREATE OR REPLACE FUNCTION {SCHEMA}.refuse_ddl() RETURNS event_trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  what text;
BEGIN
  -- What a view has stored is made anew on the other side, too.
  IF current_setting('ascent_move.allow', true) = 'on' OR TG_TAG = 'REFRESH MATERIALIZED VIEW' THEN
    RETURN;
  END IF;
  IF TG_EVENT = 'ddl_command_start' THEN
    IF current_query() !~* '\\mconcurrently\\M' THEN RETURN; END IF;
    what := 'CONCURRENTLY';
  ELSIF TG_EVENT = 'sql_drop' THEN
    SELECT object_identity INTO what FROM pg_event_trigger_dropped_objects()
    WHERE original AND NOT is_temporary LIMIT 1;
  ELSE
    SELECT coalesce(object_identity, command_tag) INTO what FROM pg_event_trigger_ddl_commands()
    WHERE coalesce(schema_name, '') <> 'pg_temp' LIMIT 1;
  END IF;
  IF what IS NULL THEN RETURN; END IF;
  RAISE EXCEPTION 'This database is being moved to another server: its schema is frozen (% %).',
      TG_TAG, what
    USING ERRCODE = 'object_in_use',
      HINT = 'Wait until the move is finished, or change both sides by '
             'playbooks/operations/change_schema.yml.';
END $$;
DROP EVENT TRIGGER IF EXISTS ascent_move_refuse_start;
DROP EVENT TRIGGER IF EXISTS ascent_move_refuse_end;
DROP EVENT TRIGGER IF EXISTS ascent_move_refuse_drop;
CREATE EVENT TRIGGER ascent_move_refuse_start ON ddl_command_start
  EXECUTE FUNCTION {SCHEMA}.refuse_ddl();
CREATE EVENT TRIGGER ascent_move_refuse_end ON ddl_command_end
  EXECUTE FUNCTION {SCHEMA}.refuse_ddl();
CREATE EVENT TRIGGER ascent_move_refuse_drop ON sql_drop
  EXECUTE FUNCTION {SCHEMA}.refuse_ddl();
"""

THAW = """
DROP EVENT TRIGGER IF EXISTS ascent_move_refuse_start;
DROP EVENT TRIGGER IF EXISTS ascent_move_refuse_end;
DROP EVENT TRIGGER IF EXISTS ascent_move_refuse_drop;
"""


def noted(connection: Connection, name: str) -> Any:
    """What was noted of a move under a name; None if nothing was, or no move is known here."""
    there = connection.execute("SELECT to_regclass(%s)", (f"{SCHEMA}.note",)).fetchone()
    if there is None or there[0] is None:
        return None
    row = connection.execute(
        f"SELECT value FROM {SCHEMA}.note WHERE name = %s".encode(), (name,)
    ).fetchone()
    return row[0] if row else None


def note(connection: Connection, name: str, value: Any) -> None:
    """Note something of a move, with the time by the server's clock."""
    connection.execute(
        f"INSERT INTO {SCHEMA}.note (name, value) VALUES (%s, %s) ON CONFLICT (name)"
        " DO UPDATE SET value = excluded.value, at = clock_timestamp()".encode(),
        (name, json.dumps(value)),
    )


def age(connection: Connection, name: str) -> float | None:
    """Seconds since something was noted, by the server's clock."""
    row = connection.execute(
        "SELECT extract(epoch FROM clock_timestamp() - at)::float8"
        f" FROM {SCHEMA}.note WHERE name = %s".encode(),
        (name,),
    ).fetchone()
    return float(row[0]) if row else None


def lag(here: Connection, there: Connection, seconds: float) -> float | None:
    """How many seconds a change takes to the following side; None if more than `seconds`."""
    mark = f"verify-{uuid.uuid4().hex}"
    began = time.monotonic()
    here.execute(f"INSERT INTO {SCHEMA}.mark (attempt) VALUES (%s)".encode(), (mark,))
    seen = f"SELECT FROM {SCHEMA}.mark WHERE attempt = %s".encode()
    try:
        while not there.execute(seen, (mark,)).rowcount:
            if time.monotonic() > began + seconds:
                return None
            time.sleep(0.01)
        return time.monotonic() - began
    finally:
        here.execute(f"DELETE FROM {SCHEMA}.mark WHERE attempt = %s".encode(), (mark,))
