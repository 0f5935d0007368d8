//! Every statement: text to its struct. A field that is empty, false or absent is left out.

use expect_test::expect;

use super::check;

#[test]
fn queries() {
    check(
        r#"
SELECT 1

select "A", b as c, `D` from s.t where a = $1 order by 1 limit 5 offset 2

VALUES (1, 'a'), (2, NULL)

TABLE s.t

(SELECT 1) UNION ALL (TABLE t) ORDER BY 1

WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT * FROM r

SELECT DISTINCT ON (a) * EXCLUDE (b), t.* EXCEPT (c), sum(a) FILTER (WHERE b) OVER w FROM t WINDOW w AS (PARTITION BY c) QUALIFY true

SELECT a FROM t GROUP BY GROUPING SETS ((a), ()), CUBE (b), ROLLUP (c) HAVING count(*) > 1 OFFSET 5 ROWS FETCH FIRST 10 ROWS ONLY

SELECT a FROM t FETCH FIRST ROW ONLY

SELECT a FROM t ORDER BY a FETCH FIRST 3 ROWS WITH TIES

SELECT * FROM a JOIN b USING (x) LEFT JOIN c ON true NATURAL JOIN d CROSS JOIN LATERAL (SELECT a.x) e, unnest(ARRAY[1]) WITH ORDINALITY u(v, o)

SELECT 'a'
'b', E'\n', $$it's$$, $x$ $$ $x$, X'ff', 1_000, 0x1F, 0b11, 0o17, .5, 1e3

SELECT a ->> 'b', a @> '{}', a ? 'k', a ?| ARRAY['k'], a #>> '{x}', a ISNULL, a NOTNULL, b::int[], c[1], d AT TIME ZONE 'UTC', e !~* 'x', f OPERATOR(pg_catalog.=) 1

SELECT count(DISTINCT a ORDER BY b), percentile_cont(0.5) WITHIN GROUP (ORDER BY x), f(a => 1, b := 2), left('abc', 1), position, floor, user, current_date

SELECT INTERVAL '10' MINUTE, INTERVAL '1-2' YEAR TO MONTH, INTERVAL '1 day', DATE '2024-01-01', CAST(a AS STRUCT<x int>), CAST(b AS ROW<x int, y ARRAY<ROW<z text>>>)
"#,
        expect![[r#"
            Query(SELECT 1)
            Query(SELECT "A", b AS c, `D` FROM s.t WHERE a = $1 ORDER BY 1 LIMIT 5 OFFSET 2)
            Query(VALUES (1, 'a'), (2, NULL))
            Query(SELECT * FROM s.t)
            Query((SELECT 1) UNION ALL (SELECT * FROM t) ORDER BY 1)
            Query(WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r) SELECT * FROM r)
            Query(SELECT DISTINCT ON (a) * EXCLUDE (b), t.* EXCEPT (c), sum(a) FILTER (WHERE b) OVER w FROM t WINDOW w AS (PARTITION BY c) QUALIFY true)
            Query(SELECT a FROM t GROUP BY GROUPING SETS ((a), ()), CUBE (b), ROLLUP (c) HAVING count(*) > 1 LIMIT 10 OFFSET 5)
            Query(SELECT a FROM t LIMIT 1)
            Query(SELECT a FROM t ORDER BY a FETCH FIRST 3 ROWS WITH TIES)
            Query(SELECT * FROM a JOIN b USING(x) LEFT JOIN c ON true NATURAL JOIN d CROSS JOIN LATERAL (SELECT a.x) e, UNNEST(ARRAY[1]) WITH ORDINALITY u (v, o))
            Query(SELECT 'ab', E'\n', $$it's$$, $x$ $$ $x$, X'ff', 1000, 31, 3, 15, .5, 1e3)
            Query(SELECT a ->> 'b', a @> '{}', a ? 'k', a ?| ARRAY['k'], a #>> '{x}', a IS NULL, a IS NOT NULL, b::INT[], c[1], d AT TIME ZONE 'UTC', e !~* 'x', f OPERATOR(pg_catalog.=) 1)
            Query(SELECT count(DISTINCT a ORDER BY b), percentile_cont(0.5) WITHIN GROUP (ORDER BY x), f(a => 1, b := 2), left('abc', 1), position, floor, user, current_date)
            Query(SELECT INTERVAL '10' MINUTE, INTERVAL '1-2' YEAR TO MONTH, INTERVAL '1 day', DATE '2024-01-01', CAST(a AS STRUCT<x INT>), CAST(b AS STRUCT<x INT, y ARRAY<STRUCT<z TEXT>>>))
        "#]],
    );
}

#[test]
fn window_functions() {
    check(
        r#"
SELECT * FROM TABLE(TUMBLE(TABLE bid, DESCRIPTOR(ts), INTERVAL '10' MINUTE))

SELECT * FROM TABLE(TUMBLE(DATA => TABLE s.bid, TIMECOL => DESCRIPTOR(ts), SIZE => INTERVAL '10' MINUTE)) AS w

SELECT * FROM TABLE(tumble(SIZE => 1, OFFSET => 2, TIMECOL => DESCRIPTOR(ts), DATA => TABLE bid)) JOIN u ON true

SELECT * FROM TUMBLE(bid, ts, INTERVAL '10' MINUTE) w, TUMBLE(TABLE bid, DESCRIPTOR(ts), 1, -1) x

SELECT * FROM TABLE(HOP(TABLE bid, DESCRIPTOR(ts), 1, 10))

SELECT * FROM TABLE(HOP(DATA => TABLE bid, TIMECOL => DESCRIPTOR(ts), SLIDE => 1, SIZE => 10))

SELECT * FROM TABLE(CUMULATE(TABLE bid, DESCRIPTOR(ts), 1, 10))

SELECT * FROM TABLE(SESSION(TABLE bid PARTITION BY bidder, DESCRIPTOR(ts), 5))

SELECT * FROM SESSION(bid PARTITION BY (a, lower(b)), ts, 5) s

SELECT * FROM TABLE(TUMBLE(TABLE (SELECT * FROM TABLE(HOP(TABLE x, DESCRIPTOR(t), 1, 2)) WHERE row_number() OVER (PARTITION BY a) = 1), DESCRIPTOR(t), 3))

SELECT * FROM t, LATERAL TABLE(split(t.a, ',')) AS s (word)

SELECT tumble, hop(1), session, TUMBLE_START(ts, INTERVAL '1' MINUTE) FROM t GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE)

SELECT sum(a) OVER (ORDER BY b ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE NO OTHERS) FROM t
"#,
        expect![[r#"
            Query(SELECT * FROM TUMBLE(bid, ts, INTERVAL '10' MINUTE))
            Query(SELECT * FROM TUMBLE(s.bid, ts, INTERVAL '10' MINUTE) AS w)
            Query(SELECT * FROM tumble(bid, ts, 1, 2) JOIN u ON true)
            Query(SELECT * FROM TUMBLE(bid, ts, INTERVAL '10' MINUTE) w, TUMBLE(bid, ts, 1, -1) x)
            Query(SELECT * FROM HOP(bid, ts, 1, 10))
            Query(SELECT * FROM HOP(bid, ts, 1, 10))
            Query(SELECT * FROM CUMULATE(bid, ts, 1, 10))
            Query(SELECT * FROM SESSION(bid, ts, 5, bidder))
            Query(SELECT * FROM SESSION(bid, ts, 5, a, lower(b)) s)
            Query(SELECT * FROM TUMBLE((SELECT * FROM HOP(x, t, 1, 2) WHERE row_number() OVER (PARTITION BY a) = 1), t, 3))
            Query(SELECT * FROM t, LATERAL split(t.a, ',') AS s (word))
            Query(SELECT tumble, hop(1), session, TUMBLE_START(ts, INTERVAL '1' MINUTE) FROM t GROUP BY TUMBLE(ts, INTERVAL '1' MINUTE))
            Query(SELECT sum(a) OVER (ORDER BY b ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM t)
        "#]],
    );
}

#[test]
fn data_changes() {
    check(
        r#"
INSERT INTO s.t (a, "B") VALUES (1, DEFAULT), ($1, 'x') ON CONFLICT (a) DO UPDATE SET b = excluded.b WHERE t.b > 1 RETURNING a AS x, *

INSERT INTO t AS x SELECT 1 ON CONFLICT DO NOTHING

INSERT INTO t DEFAULT VALUES

INSERT INTO t TABLE s

WITH x AS (SELECT 1) INSERT INTO t (a) SELECT * FROM x RETURNING *

UPDATE t AS x SET a = 1, b = DEFAULT, (c, d) = (1, 2) FROM u JOIN v ON true WHERE x.a = u.a RETURNING x.a

DELETE FROM s.t x USING u WHERE x.a = u.a RETURNING *

TRUNCATE t

TRUNCATE TABLE a, s.b RESTART IDENTITY CASCADE

COPY t FROM STDIN

copy s.t (a, b) from stdin with (format csv, header, delimiter ';', null 'x', quote '''', escape '\')

COPY t FROM STDIN (FORMAT 'csv', HEADER false, ENCODING 'utf8', FREEZE)

COPY t FROM STDIN WITH CSV HEADER DELIMITER AS '|' NULL AS 'n' QUOTE 'q'

COPY t TO STDOUT (DELIMITER '|', NULL '')

COPY (SELECT 1) TO STDOUT CSV
"#,
        expect![[r#"
            Insert(INSERT INTO s.t (a, "B") VALUES (1, DEFAULT), ($1, 'x') ON CONFLICT(a) DO UPDATE SET b = excluded.b WHERE t.b > 1 RETURNING a AS x, *)
            Insert(INSERT INTO t AS x SELECT 1 ON CONFLICT DO NOTHING)
            Insert(INSERT INTO t DEFAULT VALUES)
            Insert(INSERT INTO t SELECT * FROM s)
            Insert(INSERT INTO t (a) WITH x AS (SELECT 1) SELECT * FROM x RETURNING *)
            Update(UPDATE t AS x SET a = 1, b = DEFAULT, (c, d) = (1, 2) FROM u JOIN v ON true WHERE x.a = u.a RETURNING x.a)
            Delete(DELETE FROM s.t x USING u WHERE x.a = u.a RETURNING *)
            Truncate(Truncate { tables: [Name(t @10)] })
            Truncate(Truncate { tables: [Name(a @16), Name(s.b @19)], cascade: true })
            Copy(In { table: Name(t @6), format: CopyFormat { kind: Text, delimiter: 9, null: "\\N", quote: 34, escape: 34 } })
            Copy(In { table: Name(s.t @6), columns: Some(["a", "b"]), format: CopyFormat { kind: Csv, delimiter: 59, null: "x", header: true, quote: 39, escape: 92 } })
            Copy(In { table: Name(t @6), format: CopyFormat { kind: Csv, delimiter: 44, null: "", quote: 34, escape: 34 } })
            Copy(In { table: Name(t @6), format: CopyFormat { kind: Csv, delimiter: 124, null: "n", header: true, quote: 113, escape: 113 } })
            Copy(OutRelation { relation: Name(t @6), format: CopyFormat { kind: Text, delimiter: 124, null: "", quote: 34, escape: 34 } })
            Copy(OutQuery { query: Query(SELECT 1 @7), format: CopyFormat { kind: Csv, delimiter: 44, null: "", quote: 34, escape: 34 } })
        "#]],
    );
}

#[test]
fn sources() {
    check(
        r#"
CREATE SOURCE s WITH (connector = 'nexmark')

CREATE OR REPLACE SOURCE IF NOT EXISTS d.s.bid (
    auction bigint, price int NOT NULL COMMENT 'cents', eur AS price * 0.9, "At" timestamp(3),
    name varchar(10) AS upper('x'), WATERMARK FOR "At" AS "At" - INTERVAL '4' SECOND,
    PRIMARY KEY (auction)
) COMMENT 'bids' WITH (connector = nexmark, events.limit = 1000, "Rate" = -1.5, 'Fields.A' = E'\t', wait = INTERVAL '5' SECOND, flag)

CREATE TABLE `Bid` (`Auction` BIGINT, a STRING, b DOUBLE, c TIMESTAMP_LTZ(3), d TIMESTAMP(3) WITH LOCAL TIME ZONE, e ROW<x INT, y ARRAY<STRUCT<z BYTES>>>, f ROW(x INT, y int ARRAY)[], PRIMARY KEY (`Auction`) NOT ENFORCED) WITH ('connector' = 'kafka')

CREATE SOURCE s (a int) WITH (connector = 'kafka') FORMAT UPSERT ENCODE AVRO (schema.registry = 'http://x')
"#,
        expect![[r#"
            CreateSource(CreateSource { name: Name(s @15), options: [connector="nexmark" @23] })
            CreateSource(CreateSource { name: Name(d.s.bid @40), or_replace: true, if_not_exists: true, columns: [ColumnDef { name: "auction", sql_type: Some(Int8), not_null: true, position: 54 }, ColumnDef { name: "price", sql_type: Some(Int4), not_null: true, comment: Some("cents"), position: 70 }, ColumnDef { name: "eur", generated: Some(Expression(price * 0.9 @113)), position: 106 }, ColumnDef { name: "At", sql_type: Some(Timestamp), modifier: Some(Fraction(3)), position: 126 }, ColumnDef { name: "name", sql_type: Some(Text), modifier: Some(Varchar(10)), generated: Some(Expression(upper('x') @169)), position: 149 }], primary_key: Some(PrimaryKey { columns: ["auction"], position: 235 }), watermark: Some(Watermark { column: "At", expression: Expression("At" - INTERVAL '4' SECOND @203), position: 181 }), options: [connector="nexmark" @280, events.limit="1000" @301, Rate="-1.5" @322, fields.a="\t" @337, wait="5 second" @357, flag="true" @385], comment: Some("bids") })
            CreateSource(CreateSource { name: Name("Bid" @14), columns: [ColumnDef { name: "Auction", sql_type: Some(Int8), not_null: true, position: 21 }, ColumnDef { name: "a", sql_type: Some(Text), position: 39 }, ColumnDef { name: "b", sql_type: Some(Float8), position: 49 }, ColumnDef { name: "c", sql_type: Some(Timestamptz), position: 59 }, ColumnDef { name: "d", sql_type: Some(Timestamptz), modifier: Some(Fraction(3)), position: 79 }, ColumnDef { name: "e", sql_type: Some(Record([("x", Int4), ("y", Array(Record([("z", Bytea)])))])), position: 116 }, ColumnDef { name: "f", sql_type: Some(Array(Record([("x", Int4), ("y", Array(Int4))]))), position: 156 }], primary_key: Some(PrimaryKey { columns: ["Auction"], not_enforced: true, position: 185 }), options: [connector="kafka" @229], spelled_table: true })
            CreateSource(CreateSource { name: Name(s @15), columns: [ColumnDef { name: "a", sql_type: Some(Int4), position: 18 }], options: [connector="kafka" @31], format: Some(FormatClause { format: "upsert", encode: "avro", options: [schema.registry="http://x" @79], position: 52 }) })
        "#]],
    );
}

#[test]
fn tables() {
    check(
        r#"
CREATE TABLE t (a int PRIMARY KEY, b text)

CREATE TABLE IF NOT EXISTS s.t (
    a int CONSTRAINT c NOT NULL DEFAULT 1 + 2 NOT NULL,
    b numeric(10, 2) NULL DEFAULT -1.5,
    c text GENERATED ALWAYS AS (lower('X' || a)) STORED,
    d AS a * 2, e bigint AS d + 1,
    f char(3) COLLATE "C", g varchar, h timestamptz, i real[], j jsonb, k uuid DEFAULT gen_random_uuid(),
    WATERMARK FOR h AS h - INTERVAL '1' DAY,
    CONSTRAINT pk PRIMARY KEY (a, b) NOT ENFORCED
) APPEND ONLY ON CONFLICT DO NOTHING WITH (on_error = 'null')

CREATE OR REPLACE TABLE t (a int) ON CONFLICT OVERWRITE COMMENT 'x'

CREATE TABLE t ()

CREATE TABLE t AS SELECT 1 AS a WITH NO DATA

CREATE TABLE t (x, y) WITH (a = b) AS VALUES (1, 2)
"#,
        expect![[r#"
            CreateTable(CreateTable { name: Name(t @14), columns: [ColumnDef { name: "a", sql_type: Some(Int4), not_null: true, position: 17 }, ColumnDef { name: "b", sql_type: Some(Text), position: 36 }], primary_key: Some(PrimaryKey { columns: ["a"], position: 23 }), with_data: true })
            CreateTable(CreateTable { name: Name(s.t @28), if_not_exists: true, columns: [ColumnDef { name: "a", sql_type: Some(Int4), not_null: true, default: Some(Expression(1 + 2 @74)), position: 38 }, ColumnDef { name: "b", sql_type: Some(Numeric(10, 2)), not_null: true, default: Some(Expression(-1.5 @124)), position: 94 }, ColumnDef { name: "c", sql_type: Some(Text), generated: Some(Expression(lower('X' || a) @162)), position: 134 }, ColumnDef { name: "d", generated: Some(Expression(a * 2 @196)), position: 191 }, ColumnDef { name: "e", sql_type: Some(Int8), generated: Some(Expression(d + 1 @215)), position: 203 }, ColumnDef { name: "f", sql_type: Some(Text), modifier: Some(Char(3)), position: 226 }, ColumnDef { name: "g", sql_type: Some(Text), position: 249 }, ColumnDef { name: "h", sql_type: Some(Timestamptz), position: 260 }, ColumnDef { name: "i", sql_type: Some(Array(Float4)), position: 275 }, ColumnDef { name: "j", sql_type: Some(Jsonb), position: 285 }, ColumnDef { name: "k", sql_type: Some(Uuid), default: Some(Expression(gen_random_uuid() @309)), position: 294 }], primary_key: Some(PrimaryKey { columns: ["a", "b"], not_enforced: true, position: 391 }), watermark: Some(Watermark { column: "h", expression: Expression(h - INTERVAL '1' DAY @351), position: 332 }), append_only: true, on_conflict: Some(Ignore), options: [on_error="null" @466], with_data: true })
            CreateTable(CreateTable { name: Name(t @25), or_replace: true, columns: [ColumnDef { name: "a", sql_type: Some(Int4), position: 28 }], on_conflict: Some(Update), comment: Some("x"), with_data: true })
            CreateTable(CreateTable { name: Name(t @14), with_data: true })
            CreateTable(CreateTable { name: Name(t @14), query: Some(Query(SELECT 1 AS a @19)) })
            CreateTable(CreateTable { name: Name(t @14), columns: [ColumnDef { name: "x", position: 17 }, ColumnDef { name: "y", position: 20 }], options: [a="b" @29], query: Some(Query(VALUES (1, 2) @39)), with_data: true })
        "#]],
    );
}

#[test]
fn views_and_sinks() {
    check(
        r#"
CREATE OR REPLACE VIEW s.v (a, "B") AS SELECT 1, 2 -- two

CREATE MATERIALIZED VIEW v AS SELECT a FROM t

CREATE OR REPLACE MATERIALIZED VIEW IF NOT EXISTS v (a) WITH (on_error = 'fail') AS (SELECT a FROM t) EMIT ON WINDOW CLOSE

CREATE MATERIALIZED VIEW v AS SELECT * FROM TABLE(TUMBLE(TABLE t, DESCRIPTOR(ts), 1)) EMIT ON UPDATE EVERY INTERVAL '5' SECONDS

CREATE MATERIALIZED VIEW v AS SELECT a FROM t EMIT CHANGES WITH DATA

CREATE MATERIALIZED VIEW v AS SELECT emit.on FROM emit JOIN x emit2 ON emit.on = 1 EMIT FINAL

CREATE SINK k FROM s.v WITH (connector = 'kafka') FORMAT PLAIN ENCODE JSON

CREATE SINK IF NOT EXISTS k AS SELECT 1 EMIT ON UPDATE WITH (connector = 'kafka')

CREATE SINK k AS WITH c AS (SELECT 1) SELECT a FROM t WITH (table = 'x')
"#,
        expect![[r#"
            CreateView(CreateView { name: Name(s.v @24), or_replace: true, columns: ["a", "B"], query: Query(SELECT 1, 2 @40) })
            CreateMaterializedView(CreateMaterializedView { name: Name(v @26), query: Query(SELECT a FROM t @31), emit: Unspecified })
            CreateMaterializedView(CreateMaterializedView { name: Name(v @51), or_replace: true, if_not_exists: true, columns: ["a"], options: [on_error="fail" @63], query: Query((SELECT a FROM t) @85), emit: OnWindowClose })
            CreateMaterializedView(CreateMaterializedView { name: Name(v @26), query: Query(SELECT * FROM TUMBLE(t, ts, 1) @31), emit: OnUpdate { every: Some("5 seconds") } })
            CreateMaterializedView(CreateMaterializedView { name: Name(v @26), query: Query(SELECT a FROM t @31), emit: OnUpdate {  } })
            CreateMaterializedView(CreateMaterializedView { name: Name(v @26), query: Query(SELECT emit.on FROM emit JOIN x emit2 ON emit.on = 1 @31), emit: OnWindowClose })
            CreateSink(CreateSink { name: Name(k @13), input: Relation(Name(s.v @20)), emit: Unspecified, options: [connector="kafka" @30], format: Some(FormatClause { format: "plain", encode: "json", position: 51 }) })
            CreateSink(CreateSink { name: Name(k @27), if_not_exists: true, input: Query(Query(SELECT 1 @32)), emit: OnUpdate {  }, options: [connector="kafka" @62] })
            CreateSink(CreateSink { name: Name(k @13), input: Query(Query(WITH c AS (SELECT 1) SELECT a FROM t @18)), emit: Unspecified, options: [table="x" @61] })
        "#]],
    );
}

#[test]
fn other_definitions() {
    check(
        r#"
CREATE SCHEMA s

CREATE SCHEMA IF NOT EXISTS d."S"

CREATE DATABASE IF NOT EXISTS d

CREATE INDEX ON t (a)

CREATE INDEX IF NOT EXISTS i ON s.t USING btree (a DESC, lower(b) NULLS FIRST) INCLUDE (c, d)

CREATE SAVEPOINT before_upgrade

DROP TABLE t

DROP MATERIALIZED VIEW IF EXISTS s.v, w CASCADE

DROP SCHEMA s, d.t RESTRICT

DROP DATABASE d

DROP SAVEPOINT IF EXISTS x

ALTER TABLE s.t RENAME TO u

ALTER SOURCE IF EXISTS s RENAME COLUMN a TO b

ALTER MATERIALIZED VIEW v SET SCHEMA x

ALTER SCHEMA s RENAME TO t

COMMENT ON SOURCE s IS 'x'

COMMENT ON COLUMN s.t.a IS NULL
"#,
        expect![[r#"
            CreateSchema(CreateSchema { name: SchemaName(s @15) })
            CreateSchema(CreateSchema { name: SchemaName(d."S" @29), if_not_exists: true })
            CreateDatabase(CreateDatabase { name: "d", if_not_exists: true, position: 31 })
            CreateIndex(CreateIndex { relation: Name(t @17), keys: [IndexKey { expression: Expression(a @20) }] })
            CreateIndex(CreateIndex { name: Some("i"), if_not_exists: true, relation: Name(s.t @33), keys: [IndexKey { expression: Expression(a @50), descending: true }, IndexKey { expression: Expression(lower(b) @58), nulls_first: Some(true) }], include: ["c", "d"] })
            CreateSavepoint(CreateSavepoint { name: "before_upgrade", position: 18 })
            Drop(DropObjects { kind: Table, names: [Name(t @12)] })
            Drop(DropObjects { kind: MaterializedView, if_exists: true, names: [Name(s.v @34), Name(w @39)], cascade: true })
            Drop(DropObjects { kind: Schema, names: [Name(s @13), Name(d.t @16)] })
            Drop(DropObjects { kind: Database, names: [Name(d @15)] })
            Drop(DropObjects { kind: Savepoint, if_exists: true, names: [Name(x @26)] })
            Alter(Alter { kind: Table, name: Name(s.t @13), action: Rename("u") })
            Alter(Alter { kind: Source, if_exists: true, name: Name(s @24), action: RenameColumn { from: "a", to: "b" } })
            Alter(Alter { kind: MaterializedView, name: Name(v @25), action: SetSchema("x") })
            Alter(Alter { kind: Schema, name: Name(s @14), action: Rename("t") })
            CommentOn(CommentOn { kind: Source, name: Name(s @19), text: Some("x") })
            CommentOn(CommentOn { kind: Table, name: Name(s.t @19), column: Some("a") })
        "#]],
    );
}

#[test]
fn reading() {
    check(
        r#"
SUBSCRIBE t

SUBSCRIBE TO s.t WITH (PROGRESS, SNAPSHOT = false)

SUBSCRIBE (SELECT * FROM t WHERE a > $1) AS OF 5 + 1 UP TO 10 WITH (SNAPSHOT)

EXPLAIN SELECT 1

EXPLAIN ANALYZE VERBOSE INSERT INTO t VALUES (1)

EXPLAIN (ANALYZE off, COSTS, FORMAT json) (SELECT 1)

EXPLAIN (SELECT 1) UNION (SELECT 2)

EXPLAIN PLAN FOR CREATE MATERIALIZED VIEW v AS SELECT $1

EXPLAIN ANALYZE MATERIALIZED VIEW s.v

SHOW TABLES

SHOW MATERIALIZED VIEWS IN d.s LIKE 'a%'

SHOW SCHEMAS FROM d

SHOW INDEXES FROM s.t

SHOW CONNECTORS

SHOW SAVEPOINTS LIKE 'x'

SHOW COLUMNS FROM t LIKE 'x'

SHOW CREATE MATERIALIZED VIEW s.v

SHOW search_path

SHOW Custom.Setting

SHOW TRANSACTION ISOLATION LEVEL

SHOW TIME ZONE

SHOW ALL

DESCRIBE s.t

DESC MATERIALIZED VIEW v

VERIFY MATERIALIZED VIEW s.v
"#,
        expect![[r#"
            Subscribe(Subscribe { target: Relation(Name(t @11)), snapshot: true })
            Subscribe(Subscribe { target: Relation(Name(s.t @14)), progress: true })
            Subscribe(Subscribe { target: Query(Query(SELECT * FROM t WHERE a > $1 @12)), snapshot: true, as_of: Some(Expression(5 + 1 @48)), up_to: Some(Expression(10 @60)) })
            Explain(Explain { format: Text, target: Statement(Parsed("SELECT 1" @9)) })
            Explain(Explain { analyze: true, verbose: true, format: Text, target: Statement(Parsed("INSERT INTO t VALUES (1)" @25)) })
            Explain(Explain { format: Json, target: Statement(Parsed("(SELECT 1)" @43)) })
            Explain(Explain { format: Text, target: Statement(Parsed("(SELECT 1) UNION (SELECT 2)" @9)) })
            Explain(Explain { format: Text, target: Statement(Parsed("CREATE MATERIALIZED VIEW v AS SELECT $1" @18, 1 parameters)) })
            Explain(Explain { analyze: true, format: Text, target: MaterializedView(Name(s.v @35)) })
            Show(List { what: Tables })
            Show(List { what: MaterializedViews, within: Some(Schema(SchemaName(d.s @28))), like: Some("a%") })
            Show(List { what: Schemas, within: Some(Database("d")) })
            Show(List { what: Indexes, within: Some(Relation(Name(s.t @19))) })
            Show(List { what: Connectors })
            Show(List { what: Savepoints, like: Some("x") })
            Show(Columns { relation: Name(t @19), like: Some("x") })
            Show(Create { kind: MaterializedView, name: Name(s.v @31) })
            Show(Parameter { name: "search_path", position: 6 })
            Show(Parameter { name: "custom.setting", position: 6 })
            Show(Parameter { name: "transaction_isolation", position: 6 })
            Show(Parameter { name: "timezone", position: 6 })
            Show(All)
            Describe(Name(s.t @10))
            Describe(Name(v @24))
            VerifyMaterializedView(Name(s.v @26))
        "#]],
    );
}

#[test]
fn settings() {
    check(
        r#"
SET x = 1

SET SESSION a.B TO 'x', y, "Z", -1.5, on

SET LOCAL x TO DEFAULT

SET TIME ZONE 'Europe/Zurich'

SET TIME ZONE LOCAL

SET TIME ZONE INTERVAL '+02:00' HOUR TO MINUTE

SET timezone TO -3

SET NAMES 'utf8'

SET SESSION AUTHORIZATION DEFAULT

SET ROLE NONE

SET SCHEMA 'x'

SET search_path TO "$user", public

SET 'a.b' = 'c'

SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY

SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE NOT DEFERRABLE

RESET TIME ZONE

RESET ALL

DISCARD TEMPORARY
"#,
        expect![[r#"
            Set(Set { name: "x", value: Values(["1"]), position: 5 })
            Set(Set { name: "a.b", value: Values(["x", "y", "Z", "-1.5", "on"]), position: 13 })
            Set(Set { local: true, name: "x", value: Default, position: 11 })
            Set(Set { name: "timezone", value: Values(["Europe/Zurich"]), position: 5 })
            Set(Set { name: "timezone", value: Default, position: 5 })
            Set(Set { name: "timezone", value: Values(["+02:00"]), position: 5 })
            Set(Set { name: "timezone", value: Values(["-3"]), position: 5 })
            Set(Set { name: "client_encoding", value: Values(["utf8"]), position: 5 })
            Set(Set { name: "session_authorization", value: Default, position: 13 })
            Set(Set { name: "role", value: Values(["none"]), position: 5 })
            Set(Set { name: "search_path", value: Values(["x"]), position: 5 })
            Set(Set { name: "search_path", value: Values(["$user", "public"]), position: 5 })
            Set(Set { name: "a.b", value: Values(["c"]), position: 5 })
            SetTransaction(TransactionModes { isolation: Some(ReadCommitted), read_only: Some(true) })
            SetSessionCharacteristics(TransactionModes { read_only: Some(false), deferrable: Some(false) })
            Reset("timezone")
            ResetAll
            Discard(Temp)
        "#]],
    );
}

#[test]
fn transactions_and_cursors() {
    check(
        r#"
BEGIN

BEGIN WORK ISOLATION LEVEL SERIALIZABLE READ ONLY, DEFERRABLE

START TRANSACTION ISOLATION LEVEL REPEATABLE READ

COMMIT

END TRANSACTION AND CHAIN

ROLLBACK WORK AND NO CHAIN

ABORT

SAVEPOINT x

RELEASE SAVEPOINT x

ROLLBACK TO SAVEPOINT x

ROLLBACK TRANSACTION TO x

FLUSH; CHECKPOINT

PREPARE p (int, text[]) AS SELECT $1, $3

PREPARE p AS INSERT INTO t VALUES ($1)

EXECUTE p (1 + 1, 'a')

EXECUTE p

DEALLOCATE PREPARE p

DEALLOCATE ALL

DECLARE c INSENSITIVE NO SCROLL CURSOR WITH HOLD FOR SELECT 1

DECLARE c CURSOR WITHOUT HOLD FOR SUBSCRIBE TO t

FETCH c

FETCH NEXT FROM next

FETCH 10 c WITH (timeout = '1s')

FETCH FORWARD ALL IN c

MOVE 5 FROM c

CLOSE c

CLOSE ALL
"#,
        expect![[r#"
            Begin(TransactionModes {  })
            Begin(TransactionModes { isolation: Some(Serializable), read_only: Some(true), deferrable: Some(true) })
            Begin(TransactionModes { isolation: Some(RepeatableRead) })
            Commit {  }
            Commit { chain: true }
            Rollback {  }
            Rollback {  }
            Savepoint("x")
            ReleaseSavepoint("x")
            RollbackTo("x")
            RollbackTo("x")
            Flush
            Checkpoint
            Prepare(Prepare { name: "p", parameter_types: [Int4, Array(Text)], statement: Parsed("SELECT $1, $3" @28, 3 parameters) })
            Prepare(Prepare { name: "p", statement: Parsed("INSERT INTO t VALUES ($1)" @14, 1 parameters) })
            Execute(Execute { name: "p", arguments: [Expression(1 + 1 @12), Expression('a' @19)] })
            Execute(Execute { name: "p" })
            Deallocate(Some("p"))
            Deallocate(None)
            DeclareCursor(DeclareCursor { name: "c", hold: true, statement: Parsed("SELECT 1" @54) })
            DeclareCursor(DeclareCursor { name: "c", statement: Parsed("SUBSCRIBE TO t" @35) })
            Fetch(Fetch { cursor: "c", count: Rows(1) })
            Fetch(Fetch { cursor: "next", count: Rows(1) })
            Fetch(Fetch { cursor: "c", count: Rows(10), timeout: Some("1s") })
            Fetch(Fetch { cursor: "c", count: All })
            Fetch(Fetch { cursor: "c", count: Rows(5), moves: true })
            CloseCursor(Some("c"))
            CloseCursor(None)
        "#]],
    );
}
