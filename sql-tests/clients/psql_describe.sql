\set SHOW_CONTEXT never
-- What psql's describing commands say; psql_describe.out was compared with Postgres 15's answers.
CREATE TABLE airlines (carrier text PRIMARY KEY, name text NOT NULL, fee numeric(10,2) DEFAULT 0);
COMMENT ON TABLE airlines IS 'who flies';
COMMENT ON COLUMN airlines.fee IS 'in euros';
CREATE TABLE plain (a integer, b timestamptz, c integer[]);
CREATE VIEW names AS SELECT name, count(*) AS n FROM airlines GROUP BY name;
CREATE MATERIALIZED VIEW carriers AS SELECT carrier FROM airlines;
CREATE SCHEMA other;
CREATE TABLE other.o (a integer PRIMARY KEY);
CREATE SOURCE numbers (n bigint) WITH (connector = 'datagen', rate = '1', fields.n.kind = 'sequence');
\d
\dt
\dt+
\dv
\dm
\di
\dE
\d airlines
\d+ airlines
\d plain
\d names
\d+ names
\d carriers
\d numbers
\d other.*
\d airlines_pkey
\d nothing_like_it
\dt other.*
\dp airlines
\sv names
\ds
\du
\dn
\df
\df lower
\db
\dD
\dT
\dx
\dy
\des
\det
\dew
\dd
\dRp
\l
SELECT current_database() AS db \gset
\echo :db :USER
