\set SHOW_CONTEXT never
-- What psql 15 prints for this against Postgres 15 is psql.out.
SELECT 1 AS one, 'two' AS two, NULL AS three;
SELECT 1; SELECT 2;
SELECT 1 AS a \; SELECT 2 AS b;
;
CREATE TABLE psql_types (id integer PRIMARY KEY, b boolean, i2 smallint, i8 bigint, f4 real,
    f8 double precision, n numeric(10,3), t text, y bytea, d date, tm time, ts timestamp,
    tz timestamptz, iv interval, u uuid, j json, jb jsonb, ai integer[], at text[]);
INSERT INTO psql_types VALUES
    (1, true, 7, -9223372036854775808, 1.5, 1e300, 1.5, 'héllo', '\x00ff', '2024-02-29',
     '04:05:06.7', '2024-02-29 12:34:56.789', '2024-02-29 12:34:56+02',
     '1 year 2 mons -3 days 04:05:06.7', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{"a" : 1}',
     '{"b":1, "a":[1,2]}', '{1,NULL,3}', '{a,"b c",NULL,"",NULL}'),
    (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL);
\x
SELECT * FROM psql_types ORDER BY id;
\x
SELECT 'NaN'::float8, 'Infinity'::float4, -0.0::float8, 1e20::float8, 123456.7::float4;
SELECT ROW(1, 'a b', NULL, ARRAY['x,y']), ARRAY[ARRAY[1,2],ARRAY[3,4]];
SET TimeZone TO 'America/New_York';
SELECT tz, '1883-01-01 00:00:00+00'::timestamptz FROM psql_types WHERE id = 1;
SET IntervalStyle TO 'iso_8601';
SET bytea_output TO 'escape';
SELECT iv, y FROM psql_types WHERE id = 1;
RESET IntervalStyle;
RESET bytea_output;
RESET TimeZone;
-- Errors: the caret stands below the mistake, also behind characters of several bytes and lines.
SELECT 'é', nothing_like_it;
SELECT 1,
    nothing_like_it;
SELECT 1; SELECT nothing_like_it; SELECT 3;
SELECT 1 \; SELECT nothing_like_it \; SELECT 3;
SELECT * FROM nothing_like_it;
SELECT 1/0;
SELECT 2147483647 + 1;
SELECT 'x'::integer;
\echo :SQLSTATE
-- Transactions.
CREATE TABLE psql_tx (a integer PRIMARY KEY);
BEGIN;
INSERT INTO psql_tx VALUES (1);
SELECT 1/0;
SELECT 1;
COMMIT;
SELECT count(*) FROM psql_tx;
INSERT INTO psql_tx VALUES (1) \; INSERT INTO psql_tx VALUES (2) \; INSERT INTO psql_tx VALUES (1);
SELECT count(*) FROM psql_tx;
BEGIN; INSERT INTO psql_tx VALUES (3), (4); COMMIT;
SELECT * FROM psql_tx ORDER BY a;
-- COPY.
CREATE TABLE psql_copy (a integer PRIMARY KEY, b text);
COPY psql_copy FROM STDIN;
1	a\tb
2	\N
3	
\.
COPY psql_copy (b, a) FROM STDIN WITH (FORMAT csv, HEADER true);
b,a
"x, ""y""
z",4
,5
"",6
\.
COPY (SELECT a, b FROM psql_copy WHERE a < 4 ORDER BY a) TO STDOUT;
COPY (SELECT a, b FROM psql_copy WHERE a >= 4 ORDER BY a) TO STDOUT WITH (FORMAT csv, HEADER, NULL 'nil');
COPY psql_copy FROM STDIN;
x	y
\.
SELECT count(*) FROM psql_copy;
-- Cursors, as psql uses them for large results.
\set FETCH_COUNT 2
SELECT a FROM psql_copy ORDER BY a;
\unset FETCH_COUNT
BEGIN;
DECLARE c CURSOR FOR SELECT a FROM psql_copy ORDER BY a;
FETCH 2 FROM c;
FETCH 1 FROM c;
CLOSE c;
COMMIT;
-- Described without being run.
SELECT a, b, 1.5::numeric(10,3) AS n FROM psql_copy \gdesc
SELECT 42 AS answer \gset
\echo :answer
PREPARE add AS SELECT $1::integer + $2::integer AS total;
EXECUTE add(1, 2);
DEALLOCATE add;
DROP TABLE psql_types, psql_tx, psql_copy;
