//! Faulty files with the exact answer to each. `check` also looks for the canary in every one of them.

use super::*;

#[test]
fn all_mistakes_come_at_once_in_the_order_of_their_lines() {
    check(
        "\
workspace:
  hots: x.example
inbound:
  lisen: 0.0.0.0:80
  user: requird
  pass_authorization: yes
users:
  leeway: 30
  session: {ttl: 5x, sessions_max: many}
routes:
  - name: a
    resource: sql_warehouse/1
    as: usr
  - name: a
    operation: sql.*
    as: app
audit:
  rotate: {keep: 0}
logs: {}
",
        &[
            "valetkey.yaml:2: workspace.hots: unknown key (did you mean `host`?)",
            "valetkey.yaml:4: inbound.lisen: unknown key (did you mean `listen`?)",
            "valetkey.yaml:5: inbound.user: must be one of required, optional, none (did you mean `required`?)",
            "valetkey.yaml:6: inbound.pass_authorization: is no truth value (write true or false)",
            "valetkey.yaml:8: users.leeway: is no duration (write a whole number with its unit, such as 500ms, 30s, 5m or 1h)",
            "valetkey.yaml:9: users.session.ttl: is no duration (write a whole number with its unit, such as 500ms, 30s, 5m or 1h)",
            "valetkey.yaml:9: users.session.sessions_max: is no whole number (write digits only, such as 100)",
            "valetkey.yaml:13: routes[0].as: must be one of app, user, caller, deny (did you mean `user`?)",
            "valetkey.yaml:14: routes[1].name: this name is already taken by the route in line 11 (names must be unique)",
            "valetkey.yaml:18: audit.rotate.keep: is out of bounds (write 1 to 10000)",
            "valetkey.yaml:19: logs: unknown key (did you mean `log`?)",
        ],
    );
}

#[test]
fn renamed_keys_say_what_they_are_called_here() {
    check(
        "inbound: {port: 80}\nusers: {audiences: [a]}\nroutes:\n  - {name: a, operation: sql.*, as: app, methods: [GET]}\n",
        &[
            "valetkey.yaml:1: inbound.port: unknown key (it is called `inbound.listen` here)",
            "valetkey.yaml:2: users.audiences: unknown key (it is called `users.audience` here)",
            "valetkey.yaml:4: routes[0].methods: unknown key (it is called `routes[].method` here)",
        ],
    );
    check(
        "admin: {colour: red}\n",
        &["valetkey.yaml:1: admin.colour: unknown key (known keys: listen)"],
    );
}

#[test]
fn repeated_and_merged_keys_are_refused() {
    check(
        "admin: {listen: '127.0.0.1:1'}\nlog: {level: info}\nadmin: {listen: '127.0.0.1:2'}\n",
        &["valetkey.yaml:3: admin: this key is already given in line 1 (keep one of the two)"],
    );
    check(
        "routes:\n- name: a\n  path: /x\n  as: app\n  body:\n    k: [a]\n    k: [b]\n",
        &[
            "valetkey.yaml:7: routes[0].body.k: this key is already given in line 6 (keep one of the two)",
        ],
    );
    check(
        "admin:\n  <<: {listen: '127.0.0.1:1'}\n",
        &["valetkey.yaml:2: admin.<<: YAML merge keys are not accepted (write the keys out)"],
    );
    check(
        "admin: &a {listen: '127.0.0.1:1'}\n",
        &[
            "valetkey.yaml:1: (file): YAML anchors and aliases are not accepted (write the value out; quote it if it \
           begins with `&` or `*`)",
        ],
    );
}

#[test]
fn wrong_kinds_of_values_say_what_is_expected() {
    check(
        "\
inbound: 0.0.0.0:80
users:
  audience: '4711'
  leeway: [1s]
  exchange: {a: b}
admin:
  listen:
routes:
log:
  - json
",
        &[
            "valetkey.yaml:1: inbound: must be a mapping (write its keys indented below it)",
            "valetkey.yaml:3: users.audience: must be a list (write it as [VALUE])",
            "valetkey.yaml:4: users.leeway: is a list (write one value)",
            "valetkey.yaml:5: users.exchange: is a mapping (write one of none, rfc8693)",
            "valetkey.yaml:7: admin.listen: has no value (write one value, or remove the key)",
            "valetkey.yaml:8: routes: has no value (write [] for an empty list, or remove the key)",
            "valetkey.yaml:10: log: must be a mapping (write its keys indented below it)",
        ],
    );
    check(
        "routes: {name: a}\n",
        &["valetkey.yaml:1: routes: must be a list (begin each entry with `- `)"],
    );
    check(
        "- a\n",
        &["valetkey.yaml:1: (file): must be a mapping (write its keys indented below it)"],
    );
}

