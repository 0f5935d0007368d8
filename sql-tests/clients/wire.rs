//! The protocol byte by byte: what drivers never send, and what they rely on without showing it.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::TestServer;

/// A client that sends what it is told.
struct RawClient {
    stream: TcpStream,
    /// From BackendKeyData: process id and secret.
    key: Vec<u8>,
}

/// A message of the server, shown as `T`, `C SELECT 1`, `E 42601 text`.
type Shown = String;

impl RawClient {
    async fn connect(address: SocketAddr) -> RawClient {
        let mut client = RawClient::open(address).await;
        client.send_startup(196_608, &[("user", "ann"), ("database", "millstream")]).await;
        let answers = client.until('Z').await;
        assert_eq!(answers.first().map(String::as_str), Some("R"), "{answers:?}");
        client
    }

    async fn open(address: SocketAddr) -> RawClient {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        RawClient { stream, key: Vec::new() }
    }

    async fn send_startup(&mut self, version: u32, parameters: &[(&str, &str)]) {
        let mut content = version.to_be_bytes().to_vec();
        for (name, value) in parameters {
            content.extend_from_slice(format!("{name}\0{value}\0").as_bytes());
        }
        content.push(0);
        self.send_bare(&content).await;
    }

    /// A packet without a type.
    async fn send_bare(&mut self, content: &[u8]) {
        let length = (content.len() as u32 + 4).to_be_bytes();
        let packet = [&length[..], content].concat();
        self.stream.write_all(&packet).await.expect("the server reads");
    }

    /// Messages, each a type and its content, in one write.
    async fn send(&mut self, messages: &[(char, &[u8])]) {
        let mut packet = Vec::new();
        for (kind, content) in messages {
            packet.push(*kind as u8);
            packet.extend_from_slice(&(content.len() as u32 + 4).to_be_bytes());
            packet.extend_from_slice(content);
        }
        self.stream.write_all(&packet).await.expect("the server reads");
    }

    /// The next message; `None` when the server hung up.
    async fn next(&mut self) -> Option<(char, Vec<u8>)> {
        let mut head = [0; 5];
        let read = tokio::time::timeout(Duration::from_secs(60), self.stream.read_exact(&mut head));
        read.await.expect("an answer in time").ok()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
        let mut content = vec![0; length];
        self.stream.read_exact(&mut content).await.ok()?;
        Some((char::from(head[0]), content))
    }

    /// All messages up to the first of that type.
    async fn until(&mut self, last: char) -> Vec<Shown> {
        let mut shown = Vec::new();
        while let Some((kind, content)) = self.next().await {
            if kind == 'K' {
                self.key = content.clone();
            }
            // The settings are looked at in a test of their own.
            if kind != 'S' {
                shown.push(show(kind, &content));
            }
            if kind == last {
                return shown;
            }
        }
        shown.push("gone".to_owned());
        shown
    }

    /// Sends messages and gives what comes up to ReadyForQuery.
    async fn ask(&mut self, messages: &[(char, &[u8])]) -> Vec<Shown> {
        self.send(messages).await;
        self.until('Z').await
    }
}

fn show(kind: char, content: &[u8]) -> Shown {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned();
    match kind {
        'C' => format!("C {}", text(content)),
        'Z' => format!("Z {}", text(content)),
        'D' => format!("D {}", content.len()),
        'E' => {
            let field = |wanted: u8| {
                let mut fields = content.split(|b| *b == 0);
                let found = fields.find(|f| f.first() == Some(&wanted));
                found.map_or(String::new(), |f| text(&f[1..]))
            };
            format!("E {} {}", field(b'S'), field(b'C'))
        }
        _ => kind.to_string(),
    }
}

/// Content of Parse, Bind and Execute.
fn parse(name: &str, sql: &str) -> Vec<u8> {
    format!("{name}\0{sql}\0\0\0").into_bytes()
}

fn bind(portal: &str, statement: &str) -> Vec<u8> {
    format!("{portal}\0{statement}\0\0\0\0\0\0\0").into_bytes()
}

fn execute(portal: &str, rows_max: u32) -> Vec<u8> {
    [format!("{portal}\0").as_bytes(), &rows_max.to_be_bytes()].concat()
}

#[test]
fn encryption_is_refused_and_versions_are_negotiated() {
    TestServer::start().run(async |address| {
        let mut client = RawClient::open(address).await;
        for code in [80_877_104u32, 80_877_103] {
            client.send_bare(&code.to_be_bytes()).await;
            assert_eq!(client.stream.read_u8().await.expect("an answer"), b'N');
        }
        let parameters = [("user", "ann"), ("_pq_.new", "1"), ("application_name", "raw")];
        client.send_startup(196_610, &parameters).await;
        let mut settings = Vec::new();
        let mut order = String::new();
        while let Some((kind, content)) = client.next().await {
            if kind == 'v' {
                // 3.0, and the option that nobody here knows.
                assert_eq!(content, [&[0, 3, 0, 0, 0, 0, 0, 1][..], b"_pq_.new\0"].concat());
            }
            if kind == 'S' {
                settings.push(String::from_utf8(content).expect("text"));
            } else {
                order.push(kind);
            }
            if kind == 'Z' {
                break;
            }
        }
        assert_eq!(order, "vRKZ");
        for expected in [
            "server_encoding\0UTF8\0",
            "client_encoding\0UTF8\0",
            "DateStyle\0ISO, MDY\0",
            "TimeZone\0UTC\0",
            "integer_datetimes\0on\0",
            "standard_conforming_strings\0on\0",
            "IntervalStyle\0postgres\0",
            "application_name\0raw\0",
        ] {
            assert!(settings.iter().any(|s| s == expected), "{expected:?} in {settings:?}");
        }
        assert!(settings.iter().any(|s| s.starts_with("server_version\x0015.")), "{settings:?}");
    });
}

