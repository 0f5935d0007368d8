//! Millstream's dialect of sqlparser: Postgres, with backtick quotes (Flink), `SELECT * EXCEPT`
//! (RisingWave), STRUCT types, and a bound on the parser's work.
//!
//! sqlparser asks for the dialect's type in places that have no method of their own yet, so
//! [`Dialect::dialect`] answers with Postgres's and every method below follows Postgres unless its
//! comment says otherwise.

use std::any::TypeId;
use std::cell::Cell;

use datafusion::sql::sqlparser::ast::Expr;
use datafusion::sql::sqlparser::dialect::{Dialect, PostgreSqlDialect, Precedence};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};

const POSTGRES: PostgreSqlDialect = PostgreSqlDialect {};

/// Steps that a parse may take however short the text, and those that each token adds. A text
/// that parses takes about one prefix per token; sqlparser's backtracking can double the work at
/// every nesting level of a text that does not.
const STEPS_MIN: usize = 10_000;
const STEPS_PER_TOKEN: usize = 50;

/// One per parse, because it counts that parse's steps.
#[derive(Debug)]
pub(super) struct MillstreamDialect {
    /// Expression prefixes that may still be tried.
    steps_left: Cell<usize>,
}

impl MillstreamDialect {
    pub(super) fn new(token_count: usize) -> MillstreamDialect {
        let steps = token_count.saturating_mul(STEPS_PER_TOKEN).saturating_add(STEPS_MIN);
        MillstreamDialect { steps_left: Cell::new(steps) }
    }
}

impl Dialect for MillstreamDialect {
    fn dialect(&self) -> TypeId {
        TypeId::of::<PostgreSqlDialect>()
    }

    fn identifier_quote_style(&self, identifier: &str) -> Option<char> {
        POSTGRES.identifier_quote_style(identifier)
    }

    /// Backticks too: Flink's DDL can be pasted.
    fn is_delimited_identifier_start(&self, ch: char) -> bool {
        ch == '"' || ch == '`'
    }

    fn is_identifier_start(&self, ch: char) -> bool {
        POSTGRES.is_identifier_start(ch)
    }

    fn is_identifier_part(&self, ch: char) -> bool {
        POSTGRES.is_identifier_part(ch)
    }

    /// Without the backtick, which quotes.
    fn is_custom_operator_part(&self, ch: char) -> bool {
        ch != '`' && POSTGRES.is_custom_operator_part(ch)
    }

    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        POSTGRES.is_reserved_for_identifier(keyword)
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        POSTGRES.get_next_precedence(parser)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        POSTGRES.prec_value(precedence)
    }

    /// Parses nothing; counts. `RecursionLimitExceeded` is the one error that backtracking lets
    /// through.
    fn parse_prefix(&self, _parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        match self.steps_left.get().checked_sub(1) {
            Some(left) => {
                self.steps_left.set(left);
                None
            }
            None => Some(Err(ParserError::RecursionLimitExceeded)),
        }
    }

    fn supports_unicode_string_literal(&self) -> bool {
        true
    }

    fn supports_string_escape_constant(&self) -> bool {
        true
    }

    fn supports_string_literal_concatenation_with_newline(&self) -> bool {
        true
    }

    fn supports_nested_comments(&self) -> bool {
        true
    }

    fn supports_numeric_literal_underscores(&self) -> bool {
        true
    }

    /// The tokenizer takes `?`, `?|` and `?&` of jsonb under this name.
    fn supports_geometric_types(&self) -> bool {
        true
    }

    fn supports_filter_during_aggregation(&self) -> bool {
        true
    }

    fn supports_group_by_expr(&self) -> bool {
        true
    }

    fn supports_bitwise_shift_operators(&self) -> bool {
        true
    }

    fn supports_factorial_operator(&self) -> bool {
        true
    }

    fn supports_notnull_operator(&self) -> bool {
        true
    }

    fn allow_extract_custom(&self) -> bool {
        true
    }

    fn allow_extract_single_quotes(&self) -> bool {
        true
    }

    fn supports_interval_options(&self) -> bool {
        true
    }

    fn supports_comma_separated_trim(&self) -> bool {
        true
    }

    fn supports_named_fn_args_with_colon_operator(&self) -> bool {
        true
    }

    fn supports_named_fn_args_with_assignment_operator(&self) -> bool {
        true
    }

    /// Unlike Postgres's: an expression as an argument's name makes sqlparser parse every argument
    /// twice, which is exponential in nested calls.
    fn supports_named_fn_args_with_expr_name(&self) -> bool {
        false
    }

    fn supports_array_typedef_with_brackets(&self) -> bool {
        true
    }

    /// `STRUCT<a int, b text>` as a type.
    fn supports_struct_literal(&self) -> bool {
        true
    }

    fn supports_empty_projections(&self) -> bool {
        true
    }

    fn supports_select_wildcard_except(&self) -> bool {
        true
    }

    fn supports_select_wildcard_exclude(&self) -> bool {
        true
    }

    fn supports_select_wildcard_replace(&self) -> bool {
        true
    }

    fn supports_insert_table_alias(&self) -> bool {
        true
    }
}
