//! Every mistake with its exact answer.

use super::*;

#[test]
fn what_is_missing_or_misspelt_in_a_resource() {
    Bundle::new(
        "resources:
  apps:
    a:
      resources:
        - {name: a, sql_warehous: {id: 1, permission: CAN_USE}}
        - {name: b, unity_catalog_function: {function_full_name: a.b.c, permission: EXECUTE}}
        - {name: c, sql_warehouse: {id: 1, permission: CAN_USER}}
        - {name: d, sql_warehouse: {id: 1, persmission: CAN_USE}}
        - {name: e, sql_warehouse: {permission: CAN_USE}}
        - {name: f}
        - {name: g, job: {id: 1, permission: CAN_VIEW}, app: {name: x, permission: CAN_USE}}
        - {job: {id: 1, permission: CAN_VIEW}}
        - {name: i, uc_securable: {securable_full_name: a.b, securable_type: TABLE, permission: SELECT}}
        - {name: j, uc_securable: {securable_full_name: a.b.c, securable_type: VIEW, permission: SELECT}}
        - {name: k, uc_securable: {securable_full_name: a.b.c, securable_type: TABLE, permission: execute}}
        - {name: l, serving_endpoint: {name: 'a*', permission: CAN_QUERY}}
        - {name: m, job: [1]}
        - {name: n, job: {id: [1], permission: CAN_VIEW}}
        - {name: o, secret: {scope: s, key: a/b, permission: READ}}
        - word
        - {name: p, quantum: {id: 1}}
        - {name: q, job: {id: 1, permission: can_view}}
",
    )
    .is_refused(&[
        "databricks.yml:5: resources.apps.a.resources[0].sql_warehous: is no type of app resource (did you mean `sql_warehouse`?)",
        "databricks.yml:6: resources.apps.a.resources[1].unity_catalog_function: is no type of app resource (write uc_securable with securable_type: FUNCTION)",
        "databricks.yml:7: resources.apps.a.resources[2].sql_warehouse.permission: `CAN_USER` is no permission on a sql_warehouse (did you mean CAN_USE?)",
        "databricks.yml:8: resources.apps.a.resources[3].sql_warehouse.permission: is missing (`persmission` is not known; did you mean `permission`?)",
        "databricks.yml:9: resources.apps.a.resources[4].sql_warehouse.id: is missing (add `id:`)",
        "databricks.yml:10: resources.apps.a.resources[5]: does not say what it is (add one of sql_warehouse, serving_endpoint, uc_securable, genie_space, database, postgres, experiment, job, secret, app)",
        "databricks.yml:11: resources.apps.a.resources[6].app: stands beside `job` (give each resource an entry of its own)",
        "databricks.yml:12: resources.apps.a.resources[7].name: every app resource needs a name (add `name:`; value_from refers to it)",
        "databricks.yml:13: resources.apps.a.resources[8].uc_securable.securable_full_name: is no full name CATALOG.SCHEMA.NAME (write the table as the workspace calls it)",
        "databricks.yml:14: resources.apps.a.resources[9].uc_securable.securable_type: `VIEW` is no type of securable here (one of TABLE, VOLUME, FUNCTION, CONNECTION)",
        "databricks.yml:15: resources.apps.a.resources[10].uc_securable.permission: `execute` is no permission on a table (one of SELECT, MODIFY)",
        "databricks.yml:16: resources.apps.a.resources[11].serving_endpoint.name: is no id or name (write the serving_endpoint as the workspace calls it)",
        "databricks.yml:17: resources.apps.a.resources[12].job: is a list, where a mapping should be (write its keys indented below it)",
        "databricks.yml:18: resources.apps.a.resources[13].job.id: is a list, where a single value should be (write one value)",
        "databricks.yml:19: resources.apps.a.resources[14].secret.key: is no scope and key without a slash in them (write the secret as the workspace calls it)",
        "databricks.yml:20: resources.apps.a.resources[15]: is a single value, where a mapping should be (write its keys indented below it)",
        "databricks.yml:21: resources.apps.a.resources[16].quantum: is no type of app resource (one of sql_warehouse, serving_endpoint, uc_securable, genie_space, database, postgres, experiment, job, secret, app)",
        "databricks.yml:22: resources.apps.a.resources[17].job.permission: `can_view` is no permission on a job (did you mean CAN_VIEW?)",
    ]);
    Bundle::new("resources: {apps: {a: {user_api_scopes: ['a b', {x: 1}], userApiScopes: []}}}\n")
        .is_refused(&[
            "databricks.yml:1: resources.apps.a.userApiScopes: is given in both spellings (keep one of the two)",
            "databricks.yml:1: resources.apps.a.user_api_scopes[0]: is no name of a scope (write one name per entry, such as sql or dashboards.genie)",
            "databricks.yml:1: resources.apps.a.user_api_scopes[1]: is a mapping, where a single value should be (write one value)",
        ]);
}

