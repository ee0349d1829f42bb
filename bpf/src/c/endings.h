/* Taking closed connections out of the cache, many with one system call of their worker. */
#ifndef SLUICE_ENDINGS_H
#define SLUICE_ENDINGS_H

/* Takes out an entry that was found a moment before, and adds what it counted. */
static __always_inline void take(const struct sluice_key *key, const struct sluice_cache_value *value, struct sluice_ending *ending)
{
	ending->packets += value->packets;
	ending->bytes += value->bytes;
	bpf_map_delete_elem(&cache, key);
}

static __noinline int take_closed(__u32 index)
{
	struct sluice_ending *ending = bpf_map_lookup_elem(&endings, &index);

	if (!ending)
		return 1;
	struct sluice_key back = {};
	struct sluice_cache_value *value = bpf_map_lookup_elem(&cache, &ending->key);

	ending->packets = 0;
	ending->bytes = 0;
	/* neither FIN nor RST: a hook has begun another one there, of which the worker has not heard yet */
	ending->again = value && !(value->tcp_flags & 0x05);
	if (ending->again)
		return 0;
	/* should one begin in this very moment, the worker hears of it before it judges any packet of it, and writes what is missing */
	if (value)
		take(&ending->key, value, ending);
	reverse(&ending->key, &back);
	value = bpf_map_lookup_elem(&cache, &back);
	if (value)
		take(&back, value, ending);
	return 0;
}

#endif
