/* New connections that differ from one that a worker judged in the source port alone, or in ports of which policy says the same:
 * admitted here, told to the worker. So are those on the very ports of one that is over; what that one counted goes into the record.
 *
 *   worker judges A:4000 -> B:80, allows    allowance  A:* -> B:80, of this table; and where the very rule allows more ports in a row,
 *                                           A:* -> B:first-last
 *   A:4001 -> B:80 comes                    both cache entries, a record in the worker's ring, and on it goes
 *   a new table                             worker: no allowance counts any more; every record that was begun before is read;
 *                                           then all connections are judged again
 *
 * So nothing is admitted by an allowance of a table that is no longer in force without the worker judging it by the one that
 * is, before it says that it has adopted it. */
#ifndef SLUICE_ADMIT_H
#define SLUICE_ADMIT_H

/* Whether a packet of this protocol can be told to open a connection, and only such a one does. */
static __always_inline int opened_explicitly(__u8 protocol)
{
	return protocol == IPPROTO_TCP || protocol == IPPROTO_SCTP;
}

static __always_inline void reverse(const struct sluice_key *key, struct sluice_key *back)
{
	back->incarnation = key->incarnation;
	back->port = key->port;
	back->direction = key->direction ^ 1;
	back->protocol = key->protocol;
	__builtin_memcpy(back->src, key->dst, 16);
	__builtin_memcpy(back->dst, key->src, 16);
	back->sport = key->dport;
	back->dport = key->sport;
}

static __always_inline void *ring_of(const struct sluice_port *port)
{
	__u32 worker = port->worker;

	return bpf_map_lookup_elem(&openings, &worker);
}

/* What an allowance says, read before its place may become another one's. */
struct allowed {
	__u64 timeout_ns;
	__u32 deny_epoch;
	__u32 rule;
	__u32 generation;
	__u32 verdict;
};

/* Writes both entries. 0: the connection is known from here on. */
static __noinline int begin(const struct parsed *p, const struct allowed *allowed, __u32 epoch, __u32 bytes)
{
	__u32 zero = 0;
	struct scratch *room = bpf_map_lookup_elem(&scratch, &zero);

	if (!room)
		return -1;
	struct sluice_cache_value *value = &room->value;

	__builtin_memset(value, 0, sizeof(*value));
	value->epoch = epoch;
	value->flags = SLUICE_CACHE_REPLY;
	value->verdict = SLUICE_CACHE_ALLOW;
	value->timeout_ns = allowed->timeout_ns;
	value->last_seen_ns = bpf_ktime_get_coarse_ns();
	value->rule = allowed->rule;
	value->generation = allowed->generation;
	reverse(&p->key, &room->back);
	if (bpf_map_update_elem(&cache, &room->back, value, BPF_ANY))
		return -1;
	value->flags = 0;
	value->verdict = allowed->verdict;
	value->packets = 1;
	value->bytes = bytes;
	if (!bpf_map_update_elem(&cache, &p->key, value, BPF_ANY))
		return 0;
	bpf_map_delete_elem(&cache, &room->back);
	return -1;
}

/* What a worker said of a packet that differs from this one in the source port alone, else of a range of ports that has this one's.
 * 0: nothing. */
static __noinline int allowed_before(const struct parsed *p, __u32 deny_epoch, struct allowed *allowed)
{
	struct sluice_key key = p->key;

	key.sport = 0;
	struct sluice_allowance *found = bpf_map_lookup_elem(&allowances, &key);

	if (!found) {
		key.sport = deny_epoch;
		key.dport = 0;
		found = bpf_map_lookup_elem(&allowances, &key);
	}
	if (!found || (!key.dport && (p->key.dport < found->first_port || p->key.dport > found->last_port)))
		return 0;
	allowed->timeout_ns = found->timeout_ns;
	allowed->deny_epoch = found->deny_epoch;
	allowed->rule = found->rule;
	allowed->generation = found->generation;
	allowed->verdict = found->verdict;
	barrier();
	return !__builtin_memcmp(&found->key, &key, sizeof(key));
}

/* What the entries counted of a connection that is over, before another one takes its ports and their places. Two openers on two
 * CPUs at once may both tell it. */
static __noinline void count_over(const struct sluice_key *key, struct sluice_opening *opening)
{
	__u32 zero = 0;
	struct scratch *room = bpf_map_lookup_elem(&scratch, &zero);
	struct sluice_cache_value *value = bpf_map_lookup_elem(&cache, key);

	if (!value || !room)
		return;
	opening->packets = value->packets;
	opening->bytes = value->bytes;
	reverse(key, &room->back);
	value = bpf_map_lookup_elem(&cache, &room->back);
	if (!value)
		return;
	opening->packets += value->packets;
	opening->bytes += value->bytes;
}

