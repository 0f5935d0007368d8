//! Makes a failing case small: as long as a smaller case fails in the same way, it takes its
//! place. What is tried: fewer steps, one worker, fewer statements of a transaction, columns of
//! tables, and every step of [`super::tree::edits`] in what is left.

use super::scenario::{Failure, Scenario, Step, run};
use super::tree::{Tree, edits};

/// How many smaller cases are tried.
const TRIES_MAX: usize = 1500;

/// Keeps the smallest case that fails, and counts what was tried.
struct Shrinker<'a> {
    best: Scenario,
    failure: Failure,
    tries: usize,
    /// Of the second opinion.
    postgres: Option<&'a str>,
}

/// The smallest case found that fails like this one.
pub async fn shrink(
    scenario: Scenario,
    failure: Failure,
    postgres: Option<&str>,
) -> (Scenario, Failure) {
    let mut shrinker = Shrinker { best: scenario, failure, tries: 0, postgres };
    shrinker.cut();
    loop {
        let before = shrinker.tries;
        let mut smaller = false;
        smaller |= shrinker.steps().await;
        smaller |= shrinker.inside().await;
        smaller |= shrinker.columns().await;
        if !smaller || shrinker.tries >= TRIES_MAX || shrinker.tries == before {
            return (shrinker.best, shrinker.failure);
        }
    }
}

impl Shrinker<'_> {
    /// What comes after the failure has nothing to do with it.
    fn cut(&mut self) {
        self.best.steps.truncate(self.failure.step + 1);
    }

    /// Takes the candidate if it fails in the same way.
    async fn accept(&mut self, candidate: Scenario) -> bool {
        if self.tries >= TRIES_MAX {
            return false;
        }
        self.tries += 1;
        match run(&candidate, self.postgres).await.1 {
            Some(failure) if failure.kind == self.failure.kind => {
                self.best = candidate;
                self.failure = failure;
                self.cut();
                true
            }
            _ => false,
        }
    }

    /// Fewer steps: large parts first.
    async fn steps(&mut self) -> bool {
        let mut any = false;
        if self.best.workers > 1 {
            let candidate = Scenario { workers: 1, ..self.best.clone() };
            any |= self.accept(candidate).await;
        }
        let mut size = (self.best.steps.len() / 2).max(1);
        loop {
            let mut from = 0;
            while from < self.best.steps.len() {
                let to = (from + size).min(self.best.steps.len());
                let mut candidate = self.best.clone();
                candidate.steps.drain(from..to);
                if self.accept(candidate).await {
                    any = true;
                } else {
                    from = to;
                }
            }
            if size == 1 {
                return any;
            }
            size /= 2;
        }
    }

    /// Smaller statements and queries.
    async fn inside(&mut self) -> bool {
        let mut any = false;
        let mut index = 0;
        while index < self.best.steps.len() {
            let mut candidates = candidates(&self.best.steps[index]);
            // The greatest gain first.
            candidates.sort_by_cached_key(|step| step_text(step).len());
            let now = step_text(&self.best.steps[index]).len();
            let mut taken = false;
            for step in candidates {
                if step_text(&step).len() >= now {
                    break;
                }
                let mut candidate = self.best.clone();
                candidate.steps[index] = step;
                if self.accept(candidate).await {
                    taken = true;
                    break;
                }
            }
            any |= taken;
            if !taken {
                index += 1;
            }
        }
        any
    }

    /// Columns that nobody needs.
    async fn columns(&mut self) -> bool {
        let mut any = false;
        let mut groups = Vec::new();
        for step in &self.best.steps {
            trees(step).iter().for_each(|tree| tree.groups(&mut groups));
        }
        for (group, length) in groups {
            for column in (0..length).rev() {
                let mut candidate = self.best.clone();
                for step in &mut candidate.steps {
                    match step {
                        Step::Table(tree) | Step::View { query: tree, .. } => {
                            *tree = tree.without_column(group, column);
                        }
                        // A column of its own group would be missing in the table's.
                        Step::Careless { .. } | Step::Index { .. } | Step::Restart { .. } => {}
                        Step::Commit(statements) => {
                            for tree in statements {
                                *tree = tree.without_column(group, column);
                            }
                        }
                    }
                }
                let text = |scenario: &Scenario| {
                    scenario.steps.iter().map(|step| step_text(step).len()).sum::<usize>()
                };
                if text(&candidate) < text(&self.best) {
                    any |= self.accept(candidate).await;
                }
            }
        }
        any
    }
}

fn trees(step: &Step) -> Vec<&Tree> {
    match step {
        Step::Table(tree) | Step::View { query: tree, .. } => vec![tree],
        Step::Careless { items, filter, .. } => vec![items, filter],
        Step::Commit(statements) => statements.iter().collect(),
        Step::Index { .. } | Step::Restart { .. } => Vec::new(),
    }
}

fn step_text(step: &Step) -> String {
    trees(step).iter().map(|tree| tree.sql()).collect::<Vec<_>>().join(";")
}

fn candidates(step: &Step) -> Vec<Step> {
    match step {
        Step::Table(tree) => edits(tree).into_iter().map(Step::Table).collect(),
        Step::View { name, query } => {
            let view = |query| Step::View { name: name.clone(), query };
            edits(query).into_iter().map(view).collect()
        }
        Step::Careless { name, items, filter, table } => {
            let careless = |items: Tree, filter: Tree| {
                let (name, table) = (name.clone(), table.clone());
                Step::Careless { name, items, filter, table }
            };
            let fewer = edits(items).into_iter().map(|items| careless(items, filter.clone()));
            let plainer = edits(filter).into_iter().map(|filter| careless(items.clone(), filter));
            fewer.chain(plainer).collect()
        }
        Step::Index { .. } | Step::Restart { .. } => Vec::new(),
        Step::Commit(statements) => {
            let mut out = Vec::new();
            for index in 0..statements.len() {
                if statements.len() > 1 {
                    let mut fewer = statements.clone();
                    fewer.remove(index);
                    out.push(Step::Commit(fewer));
                }
                for smaller in edits(&statements[index]) {
                    let mut statements = statements.clone();
                    statements[index] = smaller;
                    out.push(Step::Commit(statements));
                }
            }
            out
        }
    }
}
