// node-postgres against the server that PGHOST, PGPORT, PGUSER and PGDATABASE name.

const assert = require('node:assert/strict')
const { Client, Pool, Query, types } = require('pg')

// What only Millstream has is left out against another server.
const MILLSTREAM = (process.env.CLIENT_TEST_SERVER ?? 'millstream') === 'millstream'

// Timestamps and dates as text: JavaScript's have no microseconds.
for (const oid of [1082, 1114, 1184]) types.setTypeParser(oid, (text) => text)

async function raises(sqlstate, promise) {
  let found
  await assert.rejects(promise, (error) => ((found = error), true))
  assert.equal(found.code, sqlstate, found.message)
  return found
}

async function typesTest(client) {
  await client.query('DROP TABLE IF EXISTS node_types')
  await client.query(`CREATE TABLE node_types (
    id integer PRIMARY KEY, b boolean, i2 smallint, i4 integer, i8 bigint, f4 real,
    f8 double precision, n numeric(20,5), t text, y bytea, d date, tm time, ts timestamp,
    tz timestamptz, iv interval, u uuid, j json, jb jsonb, ai integer[], at text[])`)
  const row = {
    id: 1,
    b: true,
    i2: -32768,
    i4: 2147483647,
    i8: '-9223372036854775808',
    f4: 1.5,
    f8: 0.1,
    n: '123456789012345.67890',
    t: 'héllo\t\\"',
    y: Buffer.from([0, 255, 92]),
    d: '2024-02-29',
    tm: '23:59:59.999999',
    ts: '2024-02-29 12:34:56.789',
    tz: '2024-02-29 12:34:56.789+00',
    iv: '1 year 2 mons 3 days 04:05:06.7',
    u: 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
    j: { a: [1, null] },
    jb: { b: { c: 'd' } },
    ai: [1, null, -3],
    at: ['a', null, 'x"y', '', '{z},'],
  }
  const names = Object.keys(row)
  const marks = names.map((_, n) => `$${n + 1}`)
  const inserted = await client.query(
    `INSERT INTO node_types (${names}) VALUES (${marks})`,
    Object.values(row))
  assert.equal(inserted.command, 'INSERT')
  assert.equal(inserted.rowCount, 1)
  await client.query('INSERT INTO node_types (id) VALUES ($1)', [2])
  const interval = { years: 1, months: 2, days: 3, hours: 4, minutes: 5, seconds: 6, milliseconds: 700 }
  for (const binary of [false, true]) {
    // Its readers of binary know a few types only.
    const columns = binary ? ['id', 'b', 'i2', 'i4', 'i8', 'f4', 'f8', 't'] : names
    const query = { text: `SELECT ${columns} FROM node_types ORDER BY id`, binary, values: [] }
    const found = await client.query(query)
    const expected = Object.fromEntries(columns.map((name) => [name, row[name]]))
    if (!binary) {
      assert.deepEqual({ ...found.rows[0].iv }, interval)
      found.rows[0].iv = row.iv
    }
    assert.deepEqual({ ...found.rows[0] }, expected)
    const nulls = Object.fromEntries(columns.map((name) => [name, name === 'id' ? 2 : null]))
    assert.deepEqual({ ...found.rows[1] }, nulls)
  }
}

async function statements(client) {
  const several = await client.query("SELECT 1 AS a; SELECT 'x' AS b, 2 AS c")
  assert.deepEqual(several.map((r) => r.rows.map((row) => ({ ...row }))), [[{ a: 1 }], [{ b: 'x', c: 2 }]])
  for (let n = 0; n < 3; n++) {
    const named = { name: 'add', text: 'SELECT $1::int4 + $2::int4 AS total', values: [n, 1] }
    assert.equal((await client.query(named)).rows[0].total, n + 1)
  }
  const array = await client.query({ text: 'SELECT 1, 2', rowMode: 'array' })
  assert.deepEqual(array.rows, [[1, 2]])
  assert.equal((await client.query('')).command, null)
  const found = await client.query('SELECT id, n FROM node_types LIMIT 0')
  assert.deepEqual(found.fields.map((f) => [f.name, f.dataTypeID]), [['id', 23], ['n', 1700]])
  let notice = ''
  client.once('notice', (message) => { notice = message.message })
  await client.query('DROP TABLE IF EXISTS nothing_like_it')
  assert.match(notice, /nothing_like_it.*does not exist, skipping/)
}

