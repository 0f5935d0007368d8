"""asyncpg (binary format only) against the server that PGHOST, PGPORT, PGUSER, PGDATABASE name."""

import asyncio
import datetime as dt
import decimal
import os
import sys
import traceback
import uuid

import asyncpg

# What only Millstream has is left out against another server.
MILLSTREAM = os.environ.get("CLIENT_TEST_SERVER", "millstream") == "millstream"

UTC = dt.timezone.utc
COLUMNS = """
    id integer PRIMARY KEY, b boolean, i2 smallint, i4 integer, i8 bigint, f4 real,
    f8 double precision, n numeric(20,5), t text, y bytea, d date, tm time, ts timestamp,
    tz timestamptz, iv interval, u uuid, j json, jb jsonb, ai integer[], at text[],
    ats timestamptz[]
"""
ROW = dict(
    b=False,
    i2=32767,
    i4=-2147483648,
    i8=9223372036854775807,
    f4=-0.25,
    f8=1e300,
    n=decimal.Decimal("-0.00010"),
    t="héllo \\ \n",
    y=b"\x00\xff",
    d=dt.date(1, 1, 2),
    tm=dt.time(0, 0, 0, 1),
    ts=dt.datetime(1969, 12, 31, 23, 59, 59, 999999),
    tz=dt.datetime(2262, 4, 12, 1, 2, 3, 4, UTC),
    iv=dt.timedelta(days=-3, microseconds=7),
    u=uuid.UUID("00000000-0000-0000-0000-0000000000ff"),
    j='{"a" : 1}',
    jb='{"a": [1, 2], "bb": null}',
    ai=[1, None, -3],
    at=["a", None, "", '"\\'],
    ats=[dt.datetime(2024, 1, 1, tzinfo=UTC), None],
)


def equal(found, expected):
    assert found == expected, f"{found!r} is not {expected!r}"


async def raises(sqlstate, action):
    try:
        await action
    except asyncpg.PostgresError as error:
        equal(error.sqlstate, sqlstate)
        return error
    raise AssertionError(f"no error {sqlstate}")


async def types(conn):
    await conn.execute("DROP TABLE IF EXISTS asyncpg_types")
    await conn.execute(f"CREATE TABLE asyncpg_types ({COLUMNS})")
    names = ["id", *ROW]
    marks = ", ".join(f"${n + 1}" for n in range(len(names)))
    insert = f"INSERT INTO asyncpg_types ({', '.join(names)}) VALUES ({marks})"
    equal(await conn.execute(insert, 1, *ROW.values()), "INSERT 0 1")
    await conn.execute("INSERT INTO asyncpg_types (id) VALUES ($1)", 2)
    row = await conn.fetchrow("SELECT * FROM asyncpg_types WHERE id = $1", 1)
    equal(dict(row), dict(id=1, **ROW))
    row = await conn.fetchrow("SELECT * FROM asyncpg_types WHERE id = 2")
    equal(tuple(row), (2, *[None] * len(ROW)))
    for name, value in ROW.items():
        if name == "j":
            continue
        query = f"SELECT count(*) FROM asyncpg_types WHERE {name} = $1"
        equal(await conn.fetchval(query, value), 1)
    row = await conn.fetchval("SELECT ROW(1, 'a b', NULL::text)")
    equal(tuple(row), (1, "a b", None))
    equal(await conn.fetchval("SELECT ARRAY[[1,2],[3,4]]"), [[1, 2], [3, 4]])
    equal(await conn.fetchval("SELECT ARRAY[]::integer[]"), [])
    for text in ("NaN", "1e1000"):
        value = float(text)
        equal(str(await conn.fetchval("SELECT $1::float8", value)), str(value))


