/* rte_acl behind five functions: everything that DPDK inlines into its users, and the loops that are timed. */
#include <rte_acl.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_malloc.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* As FlatRule of flat.rs. */
struct flat_rule {
	uint32_t prefix;
	uint8_t length, protocol;
	uint16_t first, last;
};

/* What is matched, in network order; as Key of mod.rs. */
struct key {
	uint8_t protocol, padding[3];
	uint32_t address;
	uint16_t port, zero;
};

RTE_ACL_RULE_DEF(acl_rule, 4);

int sluice_dpdk_start(unsigned int cpu, unsigned int megabytes)
{
	char core[16], memory[16];
	snprintf(core, sizeof core, "%u", cpu);
	snprintf(memory, sizeof memory, "%u", megabytes);
	char *arguments[] = { "sluice-perf", "--no-huge", "-m", memory, "-l", core, "--no-pci", "--no-shconf", "--no-telemetry",
		"--log-level=4", "--force-max-simd-bitwidth=512" };
	int count = sizeof arguments / sizeof *arguments;
	return rte_eal_init(count, arguments) < 0 ? rte_errno : 0;
}

uint64_t sluice_dpdk_heap_bytes(void)
{
	struct rte_malloc_socket_stats stats;
	return rte_malloc_get_socket_stats(0, &stats) == 0 ? stats.heap_allocsz_bytes : 0;
}

/* NULL and rte_errno where a rule or the memory is not as it should be. */
struct rte_acl_ctx *sluice_acl_build(const struct flat_rule *rules, uint32_t count, uint32_t number)
{
	char name[32];
	snprintf(name, sizeof name, "acl%u", number);
	struct rte_acl_param parameters = { .name = name, .socket_id = 0, .rule_size = RTE_ACL_RULE_SZ(4),
		.max_rule_num = count ? count : 1 };
	struct rte_acl_ctx *context = rte_acl_create(&parameters);
	struct acl_rule *list = calloc(count ? count : 1, sizeof *list);
	if (!context || !list)
		goto failed;
	for (uint32_t i = 0; i < count; i++) {
		const struct flat_rule *rule = &rules[i];
		list[i].data = (struct rte_acl_rule_data){ .category_mask = 1, .priority = 1, .userdata = 1 };
		list[i].field[0].value.u8 = rule->protocol;
		list[i].field[0].mask_range.u8 = rule->protocol ? 0xff : 0;
		list[i].field[1].value.u32 = rule->prefix;
		list[i].field[1].mask_range.u32 = rule->length;
		list[i].field[2].value.u16 = rule->first;
		list[i].field[2].mask_range.u16 = rule->last;
		list[i].field[3].mask_range.u16 = 0xffff;
	}
	struct rte_acl_config config = { .num_categories = 1, .num_fields = 4, .defs = {
		{ .type = RTE_ACL_FIELD_TYPE_BITMASK, .size = 1, .field_index = 0, .input_index = 0, .offset = 0 },
		{ .type = RTE_ACL_FIELD_TYPE_MASK, .size = 4, .field_index = 1, .input_index = 1, .offset = 4 },
		{ .type = RTE_ACL_FIELD_TYPE_RANGE, .size = 2, .field_index = 2, .input_index = 2, .offset = 8 },
		{ .type = RTE_ACL_FIELD_TYPE_RANGE, .size = 2, .field_index = 3, .input_index = 2, .offset = 10 } } };
	int failure = rte_acl_add_rules(context, (void *)list, count);
	if (!failure)
		failure = rte_acl_build(context, &config);
	if (failure) {
		rte_errno = -failure;
		goto failed;
	}
	free(list);
	return context;
failed:
	free(list);
	rte_acl_free(context);
	return NULL;
}

void sluice_acl_free(struct rte_acl_ctx *context)
{
	rte_acl_free(context);
}

int sluice_dpdk_errno(void)
{
	return rte_errno;
}

/* 0, but not before `value` is known. */
static inline uint32_t zero_after(uint32_t value)
{
	__asm__ volatile("and $0, %0" : "+r"(value));
	return value;
}

int sluice_acl_serial(struct rte_acl_ctx *const *contexts, const struct key *keys, const uint16_t *sides, size_t count, int algorithm,
	uint8_t *passes)
{
	uint32_t last = 0;
	int failure = 0;
	for (size_t i = 0; i < count; i++) {
		size_t zero = zero_after(last);
		const uint8_t *data = (const uint8_t *)&keys[i] + zero;
		const uint16_t *side = (const uint16_t *)((const uint8_t *)&sides[i] + zero);
		failure |= rte_acl_classify_alg(contexts[*side], &data, &last, 1, 1, algorithm);
		passes[i] = last != 0;
	}
	return failure;
}

/* One call for each run of one side, at most 64 long. */
int sluice_acl_batch(struct rte_acl_ctx *const *contexts, const uint8_t **data, const uint16_t *sides, size_t count, int algorithm,
	uint8_t *passes)
{
	int failure = 0;
	for (size_t i = 0; i < count;) {
		uint32_t results[64], length = 1;
		while (i + length < count && length < 64 && sides[i + length] == sides[i])
			length++;
		failure |= rte_acl_classify_alg(contexts[sides[i]], data + i, results, length, 1, algorithm);
		for (uint32_t j = 0; j < length; j++)
			passes[i + j] = results[j] != 0;
		i += length;
	}
	return failure;
}
