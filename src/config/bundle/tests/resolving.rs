//! What the CLI resolves, and in which order.

use super::*;

#[test]
fn numbers_are_their_text_and_both_spellings_are_read() {
    warehouse("0123", "").gives(&["w=sql_warehouse/0123 CAN_USE"]);
    Bundle::new(
        "resources:\n  apps:\n    a:\n      userApiScopes: [dashboards.genie, genie]\n      resources:\n        - {name: s, genieSpace: {spaceId: 7, permission: CAN_RUN}}\n",
    )
    .gives(&["s=genie_space/7 CAN_RUN", "genie"]);
}

#[test]
fn every_type_of_resource_is_read() {
    Bundle::new(
        "resources:
  apps:
    a:
      resources:
        - {name: 1, sql_warehouse: {id: w, permission: IS_OWNER}}
        - {name: 2, serving_endpoint: {name: e, permission: CAN_VIEW}}
        - {name: 3, uc_securable: {securable_full_name: a.b.t, securable_type: TABLE, permission: MODIFY}}
        - {name: 4, uc_securable: {securable_full_name: a.b.v, securable_type: VOLUME, permission: WRITE_VOLUME}}
        - {name: 5, uc_securable: {securable_full_name: a.b.f, securable_type: FUNCTION, permission: EXECUTE}}
        - {name: 6, uc_securable: {securable_full_name: c, securable_type: CONNECTION, permission: USE_CONNECTION}}
        - {name: 7, genie_space: {name: n, space_id: g, permission: CAN_EDIT}}
        - {name: 8, database: {instance_name: i, database_name: d, permission: CAN_CONNECT_AND_CREATE}}
        - {name: 9, postgres: {branch: projects/p/branches/b, database: x, permission: CAN_CONNECT_AND_CREATE}}
        - {name: 10, experiment: {experiment_id: 12, permission: CAN_READ}}
        - {name: 11, job: {id: 13, permission: CAN_MANAGE_RUN}}
        - {name: 12, secret: {scope: s, key: k, permission: MANAGE}}
        - {name: 13, app: {name: other, permission: CAN_USE}}
",
    )
    .gives(&[
        "1=sql_warehouse/w IS_OWNER",
        "2=serving_endpoint/e CAN_VIEW",
        "3=table/a.b.t MODIFY",
        "4=volume/a.b.v WRITE_VOLUME",
        "5=function/a.b.f EXECUTE",
        "6=connection/c USE_CONNECTION",
        "7=genie_space/g CAN_EDIT",
        "8=database/i CAN_CONNECT_AND_CREATE",
        "9=postgres/projects/p/branches/b CAN_CONNECT_AND_CREATE",
        "10=experiment/12 CAN_READ",
        "11=job/13 CAN_MANAGE_RUN",
        "12=secret/s/k MANAGE",
        "13=app/other CAN_USE",
    ]);
}

#[test]
fn a_variable_takes_the_first_value_that_the_cli_would() {
    const ID: &str = "w=sql_warehouse/";
    let rest = "variables: {x: {default: own}}\ntargets: {t: {variables: {x: of-target}}}\n";
    let bundle = warehouse("${var.x}", rest);
    bundle.gives(&[&format!("{ID}of-target CAN_USE")]);
    let bundle = bundle.file(".databricks/bundle/t/variable-overrides.json", "{\"x\": 5}");
    bundle.gives(&[&format!("{ID}5 CAN_USE")]);
    let bundle = bundle.env(&[("BUNDLE_VAR_x", "of-env")]);
    bundle.gives(&[&format!("{ID}of-env CAN_USE")]);
    let bundle = bundle.var("x", "of-argument");
    bundle.gives(&[&format!("{ID}of-argument CAN_USE")]);
    // A lookup goes before the file and the default, and only a workspace can answer it.
    let rest = "variables: {x: {default: own, lookup: {warehouse: Shared}}}\n";
    warehouse("${var.x}", rest)
        .env(&[("BUNDLE_VAR_x", "given")])
        .gives(&[&format!("{ID}given CAN_USE")]);
    warehouse("${var.x}", rest).leaves_out(&[
        "databricks.yml:7: resources.apps.a.resources[0].sql_warehouse.id: the variable `x` is looked up in the workspace (pass --var x=…, or set BUNDLE_VAR_x)",
    ]);
}

