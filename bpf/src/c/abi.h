/* What the BPF programs, the workers and the pinned maps agree on. Rust's side is bpf/src/abi.rs; tests hold the two
 * together. Any change of a layout or of a map's size raises SLUICE_ABI_CURRENT: pins of another version live in another
 * directory, and a dataplane that starts converts them (bpf/src/handover), whether they are older or newer.
 *
 * What keeps that right, for ever and in both directions:
 *  - maps and structs keep their names; fields are matched by theirs, so a field that changes its meaning or its unit gets
 *    a new one;
 *  - a field that was not there is 0, so 0 must mean what was before the field was;
 *  - a field of a value that a build does not know is dropped, so it must not be one that only restricts: a restriction is
 *    a verdict or a flag of its own, and entries with verdicts or flags that a build does not know are not taken over;
 *  - a field of a key that a build does not know must be 0 to be taken over;
 *  - fields in network order have a type named __be..., and never change their size; pad... and reserved... are not data, and
 *    one of them may get a name and a meaning without a new version, if 0 means what was before;
 *  - counters and drop reasons keep their numbers, marks their bits, a trunk header its first 17 bytes. */
#ifndef SLUICE_ABI_H
#define SLUICE_ABI_H

#define SLUICE_ABI_CURRENT 4

/* A version that nobody ships, one above: its different layouts keep the conversion honest (make abi-next). */
#ifdef SLUICE_ABI_NEXT
#define SLUICE_ABI_VERSION (SLUICE_ABI_CURRENT + 1)
#else
#define SLUICE_ABI_VERSION SLUICE_ABI_CURRENT
#endif

#define SLUICE_PORTS_MAX 256
#define SLUICE_WORKERS_MAX 16
#define SLUICE_EXITS_MAX 4096
#define SLUICE_HINTS_MAX 1024
#define SLUICE_EXTENSION_HEADERS_MAX 8

/* Directions, seen from the pod. A departure is the egress of a packet that left its pod untranslated (to a service, to an
 * address of this node), judged where it leaves translated: at another pod's device, or at one that leads away. */
#define SLUICE_INGRESS 0
#define SLUICE_EGRESS 1
#define SLUICE_DEPARTURE 3

/* The mark. Only the top four bits are ours. JUDGED is one-shot: the hook of its own stage clears it. DEFERRED goes on
 * with the packet: its destination was a service or an address of this node. It may be delivered here, or be judged where
 * it departs; the hook there clears it. By a device without one nothing leaves that has it (the program `unjudged`). DIRECT
 * is one-shot: brought there by another pod's hook, and so no proof of how the kernel would have taken it. */
#define SLUICE_MARK_MASK 0xf0000000u
#define SLUICE_MARK_JUDGED_INGRESS 0x10000000u
#define SLUICE_MARK_JUDGED_EGRESS 0x20000000u
#define SLUICE_MARK_DEFERRED 0x40000000u
#define SLUICE_MARK_DIRECT 0x80000000u

/* ---- the trunk's header ------------------------------------------------------------------------------------------
 *
 *   0        6        12     14     16      17     18     19      20     22      24           28      32     36            40       56
 *   | dst    | src    | type | magic| version kind  dir   flags  | port | worker | incarnation | epoch | mark | exit_ifindex | origin |
 *
 * It stands before the whole frame of the pod (Ethernet header included). Its first 14 bytes are an Ethernet header of
 * their own, with the inner frame's type, so that the kernel can take the header off again (bpf_skb_adjust_room wants
 * an IP packet). All fields but the type are in host order: a trunk never leaves its machine. */
#define SLUICE_TRUNK_MAGIC 0x5c1e
#define SLUICE_TRUNK_BYTES 56

#define SLUICE_KIND_PUNT 1    /* a hook asks */
#define SLUICE_KIND_VERDICT 2 /* a worker lets it pass */

