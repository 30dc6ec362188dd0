//! YAML text into a tree that remembers its lines. The only file that uses serde-saphyr (through its event parser).
//!
//! Knows nothing of keys or values: scalars stay text, so `1234e567` is never a number by accident and a variable can
//! never turn into structure. In the configuration anchors, aliases, merge keys and tags are refused: nothing there needs
//! them, and they are how small files become huge ones. Bundles are other people's files and do use them ([`parse_bundle`]):
//! there each copy that an alias makes counts against [`NODES_MAX`]. Read `substitute.rs` next.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle, Span, Tag};

use crate::domain::problem::Problem;

/// The largest accepted configuration file, in bytes.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;
/// The deepest accepted nesting of lists and mappings, in levels.
pub const DEPTH_LEVELS_MAX: usize = 16;
/// The same for bundles, which hold jobs and dashboards too.
pub const BUNDLE_DEPTH_LEVELS_MAX: usize = 64;
/// The largest accepted number of values in one file.
pub const NODES_MAX: usize = 50_000;

/// One value of the file.
#[derive(Clone)]
pub struct Node {
    /// Where it stands, from 1.
    pub line: usize,
    /// What it is.
    pub value: Value,
}

/// What a value can be. There is no `Debug`: a value may be somebody's misplaced secret.
#[derive(Clone)]
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
#[derive(Clone)]
pub struct Entry {
    /// The key as written.
    pub key: String,
    /// Its line, from 1.
    pub line: usize,
    /// Its value.
    pub node: Node,
}

/// Parses one document of configuration; an empty text is an empty mapping.
///
/// # Errors
/// The first mistake in the syntax; what follows it cannot be read reliably.
pub fn parse(text: &str) -> Result<Node, Problem> {
    Builder::new(None, DEPTH_LEVELS_MAX).build(text)
}

