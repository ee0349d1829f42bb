//! What a lab that is gone has left on the machine; it should be nothing.

use std::path::Path;

/// Everything that carries the lab's name: namespaces, pins, state, locks, mounts, processes. Empty when it is wholly gone.
pub fn leftovers(lab: &str) -> Vec<String> {
    let mut found = Vec::new();
    let prefix = format!("sluice-{lab}-");
    found.extend(names_in("/run/netns", |name| name.starts_with(&prefix)));
    found.extend(names_in("/sys/fs/bpf", |name| name == format!("sluice-{lab}") || name.starts_with(&prefix)));
    found.extend(names_in("/run/sluice-lab", |name| name == lab || name == format!("{lab}.lock")));
    let state = format!("/run/sluice-lab/{lab}/");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    found.extend(mounts.lines().filter(|line| line.contains(&state)).map(|line| format!("mount: {line}")));
    for pid in names_in("/proc", |name| name.parse::<u32>().is_ok_and(|pid| pid != std::process::id())) {
        let command = std::fs::read(Path::new(&pid).join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(&state) || command.contains(&prefix) || command.contains(&format!("--lab {lab} ")) {
            found.push(format!("process {pid}: {command}"));
        }
    }
    found
}

fn names_in(dir: &str, wanted: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| wanted(name)).map(|name| format!("{dir}/{name}")).collect()
}