#define SLUICE_TRUNK_DEFERRED 1 /* flags, of a verdict: judged again where it departs */
#define SLUICE_TRUNK_HIT 2      /* of a punt: the cache knows it, and a worker judges it all the same (every_packet) */
#define SLUICE_TRUNK_DIRECT 4   /* of both: made ready for another pod's device, exit_ifindex */
#define SLUICE_TRUNK_ENTERED 8  /* of a verdict: that pod's ingress has been judged, too */
#define SLUICE_TRUNK_ONWARD 16  /* of a punt, TCP without its SYN: as the kernel tracks it, of whoever opened the connection */
#define SLUICE_TRUNK_BACK 32    /* the same, of the other end */

struct sluice_trunk_header {
	__u8 dst[6];
	__u8 src[6];
	__be16 ethertype;
	__u16 magic;
	__u8 version;
	__u8 kind;
	__u8 direction;
	__u8 flags;
	__u16 port;
	__u16 worker;
	__u32 incarnation;
	__u32 epoch; /* the port's, read before judging */
	__u32 mark;  /* the packet's own, given back with it */
	__u32 exit_ifindex; /* of a departure: by which device; of what goes directly: to which */
	__u8 origin[16];    /* the source before the node translated it, 0 where it did not; with BACK of what leaves: the opener's */
};

/* ---- a port: one pod's attachment. Written by the dataplane through shared memory, read by the programs. ---------- */
#define SLUICE_PORT_OPEN 1             /* an adopted table knows the pod; otherwise nothing passes */
#define SLUICE_PORT_ISOLATED_INGRESS 2
#define SLUICE_PORT_ISOLATED_EGRESS 4
/* The rest of the state word is the incarnation it was set for, so that a late write for an earlier pod opens nothing. */
#define SLUICE_PORT_STATE_SHIFT 8

#ifndef SLUICE_ABI_NEXT
struct sluice_port {
	__u32 ifindex; /* host's end; 0: the slot is free */
	__u32 incarnation;
	__u32 epoch;       /* cache entries with another one are void */
	__u32 deny_epoch;  /* denials with another one are void */
	__u32 state;
	__u32 trunk_ifindex;
	__u16 worker;
	__u16 direct_mtu;    /* longest IP packet that may be brought there from another pod's device; 0: none, nor from there */
	__u8 mac[6];         /* the pod's */
	__u8 gateway_mac[6]; /* the host's end */
	__be32 ip4;          /* 0: none */
	__u32 has_ip6;
	__u8 ip6[16];
};
#endif

/* ---- the verdict cache ------------------------------------------------------------------------------------------- */
#ifndef SLUICE_ABI_NEXT
struct sluice_key {
	__u32 incarnation;
	__u16 port;
	__u8 direction;
	__u8 protocol;
	__u8 src[16]; /* IPv4 mapped */
	__u8 dst[16];
	__u16 sport; /* host order; ICMP: identifier */
	__u16 dport; /* host order; ICMP: class */
};
#endif

#define SLUICE_ICMP_REQUEST 1
#define SLUICE_ICMP_REPLY 2
#define SLUICE_ICMP_OTHER 3

#define SLUICE_CACHE_ALLOW 1
#define SLUICE_CACHE_ALLOW_DEFERRED 2
#define SLUICE_CACHE_DENY 3

#define SLUICE_CACHE_REPLY 1     /* flags: made for answers; never admits an opener */
#define SLUICE_CACHE_BOTH_WAYS 2 /* flags: picked up in mid-flow, allowed only as long as it is so both ways */
#define SLUICE_CACHE_TRANSLATED 4 /* flags: judged by `origin`; another opener on the same ports may have another one */

#ifndef SLUICE_ABI_NEXT
struct sluice_cache_value {
	__u32 epoch;
	__u8 verdict;
	__u8 flags;
	__u8 tcp_flags; /* seen in the kernel */
	__u8 pad;
	__u64 timeout_ns; /* void when idle for longer; FIN and RST shorten it */
	__u64 packets;
	__u64 bytes;
	__u64 last_seen_ns; /* CLOCK_MONOTONIC, coarse */
	__u32 rule;         /* of `generation` */
	__u32 generation;
	__u8 origin[16]; /* the source before the node translated it, 0 where it did not */
	__u64 direct_until_ns; /* leaving: straight to out_port until then; entering: the way is not shown again before */
	__u16 out_port;
	__u8 pad_end[6];
};
#endif

