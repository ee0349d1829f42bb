// SPDX-License-Identifier: GPL-2.0
/* The kernel's part of the datapath.
 *
 *   pod ── leaving / entering (tcx on the pod's veth): guard ▶ not isolated? pass ▶ cache hit? obey ▶ miss: punt
 *       UDP and TCP whose way through the kernel was seen a moment ago: a hit of `leaving` brings it to the other pod's device at once
 *   entering / exiting (tcx on other devices): what left its pod deferred is judged now that it is translated
 *   unjudged (netfilter, last in postrouting): nothing deferred leaves by a device without either of the two
 *   near (tcx on the trunk's host end): a worker's verdict goes back to the hook it came from; a bounced punt is dropped
 *   end (run by workers): takes connections that closed out of the cache
 *   uplink (XDP on a NIC): what a pod's hook would drop under a denial is dropped before there is an skb
 *   far (XDP on the trunk's other end): to the owning worker's socket, or bounce
 *
 * A hook judges only its own pod's policy. Hits return TCX_NEXT, so whatever stands behind us in the chain still runs. */
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
#include "maps.h"
#include "ports.h"
#include "parse.h"
#include "netfilter.h"
#include "guard.h"
#include "admit.h"
#include "ration.h"
#include "fragments.h"
#include "direct.h"
#include "denials.h"
#include "plain.h"
#include "uplink.h"
#include "endings.h"

_Static_assert(sizeof(struct sluice_trunk_header) == SLUICE_TRUNK_BYTES, "trunk header");
#ifndef SLUICE_ABI_NEXT
_Static_assert(sizeof(struct sluice_port) == 64, "port");
_Static_assert(sizeof(struct sluice_key) == 44, "key");
_Static_assert(sizeof(struct sluice_fragment_key) == 44, "fragment key");
_Static_assert(sizeof(struct sluice_allowance) == 72, "allowance");
_Static_assert(sizeof(struct sluice_opening) == 72, "opening");
_Static_assert(sizeof(struct sluice_ending) == 64, "ending");
_Static_assert(sizeof(struct sluice_cache_value) == 80, "cache value");
#endif

static __always_inline int pass(__u32 what)
{
	count(what);
	return TCX_NEXT;
}

/* Puts the trunk header in front and sends the frame to the port's worker. */
static __noinline int punt(struct __sk_buff *skb, const struct sluice_port *port, const struct parsed *p, __u32 epoch, __u8 flags)
{
	struct sluice_trunk_header header = {
		.dst = { 0x02, 'S', 'L', 'U', 'I', 'C' },
		.src = { 0x02, 'S', 'L', 'U', 'I', 'C' },
		.ethertype = bpf_htons(p->ethertype),
		.magic = SLUICE_TRUNK_MAGIC,
		.version = SLUICE_ABI_VERSION,
		.kind = SLUICE_KIND_PUNT,
		.direction = p->key.direction,
		.flags = flags,
		.port = p->key.port,
		.worker = port->worker,
		.incarnation = p->key.incarnation,
		.epoch = epoch,
		.mark = skb->mark,
		.exit_ifindex = p->key.direction == SLUICE_DEPARTURE ? skb->ifindex : flags & SLUICE_TRUNK_DIRECT ? skb->cb[0] : 0,
	};

	if (p->key.direction == SLUICE_INGRESS)
		find_origin(skb, p, header.origin);
	if (p->key.protocol == IPPROTO_TCP && p->keyed && !p->opens && p->key.direction != SLUICE_DEPARTURE)
		header.flags |= way_of(skb, &p->key, header.origin);
	if (bpf_skb_change_head(skb, sizeof(header), 0) || bpf_skb_store_bytes(skb, 0, &header, sizeof(header), 0))
		return drop(SLUICE_DROP_INTERNAL);
	count(SLUICE_COUNT_PUNT);
	return bpf_redirect(port->trunk_ifindex, 0);
}

