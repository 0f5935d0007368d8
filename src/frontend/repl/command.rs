//! The shell's own commands: one list, which `\?` prints and completion offers, and their
//! reading. What they do is in `repl.rs`.

use std::time::Duration;

/// One entry of the list.
#[derive(Clone, Copy, Debug)]
pub struct CommandSpec {
    /// Without the backslash.
    pub name: &'static str,
    pub arguments: &'static str,
    pub doc: &'static str,
}

/// All commands, in the order of `\?`.
pub const COMMANDS: &[CommandSpec] = &[
    CommandSpec { name: "d", arguments: "[NAME]", doc: "describe an object, or list them all" },
    CommandSpec { name: "dt", arguments: "", doc: "list tables" },
    CommandSpec { name: "ds", arguments: "", doc: "list sources" },
    CommandSpec { name: "dm", arguments: "", doc: "list materialized views" },
    CommandSpec { name: "dv", arguments: "", doc: "list views" },
    CommandSpec { name: "g", arguments: "", doc: "run the last statement again" },
    CommandSpec {
        name: "watch",
        arguments: "[SECONDS]",
        doc: "run the last statement every 2 (or so many) seconds",
    },
    CommandSpec { name: "i", arguments: "FILE", doc: "run the statements of a file" },
    CommandSpec { name: "x", arguments: "[on|off]", doc: "print a line for each value" },
    CommandSpec { name: "timing", arguments: "[on|off]", doc: "print how long statements take" },
    CommandSpec { name: "c", arguments: "[DATABASE]", doc: "connect to another database" },
    CommandSpec { name: "conninfo", arguments: "", doc: "tell what the shell is connected to" },
    CommandSpec { name: "demo", arguments: "", doc: "set up flights data and watch it live" },
    CommandSpec { name: "?", arguments: "", doc: "this list" },
    CommandSpec { name: "q", arguments: "", doc: "quit (or Ctrl-D)" },
];

/// A command, read.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Lists everything without a name.
    Describe(Option<String>),
    List(ListKind),
    Again,
    Watch(Duration),
    Include(String),
    /// `None` turns the switch over.
    Expanded(Option<bool>),
    Timing(Option<bool>),
    Connect(Option<String>),
    ConnectionInfo,
    Demo,
    Help,
    Quit,
}

/// What a listing lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListKind {
    Tables,
    Sources,
    MaterializedViews,
    Views,
}

const WATCH_DEFAULT: Duration = Duration::from_secs(2);
/// Below this, a terminal only flickers.
const WATCH_SECONDS_MIN: f64 = 0.1;
const WATCH_SECONDS_MAX: f64 = 86_400.0;

/// Reads a command line without its backslash.
///
/// # Errors
/// What is wrong with it, for the person.
pub fn parse(line: &str) -> Result<Command, String> {
    let (name, argument) = match line.split_once(char::is_whitespace) {
        Some((name, argument)) => (name, argument.trim().trim_end_matches(';').trim_end()),
        None => (line.trim_end_matches(';'), ""),
    };
    let optional = (!argument.is_empty()).then(|| argument.to_owned());
    let command = match name {
        "d" => return Ok(Command::Describe(optional)),
        "watch" => return parse_watch(argument).map(Command::Watch),
        "x" => return parse_switch(name, argument).map(Command::Expanded),
        "timing" => return parse_switch(name, argument).map(Command::Timing),
        "c" | "connect" => return Ok(Command::Connect(optional)),
        "i" | "include" => {
            return optional.map(Command::Include).ok_or("\\i: name a file".to_owned());
        }
        "dt" => Command::List(ListKind::Tables),
        "ds" => Command::List(ListKind::Sources),
        "dm" => Command::List(ListKind::MaterializedViews),
        "dv" => Command::List(ListKind::Views),
        "g" => Command::Again,
        "conninfo" => Command::ConnectionInfo,
        "demo" => Command::Demo,
        "?" | "h" | "help" => Command::Help,
        "q" | "quit" | "exit" => Command::Quit,
        _ => return Err(format!("there is no command \\{name}; \\? lists them")),
    };
    match optional {
        None => Ok(command),
        Some(argument) => Err(format!("\\{name} takes no argument, but there is \"{argument}\"")),
    }
}

fn parse_switch(name: &str, argument: &str) -> Result<Option<bool>, String> {
    match argument {
        "" => Ok(None),
        "on" => Ok(Some(true)),
        "off" => Ok(Some(false)),
        _ => Err(format!("\\{name} takes on or off, not \"{argument}\"")),
    }
}

fn parse_watch(argument: &str) -> Result<Duration, String> {
    if argument.is_empty() {
        return Ok(WATCH_DEFAULT);
    }
    match argument.parse::<f64>() {
        Ok(seconds) if (WATCH_SECONDS_MIN..=WATCH_SECONDS_MAX).contains(&seconds) => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => Err(format!(
            "\\watch takes seconds from {WATCH_SECONDS_MIN} to {WATCH_SECONDS_MAX}, \
             not \"{argument}\""
        )),
    }
}

/// The text of `\?`.
pub fn help() -> String {
    let mut text = "Statements end with a semicolon. Tab completes, Ctrl-C cancels.\n\n".to_owned();
    for CommandSpec { name, arguments, doc } in COMMANDS {
        let usage = format!("\\{name} {arguments}");
        text += &format!("  {usage:<18} {doc}\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_of_the_list_is_read() {
        for spec in COMMANDS {
            let argument = match spec.arguments {
                "FILE" => "a b.sql",
                "[SECONDS]" => "0.5",
                "[on|off]" => "on",
                "[NAME]" | "[DATABASE]" => "x",
                other => other,
            };
            let line = format!("{} {argument}", spec.name);
            parse(line.trim()).unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(help().contains(&format!("\\{} ", spec.name)), "{}", spec.name);
        }
    }

    #[test]
    fn the_reference_page_lists_the_commands() {
        let mut page = "# Commands of the shell\n\nMade from the list in \
                        `src/frontend/repl/command.rs`; `\\?` prints it.\n\n\
                        | command | what it does |\n|---|---|\n"
            .to_owned();
        for CommandSpec { name, arguments, doc } in COMMANDS {
            let usage = format!("\\{name} {arguments}");
            page += &format!("| `{}` | {doc} |\n", usage.trim().replace('|', "\\|"));
        }
        expect_test::expect_file!["../../../docs/reference/shell.md"].assert_eq(&page);
    }

    #[test]
    fn arguments() {
        assert_eq!(parse("d  public.t ;"), Ok(Command::Describe(Some("public.t".into()))));
        assert_eq!(parse("dt;"), Ok(Command::List(ListKind::Tables)));
        assert_eq!(parse("x"), Ok(Command::Expanded(None)));
        assert_eq!(parse("timing off"), Ok(Command::Timing(Some(false))));
        assert_eq!(parse("watch"), Ok(Command::Watch(Duration::from_secs(2))));
        assert_eq!(parse("watch 0.5"), Ok(Command::Watch(Duration::from_millis(500))));
        assert_eq!(parse("i a b.sql"), Ok(Command::Include("a b.sql".into())));
        for wrong in ["", "nope", "x maybe", "watch 0", "watch NaN", "watch -1", "i", "q now"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
