/* Frame → key, for the packets that need no more than one look. What this parser does not understand is marked as such
 * and punted: the worker's parser (sluice_flow::parse_frame) has the last word, and derives the same key from every
 * frame that this one accepts. */
#ifndef SLUICE_PARSE_H
#define SLUICE_PARSE_H

#define ETHERNET_BYTES 14

struct parsed {
	struct sluice_key key; /* port, incarnation and direction are filled in by the caller */
	__u16 ethertype;       /* host order */
	__u8 tcp_flags;        /* of SCTP: what its first chunk means in TCP's words */
	__u8 keyed;      /* the key is whole */
	__u8 fragment;   /* FIRST or LATER */
	__u8 opens;      /* TCP: SYN without ACK; SCTP: INIT */
	__u8 hop_limit;
	__u8 direct;     /* DIRECT: another pod's hook brought it; DIRECT_JUDGED: by way of a worker that judged it for both */
	__u32 l4_offset;
	__u32 fragment_id;
};

#define FIRST 1
#define LATER 2

#define DIRECT 1
#define DIRECT_JUDGED 2

static __always_inline void map_v4(__u8 *to, __be32 address)
{
	__builtin_memset(to, 0, 10);
	to[10] = 0xff;
	to[11] = 0xff;
	__builtin_memcpy(to + 12, &address, 4);
}

/* Linear data up to `bytes`, or fewer where the packet is shorter. */
static __always_inline int linear(struct __sk_buff *skb, __u32 bytes)
{
	if ((void *)(long)skb->data + bytes <= (void *)(long)skb->data_end)
		return 0;
	return bpf_skb_pull_data(skb, bytes);
}

/* The first bytes of the transport header. */
static __always_inline int load_l4(struct __sk_buff *skb, const struct parsed *p, __u8 *head, __u32 bytes)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;

	/* most packets, and no call */
	if (p->l4_offset == ETHERNET_BYTES + sizeof(struct iphdr) && data + ETHERNET_BYTES + sizeof(struct iphdr) + bytes <= end) {
		__builtin_memcpy(head, data + ETHERNET_BYTES + sizeof(struct iphdr), bytes);
		return 0;
	}
	if (p->l4_offset == ETHERNET_BYTES + sizeof(struct ipv6hdr) && data + ETHERNET_BYTES + sizeof(struct ipv6hdr) + bytes <= end) {
		__builtin_memcpy(head, data + ETHERNET_BYTES + sizeof(struct ipv6hdr), bytes);
		return 0;
	}
	return bpf_skb_load_bytes(skb, p->l4_offset, head, bytes);
}

/* Ports, flags, ICMP identifier. Leaves `keyed` 0 where the worker should look. */
static __always_inline void parse_l4(struct __sk_buff *skb, struct parsed *p, __u32 l4_bytes)
{
	__u8 head[14] = {};
	__u8 protocol = p->key.protocol;

	if (protocol == IPPROTO_TCP) {
		if (l4_bytes < 20 || load_l4(skb, p, head, 14))
			return;
		__u32 header_bytes = (head[12] >> 4) * 4;

		if (header_bytes < 20 || header_bytes > l4_bytes)
			return;
		p->tcp_flags = head[13];
		p->opens = (head[13] & 0x12) == 0x02;
	} else if (protocol == IPPROTO_UDP) {
		if (l4_bytes < 8 || load_l4(skb, p, head, 8))
			return;
		__u32 udp_bytes = head[4] << 8 | head[5];

		/* a GSO datagram carries the length of all its segments, or 0; a first fragment that of all fragments */
		if (!skb->gso_segs && (udp_bytes < 8 || (udp_bytes > l4_bytes && !p->fragment)))
			return;
	} else if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6) {
		__u8 request = protocol == IPPROTO_ICMP ? 8 : 128, reply = protocol == IPPROTO_ICMP ? 0 : 129;

		if ((protocol == IPPROTO_ICMPV6) != (p->ethertype == ETH_P_IPV6))
			return;
		if (l4_bytes < 8 || bpf_skb_load_bytes(skb, p->l4_offset, head, 8))
			return;
		if (head[0] == request)
			p->key.dport = SLUICE_ICMP_REQUEST;
		else if (head[0] == reply)
			p->key.dport = SLUICE_ICMP_REPLY;
		else
			return; /* errors are judged by what they quote, others are rare */
		p->key.sport = head[4] << 8 | head[5];
		p->keyed = 1;
		return;
	} else if (protocol == IPPROTO_SCTP) {
		__u8 chunk = 0xff;

		if (l4_bytes < 12 || bpf_skb_load_bytes(skb, p->l4_offset, head, 12))
			return;
		if (l4_bytes > 12 && bpf_skb_load_bytes(skb, p->l4_offset + 12, &chunk, 1))
			return;
		p->opens = chunk == 1; /* INIT; then INIT ACK, ABORT, SHUTDOWN COMPLETE */
		p->tcp_flags = chunk == 1 ? 0x02 : chunk == 2 ? 0x12 : chunk == 6 || chunk == 14 ? 0x04 : 0x10;
	} else {
		p->keyed = 1;
		return;
	}
	p->key.sport = head[0] << 8 | head[1];
	p->key.dport = head[2] << 8 | head[3];
	p->keyed = 1;
}