#[test]
fn what_the_environment_holds_is_never_repeated() {
    let root = "variables: {p: {}}\nresources: {apps: {a: {resources: [{name: j, job: {id: 1, permission: '${var.p}'}}]}}}\n";
    Bundle::new(root)
        .env(&[("BUNDLE_VAR_p", "canary")])
        .is_refused(&["databricks.yml:2: resources.apps.a.resources[0].job.permission: is no permission on a job (one of CAN_VIEW, CAN_MANAGE_RUN, CAN_MANAGE, IS_OWNER)"]);
}

#[test]
fn which_app_or_target_is_meant() {
    let two = || Bundle::new("resources: {apps: {front: {}, back: {}}}\n");
    two().is_refused(&["databricks.yml: resources.apps: which of the apps front, back is meant? (say `app:` (on the command line --app))"]);
    two().env(&[("DATABRICKS_APP_NAME", "other")]).is_refused(&["databricks.yml: resources.apps: which of the apps front, back is meant? (say `app:` (on the command line --app))"]);
    two().app("frond").is_refused(&[
        "databricks.yml: resources.apps: there is no app `frond` (did you mean `front`?)",
    ]);
    two().app("elsewhere").is_refused(&[
        "databricks.yml: resources.apps: there is no app `elsewhere` (one of front, back)",
    ]);
    Bundle::new("bundle: {name: b}\n").is_refused(&["databricks.yml: resources.apps: the bundle declares no app (an app stands under `resources: {apps: {KEY: …}}`, here or in a file that `include` names)"]);
    let targets = |text: &str| Bundle::new(&format!("{APP}targets: {text}\n"));
    targets("{dev: {}, prod: {}}").is_refused(&["databricks.yml: targets: which of the targets dev, prod is meant? (say `target:` (on the command line --target), set DATABRICKS_BUNDLE_TARGET, or write `default: true` in one)"]);
    targets("{dev: {default: true}, prod: {default: true}}").is_refused(&["databricks.yml:2: targets.prod.default: both `dev` and `prod` are the default target (keep `default: true` in one of them)"]);
    targets("{dev: {}}")
        .target("pord")
        .is_refused(&["databricks.yml: targets: there is no target `pord` (one of dev)"]);
    Bundle::new(APP).target("prod").is_refused(&[
        "databricks.yml: targets: there is no target `prod` (the bundle names no targets)",
    ]);
    Bundle::new(&format!("{APP}targets: {{a: {{}}}}\nenvironments: {{b: {{}}}}\n")).is_refused(&["databricks.yml:3: environments: stands beside `targets`, and is the older name of it (move its entries into `targets`)"]);
}

#[test]
fn variables_that_are_not_there_or_of_the_wrong_kind() {
    let with = |rest: &str| warehouse("${var.x}", rest);
    with("variables: {xy: {default: 1}}\n").is_refused(&["databricks.yml:7: resources.apps.a.resources[0].sql_warehouse.id: there is no variable `x` (did you mean ${var.xy}?)"]);
    with("variables: {x: {default: 1}}\n")
        .var("z", "1")
        .var("x", "1")
        .var("x", "2")
        .is_refused(&[
            "--var z: the bundle has no such variable (did you mean `x`?)",
            "--var x: is given twice (give it once)",
        ]);
    with("variables: {x: {default: 1}}\ntargets: {t: {variables: {wx: 1}}}\n").is_refused(&["databricks.yml:10: targets.t.variables.wx: the bundle has no such variable (did you mean `x`?)"]);
    with("variables: {x: {type: complex, default: {a: 1}}}\n").env(&[("BUNDLE_VAR_x", "canary")]).is_refused(&["databricks.yml:9: variables.x: is complex and cannot be given by BUNDLE_VAR_x (write it into variable-overrides.json)"]);
    let file = ".databricks/bundle/default/variable-overrides.json";
    with("variables: {x: {default: 1}}\n").file(file, "{\"x\": [1]}").is_refused(&["databricks.yml:9: variables.x: is of another kind in variable-overrides.json (complex variables take lists and mappings, others single values)"]);
    with("variables: {x: {default: 1}}\n").file(file, "{\n\"x\": canary}").is_refused(&[".databricks/bundle/default/variable-overrides.json:2: variables: is no JSON (write one JSON object: {\"NAME\": \"VALUE\"})"]);
    with("variables: {x: {default: 1}}\n").file(file, "[]").is_refused(&[".databricks/bundle/default/variable-overrides.json: variables: is no JSON object (write one JSON object: {\"NAME\": \"VALUE\"})"]);
}