/// Parses one document of a bundle: anchors, aliases, merge keys and the tags of plain YAML are understood as well.
///
/// # Errors
/// As [`parse`].
pub fn parse_bundle(text: &str) -> Result<Node, Problem> {
    Builder::new(Some(HashMap::new()), BUNDLE_DEPTH_LEVELS_MAX).build(text)
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

/// A list or mapping whose end has not come yet, with the number of its anchor (0 = none).
struct Open {
    line: usize,
    anchor: usize,
    inner: Inner,
}

enum Inner {
    List(Vec<Node>),
    /// Its own entries, those that merge keys bring, and what comes next.
    Map(Vec<Entry>, Vec<Entry>, Key),
}

/// Whether the next node of a mapping is a key or the value of one.
enum Key {
    Awaited,
    Read(String, usize),
    /// `<<`: the value's entries join the mapping.
    Merge(usize),
}

struct Builder {
    /// What each anchor stands for; `None` where anchors are refused.
    anchors: Option<HashMap<usize, Node>>,
    depth_max: usize,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
}

impl Builder {
    fn new(anchors: Option<HashMap<usize, Node>>, depth_max: usize) -> Self {
        Self {
            anchors,
            depth_max,
            open: Vec::new(),
            root: None,
            documents: 0,
            nodes: 0,
        }
    }

    fn build(mut self, text: &str) -> Result<Node, Problem> {
        if text.len() > CONFIG_BYTES_MAX {
            return Err(fault(0, "the file is larger than 1 MiB", None));
        }
        let options = granit_parser::options! {
            disallow_directives: true,
            flow_nesting_limit: self.depth_max,
            block_nesting_limit: self.depth_max,
        };
        for next in Parser::new_from_str_with_options(text, options) {
            let (event, span) = next.map_err(|error| {
                // The parser's sentences are fixed and quote nothing of the text.
                let message = format!("this is not valid YAML: {}", error.kind());
                let line = error.marker().line();
                fault(line, &message, unquoted_variable(text, line))
            })?;
            self.take(event, span)?;
        }
        Ok(self.root.unwrap_or(Node {
            line: 1,
            value: Value::Map(Vec::new()),
        }))
    }

    fn take(&mut self, event: Event<'_>, span: Span) -> Result<(), Problem> {
        let line = span.start.line();
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.check_plain(line, anchor, tag.as_deref())?;
                let quoted = tag.is_some() || style != ScalarStyle::Plain;
                self.scalar(line, text, quoted, anchor)
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.check_plain(line, anchor, tag.as_deref())?;
                self.push(line, anchor, Inner::List(Vec::new()))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.check_plain(line, anchor, tag.as_deref())?;
                self.push(
                    line,
                    anchor,
                    Inner::Map(Vec::new(), Vec::new(), Key::Awaited),
                )
            }
            Event::SequenceEnd | Event::MappingEnd => {
                let Some(open) = self.open.pop() else {
                    return Ok(());
                };
                let value = match open.inner {
                    Inner::List(items) => Value::List(items),
                    Inner::Map(own, merged, _) => Value::Map(joined(own, merged)),
                };
                self.place(open.line, value, open.anchor)
            }
            Event::Alias(anchor) => self.alias(line, anchor),
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    let hint = "only one document is read; remove the `---`";
                    return Err(fault(line, "a second document begins here", Some(hint)));
                }
                Ok(())
            }
            // The enum is open; what is left carries no value (start, end, comments).
            _ => Ok(()),
        }
    }

    fn push(&mut self, line: usize, anchor: usize, inner: Inner) -> Result<(), Problem> {
        if self.awaits_key() {
            return Err(fault(line, "a key must be a plain word", None));
        }
        if self.open.len() >= self.depth_max {
            return Err(self.too_deep(line));
        }
        self.open.push(Open {
            line,
            anchor,
            inner,
        });
        Ok(())
    }

    fn too_deep(&self, line: usize) -> Problem {
        let message = format!("the nesting is deeper than {} levels", self.depth_max);
        fault(line, &message, None)
    }

    fn awaits_key(&self) -> bool {
        let inner = self.open.last().map(|open| &open.inner);
        matches!(inner, Some(Inner::Map(_, _, Key::Awaited)))
    }

    fn scalar(
        &mut self,
        line: usize,
        text: Cow<'_, str>,
        quoted: bool,
        anchor: usize,
    ) -> Result<(), Problem> {
        let merges = self.anchors.is_some() && !quoted && text == "<<";
        if let Some(Open {
            inner: Inner::Map(_, _, key @ Key::Awaited),
            ..
        }) = self.open.last_mut()
        {
            *key = if merges {
                Key::Merge(line)
            } else {
                Key::Read(text.into_owned(), line)
            };
            return Ok(());
        }
        let null = !quoted && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
        let value = if null {
            Value::Null
        } else {
            Value::Text(text.into_owned())
        };
        self.place(line, value, anchor)
    }

    /// Puts a copy of what the anchor stands for here.
    fn alias(&mut self, line: usize, anchor: usize) -> Result<(), Problem> {
        let Some(anchors) = &self.anchors else {
            return Err(no_anchors(line));
        };
        if self.awaits_key() {
            return Err(fault(line, "a key must be a plain word", None));
        }
        // An anchor whose node has not ended holds itself.
        let Some(node) = anchors.get(&anchor).cloned() else {
            return Err(fault(line, "this alias stands inside its own anchor", None));
        };
        let (nodes, levels) = measure(&node);
        self.nodes = self.nodes.saturating_add(nodes);
        if self.open.len() + levels > self.depth_max {
            return Err(self.too_deep(line));
        }
        // The copy keeps the place where it is used: what stands there is what a reader looks at.
        self.place(line, node.value, 0)
    }

    fn place(&mut self, line: usize, value: Value, anchor: usize) -> Result<(), Problem> {
        self.nodes = self.nodes.saturating_add(1);
        if self.nodes > NODES_MAX {
            return Err(fault(line, "the file holds more than 50000 values", None));
        }
        let mut node = Node { line, value };
        if let Some(anchors) = self.anchors.as_mut().filter(|_| anchor != 0) {
            self.nodes = self.nodes.saturating_add(measure(&node).0);
            anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.inner) {
            None => self.root = Some(node),
            Some(Inner::List(items)) => items.push(node),
            Some(Inner::Map(own, merged, key)) => match std::mem::replace(key, Key::Awaited) {
                Key::Read(key, line) => {
                    if matches!(node.value, Value::Null) {
                        node.line = line; // an absent value has no place of its own
                    }
                    own.push(Entry { key, line, node });
                }
                Key::Merge(line) => merge(merged, node, line)?,
                Key::Awaited => {}
            },
        }
        Ok(())
    }

    fn check_plain(&self, line: usize, anchor: usize, tag: Option<&Tag>) -> Result<(), Problem> {
        if anchor != 0 && self.anchors.is_none() {
            return Err(no_anchors(line));
        }
        if tag.is_some_and(|tag| self.anchors.is_none() || tag.core_suffix().is_none()) {
            return Err(fault(
                line,
                "YAML tags (`!word`) are not accepted",
                Some("write the value alone; quote it if it begins with `!`"),
            ));
        }
        Ok(())
    }
}

