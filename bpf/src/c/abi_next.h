/* Layouts of the version that nobody ships: as different from abi.h's as a later one might be. Fields stand elsewhere, one
 * is wider (generation), some are new (spare...), some are gone (pad). Sizes differ too. */
#ifndef SLUICE_ABI_NEXT_H
#define SLUICE_ABI_NEXT_H

struct sluice_port {
	__u8 mac[6];
	__u16 worker;
	__u32 trunk_ifindex;
	__u32 state;
	__u32 deny_epoch;
	__u32 epoch;
	__u32 incarnation;
	__u32 ifindex;
	__u32 has_ip6;
	__u8 ip6[16];
	__be32 ip4;
	__u64 spare_ns;
	__u32 spare;
	__u16 direct_mtu;
	__u8 gateway_mac[6];
	__u8 pad[4];
};

struct sluice_key {
	__u8 dst[16];
	__u8 src[16];
	__u16 dport;
	__u16 sport;
	__u8 protocol;
	__u8 direction;
	__u16 port;
	__u32 incarnation;
};

struct sluice_cache_value {
	__u64 spare_ns;
	__u64 generation;
	__u64 last_seen_ns;
	__u64 bytes;
	__u64 packets;
	__u64 timeout_ns;
	__u8 origin[16];
	__u32 rule;
	__u32 epoch;
	__u8 tcp_flags;
	__u8 flags;
	__u8 verdict;
	__u8 pad[3];
	__u16 out_port;
	__u64 direct_until_ns;
};

struct sluice_denial {
	__u64 last_seen_ns;
	__u64 packets;
	__u32 pad;
	__u32 deny_epoch;
};

#endif
