/* What the kernel's connection tracking and netfilter show. Only the fields that are read; the loader finds their places in
 * the running kernel. */
#ifndef SLUICE_NETFILTER_H
#define SLUICE_NETFILTER_H

#include <bpf/bpf_core_read.h>

#define NF_DROP 0
#define NF_ACCEPT 1
#define IFF_LOOPBACK 0x8
#define REPLY 1 /* IP_CT_DIR_REPLY */
/* Of connection tracking: a packet's place in its connection, in the low bits of the pointer to it; and bits of its status. */
#define TCP_PICKED_UP 0x08 /* IP_CT_TCP_FLAG_BE_LIBERAL: set where a connection was met in its middle */
#define PLACE_MASK 7
#define PLACE_ESTABLISHED 0
#define PLACE_NEW 2
#define STATUS_CONFIRMED 0x8
#define STATUS_SRC_NAT 0x10
#define STATUS_DST_NAT 0x20
/* Also of its status: a helper expected it, the node changes sequence numbers in it, or a helper reads what it says. */
#define STATUS_EXPECTED 0x1
#define STATUS_SEQ_ADJUST 0x40
#define STATUS_HELPER 0x2000

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

union nf_inet_addr {
	__u32 all[4];
};

struct nf_conntrack_man {
	union nf_inet_addr u3;
};

struct nf_conntrack_tuple {
	struct nf_conntrack_man src;
};

struct nf_conntrack_tuple_hash {
	struct nf_conntrack_tuple tuple;
};

struct ip_ct_tcp_state {
	__u8 flags;
};

struct ip_ct_tcp {
	struct ip_ct_tcp_state seen[2];
};

union nf_conntrack_proto {
	struct ip_ct_tcp tcp;
};

struct nf_conn {
	unsigned long status;
	struct nf_conntrack_tuple_hash tuplehash[2];
	union nf_conntrack_proto proto;
};

struct net_device {
	int ifindex;
	unsigned int flags;
};

struct sk_buff {
	__u32 mark;
	int skb_iif;
	unsigned long _nfct;
};

/* Stands for a word anywhere. */
struct timespec64 {
	__s64 tv_sec;
};

struct nf_hook_state {
	struct net_device *out;
};

struct bpf_nf_ctx {
	const struct nf_hook_state *state;
	struct sk_buff *skb;
};

#pragma clang attribute pop

/* The first 12 bytes, which every kernel takes. */
struct bpf_ct_opts___first {
	__s32 netns_id;
	__s32 error;
	__u8 l4proto;
	__u8 dir;
	__u8 reserved[2];
};

/* Absent where the kernel tracks no connections when the programs are loaded. Should it begin to later, packets are judged by
 * the source that they have, until the dataplane starts again. */
extern struct nf_conn *bpf_skb_ct_lookup(struct __sk_buff *skb_ctx, struct bpf_sock_tuple *bpf_tuple, __u32 tuple__sz,
					 struct bpf_ct_opts___first *opts, __u32 opts__sz) __ksym __weak;
extern struct nf_conn *bpf_xdp_ct_lookup(struct xdp_md *xdp_ctx, struct bpf_sock_tuple *bpf_tuple, __u32 tuple__sz,
					 struct bpf_ct_opts___first *opts, __u32 opts__sz) __ksym __weak;
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym;
extern void *bpf_cast_to_kern_ctx(void *ctx) __ksym;
extern void bpf_ct_release(struct nf_conn *nf) __ksym __weak;

/* The status of a packet's tracked connection, and its place in it; 0 where it is not tracked. */
static __always_inline unsigned long status_of(const struct sk_buff *skb, unsigned long *place)
{
	/* in a module that is not there, nothing is tracked */
	if (!bpf_core_field_exists(struct sk_buff, _nfct) || !bpf_core_field_exists(struct nf_conn, status))
		return 0;
	unsigned long connection = skb->_nfct;

	*place = connection & PLACE_MASK;
	connection &= ~(unsigned long)PLACE_MASK;
	if (!connection)
		return 0;
	/* read in place: the kernel may have the type in a module, where casts do not find it, but any word will do */
	void *status = (void *)connection + bpf_core_field_offset(struct nf_conn, status);
	struct timespec64 *word = bpf_rdonly_cast(status, bpf_core_type_id_kernel(struct timespec64));

	return word->tv_sec;
}

/* Whether a packet goes in its connection's direction and the node gave it another destination. */
static __always_inline int redirected(const struct sk_buff *skb)
{
	unsigned long place, status = status_of(skb, &place);

	/* answers are not, and errors about them go back the way they came */
	return status & STATUS_DST_NAT && (place == PLACE_ESTABLISHED || place == PLACE_NEW);
}

/* A question to connection tracking, in the scratch before the place of an origin: the stack has no room for it. */
struct question {
	struct bpf_sock_tuple ends;
	struct bpf_ct_opts___first options;
};

