//go:build ignore

// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
// Names of kernel addresses, from the kernel's own table: asking for those that are wanted takes microseconds each, reading
// all of /proc/kallsyms 50 ms.
#include "kernel.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct name_query);
} ksyms SEC(".maps");

static const char format[] = "%pS"; /* name+offset/size [module]; a number where there is no symbol */

/* Run by the BPF system call only, with no context. */
SEC("raw_tracepoint")
int name_ksyms(void *ctx)
{
	u32 zero = 0;
	struct name_query *q = bpf_map_lookup_elem(&ksyms, &zero);

	if (!q)
		return 0;
	for (u32 i = 0; i < KSYMS; i++) {
		u64 addr = q->addr[i];

		if (!addr)
			break;
		bpf_snprintf(q->text[i], KSYM_BYTES, format, &addr, sizeof(addr));
	}
	return 0;
}