/* Asks the worker about what may begin something, and is paid for. */
static __always_inline int ask(struct __sk_buff *skb, const struct sluice_port *port, const struct parsed *p, __u32 epoch)
{
	return asked_enough(p) ? drop(SLUICE_DROP_RATIONED) : punt(skb, port, p, epoch, 0);
}

/* The same if the port's share lasts. */
static __always_inline int ration(struct __sk_buff *skb, const struct sluice_port *port, const struct parsed *p, __u32 epoch)
{
	return overdrawn(p) ? drop(SLUICE_DROP_RATIONED) : ask(skb, port, p, epoch);
}

/* Remembers who opened a connection of a pod that no policy isolates: should one do so in mid-connection, the worker
 * knows the original direction. Of TCP over IPv4 the kernel remembers it where it tracks that. */
static __always_inline void remember_origin(const struct parsed *p)
{
	if (p->keyed && p->opens && (p->key.protocol != IPPROTO_TCP || p->ethertype != ETH_P_IP || !is_tracked())) {
		struct sluice_origin origin = { .seen_ns = bpf_ktime_get_coarse_ns() };

		bpf_map_update_elem(&origins, &p->key, &origin, BPF_ANY);
	}
}

static __always_inline int let_on(struct __sk_buff *skb, int verdict)
{
	if (verdict == SLUICE_CACHE_ALLOW_DEFERRED)
		skb->mark = (skb->mark & ~SLUICE_MARK_MASK) | SLUICE_MARK_DEFERRED;
	return TCX_NEXT;
}

/* The verdict on what is plain; 0: look closely. */
static __always_inline int pass_plainly(struct __sk_buff *skb, const struct sluice_port *port, __u16 number, __u32 state, __u8 direction,
					__u8 brought)
{
	if (!is_isolated(state))
		return is_plain(skb, port, direction) ? pass(SLUICE_COUNT_NOT_ISOLATED) : 0;
	int plain = passes_plainly(skb, port, number, direction, brought);

	if (plain > 0)
		return bring(skb, plain);
	return plain ? pass(SLUICE_COUNT_HIT) : 0;
}

