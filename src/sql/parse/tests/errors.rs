//! Errors of our own statements, and of what we refuse. `¦` stands where the error points.

use super::check_errors;

#[test]
fn syntax_errors_of_our_statements() {
    check_errors(
        "42601",
        &[
            // Sources.
            ("CREATE SOURCE¦", "syntax error at end of input"),
            ("CREATE SOURCE s¦", "syntax error at end of input"),
            ("CREATE SOURCE s (a int)¦;", "syntax error at or near \";\""),
            ("CREATE SOURCE s (a int ¦WITH (connector = 'x')", "syntax error at or near \"WITH\""),
            ("CREATE SOURCE s (a int) WITH ¦connector", "syntax error at or near \"connector\""),
            ("CREATE SOURCE s WITH (connector =¦)", "syntax error at or near \")\""),
            ("CREATE SOURCE s WITH (connector = 'x' ¦y)", "syntax error at or near \"y\""),
            ("CREATE SOURCE s WITH (connector = 'x',¦)", "syntax error at or near \")\""),
            (
                "CREATE SOURCE s WITH (connector = 'x') FORMAT PLAIN¦",
                "syntax error at end of input",
            ),
            ("CREATE SOURCE s WITH (connector = 'x') ¦foo", "syntax error at or near \"foo\""),
            ("CREATE SOURCE s (WATERMARK FOR ¦AS a)", "syntax error at or near \"AS\""),
            ("CREATE SOURCE s (WATERMARK FOR a ¦b)", "syntax error at or near \"b\""),
            ("CREATE SOURCE s (WATERMARK FOR a AS¦)", "syntax error at or near \")\""),
            (
                "CREATE SOURCE s (a int ¦b text) WITH (connector = 'x')",
                "syntax error at or near \"b\"",
            ),
            (
                "CREATE SOURCE s (a ARRAY<int¦) WITH (connector = 'x')",
                "syntax error at or near \")\"",
            ),
            // Tables.
            ("CREATE TABLE t (a int) APPEND¦", "syntax error at end of input"),
            ("CREATE TABLE t (a int) ON CONFLICT ¦foo", "syntax error at or near \"foo\""),
            ("CREATE TABLE t (a int) ON CONFLICT DO ¦foo", "syntax error at or near \"foo\""),
            ("CREATE TABLE t (a AS¦)", "syntax error at or near \")\""),
            ("CREATE TABLE t (a int GENERATED ALWAYS AS ¦a)", "syntax error at or near \"a\""),
            (
                "CREATE TABLE t (a int, PRIMARY KEY (a) ¦NOT FORCED)",
                "syntax error at or near \"NOT\"",
            ),
            ("CREATE TABLE t (¦a)", "column \"a\" has no type"),
            ("CREATE TABLE t (¦a int) AS SELECT 1", "column \"a\" of CREATE TABLE AS has a type"),
            (
                "CREATE TABLE t (a int DEFAULT 1 GENERATED ALWAYS AS (¦2))",
                "both default and generation expression specified for column \"a\"",
            ),
            (
                "CREATE TABLE t (a int DEFAULT 1 DEFAULT ¦2)",
                "multiple default values specified for column \"a\"",
            ),
            ("CREATE TABLE t (a int) WITH (b = 1, ¦B = 2)", "option \"b\" provided more than once"),
            (
                "CREATE TABLE t (a int) ¦FORMAT PLAIN ENCODE JSON",
                "FORMAT is for sources, and this table has no connector",
            ),
            (
                "CREATE TABLE ¦a.b.c.d (a int)",
                "improper qualified name (too many dotted names): a.b.c.d",
            ),
            // Views and sinks.
            (
                "CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT ON UPDATE EVERY¦",
                "syntax error at end of input",
            ),
            (
                "CREATE MATERIALIZED VIEW v AS SELECT 1 EMIT ¦SOMETIMES",
                "syntax error at or near \"SOMETIMES\"",
            ),
            ("CREATE VIEW v AS SELECT 1 ¦EMIT CHANGES", "syntax error at or near \"EMIT\""),
            (
                "CREATE MATERIALIZED VIEW v AS SELECT * FROM t ¦WITH (a = 1)",
                "syntax error at or near \"WITH\"",
            ),
            ("CREATE MATERIALIZED VIEW v ¦SELECT 1", "syntax error at or near \"SELECT\""),
            ("CREATE SINK k ¦TO v", "syntax error at or near \"TO\""),
            ("CREATE SINK k FROM v¦", "syntax error at end of input"),
            ("CREATE SINK k AS ¦v WITH (connector = 'x')", "syntax error at or near \"v\""),
            ("CREATE SAVEPOINT¦", "syntax error at end of input"),
            ("CREATE SCHEMA ¦a.b.c", "improper schema name (too many dotted names)"),
            ("DROP MATERIALIZED ¦v", "syntax error at or near \"v\""),
            ("DROP SOURCE¦", "syntax error at end of input"),
            ("ALTER SOURCE s RENAME TO ¦TO x", "syntax error at or near \"TO\""),
            ("COMMENT ON COLUMN ¦a IS 'x'", "column name must be qualified"),
            // Reading.
            ("SUBSCRIBE¦", "syntax error at end of input"),
            ("SUBSCRIBE TO¦", "syntax error at end of input"),
            ("SUBSCRIBE (¦v)", "syntax error at or near \"v\""),
            ("SUBSCRIBE (SELECT 1¦", "syntax error at end of input"),
            ("SUBSCRIBE TO ¦SELECT 1", "syntax error at or near \"SELECT\""),
            ("SUBSCRIBE v AS OF¦", "syntax error at end of input"),
            ("SUBSCRIBE v WITH (¦FOO)", "unrecognized SUBSCRIBE option \"foo\""),
            ("SUBSCRIBE v WITH (PROGRESS = ¦maybe)", "syntax error at or near \"maybe\""),
            ("EXPLAIN MATERIALIZED VIEW¦", "syntax error at end of input"),
            ("EXPLAIN (¦FOO) SELECT 1", "unrecognized EXPLAIN option \"foo\""),
            ("EXPLAIN ¦EXPLAIN SELECT 1", "syntax error at or near \"EXPLAIN\""),
            ("SHOW TABLES FROM¦", "syntax error at end of input"),
            ("SHOW TABLES LIKE ¦x", "syntax error at or near \"x\""),
            ("SHOW COLUMNS ¦t", "syntax error at or near \"t\""),
            ("SHOW CREATE ¦v", "syntax error at or near \"v\""),
            ("SHOW CONNECTORS ¦FROM s", "syntax error at or near \"FROM\""),
            ("DESCRIBE¦", "syntax error at end of input"),
            ("VERIFY ¦VIEW v", "syntax error at or near \"VIEW\""),
            ("VERIFY MATERIALIZED VIEW¦", "syntax error at end of input"),
            ("FLUSH ¦x", "syntax error at or near \"x\""),
            ("CHECKPOINT ¦x", "syntax error at or near \"x\""),
            ("PREPARE p AS ¦SHOW x", "syntax error at or near \"SHOW\""),
            ("DECLARE c CURSOR FOR ¦SHOW x", "syntax error at or near \"SHOW\""),
            ("FETCH 1 FROM c WITH (¦x = 1)", "syntax error at or near \"x\""),
            ("COPY t FROM STDIN (FORMAT csv, ¦FORMAT text)", "conflicting or redundant options"),
            ("COPY t FROM STDIN (¦FOO 'x')", "option \"foo\" not recognized"),
            // Names and clauses of others.
            ("SELECT 1 AS ¦'x'", "syntax error at or near \"'x'\""),
            ("SELECT * FROM ¦'a.csv'", "syntax error at or near \"'a.csv'\""),
            ("SELECT * FROM ¦a.b.c.d", "improper qualified name (too many dotted names): a.b.c.d"),
            ("SELECT ¦TOP 5 * FROM t", "syntax error at or near \"TOP\""),
            ("SELECT * FROM t ¦SORT BY a", "syntax error at or near \"SORT\""),
            ("SELECT * FROM t WHERE a = ¦:x", "syntax error at or near \":\""),
            ("UPDATE t SET a = 1 ¦ORDER BY a", "syntax error at or near \"ORDER\""),
            ("DELETE FROM t ¦LIMIT 1", "syntax error at or near \"LIMIT\""),
        ],
    );
}