/* A denial covers every source port, so its key has sport 0. One of every protocol and port has protocol 0 and this one, which no
 * packet has together. */
#define SLUICE_EVERY_PORT 65535

#ifndef SLUICE_ABI_NEXT
struct sluice_denial {
	__u32 deny_epoch;
	__u32 pad;
	__u64 packets;
	__u64 last_seen_ns;
};
#endif

/* What the first fragment of a packet said, for those that come behind it. */
struct sluice_fragment_key {
	__u32 incarnation;
	__u16 port;
	__u8 direction;
	__u8 protocol; /* IPv6: 0, since later fragments do not tell */
	__u8 src[16];
	__u8 dst[16];
	__u32 id; /* host order */
};

struct sluice_fragment {
	__u16 sport;
	__u16 dport;
	__u8 protocol;
	__u8 pad[3];
};

/* A port's new flows have been paid for until then; see ration.h. And its room for connections that the
 * programs admit: `made` counts them, `learned` those that its worker has heard of, and none is made beyond `may`, which the
 * worker keeps at `learned` plus the room there is. All three only ever grow, and wrap. */
struct sluice_ration {
	__u64 until_ns;
	__u64 refused;
	__u32 made;
	__u32 learned;
	__u32 may;
	__u32 pad;
	__u64 asked_until_ns; /* as until_ns, of what its worker was asked about */
	__u64 full_until_ns; /* the worker found no room and may look again then; 0: it has plenty */
};

/* Who opened a connection of a pod that no policy isolated then: of SCTP, of TCP over IPv6, and over IPv4 where the kernel tracked
 * nothing. Keyed like the cache, by the SYN. */
struct sluice_origin {
	__u64 seen_ns;
};

/* ---- configuration and counters ----------------------------------------------------------------------------------- */
struct sluice_config {
	__u32 abi_version;
	__u32 fail_open;
	__u32 new_flow_ns; /* a port's share of workers: one new flow in so long on average; 0: as many as there are */
	__u32 every_packet; /* not 0: also what the cache knows goes to workers */
	__u32 direct_tcp; /* not 0: TCP too goes straight from one pod's device to another's */
	__u32 tracked;    /* not 0: the kernel tracks connections here, and knows who opened those of TCP */
	__u32 reserved[2];
};

#ifdef SLUICE_ABI_NEXT
#include "abi_next.h"
#endif

/* What a worker said of one new connection holds for others that differ from it in the source port alone, as long as the
 * table is the same: the programs admit those themselves. The key has sport 0; of one that holds for a range of destination ports
 * dport 0, and sport the low bits of the epoch: so what is read of one is all of one table. It stands in the value too: the kernel gives
 * the place of an entry that it takes out of a map to another one at once, also while somebody reads it. */
struct sluice_allowance {
	struct sluice_key key;
	__u32 deny_epoch; /* the port's, as with denials: every new table voids it */
	__u32 rule;       /* of `generation` */
	__u32 generation;
	__u64 timeout_ns;
	__u8 verdict;
	__u8 pad;
	__u16 first_port; /* host order; with dport 0: from here */
	__u16 last_port;  /* to here */
	__u8 pad_end[2];
};

/* What the programs tell the port's worker: by its ring in the map `openings`. */
#define SLUICE_OPENING_ADMITTED 1 /* both entries of a connection were written */
#define SLUICE_OPENING_CLOSED 2   /* one of TCP ended: FIN both ways */

struct sluice_opening {
	struct sluice_key key;
	__u8 kind;
	__u8 verdict;
	__u16 pad;
	__u64 at_ns; /* CLOCK_MONOTONIC, coarse */
	__u64 packets; /* both ways, of the connection that had the same ports before and is over */
	__u64 bytes;
};

#define SLUICE_OPENINGS_BYTES (1 << 20)
/* A sleeping worker is woken once for so many of a port, and with the last that there is room for. Whoever opens that one pays: an
 * interrupt to its own CPU, which is dear on a virtual machine. */
