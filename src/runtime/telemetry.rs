//! Where log lines go: standard error, JSON or text, filtered by level and target without a regex engine.
//!
//! Secrets cannot get here by accident: they have one type, whose `Debug` is a fixed word. Knows nothing of what is logged.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{Registry, fmt};

/// How the log is written.
#[derive(Debug, Clone)]
pub struct LogSettings {
    /// One JSON object a line, or text for people.
    pub json: bool,
    /// What passes where no target says otherwise.
    pub level: LevelFilter,
    /// Levels of single targets, such as `valetkey::proxy`.
    pub targets: Vec<(String, LevelFilter)>,
}

/// Installs the log of the process; a second call changes nothing.
pub fn install(settings: &LogSettings) {
    let filter = Targets::new().with_default(settings.level).with_targets(
        settings
            .targets
            .iter()
            .map(|(target, level)| (target.as_str(), *level)),
    );
    let layer = if settings.json {
        fmt::layer()
            .json()
            .flatten_event(true)
            .with_writer(std::io::stderr)
            .with_filter(filter)
            .boxed()
    } else {
        fmt::layer()
            .with_ansi(false)
            .with_writer(std::io::stderr)
            .with_filter(filter)
            .boxed()
    };
    // Fails only when somebody has installed one already, as tests do.
    let _ = Registry::default().with(layer).try_init();
}
