//! From the configuration to the parts that ship the audit log, and to the volumes that `audit pull` reads.
//!
//! The app's tokens for this are apart from those of its calls: a scope that is missing here must not make the sidecar unready.

use std::sync::Arc;
use std::time::Duration;

use super::wire;
use crate::config::Config;
use crate::domain::clock::Clock;
use crate::domain::problem::Problem;
use crate::runtime::audit_writer::AuditWriter;
use crate::runtime::http_client::HttpSend;
use crate::runtime::metrics::Metrics;
use crate::runtime::shipper::{Prepared, ShipSettings, Shipper};
use crate::runtime::upstream::Door;
use crate::runtime::volume::Volumes;

/// The largest part of the drain time that is kept for the end of the log.
const LAST_SHIP_TIME_MAX: Duration = Duration::from_secs(3);

/// The volumes of the configured workspace, as the configured app, over a client of their own.
///
/// # Errors
/// What is wrong with the configuration.
pub fn volumes(
    config: &Config,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> Result<Volumes, Vec<Problem>> {
    let http = wire::http_client(config)?;
    over(&http, config, clock, metrics)
}

fn over(
    http: &Arc<dyn HttpSend>,
    config: &Config,
    clock: &Arc<dyn Clock>,
    metrics: &Metrics,
) -> Result<Volumes, Vec<Problem>> {
    let door = Door::to_origin(Arc::clone(http), &config.workspace.origin)
        .map_err(|fault| vec![Problem::new("workspace.host", fault.to_string())])?;
    let discoverer = wire::discoverer(config, http)?;
    let endpoint = wire::token_endpoint(config, discoverer, http, (clock, metrics));
    Ok(Volumes::new(
        door,
        wire::app_tokens(config, endpoint, clock),
    ))
}

/// What lies on the disk before the writer begins; `None` where nothing is shipped.
pub(super) fn look(config: &Config) -> Option<Prepared> {
    let ship = config.audit.ship.as_ref()?;
    Some(Prepared::look(ShipSettings {
        audit_file: config.audit.file.clone(),
        folder: ship.folder.clone(),
        every: ship.every,
        keep: config.audit.rotate_keep,
        backlog_bytes: ship.backlog_bytes,
    }))
}

pub(super) fn shipper(
    prepared: Prepared,
    http: &Arc<dyn HttpSend>,
    config: &Config,
    (writer, clock, metrics): (&Arc<AuditWriter>, &Arc<dyn Clock>, &Metrics),
) -> Result<Shipper, Vec<Problem>> {
    let volumes = over(http, config, clock, metrics)?;
    let (writer, clock) = (Arc::clone(writer), Arc::clone(clock));
    Ok(Shipper::new(
        prepared,
        volumes,
        writer,
        clock,
        metrics.clone(),
    ))
}

/// The part of the drain time that requests do not get.
pub(super) fn reserve(config: &Config) -> Duration {
    match config.audit.ship {
        Some(_) => (config.limits.drain_time / 5).min(LAST_SHIP_TIME_MAX),
        None => Duration::ZERO,
    }
}
