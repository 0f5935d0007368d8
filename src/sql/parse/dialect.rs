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
use datafusion::sql::sqlparser::keywords::{Keyword, RESERVED_FOR_COLUMN_ALIAS};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::sql::parse::cursor::{RESERVED_WORD, is_word};
use crate::sql::parse::name::is_reserved;

const POSTGRES: PostgreSqlDialect = PostgreSqlDialect {};

/// Steps that a parse may take however short the text, and those that each token adds. A text
/// that parses takes about one prefix per token; sqlparser's backtracking can double the work at
/// every nesting level of a text that does not.
const STEPS_MIN: usize = 10_000;
const STEPS_PER_TOKEN: usize = 50;

/// Stack that must be left to parse on. sqlparser counts its recursion, but not everywhere: not in
/// `INTERVAL YEAR INTERVAL YEAR ...`.
const STACK_BYTES_MIN: usize = 256 << 10;

/// One per parse, because it counts that parse's steps.
#[derive(Debug)]
pub(super) struct MillstreamDialect {
    /// Expression prefixes that may still be tried.
    steps_left: Cell<usize>,
    /// The text has `FOR SYSTEM_TIME`. Without it sqlparser would take `t at` for a version of `t`.
    has_versions: bool,
}

impl MillstreamDialect {
    /// To parse these tokens with; to make tokens, without any.
    pub(super) fn new(tokens: &[TokenWithSpan]) -> MillstreamDialect {
        let steps = tokens.len().saturating_mul(STEPS_PER_TOKEN).saturating_add(STEPS_MIN);
        let has_versions = tokens.iter().any(|t| is_word(&t.token, "SYSTEM_TIME"));
        MillstreamDialect { steps_left: Cell::new(steps), has_versions }
    }
}

/// Whether a reserved word may begin an expression, `calls` telling that a parenthesis follows.
fn begins_expression(word: &str, calls: bool) -> bool {
    const ALWAYS: [&str; 20] = [
        "ARRAY",
        "CASE",
        "CAST",
        "CURRENT_CATALOG",
        "CURRENT_DATE",
        "CURRENT_ROLE",
        "CURRENT_SCHEMA",
        "CURRENT_TIME",
        "CURRENT_TIMESTAMP",
        "CURRENT_USER",
        "DEFAULT",
        "FALSE",
        "LOCALTIME",
        "LOCALTIMESTAMP",
        "NOT",
        "NULL",
        "SESSION_USER",
        "SYSTEM_USER",
        "TRUE",
        "USER",
    ];
    const FUNCTIONS: [&str; 6] = ["LEFT", "RIGHT", "LIKE", "OVERLAPS", "SIMILAR", "COLLATION"];
    let is = |list: &[&str]| list.iter().any(|w| w.eq_ignore_ascii_case(word));
    is(&ALWAYS) || (calls && is(&FUNCTIONS))
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

    /// Beside Postgres's, those that begin expressions: after an error in `CAST(...)` sqlparser
    /// would try again with a column or function of that name, at every nesting level.
    fn is_reserved_for_identifier(&self, keyword: Keyword) -> bool {
        matches!(keyword, Keyword::CASE | Keyword::CAST | Keyword::NOT | Keyword::ARRAY)
            || POSTGRES.is_reserved_for_identifier(keyword)
    }

    /// `SELECT 1 ON CONFLICT ...`: ON is no alias. Postgres takes these only behind AS.
    fn is_column_alias(&self, keyword: &Keyword, _parser: &mut Parser) -> bool {
        let needs_as = matches!(
            keyword,
            Keyword::ARRAY
                | Keyword::AS
                | Keyword::CREATE
                | Keyword::FILTER
                | Keyword::FOR
                | Keyword::GRANT
                | Keyword::INTO
                | Keyword::NOTNULL
                | Keyword::ON
                | Keyword::OVER
                | Keyword::OVERLAPS
                | Keyword::RETURNING
                | Keyword::TO
                | Keyword::WITHIN
                | Keyword::WITHOUT
        );
        !needs_as && !RESERVED_FOR_COLUMN_ALIAS.contains(keyword)
    }

    /// No reserved word names a table, not even behind AS.
    fn is_table_factor_alias(
        &self,
        explicit: bool,
        keyword: &Keyword,
        parser: &mut Parser,
    ) -> bool {
        let reserved = match &parser.get_current_token().token {
            Token::Word(word) => word.quote_style.is_none() && is_reserved(&word.value),
            _ => false,
        };
        !reserved && (explicit || self.is_table_alias(keyword, parser))
    }

    fn get_next_precedence(&self, parser: &Parser) -> Option<Result<u8, ParserError>> {
        POSTGRES.get_next_precedence(parser)
    }

    fn prec_value(&self, precedence: Precedence) -> u8 {
        POSTGRES.prec_value(precedence)
    }

    /// Parses nothing; counts, watches the stack, and refuses reserved words, which sqlparser
    /// takes for columns.
    fn parse_prefix(&self, parser: &mut Parser) -> Option<Result<Expr, ParserError>> {
        let left = self.steps_left.get();
        let stack = stacker::remaining_stack().unwrap_or(usize::MAX);
        if left == 0 || stack < STACK_BYTES_MIN {
            // The one error that backtracking lets through.
            return Some(Err(ParserError::RecursionLimitExceeded));
        }
        self.steps_left.set(left - 1);
        let token = parser.peek_token_ref();
        match &token.token {
            Token::Word(word) if word.quote_style.is_none() && is_reserved(&word.value) => {
                let calls = parser.peek_nth_token_ref(1).token == Token::LParen;
                if begins_expression(&word.value, calls) {
                    return None;
                }
                let place = token.span.start;
                Some(Err(ParserError::ParserError(format!("{RESERVED_WORD}{place}"))))
            }
            _ => None,
        }
    }

    /// `IS [NOT] DISTINCT FROM`, whose right side ends before AND and OR; sqlparser's does not.
    fn parse_infix(
        &self,
        parser: &mut Parser,
        expr: &Expr,
        _precedence: u8,
    ) -> Option<Result<Expr, ParserError>> {
        let negated = if parser.parse_keywords(&[Keyword::IS, Keyword::DISTINCT, Keyword::FROM]) {
            false
        } else if parser.parse_keywords(&[
            Keyword::IS,
            Keyword::NOT,
            Keyword::DISTINCT,
            Keyword::FROM,
        ]) {
            true
        } else {
            return None;
        };
        let left = Box::new(expr.clone());
        let right = parser.parse_subexpr(self.prec_value(Precedence::Is)).map(Box::new);
        Some(right.map(|right| match negated {
            false => Expr::IsDistinctFrom(left, right),
            true => Expr::IsNotDistinctFrom(left, right),
        }))
    }

    fn supports_table_versioning(&self) -> bool {
        self.has_versions
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
