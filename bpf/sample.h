/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* The wire between the BPF programs and user space: the only header that both sides share. bpf2go makes the Go side. */
#ifndef PPROFD_SAMPLE_H
#define PPROFD_SAMPLE_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;

#define MAX_FRAMES 1024	    /* user frames of one sample */
#define MAX_FRAMES_PLAIN 255 /* the same on kernels without bpf_loop */
#define MAX_KERNEL_FRAMES 127
#define MAX_SEGMENTS 6
#define MAX_LABELS 32
#define MAX_LABEL_BYTES 256 /* of one key or one value */
#define WINDOW_BYTES 512    /* user stack copied from SP */
#define SCAN_BYTES 2048	    /* the same where the frame pointer is used as a scratch register */

enum record_type {
	RECORD_SAMPLE = 1,
	RECORD_EXEC = 2,
	RECORD_EXIT = 3,
};

enum sample_kind {
	KIND_CPU = 1,
	KIND_ALLOC = 2,
};

enum sample_flag {
	SAMPLE_DEPTH = 1 << 0,	  /* cut at MAX_FRAMES */
	SAMPLE_LABELS = 1 << 1,	  /* labels were cut at MAX_LABELS or MAX_LABEL_BYTES */
	SAMPLE_KERNEL = 1 << 2,	  /* hit in kernel mode */
	SAMPLE_NO_G = 1 << 3,	  /* the goroutine could not be read */
	SAMPLE_ON_G0 = 1 << 4,	  /* TLS g was not the user goroutine */
	SAMPLE_LABEL_ERR = 1 << 5, /* labels could not be read */
};

/* Every record starts with these 16 bytes. */
struct record_header {
	u8 type;
	u8 kind;
	u16 flags;
	u32 pid;
	u64 start; /* of the process, clock ticks since boot, as /proc/PID/stat has it */
};

/* A sample: this header, kernel_frames words, then segments, then labels. */
struct sample_header {
	struct record_header rec;
	u32 tid;
	u32 cpu;
	u64 time; /* CLOCK_MONOTONIC, ns */
	u64 goid;
	u64 value; /* weight, in the kind's unit */
	u16 kernel_frames;
	u16 segments;
	u16 labels;
	u16 reserved;
	u64 size; /* KIND_ALLOC: bytes of one object */
};

enum segment_kind {
	SEGMENT_START = 1,  /* the interrupted registers */
	SEGMENT_SCHED = 2,  /* the goroutine that called systemstack, asmcgocall, mcall or morestack: its g.sched */
	SEGMENT_RESUME = 3, /* the Go code below a callback from C */
	SEGMENT_SIGNAL = 4, /* the code that a signal handler interrupted */
};

/*
 * A piece of user stack: this header, window_bytes/8 words of memory from sp (arm64: from sp - 16), then frames return addresses of
 * the frame pointer chain that starts at fp.
 */
struct segment_header {
	u64 pc;
	u64 sp;
	u64 fp; /* where the chain starts; recovered by scanning where the register held none */
	u64 lr; /* arm64 */
	u16 frames;
	u16 window_bytes;
	u8 kind;
	u8 scanned; /* fp was recovered */
	u8 ended;   /* enum segment_end */
	u8 stack;   /* enum stack_id: where sp lies */
};

enum stack_id {
	STACK_UNKNOWN = 0,
	STACK_CURG = 1, /* of the user goroutine */
	STACK_G0 = 2,	/* of the thread */
	STACK_SIGNAL = 3,
};

enum segment_end {
	END_ZERO = 1,	/* frame pointer 0: the bottom */
	END_BOUNDS = 2, /* the chain left the stack */
	END_FAULT = 3,	/* memory could not be read */
	END_DEPTH = 4,	/* MAX_FRAMES */
	END_SWITCH = 5, /* goes on in the next segment */
};

/* One label: this header, then key_bytes and value_bytes bytes, each padded to 8. */
struct label_header {
	u16 key_bytes;
	u16 value_bytes;
	u16 key_cut;
	u16 value_cut; /* 1: longer than MAX_LABEL_BYTES */
};

