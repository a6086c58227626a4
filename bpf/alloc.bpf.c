//go:build ignore

// SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only)
// Allocations of Go processes: uprobes where the runtime's fast path of malloc ends. At each hit the bytes that were allocated
// since the last one are added to the process's totals; every control.interval bytes on average a stack is taken, as for CPU.
// Runtime sources: mcache.go, mheap.go (type mspan), mprof.go, Go 1.18 to 1.27.
#define TARGET struct alloc_target
#include "events.h"
#include "walk.h"
#include "labels.h"

const struct wire *unused_wire __attribute__((unused));

char LICENSE[] SEC("license") = "Dual BSD/GPL";

/* What was allocated, by PID. User space makes the entries. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, struct alloc_totals);
} allocated SEC(".maps");

const volatile u32 scratch_slots = 1;

/*
 * Since Linux 6.13 a program's stack may be one per CPU ("private"), for types whose programs do not run into one another
 * there. The kernel takes those at uprobes for such: but they may be preempted, and another thread's run on the same CPU meanwhile, with
 * the same stack. A program that could make a tail call gets none (check_max_stack_depth in kernel/bpf/verifier.c).
 * This one is never made, and the verifier removes it.
 */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} nowhere SEC(".maps");

const volatile bool tail_calls = false;

static __always_inline void no_private_stack(struct pt_regs *ctx)
{
	if (tail_calls)
		bpf_tail_call(ctx, &nowhere, 0);
}

/* batch is what one hit tells of: objects of one size and class, and for how many bytes a sample may be taken here. */
struct batch {
	u64 objects, size, weight;
	u32 class;
};

/* grows_stack: the branch at which the program stands is taken, to morestack, which comes back to the function's entry. */
static __always_inline bool grows_stack(struct pt_regs *ctx)
{
	u64 flags = *(volatile u64 *)&REG_FLAGS(ctx);

#if defined(__TARGET_ARCH_x86)
	return (flags & (1 << 0 | 1 << 6)) != 0; /* jbe: CF or ZF */
#else
	return (flags & (1 << 29)) == 0 || (flags & (1 << 30)) != 0; /* b.ls: C clear or Z set */
#endif
}

/*
 * probed returns the target that stands at a site, if what it does there counts. The kernel calls these programs for the
 * process only that they were attached to (by its address space), so that the PID is not another's.
 */
static __always_inline struct alloc_target *probed(struct pt_regs *ctx, u32 pid, u32 site)
{
	struct alloc_target *t = bpf_map_lookup_elem(&targets, &pid);

	if (!t || !pid || !(t->target.flags & TARGET_ALLOC))
		return 0;
	return t->stack_checks & 1 << site && grows_stack(ctx) ? 0 : t;
}

static __always_inline void add_total(struct alloc_totals *all, struct batch *b)
{
	if (b->class >= SPAN_CLASSES)
		return;
	struct alloc_total *total = &all->of[b->class];

	__sync_fetch_and_add(&total->hits, 1);
	if (!b->objects)
		return;
	total->size = b->size; /* first: who sees the bytes knows of what */
	__sync_fetch_and_add(&total->bytes, b->objects * b->size);
}

/* acquire finds a scratch that nobody uses: these programs may be preempted, and another thread's run on this CPU meanwhile. */
static __always_inline struct scratch *acquire(void)
{
	u32 slot = bpf_get_smp_processor_id();

	for (u32 i = 0; i < 4; i++) {
		u32 key = (slot + i) % scratch_slots;
		struct scratch *s = bpf_map_lookup_elem(&scratches, &key);

		if (s && !__sync_lock_test_and_set(&s->busy, 1))
			return s;
	}
	return 0;
}

static __always_inline void release(struct scratch *s)
{
	__sync_lock_test_and_set(&s->busy, 0);
}

#define MOST_SPENT 200000 /* ns of one hit; whatever took longer was preempted */

/* spend adds what a hit has taken. Others may do so at the same time. */
static __always_inline void spend(u64 ns)
{
	struct cpu_counts *n = bpf_map_lookup_elem(&counters, &only);

	if (n)
		__sync_fetch_and_add(&n->n[TIME_SAMPLES], ns < MOST_SPENT ? ns : MOST_SPENT);
}

#define TIMED 16 /* one hit in so many is timed, but for the stacks that are taken */

/* hit counts one; it returns when it began if it is to be timed. */
static __always_inline u64 hit(void)
{
	struct cpu_counts *n = bpf_map_lookup_elem(&counters, &only);

	if (!n)
		return 0;
	__sync_fetch_and_add(&n->n[COUNT_HITS], 1);
	return n->n[COUNT_HITS] % TIMED ? 0 : bpf_ktime_get_ns();
}

static __always_inline void timed(u64 began)
{
	u64 ns;

	if (!began)
		return;
	ns = bpf_ktime_get_ns() - began;
	if (ns < MOST_SPENT)
		spend(ns * TIMED);
}

