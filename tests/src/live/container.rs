//! What a container runtime puts around the dataplane, without one: mounts and process numbers of its own, `/proc/sys` read-only,
//! a small memlock limit, exactly the capabilities of the chart.

use super::turn::program;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Programs that a lab looks for beside the dataplane.
const OTHERS: [&str; 4] = ["sluice-control", "sluice-cni", "sluicectl", "sluice-lab"];

/// A directory of programs in which `sluice-dataplane` starts the real one as its container would.
#[derive(Debug)]
pub struct Contained {
    dir: TempDir,
}

impl Contained {
    /// With these capabilities, named as in a pod: `NET_ADMIN`.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn new<'a>(capabilities: impl IntoIterator<Item = &'a str>) -> io::Result<Self> {
        let dir = tempfile::tempdir()?;
        let held: String = capabilities.into_iter().map(|name| format!(",+{}", name.to_lowercase())).collect();
        let sysctls = dir.path().join("proc-sys-net");
        std::fs::create_dir(&sysctls)?;
        // the dataplane is process 1 in there, and dies with the process that the caller started
        let script = format!(
            "#!/bin/sh\n\
             [ \"$CONTAINED\" = yes ] || CONTAINED=yes exec unshare --mount --propagation private --pid --fork --kill-child --mount-proc \"$0\" \"$@\"\n\
             set -e\n\
             mount --bind /proc/sys/net {sysctls}\n\
             mount --bind /proc/sys /proc/sys\n\
             mount -o remount,bind,ro /proc/sys\n\
             exec prlimit --memlock=65536:65536 setpriv --inh-caps=-all --bounding-set=-all{held} {real} \"$@\"\n",
            sysctls = sysctls.display(),
            real = program("sluice-dataplane").display(),
        );
        let wrapper = dir.path().join("sluice-dataplane");
        std::fs::write(&wrapper, script)?;
        std::fs::set_permissions(&wrapper, PermissionsExt::from_mode(0o755))?;
        for name in OTHERS {
            symlink(program(name), dir.path().join(name))?;
        }
        Ok(Self { dir })
    }

    /// Where the programs are.
    pub fn bin_dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where the network sysctls can be written, as `--proc-sys-net` takes it.
    pub fn proc_sys_net(&self) -> PathBuf {
        self.dir.path().join("proc-sys-net")
    }
}
