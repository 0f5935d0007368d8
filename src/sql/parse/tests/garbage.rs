//! No text panics the parser, overflows its stack or keeps it busy; every error has a place.
//!
//! `MILLSTREAM_SEED` replays one run, `MILLSTREAM_GARBAGE_TEXTS` sets its length.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::parse;
use crate::observe::clock::Clock;

/// Words that the grammar knows, and some that it does not.
const WORDS: &str = "SELECT FROM WHERE WITH RECURSIVE AS ( ) [ ] { } < > >> >>> , . ; : :: := => \
    -> ->> #> @> ? ?| || + - * / % ^ = <> <= >= ! ~ @ # & | $1 $x $0 1 1.5 0x1F 12ab 'a' \"b\" `c` \
    E'x' x'ff' $$d$$ -- /* */ a b t f TABLE TUMBLE HOP SESSION DATA SIZE DESCRIPTOR PARTITION BY \
    ORDER GROUP HAVING LIMIT OFFSET FETCH FIRST ROWS ONLY UNION ALL EXCEPT INTERSECT VALUES INSERT \
    INTO UPDATE SET DELETE USING RETURNING ON CONFLICT DO NOTHING CREATE OR REPLACE MATERIALIZED \
    VIEW SOURCE SINK SCHEMA DATABASE INDEX DROP IF NOT EXISTS CASCADE ALTER RENAME TO COMMENT IS \
    NULL COPY STDIN STDOUT CSV FORMAT ENCODE SUBSCRIBE PROGRESS EXPLAIN ANALYZE SHOW TABLES LIKE \
    DESCRIBE RESET BEGIN COMMIT ROLLBACK PREPARE EXECUTE DECLARE CURSOR FOR NO CASE WHEN THEN ELSE \
    END CAST EXTRACT YEAR POSITION SUBSTRING TRIM INTERVAL DATE ARRAY STRUCT ROW MAP OVER WINDOW \
    BETWEEN PRECEDING CURRENT EXCLUDE TIES JOIN LEFT LATERAL NATURAL CROSS ASOF MATCH_RECOGNIZE \
    EMIT CHANGES WATERMARK PRIMARY KEY DEFAULT GENERATED ALWAYS IN ANY SOME AND OR XOR COLLATE AT \
    TIME ZONE UNNEST ORDINALITY DISTINCT FILTER WITHIN QUALIFY GROUPING SETS ROLLUP int text \
    varchar numeric timestamp OVERLAY CEIL CONVERT TRY_CAST TRUNCATE VERIFY FLUSH point path é";

/// Beginnings that lead deep into the grammar.
const BEGINNINGS: [&str; 12] = [
    "",
    "SELECT ",
    "SELECT * FROM ",
    "SELECT a FROM t WHERE ",
    "SELECT * FROM TABLE(TUMBLE(",
    "CREATE TABLE t (a ",
    "CREATE SOURCE s (a int, ",
    "CREATE MATERIALIZED VIEW v AS ",
    "INSERT INTO t ",
    "COPY t FROM STDIN WITH (",
    "EXPLAIN (",
    "SET ",
];

/// Far above what a text of these tests takes in an unoptimised build on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Parses on a stack as small as a server's thread may have.
fn parse_calmly(text: String) {
    let thread = std::thread::Builder::new().stack_size(2 << 20);
    let parsing = move || {
        let clock = Clock::system();
        if let Err(error) = parse(&text) {
            let position = error.body().position;
            let end = text.chars().count() + 1;
            assert!(
                position.is_some_and(|p| (1..=end).contains(&p)),
                "{text}\n{error:?} {position:?}"
            );
            assert!(!error.message().is_empty());
        }
        let took = clock.elapsed();
        assert!(took < PATIENCE, "{took:?} for {text}");
    };
    thread.spawn(parsing).expect("a thread").join().expect("the parser does not panic");
}

