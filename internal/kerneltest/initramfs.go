package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/cavaliergopher/cpio"
)

// tree is the content of an initramfs: directories, files and symbolic links, in the order in which the kernel is to make them.
// It is written without compression: qemu copies it faster than an emulated CPU could unpack it.
type tree struct {
	entries []entry
	index   map[string]bool
}

type entry struct {
	name string // absolute, in the machine
	kind cpio.FileMode
	file string // on the host: the content; "" if it is in data
	data []byte // of a symbolic link: where it points to
}

func (t *tree) has(name string) bool { return t.index[name] }

func (t *tree) add(e entry) {
	if t.has(e.name) {
		return
	}
	if parent := path.Dir(e.name); parent != "/" {
		t.addDir(parent)
	}
	if t.index == nil {
		t.index = make(map[string]bool)
	}
	t.index[e.name] = true
	t.entries = append(t.entries, e)
}

func (t *tree) addDir(name string) { t.add(entry{name: name, kind: cpio.TypeDir}) }

func (t *tree) addFile(name, file string) { t.add(entry{name: name, kind: cpio.TypeReg, file: file}) }

func (t *tree) addData(name string, data []byte) {
	t.add(entry{name: name, kind: cpio.TypeReg, data: data})
}

func (t *tree) addLink(name, to string) {
	t.add(entry{name: name, kind: cpio.TypeSymlink, data: []byte(to)})
}

// write makes the archive and returns its name.
func (t *tree) write(name string) (string, error) {
	f, err := os.Create(name)
	if err != nil {
		return "", fmt.Errorf("initramfs: %w", err)
	}
	defer f.Close()
	buf := bufio.NewWriterSize(f, 1<<20)
	w := cpio.NewWriter(buf)
	for _, e := range t.entries {
		if err := e.write(w); err != nil {
			return "", fmt.Errorf("initramfs: %s: %w", e.name, err)
		}
	}
	if err := w.Close(); err != nil {
		return "", fmt.Errorf("initramfs: %w", err)
	}
	if err := buf.Flush(); err != nil {
		return "", fmt.Errorf("initramfs: %w", err)
	}
	return name, f.Close()
}

func (e *entry) write(w *cpio.Writer) error {
	h := &cpio.Header{Name: strings.TrimPrefix(e.name, "/"), Mode: e.kind | 0o755, Size: int64(len(e.data))}
	if e.kind == cpio.TypeReg {
		h.Mode = e.kind | 0o644
	}
	if e.file != "" {
		return e.copy(w, h)
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(w, bytes.NewReader(e.data))
	return err
}

// copy streams the file; the machine's memory is the limit, not ours. Who may execute it here may do so there, all may read it.
func (e *entry) copy(w *cpio.Writer, h *cpio.Header) error {
	f, err := os.Open(e.file)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	h.Size = info.Size()
	if info.Mode()&0o111 != 0 {
		h.Mode |= 0o111
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err = io.Copy(w, f)
	return err
}
