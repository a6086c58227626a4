//go:build ignore

// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
// CPU samples of Go processes: a perf event fires, the process is looked up first, then the user stack is walked by frame
// pointer, across the runtime's stack switches, with as much raw stack as user space needs to make the leaf exact.
// unwind/ in user space knows what the pieces mean; here nothing depends on Go's pc tables.
#include "events.h"
#include "walk.h"
#include "labels.h"

const struct wire *unused_wire __attribute__((unused));

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* By CPU, what a tick stands for: ns. User space sets max_entries to the number of CPUs. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u64);
} periods SEC(".maps");

const volatile u32 clocked = 1; /* ticks come after so much time, not after so many cycles of a CPU that works */

/* user_regs copies the registers of user mode, also when the sample hit in the kernel. */
static __always_inline bool user_regs(struct bpf_perf_event_data *ctx, struct task_struct *task, struct pt_regs *out)
{
#if defined(__TARGET_ARCH_x86)
	u64 mode = *(volatile u64 *)&ctx->regs.cs;
	bool user = (mode & 3) != 0;
#else
	u64 mode = *(volatile u64 *)&ctx->regs.pstate;
	bool user = (mode & 0xf) == 0;
#endif
	if (user) {
		*(volatile u64 *)&REG_PC(out) = *(volatile u64 *)&REG_PC(&ctx->regs);
		*(volatile u64 *)&REG_SP(out) = *(volatile u64 *)&REG_SP(&ctx->regs);
		*(volatile u64 *)&REG_FP(out) = *(volatile u64 *)&REG_FP(&ctx->regs);
		*(volatile u64 *)&REG_G(out) = *(volatile u64 *)&REG_G(&ctx->regs);
		*(volatile u64 *)&REG_KEPT(out) = *(volatile u64 *)&REG_KEPT(&ctx->regs);
#if defined(__TARGET_ARCH_arm64)
		*(volatile u64 *)&REG_LR(out) = *(volatile u64 *)&REG_LR(&ctx->regs);
#endif
		return true;
	}
	struct pt_regs *regs = (struct pt_regs *)bpf_task_pt_regs(task);

	REG_PC(out) = REG_PC(regs);
	REG_SP(out) = REG_SP(regs);
	REG_FP(out) = REG_FP(regs);
	REG_G(out) = REG_G(regs);
	REG_KEPT(out) = REG_KEPT(regs);
#if defined(__TARGET_ARCH_arm64)
	REG_LR(out) = REG_LR(regs);
#endif
	return false;
}

/*
 * weigh says for how much CPU time a tick stands: its CPU's period. When that changes, a period is cut short: the tick behind the change
 * stands for all of the time since the last one. Ticks of idle CPUs come here, too, so that it is known when that was.
 */
static __always_inline u64 weigh(struct cpu_counts *n, struct settings *c, u32 cpu, u64 last, u64 now)
{
	u64 *period = bpf_map_lookup_elem(&periods, &cpu);
	bool steady = n->generation == c->generation && !c->changing;

	n->generation = c->generation;
	if (!period)
		return 0;
	if (steady || !clocked || !last)
		return *period;
	return now - last < c->longest ? now - last : c->longest;
}

/* sample records a tick in a target, for which a scratch has been found. */
static __always_inline void sample(struct bpf_perf_event_data *ctx, struct scratch *s, struct target *t, struct task_struct *task,
				   bool kernel_stacks)
{
	struct sample_header *h = (struct sample_header *)s->data;
	struct pt_regs regs;
	bool user = user_regs(ctx, task, &regs);

	h->rec.type = RECORD_SAMPLE;
	h->rec.kind = KIND_CPU;
	h->rec.flags = user ? 0 : SAMPLE_KERNEL;
	h->goid = 0;
	h->kernel_frames = 0;
	h->labels = 0;
	h->reserved = 0;
	h->size = 0;
	s->pos = sizeof(*h) / 8;
	if (!user && kernel_stacks) {
		long n = bpf_get_stack(ctx, &s->data[sizeof(*h) / 8], MAX_KERNEL_FRAMES * 8, 0);

		if (n > 0) {
			h->kernel_frames = n / 8;
			s->pos += n / 8;
		}
	}
	s->kept = REG_KEPT(&regs);
	find_g(s, t, task, &regs);
	walk(s, t, &regs);
	append_labels(s, t);
	h->rec.flags |= s->flags;
	h->segments = s->segments;
	h->goid = s->goid;
	h->labels = s->labels;
}

