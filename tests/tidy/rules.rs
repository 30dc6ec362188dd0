//! The house rules that can be read off a source file. Each returns its complaints, `path:line: what and why`.
//!
//! Who may do what stands in `permits.rs`; how a file is read, in `source.rs`.

use super::permits::{self, Permit};
use super::source::{Kind, Source, Token};

/// The longest file, in lines without its tests.
pub const FILE_LINES_MAX: usize = 400;

/// Words that bring waiting or the network into floor 1.
const NOT_IN_DOMAIN: [&str; 6] = [
    "async",
    "await",
    "tokio",
    "hyper",
    "hyper_util",
    "futures_util",
];

/// A rule and its name.
pub type Rule = (&'static str, fn(&Source) -> Vec<String>);

/// Every rule about one file.
pub const RULES: &[Rule] = &[
    ("floors", floors),
    ("domain is pure", domain_is_pure),
    ("authorization", authorization),
    ("expose", expose),
    ("clock", clock),
    ("environment", environment),
    ("printing", printing),
    ("head comment", head_comment),
    ("file size", file_size),
    ("globs", globs),
    ("re-exports", re_exports),
    ("mod.rs", mod_rs),
    ("test names", names_of_tests),
    ("ignored tests", ignored_tests),
    ("stubs", stubs),
    ("sleeping tests", sleeping_tests),
    ("lint exceptions", lint_exceptions),
];

fn complaint(source: &Source, line: usize, what: &str) -> String {
    format!("{}:{line}: {what}", source.path)
}

fn at(source: &Source, found: &Token, what: &str) -> String {
    complaint(source, found.line, what)
}

/// 1 domain, 2 runtime, 3 proxy, 4 the rest. `place` is the first part of a path below the crate's root.
fn floor_of(place: &str) -> u8 {
    match place {
        "domain" => 1,
        "runtime" => 2,
        "proxy" => 3,
        _ => 4,
    }
}

fn floors(source: &Source) -> Vec<String> {
    let Some(path) = source.in_src() else {
        return Vec::new();
    };
    let mut places = path.trim_end_matches(".rs").split('/');
    let home = floor_of(places.next().unwrap_or_default());
    let depth = 1 + places.count();
    let mut complaints = Vec::new();
    for index in 0..source.tokens.len() {
        let token = &source.tokens[index];
        if source.reads(index, &["crate", "::"]) {
            for place in places_after(source, index + 2) {
                if floor_of(place) > home {
                    let what = format!(
                        "floor {home} imports `{place}` of floor {}",
                        floor_of(place)
                    );
                    complaints.push(at(source, token, &what));
                }
            }
        }
        let supers = (0..)
            .take_while(|n| source.reads(index + 2 * n, &["super", "::"]))
            .count();
        // A test module inside the file is one step deeper.
        if path != "lib.rs" && supers >= depth + usize::from(token.test) {
            let what = "climbs to the crate's root with `super`; write `crate::` so that the floor can be read";
            complaints.push(at(source, token, what));
        }
    }
    complaints
}

/// The first parts of the paths that follow `crate::`, one or a group.
fn places_after(source: &Source, start: usize) -> Vec<&str> {
    let mut places = Vec::new();
    let mut depth = 0_usize;
    for index in start..source.tokens.len() {
        let token = &source.tokens[index];
        let opens_item =
            index == start || source.reads(index - 1, &["{"]) || source.reads(index - 1, &[","]);
        match token.text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            text if token.kind == Kind::Word && opens_item && depth <= 1 => places.push(text),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    places
}

fn domain_is_pure(source: &Source) -> Vec<String> {
    if !source.path.starts_with("src/domain/") {
        return Vec::new();
    }
    let words = source
        .tokens
        .iter()
        .filter(|token| token.kind == Kind::Word && NOT_IN_DOMAIN.contains(&token.text.as_str()));
    words
        .map(|token| at(source, token, &format!("`{}` in floor 1", token.text)))
        .collect()
}

/// The complaints about product code outside the permits.
fn unless_permitted<'a>(
    source: &Source,
    permits: &[Permit],
    found: impl Iterator<Item = &'a Token>,
    what: &str,
) -> Vec<String> {
    if source.in_src().is_none() || permits.iter().any(|permit| permit.covers(&source.path)) {
        return Vec::new();
    }
    found
        .filter(|token| !token.test)
        .map(|token| at(source, token, what))
        .collect()
}

/// Every place that names the header, in code or in a string of its own.
fn names_authorization(source: &Source) -> impl Iterator<Item = &Token> {
    source.tokens.iter().filter(|token| match token.kind {
        Kind::Word => token.text == "AUTHORIZATION",
        Kind::Text => token.text.eq_ignore_ascii_case("authorization"),
        Kind::Mark => false,
    })
}

fn authorization(source: &Source) -> Vec<String> {
    let what =
        "names the Authorization header; only domain/headers.rs and runtime/token_endpoint.rs do";
    unless_permitted(
        source,
        permits::AUTHORIZATION,
        names_authorization(source),
        what,
    )
}

fn exposes(source: &Source) -> impl Iterator<Item = &Token> {
    let calls = source.find(&[".", "expose", "("]);
    calls.chain(source.find(&["::", "expose"]))
}

fn expose(source: &Source) -> Vec<String> {
    let what =
        "takes a secret out of its wrapping; if it must, tests/tidy/permits.rs wants the reason";
    unless_permitted(source, permits::EXPOSE, exposes(source), what)
}

fn reads_clock(source: &Source) -> impl Iterator<Item = &Token> {
    let system = source.find(&["SystemTime", "::", "now"]);
    let stamps = source.find(&["Timestamp", "::", "now"]);
    system
        .chain(stamps)
        .chain(source.find(&["Zoned", "::", "now"]))
}

fn clock(source: &Source) -> Vec<String> {
    let what = "reads the system clock; take a `Clock` or `now` instead";
    unless_permitted(source, permits::CLOCK, reads_clock(source), what)
}

fn reads_environment(source: &Source) -> impl Iterator<Item = &Token> {
    let calls = ["var", "var_os", "vars", "vars_os", "set_var", "remove_var"];
    (0..source.tokens.len())
        .filter(move |index| {
            source.reads(*index, &["env", "::"])
                && source.tokens.get(index + 2).is_some_and(|call| {
                    call.text == "{" || call.text == "*" || calls.contains(&call.text.as_str())
                })
        })
        .map(|index| &source.tokens[index])
}

fn environment(source: &Source) -> Vec<String> {
    let what = "reads the environment; it is read once, by the command line, and passed down";
    unless_permitted(
        source,
        permits::ENVIRONMENT,
        reads_environment(source),
        what,
    )
}

fn prints(source: &Source) -> impl Iterator<Item = &Token> {
    let streams = source
        .find(&["stdout", "("])
        .chain(source.find(&["stderr", "("]));
    let macros = ["print", "println", "eprint", "eprintln"];
    let macros = (0..source.tokens.len())
        .filter(move |index| {
            macros.contains(&source.tokens[*index].text.as_str()) && source.reads(index + 1, &["!"])
        })
        .map(|index| &source.tokens[index]);
    macros.chain(streams)
}

fn printing(source: &Source) -> Vec<String> {
    let what = "prints; only the command line does, others write to what they are given";
    unless_permitted(source, permits::PRINTING, prints(source), what)
}

fn head_comment(source: &Source) -> Vec<String> {
    let missing = !source.has_head;
    let what =
        "the first line is no `//!`: say what it is, what it must not know, what to read next";
    missing
        .then(|| complaint(source, 1, what))
        .into_iter()
        .collect()
}

fn file_size(source: &Source) -> Vec<String> {
    let lines = source.product_lines;
    let what = format!("{lines} lines without tests, at most {FILE_LINES_MAX}: split it");
    (lines > FILE_LINES_MAX)
        .then(|| complaint(source, 1, &what))
        .into_iter()
        .collect()
}

fn globs(source: &Source) -> Vec<String> {
    let ends = [";", ",", "}"];
    let is_glob = |index: usize| {
        let in_use = ends.iter().any(|end| source.reads(index + 2, &[end]));
        let from = |name| index > 0 && source.reads(index - 1, &[name]);
        let usual_in_tests = source.tokens[index].test && (from("super") || from("prelude"));
        source.reads(index, &["::", "*"]) && in_use && !usual_in_tests
    };
    (0..source.tokens.len())
        .filter(|index| is_glob(*index))
        .map(|index| {
            at(
                source,
                &source.tokens[index],
                "a glob import; name what is used",
            )
        })
        .collect()
}

fn re_exports(source: &Source) -> Vec<String> {
    let what = "a re-export; a thing has one path";
    unless_permitted(source, permits::RE_EXPORTS, published(source), what)
}

fn published(source: &Source) -> impl Iterator<Item = &Token> {
    let plain = source.find(&["pub", "use"]);
    let in_crate = source.find(&["pub", "(", "crate", ")", "use"]);
    let in_room = source.find(&["pub", "(", "super", ")", "use"]);
    plain.chain(in_crate).chain(in_room)
}

fn mod_rs(source: &Source) -> Vec<String> {
    source
        .path
        .ends_with("/mod.rs")
        .then(|| complaint(source, 1, "name the file after its module"))
        .into_iter()
        .collect()
}

fn names_of_tests(source: &Source) -> Vec<String> {
    (1..source.tokens.len())
        .filter(|index| source.reads(index - 1, &["fn"]))
        .map(|index| &source.tokens[index])
        .filter(|name| name.text.starts_with("test_"))
        .map(|name| at(source, name, "a test name is a sentence, without `test_`"))
        .collect()
}

fn ignored_tests(source: &Source) -> Vec<String> {
    source
        .find(&["#", "[", "ignore"])
        .map(|token| at(source, token, "a test that is not run proves nothing"))
        .collect()
}

fn stubs(source: &Source) -> Vec<String> {
    let todo = source.find(&["todo", "!"]);
    todo.chain(source.find(&["unimplemented", "!"]))
        .map(|token| at(source, token, "a stub"))
        .collect()
}

fn sleeping_tests(source: &Source) -> Vec<String> {
    // Under paused time a sleep advances the clock and waits for nothing.
    let permitted = permits::TEST_SLEEPS
        .iter()
        .any(|permit| permit.covers(&source.path));
    if permitted || source.has_word("start_paused") {
        return Vec::new();
    }
    let calls = source
        .find(&["sleep", "("])
        .chain(source.find(&["sleep_until", "("]));
    let declared = (0..source.tokens.len()).filter(|index| source.reads(*index, &["fn", "sleep"]));
    let declared: Vec<usize> = declared
        .map(|index| source.tokens[index + 1].line)
        .collect();
    calls
        .filter(|token| token.test && !declared.contains(&token.line))
        .map(|token| {
            at(
                source,
                token,
                "a test that sleeps; wait for an event, or pause the time",
            )
        })
        .collect()
}

fn lint_exceptions(source: &Source) -> Vec<String> {
    let mut complaints = Vec::new();
    for index in 0..source.tokens.len() {
        let token = &source.tokens[index];
        let attribute = source.reads(index, &["#", "["]) || source.reads(index, &["!", "["]);
        let name = index + 2;
        if attribute && source.reads(name, &["allow", "("]) {
            complaints.push(at(
                source,
                token,
                "`allow` stays when its cause is gone; write `expect`",
            ));
        }
        let reasons = source.tokens[index..]
            .iter()
            .take_while(|token| token.kind == Kind::Text || token.text != "]")
            .any(|token| token.text == "reason");
        if attribute && source.reads(name, &["expect", "("]) && !reasons {
            complaints.push(at(source, token, "an exception without its reason"));
        }
    }
    complaints
}

fn in_product<'a>(source: &Source, mut found: impl Iterator<Item = &'a Token>) -> bool {
    source.in_src().is_some() && found.any(|token| !token.test)
}

