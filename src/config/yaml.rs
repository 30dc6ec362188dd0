//! YAML text into a tree that remembers its lines. The only file that uses serde-saphyr (through its event parser).
//!
//! Knows nothing of keys or values: scalars stay text, so `1234e567` is never a number by accident and a variable can
//! never turn into structure. Anchors, aliases, merge keys and tags are refused: nothing in this file needs them, and
//! they are how small files become huge ones. Read `substitute.rs` next.

use std::borrow::Cow;

use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle, Span};

use crate::domain::problem::Problem;

/// The largest accepted configuration file, in bytes.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;
/// The deepest accepted nesting of lists and mappings, in levels.
pub const DEPTH_LEVELS_MAX: usize = 16;
/// The largest accepted number of values in one file.
pub const NODES_MAX: usize = 50_000;

/// One value of the file.
pub struct Node {
    /// Where it stands, from 1.
    pub line: usize,
    /// What it is.
    pub value: Value,
}

/// What a value can be. There is no `Debug`: a value may be somebody's misplaced secret.
pub enum Value {
    /// Nothing, `~` or `null`, unquoted.
    Null,
    /// Any scalar, as text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the file, duplicates included (`read.rs` refuses them).
    Map(Vec<Entry>),
    /// Already reported; nothing more is to be said about it.
    Faulty,
}

/// One key of a mapping with its value.
pub struct Entry {
    /// The key as written.
    pub key: String,
    /// Its line, from 1.
    pub line: usize,
    /// Its value.
    pub node: Node,
}

/// Parses one document; an empty text is an empty mapping.
///
/// # Errors
/// The first mistake in the syntax; what follows it cannot be read reliably.
pub fn parse(text: &str) -> Result<Node, Problem> {
    if text.len() > CONFIG_BYTES_MAX {
        return Err(fault(0, "the file is larger than 1 MiB", None));
    }
    let options = granit_parser::options! {
        disallow_directives: true,
        flow_nesting_limit: DEPTH_LEVELS_MAX,
        block_nesting_limit: DEPTH_LEVELS_MAX,
    };
    let mut builder = Builder::default();
    for next in Parser::new_from_str_with_options(text, options) {
        let (event, span) = next.map_err(|error| {
            // The parser's sentences are fixed and quote nothing of the text.
            let message = format!("this is not valid YAML: {}", error.kind());
            let line = error.marker().line();
            fault(line, &message, unquoted_variable(text, line))
        })?;
        builder.take(event, span)?;
    }
    Ok(builder.root.unwrap_or(Node {
        line: 1,
        value: Value::Map(Vec::new()),
    }))
}

fn fault(line: usize, message: &str, hint: Option<&str>) -> Problem {
    let problem = Problem::new("(file)", message).at(line);
    match hint {
        Some(hint) => problem.hint(hint),
        None => problem,
    }
}

/// The commonest cause of a syntax error that the parser's sentence does not help with.
fn unquoted_variable(text: &str, line: usize) -> Option<&'static str> {
    let written = text.lines().nth(line.saturating_sub(1))?;
    written
        .contains("${")
        .then_some("inside [ ] and { }, a value with ${NAME} must be quoted")
}

/// A list or mapping whose end has not come yet.
enum Open {
    List(usize, Vec<Node>),
    Map(usize, Vec<Entry>, Option<(String, usize)>),
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                check_plain(line, anchor, tag.is_some())?;
                self.scalar(line, text, style)
            }
            Event::SequenceStart(_, anchor, tag) => {
                check_plain(line, anchor, tag.is_some())?;
                self.push(line, Open::List(line, Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                check_plain(line, anchor, tag.is_some())?;
                self.push(line, Open::Map(line, Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(line, items)) => self.place(line, Value::List(items)),
                Some(Open::Map(line, entries, _)) => self.place(line, Value::Map(entries)),
                None => Ok(()),
            },
            Event::Alias(_) => Err(no_anchors(line)),
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(fault(
                        line,
                        "a second document begins here",
                        Some("the configuration is one document; remove the `---`"),
                    ));
                }
                Ok(())
            }
            // The enum is open; what is left carries no value (start, end, comments).
            _ => Ok(()),
        }
    }

    fn push(&mut self, line: usize, open: Open) -> Result<(), Problem> {
        if let Some(Open::Map(_, _, None)) = self.open.last() {
            return Err(fault(line, "a key must be a plain word", None));
        }
        if self.open.len() >= DEPTH_LEVELS_MAX {
            return Err(fault(line, "the nesting is deeper than 16 levels", None));
        }
        self.open.push(open);
        Ok(())
    }

    fn scalar(
        &mut self,
        line: usize,
        text: Cow<'_, str>,
        style: ScalarStyle,
    ) -> Result<(), Problem> {
        if let Some(Open::Map(_, _, key @ None)) = self.open.last_mut() {
            *key = Some((text.into_owned(), line));
            return Ok(());
        }
        let null =
            style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
        let value = if null {
            Value::Null
        } else {
            Value::Text(text.into_owned())
        };
        self.place(line, value)
    }

    fn place(&mut self, line: usize, value: Value) -> Result<(), Problem> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err(fault(line, "the file holds more than 50000 values", None));
        }
        let mut node = Node { line, value };
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List(_, items)) => items.push(node),
            Some(Open::Map(_, entries, key)) => {
                let (key, line) = key.take().unwrap_or_default();
                if matches!(node.value, Value::Null) {
                    node.line = line; // an absent value has no place of its own
                }
                entries.push(Entry { key, line, node });
            }
        }
        Ok(())
    }
}