#[test]
fn a_secret_in_the_file_is_refused_without_repeating_it() {
    check(
        "app:\n  client_id: me\n  client_secret: dose-canary\n",
        &[
            "valetkey.yaml:3: app.client_secret: a secret must not be written in this file (name its place: {env: NAME} \
           or {file: PATH})",
        ],
    );
    check(
        "app:\n  client_id: me\n  client_secret: ${LOCAL}\n",
        &[
            "valetkey.yaml:3: app.client_secret: a secret must not be written in this file (name its place: {env: NAME} \
           or {file: PATH})",
        ],
    );
    check(
        "app: {client_secret: {env: canary-secret}}\n",
        &[
            "valetkey.yaml:1: app.client_secret.env: is no name of an environment variable (name the variable here, never \
           its value)",
        ],
    );
    check(
        "app: {client_secret: {env: canary_secret_without_dashes}}\n",
        &[
            "valetkey.yaml:1: app.client_secret.env: names an environment variable that is not set (set it, or name \
           another one)",
        ],
    );
    check(
        "app: {client_secret: {env: DATABRICKS_CLIENT_SECRT}}\n",
        &[
            "valetkey.yaml:1: app.client_secret.env: names an environment variable that is not set (did you mean \
           DATABRICKS_CLIENT_SECRET?)",
        ],
    );
}

#[test]
fn a_secret_has_one_place_with_one_good_value() {
    let one = "needs exactly one place (write {env: NAME} or {file: PATH})";
    for text in ["{}", "{env: LOCAL, file: x}"] {
        let expected = format!("valetkey.yaml:1: app.client_secret: {one}");
        check(&format!("app: {{client_secret: {text}}}\n"), &[&expected]);
    }
    check(
        "app: {client_secret: {vault: x, env: LOCAL}}\n",
        &["valetkey.yaml:1: app.client_secret.vault: unknown key (known keys: env, file)"],
    );
    check(
        "app: {client_secret: {file: /nowhere/canary}}\n",
        &[
            "valetkey.yaml:1: app.client_secret.file: the file cannot be read: entity not found (paths begin at the \
           working directory)",
        ],
    );
    check(
        "app: {client_secret: {env: EMPTY}}\n",
        &["valetkey.yaml:1: app.client_secret.env: is empty there (put the value alone there)"],
    );
    check(
        "app: {client_secret: {env: TWO_LINES}}\n",
        &[
            "valetkey.yaml:1: app.client_secret.env: holds a line break or control character there (put the value alone \
           there)",
        ],
    );
    check(
        "app: {client_secret:}\n",
        &[
            "valetkey.yaml:1: app.client_secret: has no value (write {env: NAME} or {file: PATH}, or remove the key)",
        ],
    );
}

#[test]
fn variables_that_are_missing_or_wrong_are_named_but_never_shown() {
    check(
        "workspace:\n  host: ${DATABRICKS_HOTS}\n  id: ${QQQQQQQQ}\n",
        &[
            "valetkey.yaml:2: workspace.host: the environment variable DATABRICKS_HOTS is not set (did you mean \
           ${DATABRICKS_HOST}?)",
            "valetkey.yaml:3: workspace.id: the environment variable QQQQQQQQ is not set (set it, or write \
           ${QQQQQQQQ:-default})",
        ],
    );
    check(
        "inbound: {user: '${BAD_WORD}', listen: '${BAD_WORD}', agent: '${BAD_WORD}'}\nlog: {level: '${BAD_WORD}'}\n",
        &[
            "valetkey.yaml:1: inbound.user: must be one of required, optional, none (write one of them)",
            "valetkey.yaml:1: inbound.listen: is no address with a port (write IP:PORT, such as 0.0.0.0:8000)",
            "valetkey.yaml:1: inbound.agent: is no address of an agent (write http://127.0.0.1:PORT)",
            "valetkey.yaml:2: log.level: is no level (write off, error, warn, info, debug or trace, or \
           info,valetkey=debug)",
        ],
    );
    check(
        "workspace: {id: '${EMPTY}', issuer: '${NO'}\n",
        &[
            "valetkey.yaml:1: workspace.issuer: `${` begins a variable that cannot be read (write ${NAME} or \
           ${NAME:-default}; a literal `${` is written `$${`)",
            "valetkey.yaml:1: workspace.id: is empty (write a value, or remove the key)",
        ],
    );
    check(
        "users: {audience: [${LOCAL}]}\n",
        &[
            "valetkey.yaml:1: (file): this is not valid YAML: while parsing a flow sequence, expected ',' or ']' (inside \
           [ ] and { }, a value with ${NAME} must be quoted)",
        ],
    );
}