enum target_flag {
	TARGET_WAIT_EXEC = 1 << 0, /* not sampled before its next exec */
	TARGET_LAYOUT = 1 << 1,	   /* the offsets below are valid */
	TARGET_CGO = 1 << 2,
	TARGET_TLS = 1 << 3, /* g is found through the thread pointer, else in a register (arm64) */
	TARGET_LABELS_MAP = 1 << 4,
	TARGET_LABELS_SLICE = 1 << 5,
	TARGET_ALLOC = 1 << 6, /* struct alloc_target: its layout is valid */
	TARGET_NEW = 1 << 7,   /* whether it is one is not known yet */
	TARGET_FORKED = 1 << 8, /* a copy of its parent's, of which user space has not been told */
};

/* What the programs know of a process: the value of the targets map. Addresses are run-time ones. */
struct target {
	u64 start; /* ticks; 0: any */
	u32 flags;
	u32 reserved;
	s64 tls;
	u16 g_m, g_sched_sp, g_sched_pc, g_sched_bp;
	u16 g_goid, g_labels, m_gsignal, m_curg;
	u64 text, etext;
	u64 sigtramp_ret;    /* the return address of sigtramp's call of sigtrampgo */
	u64 cgocallback_ret; /* the return address of cgocallback's call of cgocallbackg */
	u64 racecall_ret;    /* the return address of racecall's call of the race detector; 0: there is none */
	u64 restorer;	     /* runtime.sigreturn__sigaction, to which signal handlers return; 0: unknown */
	u32 sigtramp_delta;  /* from SP at that address to the signal frame */
	u32 cgocallback_delta; /* from SP at that address to the g.sched.sp saved there */
	s32 asmcgocall_fp;   /* amd64: from that g.sched.sp to the frame record that the chain goes on with */
	u16 g_status;
	u16 reserved2;
};

#define KSYMS 64
#define KSYM_BYTES 256

/* A question to name_ksyms, and its answer. */
struct name_query {
	u64 addr[KSYMS]; /* 0: no more */
	char text[KSYMS][KSYM_BYTES];
};

/* A process that the kernel kills for lack of memory. */
struct victim {
	u64 start; /* clock ticks since boot; 0: the kernel does not say */
	u32 pid;   /* in the initial PID namespace; of a thread of the process where start is 0 */
	u32 unused;
};

/* Where a process keeps its memory profile: run-time addresses, 0: none. runtime/mprof.go */
struct heap_watch {
	u64 start; /* clock ticks since boot */
	u64 buckets, cycle, rate;
	u32 records; /* bytes of a bucket behind its stack */
	u32 taken;   /* a thread has copied it */
};

/* A piece of a victim's memory, as it was at addr. The last one has no bytes, and an addr of 1 if nothing is missing. */
struct heap_piece {
	u64 addr;
	u32 pid, bytes;
};

/* The functions of the runtime at which allocations are seen. */
enum alloc_site {
	SITE_REFILL = 0,   /* (*mcache).refill(c, spanClass): a span has been used up */
	SITE_NEXT_FREE = 1, /* (*mcache).nextFree(c, spanClass): stands in where refill was inlined into it */
	SITE_LARGE = 2,	   /* (*mcache).allocLarge(c, size, noscan): an object with a span of its own */
	SITE_RELEASE = 3,  /* (*mcache).releaseAll(c): a garbage collection takes the spans back before they are full */
	SITE_PROFILE = 4,  /* profilealloc(mp, x, size): the runtime itself samples this object */
	SITE_MALLOC_LARGE = 5, /* mallocgcLarge(size, typ, needzero): stands in where allocLarge was inlined into it */
	SITE_MAX = 8,
};

/* What the allocation programs know of a process beside the target: the value of their targets map. */
struct alloc_target {
	struct target target;
	u32 stack_checks; /* bits by alloc_site: probed at the branch of the stack check, which a growing stack comes to twice */
	u16 mcache_alloc;
	u16 span_nelems, span_tail; /* of mspan; the others are relative to span_tail, at most SPAN_TAIL bytes from there */
	u8 span_count, span_class, span_before, span_size; /* span_before 0: there is none (Go 1.18) */
	u16 wide_nelems; /* mspan.nelems has 8 bytes, else 2 */
	u32 reserved[2];
};