/* The cached verdict, one that was given before for what comes alike, or a punt. TCX_NEXT: allowed. */
static __always_inline int judge(struct __sk_buff *skb, const struct sluice_port *port, struct parsed *p)
{
	/* before judging: a bump in between voids what the worker will write */
	__u32 epoch = *(volatile __u32 *)&port->epoch;

	if (p->fragment == LATER)
		follow_first(p);
	if (!p->keyed)
		return ration(skb, port, p, epoch);
	struct sluice_cache_value *value = bpf_map_lookup_elem(&cache, &p->key);

	if (!value) {
		if (is_overdrawn(p))
			return drop(SLUICE_DROP_RATIONED);
		if (denied_before(p, port))
			return drop(SLUICE_DROP_POLICY_DENIED);
		if (overdrawn(p))
			return drop(SLUICE_DROP_RATIONED);
		int verdict = every_packet() ? 0 : admit(skb, port, p, epoch, 0);

		if (verdict)
			return let_on(skb, verdict);
		if (may_begin(p) && is_full(p))
			return drop(SLUICE_DROP_CONNECTIONS_FULL);
		return ask(skb, port, p, epoch);
	}
	__u64 now = bpf_ktime_get_coarse_ns(), last_seen = value->last_seen_ns;

	int idle = now > last_seen && now - last_seen > value->timeout_ns;
	/* against the direction of a connection, where it was picked up in mid-flow, or perhaps from another origin */
	int opens_another = p->opens && (value->flags & (SLUICE_CACHE_REPLY | SLUICE_CACHE_BOTH_WAYS | SLUICE_CACHE_TRANSLATED));
	/* the same ports again, after FIN or RST */
	int opens_again = (p->tcp_flags & 0x02) && (value->tcp_flags & 0x05);
	/* what a cut connection would have answered may be a flow of its own */
	int may_be_own = value->verdict == SLUICE_CACHE_DENY && (value->flags & SLUICE_CACHE_REPLY) &&
			 !opened_explicitly(p->key.protocol);

	if ((may_be_own || opens_another) && denied_before(p, port))
		return drop(SLUICE_DROP_POLICY_DENIED);
	/* as if there were nothing, if it may begin here */
	if (opens_again && p->opens && !opens_another && !idle && value->epoch == epoch && !every_packet()) {
		if (overdrawn(p))
			return drop(SLUICE_DROP_RATIONED);
		int verdict = admit(skb, port, p, epoch, 1);

		if (verdict)
			return let_on(skb, verdict);
		count(SLUICE_COUNT_STALE);
		return ask(skb, port, p, epoch);
	}
	if (value->epoch != epoch || idle || opens_another || opens_again || may_be_own) {
		count(SLUICE_COUNT_STALE);
		/* what may begin something is rationed, what is only asked about again never */
		return opens_another || opens_again || may_be_own ? ration(skb, port, p, epoch) : punt(skb, port, p, epoch, 0);
	}
	if (value->verdict == SLUICE_CACHE_DENY)
		return every_packet() ? punt(skb, port, p, epoch, SLUICE_TRUNK_HIT) : drop(SLUICE_DROP_POLICY_DENIED);
	__sync_fetch_and_add(&value->packets, skb->gso_segs ? skb->gso_segs : 1);
	__sync_fetch_and_add(&value->bytes, skb->len);
	if (now > last_seen)
		value->last_seen_ns = now;
	if (p->tcp_flags & ~value->tcp_flags)
		learn_flags(port, &p->key, value, p->tcp_flags);
	if (p->fragment == FIRST)
		note_first(p);
	/* a worker has judged it on its way here */
	if (p->direct == DIRECT_JUDGED)
		return let_on(skb, value->verdict);
	__u32 device = 0;

	if (port->direct_mtu && !p->direct && !p->fragment && may_be_brought(p->key.protocol, p->tcp_flags))
		device = take_shortcut(skb, &p->key, value, now, p->l4_offset);
	if (every_packet()) {
		skb->cb[0] = device;
		return punt(skb, port, p, epoch, device ? SLUICE_TRUNK_HIT | SLUICE_TRUNK_DIRECT : SLUICE_TRUNK_HIT);
	}
	if (device)
		return bring(skb, device);
	return let_on(skb, value->verdict);
}

/* A packet that left its pod deferred, here where it departs: what that pod's egress says of it as it is now. TCX_NEXT:
 * allowed, and no longer deferred. */
static __noinline int depart(struct __sk_buff *skb)
{
	struct parsed p = {};
	/* also of a packet that was on a trunk in between: it went on from its own device */
	struct sluice_port *port = port_of(skb->ingress_ifindex, &p.key.port);

	if (!port)
		return drop(SLUICE_DROP_EXIT_UNJUDGED);
	__u32 state = state_of(port);

	if (!(state & SLUICE_PORT_OPEN))
		return drop(SLUICE_DROP_PORT_CLOSED);
	if (state & SLUICE_PORT_ISOLATED_EGRESS) {
		p.key.incarnation = port->incarnation;
		p.key.direction = SLUICE_DEPARTURE;
		int refused = parse(skb, &p);

		if (refused < 0)
			return drop(-refused);
		int verdict = judge(skb, port, &p);

		if (verdict != TCX_NEXT)
			return verdict;
	}
	skb->mark &= ~SLUICE_MARK_MASK;
	return TCX_NEXT;
}

/* Whether this node made a packet without an ingress device: reassembled and refragmented IPv6 packets have lost theirs, so with
 * extension headers only a socket proves where a packet began. */