async function errors(client) {
  const error = await raises('42601', client.query('SELECT 1 +'))
  assert.equal(error.severity, 'ERROR')
  assert.equal((await raises('42703', client.query("SELECT 'é', nothing_like_it"))).position, '13')
  await raises('42703', client.query('SELECT nothing_like_it WHERE 1 = $1', [1]))
  await raises('22P02', client.query('SELECT $1::int4', ['x']))
  await raises('22012', client.query('SELECT 1/$1::int4', [0]))
  assert.equal((await client.query('SELECT 1 AS a')).rows[0].a, 1)
}

async function transactions(client) {
  await client.query('DROP TABLE IF EXISTS node_tx')
  await client.query('CREATE TABLE node_tx (a integer PRIMARY KEY)')
  await client.query('BEGIN')
  await client.query('INSERT INTO node_tx VALUES ($1)', [1])
  await client.query('COMMIT')
  await client.query('BEGIN')
  await client.query('INSERT INTO node_tx VALUES (2)')
  await raises('22012', client.query('SELECT 1/0'))
  await raises('25P02', client.query('SELECT 1'))
  assert.equal((await client.query('COMMIT')).command, 'ROLLBACK')
  await raises('23505', client.query('INSERT INTO node_tx VALUES (1)'))
  assert.equal((await client.query('SELECT * FROM node_tx')).rowCount, 1)
}

async function settings(client) {
  await client.query("SET TimeZone TO 'Europe/Berlin'")
  assert.equal((await client.query('SHOW TimeZone')).rows[0].TimeZone, 'Europe/Berlin')
  await client.query('RESET TimeZone')
  // A statement with a name is prepared once.
  for (let n = 0; n < 3; n++) {
    const found = await client.query({ name: 'named', text: 'SELECT $1::int4 + 1 AS n', values: [n] })
    assert.equal(found.rows[0].n, n + 1)
  }
}

async function queue(client) {
  // Queries are queued, answers come in order.
  const answers = []
  for (let n = 0; n < 50; n++) answers.push(client.query('SELECT $1::int4 AS n', [n]))
  const found = await Promise.all(answers)
  assert.deepEqual(found.map((r) => r.rows[0].n), [...Array(50).keys()])
}

async function cancel(client) {
  const sleep = new Query('SELECT pg_sleep(60)')
  const ended = new Promise((resolve) => sleep.on('error', resolve))
  client.query(sleep)
  await new Promise((resolve) => setTimeout(resolve, 300))
  new Client().cancel(client, sleep)
  assert.equal((await ended).code, '57014')
  assert.equal((await client.query('SELECT 2 AS a')).rows[0].a, 2)
}

async function pool() {
  const clients = new Pool({ max: 3 })
  const found = await Promise.all([...Array(20).keys()].map((n) => clients.query('SELECT $1::int4 AS n', [n])))
  assert.deepEqual(found.map((r) => r.rows[0].n), [...Array(20).keys()])
  await clients.end()
}

async function subscribe(client) {
  await client.query('DROP TABLE IF EXISTS node_live')
  await client.query('CREATE TABLE node_live (a integer PRIMARY KEY)')
  await client.query('INSERT INTO node_live VALUES (1)')
  const reader = new Client()
  await reader.connect()
  const query = new Query('SUBSCRIBE (SELECT a FROM node_live)')
  const seen = []
  let wake
  query.on('row', (row) => { seen.push(row.a); wake?.() })
  const ended = new Promise((resolve) => query.on('error', resolve))
  reader.query(query)
  for (let n = 1; n <= 3; n++) {
    if (n > 1) await client.query('INSERT INTO node_live VALUES ($1)', [n])
    while (seen.length < n) await new Promise((resolve) => { wake = resolve })
  }
  assert.deepEqual(seen, [1, 2, 3])
  new Client().cancel(reader, query)
  assert.equal((await ended).code, '57014')
  await reader.end()
}

async function main() {
  const tests = { types: typesTest, statements, settings, errors, transactions, queue, cancel, pool }
  if (MILLSTREAM) tests.subscribe = subscribe
  let failed = 0
  for (const [name, test] of Object.entries(tests)) {
    const client = new Client()
    try {
      await client.connect()
      await test(client)
      console.log('ok', name)
    } catch (error) {
      failed++
      console.log('FAILED', name, error)
    }
    await client.end()
  }
  process.exit(failed)
}

main()