#[test]
fn names_and_values_that_make_no_sense() {
    check_errors(
        "42701",
        &[
            ("CREATE TABLE t (a int, ¦a text)", "column \"a\" specified more than once"),
            ("CREATE TABLE t (a int, ¦\"a\" text)", "column \"a\" specified more than once"),
            (
                "CREATE TABLE t (a int, ¦PRIMARY KEY (a, a))",
                "column \"a\" appears twice in primary key constraint",
            ),
            ("CREATE VIEW v ¦(a, a) AS SELECT 1, 2", "column \"a\" specified more than once"),
            (
                "CREATE TABLE t (a ¦STRUCT<x int, x int>)",
                "field name \"x\" specified more than once",
            ),
        ],
    );
    check_errors(
        "42703",
        &[
            (
                "CREATE TABLE t (a int, ¦PRIMARY KEY (b))",
                "column \"b\" named in key does not exist",
            ),
            (
                "CREATE TABLE t (a int, ¦WATERMARK FOR b AS b)",
                "column \"b\" named in WATERMARK does not exist",
            ),
        ],
    );
    check_errors(
        "42P16",
        &[
            (
                "CREATE TABLE t (a int PRIMARY KEY, b int ¦PRIMARY KEY)",
                "multiple primary keys for table \"t\" are not allowed",
            ),
            (
                "CREATE TABLE t (a int PRIMARY KEY, ¦PRIMARY KEY (a))",
                "multiple primary keys for table \"t\" are not allowed",
            ),
        ],
    );
    check_errors(
        "42704",
        &[
            ("CREATE TABLE t (a ¦foo)", "type \"foo\" does not exist"),
            ("PREPARE p (¦foo) AS SELECT 1", "type \"foo\" does not exist"),
        ],
    );
    check_errors("42P02", &[("SELECT $1, ¦$0", "there is no parameter $0")]);
    check_errors(
        "22023",
        &[
            ("CREATE SOURCE s WITH (¦conector = 'x')", "option \"connector\" is missing"),
            ("CREATE TABLE t (a ¦float(54))", "precision for type float must be less than 54 bits"),
            ("CREATE TABLE t (a ¦numeric(0))", "NUMERIC precision 0 must be between 1 and 38"),
            ("COPY t FROM STDIN (¦FORMAT json)", "COPY format \"json\" not recognized"),
            ("COPY t FROM STDIN (¦DELIMITER 'a')", "COPY delimiter cannot be \"a\""),
            (
                "COPY t FROM STDIN (¦DELIMITER E'\\n')",
                "COPY delimiter cannot be newline or carriage return",
            ),
            (
                "COPY t FROM STDIN (FORMAT csv, ¦DELIMITER '\"')",
                "COPY delimiter and quote must be different",
            ),
            (
                "COPY t FROM STDIN (¦NULL E'a\\tb')",
                "COPY delimiter character must not appear in the NULL specification",
            ),
            (
                "COPY t FROM STDIN (FORMAT csv, ¦NULL '\"')",
                "CSV quote character must not appear in the NULL specification",
            ),
        ],
    );
}

