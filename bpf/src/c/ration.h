/* A port's share of workers, and its room: what one pod opens must not be what another waits for. */
#ifndef SLUICE_RATION_H
#define SLUICE_RATION_H

/* Takes one new flow off an account that is paid for until `until`, and may be ahead for so long. 0: it had that much. Two CPUs
 * may count as one now and then, which only lets a few more through. */
static __always_inline int overdraws(__u64 *until, __u64 now, __u32 new_flow_ns, __u64 ahead_ns)
{
	__u64 paid = *until > now ? *until : now;

	if (paid - now > ahead_ns)
		return 1;
	*until = paid + new_flow_ns;
	return 0;
}

/* Whether a port has had its share of new flows: those that begin here and those that a worker is asked about. */
static __always_inline int overdrawn(const struct parsed *p)
{
	__u32 zero = 0, index = p->key.port;
	struct sluice_config *settings = bpf_map_lookup_elem(&config, &zero);
	struct sluice_ration *share = bpf_map_lookup_elem(&rations, &index);

	if (!settings || !share || !settings->new_flow_ns)
		return 0;
	if (!overdraws(&share->until_ns, bpf_ktime_get_coarse_ns(), settings->new_flow_ns, SLUICE_RATION_AHEAD_NS))
		return 0;
	share->refused++;
	return 1;
}

/* Whether a port has asked its worker as often as it may: at the same rate, but never more at once than leaves room on the
 * trunk for the questions of others. */
static __always_inline int asked_enough(const struct parsed *p)
{
	__u32 zero = 0, index = p->key.port;
	struct sluice_config *settings = bpf_map_lookup_elem(&config, &zero);
	struct sluice_ration *share = bpf_map_lookup_elem(&rations, &index);

	if (!settings || !share || !settings->new_flow_ns)
		return 0;
	__u64 ahead = (__u64)settings->new_flow_ns * SLUICE_ASKED_AT_ONCE;

	if (ahead > SLUICE_RATION_AHEAD_NS)
		ahead = SLUICE_RATION_AHEAD_NS;
	if (!overdraws(&share->asked_until_ns, bpf_ktime_get_coarse_ns(), settings->new_flow_ns, ahead))
		return 0;
	share->refused++;
	return 1;
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

/* Whether a port that its worker found full has used up what room it was granted since; of all that come then, one asks each time
 * that the worker may look again. Under fail-open all of them do: there may be no worker. */
static __always_inline int is_full(const struct parsed *p)
{
	__u32 zero = 0, index = p->key.port;
	struct sluice_config *settings = bpf_map_lookup_elem(&config, &zero);
	struct sluice_ration *share = bpf_map_lookup_elem(&rations, &index);

	if (!share || (__s32)(*(volatile __u32 *)&share->may - *(volatile __u32 *)&share->made) > 0)
		return 0;
	__u64 until = *(volatile __u64 *)&share->full_until_ns, now = bpf_ktime_get_coarse_ns();

	if (!until || until > now)
		return !!until;
	if (settings && settings->fail_open)
		return 0;
	return __sync_val_compare_and_swap(&share->full_until_ns, until, now + SLUICE_FULL_NS) != until;
}

#endif