static __noinline int made_without_device(struct __sk_buff *skb)
{
	__be16 type;
	__u8 next_header;

	if (skb->sk)
		return 1;
	if (bpf_skb_load_bytes(skb, 12, &type, 2))
		return 0;
	if (type != bpf_htons(ETH_P_IPV6))
		return 1;
	if (bpf_skb_load_bytes(skb, 20, &next_header, 1))
		return 0;
	switch (next_header) {
	case IPPROTO_HOPOPTS: /* listener queries, by the kernel itself, carry this one alone */
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
		return 0;
	}
	return 1;
}

static __always_inline int made_here(struct __sk_buff *skb)
{
	return !skb->ingress_ifindex && made_without_device(skb);
}

/* Whatever is not plain, with what is left of its mark. `direct` as in struct parsed. */
static __always_inline int look_closely(struct __sk_buff *skb, struct sluice_port *port, __u16 number, __u32 state, __u8 direction,
					__u8 direct)
{
	struct parsed p = {
		.key = { .incarnation = port->incarnation, .port = number, .direction = direction },
		.direct = direct,
	};
	int verdict = parse(skb, &p);

	if (verdict < 0)
		return drop(-verdict);
	verdict = direction == SLUICE_EGRESS ? guard_leaving(skb, port, &p) : guard_entering(port, &p);
	if (verdict < 0)
		return drop(-verdict);
	if (verdict == PASS_NEIGHBOUR)
		return pass(SLUICE_COUNT_NEIGHBOUR);
	if (!is_isolated(state)) {
		remember_origin(&p);
		return pass(SLUICE_COUNT_NOT_ISOLATED);
	}
	verdict = judge(skb, port, &p);
	if (verdict != TCX_NEXT)
		return verdict;
	return pass(p.direct == DIRECT_JUDGED ? SLUICE_COUNT_REINJECTED : SLUICE_COUNT_HIT);
}

static __noinline int look_at_leaving(struct __sk_buff *skb, struct sluice_port *port, __u16 number, __u32 state)
{
	return look_closely(skb, port, number, state, SLUICE_EGRESS, 0);
}

static __noinline int look_at_entering(struct __sk_buff *skb, struct sluice_port *port, __u16 number, __u32 state, __u8 direct)
{
	return look_closely(skb, port, number, state, SLUICE_INGRESS, direct);
}

/* What enters with a mark of ours. 0: it is to be looked at; then `direct` is as in struct parsed. */
static __noinline int enter_marked(struct __sk_buff *skb, const struct sluice_port *port, __u8 *direct)
{
	__u32 mark = skb->mark & SLUICE_MARK_MASK;

	if (mark & SLUICE_MARK_DEFERRED) {
		int verdict = depart(skb);

		return verdict == TCX_NEXT ? 0 : verdict;
	}
	int judged = (mark & SLUICE_MARK_JUDGED_INGRESS) && skb->ingress_ifindex == port->trunk_ifindex;

	if (mark & SLUICE_MARK_DIRECT) {
		skb->mark &= ~(SLUICE_MARK_DIRECT | SLUICE_MARK_JUDGED_INGRESS);
		*direct = judged ? DIRECT_JUDGED : DIRECT;
	} else if (judged) {
		skb->mark &= ~SLUICE_MARK_JUDGED_INGRESS;
		return pass(SLUICE_COUNT_REINJECTED);
	}
	return 0;
}

