package main

import (
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"
)

// files: what waits in read and write, with the poller and without.
func files() {
	r, _, err := os.Pipe()
	check(err)
	go func() { _, _ = r.Read(make([]byte, 1)) }()
	_, w, err := os.Pipe()
	check(err)
	go func() { _, _ = w.Write(make([]byte, 1<<20)) }()
	var fds [2]int
	check(syscall.Pipe(fds[:]))
	go func() { _, _ = syscall.Read(fds[0], make([]byte, 1)) }()
	go func() { _, _ = os.NewFile(uintptr(fds[0]), "pipe").Read(make([]byte, 1)) }()
	dir, err := os.MkdirTemp("", "waits")
	check(err)
	fifo := filepath.Join(dir, "fifo")
	check(syscall.Mkfifo(fifo, 0o600))
	go func() { _, _ = os.Open(fifo) }()
	time.Sleep(10 * time.Millisecond)
	go lockFile(filepath.Join(dir, "lock"))
	time.Sleep(10 * time.Millisecond)
	go lockFile(filepath.Join(dir, "lock"))
	time.Sleep(50 * time.Millisecond)
	check(os.RemoveAll(dir))
}

func lockFile(path string) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	check(err)
	_ = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
	select {}
}

// network: accepting, reading, writing.
func network() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	var conns []net.Conn
	for i := 0; i < 2; i++ {
		c, err := net.Dial("tcp", l.Addr().String())
		check(err)
		s, err := l.Accept()
		check(err)
		conns = append(conns, c, s)
	}
	go func() { _, _ = l.Accept() }()
	go func() { _, _ = conns[0].Read(make([]byte, 1)) }()
	time.Sleep(10 * time.Millisecond)
	go func() { _, _ = conns[0].Read(make([]byte, 1)) }() // waits for the other one
	go func() {
		for {
			if _, err := conns[2].Write(make([]byte, 1<<20)); err != nil {
				return
			}
		}
	}()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	check(err)
	go func() { _, _, _ = u.ReadFrom(make([]byte, 1)) }()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	check(err)
	f, err := net.FileConn(os.NewFile(uintptr(pair[0]), "pair"))
	check(err)
	go func() { _, _ = f.Read(make([]byte, 1)) }()
}

// systemCalls: those that take long, on threads of their own, and with locked threads.
func systemCalls() {
	go func() { _ = syscall.Nanosleep(&syscall.Timespec{Sec: 3600}, nil) }()
	go func() {
		var set syscall.FdSet
		_, _ = syscall.Select(0, &set, nil, nil, &syscall.Timeval{Sec: 3600})
	}()
	go func() {
		_, _, _ = syscall.Syscall6(syscall.SYS_PPOLL, 0, 0, 0, 0, 0, 0)
	}()
	child := exec.Command("/proc/self/exe", asleep) // there may be no other program
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig is about the thread that has started it
		started <- child.Start()
		_ = child.Wait()
	}()
	check(<-started)
	go func() {
		runtime.LockOSThread()
		<-make(chan int)
	}()
	go func() {
		runtime.LockOSThread()
		_ = syscall.Nanosleep(&syscall.Timespec{Sec: 3600}, nil)
	}()
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR2)
	go func() { <-c }()
}