/* The tracked connection of a packet, or of what would answer it; the question's options tell in which direction. Release it. */
static __always_inline struct nf_conn *connection_of(struct __sk_buff *skb, const struct sluice_key *key, __u32 answers, struct question *q)
{
	const __u32 *words = (const __u32 *)key->src;
	__be16 sport = bpf_htons(answers ? key->dport : key->sport), dport = bpf_htons(answers ? key->sport : key->dport);

	__builtin_memset(&q->options, 0, sizeof(q->options));
	q->options.netns_id = -1;
	q->options.l4proto = key->protocol;
	if (!words[0] && !words[1] && words[2] == bpf_htonl(0xffff)) {
		__builtin_memcpy(&q->ends.ipv4.saddr, (answers ? key->dst : key->src) + 12, 4);
		__builtin_memcpy(&q->ends.ipv4.daddr, (answers ? key->src : key->dst) + 12, 4);
		q->ends.ipv4.sport = sport;
		q->ends.ipv4.dport = dport;
		return bpf_skb_ct_lookup(skb, &q->ends, sizeof(q->ends.ipv4), &q->options, sizeof(q->options));
	}
	__builtin_memcpy(q->ends.ipv6.saddr, answers ? key->dst : key->src, 16);
	__builtin_memcpy(q->ends.ipv6.daddr, answers ? key->src : key->dst, 16);
	q->ends.ipv6.sport = sport;
	q->ends.ipv6.dport = dport;
	return bpf_skb_ct_lookup(skb, &q->ends, sizeof(q->ends.ipv6), &q->options, sizeof(q->options));
}

static __always_inline struct question *question(void)
{
	__u32 zero = 0;
	struct scratch *room = bpf_map_lookup_elem(&scratch, &zero);

	_Static_assert(sizeof(struct question) <= __builtin_offsetof(struct sluice_cache_value, origin), "a question fits");
	return room && bpf_ksym_exists(bpf_skb_ct_lookup) ? (struct question *)&room->value : NULL;
}

/* Whether the kernel knows who opened connections of TCP over IPv4, and can be asked. */
static __always_inline int is_tracked(void)
{
	__u32 zero = 0;
	struct sluice_config *settings = bpf_map_lookup_elem(&config, &zero);

	return settings && settings->tracked && bpf_ksym_exists(bpf_skb_ct_lookup);
}

/* Who opened a tracked connection. */
static __always_inline void write_source(const struct nf_conn *connection, __u32 is_v4, __u8 *origin)
{
	const union nf_inet_addr *first = &connection->tuplehash[0].tuple.src.u3;
	__u32 *to = (__u32 *)origin;

	if (is_v4) {
		map_v4(origin, first->all[0]);
	} else {
		to[0] = first->all[0];
		to[1] = first->all[1];
		to[2] = first->all[2];
		to[3] = first->all[3];
	}
}

/* The status of the connection that a packet which comes from the node's stack has with it; 0 where that tells nothing. */
static __always_inline unsigned long carried_status(struct __sk_buff *skb)
{
	unsigned long place, status = status_of(bpf_cast_to_kern_ctx(skb), &place);

	return status & STATUS_CONFIRMED ? status : 0;
}

/* Whether the node has to see every packet of a connection: it changes sequence numbers in it, or a helper follows what it says. Of TCP
 * and UDP. */
static __noinline int needs_the_node(struct __sk_buff *skb, const struct sluice_key *key)
{
	unsigned long status = carried_status(skb);

	if (!status) {
		struct question *q = question();
		struct nf_conn *connection = q ? connection_of(skb, key, 1, q) : NULL;

		if (!connection)
			return 0;
		status = connection->status;
		bpf_ct_release(connection);
	}
	return !!(status & (STATUS_EXPECTED | STATUS_SEQ_ADJUST | STATUS_HELPER));
}

/* Of TCP in mid-connection: whether it comes from whoever opened it, as the kernel tracks it. SLUICE_TRUNK_ONWARD, SLUICE_TRUNK_BACK,
 * or 0 where it tells nothing: also of a connection that it met in its middle itself. Translated on one side or the other, either the
 * packet's ends or those of its answer are there. Of what leaves a pod for an opener whose source the node translated, `origin` (aligned,
 * 0 before) becomes that source. */
static __noinline __u8 way_of(struct __sk_buff *skb, const struct sluice_key *key, __u8 *origin)
{
	struct question *q = question();
	__u32 answers = 0;

	if (!q || !bpf_core_field_exists(struct nf_conn, proto.tcp.seen[0].flags))
		return 0;
	struct nf_conn *connection = connection_of(skb, key, 0, q);

	if (!connection) {
		answers = 1;
		connection = connection_of(skb, key, 1, q);
	}
	if (!connection)
		return 0;
	__u8 way = (q->options.dir == REPLY) != answers ? SLUICE_TRUNK_BACK : SLUICE_TRUNK_ONWARD;

	if (connection->proto.tcp.seen[0].flags & TCP_PICKED_UP) {
		way = 0;
	} else if (way == SLUICE_TRUNK_BACK && key->direction == SLUICE_EGRESS && !answers) {
		const __u32 *words = (const __u32 *)key->dst;

		write_source(connection, !words[0] && !words[1] && words[2] == bpf_htonl(0xffff), origin);
		if (!__builtin_memcmp(origin, key->dst, 16))
			__builtin_memset(origin, 0, 16);
	}
	bpf_ct_release(connection);
	return way;
}

/* The source of a packet that enters a pod as it was before this node translated it; 0 where it did not, or where the
 * kernel does not tell (it tells of TCP and UDP); `origin` is aligned, and 0 before. The packet is of the tracked connection's
 * original direction, so what answers it is found as its reply. */
static __noinline void find_origin(struct __sk_buff *skb, const struct parsed *p, __u8 *origin)
{
	struct question *q = question();

	if (!q || !p->keyed || (p->key.protocol != IPPROTO_TCP && p->key.protocol != IPPROTO_UDP))
		return;
	struct nf_conn *connection = connection_of(skb, &p->key, 1, q);

	if (!connection)
		return;
	if (q->options.dir == REPLY)
		write_source(connection, p->ethertype == ETH_P_IP, origin);
	bpf_ct_release(connection);
	if (!__builtin_memcmp(origin, p->key.src, 16))
		__builtin_memset(origin, 0, 16);
}

#endif
