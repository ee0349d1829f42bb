/* Nobody speaks in another's name: MAC, ARP, neighbour discovery, source and destination addresses. */
#ifndef SLUICE_GUARD_H
#define SLUICE_GUARD_H

#define PASS_NEIGHBOUR 1000 /* neighbour discovery or a listener report: past policy, to the stack */

struct arp_v4 {
	__be16 hardware, protocol;
	__u8 hardware_bytes, protocol_bytes;
	__be16 operation;
	__u8 sender_mac[6];
	__u8 sender_ip[4];
	__u8 target_mac[6];
	__u8 target_ip[4];
} __attribute__((packed));

static __always_inline int same_mac(const __u8 *a, const __u8 *b)
{
	return *(const __u16 *)a == *(const __u16 *)b && *(const __u16 *)(a + 2) == *(const __u16 *)(b + 2) &&
	       *(const __u16 *)(a + 4) == *(const __u16 *)(b + 4);
}

static __always_inline int same_address(const __u8 *a, const __u8 *b)
{
	const __u32 *x = (const __u32 *)a, *y = (const __u32 *)b;

	return x[0] == y[0] && x[1] == y[1] && x[2] == y[2] && x[3] == y[3];
}

static __always_inline int unspecified(const __u8 *a)
{
	const __u32 *x = (const __u32 *)a;

	return !(x[0] | x[1] | x[2] | x[3]);
}

static __always_inline int link_local(const __u8 *a)
{
	return a[0] == 0xfe && (a[1] & 0xc0) == 0x80;
}

/* The port's address of the packet's family. */
static __always_inline int is_port_address(const struct sluice_port *port, const struct parsed *p, const __u8 *address)
{
	if (p->ethertype == ETH_P_IP) {
		__be32 v4;

		__builtin_memcpy(&v4, address + 12, 4);
		return port->ip4 && v4 == port->ip4;
	}
	return port->has_ip6 && same_address(address, port->ip6);
}

static __always_inline int guard_arp(struct __sk_buff *skb, const struct sluice_port *port)
{
	struct arp_v4 arp;
	__be32 sender;

	if (bpf_skb_load_bytes(skb, ETHERNET_BYTES, &arp, sizeof(arp)))
		return -SLUICE_DROP_MALFORMED;
	__builtin_memcpy(&sender, arp.sender_ip, 4);
	/* 0.0.0.0 asks whether an address is taken (RFC 5227) and claims nothing */
	if (arp.hardware != bpf_htons(1) || arp.protocol != bpf_htons(ETH_P_IP) || arp.hardware_bytes != 6 || arp.protocol_bytes != 4 ||
	    !same_mac(arp.sender_mac, port->mac) || (sender && sender != port->ip4))
		return -SLUICE_DROP_SPOOFED_ARP;
	return PASS_NEIGHBOUR;
}

/* Link-local destinations, and this node's own addresses: probes of the gateway are unicast to its global address. */
static __always_inline int stays_on_link(struct __sk_buff *skb, const struct parsed *p)
{
	struct bpf_fib_lookup route = { .family = 10 /* AF_INET6 */, .ifindex = skb->ifindex };

	if (link_local(p->key.dst) || (p->key.dst[0] == 0xff && (p->key.dst[1] & 0x0f) <= 2))
		return 1;
	if (p->key.dst[0] == 0xff)
		return 0;
	__builtin_memcpy(route.ipv6_src, p->key.src, 16);
	__builtin_memcpy(route.ipv6_dst, p->key.dst, 16);
	return bpf_fib_lookup(skb, &route, sizeof(route), 0) == BPF_FIB_LKUP_RET_NOT_FWDED;
}

