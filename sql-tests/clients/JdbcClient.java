// The JDBC driver against the server that PGHOST, PGPORT, PGUSER and PGDATABASE name.
// Run as one source file: java -cp postgresql.jar JdbcClient.java

import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.sql.*;
import java.time.*;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.util.PGInterval;
import org.postgresql.util.PGobject;
import org.postgresql.util.PSQLException;

public class JdbcClient {
    // What only Millstream has is left out against another server.
    static final boolean MILLSTREAM =
        System.getenv().getOrDefault("CLIENT_TEST_SERVER", "millstream").equals("millstream");

    interface Action {
        void run() throws Exception;
    }

    interface Test {
        void run(Connection c) throws Exception;
    }

    static int failed = 0;

    static Connection connect(String... options) throws SQLException {
        String url = "jdbc:postgresql://" + System.getenv("PGHOST") + ":" + System.getenv("PGPORT")
            + "/" + System.getenv("PGDATABASE") + "?user=" + System.getenv("PGUSER");
        for (String option : options) url += "&" + option;
        return DriverManager.getConnection(url);
    }

    static void equal(Object found, Object expected) {
        boolean same = found instanceof byte[] bytes && expected instanceof byte[] others
            ? Arrays.equals(bytes, others)
            : Objects.equals(found, expected);
        if (!same) throw new AssertionError(found + " is not " + expected);
    }

    static PSQLException raises(String sqlstate, Action action) throws Exception {
        try {
            action.run();
        } catch (PSQLException error) {
            equal(error.getSQLState(), sqlstate);
            return error;
        }
        throw new AssertionError("no error " + sqlstate);
    }