async def statements(conn):
    equal(await conn.fetchval("SELECT 1"), 1)
    # The simple protocol.
    equal(await conn.execute("SELECT 1; SELECT 2"), "SELECT 1")
    statement = await conn.prepare("SELECT $1::int4 + $2::int4 AS total, $3 || 'x' AS t")
    equal([p.name for p in statement.get_parameters()], ["int4", "int4", "text"])
    equal([(a.name, a.type.name) for a in statement.get_attributes()], [("total", "int4"), ("t", "text")])
    for n in range(3):
        equal(tuple(await statement.fetchrow(n, 1, "y")), (n + 1, "yx"))
    # Types of parameters are found out.
    equal(await conn.fetch("SELECT id FROM asyncpg_types WHERE d = $1 AND n < $2", ROW["d"], decimal.Decimal(1)), [(1,)])
    equal(await conn.fetchmany("SELECT $1::int4", [(1,), (2,)]), [(1,), (2,)])
    equal(await conn.fetch("SELECT 1 WHERE false"), [])


async def settings(conn):
    before = await conn.fetchval("SHOW TimeZone")
    await conn.execute("SET TimeZone TO 'Europe/Berlin'")
    equal(conn.get_settings().TimeZone, "Europe/Berlin")
    equal(await conn.fetchval("SHOW TimeZone"), "Europe/Berlin")
    await conn.execute("RESET TimeZone")
    equal(await conn.fetchval("SELECT current_setting('TimeZone')"), before)
    equal(conn.get_server_version().major, 15)
    equal(await conn.fetchval("SELECT pg_backend_pid()"), conn.get_server_pid())


async def introspection(conn):
    """Types that the driver has to look up."""
    for query, expected in [
        ("SELECT ARRAY[1::bigint, NULL]", [1, None]),
        ("SELECT ARRAY['2024-01-01'::date]", [dt.date(2024, 1, 1)]),
        ("SELECT ARRAY[ROW(1, 'x')]", [(1, "x")]),
        ("SELECT 26::oid", 26),
        ("SELECT ARRAY[true, false]", [True, False]),
    ]:
        equal(await conn.fetchval(query), expected)
    statement = await conn.prepare("SELECT 1 WHERE 'x' = ANY($1)")
    equal(statement.get_parameters()[0].name, "text[]")
    equal(await statement.fetchval(["x"]), 1)


async def errors(conn):
    error = await raises("42601", conn.fetch("SELECT 1 +"))
    equal(error.severity, "ERROR")
    error = await raises("42703", conn.fetch("SELECT 'é', nothing_like_it"))
    equal(error.position, "13")
    await raises("22012", conn.fetch("SELECT 1/$1::int4", 0))
    await raises("42601", conn.fetch("SELECT $1::int4; SELECT 2", 1))
    equal(await conn.fetchval("SELECT 1"), 1)


async def transactions(conn):
    await conn.execute("DROP TABLE IF EXISTS asyncpg_tx")
    await conn.execute("CREATE TABLE asyncpg_tx (a integer PRIMARY KEY)")
    async with conn.transaction():
        await conn.execute("INSERT INTO asyncpg_tx VALUES ($1)", 1)
    try:
        async with conn.transaction():
            await conn.execute("INSERT INTO asyncpg_tx VALUES ($1)", 2)
            await conn.execute("SELECT 1/0")
    except asyncpg.DivisionByZeroError:
        pass
    equal(await conn.fetch("SELECT a FROM asyncpg_tx"), [(1,)])
    await raises("23505", conn.execute("INSERT INTO asyncpg_tx VALUES (1)"))
    await conn.executemany("INSERT INTO asyncpg_tx VALUES ($1)", [(n,) for n in range(10, 110)])
    equal(await conn.fetchval("SELECT count(*) FROM asyncpg_tx"), 101)


