//! The values of `audit.ship`: where the closed audit files go.
//!
//! Must not know how they get there. Read `sections.rs` for the rest.

use std::time::Duration;

use super::App;
use super::check::Checker;
use super::raw::RawShip;
use super::read::Given;
use crate::domain::volume::{VolumePath, folder_name};

/// The folder in the volume, where none is named.
const PREFIX_DEFAULT: &str = "valetkey";
/// The platform says the app's name there.
const APP_NAME: &str = "DATABRICKS_APP_NAME";
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// One file has to fit one upload, of at most 5 GiB; a batch may exceed the size at which a file is rotated.
const ROTATE_BYTES_MAX: u64 = 4 * GIB;

/// `audit.ship`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ship {
    /// The folder of this app in the volume.
    pub folder: VolumePath,
    /// A file is closed after so long.
    pub every: Duration,
    /// Bytes of closed files that may wait beyond those that are kept anyway.
    pub backlog_bytes: u64,
}

/// `audit.ship`, which needs `app` and agrees with `audit.rotate.size`.
pub(super) fn ship(
    given: &Given<RawShip>,
    app: &App,
    rotate_bytes: u64,
    c: &mut Checker<'_>,
) -> Option<Ship> {
    let raw = given.get()?;
    let every = c.duration(&raw.every, secs(600), secs(10)..=secs(24 * 3600));
    let backlog_bytes = c.size(&raw.backlog, GIB, MIB..=1024 * GIB);
    if backlog_bytes < rotate_bytes {
        let problem = raw.backlog.problem("holds not even one file");
        c.report(problem.hint("write at least audit.rotate.size"));
    }
    if rotate_bytes > ROTATE_BYTES_MAX {
        let problem = given.problem("files of this size cannot be uploaded");
        c.report(problem.hint("write audit.rotate.size of at most 4GiB"));
    }
    if raw.volume.is_absent() {
        let problem = given.problem("needs a `volume`");
        c.report(problem.hint("write volume: CATALOG.SCHEMA.VOLUME"));
    }
    let volume = c.text(&raw.volume).map(|text| {
        let volume = VolumePath::of_volume(text.trim());
        if volume.is_none() {
            let problem = raw.volume.problem("is no name of a volume");
            c.report(problem.hint("write CATALOG.SCHEMA.VOLUME, such as main.ops.audit"));
        }
        volume
    });
    let prefix = c.text(&raw.prefix).unwrap_or(PREFIX_DEFAULT);
    let Some(client) = app.client_id.as_ref() else {
        // Half a credential was reported already.
        if app.client_secret.is_none() {
            let problem = given.problem("needs the app's credential");
            c.report(problem.hint("set app.client_id and app.client_secret, or remove this key"));
        }
        return None;
    };
    let name = folder_name(c.variable(APP_NAME).unwrap_or(client.as_str()));
    let volume = volume??;
    let Some(folder) = volume.join(prefix).and_then(|folder| folder.join(&name)) else {
        let problem = raw.prefix.problem("is no folder in a volume");
        c.report(problem.hint("write one or more names with slashes between them"));
        return None;
    };
    Some(Ship {
        folder,
        every,
        backlog_bytes,
    })
}

const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}
