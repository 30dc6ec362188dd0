//! From the configuration to the parts that ship the audit log, and to the volumes that `audit pull` reads.
//!
//! The app's tokens for this are apart from those of its calls: a scope that is missing here must not make the sidecar unready.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::wire;
use crate::config::Config;
use crate::domain::clock::Clock;
use crate::domain::problem::Problem;
use crate::proxy::record::Sinks;
use crate::runtime::audit_writer::AuditWriter;
use crate::runtime::http_client::HttpSend;
use crate::runtime::metrics::Metrics;
use crate::runtime::shipper::{Prepared, ShipSettings, Shipper};
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
    let door = wire::workspace_door(config, http)?;
    let discoverer = wire::discoverer(config, http)?;
    let (_endpoint, tokens) = wire::app_tokens(config, discoverer, http, clock, metrics);
    Ok(Volumes::new(door, tokens))
}

/// The audit log with what goes beside it, and what ships it.
type Shipped = (Sinks, Option<Arc<Shipper>>);

/// Opens the audit log, with what ships it where that is asked for.
pub(super) fn sinks(
    config: &Config,
    http: &Arc<dyn HttpSend>,
    clock: &Arc<dyn Clock>,
    metrics: Metrics,
) -> Result<Shipped, Vec<Problem>> {
    // Looked at before the writer adds to it.
    let found = config.audit.ship.as_ref().map(|ship| {
        Prepared::look(ShipSettings {
            audit_file: config.audit.file.clone(),
            folder: ship.folder.clone(),
            every: ship.every,
            keep: config.audit.rotate_keep,
            backlog_bytes: ship.backlog_bytes,
        })
    });
    let settings = wire::audit_settings(config)?;
    let writer = AuditWriter::start(&settings, Arc::clone(clock), metrics.clone());
    let writer = writer.map_err(|fault| vec![Problem::new("audit.file", fault.to_string())])?;
    let sinks = Sinks {
        audit: Arc::new(writer),
        metrics,
        cut: CancellationToken::new(),
    };
    let Some(found) = found else {
        return Ok((sinks, None));
    };
    let volumes = over(http, config, clock, &sinks.metrics)?;
    let shipper = Shipper::new(
        found,
        volumes,
        Arc::clone(&sinks.audit),
        Arc::clone(clock),
        sinks.metrics.clone(),
    );
    Ok((sinks, Some(Arc::new(shipper))))
}

/// The part of the drain time that requests do not get.
pub(super) fn reserve(config: &Config) -> Duration {
    match config.audit.ship {
        Some(_) => (config.limits.drain_time / 5).min(LAST_SHIP_TIME_MAX),
        None => Duration::ZERO,
    }
}