    static void execute(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement()) {
            s.execute(sql);
        }
    }

    static Object value(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql)) {
            if (!r.next()) throw new AssertionError("no row of " + sql);
            return r.getObject(1);
        }
    }

    static PGobject json(String type, String text) throws SQLException {
        PGobject object = new PGobject();
        object.setType(type);
        object.setValue(text);
        return object;
    }

    static void types() throws Exception {
        // Text format first, then binary from the first execution on.
        for (String mode : List.of("binaryTransfer=false", "binaryTransfer=true")) {
            try (Connection c = connect(mode, "prepareThreshold=-1", "stringtype=unspecified")) {
                execute(c, "DROP TABLE IF EXISTS jdbc_types");
                execute(c, "CREATE TABLE jdbc_types (id integer PRIMARY KEY, b boolean,"
                    + " i2 smallint, i4 integer, i8 bigint, f4 real, f8 double precision,"
                    + " n numeric(20,5), t text, y bytea, d date, tm time, ts timestamp,"
                    + " tz timestamptz, iv interval, u uuid, j json, jb jsonb, ai integer[],"
                    + " at text[])");
                UUID uuid = UUID.fromString("a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11");
                LocalDateTime stamp = LocalDateTime.of(2024, 2, 29, 12, 34, 56, 789_000_000);
                OffsetDateTime instant = stamp.atOffset(ZoneOffset.UTC);
                String insert = "INSERT INTO jdbc_types VALUES (" + "?, ".repeat(19) + "?)";
                try (PreparedStatement p = c.prepareStatement(insert)) {
                    p.setInt(1, 1);
                    p.setBoolean(2, true);
                    p.setShort(3, Short.MIN_VALUE);
                    p.setInt(4, Integer.MAX_VALUE);
                    p.setLong(5, Long.MIN_VALUE);
                    p.setFloat(6, 1.5f);
                    p.setDouble(7, 0.1);
                    p.setBigDecimal(8, new BigDecimal("123456789012345.67890"));
                    p.setString(9, "héllo\t\\\"");
                    p.setBytes(10, new byte[] {0, -1, 92});
                    p.setObject(11, LocalDate.of(2024, 2, 29));
                    p.setObject(12, LocalTime.of(23, 59, 59, 999_999_000));
                    p.setObject(13, stamp);
                    p.setObject(14, instant);
                    p.setObject(15, new PGInterval(1, 2, 3, 4, 5, 6.7));
                    p.setObject(16, uuid);
                    p.setObject(17, json("json", "{\"a\" : 1}"));
                    p.setObject(18, json("jsonb", "{\"a\" : 1}"));
                    p.setArray(19, c.createArrayOf("int4", new Integer[] {1, null, -3}));
                    p.setArray(20, c.createArrayOf("text", new String[] {"a", null, "x\"y", ""}));
                    equal(p.executeUpdate(), 1);
                    p.setInt(1, 2);
                    for (int column = 2; column <= 20; column++) p.setNull(column, Types.NULL);
                    equal(p.executeUpdate(), 1);
                }
                String query = "SELECT * FROM jdbc_types WHERE id = ?";
                try (PreparedStatement p = c.prepareStatement(query)) {
                    p.setInt(1, 1);
                    // The second time the driver knows the types and asks for binary.
                    for (int time = 0; time < 2; time++) {
                        ResultSet r = p.executeQuery();
                        r.next();
                        equal(r.getBoolean(2), true);
                        equal(r.getShort(3), Short.MIN_VALUE);
                        equal(r.getInt(4), Integer.MAX_VALUE);
                        equal(r.getLong(5), Long.MIN_VALUE);
                        equal(r.getFloat(6), 1.5f);
                        equal(r.getDouble(7), 0.1);
                        equal(r.getBigDecimal(8), new BigDecimal("123456789012345.67890"));
                        equal(r.getString(9), "héllo\t\\\"");
                        equal(r.getBytes(10), new byte[] {0, -1, 92});
                        equal(r.getObject(11, LocalDate.class), LocalDate.of(2024, 2, 29));
                        equal(r.getObject(12, LocalTime.class), LocalTime.of(23, 59, 59, 999_999_000));
                        equal(r.getObject(13, LocalDateTime.class), stamp);
                        equal(r.getObject(14, OffsetDateTime.class), instant);
                        equal(r.getObject(15), new PGInterval(1, 2, 3, 4, 5, 6.7));
                        equal(r.getObject(16), uuid);
                        equal(r.getString(17), "{\"a\" : 1}");
                        equal(r.getString(18), "{\"a\": 1}");
                        equal(List.of(1, -3).get(0), ((Integer[]) r.getArray(19).getArray())[0]);
                        equal(((Integer[]) r.getArray(19).getArray())[1], null);
                        equal(((String[]) r.getArray(20).getArray())[2], "x\"y");
                        ResultSetMetaData meta = r.getMetaData();
                        equal(meta.getColumnCount(), 20);
                        equal(meta.getColumnTypeName(14), "timestamptz");
                        equal(meta.getPrecision(8), 20);
                        equal(meta.getScale(8), 5);
                    }
                    p.setInt(1, 2);
                    ResultSet r = p.executeQuery();
                    r.next();
                    for (int column = 2; column <= 20; column++) equal(r.getObject(column), null);
                }
            }
        }
    }

    static void statements(Connection c) throws Exception {
        equal(value(c, "SELECT 1 + 1"), 2);
        try (Statement s = c.createStatement()) {
            // Several statements, several results.
            equal(s.execute("SELECT 1; SELECT 'x'"), true);
            ResultSet r = s.getResultSet();
            r.next();
            equal(r.getInt(1), 1);
            equal(s.getMoreResults(), true);
            r = s.getResultSet();
            r.next();
            equal(r.getString(1), "x");
            equal(s.getMoreResults(), false);
        }
        try (PreparedStatement p = c.prepareStatement("SELECT ?::int4 + 1")) {
            // More often than the threshold at which the driver names its statement.
            for (int n = 0; n < 10; n++) {
                p.setInt(1, n);
                ResultSet r = p.executeQuery();
                r.next();
                equal(r.getInt(1), n + 1);
            }
        }
        try (Connection simple = connect("preferQueryMode=simple")) {
            equal(value(simple, "SELECT 'simple'"), "simple");
        }
        DatabaseMetaData meta = c.getMetaData();
        equal(meta.getDatabaseProductName(), "PostgreSQL");
        try (ResultSet r = meta.getTables(null, "public", "jdbc_types", new String[] {"TABLE"})) {
            equal(r.next(), true);
            equal(r.getString("TABLE_NAME"), "jdbc_types");
        }
        try (ResultSet r = meta.getColumns(null, "public", "jdbc_types", "n")) {
            equal(r.next(), true);
            equal(r.getString("TYPE_NAME"), "numeric");
            equal(r.getInt("COLUMN_SIZE"), 20);
            equal(r.getInt("DECIMAL_DIGITS"), 5);
        }
    }

    // One column of a result, its values joined.
    static String column(ResultSet r, String name) throws SQLException {
        List<String> values = new ArrayList<>();
        while (r.next()) values.add(r.getString(name));
        return String.join(",", values);
    }

    // What tools on JDBC ask before they show anything.
    static void metadata(Connection c) throws Exception {
        for (String sql : List.of("VIEW jdbc_meta_view", "TABLE jdbc_meta")) {
            execute(c, "DROP " + sql.split(" ")[0] + " IF EXISTS " + sql.split(" ")[1]);
        }
        execute(c, "CREATE TABLE jdbc_meta (b text, a integer, d double precision DEFAULT 1.5,"
            + " PRIMARY KEY (b, a))");
        execute(c, "COMMENT ON TABLE jdbc_meta IS 'described'");
        execute(c, "CREATE VIEW jdbc_meta_view AS SELECT a FROM jdbc_meta");
        DatabaseMetaData meta = c.getMetaData();
        equal(column(meta.getTables(null, "public", "jdbc\\_meta%", null), "TABLE_NAME"),
            "jdbc_meta_pkey,jdbc_meta,jdbc_meta_view");
        String[] kinds = {"TABLE", "VIEW"};
        equal(column(meta.getTables(null, "public", "jdbc\\_meta%", kinds), "TABLE_TYPE"), "TABLE,VIEW");
        equal(column(meta.getTables(null, "public", "jdbc_meta", kinds), "REMARKS"), "described");
        equal(column(meta.getColumns(null, "public", "jdbc_meta", "%"), "COLUMN_NAME"), "b,a,d");
        equal(column(meta.getColumns(null, "public", "jdbc_meta", "%"), "TYPE_NAME"), "text,int4,float8");
        equal(column(meta.getColumns(null, "public", "jdbc_meta", "%"), "IS_NULLABLE"), "NO,NO,YES");
        equal(column(meta.getColumns(null, "public", "jdbc_meta", "d"), "COLUMN_DEF"), "1.5");
        try (ResultSet r = meta.getPrimaryKeys(null, "public", "jdbc_meta")) {
            for (int n = 1; n <= 2; n++) {
                equal(r.next(), true);
                equal(r.getString("COLUMN_NAME"), n == 1 ? "b" : "a");
                equal(r.getInt("KEY_SEQ"), n);
                equal(r.getString("PK_NAME"), "jdbc_meta_pkey");
            }
            equal(r.next(), false);
        }
        try (ResultSet r = meta.getIndexInfo(null, "public", "jdbc_meta", true, false)) {
            equal(column(r, "COLUMN_NAME"), "b,a");
        }
        equal(meta.getImportedKeys(null, "public", "jdbc_meta").next(), false);
        equal(meta.getExportedKeys(null, "public", "jdbc_meta").next(), false);
        equal(column(meta.getBestRowIdentifier(null, "public", "jdbc_meta",
            DatabaseMetaData.bestRowSession, false), "COLUMN_NAME"), "b,a");
        equal(column(meta.getSchemas(null, "public"), "TABLE_SCHEM"), "public");
        equal(column(meta.getCatalogs(), "TABLE_CAT").contains(c.getCatalog()), true);
        equal(column(meta.getTypeInfo(), "TYPE_NAME").contains("timestamptz"), true);
        equal(column(meta.getTablePrivileges(null, "public", "nothing"), "PRIVILEGE"), "");
        equal(meta.getFunctions(null, "public", "%").next(), false);
        equal(meta.getProcedures(null, "public", "%").next(), false);
        equal(meta.getSQLKeywords().contains("analyze"), true);
        equal(meta.getUserName(), System.getenv("PGUSER"));
        equal(c.getSchema(), "public");
        execute(c, "SET application_name TO 'tool'");
        equal(value(c, "SHOW application_name"), "tool");
    }

    static void errors(Connection c) throws Exception {
        PSQLException error = raises("42601", () -> execute(c, "SELECT 1 +"));
        equal(error.getServerErrorMessage().getSeverity(), "ERROR");
        error = raises("42703", () -> execute(c, "SELECT 'é', nothing_like_it"));
        equal(error.getServerErrorMessage().getPosition(), 13);
        raises("42P01", () -> execute(c, "SELECT * FROM nothing_like_it"));
        raises("22012", () -> execute(c, "SELECT 1/0"));
        raises("22P02", () -> execute(c, "SELECT 'x'::int4"));
        equal(value(c, "SELECT 1"), 1);
    }

    static void transactions(Connection c) throws Exception {
        execute(c, "DROP TABLE IF EXISTS jdbc_tx");
        execute(c, "CREATE TABLE jdbc_tx (a integer PRIMARY KEY, b text)");
        c.setAutoCommit(false);
        execute(c, "INSERT INTO jdbc_tx VALUES (1, 'x')");
        c.commit();
        execute(c, "INSERT INTO jdbc_tx VALUES (2, 'y')");
        raises("22012", () -> execute(c, "SELECT 1/0"));
        raises("25P02", () -> execute(c, "SELECT 1"));
        c.rollback();
        equal(value(c, "SELECT count(*) FROM jdbc_tx"), 1L);
        c.rollback();
        c.setAutoCommit(true);
        // A batch is sent as a pipeline.
        try (PreparedStatement p = c.prepareStatement("INSERT INTO jdbc_tx VALUES (?, ?)")) {
            for (int n = 10; n < 210; n++) {
                p.setInt(1, n);
                p.setString(2, "row " + n);
                p.addBatch();
            }
            int[] counts = p.executeBatch();
            equal(counts.length, 200);
            equal(counts[199], 1);
        }
        equal(value(c, "SELECT count(*) FROM jdbc_tx"), 201L);
        raises("23505", () -> execute(c, "INSERT INTO jdbc_tx VALUES (10, 'again')"));
    }

    static void cursors(Connection c) throws Exception {
        c.setAutoCommit(false);
        try (PreparedStatement p = c.prepareStatement("SELECT a FROM jdbc_tx WHERE a >= ? ORDER BY a")) {
            p.setFetchSize(7);
            p.setInt(1, 10);
            ResultSet r = p.executeQuery();
            int expected = 10;
            while (r.next()) equal(r.getInt(1), expected++);
            equal(expected, 210);
        }
        c.commit();
        c.setAutoCommit(true);
        try (Statement s = c.createStatement()) {
            s.setMaxRows(5);
            ResultSet r = s.executeQuery("SELECT a FROM jdbc_tx");
            int rows = 0;
            while (r.next()) rows++;
            equal(rows, 5);
        }
    }

    static void copy(Connection c) throws Exception {
        execute(c, "DROP TABLE IF EXISTS jdbc_copy");
        execute(c, "CREATE TABLE jdbc_copy (a integer PRIMARY KEY, b text)");
        var api = c.unwrap(PGConnection.class).getCopyAPI();
        equal(api.copyIn("COPY jdbc_copy FROM STDIN", new StringReader("1\ta\\tb\n2\t\\N\n")), 2L);
        String csv = "COPY jdbc_copy (b, a) FROM STDIN (FORMAT csv, DELIMITER ';', NULL 'nil')";
        equal(api.copyIn(csv, new StringReader("\"x;\"\"y\"\"\";3\nnil;4\n")), 2L);
        StringWriter out = new StringWriter();
        equal(api.copyOut("COPY (SELECT * FROM jdbc_copy ORDER BY a) TO STDOUT (FORMAT csv)", out), 4L);
        equal(out.toString(), "1,a\tb\n2,\n3,\"x;\"\"y\"\"\"\n4,\n");
        raises("22P02", () -> api.copyIn("COPY jdbc_copy FROM STDIN", new StringReader("x\ty\n")));
        equal(value(c, "SELECT count(*) FROM jdbc_copy"), 4L);
    }

    static void cancel(Connection c) throws Exception {
        try (Statement s = c.createStatement()) {
            Thread canceller = new Thread(() -> {
                try {
                    Thread.sleep(300);
                    s.cancel();
                } catch (Exception error) {
                    throw new RuntimeException(error);
                }
            });
            canceller.start();
            raises("57014", () -> s.execute("SELECT pg_sleep(60)"));
            canceller.join();
        }
        try (Statement s = c.createStatement()) {
            s.setQueryTimeout(1);
            raises("57014", () -> s.execute("SELECT pg_sleep(60)"));
        }
        equal(value(c, "SELECT 2"), 2);
    }

    static void subscribe(Connection c) throws Exception {
        execute(c, "DROP TABLE IF EXISTS jdbc_live");
        execute(c, "CREATE TABLE jdbc_live (a integer PRIMARY KEY)");
        execute(c, "INSERT INTO jdbc_live VALUES (1)");
        c.setAutoCommit(false);
        // The driver hands rows out when a query has ended; a cursor ends with what is there.
        execute(c, "DECLARE live CURSOR FOR SUBSCRIBE (SELECT a FROM jdbc_live)");
        try (Statement s = c.createStatement(); Connection writer = connect()) {
            for (int n = 1; n <= 3; n++) {
                if (n > 1) execute(writer, "INSERT INTO jdbc_live VALUES (" + n + ")");
                ResultSet r = s.executeQuery("FETCH 10 live");
                equal(r.next(), true);
                equal(r.getInt("a"), n);
                equal(r.next(), false);
            }
        }
        c.rollback();
        // Or row by row.
        try (Statement s = c.createStatement(); Connection writer = connect()) {
            s.setFetchSize(1);
            ResultSet r = s.executeQuery("SUBSCRIBE (SELECT a FROM jdbc_live WHERE a > 2)");
            for (int n = 3; n <= 5; n++) {
                if (n > 3) execute(writer, "INSERT INTO jdbc_live VALUES (" + n + ")");
                equal(r.next(), true);
                equal(r.getInt("a"), n);
            }
        }
        c.rollback();
        c.setAutoCommit(true);
        equal(value(c, "SELECT 3"), 3);
    }

    static void test(String name, Test test) {
        try (Connection c = connect()) {
            test.run(c);
            System.out.println("ok " + name);
        } catch (Exception | AssertionError error) {
            failed++;
            System.out.println("FAILED " + name);
            error.printStackTrace(System.out);
        }
    }

    public static void main(String[] arguments) {
        test("types", c -> types());
        test("statements", c -> statements(c));
        test("metadata", c -> metadata(c));
        test("errors", c -> errors(c));
        test("transactions", c -> transactions(c));
        test("cursors", c -> cursors(c));
        test("copy", c -> copy(c));
        test("cancel", c -> cancel(c));
        if (MILLSTREAM) test("subscribe", c -> subscribe(c));
        System.exit(failed);
    }
}
