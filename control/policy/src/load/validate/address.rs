//! IP and CIDR syntax as API servers from 1.36 on demand it: what any two parsers could read differently is refused.
//!
//! Source: k8s.io/apimachinery `pkg/util/validation/ip.go` under StrictIPCIDRValidation.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const NOT_CIDR: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
const NOT_IP: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// Why a text is not a strict CIDR or address: the server's message, and the right form where there is one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) why: &'static str,
    pub(super) right_form: Option<String>,
}

fn refuse<T>(why: &'static str, right_form: Option<String>) -> Result<T, Refusal> {
    Err(Refusal { why, right_form })
}

/// A network without host bits, in an unambiguous form.
pub(super) fn cidr(text: &str) -> Result<IpNet, Refusal> {
    let Some((address, length)) = text.split_once('/') else {
        return refuse(NOT_CIDR, without_length(text));
    };
    let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    let (Some(ip), Some(bits)) = (sloppy_ip(address), length.parse::<u8>().ok().filter(|_| digits)) else {
        return refuse(NOT_CIDR, with_netmask(address, length));
    };
    let Ok(network) = IpNet::new(ip, bits) else { return refuse(NOT_CIDR, None) };
    let canonical = Some(network.trunc().to_string());
    if address.parse() != Ok(ip) || (length.len() > 1 && length.starts_with('0')) {
        refuse("must not have leading 0s in IP or prefix length", canonical)
    } else if let Some(v4) = mapped(ip) {
        let right = bits.checked_sub(96).and_then(|bits| IpNet::new(IpAddr::V4(v4), bits).ok());
        refuse("must not have an IPv4-mapped IPv6 address", right.map(|right| right.trunc().to_string()))
    } else if network.trunc() != network {
        refuse("must not have bits set beyond the prefix length", canonical)
    } else {
        Ok(network)
    }
}

/// A block written as one address, or as the unspecified one for "everything".
fn without_length(text: &str) -> Option<String> {
    let ip = sloppy_ip(text)?;
    let bits = match (ip.is_unspecified(), ip.is_ipv4()) {
        (true, _) => 0,
        (false, true) => 32,
        (false, false) => 128,
    };
    Some(format!("{ip}/{bits}"))
}

/// `10.0.0.0/255.0.0.0`, as firewalls write it.
fn with_netmask(address: &str, netmask: &str) -> Option<String> {
    let (address, netmask) = (address.parse::<IpAddr>().ok()?, netmask.parse::<IpAddr>().ok()?);
    IpNet::with_netmask(address, netmask).ok().map(|net| net.trunc().to_string())
}

/// An address in an unambiguous form.
pub(super) fn ip(text: &str) -> Result<IpAddr, Refusal> {
    let Some(ip) = sloppy_ip(text) else { return refuse(NOT_IP, None) };
    if text.parse() != Ok(ip) {
        refuse("must not have leading 0s", Some(ip.to_string()))
    } else if let Some(v4) = mapped(ip) {
        refuse("must not be an IPv4-mapped IPv6 address", Some(v4.to_string()))
    } else {
        Ok(ip)
    }
}

fn mapped(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip {
        IpAddr::V4(_) => None,
        IpAddr::V6(v6) => v6.to_ipv4_mapped(),
    }
}

/// Also reads what old servers read: decimal octets with leading zeros.
fn sloppy_ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse::<Ipv6Addr>().ok().map(IpAddr::V6);
    }
    let octet = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse::<u8>().ok()).flatten();
    let octets = text.split('.').map(octet).collect::<Option<Vec<u8>>>()?;
    Some(IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_offer_the_right_form() {
        for (text, part, right) in [
            ("10.1.2.3/8", "bits set", Some("10.0.0.0/8")),
            ("010.1.0.0/16", "leading 0s", Some("10.1.0.0/16")),
            ("10.0.0.0/08", "leading 0s", Some("10.0.0.0/8")),
            ("::ffff:10.0.0.0/104", "IPv4-mapped", Some("10.0.0.0/8")),
            ("::ffff:10.0.0.0/8", "IPv4-mapped", None),
            ("10.0.0.1", "valid CIDR", Some("10.0.0.1/32")),
            ("fd00::1", "valid CIDR", Some("fd00::1/128")),
            ("10.0.0.0/33", "valid CIDR", None),
            ("0.0.0.0", "valid CIDR", Some("0.0.0.0/0")),
            ("10.1.0.0/255.255.0.0", "valid CIDR", Some("10.1.0.0/16")),
            ("10.1.0.0/255.0.255.0", "valid CIDR", None),
            ("10.0.0.0/+8", "valid CIDR", None),
            ("10.0.0/8", "valid CIDR", None),
            (" 10.0.0.0/8", "valid CIDR", None),
            ("fe80::%eth0/64", "valid CIDR", None),
            ("", "valid CIDR", None),
        ] {
            let refusal = cidr(text).expect_err(text);
            assert!(refusal.why.contains(part) && refusal.right_form.as_deref() == right, "{text}: {refusal:?}");
        }
        for good in ["0.0.0.0/0", "10.0.0.0/8", "fd00::/8", "::/0", "FD00:0:0:0::/64", "1.2.3.4/32"] {
            assert!(cidr(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn addresses_have_one_reading() {
        for (text, right) in [("010.0.0.1", Some("10.0.0.1")), ("::ffff:1.2.3.4", Some("1.2.3.4")), ("1.2.3", None), ("", None)] {
            assert_eq!(ip(text).expect_err(text).right_form.as_deref(), right, "{text}");
        }
        assert!(ip("10.0.0.1").is_ok() && ip("fd00::1").is_ok());
    }
}