/* Whether the node gave a packet that enters another source. What most of them carry says no, without a search. */
static __always_inline int is_translated(struct __sk_buff *skb, const struct parsed *p)
{
	__u32 zero = 0;
	unsigned long status = carried_status(skb);

	if (status && !(status & STATUS_SRC_NAT))
		return 0;
	struct scratch *room = bpf_map_lookup_elem(&scratch, &zero);

	if (!room)
		return 1;
	__builtin_memset(room->value.origin, 0, sizeof(room->value.origin));
	find_origin(skb, p, room->value.origin);
	return !unspecified(room->value.origin);
}

/* The verdict by which a packet begins a connection here, one without cache entry or on the ports of one that is over; 0: its
 * worker is asked. */
static __noinline int admit(struct __sk_buff *skb, const struct sluice_port *port, const struct parsed *p, __u32 epoch, int again)
{
	struct allowed allowed = {};
	__u32 index = p->key.port;

	if (p->fragment || (opened_explicitly(p->key.protocol) ? !p->opens : p->key.protocol != IPPROTO_UDP))
		return 0;
	if (!allowed_before(p, *(volatile __u32 *)&port->deny_epoch, &allowed))
		return 0;
	struct sluice_ration *share = bpf_map_lookup_elem(&rations, &index);
	void *ring = ring_of(port);

	/* asked again below, where it counts: here it spares a full port the rest */
	if (!share || !ring || (__s32)(*(volatile __u32 *)&share->may - *(volatile __u32 *)&share->made) <= 0)
		return 0;
	if (p->key.direction == SLUICE_INGRESS && is_translated(skb, p))
		return 0;
	struct sluice_opening *opening = bpf_ringbuf_reserve(ring, sizeof(*opening), 0);

	if (!opening)
		return 0;
	__builtin_memset(opening, 0, sizeof(*opening));
	if (again)
		count_over(&p->key, opening);
	/* A worker that voids allowances and then reads its ring's end either sees this record, or this sees what it voided: the
	 * sum is a full barrier between the two. */
	__u32 made = __sync_fetch_and_add(&share->made, 1);
	__s32 left = *(volatile __u32 *)&share->may - made;

	if (left <= 0 || allowed.deny_epoch != *(volatile __u32 *)&port->deny_epoch || begin(p, &allowed, epoch, skb->len)) {
		__sync_fetch_and_add(&share->made, -1);
		bpf_ringbuf_discard(opening, BPF_RB_NO_WAKEUP);
		return 0;
	}
	opening->key = p->key;
	opening->kind = SLUICE_OPENING_ADMITTED;
	opening->verdict = allowed.verdict;
	opening->at_ns = bpf_ktime_get_coarse_ns();
	/* by what the worker has not heard, which begins anew whenever it listens; and with the last that there is room for */
	__u32 unheard = made + 1 - *(volatile __u32 *)&share->learned;

	bpf_ringbuf_submit(opening, unheard % SLUICE_OPENINGS_WAKE && left > 1 ? BPF_RB_NO_WAKEUP : BPF_RB_FORCE_WAKEUP);
	count(SLUICE_COUNT_ADMITTED);
	return allowed.verdict;
}

/* Tells the worker that a connection has ended, if a packet with FIN ended it: room for others. A record that is lost costs a search,
 * and a RST is left to one: whether its receiver believes it is not seen here. */
static __always_inline void note_end(const struct sluice_port *port, const struct sluice_key *key)
{
	__u32 zero = 0;
	struct scratch *room = bpf_map_lookup_elem(&scratch, &zero);

	if (!room)
		return;
	reverse(key, &room->back);
	struct sluice_cache_value *answers = bpf_map_lookup_elem(&cache, &room->back);

	/* the answers of what departs cross another hook */
	if (key->direction != SLUICE_DEPARTURE && (!answers || !(answers->tcp_flags & 0x01)))
		return;
	void *ring = ring_of(port);
	struct sluice_opening *opening = ring ? bpf_ringbuf_reserve(ring, sizeof(*opening), 0) : NULL;

	if (!opening)
		return;
	__builtin_memset(opening, 0, sizeof(*opening));
	opening->key = *key;
	opening->kind = SLUICE_OPENING_CLOSED;
	opening->at_ns = bpf_ktime_get_coarse_ns();
	bpf_ringbuf_submit(opening, BPF_RB_NO_WAKEUP);
}

/* What a packet that its entry allows adds to the flags that were seen. */
static __noinline void learn_flags(const struct sluice_port *port, const struct sluice_key *key, struct sluice_cache_value *value, __u32 flags)
{
	value->tcp_flags |= flags;
	if ((flags & 0x04) && value->timeout_ns > SLUICE_RST_TIMEOUT_NS)
		value->timeout_ns = SLUICE_RST_TIMEOUT_NS;
	else if ((flags & 0x01) && value->timeout_ns > SLUICE_FIN_TIMEOUT_NS)
		value->timeout_ns = SLUICE_FIN_TIMEOUT_NS;
	if (flags & 0x01)
		note_end(port, key);
}

#endif