#[test]
fn who_is_not_let_in() {
    TestServer::start().run(async |address| {
        for (version, parameters, expected) in [
            (196_608, vec![("user", "ann"), ("database", "nothing_like_it")], "E FATAL 3D000"),
            (196_608, vec![("database", "millstream")], "E FATAL 28000"),
            (196_608, vec![("user", "ann"), ("replication", "true")], "E FATAL 0A000"),
            (131_072, vec![("user", "ann")], "E FATAL 0A000"),
        ] {
            let mut client = RawClient::open(address).await;
            client.send_startup(version, &parameters).await;
            assert_eq!(client.until('Z').await, [expected, "gone"]);
        }
        let mut client = RawClient::open(address).await;
        client.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.expect("the server reads");
        assert_eq!(client.until('Z').await, ["E FATAL 08P01", "gone"]);
    });
}

#[test]
fn an_error_skips_to_sync() {
    TestServer::start().run(async |address| {
        let mut client = RawClient::connect(address).await;
        let good = parse("", "SELECT 1");
        let bad = parse("", "SELECT nothing_like_it");
        let messages: [(char, &[u8]); 12] = [
            ('P', &good),
            ('B', &bind("", "")),
            ('D', b"P\0"),
            ('E', &execute("", 0)),
            ('P', &bad),
            ('B', &bind("", "")),
            ('E', &execute("", 0)),
            ('S', b""),
            ('P', &good),
            ('B', &bind("", "")),
            ('E', &execute("", 0)),
            ('S', b""),
        ];
        client.send(&messages).await;
        let row = "D 7";
        let first = client.until('Z').await;
        assert_eq!(first, ["1", "2", "T", row, "C SELECT 1", "E ERROR 42703", "Z I"]);
        assert_eq!(client.until('Z').await, ["1", "2", row, "C SELECT 1", "Z I"]);
        // In a block the error stays until its end.
        assert_eq!(client.ask(&[('Q', b"BEGIN\0")]).await, ["C BEGIN", "Z T"]);
        let answers = client.ask(&[('B', b"\0nothing\0\0\0\0\0\0\0"), ('S', b"")]).await;
        assert_eq!(answers, ["E ERROR 26000", "Z E"]);
        let answers = client.ask(&[('Q', b"SELECT 1\0")]).await;
        assert_eq!(answers, ["E ERROR 25P02", "Z E"]);
        assert_eq!(client.ask(&[('Q', b"COMMIT\0")]).await, ["C ROLLBACK", "Z I"]);
    });
}

#[test]
fn the_life_of_portals() {
    TestServer::start().run(async |address| {
        let mut client = RawClient::connect(address).await;
        client.ask(&[('Q', b"CREATE TABLE t (a integer PRIMARY KEY)\0")]).await;
        let select = parse("s", "SELECT * FROM generate_series(1, 5)");
        let insert = parse("i", "INSERT INTO t VALUES (1)");
        let answers = client
            .ask(&[
                ('P', &select),
                ('P', &insert),
                ('P', &parse("e", "")),
                ('B', &bind("p", "s")),
                ('E', &execute("p", 2)),
                ('E', &execute("p", 2)),
                ('E', &execute("p", 2)),
                ('E', &execute("p", 2)),
                ('B', &bind("q", "i")),
                ('E', &execute("q", 0)),
                ('B', &bind("", "e")),
                ('D', b"P\0"),
                ('E', &execute("", 0)),
                ('C', b"Pp\0"),
                ('C', b"Pnothing_like_it\0"),
                ('E', &execute("q", 0)),
                ('S', b""),
            ])
            .await;
        let row = answers[4].clone();
        assert!(row.starts_with('D'), "{answers:?}");
        let expected = [
            "1",
            "1",
            "1",
            "2",
            &row,
            &row,
            "s",
            &row,
            &row,
            "s",
            &row,
            "C SELECT 1",
            "C SELECT 0",
            "2",
            "C INSERT 0 1",
            "2",
            "n",
            "I",
            "3",
            "3",
            "E ERROR 55000",
            "Z I",
        ];
        assert_eq!(answers, expected);
        // Outside of a block a portal ends with Sync, inside with the block.
        client.ask(&[('B', &bind("p", "s")), ('E', &execute("p", 2)), ('S', b"")]).await;
        let answers = client.ask(&[('E', &execute("p", 2)), ('S', b"")]).await;
        assert_eq!(answers, ["E ERROR 34000", "Z I"]);
        client.ask(&[('Q', b"BEGIN\0")]).await;
        client.ask(&[('B', &bind("p", "s")), ('E', &execute("p", 2)), ('S', b"")]).await;
        let answers = client.ask(&[('E', &execute("p", 0)), ('S', b"")]).await;
        assert_eq!(answers, [&row, &row, &row, "C SELECT 3", "Z T"]);
        let answers = client.ask(&[('B', &bind("p", "s")), ('S', b"")]).await;
        assert_eq!(answers, ["E ERROR 42P03", "Z E"]);
        client.ask(&[('Q', b"ROLLBACK\0")]).await;
        // Names of statements last.
        let answers = client.ask(&[('P', &select), ('S', b"")]).await;
        assert_eq!(answers, ["E ERROR 42P05", "Z I"]);
        let deallocate = client.ask(&[('Q', b"DEALLOCATE s\0")]).await;
        assert_eq!(deallocate, ["C DEALLOCATE", "Z I"]);
        let answers = client.ask(&[('P', &select), ('D', b"Ss\0"), ('S', b"")]).await;
        assert_eq!(answers, ["1", "t", "T", "Z I"]);
    });
}

