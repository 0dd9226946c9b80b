//! What a path leads to, and the import of it.

use crate::image::import::archive::{self, Looked};
use crate::image::import::blobs::Blobs;
use crate::image::import::error::{ImportError, io_error};
use crate::image::import::finish::{conclude_rootfs, finish, unpack_rootfs};
use crate::image::import::{Imported, Request, Staging, directory, docker, oci};
use crate::image::names::{check_name, check_rootfs};
use crate::image::store::TREE;
use nix::fcntl::OFlag;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Beginnings of compressed archives: gzip, zstd.
const COMPRESSED: [&[u8]; 2] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd"];

/// Imports what is at a path: `cellblock image import`. `reference` chooses among several images.
pub fn import(
    source: &Path,
    reference: Option<&str>,
    request: &Request<'_>,
) -> Result<Imported, ImportError> {
    check_name(request.name)?;
    let staging = Staging::new(request.store)?;
    if source == Path::new("-") {
        let file = spool(
            &staging,
            &mut io::stdin(),
            Path::new("standard input"),
            request,
        )?;
        return archive(
            staging,
            file,
            Path::new("standard input"),
            reference,
            request,
        );
    }
    let status = std::fs::metadata(source).map_err(io_error("find", source))?;
    let kind = status.file_type();
    if kind.is_dir() {
        from_directory(staging, source, reference, request)
    } else if kind.is_file() {
        let file = File::open(source).map_err(io_error("open", source))?;
        archive(staging, file, source, reference, request)
    } else if kind.is_fifo() {
        let mut fifo = File::open(source).map_err(io_error("open", source))?;
        let file = spool(&staging, &mut fifo, source, request)?;
        archive(staging, file, source, reference, request)
    } else {
        Err(ImportError::Refused {
            what: source.display().to_string(),
            reason: "is neither a directory nor an archive".to_owned(),
        })
    }
}

fn from_directory(
    staging: Staging,
    source: &Path,
    reference: Option<&str>,
    request: &Request<'_>,
) -> Result<Imported, ImportError> {
    let path = &source.canonicalize().map_err(io_error("find", source))?;
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_DIRECTORY.bits())
        .open(path)
        .map_err(io_error("open", path))?;
    let again = directory.try_clone().map_err(io_error("open", path))?;
    let blobs = Blobs::of_directory(path, again);
    if let Some(form) = Form::of(&blobs)? {
        return from_images(staging, blobs, form, reference, request);
    }
    one_rootfs(path, reference)?;
    check_rootfs(path)?;
    let store = request.store.directory();
    if store
        .canonicalize()
        .is_ok_and(|store| store.starts_with(path))
    {
        return Err(ImportError::Refused {
            what: path.display().to_string(),
            reason: "holds the data directory that it would be copied into".to_owned(),
        });
    }
    let (reader, writer) = io::pipe().map_err(io_error("make a pipe for", path))?;
    let (walked, unpacked) = std::thread::scope(|scope| {
        let walk = scope.spawn(|| directory::write(&directory, path, writer));
        let unpacked = unpack_rootfs(&staging, reader.into(), None, "the directory", request);
        (walk.join().expect("the walk does not panic"), unpacked)
    });
    let diff_id = match walked {
        // The unpacker went first, and says why.
        Err(ImportError::Io { source, .. }) if source.kind() == io::ErrorKind::BrokenPipe => {
            unpacked?
        }
        walked => {
            let walked = walked?;
            walked
                .notes
                .iter()
                .for_each(|note| request.progress.note(note));
            unpacked?
        }
    };
    conclude_rootfs(staging, diff_id, request)
}

fn archive(
    staging: Staging,
    mut file: File,
    path: &Path,
    reference: Option<&str>,
    request: &Request<'_>,
) -> Result<Imported, ImportError> {
    let mut block = [0; 512];
    let length = read_start(&mut file, &mut block).map_err(io_error("read", path))?;
    let block = &block[..length];
    let compressed = COMPRESSED.iter().any(|magic| block.starts_with(magic));
    if !compressed && !archive::is_tar(block) {
        return Err(ImportError::Refused {
            what: path.display().to_string(),
            reason: "is no tar archive, neither plain nor compressed with gzip or zstd".to_owned(),
        });
    }
    if !compressed && let Some((blobs, form)) = look(&file, path)? {
        return from_images(staging, blobs, form, reference, request);
    }
    let length = file.metadata().map_err(io_error("find", path))?.len();
    let whole = file.try_clone().map_err(io_error("open", path))?;
    let diff_id = unpack_rootfs(&staging, whole.into(), Some(length), "the archive", request)?;
    let tree = staging.layer_path(&diff_id).join(TREE);
    if compressed && holds_images(&tree) {
        // Its files are to be read at their places, so it has to lie there uncompressed.
        staging.forget_layer(&diff_id)?;
        let expanded = expand(&staging, file, length, path, request)?;
        if let Some((blobs, form)) = look(&expanded, path)? {
            return from_images(staging, blobs, form, reference, request);
        }
        return Err(ImportError::Refused {
            what: path.display().to_string(),
            reason: "holds images and more; uncompress it and import its parts".to_owned(),
        });
    }
    one_rootfs(path, reference)?;
    conclude_rootfs(staging, diff_id, request)
}