static __always_inline void recorded(struct cpu_counts *n, u32 flags)
{
	n->n[COUNT_RECORDED]++;
	if (flags & SAMPLE_DEPTH)
		n->n[COUNT_CUT_DEPTH]++;
}

SEC("perf_event")
int cpu_sample(struct bpf_perf_event_data *ctx)
{
	u64 now = bpf_ktime_get_ns();
	struct cpu_counts *n = bpf_map_lookup_elem(&counters, &only);
	struct settings *c = bpf_map_lookup_elem(&control, &only);

	if (!n || !c)
		return 0;
	u32 cpu = bpf_get_smp_processor_id();
	u64 value = weigh(n, c, cpu, n->last, now), id = ids();
	u32 pid = id >> 32;

	n->last = now;
	n->n[COUNT_TICKS]++;
	if (!pid)
		return 0;
	struct target *t = bpf_map_lookup_elem(&targets, &pid);

	if (!t || (t->flags & TARGET_WAIT_EXEC))
		return 0;
	struct task_struct *task = bpf_get_current_task_btf();
	u64 start = start_ticks(task);

	if (t->start && t->start != start) {
		n->n[COUNT_STALE_PID]++;
		return 0;
	}
	struct scratch *s = bpf_map_lookup_elem(&scratches, &cpu);

	if (!s || throttle(c, now, pid, value))
		return 0;
	struct sample_header *h = (struct sample_header *)s->data;

	sample(ctx, s, t, task, c->kernel_stacks);
	h->rec.pid = pid;
	h->rec.start = start;
	h->tid = id;
	h->cpu = cpu;
	h->time = now;
	h->value = value;

	u64 bytes = s->pos * 8;

	if (bytes > MAX_WORDS * 8)
		bytes = MAX_WORDS * 8;
	if (bpf_ringbuf_output(&samples, s->data, bytes, wakeup()))
		count_loss(pid, value);
	else
		recorded(n, s->flags);
	u64 spent = bpf_ktime_get_ns() - now;

	n->n[TIME_SAMPLES] += spent;
	charge(c, spent);
	return 0;
}

/*
 * (struct task_struct *parent, struct task_struct *child): a child runs its parent's program until it executes another one. The PID
 * of a task other than the current one is known in the initial PID namespace only.
 */
static __always_inline int forked(struct bpf_raw_tracepoint_args *ctx)
{
	u32 pid = ids() >> 32;
	struct target *t = bpf_map_lookup_elem(&targets, &pid);

	if (!t || !pid || pidns_ino || (t->flags & (TARGET_NEW | TARGET_WAIT_EXEC)))
		return 0;
	struct task_struct *child = (struct task_struct *)ctx->args[1];
	u32 of = BPF_CORE_READ(child, tgid);

	if (of != BPF_CORE_READ(child, pid)) /* a thread */
		return 0;
	struct target copy = *t;

	copy.start = BPF_CORE_READ(child, start_boottime) / 10000000;
	copy.flags |= TARGET_FORKED;
	if (bpf_map_update_elem(&targets, &of, &copy, 0))
		count(COUNT_NO_ROOM);
	return 0;
}

SEC("raw_tracepoint/sched_process_fork")
int process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	u64 began = bpf_ktime_get_ns();

	forked(ctx);
	return took(TIME_FORK, began);
}
