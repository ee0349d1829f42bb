//! `table`: the image in force, from the sealed memory that the dataplane itself reads, or from a file.

use crate::arguments::Form;
use crate::client::{Client, unexpected};
use crate::output::json;
use anyhow::{Context, Result};
use serde::Serialize;
use sluice_table::seal::read_sealed;
use sluice_table::{Dump, Table};
use sluice_wire::{FromDataplane, ToDataplane};
use std::io::Write;
use std::os::fd::AsFd;
use std::path::Path;

/// Prints the live table, or a saved one.
pub(crate) fn dump(client: &Client, image: Option<&Path>, form: Form, out: &mut dyn Write) -> Result<()> {
    let bytes = match image {
        Some(file) => std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?,
        None => live(client)?,
    };
    let table = Table::from_bytes(&bytes).with_context(|| match image {
        Some(file) => format!("{} is no valid image", file.display()),
        None => "the live image is not valid for this sluicectl".to_owned(),
    })?;
    let dump = Dump::of(&table);
    match form {
        Form::Json => json(out, &dump),
        Form::Table => Ok(write!(out, "{dump}")?),
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Saved<'a> {
    file: &'a Path,
    generation: u64,
    image_bytes: u64,
}

/// Writes the live image to a file, after validating it: a damaged one is worth an error, not a file.
pub(crate) fn save(client: &Client, file: &Path, form: Form, out: &mut dyn Write) -> Result<()> {
    let bytes = live(client)?;
    let table = Table::from_bytes(&bytes).context("the live image is not valid for this sluicectl")?;
    std::fs::write(file, &bytes).with_context(|| format!("cannot write {}", file.display()))?;
    let saved = Saved { file, generation: table.generation(), image_bytes: bytes.len() as u64 };
    match form {
        Form::Json => json(out, &saved),
        Form::Table => {
            let Saved { generation, image_bytes, .. } = saved;
            Ok(writeln!(out, "generation {generation} ({image_bytes} bytes) saved to {}", file.display())?)
        }
    }
}

fn live(client: &Client) -> Result<Vec<u8>> {
    let (FromDataplane::Table { .. }, fd) = client.dataplane(&ToDataplane::Table)? else { return unexpected() };
    let fd = fd.context("the dataplane's answer carried no descriptor")?;
    read_sealed(fd.as_fd()).context("cannot read the live image")
}
