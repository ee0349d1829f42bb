//! The node's real devices. They are read and never touched: the machine is reached through one of them.

use super::finding::Finding;
use super::netdev::{XdpFeatures, xdp_features};
use super::tree::Tree;
use std::collections::BTreeMap;
use std::path::Path;

/// One finding for each.
pub(super) fn devices(tree: &Tree) -> Vec<Finding> {
    let features = xdp_features().map_err(|error| error.to_string());
    described(tree, features.as_ref())
}

/// Physical ones have a device behind them. Without native XDP Sluice works as well: its hooks stand at the pods.
pub(super) fn described(tree: &Tree, features: Result<&BTreeMap<u32, XdpFeatures>, &String>) -> Vec<Finding> {
    let class = Path::new("/sys/class/net");
    let physical = tree.names(class).into_iter().filter(|name| tree.path(class.join(name).join("device")).exists());
    let found: Vec<Finding> = physical
        .map(|name| {
            let dir = class.join(&name);
            let driver = std::fs::read_link(tree.path(dir.join("device/driver"))).ok();
            let driver = driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
            let queues = tree.names(dir.join("queues"));
            let number = |prefix: &str| queues.iter().filter(|queue| queue.starts_with(prefix)).count();
            let mtu = tree.number(dir.join("mtu")).unwrap_or(0);
            let driver = driver.unwrap_or_else(|| "unknown driver".to_owned());
            let shown = format!("{driver}, {} rx and {} tx queues, MTU {mtu}", number("rx-"), number("tx-"));
            let check = format!("nic {name}");
            let index = tree.number(dir.join("ifindex")).and_then(|index| u32::try_from(index).ok());
            match (features, index.and_then(|index| features.ok()?.get(&index))) {
                (Ok(_), Some(features)) if features.native() => {
                    let copy = if features.zero_copy() { "AF_XDP without a copy" } else { "AF_XDP with a copy" };
                    Finding::fine(check, format!("{shown}, native XDP, {copy}"))
                }
                (Ok(_), _) => {
                    Finding::advice(check, format!("{shown}, no native XDP"), "nothing for now: this release has no program at the uplink")
                }
                (Err(error), _) => Finding::unknown(check, format!("{shown}; XDP features: {error}"), "kernels since 6.3 tell them"),
            }
        })
        .collect();
    if found.is_empty() { vec![Finding::fine("nic", "no physical device here")] } else { found }
}
