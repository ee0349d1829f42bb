//! A Containerfile as its instructions.

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// In capitals: `COPY`.
    pub name: String,
    /// What follows, on one line.
    pub rest: String,
    /// Which `FROM` it belongs to, from 0; arguments before the first one belong to it too.
    pub stage: usize,
}

/// All of them, in order.
#[derive(Debug, Clone)]
pub struct Containerfile(pub Vec<Instruction>);

impl Containerfile {
    /// Reads one. Continued lines are joined, comments left out.
    ///
    /// # Errors
    /// An instruction that builders do not know, or a last line that goes on. Source: the Dockerfile reference.
    pub fn parse(text: &str) -> Result<Self, String> {
        const KNOWN: [&str; 11] = ["ARG", "CMD", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM", "LABEL", "RUN", "USER", "WORKDIR"];
        let mut instructions = Vec::new();
        let (mut line, mut stages) = (String::new(), 0usize);
        for next in text.lines().map(str::trim).filter(|next| !next.is_empty() && !next.starts_with('#')) {
            line += next.trim_end_matches('\\');
            if next.ends_with('\\') {
                continue;
            }
            let whole = std::mem::take(&mut line);
            let (name, rest) = whole.split_once(' ').ok_or_else(|| format!("{whole}: an instruction needs something to act on"))?;
            if !KNOWN.contains(&name) {
                return Err(format!("{name}: no instruction of a Containerfile"));
            }
            stages += usize::from(name == "FROM");
            let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
            instructions.push(Instruction { name: name.to_owned(), rest, stage: stages.saturating_sub(1) });
        }
        match line.is_empty() {
            true => Ok(Self(instructions)),
            false => Err(format!("{line}: the last line goes on")),
        }
    }

    /// What follows the instructions of a name.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |instruction| instruction.name == name).map(|instruction| instruction.rest.as_str())
    }

    /// Instructions of the last stage: what is in the image.
    pub fn last_stage(&self) -> impl Iterator<Item = &Instruction> {
        let last = self.0.last().map_or(0, |instruction| instruction.stage);
        self.0.iter().filter(move |instruction| instruction.stage == last)
    }

    /// Debian packages that its stages install.
    pub fn packages(&self) -> Vec<&str> {
        let runs = self.all("RUN").filter_map(|run| run.split_once("apt-get install -y --no-install-recommends "));
        runs.flat_map(|(_, rest)| rest.split_whitespace().take_while(|word| *word != "&&")).collect()
    }
}
