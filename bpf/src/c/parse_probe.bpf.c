// SPDX-License-Identifier: GPL-2.0
/* The parser of the hooks alone, for tests: what parse() makes of a frame, written to a map. Never loaded by the
 * dataplane.
 *
 * A test run refuses an IP frame that is shorter than its header (kernel 6.18), but a device delivers it; so short frames
 * come padded, with their true length in the mark. */
#include <linux/types.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "parse.h"

/* bpf/src/testing.rs reads it byte by byte. */
struct probed {
	struct sluice_key key;
	__s32 verdict; /* 0, or minus a drop reason */
	__u16 ethertype;
	__u8 keyed;
	__u8 fragment;
	__u8 opens;
	__u8 tcp_flags;
	__u8 pad[2];
	__u32 fragment_id;
};

_Static_assert(sizeof(struct probed) == 60, "bpf/src/testing.rs");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct probed);
} probed SEC(".maps");

SEC("tc")
int parse_probe(struct __sk_buff *skb)
{
	struct parsed p = {};
	struct probed found = {};
	__u32 zero = 0;

	if (skb->mark && bpf_skb_change_tail(skb, skb->mark, 0))
		return 1;
	found.verdict = parse(skb, &p);
	found.key = p.key;
	found.ethertype = p.ethertype;
	found.keyed = p.keyed;
	found.fragment = p.fragment;
	found.fragment_id = p.fragment_id;
	found.opens = p.opens;
	found.tcp_flags = p.tcp_flags;
	bpf_map_update_elem(&probed, &zero, &found, BPF_ANY);
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
