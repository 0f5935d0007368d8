//! Random tables, and random changes of their rows.

use super::expression::{Column, Generator, Grammar, Scope, TYPES, Type};
use super::query::Relation;
use super::scenario::{Scenario, Step};
use super::tree::{Tree, grouped, list, optional, seq, template, text};

/// A table of a case.
struct Table {
    name: String,
    types: Vec<Type>,
    /// How many of the first columns are the key.
    key: usize,
    group: u32,
}

/// How large a case is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    pub views: usize,
    pub epochs: usize,
    /// How deep queries are nested.
    pub depth: u32,
}

/// Rows of a table that estimates count with.
const ROWS_EXPECTED: usize = 12;

impl Generator {
    /// A whole case.
    pub fn scenario(&mut self, workers: usize, size: Size) -> Scenario {
        let mut steps = Vec::new();
        let count = 2 + self.below(3);
        let tables: Vec<Table> = (0..count).map(|number| self.table(number)).collect();
        for table in &tables {
            steps.push(Step::Table(table.definition()));
            self.relations.push(Relation {
                name: table.name.clone(),
                types: table.types.clone(),
                rows: ROWS_EXPECTED,
            });
        }
        // Some views find rows already there, others come to empty tables.
        for _ in 0..self.below(8) {
            steps.push(self.commit(&tables));
        }
        for number in 0..size.views {
            if self.chance(0.2) {
                steps.push(self.commit(&tables));
            }
            let depth = self.below(size.depth as usize + 1) as u32;
            let made = self.query(depth, None, &[]);
            let name = format!("v{number}");
            steps.push(Step::View { name: name.clone(), query: made.tree });
            if made.rows <= 200 && !made.types.is_empty() {
                self.relations.push(Relation { name, types: made.types, rows: made.rows });
            }
        }
        // Not by default: seed 0 with it is a difference that is not understood yet.
        let careless = std::env::var_os("MILLSTREAM_CARELESS").is_some();
        for (number, table) in tables.iter().enumerate() {
            if careless && table.key == 1 && self.grammar == Grammar::Ours {
                steps.push(self.careless_view(number, table));
            }
        }
        let left = size.epochs.saturating_sub(steps.len().saturating_sub(size.views + 2 * count));
        // A third of the cases is cut by a restart, or two.
        let restarts = self.grammar == Grammar::Ours && self.chance(0.33);
        for _ in 0..left {
            steps.push(self.commit(&tables));
            if restarts && self.chance(0.2) {
                let checkpoint = self.chance(0.7);
                steps.push(Step::Restart { checkpoint, workers: 1 + self.below(3) });
            }
        }
        // Drawn last: the rest of a case is the same with them.
        if self.grammar == Grammar::Ours && self.chance(0.6) {
            steps = self.with_indexes(steps, &tables);
        }
        Scenario { workers, steps }
    }

    /// The same steps, with indexes of tables and views right behind these.
    fn with_indexes(&mut self, steps: Vec<Step>, tables: &[Table]) -> Vec<Step> {
        let mut tables = tables.iter();
        let mut all = Vec::new();
        for step in steps {
            let relation = match &step {
                Step::Table(_) => tables.next().map(|t| (t.name.clone(), t.types.clone())),
                Step::View { name, .. } => {
                    let found = self.relations.iter().find(|r| r.name == *name);
                    found.map(|r| (r.name.clone(), r.types.clone()))
                }
                _ => None,
            };
            all.push(step);
            let Some((relation, types)) = relation else { continue };
            let plain = (0..types.len()).filter(|column| types[*column].is_plain());
            let plain: Vec<usize> = plain.collect();
            for column in &plain {
                let columns = match self.below(10) {
                    0..=4 => format!("c{column}"),
                    5 => format!("c{}, c{column}", self.pick(&plain)),
                    _ => continue,
                };
                all.push(Step::Index { relation: relation.clone(), columns });
            }
        }
        all
    }

    /// A view of calls of our own functions with whatever arguments.
    fn careless_view(&mut self, number: usize, table: &Table) -> Step {
        let column = |(index, of): (usize, &Type)| Column { name: format!("a.c{index}"), of: *of };
        let scope = Scope::of(table.types.iter().enumerate().map(column).collect());
        let mut items = vec![text("a.c0 AS c0")];
        for item in 1..=2 + self.below(3) {
            let call = self.careless(&scope);
            items.push(seq(vec![call, text(format!(" AS c{item}"))]));
        }
        let filter = match self.chance(0.4) {
            true => {
                let condition = self.expression(Type::Bool, &scope, 1);
                optional(template(" WHERE {}", vec![condition]))
            }
            false => text(""),
        };
        let (name, table) = (format!("w{number}"), table.name.clone());
        Step::Careless { name, items: list(items), filter, table }
    }