/* record takes a stack. */
static __always_inline void record(struct pt_regs *ctx, struct scratch *s, struct alloc_target *t, struct sample_header *h)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct pt_regs regs;

	*(volatile u64 *)&REG_PC(&regs) = *(volatile u64 *)&REG_PC(ctx);
	*(volatile u64 *)&REG_SP(&regs) = *(volatile u64 *)&REG_SP(ctx);
	*(volatile u64 *)&REG_FP(&regs) = *(volatile u64 *)&REG_FP(ctx);
	*(volatile u64 *)&REG_G(&regs) = *(volatile u64 *)&REG_G(ctx);
#if defined(__TARGET_ARCH_arm64)
	*(volatile u64 *)&REG_LR(&regs) = *(volatile u64 *)&REG_LR(ctx);
#endif
	h->rec.type = RECORD_SAMPLE;
	h->rec.kind = KIND_ALLOC;
	h->rec.start = start_ticks(task);
	h->cpu = bpf_get_smp_processor_id();
	h->kernel_frames = 0;
	h->reserved = 0;
	s->pos = sizeof(*h) / 8;
	s->kept = 0; /* the runtime's functions are Go */
	find_g(s, &t->target, task, &regs);
	walk(s, &t->target, &regs);
	append_labels(s, &t->target);
	h->rec.flags = s->flags;
	h->segments = s->segments;
	h->goid = s->goid;
	h->labels = s->labels;
}

/* take records a sample that stands for value bytes of objects of one size. */
static __always_inline void take(struct pt_regs *ctx, struct alloc_target *t, u64 id, u64 value, u64 size)
{
	struct settings *c = bpf_map_lookup_elem(&control, &only);
	u64 now = bpf_ktime_get_ns();
	u32 pid = id >> 32;

	if (!c || throttle(c, now, pid, value))
		return;
	struct scratch *s = acquire();

	if (!s) {
		count_loss(pid, value);
		return;
	}
	struct sample_header *h = (struct sample_header *)s->data;

	record(ctx, s, t, h);
	h->rec.pid = pid;
	h->tid = id;
	h->time = now;
	h->value = value;
	h->size = size;

	u64 bytes = s->pos * 8;

	if (bytes > MAX_WORDS * 8)
		bytes = MAX_WORDS * 8;
	if (bpf_ringbuf_output(&samples, s->data, bytes, wakeup())) {
		count_loss(pid, value);
	} else {
		count(COUNT_RECORDED);
		if (s->flags & SAMPLE_DEPTH)
			count(COUNT_CUT_DEPTH);
	}
	release(s);
	now = bpf_ktime_get_ns() - now;
	spend(now);
	charge(c, now < MOST_SPENT ? now : MOST_SPENT);
}

/*
 * due adds a batch to the totals, and says for how many bytes a sample is to be taken; 0: none is. It is with a probability of
 * weight / interval, each time anew: the bytes between two samples are exponentially distributed. A sample stands for interval
 * bytes, one that had to come for its own.
 */
static __always_inline u64 due(u32 pid, struct batch *b)
{
	struct settings *c = bpf_map_lookup_elem(&control, &only);
	struct alloc_totals *all = bpf_map_lookup_elem(&allocated, &pid);
	u64 bytes = b->weight, interval;

	if (!c || !all)
		return 0;
	interval = c->interval;
	if (bytes >= interval && b->class <= CLASS_LARGE)
		b->class = CLASS_ALWAYS;
	add_total(all, b);
	if (!bytes)
		return 0;
	if (bytes >= interval)
		return bytes;
	return bpf_get_prandom_u32() * interval < bytes << 32 ? interval : 0;
}

/* field reads n bytes of what was read of a span. */
#define FIELD(type, words, off) (*(type *)((char *)(words) + ((off) & (SPAN_TAIL - sizeof(type)))))

#define BLOCK 64 /* slots of a span that the runtime looks at together (mspan.allocCache) */

/*
 * weigh_block weighs a hit of nextFree, which the runtime calls where a block is used up: at the end of a span, and before. Bytes
 * are counted at the end; samples are taken at all hits, half of them at the end. The object for which the span ended is the first
 * of the next one; those of other hits are the last of their blocks. Between these lies an odd number of objects where the span
 * has an even number of slots, so that of two functions that take turns each is met as often as the other.
 */
static __always_inline void weigh_block(struct batch *b, u64 free, u64 nelems)
{
	u64 inner = (nelems - 1) / BLOCK, bytes = free * b->size; /* inner: hits before the end, of a span that was empty */
	bool end = b->objects == free;

	if (!inner)
		b->weight = end ? bytes : 0;
	else
		b->weight = end ? bytes / 2 : bytes / 2 / inner;
	if (!end)
		b->objects = 0;
}

