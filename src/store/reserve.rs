//! Room that the database keeps for itself, so that what ends something (a stop, a deletion, the end of the service) is stored
//! on a full disk too: runtimes may take more than there is, and only removing them makes room again.
//!
//! Blocks that are given up when they are needed would not do: who fills the disk takes them first, and what is kept back for
//! root is no use to this process. So they are in use all the time, and written in place: the database has free pages, and its
//! log (the WAL) has once been as long as it may have to become and is neither cut nor removed. What begins something (a row
//! that is added) asks [`keep`] first and is refused when only the reserve is left; what ends something asks nobody.

use rusqlite::{Connection, ErrorCode, OptionalExtension, ffi};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of a page: SQLite's default.
const PAGE: u64 = 4096;

/// Free pages that are left to what ends something.
const LEAST: u64 = 256;

/// Free pages after they were made; the log becomes as long.
const PAGES: u64 = 512;

/// Pages that are made at a time.
const STEP: u64 = 64;

/// Pages of the log after which it is begun anew: half its length, so that there is room when it can't be for a while.
const LOG_PAGES: u64 = PAGES / 2;

/// Bytes that must be free beside what is taken.
const BESIDE: u64 = 4 << 20;

/// Bytes of the log's header. Without it SQLite takes a log for empty.
const LOG_HEADER: usize = 32;

/// Sets how long the log becomes, and makes the reserve where there is none. That there is no room for it is no error: the
/// next that asks makes it.
pub(super) fn open(connection: &mut Connection) -> rusqlite::Result<()> {
    connection.pragma_update(None, "wal_autocheckpoint", LOG_PAGES)?;
    let short = log_of(connection)
        .and_then(|log| std::fs::metadata(log).ok())
        .is_none_or(|log| log.len() < PAGES * PAGE);
    let made = match short {
        // At once, so that the log becomes as long.
        true => make(connection, PAGES, PAGES),
        false => keep(connection, 0),
    };
    match made {
        Err(error) if is_full(&error) => {
            tracing::warn!(
                "the disk is full: until there is room, whatever would have to be stored anew is refused"
            );
            Ok(())
        }
        other => other,
    }
}

/// Makes sure that so many bytes can be stored and leave the reserve untouched.
///
/// # Errors
/// `SQLITE_FULL` when only the reserve is left.
pub(super) fn keep(connection: &mut Connection, bytes: u64) -> rusqlite::Result<()> {
    // A row takes a page of its own at the most, in the table and in each index.
    let wanted = LEAST + 8 + 2 * bytes.div_ceil(PAGE);
    let free: u64 = connection.pragma_query_value(None, "freelist_count", |row| row.get(0))?;
    if free >= wanted && !is_begun(connection)? {
        return Ok(());
    }
    make(connection, wanted.max(PAGES), STEP)
}

/// Makes free pages until there are so many, `step` of them at a time. Those of a step count when they have their place in
/// the database's file. Where they find none they are in the log alone, which can't be begun anew then: so there are few of
/// them, and the table stays, which tells whoever asks next.
fn make(connection: &mut Connection, pages: u64, step: u64) -> rusqlite::Result<()> {
    if is_begun(connection)? {
        checkpoint(connection)?;
    }
    if !has_room(connection, 2 * pages * PAGE + BESIDE) {
        return Err(full());
    }
    connection.execute_batch("CREATE TABLE IF NOT EXISTS reserve (bytes BLOB NOT NULL) STRICT")?;
    for _ in 0..pages.div_ceil(step) {
        let sql = "INSERT INTO reserve (bytes) VALUES (zeroblob(?1))";
        let taken = connection.execute(sql, [step * PAGE]);
        if let Err(error) = taken.and_then(|_| checkpoint(connection)) {
            connection.execute_batch("DELETE FROM reserve")?;
            return Err(error);
        }
    }
    connection.execute_batch("DROP TABLE reserve")
}

fn is_begun(connection: &Connection) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM sqlite_schema WHERE name = 'reserve'";
    let found = connection.query_row(sql, [], |_| Ok(())).optional()?;
    Ok(found.is_some())
}

/// Brings what is in the log into the database's file; whether all of it was.
fn checkpoint(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        let (busy, log, done): (i64, i64, i64) = (row.get(0)?, row.get(1)?, row.get(2)?);
        Ok(busy == 0 && log == done)
    })
}