#[test]
fn flush_answers_without_an_end() {
    TestServer::start().run(async |address| {
        let mut client = RawClient::connect(address).await;
        client.send(&[('P', &parse("", "SELECT 1")), ('D', b"S\0"), ('H', b"")]).await;
        assert_eq!(client.until('T').await, ["1", "t", "T"]);
        assert_eq!(client.ask(&[('S', b"")]).await, ["Z I"]);
    });
}

#[test]
fn messages_that_make_no_sense() {
    TestServer::start().run(async |address| {
        let mut client = RawClient::connect(address).await;
        // Cut off inside: an error of this message, and the next is understood.
        let broken = client.ask(&[('P', b"s\0SELECT 1\0\0\x09"), ('S', b"")]).await;
        assert_eq!(broken, ["E ERROR 08P01", "Z I"]);
        assert_eq!(client.ask(&[('Q', b"SELECT \xff\0")]).await, ["E ERROR 22021", "Z I"]);
        assert_eq!(client.ask(&[('F', b"\0\0\0\0")]).await, ["E ERROR 0A000", "Z I"]);
        // Left over from a COPY that failed.
        let answers = client.ask(&[('d', b"1\n"), ('c', b""), ('S', b"")]).await;
        assert_eq!(answers, ["Z I"]);
        // Parameters that do not fit the statement.
        let answers = client
            .ask(&[
                ('P', &parse("", "SELECT $1::integer")),
                ('B', &bind("", "")),
                ('S', b""),
                ('B', b"\0\0\0\x02\0\0\0\0\0\x01\0\0\0\x011\0\0"),
                ('S', b""),
            ])
            .await;
        assert_eq!(answers, ["1", "E ERROR 08P01", "Z I"]);
        assert_eq!(client.until('Z').await, ["E ERROR 08P01", "Z I"]);
        // A type that there is not: nobody knows where the next message begins.
        assert_eq!(client.ask(&[('?', b"")]).await, ["E FATAL 08P01", "gone"]);
    });
}

#[test]
fn only_the_secret_cancels() {
    TestServer::start().run(async |address| {
        let mut client = RawClient::connect(address).await;
        client.send(&[('Q', b"SELECT pg_sleep(60)\0")]).await;
        let mut wrong = client.key.clone();
        wrong[7] ^= 1;
        for key in [wrong, client.key.clone()] {
            tokio::time::sleep(Duration::from_millis(200)).await;
            let mut canceller = RawClient::open(address).await;
            let code = 80_877_102u32.to_be_bytes();
            canceller.send_bare(&[&code[..], &key].concat()).await;
            assert_eq!(canceller.until('Z').await, ["gone"]);
        }
        let answers = client.until('Z').await;
        assert_eq!(answers[answers.len() - 2..], ["E ERROR 57014", "Z I"]);
    });
}

/// How many clients but the asking one there are.
async fn others(client: &mut RawClient) -> usize {
    let sql = b"SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid()\0";
    let answers = client.ask(&[('Q', sql)]).await;
    answers.iter().filter(|a| a.starts_with('D')).count()
}

#[test]
fn a_client_that_hangs_up_stops_its_statement() {
    TestServer::start().run(async |address| {
        let mut watcher = RawClient::connect(address).await;
        watcher.ask(&[('Q', b"CREATE TABLE t (a integer PRIMARY KEY)\0")]).await;
        for sql in [&b"SELECT pg_sleep(600)\0"[..], b"SUBSCRIBE t\0", b"COPY t FROM STDIN\0"] {
            let mut client = RawClient::connect(address).await;
            client.send(&[('Q', sql)]).await;
            while others(&mut watcher).await == 0 {}
            drop(client);
            let gone = async { while others(&mut watcher).await > 0 {} };
            tokio::time::timeout(Duration::from_secs(30), gone).await.expect("its session ends");
        }
    });
}
