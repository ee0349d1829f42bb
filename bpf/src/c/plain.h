/* The shortest way, for what most packets are: IPv4, UDP or TCP that neither opens nor breaks off, of a connection that the cache allows.
 * Parser, guard and judge would say the same of it, by several times as many instructions in as many more places. */
#ifndef SLUICE_PLAIN_H
#define SLUICE_PLAIN_H

#define PLAIN_PASSES -1

/* PLAIN_PASSES: it is one, and counted as a hit of its entry; more than 0: for that device, too. 0: the others look at it. `brought` by
 * another pod's hook. */
static __noinline int passes_plainly(struct __sk_buff *skb, const struct sluice_port *port, __u16 number, __u8 direction, __u8 brought)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet = data;
	struct iphdr *ip = data + ETHERNET_BYTES;
	const __u8 *l4 = data + ETHERNET_BYTES + sizeof(*ip);

	if (skb->vlan_present || (void *)(l4 + 8) > end || ethernet->h_proto != bpf_htons(ETH_P_IP) || *(__u8 *)ip != 0x45 ||
	    ip->frag_off & bpf_htons(0x3fff) || !port->ip4 || every_packet())
		return 0;
	__u32 l3_bytes = skb->len - ETHERNET_BYTES, header_bytes = 8;
	__u32 total_bytes = skb->gso_segs ? l3_bytes : bpf_ntohs(ip->tot_len);
	__u8 protocol = ip->protocol, flags = 0;

	if (protocol == IPPROTO_TCP) {
		if ((void *)(l4 + 20) > end)
			return 0;
		flags = l4[13];
		header_bytes = (l4[12] >> 4) * 4;
		/* RST, or SYN without ACK */
		if (flags & 0x04 || (flags & 0x12) == 0x02 || header_bytes < 20)
			return 0;
	} else if (protocol == IPPROTO_UDP) {
		__u32 udp_bytes = l4[4] << 8 | l4[5];

		if (!skb->gso_segs && (udp_bytes < 8 || sizeof(*ip) + udp_bytes > total_bytes))
			return 0;
	} else {
		return 0;
	}
	if (total_bytes > l3_bytes || total_bytes < sizeof(*ip) + header_bytes)
		return 0;
	struct sluice_key key;

	if (direction == SLUICE_INGRESS) {
		if (ip->daddr != port->ip4)
			return 0;
	} else {
		__u8 first = *(__u8 *)&ip->daddr;

		if (ip->saddr != port->ip4 || !same_mac(ethernet->h_source, port->mac) || first >> 4 == 0xe || first == 0xff)
			return 0;
	}
	key.incarnation = port->incarnation;
	key.port = number;
	key.direction = direction;
	key.protocol = protocol;
	map_v4(key.src, ip->saddr);
	map_v4(key.dst, ip->daddr);
	key.sport = l4[0] << 8 | l4[1];
	key.dport = l4[2] << 8 | l4[3];

	__u32 epoch = *(volatile __u32 *)&port->epoch;
	struct sluice_cache_value *value = bpf_map_lookup_elem(&cache, &key);

	if (!value || value->verdict != SLUICE_CACHE_ALLOW || value->epoch != epoch)
		return 0;
	/* after FIN or RST */
	if (flags & 0x02 && value->tcp_flags & 0x05)
		return 0;
	__u64 now = bpf_ktime_get_coarse_ns(), last_seen = value->last_seen_ns;

	if (now > last_seen) {
		if (now - last_seen > value->timeout_ns)
			return 0;
		value->last_seen_ns = now;
	}
	__sync_fetch_and_add(&value->packets, skb->gso_segs ? skb->gso_segs : 1);
	__sync_fetch_and_add(&value->bytes, skb->len);
	if (flags & ~value->tcp_flags)
		learn_flags(port, &key, value, flags);
	if (port->direct_mtu && !brought && may_be_brought(protocol, flags)) {
		__u32 device = take_shortcut(skb, &key, value, now, ETHERNET_BYTES + sizeof(struct iphdr));

		if (device)
			return device;
	}
	return PLAIN_PASSES;
}

#endif
