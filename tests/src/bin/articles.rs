//! `sluice-articles ARTICLES OUT`: takes the manifests out of articles, each at its own line numbers, for `sluicectl lint`.
#![forbid(unsafe_code)]

use clap::Parser;
use sluice_tests::articles::extract;
use std::path::PathBuf;
use std::process::ExitCode;

/// Writes every manifest of the articles to OUT/ARTICLE/LINE.yaml, at the line numbers that it has in the article.
#[derive(Parser)]
#[command(name = "sluice-articles", version)]
struct Args {
    /// Directory of plain texts, `*.txt`.
    articles: PathBuf,
    /// Where to; made if it does not exist.
    out: PathBuf,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match extract(&args.articles, &args.out) {
        Ok(files) => {
            println!("{} manifests in {}", files.len(), args.out.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sluice-articles: {}: {error}", args.articles.display());
            ExitCode::from(2)
        }
    }
}