/* How much of the transport header a verdict hangs on; no later fragment may lie over it (RFC 1858, 3128). */
static __always_inline __u32 judged_bytes(__u8 protocol)
{
	return protocol == IPPROTO_TCP ? 20 : protocol == IPPROTO_SCTP ? 16 : 8;
}

static __always_inline int parse_v4(struct __sk_buff *skb, struct parsed *p)
{
	if (linear(skb, ETHERNET_BYTES + sizeof(struct iphdr)))
		return -SLUICE_DROP_MALFORMED;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct iphdr *ip = data + ETHERNET_BYTES;

	if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl < 5)
		return -SLUICE_DROP_MALFORMED;
	__u32 header_bytes = ip->ihl * 4, total_bytes = bpf_ntohs(ip->tot_len), l3_bytes = skb->len - ETHERNET_BYTES;

	map_v4(p->key.src, ip->saddr);
	map_v4(p->key.dst, ip->daddr);
	p->key.protocol = ip->protocol;
	p->l4_offset = ETHERNET_BYTES + header_bytes;
	/* a GSO packet's total length may be that of one segment, or 0 beyond 64 kB */
	if (skb->gso_segs)
		total_bytes = l3_bytes;
	if (total_bytes < header_bytes || total_bytes > l3_bytes)
		return 0;
	__u16 field = bpf_ntohs(ip->frag_off), offset = field & 0x1fff;

	p->fragment_id = bpf_ntohs(ip->id);
	p->fragment = offset ? LATER : field & 0x2000 ? FIRST : 0;
	if (p->fragment == LATER)
		return offset * 8 < judged_bytes(ip->protocol) ? -SLUICE_DROP_MALFORMED : 0;
	parse_l4(skb, p, total_bytes - header_bytes);
	return 0;
}

static __always_inline int is_extension(__u8 protocol)
{
	switch (protocol) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
	case 135: /* mobility */
	case 139: /* host identity protocol */
	case 140: /* shim6 */
		return 1;
	}
	return 0;
}

/* Walks the extension headers to the upper protocol, header by header as the worker does: what the guard must see can
 * stand behind them. A chain that cannot be walked is refused here, because the stack would walk it. A later fragment ends
 * the walk; one that is the whole packet (RFC 6946) is none. */
