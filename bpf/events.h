/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * What the programs of each object share: the targets, the ring buffer with its counters and losses, who runs, and the exec and
 * exit of targets. An object whose targets need more defines TARGET as a struct that begins with struct target.
 */
#ifndef PPROFD_EVENTS_H
#define PPROFD_EVENTS_H

#include "kernel.h"

#ifndef TARGET
#define TARGET struct target
#endif

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, TARGET);
} targets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} samples SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct cpu_counts);
} counters SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct settings);
} control SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct bucket);
} bucket SEC(".maps");

/* What was lost, by PID. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, struct loss);
} losses SEC(".maps");

/* What the limit has kept from being recorded, by PID. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, u32);
	__type(value, struct loss);
} throttled SEC(".maps");

/* Executables whose processes are no targets: user space has looked at them. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1); /* with discover more */
	__type(key, struct executable);
	__type(value, u8);
} strangers SEC(".maps");

const volatile u64 pidns_dev; /* our PID namespace; 0: the initial one */
const volatile u64 pidns_ino;
const volatile u32 wakeup_bytes = 1 << 18;
const volatile u32 discover; /* whatever executes a program is a target until user space has judged it */

static const u32 only = 0; /* the key of maps with one entry */

static __always_inline void add(u32 which, u64 n)
{
	struct cpu_counts *c = bpf_map_lookup_elem(&counters, &only);

	if (c)
		c->n[which] += n;
}

static __always_inline void count(u32 which)
{
	add(which, 1);
}

/* took counts what a program has taken since it began. */
static __always_inline int took(u32 which, u64 began)
{
	add(which, bpf_ktime_get_ns() - began);
	return 0;
}

static __always_inline void add_loss(void *map, u32 pid, u64 value)
{
	struct loss none = {}, *l = bpf_map_lookup_elem(map, &pid);

	if (!l) {
		bpf_map_update_elem(map, &pid, &none, BPF_NOEXIST);
		l = bpf_map_lookup_elem(map, &pid);
	}
	if (!l)
		return;
	__sync_fetch_and_add(&l->count, 1);
	__sync_fetch_and_add(&l->value, value);
}

static __always_inline void count_loss(u32 pid, u64 value)
{
	count(COUNT_LOST_RING);
	add_loss(&losses, pid, value);
}

/*
 * throttle: samples have taken what they may in this slot; this one, of value, is only counted. Two CPUs that begin a slot at the same
 * time may forget what one of them has charged: a sample of each CPU a slot.
 */
static __always_inline bool throttle(struct settings *c, u64 now, u32 pid, u64 value)
{
	struct bucket *b;

	if (!c->limit)
		return false;
	b = bpf_map_lookup_elem(&bucket, &only);
	if (!b)
		return false;
	if (b->slot != now >> SLOT_SHIFT) {
		b->slot = now >> SLOT_SHIFT;
		b->spent = 0;
	}
	if (b->spent < c->limit)
		return false;
	count(COUNT_THROTTLED);
	add_loss(&throttled, pid, value);
	return true;
}

static __always_inline void charge(struct settings *c, u64 ns)
{
	struct bucket *b;

	if (!c->limit)
		return;
	b = bpf_map_lookup_elem(&bucket, &only);
	if (b)
		__sync_fetch_and_add(&b->spent, ns);
}

/* ids returns (tgid << 32 | tid) as the PID namespace of pprofd sees them; 0 if it does not. */
static __always_inline u64 ids(void)
{
	struct bpf_pidns_info ns = {};

	if (!pidns_ino)
		return bpf_get_current_pid_tgid();
	if (bpf_get_ns_current_pid_tgid(pidns_dev, pidns_ino, (void *)&ns, sizeof(ns)))
		return 0;
	return (u64)ns.tgid << 32 | ns.pid;
}

static __always_inline u64 start_ticks(struct task_struct *task)
{
	return task->group_leader->start_boottime / 10000000;
}

static __always_inline u64 wakeup(void)
{
	return bpf_ringbuf_query(&samples, BPF_RB_AVAIL_DATA) >= wakeup_bytes ? BPF_RB_FORCE_WAKEUP : BPF_RB_NO_WAKEUP;
}

static __always_inline int emit_event(u8 type, u32 pid, u64 start)
{
	struct record_header r = {.type = type, .pid = pid, .start = start};
	/* Of many targets one or the other always ends, and nobody waits for that. */
	u64 flags = discover && type == RECORD_EXIT ? wakeup() : BPF_RB_FORCE_WAKEUP;

	if (bpf_ringbuf_output(&samples, &r, sizeof(r), flags))
		count(COUNT_EVENT_LOST);
	return 0;
}

