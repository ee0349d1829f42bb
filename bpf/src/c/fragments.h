/* Fragments: the first one says what the packet is, those behind it follow. */
#ifndef SLUICE_FRAGMENTS_H
#define SLUICE_FRAGMENTS_H

static __always_inline void fragment_key(const struct parsed *p, struct sluice_fragment_key *key)
{
	key->incarnation = p->key.incarnation;
	key->port = p->key.port;
	key->direction = p->key.direction;
	key->protocol = p->ethertype == ETH_P_IP ? p->key.protocol : 0;
	__builtin_memcpy(key->src, p->key.src, 16);
	__builtin_memcpy(key->dst, p->key.dst, 16);
	key->id = p->fragment_id;
}

/* A first fragment passes; those behind it are judged by its key. */
static __always_inline void note_first(const struct parsed *p)
{
	struct sluice_fragment first = { .sport = p->key.sport, .dport = p->key.dport, .protocol = p->key.protocol };
	struct sluice_fragment_key key = {};

	fragment_key(p, &key);
	bpf_map_update_elem(&fragments, &key, &first, BPF_ANY);
}

/* Gives a later fragment the key of its first, if that has passed here. */
static __always_inline void follow_first(struct parsed *p)
{
	struct sluice_fragment_key key = {};

	fragment_key(p, &key);
	struct sluice_fragment *first = bpf_map_lookup_elem(&fragments, &key);

	if (!first)
		return;
	p->key.protocol = first->protocol;
	p->key.sport = first->sport;
	p->key.dport = first->dport;
	p->keyed = 1;
}

#endif
