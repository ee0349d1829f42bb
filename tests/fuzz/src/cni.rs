//! Target `cni`: a runtime's call. The input is text: `CNI_…=value` lines, an empty line, then what stands on stdin.

use sluice_cni::{CniError, Question, Request, version_of};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

const MEMORY_MAX: usize = 16 << 20;

/// Reads the call twice; an addition has what the dataplane relies on, an error what the specification asks for.
pub fn check(data: &[u8]) {
    crate::memory::bounded(MEMORY_MAX, || {
        let (variables, input) = split(data);
        let environment = |name: &str| {
            let found = variables.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(name.as_bytes())?.strip_prefix(b"="));
            found.map(|value| OsString::from_vec(value.to_vec()))
        };
        assert!(!version_of(input).is_empty());
        match Request::read(&environment, input) {
            Ok(request) => check_request(&request),
            Err(error) => check_error(&error, input),
        }
        let again = || format!("{:?}", Request::read(&environment, input));
        assert_eq!(again(), again());
    });
}

fn split(data: &[u8]) -> (&[u8], &[u8]) {
    match data.windows(2).position(|pair| pair == b"\n\n") {
        Some(at) => (&data[..at], &data[at + 2..]),
        None => (data, &[]),
    }
}

fn check_request(request: &Request) {
    let Request::Ask(_, Question::Add(addition)) = request else { return };
    let families = |v4: bool| addition.described.addresses.iter().filter(|address| address.is_ipv4() == v4).count();
    assert!(!addition.described.addresses.is_empty() && families(true) <= 1 && families(false) <= 1);
    assert!((1..=15).contains(&addition.attachment.ifname.len()) && !addition.attachment.container_id.is_empty());
    assert!(!addition.identity.pod.namespace.is_empty() && !addition.identity.pod.name.is_empty());
    assert!(!addition.netns.as_os_str().is_empty() && addition.prev_result.is_object());
}

fn check_error(error: &CniError, input: &[u8]) {
    let json = error.to_json(&version_of(input));
    assert!(json["code"].as_u64().is_some_and(|code| code > 0), "{json}");
    assert!(json["msg"].as_str().is_some_and(|text| !text.is_empty()) && json["details"].is_string(), "{json}");
}
