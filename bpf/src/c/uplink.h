/* What arrives at a NIC for a pod of this node and was denied before: dropped before the kernel makes an skb of it.
 *
 * Only what is certain: plain TCP and UDP to an address of a port, in no connection that the cache or the kernel knows, under a
 * denial of the table in force.
 * Everything else passes, to the pod's own hook, which has the last word on all of it. */
#ifndef SLUICE_UPLINK_H
#define SLUICE_UPLINK_H

/* The key of plain TCP or UDP, as the hook's parser would make it. 0: it might make another one, or none. */
static __always_inline int arrival(struct xdp_md *ctx, struct parsed *p)
{
	void *data = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	struct ethhdr *ethernet = data;
	__u32 l4_bytes, frame_bytes = bpf_xdp_get_buff_len(ctx);
	__u8 *l4;

	if ((void *)(ethernet + 1) > end)
		return 0;
	if (ethernet->h_proto == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = (void *)(ethernet + 1);

		if ((void *)(ip + 1) > end || ip->version != 4 || ip->ihl != 5 || ip->frag_off & bpf_htons(0x3fff))
			return 0;
		l4_bytes = bpf_ntohs(ip->tot_len);
		if (l4_bytes < sizeof(*ip) || l4_bytes > frame_bytes - ETHERNET_BYTES)
			return 0;
		l4_bytes -= sizeof(*ip);
		p->ethertype = ETH_P_IP;
		p->key.protocol = ip->protocol;
		map_v4(p->key.src, ip->saddr);
		map_v4(p->key.dst, ip->daddr);
		l4 = (void *)(ip + 1);
	} else if (ethernet->h_proto == bpf_htons(ETH_P_IPV6)) {
		struct ipv6hdr *ip = (void *)(ethernet + 1);
		__be32 mapped = bpf_htonl(0xffff);

		if ((void *)(ip + 1) > end || ip->version != 6)
			return 0;
		if (!ip->saddr.s6_addr32[0] && !ip->saddr.s6_addr32[1] && ip->saddr.s6_addr32[2] == mapped)
			return 0;
		l4_bytes = bpf_ntohs(ip->payload_len);
		if (l4_bytes > frame_bytes - ETHERNET_BYTES - sizeof(*ip))
			return 0;
		p->ethertype = ETH_P_IPV6;
		p->key.protocol = ip->nexthdr;
		__builtin_memcpy(p->key.src, &ip->saddr, 16);
		__builtin_memcpy(p->key.dst, &ip->daddr, 16);
		l4 = (void *)(ip + 1);
	} else {
		return 0;
	}
	if (p->key.protocol == IPPROTO_TCP) {
		if (l4_bytes < 20 || (void *)(l4 + 20) > end)
			return 0;
		__u32 header_bytes = (l4[12] >> 4) * 4;

		if (header_bytes < 20 || header_bytes > l4_bytes)
			return 0;
		p->opens = (l4[13] & 0x12) == 0x02;
	} else if (p->key.protocol == IPPROTO_UDP) {
		if (l4_bytes < 8 || (void *)(l4 + 8) > end)
			return 0;
		__u32 udp_bytes = l4[4] << 8 | l4[5];

		if (udp_bytes < 8 || udp_bytes > l4_bytes)
			return 0;
	} else {
		return 0;
	}
	p->key.sport = l4[0] << 8 | l4[1];
	p->key.dport = l4[2] << 8 | l4[3];
	return 1;
}

/* Whether the kernel knows a packet as an answer: it may have another source when the pod's hook sees it (a service's). */
static __noinline int is_answer(struct xdp_md *ctx, const struct parsed *p)
{
	struct bpf_ct_opts___first options = { .netns_id = -1, .l4proto = p->key.protocol };
	struct bpf_sock_tuple tuple = {};
	__be16 sport = bpf_htons(p->key.sport), dport = bpf_htons(p->key.dport);
	struct nf_conn *connection;

	/* nobody who tracks, nobody who translates */
	if (!bpf_ksym_exists(bpf_xdp_ct_lookup))
		return 0;
	if (p->ethertype == ETH_P_IP) {
		__builtin_memcpy(&tuple.ipv4.saddr, p->key.src + 12, 4);
		__builtin_memcpy(&tuple.ipv4.daddr, p->key.dst + 12, 4);
		tuple.ipv4.sport = sport;
		tuple.ipv4.dport = dport;
		connection = bpf_xdp_ct_lookup(ctx, &tuple, sizeof(tuple.ipv4), &options, sizeof(options));
	} else {
		__builtin_memcpy(tuple.ipv6.saddr, p->key.src, 16);
		__builtin_memcpy(tuple.ipv6.daddr, p->key.dst, 16);
		tuple.ipv6.sport = sport;
		tuple.ipv6.dport = dport;
		connection = bpf_xdp_ct_lookup(ctx, &tuple, sizeof(tuple.ipv6), &options, sizeof(options));
	}
	if (!connection)
		return 0;
	bpf_ct_release(connection);
	return options.dir == REPLY;
}

/* Whether the pod's hook would drop a packet under a denial. */
static __always_inline int denied_on_arrival(struct xdp_md *ctx)
{
	struct parsed p = {};

	if (!arrival(ctx, &p))
		return 0;
	__u32 *index = bpf_map_lookup_elem(&port_of_address, p.key.dst);

	if (!index)
		return 0;
	__u32 number = *index;
	struct sluice_port *port = bpf_map_lookup_elem(&ports, &number);

	if (!port || !port->ifindex || !is_port_address(port, &p, p.key.dst))
		return 0;
	__u32 state = state_of(port), needed = SLUICE_PORT_OPEN | SLUICE_PORT_ISOLATED_INGRESS;

	if ((state & needed) != needed)
		return 0;
	p.key.port = number;
	p.key.incarnation = port->incarnation;
	p.key.direction = SLUICE_INGRESS;
	/* of a connection: the hook knows what becomes of it; and no opener of TCP is an answer */
	if (bpf_map_lookup_elem(&cache, &p.key) || (!p.opens && is_answer(ctx, &p)))
		return 0;
	return denied_before(&p, port);
}

#endif