    fn table(&mut self, number: usize) -> Table {
        let key = *self.pick(&[0, 0, 1, 1, 2]);
        let mut types = vec![Type::Int4];
        for _ in 0..2 + self.below(5) {
            let favourite = [Type::Int4, Type::Text, Type::Int8, Type::Numeric, Type::Float8];
            types.push(match self.chance(0.55) {
                true => *self.pick(&favourite),
                false => *self.pick(TYPES),
            });
        }
        if key == 2 && !types[1].is_plain() {
            types[1] = Type::Text;
        }
        Table { name: format!("t{number}"), types, key, group: self.group() }
    }

    /// One commit: a statement, or a transaction of some.
    fn commit(&mut self, tables: &[Table]) -> Step {
        if self.chance(0.3) {
            let count = 2 + self.below(3);
            let mut statements: Vec<Tree> = (0..count).map(|_| self.change(tables)).collect();
            if self.chance(0.05) {
                statements.push(text("ROLLBACK"));
            }
            return Step::Commit(statements);
        }
        Step::Commit(vec![self.change(tables)])
    }

    fn change(&mut self, tables: &[Table]) -> Tree {
        let table = self.pick(tables);
        match self.below(20) {
            0..=10 => self.insert(table),
            11..=14 => self.update(table),
            15..=18 => self.delete(table),
            _ if self.chance(0.3) => text(format!("TRUNCATE {}", table.name)),
            _ => self.insert(table),
        }
    }

    fn insert(&mut self, table: &Table) -> Tree {
        let conflict = match (table.key, self.below(3)) {
            (0, _) => String::new(),
            (_, 0) if table.types.len() > table.key => {
                let last = table.types.len() - 1;
                let key: Vec<String> = (0..table.key).map(|c| format!("c{c}")).collect();
                let key = key.join(", ");
                format!(" ON CONFLICT ({key}) DO UPDATE SET c{last} = EXCLUDED.c{last}")
            }
            _ => " ON CONFLICT DO NOTHING".to_owned(),
        };
        // Postgres refuses to update a row twice in one statement.
        let count = if conflict.contains("UPDATE") { 1 } else { 1 + self.below(4) };
        let rows = (0..count).map(|_| self.row(table)).collect();
        template(
            &format!("INSERT INTO {} VALUES {{}}{{}}", table.name),
            vec![list(rows), text(conflict)],
        )
    }

    fn row(&mut self, table: &Table) -> Tree {
        let cells = table.types.iter().enumerate().map(|(column, of)| {
            if column >= table.key {
                return text(self.value(*of));
            }
            if column == 0 && table.key == 1 {
                return text(self.below(25).to_string());
            }
            let values = of.values();
            text((*self.pick(values)).to_owned())
        });
        let cells = cells.collect();
        template("({})", vec![grouped(cells, table.group)])
    }

    /// Which rows: by a column's value, or a range of the first column.
    fn which(&mut self, table: &Table) -> Tree {
        if self.chance(0.5) {
            let low = self.random.random_range_of(-2, 12);
            let high = low + self.below(4) as i64;
            return text(format!("c0 BETWEEN {low} AND {high}"));
        }
        let columns = table.types.iter().enumerate();
        let columns =
            columns.map(|(index, of)| Column { name: format!("c{index}"), of: *of }).collect();
        self.expression(Type::Bool, &Scope::of(columns), 1)
    }

    fn update(&mut self, table: &Table) -> Tree {
        if table.key >= table.types.len() {
            return self.insert(table);
        }
        let mut items = Vec::new();
        let free = table.types.len() - table.key;
        let first = self.below(free);
        for offset in 0..1 + self.below(2.min(free)) {
            let column = table.key + (first + offset) % free;
            let of = table.types[column];
            let value = match (of, self.below(3)) {
                (Type::Int4 | Type::Int8 | Type::Numeric, 0) => format!("c{column} + 1"),
                _ => self.value(of),
            };
            items.push(text(format!("c{column} = {value}")));
        }
        let filter = optional(template(" WHERE {}", vec![self.which(table)]));
        template(&format!("UPDATE {} SET {{}}{{}}", table.name), vec![list(items), filter])
    }

    fn delete(&mut self, table: &Table) -> Tree {
        let filter = self.which(table);
        template(&format!("DELETE FROM {} WHERE {{}}", table.name), vec![filter])
    }
}

/// Whole numbers of a range, from either kind of generator.
trait RangeOf {
    fn random_range_of(&mut self, low: i64, high: i64) -> i64;
}

impl RangeOf for rand::rngs::StdRng {
    fn random_range_of(&mut self, low: i64, high: i64) -> i64 {
        rand::Rng::random_range(self, low..high)
    }
}

impl Table {
    fn definition(&self) -> Tree {
        let column = |(index, of): (usize, &Type)| text(format!("c{index} {}", of.sql()));
        let columns = self.types.iter().enumerate().map(column).collect();
        let key: Vec<String> = (0..self.key).map(|column| format!("c{column}")).collect();
        let key = match key.is_empty() {
            true => text(""),
            false => optional(text(format!(", PRIMARY KEY ({})", key.join(", ")))),
        };
        seq(vec![
            text(format!("CREATE TABLE {} (", self.name)),
            grouped(columns, self.group),
            key,
            text(")"),
        ])
    }
}
