//! `matrix`: who may reach whom on which port, from manifests alone.

mod html;
mod report;
mod text;

use crate::Ending;
use crate::analysis::{Selection, notes, progress};
use crate::arguments::Form;
use anyhow::{Context, Result};
use clap::Args;
use report::Matrix;
pub(crate) use report::{EndReport, RangeReport};
use sluice_policy::reach::{State, reach};
use std::io::Write;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Request {
    /// Files or directories of manifests: pods, workloads, namespaces, policies. `-` is standard input; may be repeated.
    #[arg(short = 'f', long = "filename", value_name = "PATH", required = true)]
    manifests: Vec<PathBuf>,
    #[command(flatten)]
    selection: Selection,
    /// One line for each pair with the rules that decide, instead of a grid.
    #[arg(long)]
    list: bool,
    /// With --list: closed pairs too.
    #[arg(long, requires = "list")]
    all: bool,
    /// Write a page for the browser here (`-`: standard output). It is one file and loads nothing.
    #[arg(long, value_name = "FILE", conflicts_with = "list")]
    html: Option<PathBuf>,
}

pub(crate) fn run(request: &Request, form: Form, out: &mut dyn Write) -> Result<Ending> {
    let cluster = request.selection.load(&request.manifests)?;
    let (survey, reach) = reach(State::of(&cluster), &request.selection.options(), progress())?;
    let matrix = Matrix { survey: &survey, reach: &reach, notes: notes(&survey) };
    match (&request.html, form) {
        (Some(file), _) => {
            let sources: Vec<String> = request.manifests.iter().map(|path| path.display().to_string()).collect();
            let page = html::page(&matrix, &sources)?;
            if file.as_os_str() == "-" {
                out.write_all(page.as_bytes())?;
            } else {
                std::fs::write(file, page).with_context(|| format!("{} cannot be written", file.display()))?;
                writeln!(out, "wrote {}", file.display())?;
            }
        }
        (None, Form::Json) => report::json(&matrix, out)?,
        (None, Form::Table) => text::print(&matrix, request.list, request.all, out)?,
    }
    Ok(Ending::Ok)
}
