//! The built-in catalogue is sound, its families are found, and mistakes in it are told.

use super::*;

#[expect(
    clippy::needless_pass_by_value,
    reason = "the cases read better without `&`"
)]
fn find(method: Method, path: &str) -> Option<String> {
    let catalog = Catalog::built_in().unwrap();
    catalog
        .find(&method, &CanonicalPath::parse(path).unwrap())
        .map(|(_, o)| o.id.to_string())
}

#[test]
fn the_built_in_catalogue_has_no_mistake() {
    let catalog = Catalog::built_in().unwrap_or_else(|p| panic!("{p:#?}"));
    assert!(catalog.operations().len() > 50);
}

#[test]
fn the_first_families_are_found() {
    for (method, path, id) in [
        (
            Method::POST,
            "/api/2.0/sql/statements",
            "sql.statements.execute",
        ),
        (
            Method::POST,
            "/api/2.0/sql/statements/",
            "sql.statements.execute",
        ),
        (
            Method::GET,
            "/api/2.0/sql/statements/01ef-1",
            "sql.statements.get",
        ),
        (
            Method::POST,
            "/serving-endpoints/chat/completions",
            "serving.chat-completions",
        ),
        (
            Method::POST,
            "/serving-endpoints/my-model/invocations",
            "serving.invocations",
        ),
        (
            Method::GET,
            "/api/2.0/vector-search/indexes/a.b.c/query",
            "vector-search.query",
        ),
        (
            Method::PUT,
            "/api/2.0/fs/files/Volumes/a/b/c/d/e%2Ff.txt",
            "files.upload",
        ),
        (Method::GET, "/api/2.0/preview/scim/v2/Me", "identity.me"),
    ] {
        assert_eq!(find(method, path).as_deref(), Some(id), "{path}");
    }
    assert_eq!(find(Method::DELETE, "/api/2.0/sql/statements"), None);
    assert_eq!(
        find(Method::POST, "/api/2.0/token/create").as_deref(),
        Some("tokens.create")
    );
    assert_eq!(find(Method::GET, "/api/2.0/nothing"), None);
}

#[test]
fn families_are_named_by_their_dotted_prefix() {
    let catalog = Catalog::built_in().unwrap();
    assert_eq!(catalog.named("sql.statements.execute").len(), 1);
    assert!(catalog.named("sql.*").len() > 4);
    assert_eq!(catalog.named("*").len(), catalog.operations().len());
    assert!(catalog.named("sq*").is_empty());
    assert!(catalog.named("nothing.*").is_empty());
}

#[test]
fn mistakes_are_told_by_operation() {
    let check = |text: &str, expected: &str| {
        let yaml = format!("version: x\nscopes: [{{name: s, users: true}}]\noperations:\n{text}");
        let problems = Catalog::parse(&yaml).map(|_| ()).unwrap_err();
        assert!(
            problems.iter().any(|p| p.to_string().contains(expected)),
            "{problems:?}"
        );
    };
    check(
        "- {id: a, method: GET, path: '/a/{x}', effect: read, scope: s}\n- {id: b, method: GET, path: '/a/{y}', effect: read, scope: s}",
        "path shape of a",
    );
    check(
        "- {id: a, method: GET, path: /a, effect: read, scope: s}\n- {id: a, method: GET, path: /b, effect: read, scope: s}",
        "stands twice",
    );
    check(
        "- {id: a, method: GET, path: '/a', effect: read, scope: s, resource: {type: t, path: '{x}'}}",
        "named {x}",
    );
    check(
        "- {id: a, method: GET, path: '/a', effect: read, scope: s, resource: {type: t}}",
        "exactly one",
    );
    check(
        "- {id: a, method: GET, path: '/a', effect: read, scope: s, colour: red}",
        "colour",
    );
}