#[test]
fn a_target_replaces_a_variable_by_a_value_or_a_definition() {
    let with = |written: &str| {
        warehouse(
            "${var.x}",
            &format!(
                "variables: {{x: {{default: own}}}}\ntargets: {{t: {{variables: {{x: {written}}}}}}}\n"
            ),
        )
    };
    with("{default: d}").gives(&["w=sql_warehouse/d CAN_USE"]);
    with("{default: d, description: e}").gives(&["w=sql_warehouse/d CAN_USE"]);
    with("").gives(&["w=sql_warehouse/own CAN_USE"]);
    with("{lookup: {warehouse: y}}").leaves_out(&[
        "databricks.yml:7: resources.apps.a.resources[0].sql_warehouse.id: the variable `x` is looked up in the workspace (pass --var x=…, or set BUNDLE_VAR_x)",
    ]);
}

#[test]
fn references_are_followed_through_texts_other_references_and_complex_variables() {
    let rest = "bundle: {name: b}\nvariables:\n  a: {default: '${var.b}-${bundle.target}'}\n  b: {default: '${bundle.name}'}\n  which: {default: b}\n  cfg: {type: complex, default: {ids: [x, '${var.b}2'], deep: {k: v}}}\n  again: {default: '${var.cfg}'}\n";
    let check = |id: &str, expected: &str| {
        warehouse(id, rest).gives(&[&format!("w=sql_warehouse/{expected} CAN_USE")]);
    };
    check("${var.a}", "b-default");
    check("x-${var.b}-${bundle.environment}", "x-b-default");
    check("'${var.cfg.ids[0]}'", "x");
    check("'${var.cfg.ids[1]}'", "b2");
    check("${var.cfg.deep.k}", "v");
    check("${variables.b.value}", "b");
    check("${var.again.deep.k}", "v");
    // Inner references go first, and what comes out is read again.
    check("${var.${var.which}}", "b");
    // The CLI knows no escape.
    check("$${var.b}", "$b");
    check("$x", "$x");
    // Of another resource, where the bundle says it.
    check("${resources.apps.a.resources[0].name}", "w");
}

#[test]
fn a_whole_list_or_resource_may_be_a_variable() {
    Bundle::new(
        "variables:\n  list:\n    type: complex\n    default:\n      - {name: w, sql_warehouse: '${var.one}'}\n  one: {type: complex, default: {id: '${var.id}', permission: CAN_USE}}\n  id: {default: 9}\n  scopes: {type: complex, default: [sql]}\nresources: {apps: {a: {resources: '${var.list}', user_api_scopes: '${var.scopes}'}}}\n",
    )
    .gives(&["w=sql_warehouse/9 CAN_USE", "sql"]);
}

#[test]
fn what_only_a_deployment_knows_is_left_out_and_the_rest_is_kept() {
    let rest = "targets: {t: {mode: development}}\n";
    let check = |id: &str, expected: &str| {
        let more = "  experiments: {e: {name: /x}}\n  schemas: {s: {name: s}}\n";
        warehouse(id, &format!("{more}{rest}")).leaves_out(&[&format!(
            "databricks.yml:7: resources.apps.a.resources[0].sql_warehouse.id: {expected}"
        )]);
    };
    let pin = "(deploy, and write the id itself or a variable that BUNDLE_VAR_… can set)";
    check(
        "${resources.experiments.e.id}",
        &format!("`${{resources.experiments.e.id}}` is known only after a deployment {pin}"),
    );
    check(
        "${resources.schemas.s.name}",
        &format!(
            "`${{resources.schemas.s.name}}` gets a prefix at deployment (development mode or presets.name_prefix) {pin}"
        ),
    );
    check(
        "a-${workspace.current_user.short_name}",
        &format!(
            "`${{workspace.current_user.short_name}}` is known only to the CLI with a workspace {pin}"
        ),
    );
    check(
        "''",
        "is empty (write it, or a variable that BUNDLE_VAR_… can set)",
    );
    check(
        "<your-warehouse>",
        "is a placeholder (write the value itself, or a variable that BUNDLE_VAR_… can set)",
    );
    warehouse("${var.x}", "variables: {x: {description: needed}}\n").leaves_out(&[
        "databricks.yml:7: resources.apps.a.resources[0].sql_warehouse.id: the variable `x` has no value (pass --var x=…, or set BUNDLE_VAR_x, or give it a default)",
    ]);
}

#[test]
fn the_workspace_host_is_the_one_that_is_known() {
    warehouse("${workspace.host}", "workspace: {host: h}\n").gives(&["w=sql_warehouse/h CAN_USE"]);
    warehouse("${workspace.host}", "")
        .env(&[("DATABRICKS_HOST", "e")])
        .gives(&["w=sql_warehouse/e CAN_USE"]);
}

