//! Finds values in JSON that arrives in pieces: it tracks names and depth, and parses only strings.
//!
//! A value is a text or a whole number at a path of members such as `run.info.run_id`, or in each element of an array, such as
//! `tasks[].run_id`. Knows no body.

use crate::domain::catalog::member::Step as MemberStep;

/// How far into an answer it looks, in bytes. Answers that give out ids name them early.
pub const TAP_BYTES_MAX: usize = 256 * 1024;
/// The longest name or value that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// Whether more can come.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on.
    More,
    /// No further value can come.
    Never,
}

/// What is open at one depth of the path.
#[derive(Debug, PartialEq, Eq)]
enum Frame {
    /// An object of which this member is meant.
    Object(Box<str>),
    /// An array of which every element is meant.
    Array,
}

/// What is being read.
#[derive(Debug)]
enum Reading {
    /// Between tokens.
    Structure,
    /// A string, with its quotes; whether its last byte was a backslash.
    Text(Vec<u8>, bool),
    /// A number or a word.
    Bare(Vec<u8>),
}

/// The scanner.
pub struct Scanner {
    frames: Vec<Frame>,
    /// Objects and arrays that are open; how many of the outermost lie on the path.
    depth: usize,
    on_path: usize,
    reading: Reading,
    /// The member whose value is next, in the innermost object on the path.
    key: Option<Vec<u8>>,
    seen: usize,
    found: Vec<String>,
}

impl Scanner {
    /// Looks for the values at this path of members.
    pub fn new(path: &[MemberStep]) -> Self {
        let frames = path.iter().flat_map(|step| {
            let array = step.each.then_some(Frame::Array);
            std::iter::once(Frame::Object(step.name.clone())).chain(array)
        });
        Self {
            frames: frames.collect(),
            depth: 0,
            on_path: 0,
            reading: Reading::Structure,
            key: None,
            seen: 0,
            found: Vec::new(),
        }
    }

    /// Reads one more piece; what it completes goes to `found`.
    pub fn feed(&mut self, data: &[u8], found: &mut impl FnMut(&str)) -> Step {
        let mut step = Step::More;
        for byte in data {
            self.seen += 1;
            step = if self.seen > TAP_BYTES_MAX {
                Step::Never
            } else {
                self.byte(*byte)
            };
            if step == Step::Never {
                break;
            }
        }
        self.found.drain(..).for_each(|value| found(&value));
        step
    }

    fn byte(&mut self, byte: u8) -> Step {
        match &mut self.reading {
            Reading::Text(text, escaped) => {
                keep(text, byte);
                let ends = byte == b'"' && !*escaped;
                *escaped = byte == b'\\' && !*escaped;
                if ends {
                    let text = std::mem::take(text);
                    self.reading = Reading::Structure;
                    return self.text(text);
                }
                Step::More
            }
            Reading::Bare(word) => {
                if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.') {
                    keep(word, byte);
                    return Step::More;
                }
                let word = std::mem::take(word);
                self.reading = Reading::Structure;
                match self.bare(&word) {
                    Step::More => self.structure(byte),
                    done => done,
                }
            }
            Reading::Structure => self.structure(byte),
        }
    }

    /// Whether the innermost thing that is open lies on the path.
    fn is_on_path(&self) -> bool {
        self.on_path == self.depth && self.depth > 0
    }

    /// Whether the value that comes is the one that the next frame is about.
    fn is_next(&self) -> bool {
        match self.depth.checked_sub(1).map(|last| self.frames.get(last)) {
            None => true,
            Some(Some(Frame::Array)) => self.is_on_path(),
            Some(Some(Frame::Object(name))) => self.is_on_path() && self.key_is(name),
            Some(None) => false,
        }
    }

    fn structure(&mut self, byte: u8) -> Step {
        match byte {
            b'"' => self.reading = Reading::Text(vec![b'"'], false),
            b'{' | b'[' => {
                let array = matches!(self.frames.get(self.depth), Some(Frame::Array));
                let object = matches!(self.frames.get(self.depth), Some(Frame::Object(_)));
                let fits = if byte == b'[' { array } else { object };
                let descends = fits && self.is_next();
                self.depth += 1;
                if descends {
                    self.on_path = self.depth;
                    self.key = None;
                }
            }
            b'}' | b']' => return self.close(),
            b',' if self.is_on_path() => self.key = None,
            b':' | b',' => {}
            byte if byte.is_ascii_whitespace() => {}
            byte => self.reading = Reading::Bare(vec![byte]),
        }
        Step::More
    }

    fn close(&mut self) -> Step {
        if self.is_on_path() {
            // What held the value has ended: there may be another only where an array holds several.
            let outer = self.frames.get(..self.depth.saturating_sub(1));
            if !outer.is_some_and(|outer| outer.contains(&Frame::Array)) {
                return Step::Never;
            }
            self.on_path -= 1;
            self.key = None;
        }
        self.depth = self.depth.saturating_sub(1);
        Step::More
    }

    fn text(&mut self, text: Vec<u8>) -> Step {
        let in_object = { self.depth.checked_sub(1) }
            .is_some_and(|last| matches!(self.frames.get(last), Some(Frame::Object(_))));
        if in_object && self.is_on_path() && self.key.is_none() {
            self.key = Some(text);
            return Step::More;
        }
        if self.is_last() {
            self.found
                .extend(serde_json::from_slice::<String>(&text).ok());
            return self.after_value();
        }
        Step::More
    }

    fn bare(&mut self, word: &[u8]) -> Step {
        if !self.is_last() {
            return Step::More;
        }
        let number = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
        let text = std::str::from_utf8(word).ok().filter(|_| number);
        self.found.extend(text.map(str::to_owned));
        self.after_value()
    }

    /// One value is all there is, unless an array holds several.
    fn after_value(&self) -> Step {
        if self.frames.contains(&Frame::Array) {
            Step::More
        } else {
            Step::Never
        }
    }

    /// Whether the value that comes is the one at the end of the path.
    fn is_last(&self) -> bool {
        self.depth == self.frames.len() && self.is_next()
    }

    fn key_is(&self, name: &str) -> bool {
        let key: Option<String> =
            { self.key.as_ref() }.and_then(|k| serde_json::from_slice(k).ok());
        key.is_some_and(|key| *key == *name)
    }
}

