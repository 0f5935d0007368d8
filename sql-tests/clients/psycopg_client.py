"""psycopg 3 against the server that PGHOST, PGPORT, PGUSER and PGDATABASE name."""

import datetime as dt
import decimal
import os
import sys
import threading
import time
import traceback
import uuid

import psycopg
from psycopg import sql
from psycopg.types.json import Json, Jsonb

# What only Millstream has is left out against another server.
MILLSTREAM = os.environ.get("CLIENT_TEST_SERVER", "millstream") == "millstream"

COLUMNS = """
    id integer PRIMARY KEY, b boolean, i2 smallint, i4 integer, i8 bigint, f4 real,
    f8 double precision, n numeric(20,5), t text, y bytea, d date, tm time, ts timestamp,
    tz timestamptz, iv interval, u uuid, j json, jb jsonb, ai integer[], at text[]
"""

UTC = dt.timezone.utc
ROW = dict(
    b=True,
    i2=-32768,
    i4=2147483647,
    i8=-9223372036854775808,
    f4=1.5,
    f8=0.1,
    n=decimal.Decimal("123456789012345.67890"),
    t='héllo "wörld"\n\t\\',
    y=b"\x00\xff\\",
    d=dt.date(2024, 2, 29),
    tm=dt.time(23, 59, 59, 999999),
    ts=dt.datetime(2024, 2, 29, 12, 34, 56, 789000),
    tz=dt.datetime(2024, 2, 29, 12, 34, 56, 789000, UTC),
    iv=dt.timedelta(days=3, hours=4, seconds=5.5),
    u=uuid.UUID("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    j={"a": [1, None]},
    jb={"b": {"c": "d"}},
    ai=[1, None, -3],
    at=["a", None, 'x"y', "", "{z},"],
)


def equal(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


def raises(sqlstate, action):
    try:
        action()
    except psycopg.Error as error:
        equal(error.sqlstate, sqlstate)
        return error
    raise AssertionError(f"no error {sqlstate}")


def types(conn):
    """Every type as parameter and as result, in text and in binary."""
    conn.execute("DROP TABLE IF EXISTS psycopg_types")
    conn.execute(f"CREATE TABLE psycopg_types ({COLUMNS})")
    given = dict(ROW, j=Json(ROW["j"]), jb=Jsonb(ROW["jb"]))
    names = ["id", *ROW]
    # %t: parameters as text, %b: as binary.
    for key, form in ((1, "t"), (2, "b")):
        marks = ", ".join(f"%{form}" for _ in names)
        insert = f"INSERT INTO psycopg_types ({', '.join(names)}) VALUES ({marks})"
        conn.execute(insert, [key, *given.values()])
    conn.execute("INSERT INTO psycopg_types (id) VALUES (3)")
    for binary in (False, True):
        with conn.cursor(binary=binary) as cur:
            cur.execute("SELECT * FROM psycopg_types ORDER BY id")
            equal([c.name for c in cur.description], names)
            for row in cur.fetchmany(2):
                equal(dict(zip(names[1:], row[1:])), ROW)
            equal(cur.fetchone(), (3, *[None] * len(ROW)))
        # Each column alone, compared by the server.
        for name, value in given.items():
            if name in ("j", "f4", "ai"):
                continue
            query = sql.SQL("SELECT count(*) FROM psycopg_types WHERE {} = {}").format(
                sql.Identifier(name), sql.Placeholder(format="b" if binary else "t")
            )
            equal(conn.execute(query, [value]).fetchone(), (2,))
    for special in ("NaN", "Infinity", "-Infinity"):
        for form in "tb":
            query = f"SELECT %{form}::float8::text"
            equal(conn.execute(query, [float(special)]).fetchone(), (special,))


def statements(conn):
    cur = conn.execute("SELECT 1 AS one, 'x' AS two")
    equal(cur.fetchall(), [(1, "x")])
    equal(cur.statusmessage, "SELECT 1")
    # Without parameters several statements are one simple query.
    cur = conn.execute("SELECT 1; SELECT 2, 3")
    equal(cur.fetchall(), [(1,)])
    assert cur.nextset()
    equal(cur.fetchall(), [(2, 3)])
    equal(conn.execute("").statusmessage, None)
    equal(conn.execute("SELECT %s::int4 + 1", [41], prepare=True).fetchone(), (42,))
    for n in range(5):
        equal(conn.execute("SELECT %s::int4 * 2", [n], prepare=True).fetchone(), (2 * n,))
    conn.execute("DEALLOCATE ALL")
    equal(conn.execute("SELECT %s::text || 'y'", ["x"]).fetchone(), ("xy",))
    with conn.cursor() as cur:
        cur.executemany("SELECT %s::int4", [(1,), (2,)], returning=True)
        equal(cur.fetchall(), [(1,)])
        assert cur.nextset()
        equal(cur.fetchall(), [(2,)])


def errors(conn):
    error = raises("42601", lambda: conn.execute("SELECT 1 +"))
    equal(error.diag.severity, "ERROR")
    error = raises("42703", lambda: conn.execute("SELECT 'é', nothing_like_it"))
    equal(error.diag.statement_position, "13")
    error = raises("42703", lambda: conn.execute("SELECT 1; SELECT nothing_like_it"))
    equal(error.diag.statement_position, "18")
    raises("42P01", lambda: conn.execute("SELECT * FROM nothing_like_it"))
    raises("22P02", lambda: conn.execute("SELECT %s::int4", ["x"]))
    raises("22012", lambda: conn.execute("SELECT 1 / %s::int4", [0]))
    raises("22003", lambda: conn.execute("SELECT 2147483647 + %s::int4", [1]))
    equal(conn.execute("SELECT 1").fetchone(), (1,))


def transactions(conn):
    conn.execute("DROP TABLE IF EXISTS psycopg_tx")
    conn.execute("CREATE TABLE psycopg_tx (a integer PRIMARY KEY)")
    idle = psycopg.pq.TransactionStatus.IDLE
    with conn.transaction():
        conn.execute("INSERT INTO psycopg_tx VALUES (1)")
        equal(conn.info.transaction_status, psycopg.pq.TransactionStatus.INTRANS)
    equal(conn.info.transaction_status, idle)
    equal(conn.execute("SELECT * FROM psycopg_tx").fetchall(), [(1,)])
    conn.execute("BEGIN")
    conn.execute("INSERT INTO psycopg_tx VALUES (2)")
    raises("22012", lambda: conn.execute("SELECT 1/0"))
    equal(conn.info.transaction_status, psycopg.pq.TransactionStatus.INERROR)
    raises("25P02", lambda: conn.execute("SELECT 1"))
    conn.execute("ROLLBACK")
    equal(conn.info.transaction_status, idle)
    equal(conn.execute("SELECT count(*) FROM psycopg_tx").fetchone(), (1,))
    # A message of several statements is one transaction.
    raises("23505", lambda: conn.execute("INSERT INTO psycopg_tx VALUES (3); INSERT INTO psycopg_tx VALUES (1)"))
    equal(conn.execute("SELECT count(*) FROM psycopg_tx").fetchone(), (1,))


def copy(conn):
    conn.execute("DROP TABLE IF EXISTS psycopg_copy")
    conn.execute("CREATE TABLE psycopg_copy (a integer PRIMARY KEY, b text)")
    rows = [(n, None if n % 3 == 0 else f"tab\t{n}\\\n") for n in range(20000)]
    with conn.cursor() as cur:
        with cur.copy("COPY psycopg_copy FROM STDIN") as out:
            for row in rows:
                out.write_row(row)
        equal(cur.rowcount, 20000)
        with cur.copy("COPY psycopg_copy (a, b) FROM STDIN WITH (FORMAT csv, HEADER true)") as out:
            out.write('a,b\r\n-1,"two ""lines""\r\nhere"\r\n-2,\r\n')
        with cur.copy("COPY (SELECT a, b FROM psycopg_copy WHERE a < 0 ORDER BY a) TO STDOUT (FORMAT csv, HEADER)") as data:
            text = b"".join(data).decode()
        equal(text, 'a,b\n-2,\n-1,"two ""lines""\r\nhere"\n')
        with cur.copy("COPY (SELECT * FROM psycopg_copy WHERE a >= 0 ORDER BY a) TO STDOUT") as data:
            data.set_types(["int4", "text"])
            equal(list(data.rows()), rows)

        def broken():
            with cur.copy("COPY psycopg_copy FROM STDIN") as out:
                out.write("100001\tgood\n100002\n")

        raises("22P04", broken)

        def given_up():
            with cur.copy("COPY psycopg_copy FROM STDIN") as out:
                out.write_row((100003, "x"))
                raise KeyError("changed my mind")

        try:
            given_up()
        except KeyError:
            pass
    equal(conn.execute("SELECT count(*) FROM psycopg_copy").fetchone(), (20002,))


def cursors(conn):
    with conn.transaction():
        with conn.cursor(name="walk") as cur:
            cur.itersize = 100
            cur.execute("SELECT a FROM psycopg_copy WHERE a >= 0 ORDER BY a")
            equal(cur.fetchmany(3), [(0,), (1,), (2,)])
            equal(sum(1 for _ in cur), 19997)


def pipeline(conn):
    with conn.pipeline() as pipe:
        results = [conn.execute("SELECT %s::int4", [n]) for n in range(100)]
        pipe.sync()
        equal([r.fetchone()[0] for r in results], list(range(100)))
    try:
        with conn.pipeline() as pipe:
            conn.execute("SELECT 1/%s::int4", [0])
            after = conn.execute("SELECT 1")
            pipe.sync()
            after.fetchone()
    except psycopg.errors.DivisionByZero:
        pass
    except psycopg.errors.PipelineAborted:
        pass
    else:
        raise AssertionError("the pipeline went on")
    equal(conn.execute("SELECT 2").fetchone(), (2,))


def cancel(conn):
    timer = threading.Timer(0.3, conn.cancel)
    timer.start()
    started = time.monotonic()
    raises("57014", lambda: conn.execute("SELECT pg_sleep(60)"))
    timer.join()
    assert time.monotonic() - started < 30
    equal(conn.execute("SELECT 3").fetchone(), (3,))


def settings(conn):
    conn.execute("SET TimeZone TO 'Europe/Berlin'")
    equal(conn.info.parameter_status("TimeZone"), "Europe/Berlin")
    found = conn.execute("SELECT '2024-07-01 00:00:00+00'::timestamptz").fetchone()[0]
    equal(found.isoformat(), "2024-07-01T02:00:00+02:00")
    shown = conn.execute("SELECT '2024-07-01 00:00:00+00'::timestamptz::text").fetchone()[0]
    equal(shown, "2024-07-01 02:00:00+02")
    conn.execute("SET TimeZone TO 'UTC'")
    equal(conn.info.encoding, "utf-8")
    assert conn.info.server_version >= 150000


def subscribe(conn):
    conn.execute("DROP TABLE IF EXISTS psycopg_live")
    conn.execute("CREATE TABLE psycopg_live (a integer PRIMARY KEY)")
    conn.execute("INSERT INTO psycopg_live VALUES (1)")
    writer = psycopg.connect("", autocommit=True)
    cur = conn.cursor()
    rows = cur.stream("SUBSCRIBE (SELECT a FROM psycopg_live)")
    seen = [next(rows)]
    for n in (2, 3):
        writer.execute("INSERT INTO psycopg_live VALUES (%s)", [n])
        # Each row is here before the next is written.
        seen.append(next(rows))
    equal([row[-1] for row in seen], [1, 2, 3])
    conn.cancel()
    raises("57014", lambda: next(rows))
    writer.close()
    equal(conn.execute("SELECT 4").fetchone(), (4,))


def main():
    tests = [types, statements, errors, transactions, copy, cursors, pipeline, cancel, settings]
    if MILLSTREAM:
        tests.append(subscribe)
    failed = 0
    for test in tests:
        try:
            with psycopg.connect("", autocommit=True) as conn:
                test(conn)
            print("ok", test.__name__, flush=True)
        except Exception:
            failed += 1
            print("FAILED", test.__name__, traceback.format_exc(), flush=True)
    sys.exit(failed)


main()
