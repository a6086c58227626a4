package main

import (
	"runtime"
	"sync/atomic"
	"time"
	_ "unsafe" // for go:linkname
)

// gcphase is what the collector does (runtime/mgc.go): 0 nothing or sweeping, 1 marking, 2 the end of it.
//
//go:linkname gcphase runtime.gcphase
var gcphase uint32

// spin goes on without a call: nobody can interrupt it.
func spin() {
	for n := 0; ; n++ {
	}
}

// spinner is a goroutine that cannot be interrupted as soon as the collector marks; f decides when that is over.
func spinner(f func()) {
	for atomic.LoadUint32(&gcphase) == 0 {
		yield()
	}
	f()
}

// yield is a call in which a goroutine can be stopped.
//
//go:noinline
func yield() byte {
	var b [64]byte
	return b[use(b[:])]
}

//go:noinline
func use(b []byte) int { return int(b[0]) }

// roots are much to look at for the collector before it comes to stacks.
var roots [8 << 20]*int

const (
	processors = 12 // a quarter of them is for the collector
	unstopped  = 5
)

// worker has goroutines that cannot be stopped, so that as many of the collector's own wait for them.
func worker() {
	runtime.GOMAXPROCS(4)
	later(func() {
		go spinner(spin)
		runtime.GC()
	})
}

// mark has them, too, and others that must help the collector since they allocate: they wait for them as well, or find nothing that they could do.
func mark() {
	runtime.GOMAXPROCS(processors)
	roots[0] = new(int)
	for i := 0; i < processors; i++ {
		go allocate()
	}
	time.Sleep(10 * time.Millisecond)
	later(func() {
		for i := 0; i < unstopped; i++ {
			go spinner(spin)
		}
		runtime.GC()
	})
}

func allocate() {
	for {
		if atomic.LoadUint32(&gcphase) == 0 {
			time.Sleep(time.Microsecond)
			continue
		}
		list = append([]*[]byte(nil), make([]*[]byte, 1<<10)...)
	}
}

var list []*[]byte

// done has a goroutine that cannot be stopped when all is marked. Another one keeps the collector from that until then.
func done() {
	runtime.GOMAXPROCS(4)
	if strengthen != nil {
		go strengthen()
	}
	begun := uint32(0)
	later(func() {
		go spinner(func() {
			for atomic.LoadUint32(&begun) == 0 {
			}
			select {}
		})
		go spinner(func() {
			for end := time.Now().Add(time.Second); time.Now().Before(end); {
				yield()
			}
			atomic.StoreUint32(&begun, 1)
			spin()
		})
		runtime.GC()
	})
}

// strengthen makes strong pointers of a weak one all the time; nil: there are none in this version.
var strengthen func()