#[test]
fn the_target_is_the_one_asked_for_the_default_one_or_the_only_one() {
    let bundle = || {
        warehouse(
            "${bundle.target}",
            "targets:\n  dev: {default: true}\n  prod:\n",
        )
    };
    bundle().gives(&["w=sql_warehouse/dev CAN_USE"]);
    bundle()
        .target("prod")
        .gives(&["w=sql_warehouse/prod CAN_USE"]);
    bundle()
        .env(&[("DATABRICKS_BUNDLE_TARGET", "prod")])
        .gives(&["w=sql_warehouse/prod CAN_USE"]);
    bundle()
        .env(&[("DATABRICKS_BUNDLE_ENV", "prod")])
        .target("dev")
        .gives(&["w=sql_warehouse/dev CAN_USE"]);
    warehouse("${bundle.target}", "targets: {only: {}}\n").gives(&["w=sql_warehouse/only CAN_USE"]);
    warehouse("${bundle.target}", "environments: {only: {}}\n")
        .gives(&["w=sql_warehouse/only CAN_USE"]);
    warehouse("${bundle.target}", "").gives(&["w=sql_warehouse/default CAN_USE"]);
}

#[test]
fn a_target_lays_its_sections_over_and_a_resource_of_the_same_name_is_replaced_whole() {
    warehouse(
        "1",
        "      user_api_scopes: [sql]
bundle: {name: b}
targets:
  t:
    bundle: {name: c}
    resources:
      apps:
        a:
          user_api_scopes: [genie]
          resources:
            - {name: w, job: {id: 2, permission: CAN_VIEW}}
            - {name: v, job: {id: 3, permission: CAN_VIEW}}
",
    )
    .gives(&["w=job/2 CAN_VIEW", "v=job/3 CAN_VIEW", "sql", "genie"]);
}

#[test]
fn includes_are_merged_in_the_order_of_their_names_and_each_file_once() {
    let bundle = Bundle::new("include: [r/*.yml, r/b.yml, ./r/../r/a.yml]\n")
        .file("r/b.yml", "variables: {x: {default: of-b}}\ninclude: [nowhere.yml]\n")
        .file("r/a.yml", "variables: {x: {default: of-a}}\n")
        .file("r/c.txt", ": not YAML")
        .file(
            "r/app.yml",
            "resources: {apps: {a: {resources: [{name: w, sql_warehouse: {id: '${var.x}', permission: CAN_USE}}]}}}\n",
        );
    bundle.gives(&["w=sql_warehouse/of-b CAN_USE"]);
    assert_eq!(bundle.good().resources[0].line, 1);
    assert!(bundle.good().resources[0].file.ends_with("r/app.yml"));
}

#[test]
fn the_app_is_the_only_one_the_one_asked_for_or_the_one_we_run_in() {
    let bundle = || {
        Bundle::new(
            "resources:\n  apps:\n    a: {name: 'x-${bundle.target}', user_api_scopes: [sql]}\n    b: {name: y, user_api_scopes: [genie]}\n",
        )
    };
    bundle().app("b").gives(&["genie"]);
    bundle()
        .env(&[("DATABRICKS_APP_NAME", "x-default")])
        .gives(&["sql"]);
    Bundle::new("resources: {apps: {a: }}\n").gives(&[]);
    Bundle::new("targets: {t: {resources: {apps: {a: {user_api_scopes: [sql]}}}}}\n")
        .gives(&["sql"]);
}

#[test]
fn a_folder_stands_for_its_root_file_and_what_changes_is_noticed() {
    let bundle = Bundle::new("include: [r/*.yml]\n").file("r/a.yml", APP);
    let request = Request {
        file: bundle.folder.path(),
        app: None,
        target: None,
        variables: &[],
        env: &bundle.env,
    };
    let loaded = load(&request).unwrap();
    let now = || loaded.watched.digest();
    assert_eq!(now(), Some(loaded.digest));
    let bundle = bundle.file("r/b.yml", "variables: {}\n");
    let with_another = now();
    assert_ne!(with_another, Some(loaded.digest));
    let bundle = bundle.file(".databricks/bundle/default/variable-overrides.json", "{}");
    assert_ne!(now(), with_another);
    let of_mistakes = Watched::of(&bundle.folder.path().join("databricks.yml"));
    assert_eq!(of_mistakes.includes, ["r/*.yml"]);
    fs::remove_file(bundle.folder.path().join("databricks.yml")).unwrap();
    assert_eq!(now(), None);
}
