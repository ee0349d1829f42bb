//! The run directory: gone after a boot, and with room for tables.

use super::finding::Finding;
use super::tree::Tree;
use rustix::fs::statvfs;
use std::path::Path;

/// The last good table twice, while one replaces the other, and the ports' state; tables are limited by their own format.
const ROOM_BYTES_MIN: u64 = 64 << 20;

/// State on a disk would outlive the kernel's, which it describes.
pub(super) fn tmpfs(tree: &Tree) -> Vec<Finding> {
    let dir = tree.run_dir.display();
    vec![match tree.mount_of(&tree.run_dir) {
        Some(mount) if mount.kind == "tmpfs" || mount.kind == "ramfs" => {
            Finding::fine("run_dir", format!("{dir} is on {} ({})", mount.kind, mount.point.display()))
        }
        Some(mount) => Finding::advice(
            "run_dir",
            format!("{dir} is on {}, which outlives a boot", mount.kind),
            "use a directory in /run (a tmpfs): ports of before a boot would be looked for in vain",
        ),
        None => Finding::unknown("run_dir", format!("no mount found for {dir}"), "findmnt -T shows it"),
    }]
}

/// Room on the file system that holds it, or will.
pub(super) fn room(run_dir: &Path) -> Option<Finding> {
    let there = run_dir.ancestors().find(|path| path.exists())?;
    Some(match statvfs(there) {
        Ok(stat) => {
            let free = stat.f_bavail.saturating_mul(stat.f_frsize);
            let found = format!("{} MB free at {}", free >> 20, there.display());
            match free >= ROOM_BYTES_MIN {
                true => Finding::fine("run_room", found),
                false => {
                    Finding::missing("run_room", found, format!("{} MB are needed: mount -o remount,size=... /run", ROOM_BYTES_MIN >> 20))
                }
            }
        }
        Err(error) => Finding::unknown("run_room", format!("{}: {error}", there.display()), "df shows it"),
    })
}
