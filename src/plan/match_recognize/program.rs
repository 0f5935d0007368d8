//! A pattern as an automaton: instructions between which a partial match moves.
//!
//! 1. `Row` takes a row; everything else is passed over without one. A `Split` goes to its first
//!    target rather than to its second, and that order is the standard's order of preference.
//! 2. `X{2,4}` is written out: two copies, then two that may be left out. A loop without end is a
//!    `Split` back; what comes around without having taken a row stands where it was already, and
//!    goes no further. So iterations beyond the least number always take rows; where the copies
//!    are written out, `IterationEnd` sees to it.
//! 3. PERMUTE has one place for each set of elements that are left, not for each order: 8 elements
//!    are 256 places.
//! 4. Alternatives that begin with the same variable have one place for it: `A B | A C` is
//!    `A (B | C)`.
//! 5. `NOT v` makes the rows before which it stands watch out for v; at the end of the pattern it
//!    waits on its own (`Absent`).

use std::fmt::Write;

use crate::plan::match_recognize::{Contiguity, MatchSpec, Pattern, Variables};
use crate::types::error::{Error, Result, SqlState};

/// Longer programs are refused.
pub const INSTRUCTIONS_MAX: usize = 100_000;

/// Repetitions within each other, of what may be empty: a place is looked at once for each set of
/// them that is open.
const EMPTY_DEPTH_MAX: usize = 8;
/// PERMUTE of more elements is refused: its places double with each.
pub const PERMUTE_MAX: usize = 12;

/// One step of the automaton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// Takes a row that the variable's condition holds for, then goes on behind; dies at a row of
    /// a forbidden variable.
    Row {
        variable: usize,
        excluded: bool,
        forbidden: Variables,
    },
    /// Both, rather the first.
    Split(usize, usize),
    Jump(usize),
    /// An iteration that may be left out begins.
    IterationStart(usize),
    /// That iteration ends; it must have taken a row.
    IterationEnd(usize),
    /// Only before the partition's first row.
    Start,
    /// Only behind the partition's last row.
    End,
    /// Waits for what comes: dies at a row of a forbidden variable.
    Absent {
        forbidden: Variables,
    },
    /// Takes a row that does not belong to the match, before its first.
    Pass,
    /// The match is complete.
    Accept,
}

/// No variable.
const NONE: Variables = Variables(0);

/// A compiled pattern. It begins at instruction 0.
#[derive(Clone, Debug)]
pub struct Program {
    pub instructions: Vec<Instruction>,
    /// Numbers of iterations that are watched.
    pub iterations: usize,
}

impl Program {
    /// # Errors
    /// SQLSTATE 54001 for a pattern that is too large, 42601 for NOT in a place where it means
    /// nothing.
    pub fn new(pattern: &Pattern) -> Result<Program> {
        Program::compile(pattern, false, false)
    }

    /// # Errors
    /// The same.
    pub fn of(spec: &MatchSpec) -> Result<Program> {
        if spec.pattern_from.is_some() {
            return Ok(Program::never());
        }
        // With RELAXED ANY a variable may take one of several rows: each of them for the first
        // alternative is preferred to any for the second.
        let shares_heads = spec.contiguity != Contiguity::RelaxedAny;
        let seek = spec.frame.is_some_and(|frame| frame.seek);
        Program::compile(&spec.pattern, seek, shares_heads)
    }

    /// One that goes nowhere: it matches nothing.
    pub fn never() -> Program {
        Program { instructions: vec![Instruction::Jump(0)], iterations: 0 }
    }

    fn compile(pattern: &Pattern, seek: bool, shares_heads: bool) -> Result<Program> {
        let mut compiler = Compiler {
            instructions: vec![],
            iterations: 0,
            depth: 0,
            excluded: false,
            shares_heads,
        };
        if seek {
            // Rather here than a row further on.
            compiler.push(Instruction::Split(3, 1))?;
            compiler.push(Instruction::Pass)?;
            compiler.push(Instruction::Jump(0))?;
        }
        let items = match pattern {
            Pattern::Concat(items) => items.as_slice(),
            other => std::slice::from_ref(other),
        };
        let end = items.iter().rposition(|item| !matches!(item, Pattern::Not(_)));
        let (items, absent) = items.split_at(end.map_or(0, |end| end + 1));
        compiler.concat(items, NONE)?;
        if !absent.is_empty() {
            let forbidden = absent.iter().fold(NONE, |set, item| match item {
                Pattern::Not(variable) => Variables(set.0 | Variables::one(*variable).0),
                _ => set,
            });
            compiler.push(Instruction::Absent { forbidden })?;
        }
        compiler.push(Instruction::Accept)?;
        Ok(Program { instructions: compiler.instructions, iterations: compiler.iterations })
    }