/* What most packets are is told by little code in one piece: it is cold whenever the rest of the stack has run. */
static __always_inline int hook(struct __sk_buff *skb, __u8 direction)
{
	__u16 number = 0;
	__u8 direct = 0;
	struct sluice_port *port = port_of(skb->ifindex, &number);

	if (!port)
		return drop(SLUICE_DROP_NO_PORT);
	__u32 state = state_of(port), mark = skb->mark & SLUICE_MARK_MASK;

	if (!(state & SLUICE_PORT_OPEN))
		return drop(SLUICE_DROP_PORT_CLOSED);
	if (direction == SLUICE_EGRESS) {
		/* cannot come out of the pod: the kernel scrubs marks between namespaces */
		if (mark & SLUICE_MARK_JUDGED_EGRESS) {
			skb->mark &= ~SLUICE_MARK_JUDGED_EGRESS;
			return pass(SLUICE_COUNT_REINJECTED);
		}
	} else if (made_here(skb)) {
		/* always allowed; before the mark is looked at, which an answer of this node may carry back */
		return pass(SLUICE_COUNT_NODE);
	} else if (mark == SLUICE_MARK_DIRECT) {
		skb->mark &= ~SLUICE_MARK_DIRECT;
		direct = DIRECT;
	} else if (mark) {
		int verdict = enter_marked(skb, port, &direct);

		if (verdict)
			return verdict;
	}
	/* what a worker has judged for both ends is counted as such */
	if (direct != DIRECT_JUDGED) {
		int verdict = pass_plainly(skb, port, number, state, direction, direct);

		if (verdict)
			return verdict;
	}
	return direction == SLUICE_EGRESS ? look_at_leaving(skb, port, number, state) : look_at_entering(skb, port, number, state, direct);
}

SEC("tcx/ingress")
int leaving(struct __sk_buff *skb)
{
	return hook(skb, SLUICE_EGRESS);
}

SEC("tcx/egress")
int entering(struct __sk_buff *skb)
{
	return hook(skb, SLUICE_INGRESS);
}

SEC("tcx/egress")
int exiting(struct __sk_buff *skb)
{
	return skb->mark & SLUICE_MARK_DEFERRED ? depart(skb) : TCX_NEXT;
}

SEC("netfilter")
int unjudged(struct bpf_nf_ctx *ctx)
{
	struct net_device *out = ctx->state->out;
	struct sk_buff *skb = ctx->skb;
	__u32 ifindex, zero = 0;
	__u16 number;

	if (!out || (out->flags & IFF_LOOPBACK))
		return NF_ACCEPT;
	if (skb->mark & SLUICE_MARK_DEFERRED) {
		ifindex = out->ifindex;
		if (bpf_map_lookup_elem(&port_of_ifindex, &ifindex) || bpf_map_lookup_elem(&exits, &ifindex))
			return NF_ACCEPT;
	} else {
		/* somebody took the mark away, or translates what is nobody's service; under fail-open, nobody may have judged it */
		if (!redirected(skb))
			return NF_ACCEPT;
		struct sluice_config *settings = bpf_map_lookup_elem(&config, &zero);

		if (settings && settings->fail_open)
			return NF_ACCEPT;
		struct sluice_port *port = port_of(skb->skb_iif, &number);

		if (!port || !(state_of(port) & SLUICE_PORT_ISOLATED_EGRESS))
			return NF_ACCEPT;
	}
	count(SLUICE_DROP_EXIT_UNJUDGED);
	return NF_DROP;
}

