//! SQL text that knows its structure, so that a failing case can be made smaller without a parser.
//!
//! The generator writes [`Tree`]s. What may go (a clause, an item of a list) and what may stand in
//! for something else (an expression of the same type inside it) is said where the text is made.
//! [`edits`] lists every tree that is one such step smaller. A step need not give a valid
//! statement: whoever tries it finds out, because then the failure is gone.

/// What may take another's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// A scalar expression; of the type with this number.
    Expression(u8),
    /// A query, or a branch of a set operation.
    Query,
    /// What may stand in FROM.
    Relation,
}

#[derive(Clone, Debug)]
pub enum Tree {
    Text(String),
    Seq(Vec<Tree>),
    /// A clause that may be left out.
    Optional(Box<Tree>),
    List {
        separator: &'static str,
        items: Vec<Tree>,
        /// So many must stay.
        least: usize,
        /// Lists of one group lose their items together: the columns of a table and of its rows,
        /// the columns of both sides of a UNION.
        group: Option<u32>,
    },
    Sorted {
        sort: Sort,
        tree: Box<Tree>,
        /// Texts that may stand for it, the simplest first.
        instead: Vec<String>,
    },
}

/// Text without structure.
pub fn text(text: impl Into<String>) -> Tree {
    Tree::Text(text.into())
}

pub fn seq(trees: Vec<Tree>) -> Tree {
    Tree::Seq(trees)
}

pub fn optional(tree: Tree) -> Tree {
    Tree::Optional(Box::new(tree))
}

/// A list between commas of which one item must stay.
pub fn list(items: Vec<Tree>) -> Tree {
    Tree::List { separator: ", ", items, least: 1, group: None }
}

/// A list whose items go together with those of its group.
pub fn grouped(items: Vec<Tree>, group: u32) -> Tree {
    Tree::List { separator: ", ", items, least: 1, group: Some(group) }
}

pub fn sorted(sort: Sort, tree: Tree) -> Tree {
    Tree::Sorted { sort, tree: Box::new(tree), instead: Vec::new() }
}

/// `parts` with its `{}` replaced by the trees in order.
pub fn template(parts: &str, trees: Vec<Tree>) -> Tree {
    let mut trees = trees.into_iter();
    let mut out = Vec::new();
    for (number, part) in parts.split("{}").enumerate() {
        if number > 0 {
            out.push(trees.next().expect("a tree for each place of the template"));
        }
        if !part.is_empty() {
            out.push(text(part));
        }
    }
    Tree::Seq(out)
}

impl Tree {
    pub fn sql(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        match self {
            Tree::Text(text) => out.push_str(text),
            Tree::Seq(trees) => trees.iter().for_each(|tree| tree.write(out)),
            Tree::Optional(tree) | Tree::Sorted { tree, .. } => tree.write(out),
            Tree::List { separator, items, .. } => {
                for (number, item) in items.iter().enumerate() {
                    if number > 0 {
                        out.push_str(separator);
                    }
                    item.write(out);
                }
            }
        }
    }

    /// The tree without item `index` of every list of `group`; as it is where it has none.
    pub fn without_column(&self, group: u32, index: usize) -> Tree {
        match self {
            Tree::Text(text) => Tree::Text(text.clone()),
            Tree::Seq(trees) => {
                Tree::Seq(trees.iter().map(|tree| tree.without_column(group, index)).collect())
            }
            Tree::Optional(tree) => optional(tree.without_column(group, index)),
            Tree::Sorted { sort, tree, instead } => Tree::Sorted {
                sort: *sort,
                tree: Box::new(tree.without_column(group, index)),
                instead: instead.clone(),
            },
            Tree::List { separator, items, least, group: own } => {
                let mut items: Vec<Tree> =
                    items.iter().map(|item| item.without_column(group, index)).collect();
                if *own == Some(group) && index < items.len() && items.len() > *least {
                    items.remove(index);
                }
                Tree::List { separator, items, least: *least, group: *own }
            }
        }
    }