#define SLUICE_OPENINGS_WAKE 512

/* A connection of which the programs told that it closed, for the program `end` to take out of the cache. */
struct sluice_ending {
	struct sluice_key key; /* of its first packet */
	__u32 again;           /* not 0: another one has begun on its ports, and was left alone */
	__u64 packets;         /* both ways, as its entries counted at last */
	__u64 bytes;
};

/* Of one worker in one run. */
#define SLUICE_ENDINGS_MAX 64

/* What a run is to look at: so many from there on. */
struct sluice_end {
	__u32 first;
	__u32 count;
};

/* How far ahead of its share a port may be: a tenth of a second's new flows at once. */
#define SLUICE_RATION_AHEAD_NS 100000000ull
/* Of these, a worker may be asked about so many at once: a quarter of what waits on its trunk at most. */
#define SLUICE_ASKED_AT_ONCE 512
/* How long a full port's worker has between two looks for room. */
#define SLUICE_FULL_NS 20000000ull
/* How long a way that the kernel took is taken without asking it; and how often whoever comes by the kernel shows it. TCP's more
 * often: so its tracking stays near what it has not seen. */
#define SLUICE_DIRECT_NS 5000000000ull
#define SLUICE_SHOW_NS 250000000ull
#define SLUICE_DIRECT_TCP_NS 100000000ull
#define SLUICE_SHOW_TCP_NS 20000000ull
#define SLUICE_FIN_TIMEOUT_NS (120ull * 1000000000ull)
#define SLUICE_RST_TIMEOUT_NS (10ull * 1000000000ull)

/* Counters: 0..63 drops by reason, then these. */
#define SLUICE_COUNT_HIT 64
#define SLUICE_COUNT_PUNT 65
#define SLUICE_COUNT_NOT_ISOLATED 66
#define SLUICE_COUNT_NODE 67
#define SLUICE_COUNT_REINJECTED 68
#define SLUICE_COUNT_BOUNCED 69
#define SLUICE_COUNT_STALE 70
#define SLUICE_COUNT_NEIGHBOUR 71
#define SLUICE_COUNT_ADMITTED 72
#define SLUICE_COUNT_DIRECT 73
#define SLUICE_COUNT_UPLINK 74
#define SLUICE_COUNTERS 80

/* Drop reasons; numbers as sluice_flow::DropReason. */
#define SLUICE_DROP_POLICY_DENIED 1
#define SLUICE_DROP_NO_PORT 2
#define SLUICE_DROP_PORT_CLOSED 3
#define SLUICE_DROP_NO_WORKER 6
#define SLUICE_DROP_SPOOFED_MAC 7
#define SLUICE_DROP_SPOOFED_ADDRESS 8
#define SLUICE_DROP_SPOOFED_ARP 9
#define SLUICE_DROP_SPOOFED_NEIGHBOUR 10
#define SLUICE_DROP_ROGUE_ROUTER 11
#define SLUICE_DROP_WRONG_DESTINATION 12
#define SLUICE_DROP_MALFORMED 13
#define SLUICE_DROP_EXTENSION_CHAIN 14
/* 15: said once that fragments are not served */
/* 16: said once that SCTP is not served */
/* 17: said once that services are not served */
#define SLUICE_DROP_VLAN_UNSUPPORTED 18
#define SLUICE_DROP_ETHERTYPE_UNSUPPORTED 19
#define SLUICE_DROP_MULTICAST_UNSUPPORTED 20
#define SLUICE_DROP_CONNECTIONS_FULL 23
#define SLUICE_DROP_TRUNK_HEADER 26
#define SLUICE_DROP_WRONG_WORKER 27
#define SLUICE_DROP_STALE_PORT 28
#define SLUICE_DROP_INTERNAL 29
#define SLUICE_DROP_EXIT_UNJUDGED 32
#define SLUICE_DROP_FRAGMENT_UNMATCHED 33
#define SLUICE_DROP_RATIONED 34

#endif