async def copy(conn):
    await conn.execute("DROP TABLE IF EXISTS asyncpg_copy")
    await conn.execute("CREATE TABLE asyncpg_copy (a integer PRIMARY KEY, b text)")

    async def lines():
        for n in range(5000):
            yield f"{n}\t{chr(92)}N\n".encode()

    equal(await conn.copy_to_table("asyncpg_copy", source=lines()), "COPY 5000")

    async def csv():
        yield b"-1,'a,\n"
        yield b"b'\n"

    equal(await conn.copy_to_table("asyncpg_copy", source=csv(), format="csv", quote="'"), "COPY 1")
    out = bytearray()

    async def take(data):
        out.extend(data)

    tag = await conn.copy_from_query("SELECT * FROM asyncpg_copy WHERE a < $1 ORDER BY a", 1, output=take)
    equal(tag, "COPY 2")
    equal(bytes(out), b"-1\ta,\\nb\n0\t\\N\n")

    async def broken():
        yield b"x\ty\n"

    await raises("22P02", conn.copy_to_table("asyncpg_copy", source=broken()))
    equal(await conn.fetchval("SELECT count(*) FROM asyncpg_copy"), 5001)


async def cursors(conn):
    """Portals with a limit on rows."""
    async with conn.transaction():
        query = "SELECT a FROM asyncpg_copy WHERE a >= $1 ORDER BY a"
        seen = [row[0] async for row in conn.cursor(query, 0, prefetch=700)]
        equal(seen, list(range(5000)))
        cursor = await conn.cursor(query, 0)
        equal([r[0] for r in await cursor.fetch(3)], [0, 1, 2])
        # Another statement in between does not disturb it.
        equal(await conn.fetchval("SELECT 5"), 5)
        await cursor.forward(10)
        equal((await cursor.fetchrow())[0], 13)


async def cancel(conn):
    # A timeout of the client cancels on the server.
    try:
        await conn.fetch("SELECT pg_sleep(60)", timeout=0.3)
    except asyncio.TimeoutError:
        pass
    else:
        raise AssertionError("it slept on")
    equal(await conn.fetchval("SELECT 2"), 2)


async def pool(conn):
    """A pool resets its connections with several statements of Postgres's own."""
    async with asyncpg.create_pool(min_size=1, max_size=2) as connections:
        async def one(n):
            async with connections.acquire() as member:
                return await member.fetchval("SELECT $1::int4", n)

        equal(await asyncio.gather(*(one(n) for n in range(20))), list(range(20)))


async def subscribe(conn):
    await conn.execute("DROP TABLE IF EXISTS asyncpg_live")
    await conn.execute("CREATE TABLE asyncpg_live (a integer PRIMARY KEY)")
    await conn.execute("INSERT INTO asyncpg_live VALUES (1)")
    writer = await asyncpg.connect()
    async with conn.transaction():
        # The driver hands rows out when a query has ended; a cursor ends with what is there.
        await conn.execute("DECLARE live CURSOR FOR SUBSCRIBE (SELECT a FROM asyncpg_live)")
        seen = await conn.fetch("FETCH 10 live")
        for n in (2, 3):
            await writer.execute("INSERT INTO asyncpg_live VALUES ($1)", n)
            seen += await conn.fetch("FETCH 10 live")
        equal([row["a"] for row in seen], [1, 2, 3])
    # Or row by row.
    async with conn.transaction():
        cursor = await conn.cursor("SUBSCRIBE (SELECT a FROM asyncpg_live WHERE a > 2)")
        equal((await cursor.fetchrow())["a"], 3)
        await writer.execute("INSERT INTO asyncpg_live VALUES (4)")
        equal((await cursor.fetchrow())["a"], 4)
    await writer.close()
    equal(await conn.fetchval("SELECT 3"), 3)


async def main():
    tests = [types, statements, settings, introspection, errors, transactions, copy, cursors, cancel, pool]
    if MILLSTREAM:
        tests.append(subscribe)
    failed = 0
    for test in tests:
        try:
            conn = await asyncpg.connect()
            await test(conn)
            await conn.close()
            print("ok", test.__name__, flush=True)
        except Exception:
            failed += 1
            print("FAILED", test.__name__, traceback.format_exc(), flush=True)
    sys.exit(failed)


asyncio.run(main())