/// The end of the service. The log stays, since its place on the disk is part of the reserve, but as an empty one: a database
/// that is put back from a backup must not find another one's.
pub(super) fn close(connection: &Connection) {
    let emptied = checkpoint(connection).map(|whole| {
        let log = log_of(connection).filter(|_| whole);
        log.map(|log| {
            let file = File::options().write(true).open(log)?;
            file.write_all_at(&[0; LOG_HEADER], 0)?;
            file.sync_data()
        })
    });
    match emptied {
        Ok(None | Some(Ok(()))) => {}
        // The next start finds all of it in the log.
        Ok(Some(Err(error))) => tracing::warn!(%error, "emptying the database's log"),
        Err(error) => tracing::warn!(%error, "bringing the database's log into its file"),
    }
}

/// Whether there is no room for the file that all who use the log share: it is made anew by each start.
pub(super) fn lacks_index(error: &rusqlite::Error) -> bool {
    let lacking = [ffi::SQLITE_IOERR_SHMSIZE, ffi::SQLITE_IOERR_SHMOPEN];
    is_full(error)
        || error
            .sqlite_error()
            .is_some_and(|error| lacking.contains(&error.extended_code))
}

fn is_full(error: &rusqlite::Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DiskFull)
}

fn full() -> rusqlite::Error {
    let why = "what is left of the disk is kept for deletions and for the end of the service";
    rusqlite::Error::SqliteFailure(ffi::Error::new(ffi::SQLITE_FULL), Some(why.to_owned()))
}

fn log_of(connection: &Connection) -> Option<PathBuf> {
    let path = connection.path().filter(|path| !path.is_empty())?;
    Some(PathBuf::from(format!("{path}-wal")))
}

/// Whether so much is free; where statvfs(3) fails, writing finds out.
fn has_room(connection: &Connection, bytes: u64) -> bool {
    let directory = connection.path().and_then(|path| Path::new(path).parent());
    directory.is_none_or(|directory| {
        nix::sys::statvfs::statvfs(directory).map_or(true, |stat| {
            stat.blocks_available().saturating_mul(stat.fragment_size()) >= bytes
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(connection: &Connection) -> u64 {
        connection
            .pragma_query_value(None, "freelist_count", |row| row.get(0))
            .unwrap()
    }

    fn fresh() -> (tempfile::TempDir, Connection) {
        let dir = tempfile::tempdir().unwrap();
        let connection = Connection::open(dir.path().join("t.db")).unwrap();
        super::super::configure(&connection).unwrap();
        (dir, connection)
    }

    #[test]
    fn both_files_have_it_and_it_is_made_once() {
        let (dir, mut connection) = fresh();
        open(&mut connection).unwrap();
        assert!(free(&connection) >= PAGES, "{}", free(&connection));
        let length = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(length("t.db") >= PAGES * PAGE);
        assert!(length("t.db-wal") >= PAGES * PAGE);
        let before = length("t.db");
        open(&mut connection).unwrap();
        keep(&mut connection, 100).unwrap();
        assert_eq!(length("t.db"), before);
    }

    #[test]
    fn what_is_added_takes_other_pages() {
        let (_dir, mut connection) = fresh();
        open(&mut connection).unwrap();
        connection.execute_batch("CREATE TABLE t (b)").unwrap();
        for _ in 0..8 {
            let bytes = 400_000_u64;
            keep(&mut connection, bytes).unwrap();
            connection
                .execute("INSERT INTO t VALUES (zeroblob(?1))", [bytes])
                .unwrap();
            assert!(free(&connection) >= LEAST, "{}", free(&connection));
        }
    }

    #[test]
    fn one_that_was_begun_is_finished() {
        let (_dir, mut connection) = fresh();
        open(&mut connection).unwrap();
        let begun = "CREATE TABLE reserve (bytes BLOB NOT NULL) STRICT";
        connection.execute_batch(begun).unwrap();
        keep(&mut connection, 0).unwrap();
        assert!(!is_begun(&connection).unwrap());
    }

    #[test]
    fn a_log_that_was_left_is_an_empty_one_and_as_long() {
        let (dir, mut connection) = fresh();
        open(&mut connection).unwrap();
        connection.execute_batch("CREATE TABLE t (b)").unwrap();
        close(&connection);
        let log = std::fs::read(dir.path().join("t.db-wal")).unwrap();
        assert!(log.len() as u64 >= PAGES * PAGE);
        // Another database in its place finds nothing in it; this one has everything in its file.
        std::fs::copy(dir.path().join("t.db"), dir.path().join("u.db")).unwrap();
        std::fs::write(dir.path().join("u.db-wal"), log).unwrap();
        let other = Connection::open(dir.path().join("u.db")).unwrap();
        let count = |sql: &str| {
            other
                .query_row(sql, [], |row| row.get::<_, i64>(0))
                .unwrap()
        };
        assert_eq!(count("SELECT count(*) FROM t"), 0);
        let pragma: (i64, i64, i64) = other
            .query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })
            .unwrap();
        assert_eq!(pragma, (0, 0, 0));
    }
}
