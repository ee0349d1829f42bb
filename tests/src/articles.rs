//! The YAML in articles, as it stands in their plain text: between paragraphs, without fences, sometimes with a shell
//! prompt on the very next line.
//!
//! A block begins where a manifest does (`apiVersion:` or `kind:` at the left edge) and ends before the first line that
//! cannot be part of one. Each block is placed in a file of its own, below as many empty lines as the article has lines
//! before it: what is said about line 101 of the file is true of line 101 of the article.

use std::io;
use std::path::{Path, PathBuf};

/// A manifest in an article.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Of its first line in the article, 1-based.
    pub line: usize,
    /// Its lines.
    pub text: String,
}

impl Block {
    /// The block at its own line numbers.
    pub fn placed(&self) -> String {
        format!("{}{}", "\n".repeat(self.line - 1), self.text)
    }
}

/// All manifests of an article, in its order.
///
/// ```
/// use sluice_tests::articles::blocks;
/// let article = "First:\n\nkind: Pod\nmetadata:\nname: a\nroot@host:~# kubectl apply\n\nThe rule is:\n";
/// let blocks = blocks(article);
/// assert_eq!((blocks[0].line, blocks[0].text.as_str()), (3, "kind: Pod\nmetadata:\nname: a\n"));
/// assert_eq!(blocks[0].placed().lines().nth(2), Some("kind: Pod"));
/// ```
pub fn blocks(article: &str) -> Vec<Block> {
    let lines: Vec<&str> = article.lines().collect();
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        if !begins(lines[at]) {
            at += 1;
            continue;
        }
        let length = lines[at..].iter().take_while(|line| continues(line)).count();
        let text = lines[at..at + length].iter().map(|line| format!("{line}\n")).collect();
        blocks.push(Block { line: at + 1, text });
        at += length;
    }
    blocks
}

fn begins(line: &str) -> bool {
    matches!(key(line), Some("apiVersion" | "kind"))
}

/// A field, a list item, a comment, or anything that is indented. Blank lines and prose are none of these; where a block
/// holds a blank line, the rest of it begins with no `kind` and is not taken for a manifest of its own.
fn continues(line: &str) -> bool {
    let line = line.trim_end();
    let indented = line.starts_with(' ') && !line.trim().is_empty();
    let item = line == "-" || line.starts_with("- ");
    indented || item || line.starts_with('#') || key(line).is_some()
}

/// The word before the colon, if the line looks like a field and not like a sentence.
fn key(line: &str) -> Option<&str> {
    let (key, rest) = line.split_once(':')?;
    let key = key.trim_end();
    let word = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._/-".contains(&byte));
    (word && (rest.is_empty() || rest.starts_with(' '))).then_some(key)
}

/// Writes the blocks of every `*.txt` below `articles` to `out`, as `ARTICLE/LINE.yaml`, and names the files.
///
/// # Errors
/// Whatever cannot be read or written, and a directory without an article that holds a manifest.
pub fn extract(articles: &Path, out: &Path) -> io::Result<Vec<PathBuf>> {
    let mut written = Vec::new();
    for (name, text) in read(articles)? {
        let folder = out.join(name);
        std::fs::create_dir_all(&folder)?;
        for block in blocks(&text) {
            let file = folder.join(format!("{:04}.yaml", block.line));
            std::fs::write(&file, block.placed())?;
            written.push(file);
        }
    }
    if written.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("no manifest in the *.txt files of {}", articles.display())));
    }
    Ok(written)
}

/// The articles of a directory, by name without `.txt`.
///
/// # Errors
/// What cannot be read.
pub fn read(articles: &Path) -> io::Result<Vec<(String, String)>> {
    let mut read = Vec::new();
    for entry in std::fs::read_dir(articles)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            read.push((name, std::fs::read_to_string(&path)?));
        }
    }
    read.sort();
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_end_where_prose_or_a_prompt_begins() {
        let article = "Network policies\n\nThe kind: a policy.\nName: default-deny\n\n#...\nkind: NetworkPolicy\napiVersion: networking.k8s.io/v1\n\
                       metadata:\n  name: a\nspec:\n  podSelector:\n    matchLabels:\n      app=web\n\nThe rule is:\n\n  • none\n---\n\
                       apiVersion: v1\nkind: Namespace\nmetadata:\nname: b\n- port : 53\nroot@host:~# ls\nNAME READY\nkind: Pod";
        let found: Vec<(usize, usize)> = blocks(article).iter().map(|block| (block.line, block.text.lines().count())).collect();
        assert_eq!(found, [(7, 8), (20, 5), (27, 1)]);
    }

    #[test]
    fn a_placed_block_keeps_the_articles_line_numbers() {
        let article = "a\nb\n\nkind: Pod\nmetadata:\n\nend\n\nkind: Service\n";
        for block in blocks(article) {
            for (number, line) in block.placed().lines().enumerate().filter(|(_, line)| !line.is_empty()) {
                assert_eq!(article.lines().nth(number), Some(line));
            }
        }
    }

    #[test]
    fn extraction_names_files_by_article_and_line_and_refuses_nothing_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        assert_eq!(extract(dir.path(), &out).unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(dir.path().join("one.txt"), "x\nkind: Pod\n").unwrap();
        assert_eq!(extract(dir.path(), &out).unwrap(), [out.join("one/0002.yaml")]);
        assert_eq!(std::fs::read_to_string(out.join("one/0002.yaml")).unwrap(), "\nkind: Pod\n");
    }
}
