//go:build ignore

// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
// Processes that the kernel kills for lack of memory (mm/oom_kill.c, mark_oom_victim), each as soon as it is chosen. SIGKILL
// has been sent by then.
#include "kernel.h"

const struct victim *unused_victim __attribute__((unused));

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 16); /* pages of any size divide it */
} victims SEC(".maps");

/*
 * (struct task_struct *task, uid_t uid), on older kernels (int pid): a number that is no kernel address then.
 * Kernel include/trace/events/oom.h
 */
SEC("raw_tracepoint/mark_victim")
int oom_victim(struct bpf_raw_tracepoint_args *ctx)
{
	u64 arg = ctx->args[0];
	struct victim v = {.pid = arg};

	if (arg >> 32) {
		struct task_struct *task = (struct task_struct *)arg;

		v.pid = BPF_CORE_READ(task, tgid);
		v.start = BPF_CORE_READ(task, group_leader, start_boottime) / 10000000;
	}
	bpf_ringbuf_output(&victims, &v, sizeof(v), BPF_RB_FORCE_WAKEUP);
	return 0;
}
