/* Which port a device is, and what may pass there. */
#ifndef SLUICE_PORTS_H
#define SLUICE_PORTS_H

/* Where the hint is of another device. */
static __noinline struct sluice_port *search_port(__u32 ifindex, __u32 *hint, __u16 *number)
{
	__u32 *found = bpf_map_lookup_elem(&port_of_ifindex, &ifindex);

	if (!found)
		return NULL;
	__u32 index = *found;
	struct sluice_port *port = bpf_map_lookup_elem(&ports, &index);

	*(volatile __u32 *)hint = index;
	*number = index;
	return port && port->ifindex == ifindex ? port : NULL;
}

/* The port of a device, NULL where there is none. */
static __always_inline struct sluice_port *port_of(__u32 ifindex, __u16 *number)
{
	__u32 slot = ifindex % SLUICE_HINTS_MAX;
	__u32 *hint = bpf_map_lookup_elem(&port_hints, &slot);

	if (!hint)
		return NULL;
	__u32 index = *(volatile __u32 *)hint;
	struct sluice_port *port = bpf_map_lookup_elem(&ports, &index);

	if (!port || !ifindex || port->ifindex != ifindex)
		return search_port(ifindex, hint, number);
	*number = index;
	return port;
}

/* Its bits; none where they were set for another incarnation. */
static __always_inline __u32 state_of(const struct sluice_port *port)
{
	__u32 state = *(volatile __u32 *)&port->state;

	return state >> SLUICE_PORT_STATE_SHIFT == (port->incarnation & (~0u >> SLUICE_PORT_STATE_SHIFT)) ? state : 0;
}

static __always_inline int is_isolated(__u32 state)
{
	return !!(state & (SLUICE_PORT_ISOLATED_INGRESS | SLUICE_PORT_ISOLATED_EGRESS));
}

#endif