/// What is longer than any name or id is cut, and equals none.
fn keep(text: &mut Vec<u8>, byte: u8) {
    if text.len() <= TEXT_BYTES_MAX {
        text.push(byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::catalog::member::Member;
    use proptest::prelude::*;

    fn scan_all(path: &str, pieces: &[&[u8]]) -> Vec<String> {
        let mut scanner = Scanner::new(Member::parse(path).unwrap().steps());
        let mut found = Vec::new();
        for piece in pieces {
            let step = scanner.feed(piece, &mut |value| found.push(value.to_owned()));
            if step == Step::Never {
                break;
            }
        }
        found
    }

    fn scan(path: &str, pieces: &[&[u8]]) -> Option<String> {
        let mut found = scan_all(path, pieces);
        assert!(found.len() < 2, "{found:?}");
        found.pop()
    }

    fn check(path: &str, text: &str, expected: Option<&str>) {
        assert_eq!(
            scan(path, &[text.as_bytes()]).as_deref(),
            expected,
            "{path} in {text}"
        );
    }

    #[test]
    fn only_the_member_at_the_path_is_found() {
        check("id", r#"{"id": "a\"b", "x": 1}"#, Some("a\"b"));
        check(
            "id",
            r#"{"x": {"id": "inner"}, "y": ["id", "z"], "id":"outer"}"#,
            Some("outer"),
        );
        check("id", r#"{"x": "id", "y": "v"}"#, None);
        check("id", r#"["id", "v"]"#, None);
        check("id", r#"{"id": true}"#, None);
        check("id", r#"{"id": 7}"#, Some("7"));
        check("id", r#"{"id": 7.5, "x": 1}"#, None);
        check("id", r#"{"x": 1, "id": 42, "y": 1}"#, Some("42"));
        check("id", r#"{"a": "} \\" , "id":"v"}"#, Some("v"));
        check("id", r#"{"a": null, "b": [], "id":"v"}"#, Some("v"));
    }

    #[test]
    fn nested_members_are_found_where_they_belong() {
        let run = r#"{"x": {"info": {"run_id": "no"}}, "run": {"data": {"run_id": "no"}, "info": {"status": "S", "run_id": "r1"}}}"#;
        check("run.info.run_id", run, Some("r1"));
        check("run.info.run_id", r#"{"info": {"run_id": "no"}}"#, None);
        check(
            "run.info.run_id",
            r#"{"run": [{"info": {"run_id": "no"}}]}"#,
            None,
        );
        check(
            "run.info.run_id",
            r#"{"run": {"info": {}}, "run_id": "no"}"#,
            None,
        );
        check("a.b", r#"{"a": "b", "b": {"b": "no"}}"#, None);
    }

    #[test]
    fn each_element_of_an_array_may_hold_one() {
        let all = |path: &str, text: &str| scan_all(path, &[text.as_bytes()]);
        let run = r#"{"run_id": 1, "tasks": [{"run_id": 11, "x": {"run_id": 0}}, {"y": [{"run_id": 0}]}, {"run_id": "12"}], "z": {"run_id": 0}}"#;
        assert_eq!(all("tasks[].run_id", run), ["11", "12"]);
        assert_eq!(
            all("ids[]", r#"{"ids": [1, "b", {"c": 2}, [3]]}"#),
            ["1", "b"]
        );
        assert!(all("tasks[].run_id", r#"{"tasks": {"run_id": 1}}"#).is_empty());
        assert!(all("tasks[].run_id", r#"[{"tasks": [{"run_id": 1}]}]"#).is_empty());
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(cut in 0usize..70, other in 0usize..70) {
            let text: &[u8] = br#"{"a": "x,\"y", "b": [1, {"c": "d"}], "o": {"n": 1, "id": "01ef"}, "z": 1}"#;
            let (a, b) = (cut.min(other).min(text.len()), cut.max(other).min(text.len()));
            prop_assert_eq!(scan("o.id", &[&text[..a], &text[a..b], &text[b..]]), Some("01ef".to_owned()));
        }

        #[test]
        fn it_agrees_with_a_whole_reader(name in "a|b|c", inner in "a|b|c", value in "[a-z\"\\\\]{0,4}", other in "[a-z]{0,3}") {
            let document = serde_json::json!({"a": {"a": &other, "b": 1}, "b": [&name, {"a": &value}], "c": {"c": &value, "x": {"c": "no"}}});
            let expected = document.get(&name).and_then(|v| v.get(&inner)).and_then(|v| v.as_str().map(str::to_owned).or_else(|| v.as_u64().map(|n| n.to_string())));
            prop_assert_eq!(scan(&format!("{name}.{inner}"), &[document.to_string().as_bytes()]), expected);
        }
    }
}
