//! `outbound.upstreams`: what is accepted, and the exact answer to what is not.

use super::*;
use crate::config::upstreams::Upstream;

fn one(text: &str) -> Upstream {
    let config = good(&format!("outbound: {{upstreams: [{text}]}}\n"));
    config.outbound.upstreams.into_iter().next().unwrap()
}

#[test]
fn a_name_and_an_address_are_enough() {
    let upstream = one("{name: tools, url: 'https://mcp-tools-123.aws.databricksapps.com'}");
    assert_eq!(&*upstream.reached.name, "tools");
    assert_eq!(&*upstream.reached.app, "tools");
    assert_eq!(
        upstream.reached.origin.to_string(),
        "https://mcp-tools-123.aws.databricksapps.com"
    );
    assert_eq!(upstream.ca_file, None);
}

#[test]
fn an_address_is_its_origin_however_it_is_spelt() {
    for (url, origin) in [
        ("https://X.example/", "https://x.example"),
        ("HTTPS://x.example:443", "https://x.example"),
        ("https://x.example:8443", "https://x.example:8443"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ] {
        let upstream = one(&format!("{{name: a, url: '{url}', app: other-name}}"));
        assert_eq!(upstream.reached.origin.to_string(), origin, "{url}");
        assert_eq!(&*upstream.reached.app, "other-name");
    }
}

#[test]
fn addresses_that_lead_elsewhere_or_hold_more_are_refused_with_the_remedy() {
    let is_one = "write https://HOST, such as https://mcp-tools-123.aws.databricksapps.com";
    let alone = "write https://HOST alone; the agent adds the path: /@NAME/PATH";
    for (url, answer) in [
        ("x.example", format!("is no address ({is_one})")),
        ("ftp://x.example", format!("is no address ({is_one})")),
        ("https://", format!("is no address ({is_one})")),
        ("https://a b", format!("is no address ({is_one})")),
        ("https://canary@x.example", format!("holds a user name or password ({is_one})")),
        ("https://x.example/mcp", format!("has something behind the host ({alone})")),
        ("https://x.example//", format!("has something behind the host ({alone})")),
        ("https://x.example?a=canary", format!("has something behind the host ({alone})")),
        ("https://x.example#a", format!("has something behind the host ({alone})")),
        ("https://x.example\\@y.example", format!("has something behind the host ({alone})")),
        ("http://x.example", "real tokens would go there in the clear (write https://; plain http is for development on this machine)".into()),
        ("https://my-ws.cloud.databricks.com", "this is the workspace (call its paths as they are, without /@NAME)".into()),
    ] {
        check(
            &format!("outbound:\n  upstreams:\n    - {{name: a, url: '{url}'}}\n"),
            &[&format!("valetkey.yaml:3: outbound.upstreams[0].url: {answer}")],
        );
    }
}

#[test]
fn names_are_plain_unique_and_present() {
    let long = "a".repeat(64);
    check(
        &format!(
            "\
outbound:
  upstreams:
    - {{name: a_b, url: 'https://1.example'}}
    - {{name: {long}, url: 'https://2.example'}}
    - {{name: tools, url: 'https://3.example', app: 'a/b'}}
    - {{name: TOOLS, url: 'https://4.example'}}
    - {{name: more, url: 'https://5.example', app: tools}}
    - {{url: 'https://6.example'}}
    - {{name: last}}
    - just-a-word
"
        ),
        &[
            "valetkey.yaml:3: outbound.upstreams[0].name: is no name of an app (write 1 to 63 letters, digits and `-`)",
            "valetkey.yaml:4: outbound.upstreams[1].name: is no name of an app (write 1 to 63 letters, digits and `-`)",
            "valetkey.yaml:5: outbound.upstreams[2].app: is no name of an app (write 1 to 63 letters, digits and `-`)",
            "valetkey.yaml:6: outbound.upstreams[3].name: this name is already taken (names must be unique, also without \
           regard to case)",
            "valetkey.yaml:7: outbound.upstreams[4].app: another upstream is this app already (an app has one address: \
           remove one of the two)",
            "valetkey.yaml:8: outbound.upstreams[5]: has no `name` (write {name: NAME, url: https://HOST})",
            "valetkey.yaml:9: outbound.upstreams[6]: has no `url` (write {name: NAME, url: https://HOST})",
            "valetkey.yaml:10: outbound.upstreams[7]: must be a mapping (write its keys indented below it)",
        ],
    );
}

#[test]
fn roots_of_an_upstream_must_be_there() {
    check(
        "outbound:\n  upstreams: [{name: a, url: 'https://a.example', ca_file: /nowhere/canary.pem}]\n",
        &[
            "valetkey.yaml:2: outbound.upstreams[0].ca_file: there is no such file (paths begin at the working directory)",
        ],
    );
}

#[test]
fn a_misspelt_key_gets_the_nearest_one() {
    check(
        "outbound:\n  upstreams: [{nam: a, url: 'https://a.example'}]\n",
        &[
            "valetkey.yaml:2: outbound.upstreams[0].nam: unknown key (did you mean `name`?)",
            "valetkey.yaml:2: outbound.upstreams[0]: has no `name` (write {name: NAME, url: https://HOST})",
        ],
    );
}

#[test]
fn the_summary_names_them() {
    let config = good("outbound: {upstreams: [{name: a, url: 'https://a.example'}]}\n");
    let summary = config.summary();
    assert!(summary.contains(&("upstreams", "/@a = https://a.example".into())));
    assert!(good("").summary().contains(&("upstreams", "none".into())));
}
