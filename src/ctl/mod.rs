//! The command line. Exit codes: 0 fine, 1 failed while running, 2 wrong usage or configuration; messages go to stderr.

mod billing;
mod decode;
mod demo;
mod registry;
mod trace;
mod user;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sip_ims::ports::StoreError;

use crate::app;
use crate::config::{self, Config, ConfigError, Problem};
use crate::provision;
use crate::secrets::SecretError;
use crate::store::{self, OpenError, StoreConfig};

/// SIP/IMS convergence server.
#[derive(Parser, Debug)]
#[command(name = "isthmus", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: Serve,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the server in the foreground (what happens without a command, too).
    Serve(Serve),
    /// Run the media plane alone.
    Media(Place),
    /// Say what is wrong with a configuration file.
    CheckConfig { file: PathBuf },
    /// Store everything in a provisioning file; takes effect on a running server within a second.
    Import {
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Add, list and remove users.
    #[command(subcommand)]
    User(user::Command),
    /// Show the way of one message or call: a trace id or a Call-ID.
    Trace {
        id: String,
        #[command(flatten)]
        place: Place,
    },
    /// Print a captured message in words.
    Decode {
        protocol: Protocol,
        /// `-` reads standard input.
        file: PathBuf,
    },
    /// Write the billing totals.
    #[command(subcommand)]
    Billing(billing::Command),
    /// Register, list and remove push clients.
    #[command(subcommand)]
    PushClient(registry::PushCommand),
    /// Register, list and remove clients of the third-party APIs.
    #[command(subcommand)]
    ApiClient(registry::ApiCommand),
    /// Say how lines stand, where no HLR is connected.
    #[command(subcommand)]
    Line(registry::LineCommand),
    /// List and remove filter criteria; `import` adds them.
    #[command(subcommand)]
    Filter(registry::FilterCommand),
}

#[derive(Args, Debug)]
struct Serve {
    #[command(flatten)]
    place: Place,
    /// Add the users alice and bob and print how each gets in.
    #[arg(long)]
    demo: bool,
}

/// Which server is meant.
#[derive(Args, Debug)]
struct Place {
    /// Configuration file; without one, defaults on 127.0.0.1.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Data folder; wins over the file's data_dir.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum, Debug)]
enum Protocol {
    Sip,
    Smpp,
    Wbxml,
    Tpdu,
    Msrp,
}

/// Why a command did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The operator's: a wrong argument.
    #[error("{0}")]
    Usage(Problem),
    #[error("{0} is not built yet")]
    NotBuilt(&'static str),
    #[error("no such user: {0}")]
    NoUser(String),
    #[error("no such entry: {0}")]
    NoEntry(String),
    #[error("a number would be tied to more than ten push clients")]
    CrowdedNumber,
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("an id, address or number belongs to another user already")]
    Conflict,
    #[error(transparent)]
    Store(StoreError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{}: {source}", file.display())]
    File { file: PathBuf, source: std::io::Error },
    #[error("cannot write the answer: {0}")]
    Output(#[source] std::io::Error),
    #[error(transparent)]
    Decode(#[from] decode::DecodeError),
    #[error(transparent)]
    App(#[from] app::AppError),
}

impl From<StoreError> for CtlError {
    fn from(error: StoreError) -> CtlError {
        match error {
            StoreError::Conflict => CtlError::Conflict,
            StoreError::OverQuota => CtlError::CrowdedNumber,
            error => CtlError::Store(error),
        }
    }
}

impl CtlError {
    fn exit_code(&self) -> u8 {
        match self {
            CtlError::Config(_) | CtlError::Usage(_) => 2,
            _ => 1,
        }
    }
}

/// Runs one command to its end.
pub fn run(cli: Cli) -> ExitCode {
    let done = match cli.command.unwrap_or(Command::Serve(cli.serve)) {
        Command::Serve(serve) => run_server(&serve),
        Command::Media(place) => place.config().and(Err(CtlError::NotBuilt("the media plane"))),
        Command::CheckConfig { file } => check(&file),
        Command::Import { file, place } => import(&file, &place),
        Command::User(command) => user::run(&command),
        Command::Trace { id, place } => trace::run(&id, &place),
        Command::Decode { protocol: Protocol::Sip, file } => decode::sip(&file),
        Command::Decode { protocol: Protocol::Tpdu, file } => decode::tpdu(&file),
        Command::Decode { protocol: Protocol::Smpp, file } => decode::smpp(&file),
        Command::Decode { protocol: Protocol::Msrp, file } => decode::msrp(&file),
        Command::Decode { protocol: Protocol::Wbxml, .. } => Err(CtlError::NotBuilt("decode wbxml")),
        Command::Billing(command) => billing::run(&command),
        Command::PushClient(command) => registry::push(&command),
        Command::ApiClient(command) => registry::api(&command),
        Command::Line(command) => registry::line(&command),
        Command::Filter(command) => registry::filter(&command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever read our output has gone: their choice, not a failure.
        Err(CtlError::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("isthmus: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run_server(serve: &Serve) -> Result<(), CtlError> {
    let config = serve.place.config()?;
    let demo = if serve.demo { Some(demo::users(&config)?) } else { None };
    let reload = serve.place.reload();
    app::run(config, reload, |running| {
        if let Some(users) = &demo {
            demo::print(running, users);
        }
    })?;
    Ok(())
}

fn check(file: &std::path::Path) -> Result<(), CtlError> {
    let config = Config::read(file)?;
    println!("{}: fine (domain {})", file.display(), config.domain);
    Ok(())
}

fn import(file: &std::path::Path, place: &Place) -> Result<(), CtlError> {
    let config = place.config()?;
    let text = config::read_text(file)?;
    let provision = provision::File::parse(&text, &config.domain)
        .map_err(|problems| ConfigError::Wrong { file: file.to_owned(), problems })?;
    let (users, others) = (provision.users.len(), provision.registrations.len());
    let sql = store::sql::SqlStore::open(&place.store(&config))?;
    provision::apply(provision, &sql, &sql)?;
    sql.close();
    println!("imported {users} users, {others} other entries");
    Ok(())
}

impl Place {
    /// The configuration with the command line's wishes applied.
    fn config(&self) -> Result<Config, CtlError> {
        let mut config = match &self.config {
            Some(file) => Config::read(file)?,
            None => Config::default(),
        };
        if let Some(data) = &self.data {
            config.data_dir.clone_from(data);
        }
        Ok(config)
    }

    /// How a running server reads its configuration again.
    fn reload(&self) -> impl Fn() -> Result<Config, ConfigError> + Send + 'static {
        let (file, data) = (self.config.clone(), self.data.clone());
        move || {
            let mut config = match &file {
                Some(file) => Config::read(file)?,
                None => Config::default(),
            };
            if let Some(data) = &data {
                config.data_dir.clone_from(data);
            }
            Ok(config)
        }
    }

    fn store(&self, config: &Config) -> StoreConfig {
        app::store_config(config)
    }
}
