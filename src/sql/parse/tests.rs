use super::*;

#[test]
fn look() {
    let text = std::fs::read_to_string("/tmp/scratch.sql").unwrap();
    for sql in text.split("\n\n") {
        let sql = sql.trim_end_matches('\n');
        println!("--- {sql}");
        match parse(sql) {
            Ok(all) => {
                for p in all {
                    match &p.statement {
                        Statement::Query(q) => println!("Query {q}"),
                        Statement::Insert(q) => println!("Insert {q}"),
                        Statement::Update(q) => println!("Update {q}"),
                        Statement::Delete(q) => println!("Delete {q}"),
                        s => println!("{s:?}"),
                    }
                }
            }
            Err(e) => {
                let b = e.body();
                println!("ERROR {} {} @{:?} | {:?} | {:?}", b.sqlstate.0, b.message, b.position, b.detail, b.hint);
            }
        }
    }
}

#[test]
fn depth_scratch() {
    // each on a 2 MiB stack
    let n: usize = std::env::var("N").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    let cases: Vec<(&str, String)> = vec![
        ("plus", format!("SELECT 1{}", "+1".repeat(n))),
        ("or", format!("SELECT a OR b{}", " OR c".repeat(n))),
        ("union", format!("SELECT 1{}", " UNION SELECT 1".repeat(n))),
        ("cast", format!("SELECT 1{}", "::int".repeat(n))),
        ("paren", format!("SELECT {}1{}", "(".repeat(n), ")".repeat(n))),
        ("func", format!("SELECT {}1{}", "f(".repeat(n), ")".repeat(n))),
        ("minus", format!("SELECT {}1", "- ".repeat(n))),
        ("not", format!("SELECT {}1", "NOT ".repeat(n))),
        ("case", format!("SELECT {}1", "CASE WHEN ".repeat(n))),
        ("casee", format!("SELECT {}1", "CASE ".repeat(n))),
        ("interval", format!("SELECT {}1", "INTERVAL ".repeat(n))),
        ("array", format!("SELECT x::{}int", "ARRAY<".repeat(n))),
        ("sub", format!("SELECT * FROM {}t{}", "(SELECT * FROM ".repeat(n), ") x".repeat(n))),
        ("subsel", format!("SELECT {}1{}", "(SELECT ".repeat(n), ")".repeat(n))),
        ("joins", format!("SELECT * FROM {}t{}", "(t JOIN ".repeat(n), ")".repeat(n))),
        ("castf", format!("SELECT {}1", "CAST(".repeat(n))),
        ("idx", format!("SELECT a{}", "[1]".repeat(n))),
        ("row", format!("CREATE TABLE t (a {}int", "ROW(a ".repeat(n))),
        ("rowok", format!("CREATE TABLE t (a {}int{})", "ROW(a ".repeat(n), ")".repeat(n))),
        ("struct", format!("CREATE TABLE t (a {}int{})", "STRUCT<a ".repeat(n), ">".repeat(n))),
        ("exists", format!("SELECT {}1{}", "EXISTS (SELECT ".repeat(n), ")".repeat(n))),
        ("in", format!("SELECT {}1{}", "1 IN (SELECT ".repeat(n), ")".repeat(n))),
        ("ctes", format!("{}SELECT 1{}", "WITH a AS (".repeat(n), ") SELECT 1".repeat(n))),
        ("caseok", format!("SELECT {}1{}", "CASE WHEN ".repeat(n), " THEN 1 END".repeat(n))),
        ("tumble", format!("SELECT * FROM {}t{}", "TUMBLE(TABLE (SELECT * FROM ".repeat(n), "), DESCRIPTOR(x), 1)".repeat(n))),
        ("exec", format!("SELECT {}1{}", "coalesce(1, ".repeat(n), ")".repeat(n))),
        ("trim", format!("SELECT {}1{}", "TRIM(".repeat(n), ")".repeat(n))),
        ("castok", format!("SELECT {}1{}", "CAST(".repeat(n), " AS int)".repeat(n))),
        ("extract", format!("SELECT {}", "extract(year from ".repeat(n))),
        ("at", format!("SELECT a{}", " AT TIME ZONE 'x'".repeat(n))),
        ("is", format!("SELECT a{}", " IS NULL".repeat(n))),
        ("likes", format!("SELECT a{}", " LIKE b".repeat(n))),
        ("between", format!("SELECT a{}", " BETWEEN 1 AND 2".repeat(n))),
        ("collate", format!("SELECT a{}", " COLLATE x".repeat(n))),
        ("dots", format!("SELECT a{}", ".b".repeat(n))),
        ("values", format!("VALUES {}(1)", "(1),".repeat(n))),
        ("mapb", format!("SELECT {}", "MAP {".repeat(n))),
        ("arrayb", format!("SELECT {}1{}", "ARRAY[".repeat(n), "]".repeat(n))),
        ("qmark", format!("SELECT a{}", " ? b".repeat(n))),
        ("exp", format!("SELECT {}1", "SELECT ".repeat(n))),
        ("lat", format!("SELECT * FROM {}t", "LATERAL ".repeat(n))),
        ("tabl", format!("SELECT * FROM {}t", "TABLE(".repeat(n))),
        ("ex", format!("{}SELECT 1", "EXPLAIN ".repeat(n))),
        ("join", format!("SELECT * FROM a{}", " JOIN b".repeat(n))),
    ];
    let only = std::env::var("ONLY").unwrap_or_default();
    let clone = std::env::var("CLONE").is_ok();
    let stack: usize = std::env::var("STACK").ok().and_then(|n| n.parse().ok()).unwrap_or(2 << 20);
    for (name, sql) in cases {
        if !only.is_empty() && only != name { continue; }
        let sql2 = sql.clone();
        let t = std::time::Instant::now();
        let h = std::thread::Builder::new().stack_size(stack).spawn(move || {
            match parse(&sql2) {
                Ok(p) => { if clone { let q = p[0].statement.clone(); drop(q); } let s = format!("ok {}", p.len()); s }
                Err(e) => format!("{:?}", e.body().message),
            }
        }).unwrap();
        eprintln!("{name} {n}: {} {:?}", h.join().unwrap(), t.elapsed());
    }
}

