/* SPDX-License-Identifier: (BSD-2-Clause OR GPL-2.0-only) */
/*
 * pprof labels of the goroutine: g.labels points to a map[string]string (Go <= 1.23) or to a slice of pairs (Go >= 1.24).
 * Both are immutable once published. runtime/map.go (1.23), runtime/pprof/label.go (1.24).
 */
#ifndef PPROFD_LABELS_H
#define PPROFD_LABELS_H

#include "walk.h"

#define BUCKET_BYTES 272 /* tophash[8], keys 8 x 16, values 8 x 16, overflow */
#define MAX_LABEL_STEPS 512
#define MAX_LABEL_STEPS_PLAIN 128
#define MAX_MAP_BITS 8 /* log2 of the buckets of a label map */
#define MIN_TOPHASH 5
#define LABEL_WORDS (MAX_LABEL_BYTES / 8)

static __always_inline u64 append_string(struct scratch *s, u64 ptr, u64 len)
{
	u64 at = s->pos;

	if (len > MAX_LABEL_BYTES)
		len = MAX_LABEL_BYTES;
	BARRIER(len);
	if (at > MAX_WORDS - LABEL_WORDS || len > MAX_LABEL_BYTES)
		return 0;
	BARRIER(at);
	if (len) {
		s->data[at + ((len - 1) >> 3 & 31)] = 0; /* the padding */
		if (!user_read(&s->data[at], len, ptr)) {
			s->flags |= SAMPLE_LABEL_ERR;
			len = 0;
		}
	}
	s->pos = at + ((len + 7) >> 3);
	return len;
}

/* append_label copies one pair; pair is {key ptr, key len, value ptr, value len}. Nonzero: no more room. */
static __always_inline long append_label(struct scratch *s, u64 kptr, u64 klen, u64 vptr, u64 vlen)
{
	u64 at = s->pos;

	if (s->labels >= MAX_LABELS || at > MAX_WORDS - 2 * LABEL_WORDS - 8) {
		s->flags |= SAMPLE_LABELS;
		return 1;
	}
	BARRIER(at);
	s->pos = at + 1;
	u64 k = append_string(s, kptr, klen), v = append_string(s, vptr, vlen);
	struct label_header *h = (struct label_header *)&s->data[at];

	h->key_bytes = k;
	h->value_bytes = v;
	h->key_cut = klen > MAX_LABEL_BYTES;
	h->value_cut = vlen > MAX_LABEL_BYTES;
	if (h->key_cut || h->value_cut)
		s->flags |= SAMPLE_LABELS;
	s->labels++;
	return 0;
}

/* Global functions, as walk_step. */
__noinline long take_slice_label(struct scratch *s, u32 i)
{
	u64 pair[4];

	if (!s || i >= s->lcount)
		return 1;
	if (!user_read(pair, sizeof(pair), s->lptr + i * sizeof(pair))) {
		s->flags |= SAMPLE_LABEL_ERR;
		return 1;
	}
	return append_label(s, pair[0], pair[1], pair[2], pair[3]);
}

/* next_bucket follows the overflow chain, then the array of buckets, then the old array of a growing map. */
static __always_inline bool next_bucket(struct scratch *s)
{
	if (s->lslot && s->chunk[BUCKET_BYTES / 8 - 1]) {
		s->lbase = s->chunk[BUCKET_BYTES / 8 - 1];
	} else if (s->lbuckets) {
		s->lbase = s->lptr;
		s->lptr += BUCKET_BYTES;
		s->lbuckets--;
	} else if (s->lold) {
		s->lbase = s->lptr = s->lold;
		s->lold = 0;
		s->lptr += BUCKET_BYTES;
		s->lbuckets = s->lcount;
	} else {
		return false;
	}
	s->lslot = 0;
	if (user_read(s->chunk, BUCKET_BYTES, s->lbase))
		return true;
	s->flags |= SAMPLE_LABEL_ERR;
	return false;
}

__noinline long take_map_label(struct scratch *s, u32 i)
{
	if (!s)
		return 1;
	if (s->lslot == 8 || i == 0) {
		if (!next_bucket(s))
			return 1;
	}
	u64 slot = s->lslot++;

	slot &= 7;
	BARRIER(slot);
	if (slot > 7)
		return 1;
	if (((s->chunk[0] >> (slot * 8)) & 0xff) < MIN_TOPHASH)
		return 0;
	u64 k = 1 + slot * 2, v = 17 + slot * 2;

	return append_label(s, s->chunk[k], s->chunk[k + 1], s->chunk[v], s->chunk[v + 1]);
}

static long slice_step(u32 i, struct walk_ctx *c)
{
	long end = take_slice_label(c->s, i);

	BARRIER(end);
	return end ? 1 : 0;
}

static long map_step(u32 i, struct walk_ctx *c)
{
	long end = take_map_label(c->s, i);

	BARRIER(end);
	return end ? 1 : 0;
}

static __always_inline void slice_labels(struct scratch *s, struct walk_ctx *c)
{
	if (have_loop) {
		bpf_loop(MAX_LABELS + 1, slice_step, c, 0);
		return;
	}
	for (u32 i = 0; i <= MAX_LABELS; i++)
		if (take_slice_label(s, i))
			break;
}

static __always_inline void map_labels(struct scratch *s, struct walk_ctx *c)
{
	if (have_loop) {
		bpf_loop(MAX_LABEL_STEPS, map_step, c, 0);
		return;
	}
	for (u32 i = 0; i < MAX_LABEL_STEPS_PLAIN; i++)
		if (take_map_label(s, i))
			break;
}

/* append_labels appends the labels of the goroutine, if it has any. */
static __always_inline void append_labels(struct scratch *s, struct target *t)
{
	struct walk_ctx c = {.s = s, .t = t};
	u64 head[4] = {};

	s->labels = 0;
	if (!s->labels_ptr)
		return;
	s->valid = 0;
	if (t->flags & TARGET_LABELS_SLICE) {
		if (!user_read(head, 24, s->labels_ptr)) {
			s->flags |= SAMPLE_LABEL_ERR;
			return;
		}
		s->lptr = head[0];
		s->lcount = head[1];
		if (s->lcount)
			slice_labels(s, &c);
	} else if (t->flags & TARGET_LABELS_MAP) {
		/* *map: hmap {count, flags u8, B u8, ..., buckets @0x10, oldbuckets @0x18} */
		if (!user_read(&head[0], 8, s->labels_ptr) || !head[0] || !user_read(head, 32, head[0])) {
			s->flags |= SAMPLE_LABEL_ERR;
			return;
		}
		u64 b = (head[1] >> 8) & 0xff;

		if (!head[0])
			return;
		if (b > MAX_MAP_BITS) {
			s->flags |= SAMPLE_LABEL_ERR;
			return;
		}
		s->lptr = head[2];
		s->lbuckets = 1ULL << (b & 15);
		s->lold = head[3];
		s->lcount = s->lbuckets >> 1; /* buckets of the old array, unless it grew to the same size */
		s->lslot = 0;
		map_labels(s, &c);
	}
}

#endif
