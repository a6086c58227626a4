/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * The walk: frame records [fp] = caller's fp, [fp+8] = return address, on one stack after the other. All state lives in the
 * scratch map, not in registers or on the BPF stack: to the verifier it is unknown then, and a loop of 1,024 stays one state.
 */
#ifndef PPROFD_WALK_H
#define PPROFD_WALK_H

#include "kernel.h"

#define MAX_WORDS 4096
#define CHUNK_WORDS 256
#define CHUNK_BYTES (CHUNK_WORDS * 8)
#define G_BYTES 384
#define M_BYTES 256
#define MAX_STEPS (MAX_FRAMES + SCAN_BYTES / 8 + 16)
#define GCOPYSTACK 8 /* _Gcopystack of runtime/runtime2.go; the mask leaves _Gscan out */
#define GSTATUS_MASK 0xfff
#define RESTORER_BYTES 16
#define MIN_STACK 2048 /* runtime/stack.go: stackMin */
#define RACE_WORDS 32 /* below racecall's frame: what the C function that it calls pushes, and its callees */
#define CGO_SLACK (1 << 20) /* the runtime's idea of a C thread's stack end is a guess */

enum scan_for {
	SCAN_RECORD = 1,   /* a frame record */
	SCAN_RESTORER = 2, /* the return address of a signal handler: the start of the kernel's signal frame */
	SCAN_RACECALL = 3, /* downwards: the goroutine's stack pointer, which C code keeps for racecall */
};

struct scratch {
	/* the walk */
	u64 fp, lo, hi;
	u64 pc, sp;	 /* of the current segment */
	u64 base, valid; /* what chunk holds */
	u64 segment;	 /* index of the current segment's header in data */
	u64 pos;	 /* next free word of data */
	u64 resume;	 /* the g.sched.sp saved below a callback from C; 0: none */
	u64 resume_sp;	 /* SP of that cgocallback frame; arm64: where it runs on g0's stack, to which its frame pointer still points */
	u64 from_pc, from_sp, from_fp, from_lr, from_kind; /* where the next segment begins: the arguments of enter_segment */
	u64 scan;	 /* next word of chunk to look at for a frame record */
	u32 frames, segments, stack, joined; /* stack: enum stack_id */
	u32 searched;			     /* segments when a signal frame was searched for */
	u32 total;			     /* frames of all segments */
	u32 flags, labels, copying, scanning; /* copying: curg's stack is being moved */
	/* goroutine identity */
	u64 g, g0, gsignal, curg, goid, labels_ptr;
	u64 cur_lo, cur_hi, g0_lo, g0_hi, sig_lo, sig_hi;
	u64 sched_sp, sched_pc, sched_bp, sched_lr; /* sched_lr: arm64 */
	u64 kept; /* the register in which racecall keeps the goroutine's SP */
	/* labels */
	u64 lptr, lcount, lold, lbuckets, lslot, lbase;
	u64 gbuf[G_BYTES / 8];
	u64 mbuf[M_BYTES / 8];
	u64 chunk[CHUNK_WORDS + 2 + 16];
	u64 busy; /* where programs may be preempted: somebody's */
	u64 data[MAX_WORDS + SCAN_BYTES / 8 + 16];
};