/// Keeps a merge key's entries for the end of the mapping, those that win first: of several merged mappings the last one
/// does (so the Databricks CLI; the YAML type registry has it the other way round).
fn merge(merged: &mut Vec<Entry>, node: Node, line: usize) -> Result<(), Problem> {
    let maps = match node.value {
        Value::List(items) => items.into_iter().rev().map(|item| item.value).collect(),
        value => vec![value],
    };
    for value in maps {
        let Value::Map(entries) = value else {
            return Err(fault(line, "only mappings can be merged by `<<`", None));
        };
        merged.extend(entries);
    }
    Ok(())
}

/// What a mapping says itself goes before what it merges.
fn joined(mut own: Vec<Entry>, merged: Vec<Entry>) -> Vec<Entry> {
    for entry in merged {
        if !own.iter().any(|known| known.key == entry.key) {
            own.push(entry);
        }
    }
    own
}

/// How many values a node holds, itself included, and in how many levels.
fn measure(node: &Node) -> (usize, usize) {
    let inner: Vec<(usize, usize)> = match &node.value {
        Value::List(items) => items.iter().map(measure).collect(),
        Value::Map(entries) => entries.iter().map(|entry| measure(&entry.node)).collect(),
        Value::Null | Value::Text(_) | Value::Faulty => return (1, 0),
    };
    let levels = inner.iter().map(|(_, levels)| *levels).max();
    let nodes = inner.iter().map(|(nodes, _)| *nodes).sum::<usize>();
    (nodes + 1, levels.unwrap_or_default() + 1)
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

    fn bundle(text: &str, expected: &str) {
        let got =
            parse_bundle(text).map_or_else(|p| format!("{}: {}", p.line, p.message), |n| show(&n));
        assert_eq!(got, expected, "{text:?}");
    }

    #[test]
    fn a_bundle_may_repeat_itself_by_anchors_and_merge_keys() {
        bundle(
            "a: &x {b: 1}\nc: *x\n",
            "{a@1={b@1=\"1\"@1} c@2={b@1=\"1\"@1}}",
        );
        bundle("a: &x 1\nb: [*x]\n", "{a@1=\"1\"@1 b@2=[\"1\"@2]}");
        // Own keys win on either side of the merge key, and of several merged mappings the last one does.
        bundle(
            "a: &x {k: 1, l: 1}\nb:\n  <<: *x\n  k: 2\n",
            "{a@1={k@1=\"1\"@1 l@1=\"1\"@1} b@2={k@4=\"2\"@4 l@1=\"1\"@1}}",
        );
        bundle(
            "a: &x {k: 1}\nb: &y {k: 2}\nc: {<<: [*x, *y]}\n",
            "{a@1={k@1=\"1\"@1} b@2={k@2=\"2\"@2} c@3={k@2=\"2\"@2}}",
        );
        bundle("a: {'<<': 1}\n", "{a@1={<<@1=\"1\"@1}}");
        bundle("a: !!str 1\n", "{a@1=\"1\"@1}");
        bundle("a: !!str null\n", "{a@1=\"null\"@1}");
    }

    #[test]
    fn what_no_bundle_needs_is_refused() {
        bundle("a: {<<: 1}\n", "1: only mappings can be merged by `<<`");
        bundle("a: {<<: [1]}\n", "1: only mappings can be merged by `<<`");
        bundle("a: &x [*x]\n", "1: this alias stands inside its own anchor");
        bundle("a: !x 1\n", "1: YAML tags (`!word`) are not accepted");
        bundle("a: &x k\n*x : 1\n", "2: a key must be a plain word");
        bundle("a: 1\n---\nb: 1\n", "2: a second document begins here");
    }

    #[test]
    fn copies_by_aliases_count_against_both_budgets() {
        let start = Instant::now();
        let mut wide = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        let mut deep = String::from("a0: &a0 [x]\n");
        for level in 1..70 {
            let below = level - 1;
            let row = vec![format!("*a{below}"); 9].join(",");
            wide.push_str(&format!("a{level}: &a{level} [{row}]\n"));
            deep.push_str(&format!("a{level}: &a{level} [*a{below}]\n"));
        }
        let fault = |text: &str| parse_bundle(text).err().unwrap().message;
        assert_eq!(fault(&wide), "the file holds more than 50000 values");
        assert_eq!(fault(&deep), "the nesting is deeper than 64 levels");
        assert!(start.elapsed() < Duration::from_secs(5));
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