#[test]
fn what_is_known_and_not_supported() {
    check_errors(
        "0A000",
        &[
            // Statements.
            ("¦VACUUM t", "VACUUM is not supported"),
            ("¦ANALYZE", "ANALYZE is not supported"),
            ("¦GRANT SELECT ON t TO u", "GRANT is not supported"),
            ("¦MERGE INTO t USING u ON true WHEN MATCHED THEN DELETE", "MERGE is not supported"),
            ("¦REFRESH MATERIALIZED VIEW v", "REFRESH is not supported"),
            ("¦LISTEN x", "LISTEN is not supported"),
            ("CREATE ¦STREAM s (a int)", "CREATE STREAM is not supported"),
            ("CREATE ¦TEMP TABLE t (a int)", "CREATE TEMP is not supported"),
            ("CREATE ¦FUNCTION f() RETURNS int AS 'x'", "CREATE FUNCTION is not supported"),
            ("CREATE ¦UNIQUE INDEX i ON t (a)", "a unique index is not supported"),
            ("DROP ¦FUNCTION f", "DROP FUNCTION is not supported"),
            ("ALTER TABLE t ¦ADD COLUMN a int", "this form of ALTER TABLE is not supported"),
            ("ALTER ¦SYSTEM SET a = 1", "ALTER SYSTEM is not supported"),
            ("SET ¦CONSTRAINTS ALL DEFERRED", "SET CONSTRAINTS is not supported"),
            ("SET TRANSACTION ¦SNAPSHOT 'x'", "SET TRANSACTION SNAPSHOT is not supported"),
            ("COMMIT ¦PREPARED 'x'", "COMMIT PREPARED is not supported"),
            ("PREPARE ¦TRANSACTION 'x'", "PREPARE TRANSACTION is not supported"),
            ("DECLARE c ¦SCROLL CURSOR FOR SELECT 1", "a SCROLL cursor is not supported"),
            ("DECLARE c ¦BINARY CURSOR FOR SELECT 1", "a BINARY cursor is not supported"),
            ("FETCH ¦BACKWARD 1 FROM c", "fetching backward is not supported"),
            ("FETCH ¦-1 FROM c", "fetching backward is not supported"),
            ("FETCH FORWARD ¦-1 FROM c", "fetching backward is not supported"),
            ("COPY t FROM ¦'/tmp/x'", "COPY with a file of the server is not supported"),
            ("COPY t TO ¦PROGRAM 'x'", "COPY with a file of the server is not supported"),
            ("COPY t FROM STDIN ¦BINARY", "COPY in binary format is not supported"),
            ("COPY t FROM STDIN (¦FORMAT binary)", "COPY in binary format is not supported"),
            ("COPY t FROM STDIN (¦ENCODING 'LATIN1')", "encoding \"LATIN1\" is not supported"),
            ("COPY t FROM STDIN (¦QUOTE 'x')", "COPY QUOTE requires CSV mode"),
            (
                "COPY t FROM STDIN (¦DELIMITER ',,')",
                "COPY delimiter must be a single one-byte character",
            ),
            (
                "COPY t FROM STDIN (¦DELIMITER 'é')",
                "COPY delimiter must be a single one-byte character",
            ),
            ("COPY t FROM STDIN ¦WHERE a > 1", "WHERE of COPY is not supported"),
            ("EXPLAIN (¦FORMAT xml) SELECT 1", "EXPLAIN format xml is not supported"),
            // Clauses of CREATE.
            ("CREATE TABLE t (a int ¦UNIQUE)", "column option UNIQUE is not supported"),
            ("CREATE TABLE t (a int ¦CHECK (a > 0))", "column option CHECK is not supported"),
            (
                "CREATE TABLE t (a int ¦REFERENCES u (a))",
                "column option REFERENCES is not supported",
            ),
            (
                "CREATE TABLE t (a int, ¦FOREIGN KEY (a) REFERENCES u (a))",
                "constraint FOREIGN KEY is not supported",
            ),
            (
                "CREATE TABLE t (a int, CONSTRAINT c ¦CHECK (a > 0))",
                "constraint CHECK is not supported",
            ),
            (
                "CREATE TABLE t (a int GENERATED ALWAYS AS ¦IDENTITY)",
                "an identity column is not supported",
            ),
            (
                "CREATE TABLE t (a int ¦GENERATED BY DEFAULT AS IDENTITY)",
                "an identity column is not supported",
            ),
            ("CREATE TABLE t (a text ¦COLLATE \"de_DE\")", "this collation is not supported"),
            ("CREATE TABLE t (¦LIKE u)", "LIKE is not supported"),
            (
                "CREATE TABLE t (a int) ¦PARTITION BY RANGE (a)",
                "PARTITION BY here is not supported",
            ),
            ("CREATE TABLE t (a int) ¦INHERITS (u)", "INHERITS here is not supported"),
            (
                "CREATE SOURCE s (a int) ¦INCLUDE key AS k WITH (connector = 'x')",
                "INCLUDE here is not supported",
            ),
            (
                "CREATE SOURCE s (a int ¦METADATA FROM 'x') WITH (connector = 'x')",
                "column option METADATA is not supported",
            ),
            (
                "CREATE SOURCE s (a int) ¦APPEND ONLY WITH (connector = 'x')",
                "APPEND ONLY of a source is not supported",
            ),
            (
                "CREATE TABLE t (a int) ¦ON CONFLICT OVERWRITE WITH (connector = 'x')",
                "ON CONFLICT of a source is not supported",
            ),
            (
                "CREATE SOURCE s WITH (connector = 'x') AS ¦SELECT 1",
                "a source AS a query is not supported",
            ),
            (
                "CREATE TABLE t (a int, WATERMARK FOR a AS a, ¦WATERMARK FOR a AS a)",
                "a second WATERMARK is not supported",
            ),
            ("CREATE VIEW v AS SELECT 1 ¦WITH CHECK OPTION", "WITH CHECK OPTION is not supported"),
            (
                "CREATE MATERIALIZED VIEW v AS SELECT 1 WITH ¦NO DATA",
                "WITH NO DATA is not supported",
            ),
            ("CREATE SINK k ¦INTO t FROM v", "CREATE SINK INTO a table is not supported"),
            // Types.
            ("CREATE TABLE t (a ¦serial)", "type serial is not supported"),
            ("CREATE TABLE t (a ¦numeric(39))", "numeric precision 39 is not supported"),
            ("CREATE TABLE t (a ¦numeric(5,6))", "numeric scale 6 is not supported"),
            ("CREATE TABLE t (a ¦timestamp(9))", "a time precision of 9 digits is not supported"),
            (
                "CREATE TABLE t (a ¦time with time zone)",
                "type time with time zone is not supported",
            ),
            ("CREATE TABLE t (a ¦MAP<int, text>)", "type map is not supported"),
            ("CREATE TABLE t (a ¦int unsigned)", "type int unsigned is not supported"),
            ("CREATE TABLE t (a ¦inet)", "type inet is not supported"),
            // Queries.
            (
                "SELECT sum(x) OVER (w ROWS 1 PRECEDING ¦EXCLUDE TIES) FROM t WINDOW w AS (ORDER BY y)",
                "EXCLUDE in a window that builds on another is not supported",
            ),
            ("SELECT * FROM t ¦FOR UPDATE", "row locking (FOR UPDATE, FOR SHARE) is not supported"),
            ("SELECT 1 ¦INTO t", "SELECT INTO is not supported"),
            ("SELECT * FROM t ¦TABLESAMPLE BERNOULLI (10)", "TABLESAMPLE is not supported"),
            ("INSERT ¦OVERWRITE t VALUES (1)", "INSERT OVERWRITE is not supported"),
            (
                "INSERT INTO t VALUES (1) ¦ON DUPLICATE KEY UPDATE a = 1",
                "ON DUPLICATE KEY UPDATE is not supported",
            ),
            (
                "¦WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x",
                "a data-modifying statement inside a query is not supported",
            ),
            (
                "¦WITH x AS (SELECT 1) UPDATE t SET a = 1",
                "a data-modifying statement inside a query is not supported",
            ),
        ],
    );
}