struct {
	/* One a CPU; too large for a per-CPU array. User space sets max_entries to the number of CPUs. */
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

const volatile u32 have_loop = 1; /* bpf_loop, Linux 5.17 */

struct walk_ctx {
	struct scratch *s;
	struct target *t;
};

/* The stack pointer of the caller, from the callee's frame record and the caller's frame pointer in it. */
#if defined(__TARGET_ARCH_x86)
#define CALLER_SP(record, next) ((record) + 16)
#define WINDOW_BELOW 0
#define SCHED_LR(s, t) 0
#else
#define CALLER_SP(record, next) ((next) + 8)
#define WINDOW_BELOW 16 /* the frame record lies just below SP */
/* gobuf.lr, just before gobuf.bp: the caller of a function that called morestack before it had a frame. runtime2.go */
#define SCHED_LR(s, t) ((s)->sched_lr)
#endif

/* Behind a check: keeps the compiler from using a copy of x from before it, whose bound the verifier does not know. */
#define BARRIER(x) asm volatile("" : "+r"(x))

static __always_inline bool user_read(void *dst, u32 n, u64 addr)
{
	return bpf_probe_read_user(dst, n, (void *)addr) == 0;
}

static __always_inline u64 gword(struct scratch *s, u32 off)
{
	u32 i = off >> 3;

	return i < G_BYTES / 8 ? s->gbuf[i] : 0;
}

static __always_inline u64 mword(struct scratch *s, u32 off)
{
	u32 i = off >> 3;

	return i < M_BYTES / 8 ? s->mbuf[i] : 0;
}

static __always_inline void stack_bounds(u64 g, u64 *lo, u64 *hi)
{
	u64 b[2] = {};

	if (g && user_read(b, sizeof(b), g) && b[0] < b[1]) {
		*lo = b[0];
		*hi = b[1];
	}
}

static __always_inline void take_curg(struct scratch *s, struct target *t)
{
	s->cur_lo = s->gbuf[0];
	s->cur_hi = s->gbuf[1];
	s->goid = gword(s, t->g_goid);
	s->labels_ptr = gword(s, t->g_labels);
	s->sched_sp = gword(s, t->g_sched_sp);
	s->sched_pc = gword(s, t->g_sched_pc);
	s->sched_bp = gword(s, t->g_sched_bp);
#if defined(__TARGET_ARCH_arm64)
	s->sched_lr = gword(s, t->g_sched_bp - 8);
#endif
	s->copying = t->g_status && ((u32)(gword(s, t->g_status) >> ((t->g_status & 4) * 8)) & GSTATUS_MASK) == GCOPYSTACK;
}

/* find_g fills in who runs: the thread's g, its m's g0, gsignal and curg, the bounds of their stacks, goid and labels. */
static __always_inline void find_g(struct scratch *s, struct target *t, struct task_struct *task, struct pt_regs *regs)
{
	s->g = s->g0 = s->gsignal = s->curg = s->goid = s->labels_ptr = 0;
	s->cur_lo = s->cur_hi = s->g0_lo = s->g0_hi = s->sig_lo = s->sig_hi = 0;
	s->sched_sp = s->sched_pc = s->sched_bp = s->sched_lr = 0;
	s->flags = s->copying = 0;
	if (!(t->flags & TARGET_LAYOUT)) {
		s->flags = SAMPLE_NO_G;
		return;
	}
	u64 g = REG_G(regs);

	if (t->flags & TARGET_TLS) {
#if defined(__TARGET_ARCH_x86)
		u64 tp = task->thread.fsbase;
#else
		u64 tp = task->thread.uw.tp_value;
#endif
		g = 0;
		user_read(&g, 8, tp + t->tls);
	}
	s->flags = SAMPLE_NO_G;
	if (!g || !user_read(s->gbuf, G_BYTES, g))
		return;
	u64 m = gword(s, t->g_m);

	if (!m || !user_read(s->mbuf, M_BYTES, m))
		return;
	s->flags = 0;
	s->g = g;
	s->g0 = s->mbuf[0];
	s->gsignal = mword(s, t->m_gsignal);
	s->curg = mword(s, t->m_curg);
	if (s->curg == g) {
		take_curg(s, t);
		return;
	}
	s->flags = SAMPLE_ON_G0;
	if (g == s->g0) {
		s->g0_lo = s->gbuf[0];
		s->g0_hi = s->gbuf[1];
	}
	if (s->curg && user_read(s->gbuf, G_BYTES, s->curg))
		take_curg(s, t);
}

static __always_inline bool within(u64 p, u64 lo, u64 hi)
{
	return p >= lo && p < hi;
}

/* on_stack makes the stack that sp lies on the current one. */
static __always_inline void on_stack(struct scratch *s, struct target *t, u64 sp)
{
	s->stack = STACK_UNKNOWN;
	s->lo = 0;
	s->hi = ~0ULL;
	if (!s->g)
		return;
	/* Until copystack has adjusted them, frame records of the new stack point into the old one, which is still there. */
	if (s->copying && (s->segments > 1 || within(sp, s->cur_lo, s->cur_hi)))
		return;
	s->lo = sp - 16; /* arm64 keeps the frame record below SP */
	if (within(sp, s->cur_lo, s->cur_hi + 1)) {
		s->stack = STACK_CURG;
		s->hi = s->cur_hi;
		return;
	}
	if (!s->g0_hi)
		stack_bounds(s->g0, &s->g0_lo, &s->g0_hi);
	if (t->flags & TARGET_CGO && !within(sp, s->g0_lo, s->g0_hi) && !s->sig_hi)
		stack_bounds(s->gsignal, &s->sig_lo, &s->sig_hi);
	if (within(sp, s->g0_lo, s->g0_hi + 1) ||
	    ((t->flags & TARGET_CGO) && !within(sp, s->sig_lo, s->sig_hi))) {
		s->stack = STACK_G0;
		s->hi = s->g0_hi;
		if (t->flags & TARGET_CGO)
			s->hi = (sp > s->g0_hi ? sp : s->g0_hi) + CGO_SLACK;
		return;
	}
	if (!s->sig_hi)
		stack_bounds(s->gsignal, &s->sig_lo, &s->sig_hi);
	s->hi = sp + CGO_SLACK;
	if (within(sp, s->sig_lo, s->sig_hi)) {
		s->stack = STACK_SIGNAL;
		s->hi = s->sig_hi;
	}
}

static __always_inline bool fp_ok(struct scratch *s)
{
	return s->fp >= s->lo && s->fp + 16 <= s->hi && s->fp + 16 > s->fp && !(s->fp & 7);
}

/* load_chunk makes chunk hold the memory from addr on, as much as the stack has. */
static __always_inline bool load_chunk(struct scratch *s, u64 addr)
{
	u64 len = s->hi - addr;

	s->base = addr;
	s->valid = 0;
	if (len > CHUNK_BYTES)
		len = CHUNK_BYTES;
	BARRIER(len);
	if (len > CHUNK_BYTES)
		return false;
	if (!user_read(s->chunk, len, addr)) {
		len = 16;
		if (!user_read(s->chunk, 16, addr))
			return false;
	}
	s->valid = len;
	return true;
}

/* load reads the frame record at s->fp. */
static __always_inline bool load(struct scratch *s, u64 *next, u64 *ra)
{
	u64 off = s->fp - s->base;

	if (off >= s->valid || off + 16 > s->valid) {
		if (!load_chunk(s, s->fp))
			return false;
		off = 0;
	}
	u64 i = (off >> 3) & (CHUNK_WORDS - 1);

	BARRIER(i);
	*next = s->chunk[i];
	*ra = s->chunk[i + 1];
	return true;
}

static __always_inline void end_segment(struct scratch *s, u32 why)
{
	u64 at = s->segment;

	if (!s->segments || at > MAX_WORDS)
		return;
	BARRIER(at);
	struct segment_header *h = (struct segment_header *)&s->data[at];

	h->frames = s->frames;
	h->ended = why;
	s->frames = 0;
}

#if defined(__TARGET_ARCH_arm64)
static __always_inline u64 stack_start(struct scratch *s)
{
	if (s->stack == STACK_CURG)
		return s->cur_lo;
	return s->stack == STACK_G0 ? s->g0_lo : s->sig_lo;
}
#endif

/*
 * enter_segment starts a piece of stack at (pc, sp, fp) and copies the window above sp. A global function: the verifier
 * checks it once, however many callers it has. Zero: there is no room.
 */
__noinline long enter_segment(struct scratch *s, struct target *t)
{
	if (!s || !t)
		return 0;
	u64 at = s->pos, pc = s->from_pc, sp = s->from_sp, fp = s->from_fp;

	if (at > MAX_WORDS - 64 || s->segments >= MAX_SEGMENTS || !pc)
		return 0;
	BARRIER(at);
	struct segment_header *h = (struct segment_header *)&s->data[at];

#if defined(__TARGET_ARCH_x86)
	/* Up to Go 1.25 a call of duffzero or duffcopy is surrounded by a frame record below SP: see through it. */
	if (fp < sp && fp + 16 >= sp)
		user_read(&fp, 8, fp);
#endif
	h->pc = pc;
	h->sp = sp;
	h->fp = fp;
	h->lr = s->from_lr;
	h->frames = 0;
	h->kind = s->from_kind;
	h->scanned = 0;
	h->ended = 0;
	s->segment = at;
	s->segments++;
	s->pc = pc;
	s->sp = sp;
	s->fp = fp;
	on_stack(s, t, sp);
#if defined(__TARGET_ARCH_arm64)
	/* The same, and where a function without calls has freed its frame: R29 is behind, the record is always at SP-8. obj7.go */
	if (s->stack != STACK_UNKNOWN && fp < sp - 8 && fp >= stack_start(s))
		h->fp = s->fp = fp = sp - 8;
#endif
	/* RBP may be a scratch register in Go's assembly: look for the frame record further up. */
	bool scan = s->stack != STACK_UNKNOWN && !fp_ok(s) && fp != 0 && within(pc, t->text, t->etext) &&
		    !within(fp, s->cur_lo, s->cur_hi);

	h->stack = s->stack;
	u64 len = scan ? SCAN_BYTES : WINDOW_BYTES;

	if (s->hi - sp < len)
		len = (s->hi - sp) & ~7ULL;
	if (len > SCAN_BYTES)
		len = SCAN_BYTES;
	BARRIER(len);
	if (len > SCAN_BYTES)
		return 0;
	if (!user_read(&s->data[at + sizeof(*h) / 8], len, sp - WINDOW_BELOW)) {
		len = 64;
		if (!user_read(&s->data[at + sizeof(*h) / 8], 64, sp - WINDOW_BELOW))
			len = 0;
	}
	h->window_bytes = len;
	s->pos = at + sizeof(*h) / 8 + len / 8;
	s->scanning = 0;
	if (scan && load_chunk(s, sp)) {
		s->scanning = SCAN_RECORD;
		s->scan = 0;
	}
	return 1;
}

static __always_inline bool begin_segment(struct scratch *s, struct target *t, u32 kind, u64 pc, u64 sp, u64 fp, u64 lr)
{
	s->from_kind = kind;
	s->from_pc = pc;
	s->from_sp = sp;
	s->from_fp = fp;
	s->from_lr = lr;
	return enter_segment(s, t) != 0;
}

#if defined(__TARGET_ARCH_arm64)
/* The kernel's signal frame, and the record {magic, size} of the vector registers, which is the first of its sigcontext. */
#define SIGNAL_FRAME 4688
#define SIGNAL_FPSIMD (128 + 176 + 288)
#define FPSIMD_RECORD (528ULL << 32 | 0x46508001)

/*
 * A handler is entered with SP at the signal frame, and has it there when it returns (arch/arm64/kernel/signal.c, setup_return and
 * get_sigframe). Above the frame lies a frame record of what was interrupted, which the handler's own chain ends with. The handler
 * returns to the vDSO, so that no return address tells where the frame is; its own words do.
 */
static __always_inline bool is_signal_frame(u64 frame)
{
	u64 record;

	return user_read(&record, 8, frame + SIGNAL_FPSIMD) && record == FPSIMD_RECORD;
}
#endif

static __always_inline long enter_interrupted(struct scratch *s, struct target *t, u64 frame)
{
	u64 regs[8]; /* of struct sigcontext: amd64 bp bx dx ax cx sp ip, arm64 see below */

	end_segment(s, END_SWITCH);
#if defined(__TARGET_ARCH_x86)
	/* rt_sigframe: pretcode, ucontext {flags, link, stack[3], sigcontext {r8..r15, di, si, bp, bx, dx, ax, cx, sp, ip}} */
	if (!user_read(regs, 56, frame + 8 + 40 + 80))
		return 1;
	return !begin_segment(s, t, SEGMENT_SIGNAL, regs[6], regs[5], regs[0], 0);
#else
	/* rt_sigframe: siginfo (128), ucontext {flags, link, stack[3], sigmask (128), sigcontext at 176: fault_address, regs[31], sp, pc} */
	if (!user_read(regs, 32, frame + 128 + 176 + 8 + 29 * 8))
		return 1;
	return !begin_segment(s, t, SEGMENT_SIGNAL, regs[3], regs[2], regs[0], regs[1]);
#endif
}

/*
 * The race detector's C code runs on g0's stack for a goroutine, and uses the frame pointer as it likes. racecall keeps the
 * goroutine's SP in a register that C functions save before they use it. What lies there is the return address into Go.
 */
static __always_inline long enter_racecaller(struct scratch *s, struct target *t, u64 sp)
{
	u64 ra = 0;

	if (!within(sp, s->cur_lo, s->cur_hi) || (sp & 7) || !user_read(&ra, 8, sp) || !within(ra, t->text, t->etext))
		return 0;
	s->scanning = 0;
	s->joined = 1;
	end_segment(s, END_SWITCH);
	/* a frame pointer that is none: look for the record */
	return begin_segment(s, t, SEGMENT_RESUME, ra, sp + 8, 1, 0) ? 1 : 2;
}

/* in_racecall finds out whether this stack is the race detector's, and begins to search it then. */
static __always_inline bool in_racecall(struct scratch *s, struct target *t)
{
#if defined(__TARGET_ARCH_x86)
	u64 top = 0, ra = 0;

	if (!t->racecall_ret || s->stack != STACK_G0 || s->joined || !s->curg || s->g != s->curg ||
	    !user_read(&top, 8, s->g0 + t->g_sched_sp))
		return false;
	top = (top & ~15ULL) - 8;
	if (s->sp > top || !user_read(&ra, 8, top) || ra != t->racecall_ret ||
	    !user_read(s->chunk, RACE_WORDS * 8, top - RACE_WORDS * 8))
		return false;
	/* That may be left from an earlier call while the vDSO runs: what calls it uses 16 or 32 bytes there. sys_linux_amd64.s */
	if (within(s->chunk[RACE_WORDS - 2], t->text, t->etext) || within(s->chunk[RACE_WORDS - 4], t->text, t->etext))
		return false;
	s->base = top - RACE_WORDS * 8;
	s->valid = RACE_WORDS * 8;
	s->scan = RACE_WORDS;
	s->scanning = SCAN_RACECALL;
	return true;
#else
	return false;
#endif
}

/* scan_racecall looks at the next word of chunk, from the top: who pushes the register first has what racecall left there. */
static __always_inline long scan_racecall(struct scratch *s, struct target *t)
{
	u64 i = --s->scan, sp = s->kept;
	bool last = i >= RACE_WORDS || s->base + i * 8 < s->sp; /* it is still in the register, then */

	if (!last) {
		i &= RACE_WORDS - 1;
		BARRIER(i);
		sp = s->chunk[i];
	}
	if (last)
		s->scanning = 0; /* nowhere: the chain may lead back */
	return enter_racecaller(s, t, sp) == 2;
}

/* scan_word looks at the next word of chunk. A frame record is a pointer up this stack, then an address in Go's text. */
static __always_inline long scan_word(struct scratch *s, struct target *t)
{
	u64 i = s->scan++;

	if (i >= CHUNK_WORDS - 1 || i * 8 + 16 > s->valid) {
		u64 end = s->scanning == SCAN_RESTORER;

		s->scanning = 0;
		if (end)
			end_segment(s, END_BOUNDS);
		return end;
	}
	i &= CHUNK_WORDS - 1;
	BARRIER(i);
	u64 at = s->base + i * 8, next = s->chunk[i], ra = s->chunk[i + 1];

	if (s->scanning == SCAN_RESTORER) {
		if (next != t->restorer)
			return 0;
		s->scanning = 0;
		return enter_interrupted(s, t, at);
	}
	if (next <= at || next >= s->hi || (next & 7) || !within(ra, t->text, t->etext))
		return 0;
	u64 seg = s->segment;

	if (seg > MAX_WORDS)
		return 1;
	BARRIER(seg);
	struct segment_header *h = (struct segment_header *)&s->data[seg];

	s->fp = at;
	s->scanning = 0;
	h->fp = at;
	h->scanned = 1;
	return 0;
}

/*
 * Up to Go 1.20 frame records on arm64 keep their pointers when a growing stack is copied (runtime.adjustframe): those of older
 * frames point into stacks that are gone. The copy lies as far from the stack's end as the original, and stacks end at multiples
 * of 2 KiB; so the record is the next one up this stack with the same low bits.
 */
static __always_inline bool find_copied(struct scratch *s, struct target *t)
{
#if defined(__TARGET_ARCH_arm64)
	u64 record[2], at = s->lo + ((s->fp - s->lo) & (MIN_STACK - 1));

	if (s->stack != STACK_CURG || at + 16 > s->hi || !user_read(record, 16, at) || !within(record[1], t->text, t->etext))
		return false;
	s->fp = at;
	return true;
#else
	return false;
#endif
}

/* The chain has left the current stack: go on where the runtime says that this stack was entered from. Nonzero ends the walk. */
static __always_inline long leave_stack(struct scratch *s, struct target *t, u32 why)
{
	u64 resume = s->resume, saved[2] = {};

	if (find_copied(s, t))
		return 0;
	if (s->stack == STACK_G0 && resume) {
		end_segment(s, END_SWITCH);
		s->resume = 0;
#if defined(__TARGET_ARCH_x86)
		if (!user_read(&saved[1], 8, resume - 8))
			return 1;
		saved[0] = resume + t->asmcgocall_fp;
#else
		/* cgocallback has g0's sched.sp at 16(RSP); below it asmcgocall has left g and how deep in g's stack it was called */
		if (!user_read(saved, 8, s->resume_sp + 16) || !user_read(saved, 16, saved[0] - 16) || saved[0] != s->curg)
			return 1; /* called from a thread of C */
		resume = s->cur_hi - saved[1];
		if (!within(resume, s->cur_lo, s->cur_hi) || !user_read(&saved[1], 8, resume - 48))
			return 1;
		saved[0] = resume - 8;
#endif
		return !begin_segment(s, t, SEGMENT_RESUME, saved[1], resume, saved[0], 0);
	}
	/* While a signal is handled g is gsignal; a chain that leads back to the goroutine is better than its g.sched then. */
	bool back = within(s->fp, s->cur_lo, s->cur_hi), switched = s->g == s->g0 || (s->g == s->gsignal && !back);

	if (s->stack == STACK_SIGNAL && s->searched != s->segments) {
		s->searched = s->segments;
#if defined(__TARGET_ARCH_x86)
		if (t->restorer && load_chunk(s, s->sp)) {
			if (within(s->pc, t->restorer, t->restorer + RESTORER_BYTES))
				return enter_interrupted(s, t, s->sp - 8);
			s->scanning = SCAN_RESTORER;
			s->scan = 0;
			return 0;
		}
#else
		if (is_signal_frame(s->sp))
			return enter_interrupted(s, t, s->sp);
		if (is_signal_frame(s->lo - 16 - SIGNAL_FRAME))
			return enter_interrupted(s, t, s->lo - 16 - SIGNAL_FRAME);
#endif
	}
	if (s->stack == STACK_G0 && switched && s->curg && s->sched_pc && !s->joined) {
		end_segment(s, END_SWITCH);
		s->joined = 1;
		return !begin_segment(s, t, SEGMENT_SCHED, s->sched_pc, s->sched_sp, s->sched_bp, SCHED_LR(s, t));
	}
	/* vDSO code runs on the g0 stack for the goroutine, and its chain leads back; so does sigtramp's */
	if (s->stack != STACK_CURG && s->stack != STACK_UNKNOWN && back) {
		on_stack(s, t, s->fp);
		return 0;
	}
	end_segment(s, why);
	return 1;
}

/*
 * walk_step takes one frame record, or one word of a scan. Nonzero ends the walk. A global function: the verifier checks
 * it once, on its own, however often a loop calls it.
 */
__noinline long walk_step(struct scratch *s, struct target *t)
{
	u64 next, ra, at;

	if (!s || !t)
		return 1;
	at = s->pos;
	if (s->scanning == SCAN_RACECALL)
		return scan_racecall(s, t);
	if (s->scanning)
		return scan_word(s, t);
	if (at >= MAX_WORDS || s->total >= MAX_FRAMES) {
		s->flags |= SAMPLE_DEPTH;
		end_segment(s, END_DEPTH);
		return 1;
	}
	if (!s->fp && s->stack != STACK_G0) {
		end_segment(s, END_ZERO);
		return 1;
	}
	if (!fp_ok(s))
		return leave_stack(s, t, END_BOUNDS);
	if (!load(s, &next, &ra))
		return leave_stack(s, t, END_FAULT);
	u64 record = s->fp;

	at &= 2 * MAX_WORDS - 1;
	BARRIER(at);
	if (at >= MAX_WORDS)
		return 1;
	s->data[at] = ra;
	s->pos = at + 1;
	s->frames++;
	s->total++;
	s->fp = next;
	if (s->stack != STACK_UNKNOWN)
		s->lo = record + 16;
	if (ra == t->sigtramp_ret && ra)
		return enter_interrupted(s, t, CALLER_SP(record, next) + t->sigtramp_delta);
	if (ra == t->cgocallback_ret && ra) {
		s->resume = CALLER_SP(record, next) + t->cgocallback_delta;
		s->resume_sp = CALLER_SP(record, next);
		s->stack = STACK_G0;
		if (!s->g0_hi)
			stack_bounds(s->g0, &s->g0_lo, &s->g0_hi);
		s->lo = s->g0_lo;
		s->hi = s->g0_hi + CGO_SLACK;
	}
	return 0;
}

static long step(u32 i, struct walk_ctx *c)
{
	long end = walk_step(c->s, c->t);

	BARRIER(end); /* the verifier does not know what walk_step returns, and wants 0 or 1 */
	return end ? 1 : 0;
}

/* walk appends the segments of the user stack. */
static __always_inline void walk(struct scratch *s, struct target *t, struct pt_regs *regs)
{
	struct walk_ctx c = {.s = s, .t = t};
	long n = 0;

	s->segments = s->frames = s->joined = s->searched = s->total = 0;
	s->resume = s->base = s->valid = 0;
	if (!begin_segment(s, t, SEGMENT_START, REG_PC(regs), REG_SP(regs), REG_FP(regs), REG_LR(regs)))
		return;
	in_racecall(s, t);
	if (have_loop) {
		n = bpf_loop(MAX_STEPS, step, &c, 0);
	} else {
		for (n = 0; n < MAX_FRAMES_PLAIN; n++)
			if (walk_step(s, t))
				break;
	}
	if (n >= (have_loop ? MAX_STEPS : MAX_FRAMES_PLAIN)) {
		s->flags |= SAMPLE_DEPTH;
		end_segment(s, END_DEPTH);
	}
}

#endif
