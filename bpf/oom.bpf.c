//go:build ignore

// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
// Processes that the kernel kills for lack of memory (mm/oom_kill.c, mark_oom_victim), each as soon as it is chosen. SIGKILL
// has been sent by then. Their threads die in their own context a little later, and the memory is there until the last has: the
// first one copies the list of the runtime's memory profile.
#include "kernel.h"

const struct victim *unused_victim __attribute__((unused));
const struct heap_watch *unused_heap_watch __attribute__((unused));
const struct heap_piece *unused_heap_piece __attribute__((unused));

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

/* By PID, in the initial PID namespace. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, struct heap_watch);
} watched SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 23);
} pieces SEC(".maps");

/*
 * The kernel delivers signals with interrupts off: these bounds keep a copy within some ten milliseconds. A heap of more sites
 * is left to user space.
 */
#define MAX_BUCKETS (1 << 14)
#define BUCKET_HEADER 0x30 /* next, allnext, typ, hash, size, nstk */
#define MAX_BUCKET_STACK 256
#define MAX_RECORDS 128 /* four memRecordCycles */
#define PIECE_BYTES (BUCKET_HEADER + MAX_BUCKET_STACK * 8 + MAX_RECORDS)
#define MEM_BUCKET 1

struct piece_buffer {
	struct heap_piece head;
	u64 words[(PIECE_BYTES + 1024) / 8]; /* room for a bound that the verifier sees */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct piece_buffer);
} buffers SEC(".maps");

struct heap_copy {
	struct piece_buffer *to;
	u64 next; /* bucket */
	u32 records;
	bool whole;
};

/* copy hands on n bytes of the process's memory. */
static __always_inline bool copy(struct piece_buffer *b, u64 addr, u32 n)
{
	if (n > PIECE_BYTES || bpf_probe_read_user(b->words, n, (void *)addr))
		return false;
	b->head.addr = addr;
	b->head.bytes = n;
	return bpf_ringbuf_output(&pieces, b, sizeof(b->head) + n, 0) == 0;
}

static int copy_bucket(u32 i, struct heap_copy *c)
{
	struct piece_buffer *b = c->to;
	u64 addr = c->next, stack;

	if (!addr) {
		c->whole = true;
		return 1;
	}
	if (bpf_probe_read_user(b->words, BUCKET_HEADER, (void *)addr))
		return 1;
	c->next = b->words[1];
	stack = b->words[5];
	if (b->words[2] != MEM_BUCKET || stack > MAX_BUCKET_STACK)
		return 1;
	return copy(b, addr, BUCKET_HEADER + stack * 8 + (c->records & (2 * MAX_RECORDS - 1))) ? 0 : 1;
}

/* (int sig, struct kernel_siginfo *info, struct k_sigaction *ka), for fatal ones since Linux 5.1; kernel/signal.c: get_signal */
SEC("raw_tracepoint/signal_deliver")
int oom_deliver(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = bpf_get_current_task_btf();
	u32 pid = task->tgid, zero = 0;
	struct heap_watch *w = bpf_map_lookup_elem(&watched, &pid);
	struct heap_copy c = {.to = bpf_map_lookup_elem(&buffers, &zero)};

	if (ctx->args[0] != 9 || !w || !c.to || !task->signal->oom_mm || task->group_leader->start_boottime / 10000000 != w->start)
		return 0;
	if (__sync_lock_test_and_set(&w->taken, 1))
		return 0;
	c.records = w->records;
	c.to->head.pid = pid;
	if (copy(c.to, w->rate, 8) && (!w->cycle || copy(c.to, w->cycle, 8)) && copy(c.to, w->buckets, 8)) {
		c.next = c.to->words[0];
		bpf_loop(MAX_BUCKETS, copy_bucket, &c, 0);
	}
	c.to->head.addr = c.whole;
	c.to->head.bytes = 0;
	bpf_ringbuf_output(&pieces, c.to, sizeof(c.to->head), BPF_RB_FORCE_WAKEUP);
	return 0;
}
