/* What arrives at a NIC for a pod of this node and was denied before: dropped before the kernel makes an skb of it.
 *
 * Only what is certain: plain TCP and UDP to an address of a port, in no known connection, under a denial of the table in force.
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
	/* of a connection: the hook knows what becomes of it */
	return !bpf_map_lookup_elem(&cache, &p.key) && denied_before(&p, port);
}

#endif
