/* The maps. All are pinned by name; a restarted dataplane finds them as it left them. */
#ifndef SLUICE_MAPS_H
#define SLUICE_MAPS_H

/* Return codes of tcx programs (kernel 6.6), which the headers of older distributions do not have yet. */
#define TCX_NEXT -1
#define TCX_DROP 2

/* Sizes of cache, denials and origins are set by the loader from sluice_flow::limits. */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct sluice_config);
} config SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLUICE_PORTS_MAX);
	__type(key, __u32); /* ifindex of the host's end */
	__type(value, __u32); /* port index */
} port_of_ifindex SEC(".maps");

/* Of every address of a port, IPv4 mapped: which port. What it says is checked against the slot. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 2 * SLUICE_PORTS_MAX);
	__type(key, __u8[16]);
	__type(value, __u32); /* port index */
} port_of_address SEC(".maps");

/* Where a device's port was found last, by the low bits of its ifindex: spares a hash for each packet. Only the slot itself says
 * whose it is. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLUICE_HINTS_MAX);
	__type(key, __u32);
	__type(value, __u32); /* port index */
} port_hints SEC(".maps");

/* Devices that lead away from this node, or to pods that nobody attached: whoever departs by one is judged there. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLUICE_EXITS_MAX);
	__type(key, __u32); /* ifindex */
	__type(value, __u32); /* 1 */
} exits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLUICE_PORTS_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct sluice_port);
} ports SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct sluice_key);
	__type(value, struct sluice_cache_value);
} cache SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct sluice_key);
	__type(value, struct sluice_denial);
} denials SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct sluice_key);
	__type(value, struct sluice_origin);
} origins SEC(".maps");

/* Of one table. No later version takes it over. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct sluice_key);
	__type(value, struct sluice_allowance);
} allowances SEC(".maps");

struct ring {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, SLUICE_OPENINGS_BYTES);
};

/* By worker; each makes its own ring when it starts. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SLUICE_WORKERS_MAX);
	__type(key, __u32);
	__array(values, struct ring);
} openings SEC(".maps");

/* Each worker's in turn. No later version takes it over: it is of this moment. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLUICE_WORKERS_MAX * SLUICE_ENDINGS_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct sluice_ending);
} endings SEC(".maps");

/* By port. No later version takes it over: it is of this moment. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLUICE_PORTS_MAX);
	__uint(map_flags, BPF_F_MMAPABLE);
	__type(key, __u32);
	__type(value, struct sluice_ration);
} rations SEC(".maps");

/* Of packets on their way. No later version takes it over: it is of this moment. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, struct sluice_fragment_key);
	__type(value, struct sluice_fragment);
} fragments SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_XSKMAP);
	__uint(max_entries, SLUICE_WORKERS_MAX);
	__type(key, __u32); /* worker */
	__type(value, __u32);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, SLUICE_WORKERS_MAX);
	__type(key, __u32); /* ifindex of a trunk's far end */
	__type(value, __u32); /* worker */
} worker_of_trunk SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLUICE_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* What programs of other versions had counted when this one took over from them; no program touches it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, SLUICE_COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counted_before SEC(".maps");

/* Room that the stack has not, for one run of a program: none is interrupted by another one of ours on its CPU. */
struct scratch {
	struct sluice_cache_value value;
	struct sluice_key back;
	__u8 pad[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct scratch);
} scratch SEC(".maps");

static __always_inline void count(__u32 what)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &what);

	if (value)
		(*value)++;
}

static __always_inline int drop(__u32 reason)
{
	count(reason);
	return TCX_DROP;
}

#endif
