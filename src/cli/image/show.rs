//! How images are shown: a table, a page for one, JSON.

use crate::image::content::Content;
use crate::image::store::Users;
use crate::image::store::show::{Kind, Told};
use serde_json::{Value, json};
use std::time::SystemTime;

/// A number of bytes for a person.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// How long ago, in the largest unit of which there are two, or in seconds.
fn age(since: SystemTime) -> String {
    let secs = SystemTime::now()
        .duration_since(since)
        .unwrap_or_default()
        .as_secs();
    let units = [
        (86_400 * 365, "y"),
        (86_400 * 30, "mo"),
        (86_400, "d"),
        (3600, "h"),
        (60, "min"),
    ];
    let found = units.iter().find(|(unit, _)| secs >= 2 * unit);
    found.map_or(format!("{secs} s"), |(unit, name)| {
        format!("{} {name}", secs / unit)
    })
}

/// A line per image under a line of headings; the first column is the name.
pub fn table(images: &[Told]) -> String {
    let mut rows = vec![["NAME", "ID", "SIZE", "LAYERS", "AGE"].map(str::to_owned)];
    for image in images {
        let (id, bytes, layers) = match &image.kind {
            Kind::Embedded => ("built in".to_owned(), "-".to_owned(), "-".to_owned()),
            Kind::InPlace(_) => ("in place".to_owned(), "-".to_owned(), "-".to_owned()),
            Kind::Imported { content, layers } => (
                content.id.hex()[..12].to_owned(),
                size(content.bytes),
                layers.len().to_string(),
            ),
        };
        let age = image.since.map_or("-".to_owned(), age);
        rows.push([image.name.clone(), id, bytes, layers, age]);
    }
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: [usize; 5] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let cells: Vec<String> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text += cells.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// All that is known of an image, for a person.
pub fn page(image: &Told, users: Users) -> String {
    let mut text = String::new();
    let mut line = |key: &str, value: String| text += &format!("{key:<14}{value}\n");
    line("name", image.name.clone());
    match &image.kind {
        Kind::Embedded => line(
            "kind",
            "built in: this machine's /usr, read-only".to_owned(),
        ),
        Kind::InPlace(path) => {
            line("kind", "in place".to_owned());
            line("directory", path.display().to_string());
        }
        Kind::Imported { content, layers } => {
            line("id", content.id.to_string());
            line("platform", format!("linux/{}", content.architecture));
            if let Some(created) = &content.created {
                line("created", created.clone());
            }
            line("size", size(content.bytes));
            for layer in layers {
                let (size, entries) = (size(layer.bytes), layer.entries);
                line(
                    "layer",
                    format!("{} {size}, {entries} entries", layer.diff_id),
                );
            }
            settings(content, line);
        }
    }
    let mut line = |key: &str, value: String| text += &format!("{key:<14}{value}\n");
    if let Some(since) = image.since {
        line("added", format!("{} ago", age(since)));
    }
    line("runtimes", users.runtimes.to_string());
    line("checkpoints", users.checkpoints.to_string());
    text
}

fn settings(content: &Content, mut line: impl FnMut(&str, String)) {
    let config = &content.config;
    if let Some(user) = &config.user {
        line(
            "user",
            format!(
                "{} (uid {}, gid {}, home {})",
                user.name.escape_debug(),
                user.uid,
                user.gid,
                user.home.escape_debug()
            ),
        );
    }
    if let Some(directory) = &config.working_dir {
        line("working dir", directory.escape_debug().to_string());
    }
    for (name, value) in &config.env {
        line("env", format!("{name}={}", value.escape_debug()));
    }
}

/// The same as JSON.
pub fn json(image: &Told, users: Users) -> String {
    let mut value = match &image.kind {
        Kind::Embedded => json!({ "kind": "embedded" }),
        Kind::InPlace(path) => json!({ "kind": "in_place", "rootfs": path }),
        Kind::Imported { content, layers } => json!({
            "kind": "imported",
            "id": content.id,
            "platform": format!("linux/{}", content.architecture),
            "created": content.created,
            "bytes": content.bytes,
            "layers": layers,
            "config": content.config,
        }),
    };
    value["name"] = Value::from(image.name.as_str());
    value["runtimes"] = users.runtimes.into();
    value["checkpoints"] = users.checkpoints.into();
    value["added"] = image
        .since
        .and_then(|since| jiff::Timestamp::try_from(since).ok())
        .map_or(Value::Null, |time| time.to_string().into());
    serde_json::to_string_pretty(&value).expect("plain values")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_short() {
        let told = [0, 1023, 1024, 1536, 1 << 20, (1 << 30) - 1, 5 << 40].map(size);
        let wanted = [
            "0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 GiB", "5.0 TiB",
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn the_first_column_is_the_name() {
        let images = [Told {
            name: "host".into(),
            kind: Kind::Embedded,
            since: None,
        }];
        assert_eq!(
            table(&images),
            "NAME  ID        SIZE  LAYERS  AGE\nhost  built in  -     -       -\n"
        );
    }
}
