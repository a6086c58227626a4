/* loader PROGRAM ARGS...: what an executable packer's stub does. It copies the segments of a static
 * program into anonymous memory at their addresses and jumps to its entry, on the stack that the
 * kernel made, without its own name. x86-64. */
#include <elf.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define PAGE 4096UL

static int load(const char *file, const Elf64_Phdr *p)
{
	unsigned long start = p->p_vaddr & ~(PAGE - 1);
	unsigned long end = (p->p_vaddr + p->p_memsz + PAGE - 1) & ~(PAGE - 1);
	int prot = (p->p_flags & PF_R ? PROT_READ : 0) | (p->p_flags & PF_W ? PROT_WRITE : 0) | (p->p_flags & PF_X ? PROT_EXEC : 0);
	void *m = mmap((void *)start, end - start, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (m != (void *)start)
		return 0;
	memcpy((void *)p->p_vaddr, file + p->p_offset, p->p_filesz);
	return mprotect(m, end - start, prot) == 0;
}

int main(int argc, char **argv)
{
	struct stat st;
	int fd = argc > 1 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;

	if (fd < 0 || fstat(fd, &st) != 0)
		return 1;
	char *file = mmap(NULL, st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (file == MAP_FAILED)
		return 2;
	Elf64_Ehdr *e = (Elf64_Ehdr *)file;
	Elf64_Phdr *p = (Elf64_Phdr *)(file + e->e_phoff);
	for (int i = 0; i < e->e_phnum; i++)
		if (p[i].p_type == PT_LOAD && !load(file, &p[i]))
			return 3;
	unsigned long entry = e->e_entry;
	munmap(file, st.st_size);
	argv[0] = (char *)(argc - 1L);
	__asm__ volatile("mov %0, %%rsp; xor %%edx, %%edx; jmp *%1" : : "r"(argv), "r"(entry) : "memory", "rdx");
	__builtin_unreachable();
}