fn check_plain(line: usize, anchor: usize, tagged: bool) -> Result<(), Problem> {
    if anchor != 0 {
        return Err(no_anchors(line));
    }
    if tagged {
        return Err(fault(
            line,
            "YAML tags (`!word`) are not accepted",
            Some("write the value alone; quote it if it begins with `!`"),
        ));
    }
    Ok(())
}

fn no_anchors(line: usize) -> Problem {
    fault(
        line,
        "YAML anchors and aliases are not accepted",
        Some("write the value out; quote it if it begins with `&` or `*`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn show(node: &Node) -> String {
        let line = node.line;
        match &node.value {
            Value::Null => format!("null@{line}"),
            Value::Text(text) => format!("{text:?}@{line}"),
            Value::Faulty => "faulty".into(),
            Value::List(items) => {
                let items: Vec<_> = items.iter().map(show).collect();
                format!("[{}]", items.join(" "))
            }
            Value::Map(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|e| format!("{}@{}={}", e.key, e.line, show(&e.node)))
                    .collect();
                format!("{{{}}}", entries.join(" "))
            }
        }
    }

    fn check(text: &str, expected: &str) {
        let got = parse(text).map_or_else(|p| format!("{}: {}", p.line, p.message), |n| show(&n));
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn scalars_stay_the_text_that_was_written_and_lines_are_kept() {
        check(
            "a: 1\nb:\n  - 007\n  - 1234e567\n  - '~'\n  - ~\n  - off\nc: \"x\"\n",
            "{a@1=\"1\"@1 b@2=[\"007\"@3 \"1234e567\"@4 \"~\"@5 null@6 \"off\"@7] c@8=\"x\"@8}",
        );
        check("a:\nb: {c: [d]}\n", "{a@1=null@1 b@2={c@2=[\"d\"@2]}}");
        check("", "{}");
        check("# only a comment\n", "{}");
        check("--- \na: b\n...\n", "{a@2=\"b\"@2}");
    }

    #[test]
    fn duplicates_reach_the_reader_who_refuses_them() {
        check("a: 1\na: 2\n", "{a@1=\"1\"@1 a@2=\"2\"@2}");
    }

    #[test]
    fn anchors_aliases_tags_directives_and_further_documents_are_refused() {
        check("a: &x 1\n", "1: YAML anchors and aliases are not accepted");
        check(
            "\na: &x {b: 1}\nc: {<<: *x}\n",
            "2: YAML anchors and aliases are not accepted",
        );
        check("a: !!int 1\n", "1: YAML tags (`!word`) are not accepted");
        check("a: !x {}\n", "1: YAML tags (`!word`) are not accepted");
        check("a: 1\n---\nb: 1\n", "2: a second document begins here");
        check("? [a]\n: 1\n", "1: a key must be a plain word");
        assert!(parse("a: *nobody\n").is_err());
        assert!(parse("%YAML 1.2\n---\na: 1\n").is_err());
    }

    #[test]
    fn syntax_errors_name_the_line_and_quote_nothing() {
        let Err(problem) = parse("a: 1\nb: [canary-value-1\nc: 2\n") else {
            panic!("accepted");
        };
        assert!(problem.line >= 2, "{problem}");
        assert!(
            problem.message.len() > "this is not valid YAML: ".len(),
            "{problem}"
        );
        assert!(!problem.to_string().contains("canary"), "{problem}");
        check(
            "a: 1\n  b: 2\n",
            "2: this is not valid YAML: mapping values are not allowed in this context",
        );
    }

    #[test]
    fn bombs_end_quickly_with_an_error() {
        let start = Instant::now();
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..12 {
            let below = level - 1;
            let row = vec![format!("*a{below}"); 9].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{row}]\n"));
        }
        assert!(parse(&bomb).is_err());
        assert!(parse(&"[".repeat(200_000)).is_err());
        assert!(parse(&"- ".repeat(200_000)).is_err());
        assert!(parse(&"{a: ".repeat(200_000)).is_err());
        assert!(parse(&format!("a: [{}]", "x,".repeat(200_000))).is_err());
        assert!(parse(&"a: b\n".repeat(CONFIG_BYTES_MAX / 5 + 1)).is_err());
        assert!(start.elapsed() < Duration::from_secs(5));
    }
}
