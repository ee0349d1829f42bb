//! values.yaml as the text that people read: which keys there are, and which are explained.

/// A key of values.yaml.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// With those above it: `image.tag`.
    pub path: String,
    /// The line before it is a comment.
    pub is_explained: bool,
    /// Keys below it; a key without any is what templates use.
    pub has_children: bool,
}

/// The keys of a file that is written as ours is: two spaces a level, a comment line before what is explained. Items of lists
/// are not keys.
pub fn keys(yaml: &str) -> Vec<Key> {
    let mut keys: Vec<Key> = Vec::new();
    let mut above: Vec<String> = Vec::new();
    let mut is_explained = false;
    for line in yaml.lines() {
        let content = line.trim_start();
        let depth = (line.len() - content.len()) / 2;
        if content.starts_with('#') {
            is_explained = true;
            continue;
        }
        if let Some((name, _)) = content.split_once(':').filter(|_| !content.starts_with('-')) {
            above.truncate(depth);
            if let Some(parent) = keys.iter_mut().find(|key| key.path == above.join(".")) {
                parent.has_children = true;
            }
            above.push(name.to_owned());
            keys.push(Key { path: above.join("."), is_explained, has_children: false });
        }
        is_explained = false;
    }
    keys
}