/* Neighbour discovery and listener reports leaving a pod (RFC 4861, 3810). 0: not of this kind. */
static __always_inline int guard_neighbour(struct __sk_buff *skb, const struct sluice_port *port, const struct parsed *p)
{
	__u8 body[32] = {}; /* header 8, target 16, first option 8 */
	__u8 type;

	if (p->key.protocol != IPPROTO_ICMPV6 || p->ethertype != ETH_P_IPV6)
		return 0;
	if (bpf_skb_load_bytes(skb, p->l4_offset, &type, 1))
		return -SLUICE_DROP_MALFORMED;
	/* beyond the link these are packets like others: the kernel would forward them */
	if (!stays_on_link(skb, p))
		return type == 134 || type == 137 ? -SLUICE_DROP_ROGUE_ROUTER : 0;
	int own = is_port_address(port, p, p->key.src), local = link_local(p->key.src), none = unspecified(p->key.src);

	switch (type) {
	case 131: /* listener report and done, listener report v2 */
	case 132:
	case 143:
		return own || local || none ? PASS_NEIGHBOUR : -SLUICE_DROP_SPOOFED_NEIGHBOUR;
	case 134: /* router advertisement, redirect */
	case 137:
		return -SLUICE_DROP_ROGUE_ROUTER;
	case 133: /* router solicitation */
		return own || local || none ? PASS_NEIGHBOUR : -SLUICE_DROP_SPOOFED_NEIGHBOUR;
	case 135: /* neighbour solicitation and advertisement */
	case 136:
		break;
	default:
		return 0;
	}
	if (p->hop_limit != 255 || bpf_skb_load_bytes(skb, p->l4_offset, body, 24))
		return -SLUICE_DROP_SPOOFED_NEIGHBOUR;
	if (!own && !local && !(none && type == 135))
		return -SLUICE_DROP_SPOOFED_NEIGHBOUR;
	/* who advertises an address must have it */
	if (type == 136 && !is_port_address(port, p, body + 8) && !link_local(body + 8))
		return -SLUICE_DROP_SPOOFED_NEIGHBOUR;
	/* the link-layer address option must be the port's */
	if (!bpf_skb_load_bytes(skb, p->l4_offset + 24, body + 24, 8) && (body[24] == 1 || body[24] == 2) && !same_mac(body + 26, port->mac))
		return -SLUICE_DROP_SPOOFED_NEIGHBOUR;
	return PASS_NEIGHBOUR;
}

/* What leaves a pod. 0: judge it; PASS_NEIGHBOUR; or minus a drop reason. */
static __always_inline int guard_leaving(struct __sk_buff *skb, const struct sluice_port *port, const struct parsed *p)
{
	/* the parser made the header linear */
	struct ethhdr *ethernet = (void *)(long)skb->data;

	if ((void *)(ethernet + 1) > (void *)(long)skb->data_end || !same_mac(ethernet->h_source, port->mac))
		return -SLUICE_DROP_SPOOFED_MAC;
	if (p->ethertype == ETH_P_ARP)
		return guard_arp(skb, port);
	int neighbour = guard_neighbour(skb, port, p);

	if (neighbour)
		return neighbour;
	if (!is_port_address(port, p, p->key.src))
		return -SLUICE_DROP_SPOOFED_ADDRESS;
	if (p->ethertype == ETH_P_IP ? (p->key.dst[12] >> 4 == 0xe || p->key.dst[12] == 0xff) : p->key.dst[0] == 0xff)
		return -SLUICE_DROP_MULTICAST_UNSUPPORTED;
	return 0;
}

/* Whether a packet of a pod that nobody isolates is so plain that parser and guard would let it pass unread: IPv4, TCP or UDP, in
 * the pod's own name, no later fragment, and no opener that would be remembered. 0: they look at it. */
static __always_inline int is_plain(struct __sk_buff *skb, const struct sluice_port *port, __u8 direction)
{
	void *data = (void *)(long)skb->data, *end = (void *)(long)skb->data_end;
	struct ethhdr *ethernet = data;
	struct iphdr *ip = data + ETHERNET_BYTES;
	const __u8 *l4 = data + ETHERNET_BYTES + sizeof(*ip);

	if (skb->vlan_present || (void *)(l4 + 14) > end || ethernet->h_proto != bpf_htons(ETH_P_IP) || *(__u8 *)ip != 0x45 ||
	    ip->frag_off & bpf_htons(0x1fff) || !port->ip4)
		return 0;
	if (ip->protocol == IPPROTO_TCP ? (l4[13] & 0x12) == 0x02 && !is_tracked() : ip->protocol != IPPROTO_UDP)
		return 0;
	if (direction == SLUICE_INGRESS)
		return ip->daddr == port->ip4;
	__u8 first = *(__u8 *)&ip->daddr;

	return ip->saddr == port->ip4 && same_mac(ethernet->h_source, port->mac) && first >> 4 != 0xe && first != 0xff;
}

/* What enters a pod from elsewhere than its node. */
static __always_inline int guard_entering(const struct sluice_port *port, const struct parsed *p)
{
	if (p->ethertype == ETH_P_ARP)
		return -SLUICE_DROP_SPOOFED_ARP;
	if (!is_port_address(port, p, p->key.dst))
		return -SLUICE_DROP_WRONG_DESTINATION;
	return 0;
}

#endif
