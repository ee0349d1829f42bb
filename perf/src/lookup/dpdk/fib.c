/* rte_fib and rte_hash: longest prefix -> label, (side, label) -> port ranges. */
#include <rte_errno.h>
#include <rte_fib.h>
#include <rte_hash.h>
#include <rte_hash_crc.h>
#include <stdint.h>
#include <stdlib.h>

enum { BURST_MAX = 64 };

struct prefix {
	uint32_t address, length, label;
};

/* As PortRange of labelled.rs. */
struct port_range {
	uint8_t protocol, padding;
	uint16_t first, last;
};

/* Of one side and label: ranges[first] up to, not including, ranges[end]. */
struct entry {
	uint32_t side, label, first, end;
};

struct question {
	uint32_t address;
	uint16_t side, port;
	uint8_t protocol, padding[3];
};

struct labels {
	struct rte_fib *fib;
	struct rte_hash *hash;
	const struct entry *entries;
	const struct port_range *ranges;
	const uint8_t *isolated;
};

void sluice_fib_free(struct labels *labels)
{
	if (labels) {
		rte_fib_free(labels->fib);
		rte_hash_free(labels->hash);
		free(labels);
	}
}

/* Keeps the pointers to entries, ranges and isolated. NULL and rte_errno where something does not fit. */
struct labels *sluice_fib_build(const struct prefix *prefixes, uint32_t prefix_count, uint32_t long_blocks, const struct entry *entries,
	uint32_t entry_count, const struct port_range *ranges, const uint8_t *isolated)
{
	struct labels *labels = calloc(1, sizeof *labels);
	if (!labels)
		return NULL;
	labels->entries = entries;
	labels->ranges = ranges;
	labels->isolated = isolated;
	struct rte_fib_conf fib = { .type = RTE_FIB_DIR24_8, .default_nh = 0, .max_routes = prefix_count + 1,
		.dir24_8 = { .nh_sz = RTE_FIB_DIR24_8_4B, .num_tbl8 = long_blocks + 1 } };
	labels->fib = rte_fib_create("labels", 0, &fib);
	struct rte_hash_parameters hash = { .name = "allowed", .entries = entry_count * 2 + 1024, .key_len = 2 * sizeof(uint32_t),
		.hash_func = rte_hash_crc, .socket_id = 0 };
	labels->hash = rte_hash_create(&hash);
	if (!labels->fib || !labels->hash)
		goto failed;
	for (uint32_t i = 0; i < prefix_count; i++)
		if (rte_fib_add(labels->fib, prefixes[i].address, prefixes[i].length, prefixes[i].label))
			goto failed;
	for (uint32_t i = 0; i < entry_count; i++) {
		uint32_t key[2] = { entries[i].side, entries[i].label };
		if (rte_hash_add_key_data(labels->hash, key, (void *)&entries[i]))
			goto failed;
	}
	/* fails where the processor has no AVX-512: the scalar lookup stays */
	rte_fib_select_lookup(labels->fib, RTE_FIB_LOOKUP_DIR24_8_VECTOR_AVX512);
	return labels;
failed:
	sluice_fib_free(labels);
	return NULL;
}

static inline uint8_t port_passes(const struct labels *labels, const struct entry *entry, const struct question *question)
{
	for (uint32_t i = entry->first; i < entry->end; i++) {
		const struct port_range *range = &labels->ranges[i];
		if ((!range->protocol || range->protocol == question->protocol) && range->first <= question->port && question->port <= range->last)
			return 1;
	}
	return 0;
}

static inline uint32_t zero_after(uint32_t value)
{
	__asm__ volatile("and $0, %0" : "+r"(value));
	return value;
}

void sluice_fib_serial(const struct labels *labels, const struct question *questions, size_t count, uint8_t *passes)
{
	uint32_t last = 0;
	for (size_t i = 0; i < count; i++) {
		const struct question *question = (const void *)((const char *)&questions[i] + zero_after(last));
		if (!labels->isolated[question->side]) {
			last = 1;
		} else {
			uint32_t address = question->address;
			uint64_t label;
			void *entry;
			rte_fib_lookup_bulk(labels->fib, &address, &label, 1);
			uint32_t key[2] = { question->side, label };
			last = rte_hash_lookup_data(labels->hash, key, &entry) >= 0 && port_passes(labels, entry, question);
		}
		passes[i] = last;
	}
}

void sluice_fib_batch(const struct labels *labels, const struct question *questions, size_t count, uint8_t *passes)
{
	for (size_t done = 0; done < count; done += BURST_MAX) {
		uint32_t length = count - done < BURST_MAX ? count - done : BURST_MAX;
		const struct question *burst = questions + done;
		uint32_t addresses[BURST_MAX], keys[BURST_MAX][2];
		uint64_t found[BURST_MAX], hits = 0;
		const void *key_of[BURST_MAX];
		void *entries[BURST_MAX];
		for (uint32_t i = 0; i < length; i++)
			addresses[i] = burst[i].address;
		rte_fib_lookup_bulk(labels->fib, addresses, found, length);
		for (uint32_t i = 0; i < length; i++) {
			keys[i][0] = burst[i].side;
			keys[i][1] = found[i];
			key_of[i] = keys[i];
		}
		rte_hash_lookup_bulk_data(labels->hash, key_of, length, &hits, entries);
		for (uint32_t i = 0; i < length; i++) {
			const uint8_t hit = hits >> i & 1;
			passes[done + i] = !labels->isolated[burst[i].side] || (hit && port_passes(labels, entries[i], &burst[i]));
		}
	}
}