#[test]
fn a_bundle_is_named_by_a_path_or_with_its_app_and_target() {
    check(
        "bundle: [a]\n",
        &[
            "valetkey.yaml:1: bundle: is a list (write a path, or {file: PATH, app: KEY, target: NAME})",
        ],
    );
    check(
        "bundle: {fil: a, app: b}\n",
        &[
            "valetkey.yaml:1: bundle.fil: unknown key (did you mean `file`?)",
            "valetkey.yaml:1: bundle: does not say which file (add `file: ./databricks.yml`)",
        ],
    );
    check(
        "bundle: ''\n",
        &["valetkey.yaml:1: bundle: is empty (write a path, or remove the key)"],
    );
    check(
        "bundle: nowhere.yml\nlogs: {}\n",
        &[
            "valetkey.yaml:2: logs: unknown key (did you mean `log`?)",
            "nowhere.yml: bundle: the file cannot be read: entity not found",
        ],
    );
}

#[test]
fn what_belongs_to_a_later_version_is_refused_aloud() {
    check(
        "\
audit:
  ship: {volume: main.ops.audit}
routes:
  - name: a
    resource: mcp/functions/x
    as: user
    limit: {rate: 60/m, per: user}
",
        &[
            "valetkey.yaml:2: audit.ship: this version does not ship the audit log yet (remove the key)",
            "valetkey.yaml:7: routes[0].limit: this version does not limit the rate of a route yet (remove the key)",
        ],
    );
    check(
        "outbound: {tls: yes}\n",
        &["valetkey.yaml:1: outbound.tls: must be one of false, off, on, true (write one of them)"],
    );
}

#[test]
fn hosts_that_list_too_much_are_refused() {
    const HINT: &str =
        "(write HOST, HOST:PORT, *.example.com, an address, or a network such as 10.2.0.0/16)";
    check(
        "\
outbound:
  tls: on
  forward: true
  allow_hosts: [pypi.org, '*', 'https://x.example', 127.1, 10.0.0.0/8, ::/0]
",
        &[
            &format!(
                "valetkey.yaml:4: outbound.allow_hosts[1]: a wildcard stands for what is under a name of at least two parts: *.example.com {HINT}"
            ),
            &format!(
                "valetkey.yaml:4: outbound.allow_hosts[2]: a network is ADDRESS/PREFIX, with at least 8 bits (IPv6: 16) and nothing behind them {HINT}"
            ),
            &format!("valetkey.yaml:4: outbound.allow_hosts[3]: this is no host name {HINT}"),
            &format!(
                "valetkey.yaml:4: outbound.allow_hosts[5]: a network is ADDRESS/PREFIX, with at least 8 bits (IPv6: 16) and nothing behind them {HINT}"
            ),
        ],
    );
}

#[test]
fn observing_has_an_end_and_tools_and_effects_their_place() {
    check(
        "mode: observe\n",
        &[
            "valetkey.yaml:1: mode: observing needs an end (add `observe_until:` with a date, such as 2027-01-31)",
        ],
    );
    check(
        "observe_until: 2027-01-31\n",
        &[
            "valetkey.yaml:1: observe_until: stands without `mode: observe` (add `mode: observe`, or remove the key)",
        ],
    );
    check(
        "mode: observe\nobserve_until: soon\n",
        &[
            "valetkey.yaml:2: observe_until: is neither a date nor a moment (write 2027-01-31 (UTC, that day included) or 2027-01-31T12:00:00Z)",
        ],
    );
    check(
        "\
routes:
  - {name: a, resource: mcp/sql, tools: [], as: app}
  - {name: b, resource: mcp/sql, tools: ['two words', 'exec*'], as: app}
  - {name: c, resource: mcp/sql, effect: admin, as: app}
",
        &[
            "valetkey.yaml:2: routes[0].tools: is an empty list, so the route could match no tool (list the tools, or remove the key to allow all of them)",
            "valetkey.yaml:3: routes[1].tools[0]: is no name of an MCP tool (write it as `tools/list` shows it, or without `catalog__schema__`)",
            "valetkey.yaml:3: routes[1].tools[1]: tools are named in full; `*` stands for nothing here (list each tool, or remove the key to allow all of them)",
            "valetkey.yaml:4: routes[2].effect: must be one of read, write (write one of them)",
        ],
    );
}

