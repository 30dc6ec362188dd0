//! The units: systemd's own verification and its measure of exposure, and the configuration beside them.

use std::fs;

use valetkey::config::{Config, Env};

use crate::harness::{Folder, good, output_of, say_skipped, text_of};

/// Of 100: what `systemd-analyze security` may find at most.
const EXPOSURE_MAX: u32 = 15;
const UNITS: [&str; 2] = ["valetkey.service", "agent.service"];

/// The values of a key.
fn values(unit: &str, key: &str) -> Vec<String> {
    let text = text_of(&format!("systemd/{unit}"));
    text.lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        .map(str::to_owned)
        .collect()
}

/// The unit with programs that are here.
fn units_here(folder: &Folder) {
    for unit in UNITS {
        let mut text = text_of(&format!("systemd/{unit}"));
        for program in [
            "/usr/local/bin/valetkey",
            "/opt/agent/bin/python",
            "/usr/bin/curl",
        ] {
            text = text.replace(program, "/bin/true");
        }
        folder.write(unit, &text);
    }
}

#[test]
fn the_units_say_what_the_product_does() {
    let unit = |key: &str| values("valetkey.service", key);
    assert_eq!(
        unit("ExecStart"),
        ["/usr/local/bin/valetkey serve --config /etc/valetkey/valetkey.yaml"]
    );
    assert_eq!(unit("ExecReload"), ["/bin/kill -HUP $MAINPID"]);
    assert_eq!(unit("RestartPreventExitStatus"), ["64 78"]);
    // Longer than it drains.
    assert_eq!(unit("TimeoutStopSec"), ["25"]);
    for key in [
        "DynamicUser",
        "NoNewPrivileges",
        "MemoryDenyWriteExecute",
        "PrivateUsers",
    ] {
        assert_eq!(unit(key), ["yes"], "{key}");
    }
    assert_eq!(unit("CapabilityBoundingSet"), [""]);
    assert_eq!(unit("Environment"), [""; 0], "secrets are credentials");
    let agent = |key: &str| values("agent.service", key);
    assert_eq!(agent("BindsTo"), ["valetkey.service"]);
    assert_eq!(
        (agent("IPAddressDeny"), agent("IPAddressAllow")),
        (vec!["any".to_owned()], vec!["localhost".to_owned()])
    );
}

#[tokio::test]
async fn the_configuration_beside_them_is_accepted_and_wires_the_agent() {
    let folder = Folder::new();
    for credential in values("valetkey.service", "LoadCredential") {
        let (name, _) = credential.split_once(':').unwrap();
        folder.write(
            &format!("credentials/{name}"),
            "0123456789abcdef0123456789abcdef\n",
        );
    }
    let credentials = folder.file("credentials").to_str().unwrap().to_owned();
    let file = folder.write("valetkey.yaml", &text_of("systemd/valetkey.yaml"));
    let mut check = folder.valetkey(&["check", "--config", file.to_str().unwrap()]);
    check.env("CREDENTIALS_DIRECTORY", &credentials);
    good(output_of(check).await);

    let env: Env = [("CREDENTIALS_DIRECTORY".to_owned(), credentials)]
        .into_iter()
        .collect();
    let config = Config::parse(&fs::read_to_string(file).unwrap(), None, &env).unwrap();
    let local = config.outbound.local_client.as_ref().unwrap();
    let told = values("agent.service", "Environment");
    for variable in [
        format!("DATABRICKS_HOST=http://{}", config.outbound.listen),
        format!("DATABRICKS_CLIENT_ID={}", local.id),
        format!("DATABRICKS_APP_PORT={}", config.inbound.agent_port()),
    ] {
        assert!(told.contains(&variable), "{variable}: {told:?}");
    }
    let waits = &values("agent.service", "ExecStartPre")[0];
    assert!(
        waits.ends_with(&format!("http://{}/livez", config.admin.listen)),
        "{waits}"
    );
}

#[tokio::test]
async fn systemd_takes_the_units_and_finds_little_exposed() {
    let folder = Folder::new();
    units_here(&folder);
    let mut verify = folder.command("systemd-analyze");
    verify.args(["verify", "--man=no", UNITS[0], UNITS[1]]);
    let Some(said) = output_of(verify).await else {
        say_skipped("systemd units: `systemd-analyze` is missing (Debian: systemd)");
        return;
    };
    assert!(said.status.success() && said.stderr.is_empty(), "{said:?}");
    let mut security = folder.command("systemd-analyze");
    security
        .args(["security", "--offline=true", "--no-pager"])
        .arg(format!("--threshold={EXPOSURE_MAX}"))
        .arg(folder.file(UNITS[0]));
    good(output_of(security).await);
}
