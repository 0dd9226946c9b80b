//! The command line: what was typed becomes an [`Action`], which `main` carries out.

pub mod doctor;
pub mod image;

use crate::config::{Config, ConfigError, RawConfig};
use clap::{Args, Parser, Subcommand};
use image::{ImageAction, ImageCommand};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

/// Runs untrusted commands in locked-down Linux cells, behind an HTTP API.
#[derive(Debug, Parser)]
#[command(name = "cellblock", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the service (as root)
    Serve(ConfigArgs),
    /// Check whether this host can run the service, line by line
    Doctor(ConfigArgs),
    /// Manage the images that runtimes start from
    Image {
        /// What to do with them.
        #[command(subcommand)]
        command: ImageCommand,
    },
    /// Print the description of the HTTP API (OpenAPI 3.1)
    Openapi,
}

/// Flags that stand for keys of the configuration file and win over it.
#[derive(Debug, Default, Args)]
pub struct ConfigArgs {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:8080]
    #[arg(long, env = "CELLBLOCK_LISTEN", value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Where state, runtimes and images are kept [default: /var/lib/cellblock]
    #[arg(long, env = "CELLBLOCK_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Directory of further sandbox profiles
    #[arg(long, value_name = "DIR")]
    pub profiles_dir: Option<PathBuf>,
    /// Start although these limits can't be enforced on this host
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub allow_missing_limits: Option<Vec<String>>,
    /// Cells opened ahead for runtimes in use; 0 for none [default: 64]
    #[arg(long, value_name = "NUMBER")]
    pub max_parked_cells: Option<u32>,
    /// How log lines look: text or json [default: text]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
}

impl ConfigArgs {
    /// The configuration that these flags, the environment and the file make together.
    pub fn resolve(self) -> Result<Config, ConfigError> {
        let file = match &self.config {
            Some(path) => RawConfig::read(path)?,
            None => RawConfig::default(),
        };
        let flags = RawConfig {
            listen: self.listen,
            data_dir: self.data_dir,
            profiles_dir: self.profiles_dir,
            allow_missing_limits: self.allow_missing_limits,
            max_parked_cells: self.max_parked_cells,
            log_format: self.log_format,
            ..RawConfig::default()
        };
        Config::resolve(flags.or(file))
    }
}

/// What is to be done, with a valid configuration.
#[derive(Debug)]
pub enum Action {
    /// Run the service.
    Serve(Config),
    /// Check the host.
    Doctor(Config),
    /// Something with images.
    Image(Box<ImageAction>),
    /// Print the API's description.
    Openapi,
}

/// Parses the process's arguments and environment. Prints usage and ends the process when they make no sense (2), or on
/// `--help` and `--version` (0).
pub fn parse() -> Result<Action, ConfigError> {
    action(Cli::parse())
}

fn action(cli: Cli) -> Result<Action, ConfigError> {
    Ok(match cli.command {
        Command::Serve(args) => Action::Serve(args.resolve()?),
        Command::Doctor(args) => Action::Doctor(args.resolve()?),
        Command::Image { command } => Action::Image(Box::new(ImageAction::resolve(command)?)),
        Command::Openapi => Action::Openapi,
    })
}

/// Does what the command line asks for.
pub fn run() -> ExitCode {
    let done = parse().map_err(Box::from).and_then(perform);
    done.unwrap_or_else(|error: Box<dyn std::error::Error>| {
        crate::log::tell(crate::log::chain(error.as_ref()));
        ExitCode::FAILURE
    })
}

fn perform(action: Action) -> Result<ExitCode, Box<dyn std::error::Error>> {
    match action {
        Action::Serve(config) => return Ok(crate::supervisor::serve(&config)),
        Action::Doctor(config) => return Ok(doctor::run(&config)),
        Action::Image(action) => return action.perform(),
        Action::Openapi => crate::log::print(crate::api::openapi().trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn parse(args: &[&str]) -> Result<Action, String> {
        let cli = Cli::try_parse_from(args).map_err(|e| e.to_string())?;
        action(cli).map_err(|e| e.to_string())
    }

    #[test]
    fn flags_win_over_the_file() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "listen = '127.0.0.1:1'\nmax_execs = 3").unwrap();
        let path = file.path().to_str().unwrap();
        let args = [
            "cellblock",
            "serve",
            "--config",
            path,
            "--listen",
            "127.0.0.1:2",
        ];
        let Ok(Action::Serve(config)) = parse(&args) else {
            panic!("not serve")
        };
        assert_eq!((config.listen.port(), config.exec.max_execs), (2, 3));
    }

    #[test]
    fn missing_limits_are_a_comma_list() {
        let args = ["cellblock", "doctor", "--allow-missing-limits=pids,memory"];
        let Ok(Action::Doctor(config)) = parse(&args) else {
            panic!("not doctor")
        };
        assert_eq!(config.allow_missing_limits, ["pids", "memory"]);
    }

    #[test]
    fn image_add_takes_a_name_and_a_directory() {
        let args = [
            "cellblock",
            "image",
            "add",
            "debian",
            "/srv/debian",
            "--data-dir",
            "/d",
        ];
        let Ok(Action::Image(action)) = parse(&args) else {
            panic!("not image")
        };
        let ImageCommand::Add { name, dir, .. } = action.command else {
            panic!("not add")
        };
        assert_eq!(
            (name.as_str(), dir, action.config.data_dir),
            ("debian", "/srv/debian".into(), "/d".into())
        );
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(parse(&["cellblock", "serve", "--listen", "nowhere"]).is_err());
        assert!(parse(&["cellblock", "fly"]).is_err());
    }
}
