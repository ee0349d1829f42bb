/* Identities in an LPM trie, what is allowed in a trie for each pod and direction: one run answers a stretch of queries.
 *
 * The shape of Cilium's maps, in its cheapest form: one lookup each, no wildcard identity, no deny entries. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

enum { QUESTIONS_MAX = 1 << 17, SIDES_MAX = 512 };

/* As Question of mod.rs. */
struct question {
	__u32 address; /* network order */
	__u16 side;
	__u16 port; /* network order */
	__u8 protocol, padding[3];
};

struct address_key {
	__u32 length, address;
};

struct allowed_key {
	__u32 length, label;
	__u8 protocol, padding;
	__u16 port;
};

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4194304);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address_key);
	__type(value, __u32);
} labels SEC(".maps");

struct allowed_map {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, 4194304);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	/* sizes: clang describes a type that only a map inside a map names as a forward declaration */
	__uint(key_size, sizeof(struct allowed_key));
	__uint(value_size, sizeof(__u32));
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, SIDES_MAX);
	__type(key, __u32);
	__array(values, struct allowed_map);
} allowed SEC(".maps");

/* One page-aligned piece of memory shared with the bench; as Shared of mod.rs. */
struct shared {
	__u32 first, count, padding[2];
	__u8 isolated[SIDES_MAX];
	struct question questions[QUESTIONS_MAX];
	__u8 passes[QUESTIONS_MAX];
};

struct shared shared = {};

static __always_inline int verdict(const struct question *question)
{
	__u32 side = question->side;
	if (!shared.isolated[side & (SIDES_MAX - 1)])
		return 1;
	struct address_key address = { .length = 32, .address = question->address };
	__u32 *label = bpf_map_lookup_elem(&labels, &address);
	void *ports = bpf_map_lookup_elem(&allowed, &side);
	if (!label || !ports)
		return 0;
	struct allowed_key key = { .length = 64, .label = *label, .protocol = question->protocol, .port = question->port };
	return bpf_map_lookup_elem(ports, &key) != 0;
}

static long answer(__u32 index, void *context)
{
	__u32 at = (shared.first + index) & (QUESTIONS_MAX - 1);
	shared.passes[at] = verdict(&shared.questions[at]);
	return 0;
}

SEC("xdp")
int answer_stretch(struct xdp_md *context)
{
	bpf_loop(shared.count, answer, 0, 0);
	return XDP_PASS;
}

char _license[] SEC("license") = "GPL";