static __always_inline int extension_chain(struct __sk_buff *skb, struct parsed *p, __u32 packet_end)
{
	int has_been = 0;

	for (int index = 0; index <= SLUICE_EXTENSION_HEADERS_MAX; index++) {
		__u8 kind = p->key.protocol, head[8];

		if (kind == IPPROTO_FRAGMENT) {
			/* one, and none behind it */
			if (has_been)
				return -SLUICE_DROP_EXTENSION_CHAIN;
			has_been = 1;
			if (p->l4_offset + 8 > packet_end || bpf_skb_load_bytes(skb, p->l4_offset, head, 8))
				return -SLUICE_DROP_MALFORMED;
			p->fragment_id = (__u32)head[4] << 24 | head[5] << 16 | head[6] << 8 | head[7];
			if (head[2] || head[3] & 0xf8) {
				p->fragment = LATER;
				p->key.protocol = 0;
				return 0;
			}
			p->fragment = head[3] & 1 ? FIRST : 0;
			p->key.protocol = head[0];
			p->l4_offset += 8;
			continue;
		}
		if (!is_extension(kind))
			return p->l4_offset > packet_end ? -SLUICE_DROP_MALFORMED : 0;
		/* hop-by-hop options stand first or nowhere */
		if (kind == IPPROTO_HOPOPTS && index)
			return -SLUICE_DROP_EXTENSION_CHAIN;
		if (p->l4_offset + 2 > packet_end || bpf_skb_load_bytes(skb, p->l4_offset, head, 2))
			return -SLUICE_DROP_MALFORMED;
		/* RFC 4302: twelve bytes before the check value */
		if (kind == IPPROTO_AH && head[1] < 1)
			return -SLUICE_DROP_MALFORMED;
		p->key.protocol = head[0];
		p->l4_offset += kind == IPPROTO_AH ? (head[1] + 2) * 4 : 8 + head[1] * 8;
	}
	return -SLUICE_DROP_EXTENSION_CHAIN;
}

static __always_inline int parse_v6(struct __sk_buff *skb, struct parsed *p)
{
	if (linear(skb, ETHERNET_BYTES + sizeof(struct ipv6hdr)))
		return -SLUICE_DROP_MALFORMED;
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ipv6hdr *ip = data + ETHERNET_BYTES;

	if ((void *)(ip + 1) > end || ip->version != 6)
		return -SLUICE_DROP_MALFORMED;
	__u32 payload_bytes = bpf_ntohs(ip->payload_len), l3_bytes = skb->len - ETHERNET_BYTES;

	__builtin_memcpy(p->key.src, &ip->saddr, 16);
	__builtin_memcpy(p->key.dst, &ip->daddr, 16);
	p->key.protocol = ip->nexthdr;
	p->hop_limit = ip->hop_limit;
	p->l4_offset = ETHERNET_BYTES + sizeof(*ip);
	/* mapped addresses would take an IPv4 identity */
	if (!ip->saddr.s6_addr32[0] && !ip->saddr.s6_addr32[1] && ip->saddr.s6_addr32[2] == bpf_htonl(0xffff))
		return -SLUICE_DROP_MALFORMED;
	if (!ip->daddr.s6_addr32[0] && !ip->daddr.s6_addr32[1] && ip->daddr.s6_addr32[2] == bpf_htonl(0xffff))
		return -SLUICE_DROP_MALFORMED;
	if (skb->gso_segs)
		payload_bytes = l3_bytes - sizeof(*ip);
	if (sizeof(*ip) + payload_bytes > l3_bytes)
		return 0;
	__u32 packet_end = p->l4_offset + payload_bytes;
	int refused = extension_chain(skb, p, packet_end);

	if (refused || p->fragment == LATER)
		return refused;
	parse_l4(skb, p, packet_end - p->l4_offset);
	return 0;
}

/* 0, or minus a drop reason. ARP leaves everything but the type empty. Not static: the kernel's verifier then looks at it once, for
 * all callers, and at what follows without a case for each way through it; loading is what a restart takes longest for. */
__noinline int parse(struct __sk_buff *skb, struct parsed *p)
{
	if (!p)
		return -SLUICE_DROP_INTERNAL;
	if (skb->vlan_present)
		return -SLUICE_DROP_VLAN_UNSUPPORTED;
	/* the type in the frame itself: skb->protocol can be set by whoever made the frame */
	__be16 type;

	if (linear(skb, ETHERNET_BYTES))
		return -SLUICE_DROP_MALFORMED;
	struct ethhdr *ethernet = (void *)(long)skb->data;

	if ((void *)(ethernet + 1) > (void *)(long)skb->data_end)
		return -SLUICE_DROP_MALFORMED;
	type = ethernet->h_proto;
	p->ethertype = bpf_ntohs(type);
	switch (p->ethertype) {
	case ETH_P_IP:
		return parse_v4(skb, p);
	case ETH_P_IPV6:
		return parse_v6(skb, p);
	case ETH_P_ARP:
		return 0;
	case ETH_P_8021Q:
	case ETH_P_8021AD:
		return -SLUICE_DROP_VLAN_UNSUPPORTED;
	}
	return -SLUICE_DROP_ETHERTYPE_UNSUPPORTED;
}

#endif
