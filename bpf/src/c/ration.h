/* A port's share of workers, and its room: what one pod opens must not be what another waits for. */
#ifndef SLUICE_RATION_H
#define SLUICE_RATION_H

/* Whether a port has had its share of new flows: what one pod opens must not be what another waits for. Two CPUs may count as
 * one now and then, which only lets a few more through. */
static __always_inline int overdrawn(const struct parsed *p)
{
	__u32 zero = 0, index = p->key.port;
	struct sluice_config *settings = bpf_map_lookup_elem(&config, &zero);
	struct sluice_ration *share = bpf_map_lookup_elem(&rations, &index);

	if (!settings || !share || !settings->new_flow_ns)
		return 0;
	__u64 now = bpf_ktime_get_coarse_ns(), until = share->until_ns;

	if (until < now)
		until = now;
	if (until - now > SLUICE_RATION_AHEAD_NS) {
		share->refused++;
		return 1;
	}
	share->until_ns = until + settings->new_flow_ns;
	return 0;
}

/* The same without having it counted as one: spares a flood beyond its share the search for denials. */
static __always_inline int is_overdrawn(const struct parsed *p)
{
	__u32 index = p->key.port;
	struct sluice_ration *share = bpf_map_lookup_elem(&rations, &index);

	/* 0 as long as nothing is rationed */
	if (!share || !share->until_ns || share->until_ns <= bpf_ktime_get_coarse_ns() + SLUICE_RATION_AHEAD_NS)
		return 0;
	share->refused++;
	return 1;
}

/* Whether a packet that belongs to nothing would begin something. */
static __always_inline int may_begin(const struct parsed *p)
{
	return opened_explicitly(p->key.protocol) ? p->opens : p->key.dport != SLUICE_ICMP_REPLY || p->key.protocol == IPPROTO_UDP;
}

/* Whether a port has no room for another connection, as its worker found a moment ago. */
static __always_inline int is_full(const struct parsed *p)
{
	__u32 index = p->key.port;
	struct sluice_ration *share = bpf_map_lookup_elem(&rations, &index);

	return share && share->full_until_ns && share->full_until_ns > bpf_ktime_get_coarse_ns();
}

#endif
