#pragma GCC optimize("O2,omit-frame-pointer,no-optimize-sibling-calls")
#include "work.h"

// Registers enough to be short of them: the frame pointer's is used as any other.
__attribute__((noinline)) uint64_t nofp_inner(uint64_t n) {
	uint64_t a = n, b = 1, c = 2, d = 3, e = 4, f = 5, g = 6, h = 7, k = 8, l = 9, m = 10, o = 11;
	for (uint64_t i = 0; i < n; i++) {
		a += b ^ i; b += c * 3; c ^= d + i; d += e; e ^= f * 5; f += g;
		g ^= h + i; h += k * 7; k ^= l; l += m ^ i; m += o; o ^= a;
	}
	return a + b + c + d + e + f + g + h + k + l + m + o;
}

__attribute__((noinline)) uint64_t nofp_outer(uint64_t n) { return nofp_inner(n) + 1; }
