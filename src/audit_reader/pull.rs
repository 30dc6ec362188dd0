//! `valetkey audit pull`: the logs on a volume, fetched and verified.
//!
//! A segment is believed if its content has the digest in its name, and a log if its segments are one chain. What is on this
//! disk already is not fetched again. `runtime/audit_ship.rs` put them there.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::prove::{Claim, verify};
use super::{about, files_of};
use crate::app::wire;
use crate::config::Config;
use crate::domain::clock::{Clock, SystemClock};
use crate::domain::problem::Problem;
use crate::runtime::audit_ship::content_digest;
use crate::runtime::audit_ship::volume::{Entry, Volume, VolumeFault};
use crate::runtime::metrics::Metrics;

/// The name that each log has on this disk, in its own folder.
const LOG_NAME: &str = "valetkey.jsonl";

/// What to fetch, and where to.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// CATALOG.SCHEMA.VOLUME, or that of the configuration.
    pub volume: Option<String>,
    /// One folder of it, or all.
    pub log: Option<String>,
    /// Gets a folder for each log.
    pub folder: PathBuf,
}

/// Why it could not be done.
#[derive(Debug, thiserror::Error)]
pub enum PullFault {
    /// Nothing to fetch was named, or nothing is there.
    #[error("{0}")]
    Usage(String),
    /// The way to the workspace.
    #[error("{0}")]
    Config(String),
    /// The volume.
    #[error("{place}: {fault}")]
    Volume {
        /// Where.
        place: String,
        /// What.
        fault: VolumeFault,
    },
    /// This disk, or the reader of the report.
    #[error("{0}")]
    Local(#[from] io::Error),
}

/// A segment's name: `FIRST-DIGEST.jsonl`.
struct Segment<'a> {
    first_seq: &'a str,
    digest: &'a str,
}

impl<'a> Segment<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let (first_seq, digest) = name.strip_suffix(".jsonl")?.split_once('-')?;
        let digits = first_seq.len() == 16 && first_seq.bytes().all(|b| b.is_ascii_digit());
        let hex = digest.len() == 32 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        (digits && hex).then_some(Self { first_seq, digest })
    }
}

/// Fetches what is wanted and verifies each log; says whether all of them are good.
///
/// # Errors
/// [`PullFault`].
pub async fn pull(
    config: &Config,
    wanted: &Wanted,
    claim: &Claim,
    out: &mut dyn Write,
) -> Result<bool, PullFault> {
    let configured = config.audit.ship.as_ref().map(|ship| ship.volume.clone());
    let Some(name) = wanted.volume.clone().or(configured) else {
        let message = "no volume: name one with --volume, or set audit.ship";
        return Err(PullFault::Usage(message.into()));
    };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let metrics = Metrics::new().map_err(|fault| PullFault::Config(fault.to_string()))?;
    let volume = wire::volume(config, &clock, &metrics, &name).map_err(|problems| {
        let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
        PullFault::Config(lines.join("\n"))
    })?;
    let mut logs = list(&volume, "").await?;
    logs.retain(|log| {
        let asked = wanted.log.as_ref().is_none_or(|one| *one == log.name);
        log.is_directory && is_plain_name(&log.name) && asked
    });
    logs.sort_by(|a, b| a.name.cmp(&b.name));
    if logs.is_empty() {
        let message = format!("there is no such log on {}", volume.path(""));
        return Err(PullFault::Usage(message));
    }
    let mut all_good = true;
    for log in logs {
        let folder = wanted.folder.join(&log.name);
        let good = fetch(&volume, &log.name, &folder, out).await?;
        writeln!(out, "{}:", log.name)?;
        let files = files_of(&[folder.join(LOG_NAME)])?;
        all_good &= verify(&files, claim, out)? && good;
    }
    Ok(all_good)
}

async fn list(volume: &Volume, below: &str) -> Result<Vec<Entry>, PullFault> {
    let listed = volume.list(below).await;
    listed.map_err(|fault| PullFault::Volume {
        place: volume.path(below),
        fault,
    })
}

/// Names come from the volume and become names here.
fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

/// Says whether every segment is what its name says, and none stands beside another of the same number.
async fn fetch(
    volume: &Volume,
    log: &str,
    folder: &Path,
    out: &mut dyn Write,
) -> Result<bool, PullFault> {
    fs::create_dir_all(folder).map_err(|cause| about(folder, &cause))?;
    let mut good = true;
    let mut taken = std::collections::HashSet::new();
    for entry in list(volume, log).await? {
        let Some(segment) = Segment::parse(&entry.name) else {
            continue;
        };
        let place = folder.join(format!("{LOG_NAME}.{}", segment.first_seq));
        if !taken.insert(segment.first_seq.to_owned()) {
            writeln!(
                out,
                "{}: another segment begins with the same record",
                entry.path
            )?;
            good = false;
            continue;
        }
        if place.exists() && content_digest(&place)? == segment.digest {
            continue;
        }
        let part = place.with_extension("part");
        let mut file = File::create(&part).map_err(|cause| about(&part, &cause))?;
        let fetched = volume.get(&entry.path, &mut file).await;
        fetched.map_err(|fault| PullFault::Volume {
            place: entry.path.clone(),
            fault,
        })?;
        file.sync_data()?;
        if content_digest(&part)? != segment.digest {
            writeln!(out, "{}: its content is not what its name says", entry.path)?;
            good = false;
        }
        fs::rename(&part, &place)?;
    }
    Ok(good)
}