/// Permits that nobody uses any more.
pub fn unused_permits(sources: &[Source]) -> Vec<String> {
    let unused = |list: &str, permits: &[Permit], uses: &dyn Fn(&Source) -> bool| {
        permits
            .iter()
            .filter(|permit| {
                assert!(!permit.reason.is_empty(), "{list}: {}", permit.path);
                !sources
                    .iter()
                    .any(|source| permit.covers(&source.path) && uses(source))
            })
            .map(|permit| {
                format!(
                    "tests/tidy/permits.rs: {list}: `{}` needs its permit no more",
                    permit.path
                )
            })
            .collect::<Vec<_>>()
    };
    [
        unused("AUTHORIZATION", permits::AUTHORIZATION, &|s| {
            in_product(s, names_authorization(s))
        }),
        unused("EXPOSE", permits::EXPOSE, &|s| in_product(s, exposes(s))),
        unused("CLOCK", permits::CLOCK, &|s| in_product(s, reads_clock(s))),
        unused("ENVIRONMENT", permits::ENVIRONMENT, &|s| {
            in_product(s, reads_environment(s))
        }),
        unused("PRINTING", permits::PRINTING, &|s| in_product(s, prints(s))),
        unused("RE_EXPORTS", permits::RE_EXPORTS, &|s| {
            in_product(s, published(s))
        }),
        unused("TEST_SLEEPS", permits::TEST_SLEEPS, &|s| {
            s.find(&["sleep", "("]).next().is_some()
        }),
    ]
    .concat()
}
