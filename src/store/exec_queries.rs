//! Questions about exec records.

use super::execs::ExecRow;
use super::{Store, StoreError};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params, params_from_iter};
use uuid::Uuid;

/// Which of a tenant's records are wanted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ExecFilter {
    /// A runtime's id, or the name that it had.
    pub runtime: Option<String>,
    /// Any of these outcomes; none is all.
    pub outcomes: Vec<String>,
    /// Started at this time or later, in milliseconds since 1970.
    pub since: Option<i64>,
}

/// A part of the records, newest first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ExecPage {
    /// The records.
    pub rows: Vec<ExecRow>,
    /// How many fit the filter.
    pub total: u64,
    /// How many of them stand before the first of `rows`.
    pub offset: u64,
}

const COLUMNS: &str =
    "id, tenant_id, runtime_id, runtime_name, command, detached, outcome, ended_at, report, kept,
     in_files";

/// The least UUIDv7 of a time in milliseconds since 1970.
pub fn first_id_at(millis: i64) -> Uuid {
    const MOST: u64 = (1 << 48) - 1;
    let millis = u64::try_from(millis).unwrap_or(0).min(MOST);
    Uuid::from_u128(u128::from(millis) << 80)
}

impl Store {
    /// A tenant's record.
    pub async fn exec(&self, tenant: Uuid, id: Uuid) -> Result<Option<ExecRow>, StoreError> {
        self.read("reading an exec record", move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM execs WHERE id = ?1 AND tenant_id = ?2");
            connection
                .prepare_cached(&sql)?
                .query_row(params![id, tenant.to_string()], read_row)
                .optional()
        })
        .await
    }

    /// At most `limit` of a tenant's records, newest first, leaving out `offset` of those that follow `after`.
    pub async fn execs(
        &self,
        tenant: Uuid,
        filter: ExecFilter,
        after: Option<Uuid>,
        offset: u64,
        limit: u64,
    ) -> Result<ExecPage, StoreError> {
        self.read("listing exec records", move |connection| {
            // One transaction, so that all three look at the same records.
            let transaction = connection.transaction()?;
            let all = Condition::of(tenant, &filter);
            let total = all.count(&transaction)?;
            let (rest, before) = match after {
                None => (all, 0),
                Some(after) => {
                    let before = all.clone().and("id >= ?", after).count(&transaction)?;
                    (all.and("id < ?", after), before)
                }
            };
            Ok(ExecPage {
                rows: rest.rows(&transaction, offset, limit)?,
                total,
                offset: before + offset,
            })
        })
        .await
    }

    /// At most `limit` of a tenant's records that follow `after`, newest first. Counts nothing, so that whoever reads all of
    /// them, part by part, has each looked at once.
    pub async fn execs_after(
        &self,
        tenant: Uuid,
        filter: ExecFilter,
        after: Uuid,
        limit: u64,
    ) -> Result<Vec<ExecRow>, StoreError> {
        self.read("listing exec records", move |connection| {
            let rest = Condition::of(tenant, &filter).and("id < ?", after);
            rest.rows(connection, 0, limit)
        })
        .await
    }

    /// The stdout or, with `stderr`, the stderr that an exec's row keeps.
    pub async fn exec_output(&self, id: Uuid, stderr: bool) -> Result<Vec<u8>, StoreError> {
        let column = if stderr { "stderr" } else { "stdout" };
        self.read("reading an exec's output", move |connection| {
            let sql = format!("SELECT {column} FROM execs WHERE id = ?1");
            let bytes: Option<Option<Vec<u8>>> = connection
                .prepare_cached(&sql)?
                .query_row([id], |row| row.get(0))
                .optional()?;
            Ok(bytes.flatten().unwrap_or_default())
        })
        .await
    }

    /// Which of these execs have no output in files.
    pub async fn without_files(&self, ids: Vec<Uuid>) -> Result<Vec<Uuid>, StoreError> {
        self.read("comparing output with records", move |connection| {
            let sql = "SELECT 1 FROM execs WHERE id = ?1 AND in_files = 1";
            let mut known = connection.prepare_cached(sql)?;
            let mut without = Vec::new();
            for id in ids {
                if !known.exists([id])? {
                    without.push(id);
                }
            }
            Ok(without)
        })
        .await
    }

    /// Bytes of output that all records keep.
    pub async fn kept_output(&self) -> Result<u64, StoreError> {
        self.read(
            "adding up the kept output",
            |connection: &mut Connection| {
                let sql = "SELECT coalesce(sum(kept), 0) FROM execs WHERE kept > 0";
                connection.query_row(sql, [], |row| row.get(0))
            },
        )
        .await
    }
}

/// The inside of a WHERE, with its values.
#[derive(Clone)]
struct Condition {
    sql: String,
    values: Vec<Value>,
}

#[derive(Clone)]
enum Value {
    Text(String),
    Id(Uuid),
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        match self {
            Self::Text(text) => text.to_sql(),
            Self::Id(id) => id.to_sql(),
        }
    }
}

impl Condition {
    fn of(tenant: Uuid, filter: &ExecFilter) -> Self {
        let mut all = Self {
            sql: "tenant_id = ?".into(),
            values: vec![Value::Text(tenant.to_string())],
        };
        if let Some(runtime) = &filter.runtime {
            let (column, value) = match Uuid::parse_str(runtime) {
                Ok(id) => ("runtime_id", id.to_string()),
                Err(_) => ("runtime_name", runtime.clone()),
            };
            all.sql += &format!(" AND {column} = ?");
            all.values.push(Value::Text(value));
        }
        if !filter.outcomes.is_empty() {
            let places = vec!["?"; filter.outcomes.len()].join(", ");
            all.sql += &format!(" AND outcome IN ({places})");
            all.values
                .extend(filter.outcomes.iter().cloned().map(Value::Text));
        }
        match filter.since {
            Some(since) => all.and("id >= ?", first_id_at(since)),
            None => all,
        }
    }

    fn and(mut self, condition: &str, id: Uuid) -> Self {
        self.sql += " AND ";
        self.sql += condition;
        self.values.push(Value::Id(id));
        self
    }

    /// Newest first.
    fn rows(
        &self,
        connection: &Connection,
        offset: u64,
        limit: u64,
    ) -> rusqlite::Result<Vec<ExecRow>> {
        let sql = format!(
            "SELECT {COLUMNS} FROM execs WHERE {} ORDER BY id DESC LIMIT {limit} OFFSET {offset}",
            self.sql
        );
        connection
            .prepare_cached(&sql)?
            .query_map(params_from_iter(&self.values), read_row)?
            .collect()
    }

    fn count(&self, connection: &Connection) -> rusqlite::Result<u64> {
        let sql = format!("SELECT count(*) FROM execs WHERE {}", self.sql);
        connection
            .prepare_cached(&sql)?
            .query_row(params_from_iter(&self.values), |row| row.get(0))
    }
}

fn read_row(row: &Row<'_>) -> rusqlite::Result<ExecRow> {
    Ok(ExecRow {
        id: row.get(0)?,
        tenant: super::rows::uuid(row, 1)?,
        runtime: super::rows::uuid(row, 2)?,
        runtime_name: row.get(3)?,
        command: row.get(4)?,
        detached: row.get(5)?,
        outcome: row.get(6)?,
        ended_at: row.get(7)?,
        report: row.get(8)?,
        kept: row.get(9)?,
        in_files: row.get(10)?,
    })
}
