//! Logs: text or JSON lines on stderr, the level changeable while running.

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{Log, LogFormat};

/// Changes the level of a running server.
#[derive(Clone)]
pub struct LogControl(reload::Handle<EnvFilter, Registry>);

/// Why logging cannot be set as asked.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The operator's.
    #[error("log.level: {0}")]
    Level(#[from] tracing_subscriber::filter::ParseError),
    /// Ours: somebody set the process's logger before.
    #[error("the log is set up already")]
    Twice,
}

/// Starts logging for this process.
pub fn start(log: &Log) -> Result<LogControl, LogError> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(&log.level)?);
    let lines = match log.format {
        LogFormat::Text => fmt::layer().with_writer(std::io::stderr).with_ansi(false).boxed(),
        LogFormat::Json => fmt::layer().json().flatten_event(true).with_writer(std::io::stderr).boxed(),
    };
    tracing_subscriber::registry().with(filter).with(lines).try_init().map_err(|_| LogError::Twice)?;
    Ok(LogControl(handle))
}

impl LogControl {
    /// Takes a new level (`[log] level`); the old one stays when it cannot be read.
    pub fn set_level(&self, level: &str) -> Result<(), LogError> {
        let filter = EnvFilter::try_new(level)?;
        self.0.reload(filter).map_err(|_| LogError::Twice)
    }
}
