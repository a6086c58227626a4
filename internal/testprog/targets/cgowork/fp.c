// Compiled like the rest by cgo's flags; the attribute keeps frame pointers in this file's functions, whatever those say.
#pragma GCC optimize("O1,no-omit-frame-pointer,no-optimize-sibling-calls")
#include "work.h"

__attribute__((noinline)) uint64_t fp_inner(uint64_t n) {
	volatile uint64_t x = n;
	for (uint64_t i = 0; i < n; i++)
		x = x * 31 + i;
	return x;
}

__attribute__((noinline)) uint64_t fp_outer(uint64_t n) { return fp_inner(n) + 1; }