#[test]
fn routes_have_a_name_an_identity_and_one_kind_of_matcher() {
    check(
        "\
routes:
  - {}
  - {name: 'a b', operation: x, as: app}
  - {name: c, operation: x, path: /y, as: app}
  - {name: d, body: {k: [v]}, as: app}
  - {name: e, method: [get], path: y, as: app}
  - {name: f, method: [], path: '/a/../b?c', as: app}
  - {name: g, resource: sql_warehouse, as: app}
  - {name: h, path: /x, body: {k: []}, as: user, scope: 'two words'}
  - just-a-word
",
        &[
            "valetkey.yaml:2: routes[0].name: every route needs a name (write `name: SOMETHING`; logs, metrics and \
           denials show it)",
            "valetkey.yaml:2: routes[0]: matches nothing (add resource and/or operation, or method, path and body)",
            "valetkey.yaml:2: routes[0].as: every route says as whom it runs (write `as:` app, user, caller or deny)",
            "valetkey.yaml:3: routes[1].name: is no name for a route (up to 64 letters, digits, `-`, `_` and `.`)",
            "valetkey.yaml:4: routes[2]: mixes two kinds of matching (use resource and/or operation, or method, path and \
           body)",
            "valetkey.yaml:5: routes[3].body: a condition on the body needs a path (add `path:`)",
            "valetkey.yaml:6: routes[4].method[0]: is no method in upper case (write GET, POST, PUT, PATCH, DELETE or \
           HEAD)",
            "valetkey.yaml:6: routes[4].path: must begin with a slash (write it from the first slash, such as \
           /api/2.0/sql/**)",
            "valetkey.yaml:7: routes[5].method: is an empty list (remove the key to match every method)",
            "valetkey.yaml:7: routes[5].path: holds a character that no path pattern can have (write it from the first \
           slash, such as /api/2.0/sql/**)",
            "valetkey.yaml:8: routes[6].resource: is no resource (write TYPE/ID, such as sql_warehouse/1234abcd)",
            "valetkey.yaml:9: routes[7].body.k: allows no value, so the route can never match (list the allowed values, \
           or remove the key)",
            "valetkey.yaml:9: routes[7].scope: is no name of a scope (write one scope, such as sql or \
           workspace.workspace)",
            "valetkey.yaml:10: routes[8]: must be a mapping (write its keys indented below it)",
        ],
    );
}