#[test]
fn references_that_lead_nowhere_or_in_a_circle() {
    let check = |id: &str, rest: &str, expected: &str| {
        let place = "databricks.yml:7: resources.apps.a.resources[0].sql_warehouse.id";
        warehouse(id, rest).is_refused(&[&format!("{place}: {expected}")]);
    };
    let own = "give one of them a value of its own";
    check(
        "${var.a}",
        "variables: {a: {default: '${var.b}'}, b: {default: 'x${var.a}'}}\n",
        &format!("the references go in a circle: var.a -> var.b -> var.a ({own})"),
    );
    check(
        "${var.a}",
        "variables: {a: {default: '${var.${var.b}}'}, b: {default: a}}\n",
        &format!("the references go in a circle: var.a -> var.a ({own})"),
    );
    check(
        "'${var.a}-'",
        "variables: {a: {type: complex, default: [1]}}\n",
        "`${var.a}` is a list and stands inside a text (refer to a single value)",
    );
    check(
        "${var.a.b}",
        "variables: {a: {type: complex, default: {c: 1}}}\n",
        "`${var.a.b}` refers to nothing (the variable has no such part)",
    );
    check(
        "${var}",
        "",
        "`${var}` refers to nothing (write ${var.NAME})",
    );
    check(
        "${secrets.a}",
        "",
        "`${secrets.a}` refers to nothing (the CLI resolves ${var.…}, ${bundle.…}, ${workspace.…} and ${resources.…})",
    );
    check(
        "${resources.jobs.nope.id}",
        "",
        "the bundle declares no resources.jobs.nope (declare it, or write the id itself)",
    );
    check(
        "'${a'",
        "",
        "`${` has no end (write ${var.NAME}, or the value itself)",
    );
    check(
        "'${HOME:-x}'",
        "",
        "`${…}` holds no name that the CLI reads (write ${var.NAME}, or the value itself)",
    );
    // Each doubles the next: the work has an end.
    let mut rest = "variables:\n".to_owned();
    for level in 0..40 {
        let next = level + 1;
        rest.push_str(&format!(
            "  v{level}: {{default: '${{var.v{next}}}${{var.v{next}}}'}}\n"
        ));
    }
    rest.push_str("  v40: {default: ''}\n");
    check(
        "${var.v0}",
        &rest,
        "its references lead too far (refer to fewer variables, or write the value out)",
    );
    let long = "x".repeat(40_000);
    check(
        "${var.a}${var.a}",
        &format!("variables: {{a: {{default: {long}}}}}\n"),
        "its references make more than 64 KiB of text (write the value out)",
    );
}

#[test]
fn files_that_cannot_be_read_or_do_not_fit_together() {
    let hint = "(write paths and patterns from the bundle's folder, such as resources/*.yml)";
    let with = |include: &str| Bundle::new(&format!("{APP}include: {include}\n"));
    with("[none.yml]").is_refused(&[&format!(
        "databricks.yml:2: include: `none.yml` is not there {hint}"
    )]);
    with("[none/*.yml]").gives(&["w=job/1 CAN_VIEW"]);
    with("[/etc/*.yml]").is_refused(&[&format!(
        "databricks.yml:2: include: `/etc/*.yml` is an absolute path {hint}"
    )]);
    with("['*.md']").file("a.md", "").is_refused(&[&format!(
        "databricks.yml:2: include: `*.md` matches a file that is neither YAML nor JSON {hint}"
    )]);
    with("['[']").is_refused(&[&format!(
        "databricks.yml:2: include: `[` is no pattern: a `[` has no end or nothing in it {hint}"
    )]);
    with("x.yml").is_refused(&["databricks.yml:2: include: is a single value, where a list of patterns should be (write [resources/*.yml])"]);
    with("[x.yml]")
        .file("x.yml", "a: [\n")
        .is_refused(&["x.yml:1: (file): this is not valid YAML: unclosed bracket '['"]);
    with("[x.yml]")
        .file("x.yml", "a: 1\na: 2\n")
        .is_refused(&["x.yml:2: a: this key is given twice (keep one of the two)"]);
    with("[x.yml]")
        .file("x.yml", "- 1\n")
        .is_refused(&["x.yml:1: bundle: is no mapping of keys"]);
    with("[x.yml]").file("x.yml", "resources: {apps: {a: {}}}\n").is_refused(&["x.yml:1: resources.apps.a: is already declared in databricks.yml:1 (declare a resource in one place, under a key of its own; targets may override it)"]);
    with("[x.yml]").file("x.yml", "resources: {jobs: {a: {}}}\n").is_refused(&["x.yml:1: resources.jobs.a: has the key of resources.apps.a in databricks.yml:1 (declare a resource in one place, under a key of its own; targets may override it)"]);
    with("[x.yml]").file("x.yml", "resources: []\n").is_refused(&["x.yml:1: resources: a mapping cannot be merged with a list (write the same kind of value in both places)"]);
    Bundle::new(&format!("{APP}targets: {{t: {{resources: {{apps: {{a: {{resources: x}}}}}}}}}}\n")).is_refused(&["databricks.yml:2: resources.apps.a.resources: a list cannot be merged with a single value (write the same kind of value in both places)"]);
    let gone = Bundle::new(APP);
    fs::remove_file(gone.folder.path().join("databricks.yml")).unwrap();
    gone.is_refused(&["databricks.yml: bundle: the file cannot be read: entity not found"]);
}