SEC("tcx/ingress")
int near(struct __sk_buff *skb)
{
	struct sluice_trunk_header header;
	__u8 inner[ETHERNET_BYTES];
	__u32 zero = 0;
	struct sluice_config *settings = bpf_map_lookup_elem(&config, &zero);

	if (!settings || bpf_skb_load_bytes(skb, 0, &header, sizeof(header)) ||
	    bpf_skb_load_bytes(skb, sizeof(header), inner, sizeof(inner)) || header.magic != SLUICE_TRUNK_MAGIC ||
	    header.version != SLUICE_ABI_VERSION)
		return drop(SLUICE_DROP_TRUNK_HEADER);
	if (header.kind == SLUICE_KIND_PUNT) {
		/* nobody judged it */
		count(SLUICE_COUNT_BOUNCED);
		if (!settings->fail_open)
			return drop(SLUICE_DROP_NO_WORKER);
	} else if (header.kind != SLUICE_KIND_VERDICT) {
		return drop(SLUICE_DROP_TRUNK_HEADER);
	}
	__u32 index = header.port;
	struct sluice_port *port = bpf_map_lookup_elem(&ports, &index);

	if (!port || !port->ifindex || port->incarnation != header.incarnation || port->trunk_ifindex != skb->ifindex)
		return drop(SLUICE_DROP_STALE_PORT);
	/* takes off the rest of the trunk header and the inner Ethernet header; the outer one stays and is overwritten */
	if (bpf_skb_adjust_room(skb, -(__s32)sizeof(header), BPF_ADJ_ROOM_MAC, 0) || bpf_skb_store_bytes(skb, 0, inner, sizeof(inner), 0))
		return drop(SLUICE_DROP_INTERNAL);
	__u32 mark = header.mark & ~SLUICE_MARK_MASK;

	if (header.direction == SLUICE_DEPARTURE) {
		__u32 exit = header.exit_ifindex;

		if (!bpf_map_lookup_elem(&port_of_ifindex, &exit) && !bpf_map_lookup_elem(&exits, &exit))
			return drop(SLUICE_DROP_STALE_PORT);
		skb->mark = mark;
		return bpf_redirect(exit, 0);
	}
	if (header.flags & SLUICE_TRUNK_DIRECT) {
		__u32 device = header.exit_ifindex;

		if (!bpf_map_lookup_elem(&port_of_ifindex, &device))
			return drop(SLUICE_DROP_STALE_PORT);
		skb->mark = mark | SLUICE_MARK_DIRECT | (header.flags & SLUICE_TRUNK_ENTERED ? SLUICE_MARK_JUDGED_INGRESS : 0);
		return bpf_redirect(device, 0);
	}
	if (header.flags & SLUICE_TRUNK_DEFERRED)
		mark |= SLUICE_MARK_DEFERRED;
	if (header.direction == SLUICE_EGRESS) {
		skb->mark = mark | SLUICE_MARK_JUDGED_EGRESS;
		return bpf_redirect(port->ifindex, BPF_F_INGRESS);
	}
	skb->mark = mark | SLUICE_MARK_JUDGED_INGRESS;
	return bpf_redirect(port->ifindex, 0);
}

/* An XDP program counts like the others; its verdicts have other numbers. */
static __always_inline int xdp_drop(__u32 reason)
{
	count(reason);
	return XDP_DROP;
}

/* Frames of more than a page come in pieces; the header is in the first. */
SEC("xdp.frags")
int far(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct sluice_trunk_header *header = data;
	__u32 ifindex = ctx->ingress_ifindex;
	__u32 *worker = bpf_map_lookup_elem(&worker_of_trunk, &ifindex);

	if (!worker || (void *)(header + 1) > end || header->magic != SLUICE_TRUNK_MAGIC || header->version != SLUICE_ABI_VERSION ||
	    header->kind != SLUICE_KIND_PUNT)
		return xdp_drop(SLUICE_DROP_TRUNK_HEADER);
	if (header->worker != *worker)
		return xdp_drop(SLUICE_DROP_WRONG_WORKER);
	/* XDP_TX does not do here: on a veth without NAPI at its peer the frame is never delivered */
	if (bpf_redirect_map(&sockets, *worker, XDP_ABORTED) == XDP_REDIRECT)
		return XDP_REDIRECT;
	return bpf_redirect(ifindex, 0);
}

SEC("xdp.frags")
int uplink(struct xdp_md *ctx)
{
	if (!denied_on_arrival(ctx))
		return XDP_PASS;
	count(SLUICE_COUNT_UPLINK);
	return xdp_drop(SLUICE_DROP_POLICY_DENIED);
}

/* Run by a worker, for connections of its own. */
SEC("syscall")
int end(struct sluice_end *ctx)
{
	__u32 first = ctx->first, count = ctx->count;

	for (__u32 number = 0; number < SLUICE_ENDINGS_MAX && number < count; number++)
		if (take_closed(first + number))
			return 1;
	return 0;
}

char LICENSE[] SEC("license") = "GPL";
