/* UDP and TCP between two pods of this node, brought from one's device to the other's without the kernel's routing in between.
 *
 *   A leaving ─ routing, netfilter, connection tracking ─▶ B entering: the packet is as it left, and came in by A's device
 *                                                          └▶ A's entry: "the next 5 seconds straight to B"
 *   A leaving ───────────────── redirect ────────────────▶ B entering: judged there as ever
 *
 * So the kernel itself has shown, with a packet of the very flow, that it takes it there untranslated, and shows it again with
 * one packet in 5 seconds (rules that let a part of a flow through see no more than that packet): what a route or a rule of the
 * node's firewall changes holds after that time at the latest, and the kernel's tracking of the flow stays alive.
 *
 * TCP only where that tracking does not take what it sees of a window for all there is (config->direct_tcp: the keeper looks), only what
 * neither opens nor ends, and for a tenth of a second. Nothing of a connection in which the node has to see every packet is brought, and
 * nothing where another program stands behind ours on the sender's device (port->direct_mtu 0). */
#ifndef SLUICE_DIRECT_H
#define SLUICE_DIRECT_H

/* Whether packets of that kind may be brought. */
static __always_inline int may_be_brought(__u8 protocol, __u8 tcp_flags)
{
	__u32 zero = 0;

	if (protocol == IPPROTO_UDP)
		return 1;
	if (protocol != IPPROTO_TCP || tcp_flags & 0x07)
		return 0;
	struct sluice_config *settings = bpf_map_lookup_elem(&config, &zero);

	return settings && settings->direct_tcp;
}

/* A packet that the kernel brought from another pod's device: that pod's entry learns it. */
static __noinline void show_way(struct __sk_buff *skb, const struct sluice_key *entered, __u64 now)
{
	struct sluice_key key = *entered;
	struct sluice_port *from = port_of(skb->ingress_ifindex, &key.port);

	if (!from || !from->direct_mtu)
		return;
	key.incarnation = from->incarnation;
	key.direction = SLUICE_EGRESS;
	struct sluice_cache_value *value = bpf_map_lookup_elem(&cache, &key);

	/* asked once: a connection gets a helper, or sequence numbers of the node's, when it begins */
	if (!value || (!value->direct_until_ns && needs_the_node(skb, entered)))
		return;
	value->out_port = entered->port;
	value->direct_until_ns = now + (key.protocol == IPPROTO_TCP ? SLUICE_DIRECT_TCP_NS : SLUICE_DIRECT_NS);
}

/* Ethernet's header, and what a router changes of either family's: to the checksum of IPv4. */
#define REWRITTEN_BYTES 26

/* Makes a packet ready for the other pod's device, as a router would: one hop less to live. That device, or 0: by the kernel,
 * which can say more of it. Written by a helper: of a program that writes to packets itself, the kernel first makes every packet
 * its own, and copies the header of each that TCP keeps for a repetition. */
static __noinline __u32 make_ready(struct __sk_buff *skb, __u32 index, __u32 l4_offset, __u8 protocol)
{
	struct sluice_port *to = bpf_map_lookup_elem(&ports, &index);
	__u32 bytes = skb->len - ETHERNET_BYTES;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	__u8 head[REWRITTEN_BYTES], words = 2;
	__be16 check;

	if (!to || data + REWRITTEN_BYTES > end)
		return 0;
	if (skb->gso_size) {
		if (protocol == IPPROTO_TCP) {
			if (bpf_skb_load_bytes(skb, l4_offset + 12, &words, 1))
				return 0;
			words >>= 4;
		}
		bytes = l4_offset - ETHERNET_BYTES + words * 4 + skb->gso_size;
	}
	if (bytes > to->direct_mtu)
		return 0;
	__builtin_memcpy(head, data, REWRITTEN_BYTES);
	__builtin_memcpy(head, to->mac, 6);
	__builtin_memcpy(head + 6, to->gateway_mac, 6);
	if (l4_offset == ETHERNET_BYTES + sizeof(struct iphdr)) {
		if (head[22] <= 1)
			return 0;
		head[22]--;
		__builtin_memcpy(&check, head + 24, 2);
		/* RFC 1624 */
		__u32 sum = check + bpf_htons(0x0100);

		check = sum + (sum >= 0xffff);
		__builtin_memcpy(head + 24, &check, 2);
	} else if (l4_offset == ETHERNET_BYTES + sizeof(struct ipv6hdr)) {
		if (head[21] <= 1)
			return 0;
		head[21]--;
	} else {
		return 0;
	}
	return bpf_skb_store_bytes(skb, 0, head, REWRITTEN_BYTES, 0) ? 0 : to->ifindex;
}

/* After a hit of what may be brought, and was not: shows the way where it enters; where it leaves, the device that it is ready for, or 0. */
static __always_inline __u32 take_shortcut(struct __sk_buff *skb, const struct sluice_key *key, struct sluice_cache_value *value, __u64 now,
					   __u32 l4_offset)
{
	if (key->direction == SLUICE_INGRESS) {
		if (value->direct_until_ns <= now) {
			value->direct_until_ns = now + (key->protocol == IPPROTO_TCP ? SLUICE_SHOW_TCP_NS : SLUICE_SHOW_NS);
			show_way(skb, key, now);
		}
	} else if (key->direction == SLUICE_EGRESS && value->direct_until_ns > now && value->verdict == SLUICE_CACHE_ALLOW) {
		return make_ready(skb, value->out_port, l4_offset, key->protocol);
	}
	return 0;
}

/* Off it goes. */
static __always_inline int bring(struct __sk_buff *skb, __u32 device)
{
	skb->mark = (skb->mark & ~SLUICE_MARK_MASK) | SLUICE_MARK_DIRECT;
	count(SLUICE_COUNT_HIT);
	count(SLUICE_COUNT_DIRECT);
	return bpf_redirect(device, 0);
}

#endif