    /// The automaton as text, one place a line.
    pub fn text(&self, spec: &MatchSpec) -> String {
        let mut out = String::new();
        for (place, step) in self.describe(spec).iter().enumerate() {
            // Writing to a string does not fail.
            let _ = writeln!(out, "{place}: {step}");
        }
        out
    }

    /// What each step does.
    pub fn describe(&self, spec: &MatchSpec) -> Vec<String> {
        self.instructions.iter().map(|instruction| describe(instruction, spec)).collect()
    }

    /// Where a match goes on behind a step, the preferred place first.
    pub fn targets(&self, place: usize) -> Vec<usize> {
        match self.instructions[place] {
            Instruction::Split(first, second) => vec![first, second],
            Instruction::Jump(target) => vec![target],
            Instruction::Accept => vec![],
            _ => vec![place + 1],
        }
    }
}

fn describe(instruction: &Instruction, spec: &MatchSpec) -> String {
    let names = |set: Variables| {
        let names = spec.variables.iter().enumerate().filter(|(v, _)| set.contains(*v));
        names.map(|(_, name)| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    match *instruction {
        Instruction::Row { variable, excluded, forbidden } => {
            let mut text = format!("row {}", spec.variables[variable]);
            if let Some(Some(_)) = spec.conditions.get(variable) {
                text.push_str(&format!(" when {}", spec.condition_text(variable)));
            }
            if forbidden != NONE {
                text.push_str(&format!(", unless {}", names(forbidden)));
            }
            if excluded {
                text.push_str(", not shown");
            }
            text
        }
        Instruction::Split(first, second) => format!("go to {first}, or else {second}"),
        Instruction::Jump(target) => format!("go to {target}"),
        Instruction::IterationStart(number) => format!("begin iteration {number}"),
        Instruction::IterationEnd(number) => format!("end iteration {number}, unless empty"),
        Instruction::Start => "at the partition's start".to_owned(),
        Instruction::End => "at the partition's end".to_owned(),
        Instruction::Absent { forbidden } => match spec.contiguity {
            Contiguity::Strict => format!("the next row is not {}", names(forbidden)),
            _ => format!("no {} until the time is over", names(forbidden)),
        },
        Instruction::Pass => "pass over a row".to_owned(),
        Instruction::Accept => "match".to_owned(),
    }
}

/// Whether the pattern can match without rows.
pub fn is_nullable(pattern: &Pattern) -> bool {
    match pattern {
        Pattern::Empty | Pattern::Start | Pattern::End | Pattern::Not(_) => true,
        Pattern::Variable(_) => false,
        Pattern::Concat(items) | Pattern::Permute(items) => items.iter().all(is_nullable),
        Pattern::Alternation(items) => items.iter().any(is_nullable),
        Pattern::Repeat { inner, min, .. } => *min == 0 || is_nullable(inner),
        Pattern::Exclude(inner) => is_nullable(inner),
    }
}

struct Compiler {
    instructions: Vec<Instruction>,
    iterations: usize,
    /// Iterations around the current place that need not have a row.
    depth: usize,
    /// Inside of an exclusion.
    excluded: bool,
    /// Alternatives that begin with the same variable share its place.
    shares_heads: bool,
}

impl Compiler {
    fn here(&self) -> usize {
        self.instructions.len()
    }

    fn push(&mut self, instruction: Instruction) -> Result<usize> {
        if self.instructions.len() >= INSTRUCTIONS_MAX {
            return Err(Error::user(
                SqlState::STATEMENT_TOO_COMPLEX,
                format!("the row pattern needs more than {INSTRUCTIONS_MAX} steps"),
            )
            .hint("Numbers in nested quantifiers are multiplied; make them smaller."));
        }
        self.instructions.push(instruction);
        Ok(self.instructions.len() - 1)
    }

    /// `forbidden` watches the pattern's first row.
    fn pattern(&mut self, pattern: &Pattern, forbidden: Variables) -> Result<()> {
        match pattern {
            Pattern::Empty => Ok(()),
            Pattern::Variable(variable) => {
                let (variable, excluded) = (*variable, self.excluded);
                self.push(Instruction::Row { variable, excluded, forbidden }).map(drop)
            }
            Pattern::Concat(items) => self.concat(items, forbidden),
            Pattern::Alternation(items) => self.alternation(items, forbidden),
            Pattern::Permute(items) => self.permute(items, forbidden),
            Pattern::Repeat { inner, min, max, greedy } => {
                self.repeat(inner, *min, *max, *greedy, forbidden)
            }
            Pattern::Exclude(inner) => {
                let outer = std::mem::replace(&mut self.excluded, true);
                let compiled = self.pattern(inner, forbidden);
                self.excluded = outer;
                compiled
            }
            Pattern::Start => self.push(Instruction::Start).map(drop),
            Pattern::End => self.push(Instruction::End).map(drop),
            Pattern::Not(_) => Err(misplaced_not()),
        }
    }

    fn concat(&mut self, items: &[Pattern], mut forbidden: Variables) -> Result<()> {
        for item in items {
            if let Pattern::Not(variable) = item {
                forbidden = Variables(forbidden.0 | Variables::one(*variable).0);
                continue;
            }
            if forbidden != NONE && is_nullable(item) {
                return Err(misplaced_not());
            }
            self.pattern(item, forbidden)?;
            forbidden = NONE;
        }
        if forbidden == NONE { Ok(()) } else { Err(misplaced_not()) }
    }

    fn alternation(&mut self, items: &[Pattern], forbidden: Variables) -> Result<()> {
        if self.shares_heads
            && let Some(shared) = with_shared_heads(items)
        {
            return match shared.as_slice() {
                [one] => self.pattern(one, forbidden),
                several => self.alternation(several, forbidden),
            };
        }
        let mut exits = Vec::new();
        for (index, item) in items.iter().enumerate() {
            if index + 1 == items.len() {
                self.pattern(item, forbidden)?;
                break;
            }
            let split = self.push(Instruction::Split(0, 0))?;
            self.pattern(item, forbidden)?;
            exits.push(self.push(Instruction::Jump(0))?);
            self.instructions[split] = Instruction::Split(split + 1, self.here());
        }
        self.land(&exits);
        Ok(())
    }

    /// Lets jumps go to here.
    fn land(&mut self, jumps: &[usize]) {
        let here = self.here();
        for jump in jumps {
            self.instructions[*jump] = Instruction::Jump(here);
        }
    }

    fn permute(&mut self, items: &[Pattern], forbidden: Variables) -> Result<()> {
        if items.len() > PERMUTE_MAX {
            return Err(Error::user(
                SqlState::STATEMENT_TOO_COMPLEX,
                format!("PERMUTE of more than {PERMUTE_MAX} elements"),
            )
            .hint("Write an alternation of the orders that you mean."));
        }
        if forbidden != NONE {
            return Err(misplaced_not());
        }
        let all = (1_usize << items.len()) - 1;
        // Where each set of remaining elements begins; sets are placed largest first, so a jump
        // always goes to one that is placed later.
        let mut places = vec![None; all + 1];
        let mut jumps: Vec<(usize, usize)> = Vec::new();
        let mut sets: Vec<usize> = (1..=all).collect();
        sets.sort_by_key(|set| std::cmp::Reverse(set.count_ones()));
        for set in sets {
            places[set] = Some(self.here());
            let elements: Vec<usize> = (0..items.len()).filter(|i| set >> i & 1 == 1).collect();
            for (nth, element) in elements.iter().enumerate() {
                let split = match nth + 1 < elements.len() {
                    true => Some(self.push(Instruction::Split(0, 0))?),
                    false => None,
                };
                self.pattern(&items[*element], NONE)?;
                jumps.push((self.push(Instruction::Jump(0))?, set & !(1 << element)));
                if let Some(split) = split {
                    self.instructions[split] = Instruction::Split(split + 1, self.here());
                }
            }
        }
        places[0] = Some(self.here());
        for (jump, set) in jumps {
            let place = places[set].expect("every set of elements has a place");
            self.instructions[jump] = Instruction::Jump(place);
        }
        Ok(())
    }

    fn repeat(
        &mut self,
        inner: &Pattern,
        min: u32,
        max: Option<u32>,
        greedy: bool,
        forbidden: Variables,
    ) -> Result<()> {
        let split = |take: usize, leave: usize| match greedy {
            true => Instruction::Split(take, leave),
            false => Instruction::Split(leave, take),
        };
        let nullable = is_nullable(inner);
        // The first copy alone watches what must not come before it.
        let mut watched = forbidden;
        let copies = if max.is_none() && !nullable { min.saturating_sub(1) } else { min };
        // A pattern without rows is the same once as many times.
        let copies = if matches!(inner, Pattern::Empty) { copies.min(1) } else { copies };
        for _ in 0..copies {
            self.pattern(inner, std::mem::replace(&mut watched, NONE))?;
        }
        match max {
            None if !nullable && min > 0 && watched == NONE => {
                let start = self.here();
                self.pattern(inner, NONE)?;
                let end = self.here();
                self.push(split(start, end + 1))?;
            }
            None => {
                // Also where the first of one or more iterations is watched.
                if !nullable && min > 0 {
                    self.pattern(inner, watched)?;
                }
                let start = self.push(Instruction::Jump(0))?;
                self.iteration(inner, nullable)?;
                let end = self.push(Instruction::Jump(start))?;
                self.instructions[start] = split(start + 1, end + 1);
            }
            Some(max) => {
                let mut exits = Vec::new();
                for _ in min..max {
                    exits.push(self.push(Instruction::Jump(0))?);
                    self.iteration(inner, nullable)?;
                }
                let end = self.here();
                for exit in exits {
                    self.instructions[exit] = split(exit + 1, end);
                }
            }
        }
        Ok(())
    }

    /// One iteration that need not be: it must have a row, or it would be the same without it.
    fn iteration(&mut self, inner: &Pattern, nullable: bool) -> Result<()> {
        if !nullable {
            return self.pattern(inner, NONE);
        }
        if self.depth == EMPTY_DEPTH_MAX {
            return Err(Error::user(
                SqlState::STATEMENT_TOO_COMPLEX,
                format!(
                    "the row pattern nests more than {EMPTY_DEPTH_MAX} repetitions of what may be \
                     empty"
                ),
            )
            .hint("A repetition of a repetition is one: (A*)* is A*."));
        }
        let number = self.iterations;
        self.iterations += 1;
        self.depth += 1;
        self.push(Instruction::IterationStart(number))?;
        self.pattern(inner, NONE)?;
        self.depth -= 1;
        self.push(Instruction::IterationEnd(number)).map(drop)
    }
}

/// Alternatives beside each other that begin with the same variable, as one: `A B | A C` as
/// `A (B | C)`, which prefers the same. `None`: there are none.
fn with_shared_heads(items: &[Pattern]) -> Option<Vec<Pattern>> {
    let heads: Vec<Option<usize>> = items.iter().map(head).collect();
    if !heads.windows(2).any(|pair| pair[0].is_some() && pair[0] == pair[1]) {
        return None;
    }
    let mut shared = Vec::new();
    let mut at = 0;
    while at < items.len() {
        let count = heads[at..].iter().take_while(|other| **other == heads[at]).count();
        match heads[at] {
            Some(variable) if count > 1 => {
                let rests = items[at..at + count].iter().map(behind_head).collect();
                let items = vec![Pattern::Variable(variable), Pattern::Alternation(rests)];
                shared.push(Pattern::Concat(items));
            }
            _ => shared.extend_from_slice(&items[at..at + count]),
        }
        at += count;
    }
    Some(shared)
}

/// The variable that every match of the pattern begins with.
fn head(pattern: &Pattern) -> Option<usize> {
    match pattern {
        Pattern::Variable(variable) => Some(*variable),
        Pattern::Concat(items) => items.first().and_then(head),
        _ => None,
    }
}

/// What is left of a pattern that has a head.
fn behind_head(pattern: &Pattern) -> Pattern {
    match pattern {
        Pattern::Concat(items) => match items.split_first() {
            Some((first @ Pattern::Concat(_), rest)) => {
                let first = std::iter::once(behind_head(first));
                Pattern::Concat(first.chain(rest.iter().cloned()).collect())
            }
            Some((_, rest)) => Pattern::Concat(rest.to_vec()),
            None => Pattern::Empty,
        },
        _ => Pattern::Empty,
    }
}

fn misplaced_not() -> Error {
    Error::user(SqlState::SYNTAX_ERROR, "NOT stands before nothing that takes a row")
        .hint("Write it before a variable that must match, or at the end of the pattern.")
}
