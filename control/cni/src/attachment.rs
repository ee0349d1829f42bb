//! What `prevResult` says about the pod: its addresses, and whether it contradicts the kernel.
//!
//! The result is read through a narrow view and printed from the untouched value, so that fields of later versions
//! and of other plugins survive.

use crate::error::CniError;
use serde::Deserialize;
use serde_json::Value;
use std::net::IpAddr;
use std::path::Path;

/// The fields of a result that matter here. Source: CNI specification, "Result Types".
#[derive(Debug, Deserialize)]
struct ResultView {
    #[serde(default)]
    interfaces: Vec<InterfaceView>,
    #[serde(default)]
    ips: Vec<IpView>,
}

#[derive(Debug, Deserialize)]
struct InterfaceView {
    name: String,
    #[serde(default)]
    mac: String,
    #[serde(default)]
    sandbox: String,
}

#[derive(Debug, Deserialize)]
struct IpView {
    address: String,
    interface: Option<i64>,
}

/// What the plugins before this one say that they made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// At least one; at most one of each family.
    pub addresses: Vec<IpAddr>,
    /// The pod's MAC address, where told.
    pub mac: Option<String>,
    /// Interfaces outside of every sandbox; the host's end is one of them, unless the plugin lists none.
    pub host_ifnames: Vec<String>,
}

/// Reads the addresses of `ifname` inside `netns`: those that name its entry, and those that name no entry.
///
/// # Errors
/// Invalid config when the result has another form, no address for this interface, or two of one family (the
/// dataplane's anti-spoofing knows one address of each family; serving only one of two would be half a pod).
pub(crate) fn describe(prev_result: &Value, netns: &Path, ifname: &str) -> Result<Described, CniError> {
    let invalid = |details: String| CniError::config("invalid prevResult", details);
    let view = ResultView::deserialize(prev_result).map_err(|e| invalid(e.to_string()))?;
    let is_ours = |i: &InterfaceView| i.name == ifname && Path::new(&i.sandbox) == netns;
    let ours = view.interfaces.iter().position(is_ours);
    let mut addresses: Vec<IpAddr> = Vec::new();
    for ip in &view.ips {
        match ip.interface {
            None => {}
            Some(index) => {
                let index = usize::try_from(index).ok().filter(|i| *i < view.interfaces.len());
                let index = index.ok_or_else(|| invalid(format!("{} names an interface that is not listed", ip.address)))?;
                // Plugins that list only the host's end point their addresses at it (Calico did).
                if ours.is_some_and(|ours| ours != index) {
                    continue;
                }
            }
        }
        let text = ip.address.split_once('/').map_or(ip.address.as_str(), |(address, _)| address);
        let address: IpAddr = text.parse().map_err(|_| invalid(format!("{:?} is not an address", ip.address)))?;
        if let Some(first) = addresses.iter().find(|a| a.is_ipv4() == address.is_ipv4()) {
            let family = if address.is_ipv4() { "IPv4" } else { "IPv6" };
            let details = format!("{ifname} has two {family} addresses, {first} and {address}; one of each family is served");
            return Err(CniError::config("unsupported prevResult", details));
        }
        addresses.push(address);
    }
    if addresses.is_empty() {
        return Err(invalid(format!("no address for {ifname} in {}", netns.display())));
    }
    let mac = ours.map(|i| view.interfaces[i].mac.clone()).filter(|mac| !mac.is_empty());
    let host_ifnames = view.interfaces.into_iter().filter(|i| i.sandbox.is_empty()).map(|i| i.name).collect();
    Ok(Described { addresses, mac, host_ifnames })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn netns() -> &'static Path {
        Path::new("/var/run/netns/a")
    }

    #[test]
    fn ptp_and_bridge_results_give_the_pod_s_addresses_only() {
        let ptp = json!({
            "interfaces": [
                {"name": "veth1", "mac": "0a:00:00:00:00:01"},
                {"name": "eth0", "mac": "0a:00:00:00:00:02", "sandbox": "/var/run/netns/a"},
                {"name": "net1", "mac": "0a:00:00:00:00:03", "sandbox": "/var/run/netns/a"},
            ],
            "ips": [
                {"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 1},
                {"address": "fd00::2/64", "interface": 1},
                {"address": "10.9.0.2/24", "interface": 2},
            ],
        });
        let described = describe(&ptp, netns(), "eth0").unwrap();
        assert_eq!(described.addresses, ["10.1.0.2".parse::<IpAddr>().unwrap(), "fd00::2".parse().unwrap()]);
        assert_eq!(described.mac.as_deref(), Some("0a:00:00:00:00:02"));
        assert_eq!(described.host_ifnames, ["veth1"]);
    }

    #[test]
    fn a_result_that_lists_no_container_interface_still_gives_its_addresses() {
        let calico = json!({"interfaces": [{"name": "cali1"}], "ips": [{"address": "10.1.0.2/32", "interface": 0}]});
        assert_eq!(describe(&calico, netns(), "eth0").unwrap().addresses, ["10.1.0.2".parse::<IpAddr>().unwrap()]);
        let bare = json!({"ips": [{"address": "10.1.0.2/32"}]});
        assert_eq!(describe(&bare, netns(), "eth0").unwrap().addresses.len(), 1);
    }

    #[test]
    fn results_that_cannot_be_served_whole_are_refused() {
        for (result, expected) in [
            (json!({}), "no address"),
            (json!({"ips": [{"address": "10.1.0.2/24"}, {"address": "10.1.0.3/24"}]}), "two IPv4"),
            (json!({"ips": [{"address": "fd00::1/64"}, {"address": "fd00::2/64"}]}), "two IPv6"),
            (json!({"ips": [{"address": "ten"}]}), "not an address"),
            (json!({"ips": [{"address": "10.1.0.2/24", "interface": 3}]}), "not listed"),
            (json!({"ips": [{"address": "10.1.0.2/24", "interface": -1}]}), "not listed"),
            (json!({"ips": "10.1.0.2"}), "invalid type"),
        ] {
            let error = describe(&result, netns(), "eth0").unwrap_err();
            assert!(error.details.contains(expected), "{result}: {error}");
        }
    }
}
