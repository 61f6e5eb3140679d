-- On RDS a member of rds_replication may use replication slots. PostgreSQL asks for the attribute
-- REPLICATION instead, so it follows the membership.
DO $$
DECLARE found record;
BEGIN
  FOR found IN
    SELECT rolname, member
    FROM pg_roles, pg_has_role(oid, 'rds_replication', 'USAGE') AS member
    WHERE rolcanlogin AND NOT rolsuper AND rolreplication <> member
  LOOP
    EXECUTE format('ALTER ROLE %I %s', found.rolname,
                   CASE WHEN found.member THEN 'REPLICATION' ELSE 'NOREPLICATION' END);
  END LOOP;
END $$
\watch 0.2