/// How a source says which images it holds.
#[derive(Debug, Clone, Copy)]
enum Form {
    Layout,
    Docker,
}

impl Form {
    /// None for what holds no images. What `docker save` writes today has both forms; the layout says more.
    fn of(blobs: &Blobs) -> Result<Option<Form>, ImportError> {
        if blobs.has(oci::MARK) && blobs.has(oci::INDEX) {
            Ok(Some(Form::Layout))
        } else if blobs.has(docker::MANIFEST) {
            Ok(Some(Form::Docker))
        } else if blobs.has("repositories") {
            Err(ImportError::Refused {
                what: blobs.path().display().to_string(),
                reason:
                    "was written by a Docker before version 1.10; save the image with a newer one"
                        .to_owned(),
            })
        } else {
            Ok(None)
        }
    }
}

fn from_images(
    staging: Staging,
    mut blobs: Blobs,
    form: Form,
    reference: Option<&str>,
    request: &Request<'_>,
) -> Result<Imported, ImportError> {
    let (config, layers) = match form {
        Form::Layout => oci::read(&mut blobs, reference, request)?,
        Form::Docker => docker::read(&mut blobs, reference, request)?,
    };
    // `blobs` keeps open what the layers are read from.
    finish(staging, &config, &layers, request)
}

/// The images in an uncompressed archive, if it is one of images.
fn look(file: &File, path: &Path) -> Result<Option<(Blobs, Form)>, ImportError> {
    let Looked::Files(index) = archive::look(file, path)? else {
        return Ok(None);
    };
    let file = file.try_clone().map_err(io_error("open", path))?;
    let blobs = Blobs::of_archive(path, file, index);
    Ok(Form::of(&blobs)?.map(|form| (blobs, form)))
}

/// Whether what was unpacked as a root file system is an archive of images: known only now, where it was compressed.
fn holds_images(tree: &Path) -> bool {
    let file = |name: &str| {
        let status = std::fs::symlink_metadata(tree.join(name));
        status.is_ok_and(|status| status.is_file())
    };
    let rootfs = ["bin", "etc", "usr"]
        .iter()
        .any(|name| tree.join(name).symlink_metadata().is_ok());
    !rootfs && ((file(oci::MARK) && file(oci::INDEX)) || file(docker::MANIFEST))
}

fn one_rootfs(path: &Path, reference: Option<&str>) -> Result<(), ImportError> {
    match reference {
        None => Ok(()),
        Some(_) => Err(ImportError::Refused {
            what: path.display().to_string(),
            reason: "is one root file system; --ref chooses among images of an archive or a layout"
                .to_owned(),
        }),
    }
}

fn expand(
    staging: &Staging,
    mut file: File,
    length: u64,
    path: &Path,
    request: &Request<'_>,
) -> Result<File, ImportError> {
    file.seek(SeekFrom::Start(0))
        .map_err(io_error("read", path))?;
    let (target, expanded) = new_file(staging, "expanded")?;
    let mut step = request
        .progress
        .begin("uncompress the archive", Some(length));
    let bounds = &request.bounds;
    let done = request.unpacker.expand(
        file.into(),
        Some(length),
        target.into(),
        bounds,
        &mut |bytes| step.at(bytes),
    );
    done.map_err(|source| ImportError::Unpack {
        what: path.display().to_string(),
        source,
    })?;
    step.at(length);
    Ok(expanded)
}

/// Copies what can be read only once into the staging directory.
fn spool(
    staging: &Staging,
    source: &mut dyn Read,
    path: &Path,
    request: &Request<'_>,
) -> Result<File, ImportError> {
    let (mut target, file) = new_file(staging, "source")?;
    let most = request.bounds.bytes;
    let mut step = request
        .progress
        .begin(&format!("read {}", path.display()), None);
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => return Ok(file),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(io_error("read", path)(error)),
        };
        done += count as u64;
        if done > most {
            return Err(ImportError::Refused {
                what: path.display().to_string(),
                reason: format!("has more than {most} bytes; --max-bytes allows more"),
            });
        }
        let written = target.write_all(&buffer[..count]);
        written.map_err(io_error("write", &staging.file_path("source")))?;
        step.at(done);
    }
}

/// A new file in the staging directory, for writing and for reading.
fn new_file(staging: &Staging, name: &str) -> Result<(File, File), ImportError> {
    let path = staging.file_path(name);
    let write = File::create_new(&path).map_err(io_error("create", &path))?;
    let read = File::open(&path).map_err(io_error("open", &path))?;
    Ok((write, read))
}

/// Reads the first bytes, and goes back.
fn read_start(file: &mut File, block: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < block.len() {
        match file.read(&mut block[length..])? {
            0 => break,
            count => length += count,
        }
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(length)
}