#define SPAN_CLASSES 136 /* twice the size classes of the runtime: with pointers and without */
#define SPAN_TAIL 32	 /* bytes of mspan that hold all that is read at each hit; offsets in it are multiples of their size */
#define PAGE_MASK 8191	 /* the runtime's pages have 8 KiB */
#define CLASS_LARGE 0	 /* objects that are sampled, with spans of their own */
#define CLASS_ALWAYS 1	 /* objects of at least alloc_interval bytes: each is in the profile */

/* All that a process has allocated of a class while it was probed, sampled or not. */
struct alloc_total {
	u64 bytes;
	u64 hits; /* of probes that told of it */
	u64 size; /* of an object; CLASS_LARGE, CLASS_ALWAYS: of the last */
};

/* The same by span class: numbers only grow, so that who reads them loses nothing. */
struct alloc_totals {
	struct alloc_total of[SPAN_CLASSES];
};

struct loss {
	u64 count;
	u64 value;
};

/* A file that is executed, as the kernel knows it. */
struct executable {
	u64 inode;
	s64 size;
	s64 changed; /* ns since 1970 */
	u32 dev;     /* major << 20 | minor */
	u32 unused;
};

enum counter {
	COUNT_RECORDED = 0,
	COUNT_LOST_RING = 1,   /* the ring buffer was full */
	COUNT_STALE_PID = 2,   /* the PID belongs to another process by now */
	COUNT_EVENT_LOST = 3,  /* exec or exit events that found no room */
	COUNT_CUT_DEPTH = 4,
	COUNT_BAD_SPAN = 5, /* hits at which no span lay where one was expected */
	COUNT_NO_ROOM = 6, /* processes that found the map of targets full */
	COUNT_TICKS = 7,   /* perf interrupts, whoever ran */
	COUNT_HITS = 8,	   /* of uprobes */
	COUNT_THROTTLED = 9, /* samples that were not taken, since the limit was reached */
	/* What the programs took, in nanoseconds. */
	TIME_SAMPLES = 10, /* ticks in targets; hits */
	TIME_EXEC = 11,
	TIME_EXIT = 12,
	TIME_FORK = 13,
	COUNT_MAX = 14,
};

/* What a CPU counts, and knows of its ticks. */
struct cpu_counts {
	u64 n[COUNT_MAX];
	u64 last;	/* tick, CLOCK_MONOTONIC */
	u64 generation; /* of control, at the last tick */
};

/* What user space may change while the programs run. */
struct settings {
	u64 generation; /* of the periods */
	u64 changing;	/* they are being changed: ticks may come of the old ones, or of the new ones */
	u64 longest;	/* ns between two ticks of a CPU while they are changed */
	u64 limit;	/* ns that samples may take in a slot, all CPUs together; 0: there is none */
	u64 interval;	/* bytes of allocation between two samples, below 1 << 31 */
	u64 kernel_stacks;
};

#define SLOT_SHIFT 27 /* a slot of control.limit has 1 << 27 ns */

/* What samples have taken of a slot. */
struct bucket {
	u64 slot;
	u64 spent; /* ns */
};

/* Makes the compiler describe the types above in the object's BTF, from which bpf2go makes their Go side. */
struct wire {
	enum record_type record_type;
	enum sample_kind sample_kind;
	enum sample_flag sample_flag;
	enum segment_kind segment_kind;
	enum segment_end segment_end;
	enum stack_id stack_id;
	enum target_flag target_flag;
	enum counter counter;
	struct record_header record_header;
	struct sample_header sample_header;
	struct segment_header segment_header;
	struct label_header label_header;
	struct target target;
	struct loss loss;
	struct executable executable;
	enum alloc_site alloc_site;
	struct alloc_target alloc_target;
	struct alloc_totals alloc_totals;
	struct cpu_counts cpu_counts;
	struct settings settings;
};

#define SAME_SIZE(type, n) _Static_assert(sizeof(type) == (n), #type)
SAME_SIZE(struct record_header, 16);
SAME_SIZE(struct sample_header, 64);
SAME_SIZE(struct segment_header, 40);
SAME_SIZE(struct label_header, 8);
SAME_SIZE(struct target, 104);
SAME_SIZE(struct alloc_target, 128);
SAME_SIZE(struct alloc_total, 24);
SAME_SIZE(struct victim, 16);
SAME_SIZE(struct heap_watch, 40);
SAME_SIZE(struct heap_piece, 16);

#endif
