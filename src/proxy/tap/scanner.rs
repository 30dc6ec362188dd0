//! Finds one value in JSON that arrives in pieces: it tracks names and depth, and parses only strings.
//!
//! The value is a text or a whole number at a path of members such as `run.info.run_id`, never inside an array. Knows no body.

/// How far into an answer it looks, in bytes. Answers that give out ids name them early.
pub const TAP_BYTES_MAX: usize = 256 * 1024;
/// The longest name or value that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// What a piece brought.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The value.
    Found(String),
    /// Nothing yet.
    More,
    /// It cannot come any more.
    Never,
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
    path: Vec<Box<str>>,
    /// Objects and arrays that are open; how many of the outermost lie on the path.
    depth: usize,
    on_path: usize,
    reading: Reading,
    /// The member whose value is next, in the innermost object on the path.
    key: Option<Vec<u8>>,
    seen: usize,
}

impl Scanner {
    /// Looks for the value at this path of names.
    pub fn new(path: impl IntoIterator<Item = Box<str>>) -> Self {
        Self {
            path: path.into_iter().collect(),
            depth: 0,
            on_path: 0,
            reading: Reading::Structure,
            key: None,
            seen: 0,
        }
    }

    /// Reads one more piece.
    pub fn feed(&mut self, data: &[u8]) -> Step {
        for byte in data {
            self.seen += 1;
            if self.seen > TAP_BYTES_MAX {
                return Step::Never;
            }
            match self.byte(*byte) {
                Step::More => {}
                done => return done,
            }
        }
        Step::More
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

    /// Whether the innermost open object is the one that the next name on the path belongs to.
    fn is_on_path(&self) -> bool {
        self.on_path == self.depth && self.depth > 0
    }

    fn structure(&mut self, byte: u8) -> Step {
        match byte {
            b'"' => self.reading = Reading::Text(vec![b'"'], false),
            b'{' => {
                let descends = match self.depth {
                    0 => true,
                    depth => self.is_on_path() && depth < self.path.len() && self.key_is(depth - 1),
                };
                self.depth += 1;
                if descends {
                    self.on_path = self.depth;
                }
                self.key = None;
            }
            b'[' => self.depth += 1,
            b'}' | b']' => {
                if self.is_on_path() && self.on_path > 1 {
                    // The object that had to hold it has ended without it: equal names are not looked for again.
                    return Step::Never;
                }
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    return Step::Never;
                }
            }
            b',' if self.is_on_path() => self.key = None,
            b':' | b',' => {}
            byte if byte.is_ascii_whitespace() => {}
            byte => self.reading = Reading::Bare(vec![byte]),
        }
        Step::More
    }

    fn text(&mut self, text: Vec<u8>) -> Step {
        if !self.is_on_path() {
            return Step::More;
        }
        if self.key.is_none() {
            self.key = Some(text);
            return Step::More;
        }
        if self.is_last() {
            let value = serde_json::from_slice(&text).ok();
            return value.map_or(Step::Never, Step::Found);
        }
        Step::More
    }

    fn bare(&self, word: &[u8]) -> Step {
        let number = !word.is_empty() && word.iter().all(u8::is_ascii_digit);
        if !(self.is_on_path() && self.is_last()) {
            return Step::More;
        }
        match std::str::from_utf8(word) {
            Ok(text) if number => Step::Found(text.to_owned()),
            Ok(_) | Err(_) => Step::Never,
        }
    }

    /// Whether the value that comes is the one at the end of the path.
    fn is_last(&self) -> bool {
        self.depth == self.path.len() && self.key_is(self.depth - 1)
    }

    fn key_is(&self, index: usize) -> bool {
        let key: Option<String> =
            { self.key.as_ref() }.and_then(|k| serde_json::from_slice(k).ok());
        key.is_some() && key.as_deref() == self.path.get(index).map(|name| &**name)
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
    use proptest::prelude::*;

    fn scan(path: &str, pieces: &[&[u8]]) -> Option<String> {
        let mut scanner = Scanner::new(path.split('.').map(Into::into));
        for piece in pieces {
            match scanner.feed(piece) {
                Step::Found(value) => return Some(value),
                Step::More => {}
                Step::Never => return None,
            }
        }
        None
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
