/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/* The few kernel types that the programs read, declared by hand: CO-RE finds the fields on the running kernel. */
#ifndef PPROFD_KERNEL_H
#define PPROFD_KERNEL_H

#include "sample.h"

typedef _Bool bool;
#define true 1
#define false 0
#define ENOENT 2 /* include/uapi/asm-generic/errno-base.h */

typedef u8 __u8;
typedef u16 __u16;
typedef u32 __u32;
typedef u64 __u64;
typedef s32 __s32;
typedef s64 __s64;
typedef u16 __be16;
typedef u32 __be32;
typedef u32 __wsum;

enum {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PROG_ARRAY = 3,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_LRU_HASH = 9,
	BPF_MAP_TYPE_RINGBUF = 27,
};
enum {
	BPF_RB_NO_WAKEUP = 1,
	BPF_RB_FORCE_WAKEUP = 2,
	BPF_RB_AVAIL_DATA = 0,
	BPF_NOEXIST = 1,
	BPF_F_NO_PREALLOC = 1,
};

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct signal_struct {
	struct {
		int counter;
	} live;
	void *oom_mm; /* of an OOM victim */
};

struct thread_struct {
#if defined(__TARGET_ARCH_x86)
	unsigned long fsbase;
#else
	struct {
		unsigned long tp_value;
	} uw;
#endif
};

struct timespec64 {
	s64 tv_sec;
	long tv_nsec;
};

struct super_block {
	u32 s_dev;
};

struct inode {
	struct super_block *i_sb;
	unsigned long i_ino;
	s64 i_size;
};

/* The change time: since Linux 6.11, since 6.6, and before. kernelTypes in kerneltypes.go knows of these other shapes. */
struct inode___seconds {
	s64 i_ctime_sec;
	u32 i_ctime_nsec; /* since 6.13 with a flag in its highest bit */
};
struct inode___hidden {
	struct timespec64 __i_ctime;
};
struct inode___plain {
	struct timespec64 i_ctime;
};

struct file {
	struct inode *f_inode;
};

struct mm_struct {
	struct file *exe_file;
};

struct task_struct {
	struct mm_struct *mm;
	int pid;
	int tgid;
	u64 start_boottime;
	struct task_struct *group_leader;
	struct signal_struct *signal;
	struct thread_struct thread;
};

#pragma clang attribute pop

/* The interrupted registers: an ABI of each architecture, the same in the event's context and in the kernel's own pt_regs. */
#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
#define REG_PC(r) ((r)->ip)
#define REG_SP(r) ((r)->sp)
#define REG_FP(r) ((r)->bp)
#define REG_LR(r) (0)
#define REG_G(r) ((r)->r14)
#define REG_KEPT(r) ((r)->r12) /* kept by C functions: the goroutine's SP in racecall, runtime/race_amd64.s */
/* Go's ABIInternal (cmd/compile/abi-internal.md) */
#define REG_ARG0(r) ((r)->ax)
#define REG_ARG1(r) ((r)->bx)
#define REG_ARG2(r) ((r)->cx)
#define REG_FLAGS(r) ((r)->flags)
#define REGS_USER(r) (((r)->cs & 3) != 0)
#else
struct pt_regs {
	u64 regs[31], sp, pc, pstate;
};
#define REG_PC(r) ((r)->pc)
#define REG_SP(r) ((r)->sp)
#define REG_FP(r) ((r)->regs[29])
#define REG_LR(r) ((r)->regs[30])
#define REG_G(r) ((r)->regs[28])
#define REG_KEPT(r) ((r)->regs[19]) /* runtime/race_arm64.s */
#define REG_ARG0(r) ((r)->regs[0])
#define REG_ARG1(r) ((r)->regs[1])
#define REG_ARG2(r) ((r)->regs[2])
#define REG_FLAGS(r) ((r)->pstate)
#define REGS_USER(r) (((r)->pstate & 0xf) == 0)
#endif

struct bpf_perf_event_data {
	struct pt_regs regs;
	u64 sample_period;
	u64 addr;
};

struct bpf_raw_tracepoint_args {
	u64 args[0];
};

struct bpf_pidns_info {
	u32 pid;
	u32 tgid;
};

#endif
