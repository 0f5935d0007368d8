//! The scanner against serde_json, on hand-written and on random texts.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;

#[test]
fn the_grammar_is_that_of_the_standard() {
    let good = [
        "0",
        "-0",
        "1.5",
        "-1.5e+10",
        "1E5",
        "\"\"",
        "\"a\\u00e4\\n\"",
        "\"\\ud83d\\ude00\"",
        "true",
        "false",
        "null",
        "[]",
        "{}",
        " [ 1 , 2 ] ",
        "{\"a\":{\"b\":[null]}}",
        "\"ä\"",
    ];
    let wrong = [
        "",
        " ",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "+1",
        "NaN",
        "tru",
        "True",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud83d\"",
        "\"\\ude00\"",
        "\"\\ud83d\\u0041\"",
        "\"\n\"",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{\"a\":1,}",
        "[",
        "{",
        "1 2",
        "nullx",
        "]",
    ];
    for text in good {
        assert!(is_valid(text.as_bytes()), "{text}");
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok(), "{text}");
    }
    for text in wrong {
        assert!(!is_valid(text.as_bytes()), "{text}");
        assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "{text}");
    }
    let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(is_valid(deep(128).as_bytes()));
    assert!(!is_valid(deep(129).as_bytes()));
    assert!(!is_valid(deep(1_000_000).as_bytes()));
}

#[test]
fn random_texts_are_judged_as_serde_json_does() {
    let pieces = [
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\"b\\\"\"",
        "1",
        "-2.5",
        "0",
        "e3",
        "true",
        "null",
        " ",
        "\\",
        "\"\\u0041\"",
        "\"a\":",
        "[1,2]",
        "{\"a\":1}",
    ];
    let mut random = SmallRng::seed_from_u64(7);
    let mut valid = 0;
    for round in 0..60_000 {
        let count = random.random_range(1..9);
        let text: String =
            (0..count).map(|_| pieces[random.random_range(0..pieces.len())]).collect();
        let expected = serde_json::from_str::<serde_json::Value>(&text).is_ok();
        assert_eq!(is_valid(text.as_bytes()), expected, "round {round}: {text}");
        valid += usize::from(expected);
    }
    assert!(valid > 1_000, "{valid}");
}

#[test]
fn values_and_strings_are_those_of_serde_json() {
    let text = r#" {"a" : "x\u00e4\ud83d\ude00\n\/" , "b":[1, {"c":"\\"}], "":-1.50e2 } "#;
    let expected: serde_json::Value = serde_json::from_str(text).expect("valid");
    let mut seen = Vec::new();
    let mut scanner = Scanner::new(text.as_bytes());
    scanner
        .object(|key, value| {
            let key = String::from_utf8(key.text().into_owned()).expect("UTF-8");
            let value = std::str::from_utf8(value).expect("UTF-8");
            seen.push((key.clone(), value.to_owned()));
            let parsed: serde_json::Value = serde_json::from_str(value).expect("valid");
            assert_eq!(parsed, expected[&key]);
            Ok(())
        })
        .expect("an object");
    assert!(scanner.end().is_ok());
    assert_eq!(seen[2], (String::new(), "-1.50e2".to_owned()));
    let inner = br"x\u00e4\ud83d\ude00\n\/\b\f\r\t\\";
    let string = JsonString { inner, has_escapes: true };
    assert_eq!(&*string.text(), "xä😀\n/\u{8}\u{c}\r\t\\".as_bytes());
}
