#include <stddef.h>
#include <stdint.h>

// The same loop, in one file compiled with frame pointers and in one without.
uint64_t fp_outer(uint64_t n);
uint64_t nofp_outer(uint64_t n);

// A C function that calls back into Go: C -> Go -> burning.
void call_go(int n);

// A thread of C's own making, which calls into Go for as long as that wants.
int start_thread_into_go(void);
void join_thread(void);

// libc working: memcpy and qsort with a comparison in C.
uint64_t libc_copy(size_t n);
uint64_t libc_sort(size_t n);