    /// Every group of lists in the tree, with the length of the longest.
    pub fn groups(&self, found: &mut Vec<(u32, usize)>) {
        match self {
            Tree::Text(_) => {}
            Tree::Seq(trees) => trees.iter().for_each(|tree| tree.groups(found)),
            Tree::Optional(tree) | Tree::Sorted { tree, .. } => tree.groups(found),
            Tree::List { items, group, .. } => {
                if let Some(group) = group {
                    match found.iter_mut().find(|(known, _)| known == group) {
                        Some((_, length)) => *length = (*length).max(items.len()),
                        None => found.push((*group, items.len())),
                    }
                }
                items.iter().for_each(|item| item.groups(found));
            }
        }
    }

    /// Everything below it of that sort, the shallow ones first.
    fn inside(&self, wanted: Sort, found: &mut Vec<Tree>) {
        match self {
            Tree::Text(_) => {}
            Tree::Seq(trees) => trees.iter().for_each(|tree| tree.inside(wanted, found)),
            Tree::Optional(tree) => tree.inside(wanted, found),
            Tree::List { items, .. } => items.iter().for_each(|item| item.inside(wanted, found)),
            Tree::Sorted { sort, tree, .. } => {
                if *sort == wanted {
                    found.push(self.clone());
                }
                tree.inside(wanted, found);
            }
        }
    }
}

/// Every tree that is one step smaller.
pub fn edits(tree: &Tree) -> Vec<Tree> {
    match tree {
        Tree::Text(_) => Vec::new(),
        Tree::Seq(trees) => edits_of_one(trees).into_iter().map(Tree::Seq).collect(),
        Tree::Optional(inner) => {
            let mut out = vec![text("")];
            out.extend(edits(inner).into_iter().map(optional));
            out
        }
        Tree::List { separator, items, least, group } => {
            let list = |items| Tree::List { separator, items, least: *least, group: *group };
            let mut out = Vec::new();
            if group.is_none() && items.len() > *least {
                if items.len() > least + 2 {
                    let half = items.len() / 2;
                    out.push(list(items[..half.max(*least)].to_vec()));
                    out.push(list(items[(items.len() - half.max(*least))..].to_vec()));
                }
                for index in 0..items.len() {
                    let mut fewer = items.clone();
                    fewer.remove(index);
                    out.push(list(fewer));
                }
            }
            out.extend(edits_of_one(items).into_iter().map(list));
            out
        }
        Tree::Sorted { sort, tree: inner, instead } => {
            let mut out: Vec<Tree> = instead.iter().map(text).collect();
            inner.inside(*sort, &mut out);
            out.extend(edits(inner).into_iter().map(|tree| Tree::Sorted {
                sort: *sort,
                tree: Box::new(tree),
                instead: instead.clone(),
            }));
            out
        }
    }
}

/// The trees with one of them a step smaller.
fn edits_of_one(trees: &[Tree]) -> Vec<Vec<Tree>> {
    let mut out = Vec::new();
    for (index, tree) in trees.iter().enumerate() {
        for smaller in edits(tree) {
            let mut trees = trees.to_vec();
            trees[index] = smaller;
            out.push(trees);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_leave_out_and_replace() {
        let one = sorted(Sort::Expression(1), text("a"));
        let sum = sorted(Sort::Expression(1), template("({} + b)", vec![one]));
        let tree =
            seq(vec![text("SELECT "), list(vec![sum, text("c")]), optional(text(" WHERE d"))]);
        assert_eq!(tree.sql(), "SELECT (a + b), c WHERE d");
        let mut steps: Vec<String> = edits(&tree).iter().map(Tree::sql).collect();
        steps.sort_unstable();
        let expected = [
            "SELECT (a + b) WHERE d",
            "SELECT (a + b), c",
            "SELECT a, c WHERE d",
            "SELECT c WHERE d",
        ];
        assert_eq!(steps, expected);
    }

    #[test]
    fn columns_go_together() {
        let row = |values: [&str; 2]| grouped(values.map(text).to_vec(), 7);
        let tree = seq(vec![row(["a", "b"]), text(" UNION "), row(["c", "d"])]);
        let mut groups = Vec::new();
        tree.groups(&mut groups);
        assert_eq!(groups, [(7, 2)]);
        assert_eq!(tree.without_column(7, 0).sql(), "b UNION d");
        assert!(edits(&tree).is_empty());
    }
}