#[test]
fn random_words_never_panic() {
    let seed = setting("MILLSTREAM_SEED").unwrap_or_else(|| rand::rng().random());
    let texts = setting("MILLSTREAM_GARBAGE_TEXTS").unwrap_or(3_000);
    println!("MILLSTREAM_SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let words: Vec<&str> = WORDS.split_whitespace().collect();
    // One thread for many texts: starting one takes longer than parsing.
    for _ in 0..texts.div_ceil(100) {
        let batch: Vec<String> = (0..100).map(|_| random_text(&mut rng, &words)).collect();
        let whole = batch.clone();
        let parsing = move || {
            for text in batch {
                if let Err(error) = parse(&text) {
                    let position = error.body().position;
                    let end = text.chars().count() + 1;
                    let placed = position.is_some_and(|p| (1..=end).contains(&p));
                    assert!(placed, "{text}\n{error:?} at {position:?}");
                }
            }
        };
        let thread = std::thread::Builder::new().stack_size(2 << 20).spawn(parsing);
        let joined = thread.expect("a thread").join();
        assert!(joined.is_ok(), "seed {seed}: one of\n{}", whole.join("\n"));
    }
}

fn random_text(rng: &mut SmallRng, words: &[&str]) -> String {
    let mut text = BEGINNINGS.choose(rng).expect("a beginning").to_string();
    for _ in 0..rng.random_range(1..30) {
        text.push_str(words.choose(rng).expect("a word"));
        text.push_str(["", " ", " ", " ", "\n"].choose(rng).expect("a blank"));
    }
    text
}

fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn random_characters_never_panic() {
    let seed = setting("MILLSTREAM_SEED").unwrap_or_else(|| rand::rng().random());
    println!("MILLSTREAM_SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let characters: Vec<char> =
        "'\"`$;-/*\\\n\r\t (),.0123eExXuUbBnN&é\u{0}\u{a0}\u{1F600}a_".chars().collect();
    for _ in 0..2_000 {
        let length = rng.random_range(1..25);
        let text: String =
            (0..length).map(|_| *characters.choose(&mut rng).expect("one")).collect();
        if let Err(error) = parse(&text) {
            let position = error.body().position;
            let end = text.chars().count() + 1;
            assert!(
                position.is_some_and(|p| (1..=end).contains(&p)),
                "{text:?} {error:?} {position:?}"
            );
        }
    }
}

/// Each of these once took time or stack that grew without bound.
#[test]
fn deep_and_long_texts_end_soon() {
    let nests = [
        ("SELECT ", "(", "1", ")"),
        ("SELECT ", "f(", "1", ")"),
        ("SELECT ", "coalesce(1, ", "1", ")"),
        ("SELECT ", "CAST(", "1", " AS int)"),
        ("SELECT ", "CAST(", "", ""),
        ("SELECT ", "EXTRACT(year FROM ", "a", ""),
        ("SELECT ", "CASE WHEN ", "a", " THEN 1 END"),
        ("SELECT ", "CASE ", "a", ""),
        ("SELECT ", "NOT ", "a", ""),
        ("SELECT ", "- ", "1", ""),
        ("SELECT ", "INTERVAL ", "'1'", ""),
        ("SELECT ", "INTERVAL YEAR ", "'1'", ""),
        ("SELECT ", "ARRAY[", "1", "]"),
        ("SELECT ", "EXISTS (SELECT ", "1", ")"),
        ("SELECT ", "1 IN (SELECT ", "1", ")"),
        ("SELECT * FROM ", "(SELECT * FROM ", "t", ") x"),
        ("SELECT * FROM ", "(t JOIN ", "t", " ON true)"),
        ("SELECT * FROM ", "(t JOIN ", "t", ""),
        ("SELECT * FROM ", "TUMBLE(TABLE (SELECT * FROM ", "t", "), DESCRIPTOR(x), 1)"),
        ("", "WITH a AS (", "SELECT 1", ") SELECT 1"),
        ("", "EXPLAIN ", "SELECT 1", ""),
        ("SELECT x::", "ARRAY<", "int", ">"),
        ("CREATE TABLE t (a ", "ROW(a ", "int", ")"),
        ("CREATE TABLE t (a ", "STRUCT<a ", "int", ">"),
        ("SELECT 1", " + 1", "", ""),
        ("SELECT 1", "::int", "", ""),
        ("SELECT a", " OR b", "", ""),
        ("SELECT a", ".b", "", ""),
        ("SELECT a", "[1]", "", ""),
        ("SELECT a", " IS NULL", "", ""),
        ("SELECT a", " AT TIME ZONE 'x'", "", ""),
        ("SELECT 1", " UNION SELECT 1, 2", "", ""),
        ("SELECT * FROM a", " JOIN b ON true", "", ""),
        ("VALUES (1)", ", (1)", "", ""),
    ];
    for (begin, open, middle, close) in nests {
        for count in [20, 120, 900, 5_000] {
            parse_calmly(format!("{begin}{}{middle}{}", open.repeat(count), close.repeat(count)));
        }
    }
}

#[test]
fn what_is_too_deep_is_refused_with_its_place() {
    let rows = [
        (format!("SELECT {}1{}", "(".repeat(200), ")".repeat(200)), 7 + 128),
        (format!("SELECT x::{}int{}", "ARRAY<".repeat(40), ">".repeat(40)), 10 + 25 * 6),
        (format!("SELECT 1{}", "+1".repeat(1_200)), 8 + 2 * 1_000 + 1),
        (format!("SELECT a{}", " OR a".repeat(10_500)), 8 + 5 * 10_000 + 2),
        (format!("SELECT 1{}", " UNION SELECT 1".repeat(300)), 8 + 15 * 250 + 2),
        (format!("SELECT a{}", ".b".repeat(40)), 8 + 2 * 32 + 1),
    ];
    for (sql, position) in rows {
        let error = parse(&sql).expect_err("too deep");
        assert_eq!((error.sqlstate().0, error.body().position), ("54001", Some(position)));
    }
    // The bounds are of what hangs together: lists may be as long as they like.
    let list = format!("SELECT a + 1 FROM t WHERE a IN ({}1)", "1 + 1, ".repeat(20_000));
    parse(&list).expect("a long list");
}
