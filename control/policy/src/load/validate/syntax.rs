//! The forms of names, labels and ports. Each check returns the server's messages, empty when all is well.
//!
//! Source: k8s.io/apimachinery `pkg/util/validation/validation.go`.

/// Longest DNS label, label name and label value.
const LABEL_BYTES_MAX: usize = 63;
/// Longest DNS subdomain.
const SUBDOMAIN_BYTES_MAX: usize = 253;
/// Longest port name (RFC 6335).
const PORT_NAME_BYTES_MAX: usize = 15;

const DNS_LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
     end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const DNS_SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and \
     must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
     '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL_NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
     character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
     '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
     start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
     validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

fn longer_than(text: &str, bytes_max: usize) -> Option<String> {
    (text.len() > bytes_max).then(|| format!("must be no more than {bytes_max} bytes"))
}

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// Non-empty, `inner` bytes throughout, alphanumeric at both ends.
fn is_framed(text: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    let bytes = text.as_bytes();
    match (bytes.first(), bytes.last()) {
        (Some(&first), Some(&last)) => edge(first) && edge(last) && bytes.iter().all(|&byte| edge(byte) || inner(byte)),
        _ => false,
    }
}

fn is_dns_label(text: &str) -> bool {
    is_framed(text, is_lower_alphanumeric, |byte| byte == b'-')
}

fn is_label_word(text: &str) -> bool {
    is_framed(text, |byte| byte.is_ascii_alphanumeric(), |byte| matches!(byte, b'-' | b'_' | b'.'))
}

/// RFC 1123 label: namespaces, container names.
pub(super) fn dns_label(text: &str) -> Vec<String> {
    let shape = (!is_dns_label(text)).then(|| DNS_LABEL.to_owned());
    longer_than(text, LABEL_BYTES_MAX).into_iter().chain(shape).collect()
}

/// RFC 1123 subdomain: most objects' names.
pub(super) fn dns_subdomain(text: &str) -> Vec<String> {
    let shape = (!text.split('.').all(is_dns_label)).then(|| DNS_SUBDOMAIN.to_owned());
    longer_than(text, SUBDOMAIN_BYTES_MAX).into_iter().chain(shape).collect()
}

/// The key of a label: an optional DNS prefix, a slash, a name.
pub(super) fn qualified_name(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let name = match text.split('/').collect::<Vec<_>>()[..] {
        [name] => name,
        ["", name] => {
            found.push("prefix part must be non-empty".to_owned());
            name
        }
        [prefix, name] => {
            found.extend(dns_subdomain(prefix).into_iter().map(|why| format!("prefix part {why}")));
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {LABEL_NAME} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        found.push("name part must be non-empty".to_owned());
    } else {
        found.extend(longer_than(name, LABEL_BYTES_MAX).map(|why| format!("name part {why}")));
    }
    if !is_label_word(name) {
        found.push(format!("name part {LABEL_NAME}"));
    }
    found
}

/// The value of a label; empty is fine.
pub(super) fn label_value(text: &str) -> Vec<String> {
    let shape = (!text.is_empty() && !is_label_word(text)).then(|| LABEL_VALUE.to_owned());
    longer_than(text, LABEL_BYTES_MAX).into_iter().chain(shape).collect()
}

/// 1 to 65535.
pub(super) fn port_number(port: i32) -> Option<&'static str> {
    (!(1..=65535).contains(&port)).then_some("must be between 1 and 65535, inclusive")
}

/// IANA service name (RFC 6335, 5.1): ports' names.
pub(super) fn port_name(text: &str) -> Vec<String> {
    let allowed = !text.is_empty() && text.bytes().all(|byte| is_lower_alphanumeric(byte) || byte == b'-');
    [
        (text.len() > PORT_NAME_BYTES_MAX, "must be no more than 15 characters"),
        (!allowed, "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)"),
        (!text.bytes().any(|byte| byte.is_ascii_lowercase()), "must contain at least one letter (a-z)"),
        (text.contains("--"), "must not contain consecutive hyphens"),
        (text.starts_with('-') || text.ends_with('-'), "must not begin or end with a hyphen"),
    ]
    .into_iter()
    .filter(|(broken, _)| *broken)
    .map(|(_, why)| why.to_owned())
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_accepted_as_the_server_accepts_them() {
        type Check = fn(&str) -> Vec<String>;
        let long = |count: usize| "a".repeat(count);
        let cases: [(Check, &[&str], &[&str]); 5] = [
            (dns_label, &["a", "a-1", "0a", &long(63)], &["", "A", "a.b", "-a", "a-", "a_b", &long(64)]),
            (dns_subdomain, &["a", "a.b-c.0"], &["", "a..b", ".a", "a.", "a.-b", "A.b", &long(254)]),
            (
                qualified_name,
                &["app", "App_1.x", "example.com/app", "k8s.io/0"],
                &["", "-a", "a/", "/a", "a/b/c", "Ex.com/a", "a b", &long(64)],
            ),
            (label_value, &["", "a", "A.b_c-1", &long(63)], &["-a", "a-", "a b", "é", &long(64)]),
            (port_name, &["http", "a-1", "8a", &long(15)], &["", "80", "HTTP", "a--b", "-a", "a-", "a_b", &long(16)]),
        ];
        for (check, good, bad) in cases {
            good.iter().for_each(|text| assert!(check(text).is_empty(), "{text:?}: {:?}", check(text)));
            bad.iter().for_each(|text| assert!(!check(text).is_empty(), "{text:?} must be refused"));
        }
    }
}
