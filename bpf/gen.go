package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-O2 -g -Wall -Werror -mcpu=v3" -type record_type -type sample_kind -type sample_flag -type segment_kind -type segment_end -type stack_id -type target_flag -type counter -type record_header -type sample_header -type segment_header -type label_header -type target -type loss -type executable -type cpu_counts -type settings cpu cpu.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-O2 -g -Wall -Werror -mcpu=v3" -type name_query ksyms ksyms.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-O2 -g -Wall -Werror -mcpu=v3" -type alloc_site -type alloc_target -type alloc_totals alloc alloc.bpf.c
//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -cc clang-19 -strip llvm-strip-19 -target amd64,arm64 -cflags "-O2 -g -Wall -Werror -mcpu=v3" -type victim -type heap_watch -type heap_piece oom oom.bpf.c