const VOCAB: &str = "SELECT FROM WHERE WITH RECURSIVE AS ( ) [ ] { } < > >> >>> , . ; : :: := => -> ->> #> @> ? ?| || + - * / % ^ = <> <= >= ! ~ @ # & | $1 $x $0 1 1.5 0x1F 'a' \"b\" `c` E'x' x'ff' $$d$$ a b t f TABLE TUMBLE HOP SESSION DATA SIZE DESCRIPTOR PARTITION BY ORDER GROUP HAVING LIMIT OFFSET FETCH FIRST ROWS ONLY UNION ALL EXCEPT INTERSECT VALUES INSERT INTO UPDATE SET DELETE USING RETURNING ON CONFLICT DO NOTHING CREATE OR REPLACE MATERIALIZED VIEW SOURCE SINK SCHEMA DATABASE INDEX DROP IF NOT EXISTS CASCADE ALTER RENAME TO COMMENT IS NULL COPY STDIN STDOUT CSV FORMAT ENCODE SUBSCRIBE PROGRESS EXPLAIN ANALYZE SHOW TABLES LIKE DESCRIBE RESET BEGIN COMMIT ROLLBACK PREPARE EXECUTE DECLARE CURSOR FOR NO CASE WHEN THEN ELSE END CAST EXTRACT YEAR POSITION SUBSTRING TRIM INTERVAL DATE ARRAY STRUCT ROW MAP OVER WINDOW ROWS BETWEEN PRECEDING CURRENT EXCLUDE TIES JOIN LEFT LATERAL NATURAL CROSS ASOF MATCH_RECOGNIZE EMIT CHANGES WATERMARK PRIMARY KEY DEFAULT GENERATED ALWAYS IN ANY SOME AND OR XOR COLLATE AT TIME ZONE UNNEST ORDINALITY DISTINCT FILTER WITHIN QUALIFY GROUPING SETS ROLLUP int text varchar numeric timestamp PRIOR LAMBDA OVERLAY CEIL CONVERT TRY_CAST TRUNCATE VERIFY FLUSH point path";

#[test]
fn pairs_scratch() {
    let words: Vec<&str> = VOCAB.split(' ').collect();
    let from: usize = std::env::var("FROM").ok().and_then(|n| n.parse().ok()).unwrap_or(0);
    let n: usize = std::env::var("N").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let pre = std::env::var("PRE").unwrap_or("SELECT ".into());
    let log = std::fs::File::create("/tmp/pairs.log").unwrap();
    use std::io::{Write, Seek};
    let h = std::thread::Builder::new().stack_size(2 << 20).spawn(move || {
        let mut log = log;
        let total = words.len() * words.len();
        for i in from..total {
            let (a, b) = (words[i / words.len()], words[i % words.len()]);
            log.rewind().unwrap();
            writeln!(log, "{i} {a} {b}                    ").unwrap();
            let sql = format!("{pre}{}", format!("{a} {b} ").repeat(n));
            let t = std::time::Instant::now();
            let r = parse(&sql);
            let e = t.elapsed();
            if e.as_millis() > 400 { eprintln!("SLOW {e:?} {pre} {a} {b} {:?}", r.as_ref().err().map(|e| e.message().to_string())); }
            if let Err(e) = r { assert!(e.body().position.is_some() , "{pre}{a} {b} {e:?}"); }
        }
    }).unwrap();
    h.join().unwrap();
}