/* used reads how much of a span has been allocated since it was taken. */
static __always_inline bool used(struct alloc_target *t, u64 span, u32 class, struct batch *b, bool by_block)
{
	u64 words[SPAN_TAIL / 8] = {}, nelems = 0, size;
	u16 n, before = 0;

	b->objects = b->weight = 0;
	b->class = class;
	if (!span || !user_read(words, sizeof(words), span + t->span_tail))
		return false;
	n = FIELD(u16, words, t->span_count);
	if (!n)
		return true; /* emptymspan, or a new one */
	size = FIELD(u64, words, t->span_size);
	if (FIELD(u8, words, t->span_class) != class || !size || size > 1 << 20)
		return false;
	if (by_block && (!user_read(&nelems, t->wide_nelems ? 8 : 2, span + t->span_nelems) || nelems < n || nelems > 1 << 16))
		return false;
	if (t->span_before)
		before = FIELD(u16, words, t->span_before);
	if (before > n)
		return false;
	b->size = size;
	b->objects = n - before;
	b->weight = b->objects * size;
	if (by_block)
		weigh_block(b, nelems - before, nelems);
	return true;
}

static __always_inline int span_used(struct pt_regs *ctx, u32 site, bool by_block)
{
	u64 began = hit(), id = ids(), c = *(volatile u64 *)&REG_ARG0(ctx), span = 0, value = 0;
	u32 class = *(volatile u64 *)&REG_ARG1(ctx) & 0xff;
	struct alloc_target *t = probed(ctx, id >> 32, site);
	struct batch b = {};

	if (!t)
		return 0;
	if (class >= SPAN_CLASSES || !user_read(&span, 8, c + t->mcache_alloc + 8 * class) || !used(t, span, class, &b, by_block))
		count(COUNT_BAD_SPAN);
	else
		value = due(id >> 32, &b);
	timed(began);
	if (value)
		take(ctx, t, id, value, b.size);
	return 0;
}

SEC("uprobe.multi")
int alloc_refill(struct pt_regs *ctx)
{
	no_private_stack(ctx);
	return span_used(ctx, SITE_REFILL, false);
}

SEC("uprobe.multi")
int alloc_next_free(struct pt_regs *ctx)
{
	no_private_stack(ctx);
	return span_used(ctx, SITE_NEXT_FREE, true);
}

static __always_inline int large_object(struct pt_regs *ctx, u32 site, u64 size)
{
	u64 began = hit(), id = ids(), value;
	struct alloc_target *t = probed(ctx, id >> 32, site);
	struct batch b = {.objects = 1, .class = CLASS_LARGE};

	if (!t)
		return 0;
	b.size = b.weight = (size + PAGE_MASK) & ~(u64)PAGE_MASK; /* what the runtime counts */
	value = due(id >> 32, &b);
	timed(began);
	if (value)
		take(ctx, t, id, value, b.size);
	return 0;
}

SEC("uprobe.multi")
int alloc_large(struct pt_regs *ctx)
{
	no_private_stack(ctx);
	return large_object(ctx, SITE_LARGE, *(volatile u64 *)&REG_ARG1(ctx));
}

SEC("uprobe.multi")
int alloc_malloc_large(struct pt_regs *ctx)
{
	no_private_stack(ctx);
	return large_object(ctx, SITE_MALLOC_LARGE, *(volatile u64 *)&REG_ARG0(ctx));
}

#define SPANS_AT_ONCE 8

/* Most spans of an mcache are the runtime's empty one, as that of class 0 always is: they are passed over. */
static __always_inline void add_spans(struct alloc_target *t, struct alloc_totals *all, u64 c)
{
	u64 empty = 0;

	for (u32 first = 0; first < SPAN_CLASSES; first += SPANS_AT_ONCE) {
		u64 spans[SPANS_AT_ONCE] = {};

		if (!user_read(spans, sizeof(spans), c + t->mcache_alloc + 8 * first)) {
			count(COUNT_BAD_SPAN);
			return;
		}
		if (!first)
			empty = spans[0];
		for (u32 i = 0; i < SPANS_AT_ONCE; i++) {
			struct batch b = {};

			if (spans[i] != empty && used(t, spans[i], first + i, &b, false) && b.objects)
				add_total(all, &b);
		}
	}
}

SEC("uprobe.multi")
int alloc_release(struct pt_regs *ctx)
{
	u64 began = bpf_ktime_get_ns(), id = ids(), c = *(volatile u64 *)&REG_ARG0(ctx);
	u32 pid = id >> 32;
	struct alloc_target *t = probed(ctx, pid, SITE_RELEASE);
	struct alloc_totals *all = bpf_map_lookup_elem(&allocated, &pid);

	no_private_stack(ctx);
	count(COUNT_HITS);
	if (!t || !all || !t->span_before)
		return 0;
	add_spans(t, all, c);
	spend(bpf_ktime_get_ns() - began);
	return 0;
}

SEC("uprobe.multi")
int alloc_profile(struct pt_regs *ctx)
{
	u64 id = ids(), size = *(volatile u64 *)&REG_ARG2(ctx);
	struct alloc_target *t = probed(ctx, id >> 32, SITE_PROFILE);

	no_private_stack(ctx);
	count(COUNT_HITS);
	if (t && size)
		take(ctx, t, id, size, size);
	return 0;
}