#[test]
fn addresses_lead_where_they_may() {
    check(
        "\
workspace:
  host: http://x.example
  issuer: http://x.example
  jwks_uri: x.example/keys
  token_endpoint: https://a@b.example
  ca_file: /nowhere/canary.pem
inbound:
  agent: http://10.0.0.1:80
  token_header: Host
  public: [assets, /a//b, /ok/**]
outbound:
  listen: 0.0.0.0:9400
admin:
  listen: localhost:9401
",
        &[
            "valetkey.yaml:2: workspace.host: plain http is accepted for a loopback workspace only; write https:// (such \
           as my-workspace.cloud.databricks.com, with or without https://)",
            "valetkey.yaml:3: workspace.issuer: is no address (write https://HOST/PATH)",
            "valetkey.yaml:4: workspace.jwks_uri: is no address (write https://HOST/PATH)",
            "valetkey.yaml:5: workspace.token_endpoint: is no address (write https://HOST/PATH)",
            "valetkey.yaml:6: workspace.ca_file: there is no such file (paths begin at the working directory)",
            "valetkey.yaml:8: inbound.agent: the agent must be on this machine: session tokens go there in the clear \
           (write http://127.0.0.1:PORT)",
            "valetkey.yaml:9: inbound.token_header: this header has another meaning (write x-forwarded-access-token, \
           authorization, or a name of your own without `_`)",
            "valetkey.yaml:10: inbound.public[0]: must begin with a slash (such as /assets/**)",
            "valetkey.yaml:10: inbound.public[1]: has an empty or dot segment (such as /assets/**)",
            "valetkey.yaml:12: outbound.listen: the outbound listener must be reachable from this machine only (write \
           127.0.0.1:PORT)",
            "valetkey.yaml:14: admin.listen: is no address with a port (write IP:PORT, such as 127.0.0.1:9401)",
        ],
    );
    for agent in [
        "https://127.0.0.1:1",
        "http://127.0.0.1",
        "http://127.0.0.1:0",
        "http://127.0.0.1:1/x",
        "127.0.0.1:1",
    ] {
        let shown = refusals(&format!("inbound: {{agent: '{agent}'}}\n"));
        assert!(
            shown[0].contains("inbound.agent: is no address of an agent"),
            "{agent} {shown:?}"
        );
    }
}

#[test]
fn ports_are_not_shared() {
    check(
        "inbound:\n  listen: 0.0.0.0:9400\nadmin:\n  listen: 127.0.0.1:9400\n",
        &[
            "valetkey.yaml: outbound.listen: this port is already taken by inbound.listen (give each listener its own port)",
            "valetkey.yaml:4: admin.listen: this port is already taken by inbound.listen (give each listener its own port)",
        ],
    );
    check(
        "inbound:\n  agent: http://localhost:9401\n",
        &[
            "valetkey.yaml:2: inbound.agent: the agent's port is the one of admin.listen (give the agent another port)",
        ],
    );
    good(
        "inbound: {listen: '127.0.0.1:0'}\noutbound: {listen: '127.0.0.1:0'}\nadmin: {listen: '127.0.0.1:0'}\n",
    );
    good("outbound: {listen: '127.0.0.2:9401'}\n");
    let mut variables = app_env().variables().clone();
    variables.insert("DATABRICKS_APP_PORT".into(), "canary".into());
    let problems = Config::parse("", None, &variables.into()).unwrap_err();
    assert_eq!(
        problems[0].to_string(),
        "DATABRICKS_APP_PORT: is no port number (set it to 1 to 65535, or write inbound.listen)"
    );
}

#[test]
fn users_must_be_able_to_come_in() {
    check(
        "\
users:
  audience: []
  algorithms: [HS256]
  token_types: []
  scopes: ['sql genie']
  leeway: 61s
inbound:
  token_header: authorization
  pass_authorization: true
",
        &[
            "valetkey.yaml:2: users.audience: accepts no audience, so no token (list the workspace id, or remove the key)",
            "valetkey.yaml:3: users.algorithms[0]: must be one of RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, \
           EdDSA (did you mean `RS256`?)",
            "valetkey.yaml:4: users.token_types: accepts no type, so no token (remove the key for at+jwt)",
            "valetkey.yaml:5: users.scopes[0]: is no name of a scope (write one name per entry, such as sql or genie)",
            "valetkey.yaml:6: users.leeway: is out of bounds (write 0s to 1m)",
            "valetkey.yaml:9: inbound.pass_authorization: the header that carries the user token is never passed on \
           (remove this key, or choose another token_header)",
        ],
    );
    check(
        "users:\n  algorithms: []\n",
        &[
            "valetkey.yaml:2: users.algorithms: accepts no algorithm, so no token (remove the key for RS256 and ES256)",
        ],
    );
}

#[test]
fn a_local_client_is_a_pair_with_a_long_secret() {
    check(
        "outbound:\n  local_client: {id: a}\n",
        &[
            "valetkey.yaml:2: outbound.local_client: needs both `id` and `secret` (remove it under `run`, which makes its \
           own pair)",
        ],
    );
    check(
        "outbound:\n  local_client: {id: a, secret: {env: BAD_WORD}}\n",
        &[
            "valetkey.yaml:2: outbound.local_client.secret: the secret is shorter than 16 characters (make one with: \
           openssl rand -hex 32)",
        ],
    );
}

#[test]
fn text_that_is_no_yaml_ends_with_its_line() {
    let shown = refusals("admin:\n  listen: [canary\nlog: {}\n");
    assert_eq!(shown.len(), 1);
    assert!(shown[0].starts_with("valetkey.yaml:"), "{shown:?}");
    assert!(shown[0].contains("this is not valid YAML: "), "{shown:?}");
    assert_eq!(
        refusals("\u{feff}admin:\r\n  listne: x\r\n"),
        ["valetkey.yaml:2: admin.listne: unknown key (did you mean `listen`?)"]
    );
    let deep = format!("workspace: {}x", "{host: ".repeat(100_000));
    assert_eq!(refusals(&deep).len(), 1);
}

proptest::proptest! {
    /// Whatever the text, there is an answer, and every refusal says something.
    #[test]
    fn any_text_gets_an_answer(text in "([a-z]{1,8}|routes|as|app|[-:?&*!|>%@`'\"#,{}\\[\\]$~. \n\t]|\\$\\{[A-Z:-]{0,9}\\}|\\PC){0,60}") {
        if let Err(problems) = parse(&text) {
            proptest::prop_assert!(!problems.is_empty());
            proptest::prop_assert!(problems.iter().all(|p| !p.key.is_empty() && !p.message.is_empty()));
        }
    }
}
