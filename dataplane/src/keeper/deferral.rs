//! The last line for packets to this node's own addresses: they may be delivered here, and nowhere else.
//!
//! A pod's packet to an address of its node passes its egress policy, because traffic between a pod and its node always
//! does. If the node then translates it (a NodePort, a port mapping) it leaves for somewhere that the policy never judged.
//! The hooks mark such packets; one nftables rule drops those that are about to leave; a pod's own hook would drop
//! them too, behind it.

use anyhow::{Context, Result, bail};
use std::io::Write;
use std::process::{Command, Stdio};

const RULES: &str = "\
table inet sluice
delete table inet sluice
table inet sluice {
    chain deferred {
        type filter hook postrouting priority 300; policy accept;
        meta mark & 0x40000000 != 0 oifname != \"lo\" counter drop comment \"to this node only: see sluice-dataplane\"
    }
}
";

/// Installs the rule, or says why the dataplane must not run without it.
pub(super) fn guard_node() -> Result<()> {
    nft(RULES).context("install the nftables rule that keeps packets to this node's addresses from leaving it again (package nftables)")
}

/// Removes it.
pub(super) fn remove() {
    let _ = nft("table inet sluice\ndelete table inet sluice\n");
}

fn nft(rules: &str) -> Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .context("run nft")?;
    child.stdin.take().context("nft's input")?.write_all(rules.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
