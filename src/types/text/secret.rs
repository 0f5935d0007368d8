//! Options as they are shown: without passwords.

/// The options of a sink for those who look: without passwords.
pub fn shown_options(pairs: &[(String, String)]) -> Vec<(String, String)> {
    let shown = |(name, value): &(String, String)| {
        let hidden = match name.as_str() {
            "password" => "***".to_owned(),
            "url" => without_password(value),
            _ => value.clone(),
        };
        (name.clone(), hidden)
    };
    pairs.iter().map(shown).collect()
}

/// `scheme://user:***@host`.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        // Of the form `host=... password=...`.
        let part = |word: &str| match word.split_once('=') {
            Some((key, _)) if key.trim().eq_ignore_ascii_case("password") => {
                "password=***".to_owned()
            }
            _ => word.to_owned(),
        };
        return url.split_whitespace().map(part).collect::<Vec<_>>().join(" ");
    };
    let end = rest.find('/').unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((user, _)) if user.contains(':') => {
            let name = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{name}:***@{}", &rest[user.len() + 1..])
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        for (url, shown) in [
            ("postgres://ann:secret@host:5432/db", "postgres://ann:***@host:5432/db"),
            ("postgres://ann:a@b:c@host/db?x=y@z", "postgres://ann:***@host/db?x=y@z"),
            ("postgres://ann@host/db", "postgres://ann@host/db"),
            ("postgres://host/a:b@c", "postgres://host/a:b@c"),
            ("host=h user=ann password=secret", "host=h user=ann password=***"),
            ("/a/folder", "/a/folder"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
