//! `cellblock image`: what can be done with images. All of it works on the data directory alone, whether the service runs or
//! not.

mod progress;
mod pull;
mod show;
pub mod worker;

pub use progress::Shown;
pub use pull::PullArgs;

use crate::cli::ConfigArgs;
use crate::config::{Config, ConfigError};
use crate::image::ImageStore;
use crate::image::import::{self, Imported, Platform, Request};
use crate::image::store::Freed;
use crate::image::unpack::{Bounds, Unpacker};
use clap::{Args, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

type Error = Box<dyn std::error::Error>;

/// What can be done with images.
#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Make a root file system directory usable as an image; it is used in place, read-only
    Add {
        /// Name of the image
        name: String,
        /// The directory
        dir: PathBuf,
        /// Where the service keeps its data.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Copy an image into the store
    ///
    /// SOURCE is a root file system (a directory, or a tar archive, perhaps compressed with gzip or zstd), what `docker save`
    /// wrote, or an OCI image layout (a directory or a tar archive). `-` reads an archive from standard input.
    Import {
        /// Name of the image
        name: String,
        /// Where it comes from
        source: PathBuf,
        /// Which image, where SOURCE holds several: a name in it, or a digest
        #[arg(long = "ref", value_name = "NAME")]
        reference: Option<String>,
        /// What every import is told.
        #[command(flatten)]
        how: ImportArgs,
        /// Where the service keeps its data.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Fetch an image from a registry into the store
    Pull {
        /// Which, and how.
        #[command(flatten)]
        pull: Box<PullArgs>,
        /// Where the service keeps its data.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// List the images
    Ls {
        /// Names only
        #[arg(short, long)]
        quiet: bool,
        /// Where the service keeps its data.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Show all that is known of an image
    Show {
        /// Name of the image
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Where the service keeps its data.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Remove names of images, and what nothing refers to then; runtimes of an imported image go on
    Rm {
        /// Names of the images
        #[arg(required = true)]
        names: Vec<String>,
        /// Where the service keeps its data.
        #[command(flatten)]
        config: ConfigArgs,
    },
    /// Remove images that neither a name nor a runtime nor a checkpoint refers to, and what interrupted imports left
    Prune(ConfigArgs),
}

/// What every import is told, whatever the image comes from.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// The machine that the image is for, such as linux/arm64 [default: this machine]
    #[arg(long, value_name = "OS/ARCHITECTURE")]
    pub platform: Option<Platform>,
    /// Most bytes that it may unpack to
    #[arg(long, value_name = "BYTES", default_value_t = Bounds::default().bytes)]
    pub max_bytes: u64,
    /// Most files, directories and links that it may have
    #[arg(long, value_name = "NUMBER", default_value_t = Bounds::default().entries)]
    pub max_entries: u64,
    /// Most bytes that one compressed byte may unpack to
    #[arg(long, value_name = "NUMBER", default_value_t = Bounds::default().ratio)]
    pub max_ratio: u64,
}

impl ImportArgs {
    /// As the import takes them.
    pub fn bounds(&self) -> Bounds {
        Bounds {
            bytes: self.max_bytes,
            entries: self.max_entries,
            ratio: self.max_ratio,
            ..Bounds::default()
        }
    }
}

/// What is to be done, with a valid configuration.
#[derive(Debug)]
pub struct ImageAction {
    /// For the data directory and the uids.
    pub config: Config,
    /// As it was typed.
    pub command: ImageCommand,
}

impl ImageAction {
    /// Makes sense of the configuration.
    pub fn resolve(mut command: ImageCommand) -> Result<ImageAction, ConfigError> {
        let args = match &mut command {
            ImageCommand::Add { config, .. }
            | ImageCommand::Import { config, .. }
            | ImageCommand::Pull { config, .. }
            | ImageCommand::Ls { config, .. }
            | ImageCommand::Show { config, .. }
            | ImageCommand::Rm { config, .. }
            | ImageCommand::Prune(config) => config,
        };
        let config = std::mem::take(args).resolve()?;
        Ok(ImageAction { config, command })
    }

    /// Does it.
    pub fn perform(self) -> Result<ExitCode, Error> {
        let config = &self.config;
        let store = ImageStore::new(&config.data_dir);
        match self.command {
            ImageCommand::Add { name, dir, .. } => {
                crate::image::add(&config.data_dir, &name, &dir)?;
                crate::log::print(format!("added {name}"));
            }
            ImageCommand::Import {
                name,
                source,
                reference,
                how,
                ..
            } => {
                return worker::run(&store, |progress| {
                    let unpacker = Unpacker::new(config.uid_base);
                    let request = request(&store, &name, &how, &unpacker, progress);
                    let done = import::import(&source, reference.as_deref(), &request)?;
                    report("imported", &name, &done);
                    Ok(())
                });
            }
            ImageCommand::Pull { pull, .. } => {
                return worker::run(&store, |progress| {
                    let unpacker = Unpacker::new(config.uid_base);
                    let name = pull.name();
                    let request = request(&store, &name, &pull.how, &unpacker, progress);
                    let done = pull.pull(&request)?;
                    report("pulled", &name, &done);
                    Ok(())
                });
            }
            ImageCommand::Ls { quiet: true, .. } => {
                store.list()?.iter().for_each(crate::log::print)
            }
            ImageCommand::Ls { .. } => {
                crate::log::print(show::table(&store.tell_all()?).trim_end())
            }
            ImageCommand::Show { name, json, .. } => {
                let (told, users) = store.tell(&name)?;
                let text = if json {
                    show::json(&told, users)
                } else {
                    show::page(&told, users)
                };
                crate::log::print(text.trim_end());
            }
            ImageCommand::Rm { names, .. } => {
                for name in names {
                    let freed = store.remove(&name)?;
                    crate::log::print(format!("removed {name}; {}", told(&freed)));
                }
            }
            ImageCommand::Prune(_) => crate::log::print(told(&store.prune()?)),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What an import of any kind is asked for.
pub fn request<'a>(
    store: &'a ImageStore,
    name: &'a str,
    how: &'a ImportArgs,
    unpacker: &'a Unpacker,
    progress: &'a Shown,
) -> Request<'a> {
    Request {
        store,
        name,
        platform: how.platform.as_ref(),
        bounds: how.bounds(),
        unpacker,
        progress,
    }
}

/// Says what became of an import.
pub fn report(done: &str, name: &str, imported: &Imported) {
    let Imported { content, new } = imported;
    let size = show::size(content.bytes);
    crate::log::print(match new {
        true => format!("{done} {name}: {} ({size})", content.id),
        false => format!("{name} is {} already; nothing was changed", content.id),
    });
}

fn told(freed: &Freed) -> String {
    let Freed {
        images,
        layers,
        bytes,
    } = freed;
    let size = show::size(*bytes);
    let (images, layers) = (counted(*images, "image"), counted(*layers, "layer"));
    format!("{images} and {layers} deleted, {size} freed ({bytes} bytes)")
}

fn counted(number: usize, what: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {what}{plural}")
}
