/* What was denied before. */
#ifndef SLUICE_DENIALS_H
#define SLUICE_DENIALS_H

/* Whether nothing is judged by the cache alone: every packet of an isolated pod goes to its worker. The cache still counts, and
 * tells what is established. */
static __always_inline int every_packet(void)
{
	__u32 zero = 0;
	struct sluice_config *settings = bpf_map_lookup_elem(&config, &zero);

	return settings && settings->every_packet;
}

/* Whether a denial of the table in force covers a packet that belongs to nothing. */
static __noinline int denied_before(const struct parsed *p, const struct sluice_port *port)
{
	struct sluice_key key = p->key;

	/* what may be an answer is never refused by a denial: the worker knows the connection */
	if (every_packet() || (opened_explicitly(key.protocol) ? !p->opens : key.dport == SLUICE_ICMP_REPLY))
		return 0;
	/* of everything from or to that address, which is what most denied floods meet; else of this port */
	key.sport = 0;
	key.dport = SLUICE_EVERY_PORT;
	key.protocol = 0;
	struct sluice_denial *denial = bpf_map_lookup_elem(&denials, &key);

	if (!denial || denial->deny_epoch != port->deny_epoch) {
		key.dport = p->key.dport;
		key.protocol = p->key.protocol;
		denial = bpf_map_lookup_elem(&denials, &key);
		if (!denial || denial->deny_epoch != port->deny_epoch)
			return 0;
	}
	__sync_fetch_and_add(&denial->packets, 1);
	denial->last_seen_ns = bpf_ktime_get_coarse_ns();
	return 1;
}

#endif
