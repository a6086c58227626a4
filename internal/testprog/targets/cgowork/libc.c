#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "_cgo_export.h"
#include "work.h"

static pthread_t thread;

__attribute__((noinline)) void call_go(int n) { goCallback(n); }

static void *thread_main(void *arg) {
	(void)arg;
	while (goThread())
		;
	return NULL;
}

int start_thread_into_go(void) { return pthread_create(&thread, NULL, thread_main, NULL); }

void join_thread(void) { pthread_join(thread, NULL); }

static char from[1 << 20], to[1 << 20];

__attribute__((noinline)) uint64_t libc_copy(size_t n) {
	for (size_t i = 0; i < n; i++) {
		memcpy(to, from, sizeof from);
		from[i % sizeof from]++;
	}
	return (uint64_t)to[7];
}

static int compare(const void *a, const void *b) {
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return (x > y) - (x < y);
}

__attribute__((noinline)) uint64_t libc_sort(size_t n) {
	static uint32_t data[1 << 16];
	uint32_t x = 1;
	if (n > sizeof data / sizeof data[0])
		n = sizeof data / sizeof data[0];
	for (size_t i = 0; i < n; i++)
		data[i] = x = x * 1664525 + 1013904223;
	qsort(data, n, sizeof data[0], compare);
	return data[n / 2];
}
