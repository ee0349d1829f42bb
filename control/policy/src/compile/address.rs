//! Texts of addresses → addresses. Two of them stand in every pod, and the standard library's parser, which tries an IPv4
//! address at each group of an IPv6 one, takes 15 ms for those of 100,000 pods; what this one does not know it leaves to that.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const GROUPS: usize = 8;

/// What `str::parse` says of a text, in the form that traffic has.
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let plain = plain_v4(text.as_bytes()).map(IpAddr::V4).or_else(|| plain_v6(text.as_bytes()).map(IpAddr::V6));
    plain.or_else(|| text.parse().ok()).map(|address| address.to_canonical())
}

/// `10.1.2.3`.
fn plain_v4(text: &[u8]) -> Option<Ipv4Addr> {
    let (mut octets, mut at) = ([0u8; 4], 0);
    for (place, octet) in octets.iter_mut().enumerate() {
        if place > 0 {
            (text.get(at) == Some(&b'.')).then_some(())?;
            at += 1;
        }
        let (start, mut value) = (at, 0u32);
        while let Some(digit) = text.get(at).map(|byte| byte.wrapping_sub(b'0')).filter(|&digit| digit <= 9 && at - start < 3) {
            value = value * 10 + u32::from(digit);
            at += 1;
        }
        // 01 is no number, and no digit is none
        (at > start && (at == start + 1 || text[start] != b'0')).then_some(())?;
        *octet = u8::try_from(value).ok()?;
    }
    (at == text.len()).then(|| octets.into())
}

/// `fd00::1:2`, with one gap or none, without an IPv4 address in it.
fn plain_v6(text: &[u8]) -> Option<Ipv6Addr> {
    let (mut groups, mut count, mut gap, mut at) = ([0u16; GROUPS], 0, None, 0);
    if text.starts_with(b"::") {
        (gap, at) = (Some(0), 2);
    }
    while at < text.len() {
        let (start, mut value) = (at, 0u16);
        while let Some(digit) = text.get(at).and_then(|&byte| char::from(byte).to_digit(16)).filter(|_| at - start < 4) {
            value = value << 4 | digit as u16;
            at += 1;
        }
        (at > start && count < GROUPS).then_some(())?;
        groups[count] = value;
        count += 1;
        match &text[at..] {
            [] => break,
            [b':', b':', ..] if gap.is_none() => (gap, at) = (Some(count), at + 2),
            [b':', next, ..] if *next != b':' => at += 1,
            _ => return None,
        }
    }
    match gap {
        // it stands for one group at least
        Some(gap) if count < GROUPS => groups[gap..].rotate_right(GROUPS - count),
        None if count == GROUPS => {}
        _ => return None,
    }
    Some(groups.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expected(text: &str) -> Option<IpAddr> {
        text.parse::<IpAddr>().ok().map(|address| address.to_canonical())
    }

    #[test]
    fn texts_at_the_edges_mean_what_the_standard_library_says() {
        let v4 =
            ["0.0.0.0", "255.255.255.255", "10.1.2.3", "256.0.0.1", "01.2.3.4", "1.2.3", "1.2.3.4.", "1.2.3.4.5", "1..3.4", "1.2.3.0000"];
        let v6 = [
            "::",
            "::1",
            "1::",
            "fd00::1:2",
            "1:2:3:4:5:6:7:8",
            "1:2:3:4:5:6:7::",
            "::2:3:4:5:6:7:8",
            "1:2:3::5:6:7:8",
            "1:2:3:4::5:6:7:8",
            "1::2::3",
            "1:2:3:4:5:6:7",
            "1:2:3:4:5:6:7:8:9",
            "1:2:3:4:5:6:7:8:",
            ":1:2",
            "1:",
            ":",
            ":::",
            "1:::2",
            "00001::",
            "FD00::aBcD",
            "g::",
            "1:2:3:4:5:6:7:8::",
            "::ffff:10.0.0.1",
            "::ffff:0a00:1",
            "64:ff9b::10.0.0.1",
            "fe80::1%eth0",
            "[::1]",
        ];
        for text in v4.iter().chain(&v6).chain(&["", " ", "1", "a.b.c.d", "1.2.3.4 ", "é"]) {
            assert_eq!(address(text), expected(text), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20_000))]

        #[test]
        fn so_do_all_others(text in "[0-9a-f:.]{0,20}", pieces in prop::collection::vec("|0|1|a0f|ffff|10000|:|::|\\.|255|256|007", 0..12)) {
            for text in [text, pieces.concat(), pieces.join(":"), pieces.join(".")] {
                prop_assert_eq!(address(&text), expected(&text), "{:?}", text);
            }
        }

        #[test]
        fn an_address_is_read_from_what_it_writes(v4 in any::<u32>(), v6 in any::<u128>(), groups in any::<u128>()) {
            // many groups of nothing, for the gap
            let v6s = [v6, v6 & groups & groups.rotate_left(32) & groups.rotate_left(77), v6 >> 70];
            for written in v6s.map(|v6| Ipv6Addr::from(v6).to_string()).into_iter().chain([Ipv4Addr::from(v4).to_string()]) {
                prop_assert_eq!(address(&written), expected(&written), "{}", written);
            }
        }
    }
}