/* newcomer makes a target of a process of which nothing is known yet, or of which what is known is of an earlier one. */
static __always_inline int newcomer(u32 pid, u64 start)
{
	TARGET none = {};
	struct target *t = (struct target *)&none;

	t->start = start;
	t->flags = TARGET_NEW;
	if (bpf_map_update_elem(&targets, &pid, &none, 0))
		count(COUNT_NO_ROOM);
	return emit_event(RECORD_EXEC, pid, start);
}

/* change_time of a file, in nanoseconds. */
static __always_inline s64 change_time(struct inode *i)
{
	struct inode___seconds *seconds = (void *)i;
	struct inode___hidden *hidden = (void *)i;
	struct inode___plain *plain = (void *)i;

	if (bpf_core_field_exists(seconds->i_ctime_sec))
		return BPF_CORE_READ(seconds, i_ctime_sec) * 1000000000 + (BPF_CORE_READ(seconds, i_ctime_nsec) & 0x7fffffff);
	if (bpf_core_field_exists(hidden->__i_ctime))
		return BPF_CORE_READ(hidden, __i_ctime.tv_sec) * 1000000000 + BPF_CORE_READ(hidden, __i_ctime.tv_nsec);
	return BPF_CORE_READ(plain, i_ctime.tv_sec) * 1000000000 + BPF_CORE_READ(plain, i_ctime.tv_nsec);
}

/* stranger: the process has executed a file of which nobody wants to know. */
static __always_inline bool stranger(struct task_struct *task)
{
	struct inode *i = BPF_CORE_READ(task, mm, exe_file, f_inode);
	struct executable e = {
		.inode = BPF_CORE_READ(i, i_ino),
		.size = BPF_CORE_READ(i, i_size),
		.changed = change_time(i),
		.dev = BPF_CORE_READ(i, i_sb, s_dev),
	};

	return bpf_map_lookup_elem(&strangers, &e);
}

static __always_inline int executed(void)
{
	u32 pid = ids() >> 32;

	if (!pid)
		return 0;
	struct target *t = bpf_map_lookup_elem(&targets, &pid);

	if (!t && !discover)
		return 0;
	struct task_struct *task = bpf_get_current_task_btf();
	u64 start = start_ticks(task);

	if (!t || (t->start && t->start != start))
		return discover && !stranger(task) ? newcomer(pid, start) : 0;
	if (discover && (t->flags & TARGET_FORKED) && stranger(task)) {
		bpf_map_delete_elem(&targets, &pid);
		return 0;
	}
	/*
	 * The layout was made for the program that this exec replaces, except where it was made for this exec: that target
	 * waits until the event is out, since a timer may fire in here, and user space takes what is sampled before the event
	 * for the program before.
	 */
	if (t->flags & TARGET_WAIT_EXEC) {
		emit_event(RECORD_EXEC, pid, start);
		t->flags &= ~TARGET_WAIT_EXEC;
		return 0;
	}
	t->flags = discover ? TARGET_NEW : 0;
	return emit_event(RECORD_EXEC, pid, start);
}

/* (struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm), kernel include/trace/events/sched.h */
SEC("raw_tracepoint/sched_process_exec")
int process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u64 began = bpf_ktime_get_ns();

	executed();
	return took(TIME_EXEC, began);
}

static __always_inline int exited(void)
{
	u32 pid = ids() >> 32;
	struct target *t = bpf_map_lookup_elem(&targets, &pid);

	if (!t || !pid)
		return 0;
	struct task_struct *task = bpf_get_current_task_btf();
	u64 start = start_ticks(task);

	if ((t->start && t->start != start) || task->signal->live.counter > 0)
		return 0;
	/* Two threads may find that none is left: the count goes down before the tracepoint. kernel/exit.c, do_exit */
	if (bpf_map_delete_elem(&targets, &pid) == -ENOENT)
		return 0;
	return emit_event(RECORD_EXIT, pid, start);
}

/* (struct task_struct *p, ...): once a thread; the last one counts. */
SEC("raw_tracepoint/sched_process_exit")
int process_exit(struct bpf_raw_tracepoint_args *ctx)
{
	u64 began = bpf_ktime_get_ns();

	exited();
	return took(TIME_EXIT, began);
}

#endif
