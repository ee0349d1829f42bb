//! Rust's structs are C's: every field of both ABI versions, by name, place and size, as the compiler of the BPF programs
//! wrote it down. Needs no root.
#![cfg(feature = "load")]

use bytemuck::Zeroable;
use sluice_bpf::abi::{Config, Fragment, FragmentKey, Ration};
#[cfg(not(feature = "abi-next"))]
use sluice_bpf::{abi as current, testing::layout as current_layout, testing::other as next, testing::other::layout as next_layout};
#[cfg(feature = "abi-next")]
use sluice_bpf::{abi as next, testing::layout as next_layout, testing::other as current, testing::other::layout as current_layout};
use std::mem::offset_of;

macro_rules! assert_same {
    ($layout:expr, $of:ty, $($field:ident)+) => {{
        let (layout, zeroed) = ($layout, <$of>::zeroed());
        assert_eq!(layout.names().collect::<Vec<_>>(), [$(stringify!($field)),+]);
        assert_eq!(layout.bytes(), size_of::<$of>());
        $(assert_eq!(layout.field(stringify!($field)), Some((offset_of!($of, $field), size_of_val(&zeroed.$field))), stringify!($field));)+
    }};
}

#[test]
fn both_languages_agree_on_every_field() {
    assert_same!(current_layout("sluice_config"), Config, abi_version fail_open new_flow_ns every_packet direct_tcp tracked reserved);
    assert_same!(current_layout("sluice_fragment_key"), FragmentKey, incarnation port direction protocol src dst id);
    assert_same!(current_layout("sluice_fragment"), Fragment, sport dport protocol pad);
    assert_same!(current_layout("sluice_ration"), Ration, until_ns refused made learned may pad asked_until_ns full_until_ns);
    assert_same!(
        current_layout("sluice_port"), current::Port,
        ifindex incarnation epoch deny_epoch state trunk_ifindex worker direct_mtu mac gateway_mac ip4 has_ip6 ip6
    );
    assert_same!(current_layout("sluice_key"), current::Key, incarnation port direction protocol src dst sport dport);
    assert_same!(
        current_layout("sluice_cache_value"), current::CacheValue,
        epoch verdict flags tcp_flags pad timeout_ns packets bytes last_seen_ns rule generation origin direct_until_ns out_port pad_end
    );
    assert_same!(current_layout("sluice_denial"), current::Denial, deny_epoch pad packets last_seen_ns);
    assert_eq!(current_layout("sluice_origin").field("seen_ns"), Some((0, 8)));
}

#[test]
fn and_on_those_of_the_version_that_nobody_ships() {
    assert_same!(
        next_layout("sluice_port"), next::Port,
        mac worker trunk_ifindex state deny_epoch epoch incarnation ifindex has_ip6 ip6 ip4 spare_ns spare direct_mtu gateway_mac pad
    );
    assert_same!(next_layout("sluice_key"), next::Key, dst src dport sport protocol direction port incarnation);
    assert_same!(
        next_layout("sluice_cache_value"), next::CacheValue,
        spare_ns generation last_seen_ns bytes packets timeout_ns origin rule epoch tcp_flags flags verdict pad out_port direct_until_ns
    );
    assert_same!(next_layout("sluice_denial"), next::Denial, last_seen_ns packets pad deny_epoch);
}
