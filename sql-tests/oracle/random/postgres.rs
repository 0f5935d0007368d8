//! A second opinion that shares no code with ours: the same case on a real Postgres 15, whose
//! materialized views are refreshed after every step.
//!
//! Batches and views of ours share scalar functions, aggregates and a parser; what all of them
//! get wrong together shows here. Postgres with the collation C must run somewhere:
//!
//! ```text
//! initdb -D data --locale=C --encoding=UTF8 --username=oracle --auth=trust
//! postgres -D data -p 5433 -k /tmp -c fsync=off -c timezone=UTC
//! MILLSTREAM_POSTGRES='host=localhost port=5433 user=oracle dbname=postgres' \
//!     cargo test --test sql_tests postgres_agrees -- --ignored --nocapture
//! ```
//!
//! Numbers are compared by ten digits: Postgres sums floats in the order of rows and has numerics
//! of any length.

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use super::scenario::Row;

/// A Postgres that the case is run on too.
pub struct Reference {
    client: Client,
    /// Views that it has, with their queries.
    views: Vec<(String, String)>,
    /// Those that could not be computed anew after the last step, or read one.
    stale: Vec<String>,
}

impl Reference {
    /// Connects, and empties the schema of the case before.
    pub async fn connect(config: &str) -> Reference {
        let (client, connection) =
            tokio_postgres::connect(config, NoTls).await.expect("Postgres is there");
        tokio::spawn(connection);
        let schema = format!("oracle_{:?}", std::thread::current().id());
        let schema: String = schema.chars().filter(|c| c.is_alphanumeric()).collect();
        let prepare = format!(
            "SET client_min_messages = error; DROP SCHEMA IF EXISTS {schema} CASCADE; \
             CREATE SCHEMA {schema}; SET search_path = {schema}; SET timezone = 'UTC'; \
             SET statement_timeout = '10s'"
        );
        client.batch_execute(&prepare).await.expect("Postgres takes the settings");
        Reference { client, views: Vec::new(), stale: Vec::new() }
    }

    /// Runs a statement; an error as SQLSTATE and message.
    pub async fn run(&mut self, sql: &str) -> Result<(), (String, String)> {
        self.client.batch_execute(sql).await.map_err(|error| match error.as_db_error() {
            Some(error) => (error.code().code().to_owned(), error.message().to_owned()),
            None => ("08000".to_owned(), error.to_string()),
        })
    }

    pub async fn create_view(&mut self, name: &str, query: &str) -> Result<(), (String, String)> {
        let sql = format!("CREATE MATERIALIZED VIEW {name} AS {query} WITH NO DATA");
        self.run(&sql).await?;
        self.views.push((name.to_owned(), query.to_owned()));
        Ok(())
    }

    /// Computes the views anew.
    pub async fn refresh(&mut self) {
        self.stale.clear();
        let views = std::mem::take(&mut self.views);
        for (name, query) in &views {
            let reads_stale = self.stale.iter().any(|other| query.contains(&format!("{other} ")));
            let refresh = format!("REFRESH MATERIALIZED VIEW {name}");
            if reads_stale || self.run(&refresh).await.is_err() {
                self.stale.push(name.clone());
            }
        }
        self.views = views;
    }

    /// The rows of a view; `None` when it has no good content.
    pub async fn rows(&mut self, name: &str) -> Option<Vec<Row>> {
        let known = self.views.iter().any(|(view, _)| view == name);
        if !known || self.stale.iter().any(|stale| stale == name) {
            return None;
        }
        let messages = self.client.simple_query(&format!("SELECT * FROM {name}")).await.ok()?;
        let row = |message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|c| row.get(c).map(str::to_owned)).collect())
            }
            _ => None,
        };
        Some(messages.into_iter().filter_map(row).collect())
    }
}

/// Rows in a form in which those of both sides are equal.
pub fn normalized(rows: &[Row]) -> Vec<Row> {
    let cell = |text: &String| match text.parse::<f64>() {
        Ok(0.0) => "0".to_owned(),
        Ok(number) if number.is_finite() => format!("{number:.9e}"),
        _ => text.clone(),
    };
    let mut rows: Vec<Row> =
        rows.iter().map(|row| row.iter().map(|value| value.as_ref().map(cell)).collect()).collect();
    rows.sort_unstable();
    rows
}
